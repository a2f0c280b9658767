// SPDX-License-Identifier: BSD-3-Clause
// Fragment along both axes: small kernels for one warp, compiled to PTX and run on the emulator, whose
// shuffles and products follow the PTX ISA on their own.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "templates/common/fragment.h"
#include "ir/mma.h"
#include "ir/warp.h"
#include "tests/emulator/run.h"
#include "tests/ir/kernel.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <doctest/doctest.h>

using namespace flashplus;

namespace {

std::string compile(test::KernelBody body) { return test::compileKernel(*Target::parse("sm_80"), body); }

std::vector<float> run(const std::string &ptx, const std::vector<float> &input) {
  emu::test::Case c;
  c.name = "fragment";
  c.ptx = ptx;
  c.input.resize(input.size() * sizeof(float));
  std::memcpy(c.input.data(), input.data(), c.input.size());
  c.output_bytes = c.input.size();
  const emu::test::Ran ran = emu::test::run(c);
  REQUIRE(ran.error == "");
  std::vector<float> output(input.size());
  std::memcpy(output.data(), ran.output.data(), ran.output.size());
  return output;
}

/// Calls each(value, pointer to its element of a row-major matrix).
void forElements(Ir &ir, Fragment &f, Val matrix, Val lane, llvm::function_ref<void(Val &, Val)> each) {
  const int columns = 8 * f.layout.column_blocks;
  for (int r = 0; r < f.lines(Axis::Rows); ++r)
    for (int c = 0; c < f.lines(Axis::Columns); ++c) {
      Val row = firstOfLane(Axis::Rows, lane) + FragmentLayout::offset(Axis::Rows, r);
      Val column = firstOfLane(Axis::Columns, lane) + FragmentLayout::offset(Axis::Columns, c);
      each(f.at(Axis::Rows, r, c), ir.offset(matrix, ir.toI64(row * columns + column) * 4));
    }
}

Fragment load(Ir &ir, FragmentLayout layout, Val matrix, Val lane) {
  Fragment f = Fragment::filled(layout, ir.f32(0));
  forElements(ir, f, matrix, lane, [&](Val &value, Val at) { value = ir.load(ir.f32(), at, 4); });
  return f;
}

void store(Ir &ir, Fragment f, Val matrix, Val lane) {
  forElements(ir, f, matrix, lane, [&](Val &value, Val at) { ir.store(value, at, 4); });
}

std::vector<float> numbers(int count) {
  std::vector<float> all;
  for (int i = 0; i < count; ++i)
    all.push_back(float((i * 37 + i / 11) % 101 - 50)); // small integers: sums and products are exact
  return all;
}

} // namespace

TEST_CASE("reduces, scales and masks along either axis") {
  const FragmentLayout layout{2, 3};
  const int rows = 32, columns = 24;
  const std::vector<float> in = numbers(rows * columns);
  for (Axis queries : {Axis::Rows, Axis::Columns})
    for (int chains : {1, 2, 4}) {
      CAPTURE(int(queries));
      CAPTURE(chains);
      const std::string ptx = compile([&](Ir &ir, Val input, Val output, Val lane) {
        Fragment f = load(ir, layout, input, lane);
        Vals sums, largest;
        for (int line = 0; line < f.lines(queries); ++line) {
          auto add = [](Val a, Val b) { return a + b; };
          auto most = [&](Val a, Val b) { return ir.fmax(a, b); };
          sums.push_back(reduceAcrossLanes(queries, reduceInThread(f, queries, line, chains, add), add));
          largest.push_back(reduceAcrossLanes(queries, reduceInThread(f, queries, line, chains, most), most));
        }
        scaleLines(f, queries, sums);
        for (int line = 0; line < f.lines(queries); ++line) {
          scaleLine(f, queries, line, largest[size_t(line)]);
          Val query = firstOfLane(queries, lane) + FragmentLayout::offset(queries, line);
          Val first_key = firstOfLane(across(queries), lane);
          Val lo = query % 5 - first_key, hi = query % 7 + 12 - first_key;
          hideKeys(f, queries, line, chains == 1 ? Val{} : lo, hi, ir.f32(-1));
        }
        store(ir, f, output, lane);
      });
      const std::vector<float> got = run(ptx, in);
      auto at = [&](int query, int key) {
        return queries == Axis::Rows ? query * columns + key : key * columns + query;
      };
      const int lines = queries == Axis::Rows ? rows : columns, keys = rows + columns - lines;
      for (int query = 0; query < lines; ++query) {
        float sum = 0, most = -INFINITY;
        for (int key = 0; key < keys; ++key) {
          sum += in[size_t(at(query, key))];
          most = std::max(most, in[size_t(at(query, key))]);
        }
        for (int key = 0; key < keys; ++key) {
          const bool seen = (chains == 1 || key >= query % 5) && key < query % 7 + 12;
          const float want = seen ? in[size_t(at(query, key))] * sum * most * -1 : -INFINITY;
          INFO("query " << query << " key " << key);
          CHECK(got[size_t(at(query, key))] == want);
        }
      }
    }
}

TEST_CASE("hands itself on as a product's A operand") {
  const FragmentLayout layout{2, 4};
  const std::vector<float> in = numbers(32 * 32);
  for (DType dtype : {DType::F16, DType::BF16}) {
    const std::string ptx = compile([&](Ir &ir, Val input, Val output, Val lane) {
      const Fragment f = load(ir, layout, input, lane);
      Fragment product = Fragment::filled(layout, ir.f32(0));
      // Times a matrix that picks 8 of the 16 columns, B (PTX ISA, mma.m16n8k16): k = 2 (lane % 4) + 8
      // register, n = lane / 4.
      for (int block = 0; block < layout.column_blocks; ++block) {
        Vals b;
        for (int reg = 0; reg < 2; ++reg) {
          Val k = lane % 4 * 2 + 8 * reg, wanted = lane / 4 + block % 2 * 8;
          auto one = [&](Val is) { return ir.select(is, ir.f32(1), ir.f32(0)); };
          b.push_back(gpu::pack(ir, dtype, one(k == wanted), one(k + 1 == wanted)));
        }
        for (int row_block = 0; row_block < layout.row_blocks; ++row_block) {
          const Vals a = operandA(f, dtype, row_block, block / 2);
          const Vals d = gpu::mma16816(ir, dtype, a, b, Vals(4, ir.f32(0)));
          std::copy(d.begin(), d.end(), product.values.begin() + layout.block(row_block, block));
        }
      }
      store(ir, product, output, lane);
    });
    CHECK(run(ptx, in) == in);
  }
}
