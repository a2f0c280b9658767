// SPDX-License-Identifier: BSD-3-Clause
// How sm80.decode and sm90.decode divide a batch among its blocks, by itself: kernels of nothing but its
// ranges and segments, compiled and run on the emulator for 1000 random ragged batches a target, against a
// plain walk of the batch.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "templates/forward/decode/ranges.h"

#include "ir/carried.h"
#include "ir/warp.h"
#include "spec/params.h"
#include "templates/registry.h"
#include "tests/emulator/run.h"
#include "tests/ir/batch_memory.h"
#include "tests/ir/kernel.h"

#include <algorithm>
#include <cstring>
#include <doctest/doctest.h>
#include <map>
#include <set>

using namespace flashplus;
using namespace flashplus::emu;

namespace {

/// What a block writes of each of its segments.
struct Record {
  int32_t batch, head_k, m, rows, first_row, last_row, begin, end, first_block, blocks, at, next;
};
/// And before them.
struct Header {
  int32_t segments, start, end, share;
};
constexpr int kMostSegments = 1 << 11; // of a block
constexpr size_t kBlockBytes = sizeof(Header) + kMostSegments * sizeof(Record);

struct Variant {
  KernelSpec spec;
  Schedule schedule;
  DecodeLayout layout;
  std::shared_ptr<const Program> program;
};

/// Between two segments: the place, and how many came before.
struct Walk {
  decode::Place place;
  Val count;
  void fields(auto &&each) { each(place, count); }
};

Variant make(const Target &target, bool left, bool right, KeyAddressing keys, int tile_m, int least,
             const char *algorithm = "sm80.decode") {
  Variant v;
  v.spec.head_dim_qk = v.spec.head_dim_v = 64;
  v.spec.bounded_left = left;
  v.spec.bounded_right = right;
  v.spec.keys = keys;
  v.spec.results = Results::Merged;
  v.schedule = completeSchedule({algorithm, {{"tile_m", tile_m}, {"least", least}}});
  v.layout = DecodeLayout::of(v.spec, v.schedule);
  const std::string ptx = flashplus::test::compileKernel(target, [&](Ir &ir, Val in, Val out, Val lane) {
    Val block = ir.wrap(mlir::NVVM::BlockIdXOp::create(ir.builder, ir.loc, ir.i32()));
    EmitContext context{ir,     v.spec,  v.schedule,
                        target, nullptr, ParamReader(ir, in, paramTable<ForwardParams>()),
                        block,  Val{},   Val{}};
    decode::Line line(context, v.layout);
    line.find(lane);
    Val own = ir.offset(out, ir.toI64(block) * int64_t(kBlockBytes));
    auto store = [&](Val to, std::initializer_list<Val> values) {
      ir.ifThen(lane == 0, [&] {
        int64_t at = 0;
        for (Val value : values)
          ir.store(value, ir.offset(to, 4 * at++), 4);
      });
    };
    const Walk done = carry::whileLoop(
        ir, Walk{line.start(), ir.i32(0)}, [&](const Walk &now) { return now.place.at < line.end(); },
        [&](const Walk &now) {
          const decode::Segment s(context, v.layout, line, now.place);
          store(ir.offset(own, ir.toI64(now.count) * int64_t(sizeof(Record)) + int64_t(sizeof(Header))),
                {s.item.batch, s.item.head_k, s.item.m, s.rows, s.first_row, s.last_row, s.begin, s.end,
                 s.first_block, s.blocks, now.place.at, s.next().at});
          return Walk{s.next(), now.count + 1};
        });
    store(own, {done.count, line.start().at, line.end(), line.share()});
  });
  auto program = loadProgram(ptx, "test");
  REQUIRE_MESSAGE(program.isOk(), program.status().message());
  v.program = *program;
  return v;
}

/// A batch, as arrays say it.
struct Batch {
  std::vector<int32_t> queries, keys; ///< Of each sequence.
  int heads_k = 1, group = 1, window_left = 0, window_right = 0, blocks = 1;
  enum class Form { Dense, Packed, Used } form = Form::Dense;
};

constexpr uint64_t kMostBlocks = 255; // as the planner has them: a count is a byte

Batch randomBatch(emu::test::Random &random) {
  Batch b;
  b.form = Batch::Form(random.below(3));
  const int sequences = 1 + int(random.below(random.below(8) ? 40 : 300));
  const bool many = sequences > 40;
  b.heads_k = many ? 1 : 1 + int(random.below(4));
  b.group = 1 + int(random.below(9));
  b.window_left = int(random.below(200));
  b.window_right = int(random.below(3));
  b.blocks = 1 + int(random.below(random.below(4) ? 60 : kMostBlocks));
  const int most_keys = 1 << random.below(12),
            most_queries = 1 + int(random.below(many || random.below(4) ? 2 : 9));
  for (int i = 0; i < sequences; ++i) {
    const bool same = b.form == Batch::Form::Dense && i > 0;
    b.queries.push_back(same ? b.queries[0] : int32_t(random.below(uint64_t(most_queries) + 1)));
    b.keys.push_back(same ? b.keys[0] : random.below(6) ? int32_t(random.below(uint64_t(most_keys))) : 0);
  }
  return b;
}

int64_t ceilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Tiles [begin, end) of the keys that rows [first, last] of a sequence see; empty: begin = end.
std::pair<int64_t, int64_t> seenTiles(const Variant &v, const Batch &b, size_t sequence, int64_t first,
                                      int64_t last) {
  const int64_t keys = b.keys[sequence], shift = keys - b.queries[sequence];
  const int64_t lo = v.spec.bounded_left ? std::clamp<int64_t>(first + shift - b.window_left, 0, keys) : 0;
  const int64_t hi =
      v.spec.bounded_right ? std::clamp<int64_t>(last + shift + b.window_right + 1, 0, keys) : keys;
  const int64_t begin = lo / v.layout.tile_n;
  return {begin, lo < hi ? ceilDivide(hi, v.layout.tile_n) : begin};
}

struct Segments {
  std::vector<Header> headers;
  std::vector<std::vector<Record>> records; ///< By block.
};

Segments divide(const Variant &v, const Batch &b, int64_t row_tiles) {
  flashplus::test::BatchMemory on_device;
  GlobalMemory &memory = on_device.memory;
  ForwardParams p;
  p.batch = int32_t(b.keys.size());
  p.heads_k = b.heads_k;
  p.heads_q = b.heads_k * b.group;
  p.window_left = b.window_left;
  p.window_right = b.window_right;
  p.num_m_tiles = int32_t(row_tiles);
  p.seqlen_q = *std::ranges::max_element(b.queries);
  p.seqlen_k = std::max(1, *std::ranges::max_element(b.keys));
  if (b.form == Batch::Form::Packed)
    p.cu_seqlens_q = on_device.cumulative(b.queries);
  else if (b.form == Batch::Form::Used)
    p.seqused_q = on_device.put(b.queries);
  if (b.form == Batch::Form::Used || v.spec.pagedKeys())
    p.seqused_k = on_device.put(b.keys);
  else if (b.form == Batch::Form::Packed)
    p.cu_seqlens_k = on_device.cumulative(b.keys);
  if (b.form == Batch::Form::Dense && !v.spec.pagedKeys())
    p.seqlen_k = b.keys[0];
  if (v.spec.pagedKeys()) {
    on_device.setPageSize(p, 16);
  }
  void *const params = on_device.put(&p, sizeof p);
  void *const output = memory.allocate(size_t(b.blocks) * kBlockBytes);
  const uint64_t pointers[2] = {reinterpret_cast<uint64_t>(params), reinterpret_cast<uint64_t>(output)};
  LaunchConfig config;
  config.grid = {uint32_t(b.blocks), 1, 1};
  config.params = {reinterpret_cast<const uint8_t *>(pointers), sizeof pointers};
  const LaunchResult result = launch(*v.program, memory, config, {});
  REQUIRE_MESSAGE(!result.fault, result.fault->text());
  Segments segments;
  for (int block = 0; block < b.blocks; ++block) {
    const uint64_t at = reinterpret_cast<uint64_t>(output) + uint64_t(block) * kBlockBytes;
    Header header;
    REQUIRE(memory.read(at, &header, sizeof header));
    REQUIRE(header.segments <= kMostSegments);
    std::vector<Record> records(size_t(header.segments));
    if (header.segments)
      REQUIRE(memory.read(at + sizeof header, records.data(), records.size() * sizeof(Record)));
    segments.headers.push_back(header);
    segments.records.push_back(std::move(records));
  }
  return segments;
}

/// "" if every key tile of every item is in one block's range, and places and counts are right.
std::string complaint(const Variant &v, const Batch &b) {
  const int tile_m = v.layout.tile_m;
  const int64_t row_tiles = std::max<int64_t>(
      1, ceilDivide(int64_t(*std::ranges::max_element(b.queries)) * b.group, tile_m)); // as the planner's
  const Segments found = divide(v, b, row_tiles);

  // Every item's segments, in the order of the blocks.
  struct Part {
    int block;
    Record record;
  };
  std::map<std::tuple<int, int, int>, std::vector<Part>> items;
  int64_t line = 0;
  for (int block = 0; block < b.blocks; ++block) {
    const Header &h = found.headers[size_t(block)];
    int64_t at = h.start;
    if (h.start != line)
      return "a range does not begin where the one before ends";
    if (h.end - h.start > h.share || h.share < v.layout.least)
      return "a range is longer than a share, or a share shorter than the least";
    int shared = 0;
    for (const Record &r : found.records[size_t(block)]) {
      if (r.at != at || r.next <= r.at || r.next > h.end)
        return "segments do not follow each other";
      at = r.next;
      shared += r.blocks > 1;
      items[{r.batch, r.head_k, r.m}].push_back({block, r});
    }
    if (at != h.end)
      return "segments end before the range";
    if (shared > 2)
      return "a block has more than two items that are not all its own";
    line = h.end;
  }

  std::set<int> places, counters;
  int64_t tiles = 0;
  for (size_t sequence = 0; sequence < b.keys.size(); ++sequence) {
    const int64_t queries = b.queries[sequence];
    const auto [all_begin, all_end] = seenTiles(v, b, sequence, 0, queries - 1);
    const int64_t own_tiles = std::clamp<int64_t>(ceilDivide(queries * b.group, tile_m), 1, row_tiles);
    for (int head = 0; head < b.heads_k; ++head)
      for (int m = 0; m < own_tiles; ++m) {
        const std::string name =
            "item " + std::to_string(sequence) + "," + std::to_string(head) + "," + std::to_string(m) + ": ";
        const auto parts = items.find({int(sequence), head, m});
        if (parts == items.end())
          return name + "nobody has it";
        tiles += std::max<int64_t>(1, all_end - all_begin);
        const int64_t rows = std::min<int64_t>(tile_m, queries * b.group - int64_t(m) * tile_m);
        int64_t begin = 0, end = 0;
        if (rows > 0)
          std::tie(begin, end) = seenTiles(v, b, sequence, int64_t(m) * tile_m / b.group,
                                           (int64_t(m) * tile_m + rows - 1) / b.group);
        std::vector<int> seen(size_t(std::max<int64_t>(0, end - begin)));
        const int first = parts->second.front().block, blocks = int(parts->second.size());
        for (int i = 0; i < blocks; ++i) {
          const auto &[block, r] = parts->second[size_t(i)];
          if (r.rows != rows)
            return name + "it has " + std::to_string(r.rows) + " rows";
          if (block != first + i || r.first_block != first || r.blocks != blocks)
            return name + "its blocks are miscounted";
          for (int64_t tile = r.begin; tile < r.end; ++tile) {
            if (tile < begin || tile >= end)
              return name + "a tile is computed that no row sees";
            ++seen[size_t(tile - begin)];
          }
          // As Merge::place: where a block's share of an item lies.
          if (blocks > 1 && !places.insert(block * 2 + (i == 0)).second)
            return name + "a place of the workspace is taken twice";
        }
        if (std::ranges::any_of(seen, [](int times) { return times != 1; }))
          return name + "a tile is not computed once";
        if (blocks > 1 && !counters.insert(first).second)
          return name + "its counter is another's, too";
        // As Merge::mergeShares: where groups of very many shares are counted, and where their sums lie.
        constexpr int kGroup = DecodeLayout::kShareGroup;
        for (int group = 0; blocks > DecodeLayout::kMostShares && group * kGroup < blocks; ++group) {
          const int counter =
              DecodeLayout::groupCounter(first, group * kGroup, [](int a, int b) { return std::max(a, b); });
          if (counter <= first || counter >= first + blocks || !counters.insert(counter).second)
            return name + "the counter of a group is another's, too";
          if (!places.insert(DecodeLayout::groupPlace(first, group)).second)
            return name + "the place of a group is taken twice";
        }
        items.erase(parts);
      }
  }
  if (!items.empty())
    return "there is an item that the batch has not";
  return tiles == line ? "" : "the line has another length than the batch";
}

} // namespace

TEST_CASE("every key tile of a batch is in one block's range; places and counts are right") {
  for (const char *name : {"sm_80", "sm_90a"}) {
    const Target target = *Target::parse(name);
    const Variant variants[] = {make(target, false, false, KeyAddressing::Rows, 8, 4),
                                make(target, false, true, KeyAddressing::Rows, 16, 1),
                                make(target, true, true, KeyAddressing::Rows, 8, 1),
                                make(target, false, true, KeyAddressing::Paged, 32, 8),
                                make(target, false, true, KeyAddressing::Rows, 8, 2,
                                     isaInfo(target.isa).has(kTma) ? "sm90.decode" : "sm80.decode")};
    emu::test::Random random(20260101);
    for (int i = 0; i < 1000; ++i) {
      const Batch batch = randomBatch(random);
      const std::string wrong = complaint(variants[i % std::size(variants)], batch);
      REQUIRE_MESSAGE(wrong == "", name << ", batch " << i << " of the seed: " << wrong);
    }
  }
}
