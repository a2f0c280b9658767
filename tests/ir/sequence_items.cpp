// SPDX-License-Identifier: BSD-3-Clause
// Work items by true lengths, by themselves: kernels of nothing but the search, compiled and run on the
// emulator for 1000 random batches, against a plain walk of the batch.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "templates/common/sequence_items.h"

#include "ir/carried.h"
#include "ir/warp.h"
#include "spec/params.h"
#include "tests/emulator/run.h"
#include "tests/ir/batch_memory.h"
#include "tests/ir/kernel.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <doctest/doctest.h>
#include <map>

using namespace flashplus;
using namespace flashplus::emu;

namespace {

struct Record {
  int32_t item, batch, head, head_k, split, m;
};

constexpr int kTileM = 16;
constexpr int kBlocks = 4;
constexpr size_t kMostRecords = 1 << 16; // of a block
constexpr size_t kBlockBytes = 8 + kMostRecords * sizeof(Record);

struct Walk {
  Val item, count, more;
  SequenceItems::Cursor cursor;
  void fields(auto &&each) { each(item, count, more, cursor); }
};

struct Variant {
  KernelSpec spec;
  std::shared_ptr<const Program> program;
};

/// Block b has the items b, b + kBlocks, ...: all of them are somebody's.
Variant make(bool shares, KeyAddressing keys) {
  Variant v;
  v.spec.head_dim_qk = v.spec.head_dim_v = 64;
  v.spec.bounded_right = true;
  v.spec.keys = keys;
  v.spec.results = shares ? Results::Partial : Results::Final;
  const std::string ptx =
      flashplus::test::compileKernel(*Target::parse("sm_90a"), [&](Ir &ir, Val in, Val out, Val lane) {
        Val block = ir.wrap(mlir::NVVM::BlockIdXOp::create(ir.builder, ir.loc, ir.i32()));
        const ParamReader params(ir, in, paramTable<ForwardParams>());
        const SequenceItems items(ir, params, v.spec, lane, kTileM);
        Val own = ir.offset(out, ir.toI64(block) * int64_t(kBlockBytes));
        auto store = [&](Val to, std::initializer_list<Val> values) {
          ir.ifThen(lane == 0, [&] {
            int64_t at = 0;
            for (Val value : values)
              ir.store(value, ir.offset(to, 4 * at++), 4);
          });
        };
        const Walk done = carry::whileLoop(
            ir, Walk{block, ir.i32(0), ir.boolean(true), items.start()},
            [&](const Walk &now) { return now.more; },
            [&](const Walk &now) {
              const auto [work, cursor, present] = items.find(now.cursor, now.item);
              ir.ifThen(present, [&] {
                store(ir.offset(own, ir.toI64(now.count) * int64_t(sizeof(Record)) + 8),
                      {now.item, work.batch, work.head, work.head_k, work.split, work.m});
              });
              return Walk{now.item + kBlocks, now.count + ir.select(present, ir.i32(1), ir.i32(0)), present,
                          cursor};
            });
        store(own, {done.count, ir.i32(0)});
      });
  auto program = loadProgram(ptx, "test");
  REQUIRE_MESSAGE(program.isOk(), program.status().message());
  v.program = *program;
  return v;
}

struct Batch {
  std::vector<int32_t> queries, keys;
  int heads_k = 1, group = 1, splits = 1, section = 1;
  enum class Form { Dense, Packed, Used, UsedKeys } form = Form::Dense;
};

Batch randomBatch(emu::test::Random &random, const Variant &v) {
  Batch b;
  b.form = Batch::Form(random.below(4));
  const int kind = int(random.below(12));
  const int sequences = 1 + int(random.below(kind == 0 ? 300 : kind < 4 ? 33 : 70));
  b.heads_k = 1 + int(random.below(3));
  b.group = 1 + int(random.below(3));
  b.splits = v.spec.sharesKeys() ? 1 + int(random.below(3)) : 1;
  b.section = 1 + int(random.below(uint64_t(b.heads_k * b.group * 2)));
  const int most_keys = 1 << random.below(14), most_queries = kind == 0 ? 20 : 1 << random.below(7);
  for (int i = 0; i < sequences; ++i) {
    const bool same_q = (b.form == Batch::Form::Dense || b.form == Batch::Form::UsedKeys) && i > 0,
               same_k = b.form == Batch::Form::Dense && i > 0;
    const bool empty = random.below(5) == 0;
    const int32_t queries = empty ? 0 : int32_t(random.below(uint64_t(most_queries) + 1));
    b.queries.push_back(same_q ? b.queries[0] : queries);
    b.keys.push_back(same_k ? b.keys[0] : random.below(6) ? int32_t(random.below(uint64_t(most_keys))) : 0);
  }
  return b;
}

std::vector<Record> found(const Variant &v, const Batch &b) {
  flashplus::test::BatchMemory on_device;
  GlobalMemory &memory = on_device.memory;
  ForwardParams p;
  p.batch = int32_t(b.keys.size());
  p.heads_k = b.heads_k;
  p.heads_q = b.heads_k * b.group;
  p.num_splits = b.splits;
  p.heads_per_section = b.section;
  p.seqlen_q = *std::ranges::max_element(b.queries);
  p.seqlen_k = std::max(1, *std::ranges::max_element(b.keys));
  p.num_m_tiles = (p.seqlen_q + kTileM - 1) / kTileM;
  p.num_work_items = p.batch * p.heads_q * p.num_splits * p.num_m_tiles;
  if (b.form == Batch::Form::Packed) {
    p.cu_seqlens_q = on_device.cumulative(b.queries);
  } else if (b.form == Batch::Form::Used) {
    p.seqused_q = on_device.put(b.queries);
  }
  if (b.form == Batch::Form::Packed && !v.spec.pagedKeys())
    p.cu_seqlens_k = on_device.cumulative(b.keys);
  else if (b.form != Batch::Form::Dense)
    p.seqused_k = on_device.put(b.keys);
  if (v.spec.pagedKeys()) {
    on_device.setPageSize(p, 16);
  }
  if (p.num_work_items == 0)
    return {}; // nothing is launched
  void *const params = on_device.put(&p, sizeof p), *const output = memory.allocate(kBlocks * kBlockBytes);
  const uint64_t pointers[2] = {reinterpret_cast<uint64_t>(params), reinterpret_cast<uint64_t>(output)};
  LaunchConfig config;
  config.grid = {kBlocks, 1, 1};
  config.params = {reinterpret_cast<const uint8_t *>(pointers), sizeof pointers};
  const LaunchResult result = launch(*v.program, memory, config, {});
  REQUIRE_MESSAGE(!result.fault, result.fault->text());
  std::vector<Record> all;
  for (int block = 0; block < kBlocks; ++block) {
    const uint64_t at = reinterpret_cast<uint64_t>(output) + uint64_t(block) * kBlockBytes;
    int32_t header[2];
    REQUIRE(memory.read(at, header, sizeof header));
    REQUIRE(size_t(header[0]) <= kMostRecords);
    const size_t before = all.size();
    all.resize(before + size_t(header[0]));
    if (header[0])
      REQUIRE(memory.read(at + 8, all.data() + before, size_t(header[0]) * sizeof(Record)));
  }
  std::ranges::sort(all, {}, &Record::item);
  return all;
}

/// "" if every query tile of every sequence, head and share is one item, in the order that is promised.
std::string complaint(const Variant &v, const Batch &b) {
  const std::vector<Record> items = found(v, b);
  const int heads = b.heads_k * b.group;
  auto tilesOf = [&](int32_t sequence) { return (b.queries[size_t(sequence)] + kTileM - 1) / kTileM; };
  int64_t expected = 0;
  for (size_t i = 0; i < b.queries.size(); ++i)
    expected += int64_t(tilesOf(int32_t(i))) * heads * b.splits;
  if (int64_t(items.size()) != expected)
    return "there are " + std::to_string(items.size()) + " items and not " + std::to_string(expected);
  std::map<std::tuple<int, int, int, int>, int> times;
  const Record *last = nullptr;
  for (const Record &r : items) {
    const std::string name = "item " + std::to_string(r.item) + ": ";
    if (r.item != (last ? last->item + 1 : 0))
      return name + "its number is not the next one";
    if (r.batch < 0 || r.batch >= int(b.queries.size()) || r.m < 0 || r.m >= tilesOf(r.batch) || r.head < 0 ||
        r.head >= heads || r.split < 0 || r.split >= b.splits || r.head_k != r.head / b.group)
      return name + "no sequence has it";
    if (++times[{r.batch, r.head, r.split, r.m}] > 1)
      return name + "it comes twice";
    if (b.form != Batch::Form::Dense && last) {
      auto power = [&](int32_t batch) {
        return std::max(1, int(std::bit_width(unsigned(b.keys[size_t(batch)]))));
      };
      const int before = power(last->batch), now = power(r.batch);
      if (now > before || (now == before && r.batch < last->batch))
        return name + "its sequence is longer than those before, or earlier among equals";
      if (r.batch == last->batch && b.section >= heads * b.splits && r.m > last->m)
        return name + "a later tile comes after an earlier one";
    }
    last = &r;
  }
  return "";
}

} // namespace

TEST_CASE("every tile, head and share of a batch is one item, those of the longest sequences first") {
  const Variant variants[] = {make(false, KeyAddressing::Rows), make(true, KeyAddressing::Rows),
                              make(false, KeyAddressing::Paged)};
  emu::test::Random random(20261130);
  for (int i = 0; i < 1000; ++i) {
    const Variant &v = variants[i % std::size(variants)];
    const Batch batch = randomBatch(random, v);
    const std::string wrong = complaint(v, batch);
    REQUIRE_MESSAGE(wrong == "", "batch " << i << " of the seed: " << wrong);
  }
}
