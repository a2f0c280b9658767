// SPDX-License-Identifier: BSD-3-Clause
// Bad arguments of a forward with a cache: each is a status and a sentence that names the argument, its value
// and what is allowed. Tables and lengths on a CPU are read before anything runs.
#include "flashplus/flashplus.h"
#include "runtime/arguments/forward_args.h"
#include "runtime/plans/tensor_layouts.h"
#include "tests/unit/runtime/problem.h"

#include <doctest/doctest.h>
#include <functional>
#include <string>

using namespace flashplus;
using namespace flashplus::test;

namespace {

HostTensor table(int64_t rows, std::initializer_list<int32_t> values) {
  HostTensor t = HostTensor::int32(values);
  const int64_t columns = int64_t(values.size()) / rows;
  t.shape = {rows, columns};
  t.strides = {columns, 1};
  t.tensor.shape = t.shape.data();
  t.tensor.ndim = 2;
  return t;
}

/// Two sequences with three blocks each of a pool of 10 pages of 4 slots; 5 and 9 keys, one query each. Of
/// the second one's last page one slot is used; what lies behind is garbage.
struct Cache {
  Cache()
      : problem(2, 1, 4, 4, 2, 16), k({10, 4, 2, 16}), v({10, 4, 2, 16}),
        blocks(table(2, {7, 1, -1, 0, 9, 3})), indptr(HostTensor::int32({0, 2, 5})),
        indices(HostTensor::int32({7, 1, 0, 9, 3, 1000})), rows(HostTensor::int32({3, 3})),
        used(HostTensor::int32({5, 9})), leftpad(HostTensor::int32({0, 2})) {
    args.k = k.get();
    args.v = v.get();
    args.seqused_k = used.get();
    args.block_table = blocks.get();
  }
  void useIndices() {
    args.block_table = nullptr;
    args.page_indptr = indptr.get();
    args.page_indices = indices.get();
  }
  /// Rows of a cache of 10 rows of 4.
  void useRows() {
    args.block_table = nullptr;
    args.cache_batch_idx = rows.get();
    used.as<int32_t>()[0] = 3;
    used.as<int32_t>()[1] = 4;
  }
  /// Three queries of sequence 0, four of sequence 1.
  void useRagged() {
    packed_q = HostTensor({7, 4, 16});
    packed_o = HostTensor({7, 4, 16});
    cu_q = HostTensor::int32({0, 3, 7});
    args.q = packed_q.get();
    args.o = packed_o.get();
    args.cu_seqlens_q = cu_q.get();
  }

  Problem problem;
  HostTensor k, v, blocks, indptr, indices, rows, used, leftpad, packed_q, packed_o, cu_q, cu_k;
  flashplus_forward_args &args = problem.args;
};

Status check(Cache &c, ForwardProblem &out, DataPointers data = DataPointers::Required) {
  ScoreTable scores;
  return checkForwardArgs(&c.args, data, scores, out);
}

void refused(const std::string &sentence, const std::function<void(Cache &)> &change,
             StatusCode wanted = StatusCode::InvalidArgument) {
  Cache c;
  change(c);
  ForwardProblem out;
  const Status status = check(c, out);
  INFO(status.message());
  CHECK(status.code() == wanted);
  CHECK_MESSAGE(status.message().find(sentence) != std::string::npos, sentence);
}

ForwardProblem accepted(const std::function<void(Cache &)> &change = {}) {
  Cache c;
  if (change)
    change(c);
  ForwardProblem out;
  const Status status = check(c, out);
  CHECK_MESSAGE(status, status.message());
  CHECK(out.spec.spec().text().ends_with(" keys=paged"));
  return out;
}

} // namespace

TEST_CASE("cache: forms of a table") {
  const ForwardProblem blocks = accepted();
  CHECK(blocks.params.seqlen_k == 12);
  CHECK(blocks.bounds.max_seqlen_k == 12);
  CHECK(blocks.params.page_size == 4);
  CHECK(blocks.params.page_table_stride == 3);
  CHECK(!blocks.params.page_indptr);
  CHECK(blocks.params.k_stride_b == 4 * 2 * 16);
  CHECK(blocks.params.rows_k % 4 == 0);
  CHECK(blocks.bounds.key_run == 4);
  const auto layouts = tensorLayouts<Operand::K>(blocks.params, blocks.spec);
  const TensorLayout &pool = layouts[size_t(Operand::K)];
  CHECK(pool.extent[1] == 4);
  CHECK(pool.extent[3] == blocks.params.rows_k / 4);
  CHECK(pool.stride[2] == 4 * 2 * 16 * dtypeBytes(blocks.spec.dtype));
  CHECK(pool.run == 4);
  const ForwardProblem indices = accepted([](Cache &c) { c.useIndices(); });
  CHECK(indices.params.page_indptr);
  CHECK(indices.bounds.max_seqlen_k == 24); // 6 pages, whosever they are
  const ForwardProblem rows = accepted([](Cache &c) { c.useRows(); });
  CHECK(rows.params.page_table_stride == 1);
  CHECK(rows.params.page_size == 4);
  CHECK(rows.params.seqlen_k == 4);
  CHECK(rows.bounds.key_run == kWholeRun);
  const ForwardProblem padded = accepted([](Cache &c) {
    c.useRows();
    c.args.cache_batch_idx = nullptr;
    c.args.leftpad_k = c.leftpad.get();
  });
  CHECK(!padded.params.page_table);
  CHECK(padded.params.leftpad_k);
  CHECK(padded.bounds.key_run == kWholeRun);
  const ForwardProblem padded_pages = accepted([](Cache &c) { c.args.leftpad_k = c.leftpad.get(); });
  CHECK(padded_pages.params.leftpad_k);
  CHECK(padded_pages.bounds.key_run == 1);
}

TEST_CASE("cache: packed queries") {
  CHECK(accepted([](Cache &c) { c.useRagged(); }).bounds.batch == 2);
  const auto lengths = [](Cache &c, std::initializer_list<int32_t> values) {
    c.useRagged();
    c.cu_k = HostTensor::int32(values);
    c.args.cu_seqlens_k = c.cu_k.get();
    c.args.seqused_k = nullptr;
  };
  CHECK(accepted([&](Cache &c) { lengths(c, {0, 5, 14}); }).params.cu_seqlens_k);
  refused("cu_seqlens_k says that sequence 1 has 13 keys; its cache has room for 12 (3 pages of 4)",
          [&](Cache &c) {
            lengths(c, {0, 5, 18});
          });
  refused("cu_seqlens_k[2] is 4, less than 5 before it", [&](Cache &c) { lengths(c, {0, 5, 4}); });
  // A cache with a row a sequence: k has a dimension more than packed keys.
  CHECK(!accepted([](Cache &c) {
           c.useRagged();
           c.args.block_table = nullptr;
           c.args.seqused_k = nullptr;
         }).params.page_table);
}

TEST_CASE("cache: max_seqlen_k is a bound for planning, not what there is room for") {
  const ForwardProblem p = accepted([](Cache &c) { c.args.max_seqlen_k = 2; });
  CHECK(p.bounds.max_seqlen_k == 2);
  CHECK(p.params.seqlen_k == 12);
  CHECK(accepted([](Cache &c) { c.args.max_seqlen_k = 500; }).bounds.max_seqlen_k == 12);
  refused("max_seqlen_k is -1; it must be 0 to ", [](Cache &c) { c.args.max_seqlen_k = -1; });
}

TEST_CASE("cache: bad tables") {
  refused("block_table and page_indptr or page_indices are given",
          [](Cache &c) { c.useIndices(), c.args.block_table = c.blocks.get(); });
  refused("page_indptr is null and the other is not",
          [](Cache &c) { c.useIndices(), c.args.page_indptr = nullptr; });
  refused("page_indices is null and the other is not",
          [](Cache &c) { c.useIndices(), c.args.page_indices = nullptr; });
  refused("cache_batch_idx and block_table are given",
          [](Cache &c) { c.args.cache_batch_idx = c.rows.get(); });
  refused("cache_batch_idx and page_indices are given",
          [](Cache &c) { c.useIndices(), c.args.cache_batch_idx = c.rows.get(); });
  refused("block_table has dtype int64; it must be int32", [](Cache &c) {
    c.blocks.tensor.dtype = {kDLInt, 64, 1};
  });
  refused("block_table has shape (6); it must have 2 dimensions, (batch, max_blocks)", [](Cache &c) {
    c.blocks.tensor.ndim = 1;
    c.blocks.shape[0] = 6;
  });
  refused("block_table has shape (3, 3); it must be (batch, max_blocks) = (2, 3)",
          [](Cache &c) { c.blocks.shape[0] = 3; });
  refused("block_table has stride 2 in its last dimension", [](Cache &c) { c.blocks.useStrides()[1] = 2; });
  refused("block_table is on device type 2", [](Cache &c) { c.blocks.tensor.device = {kDLCUDA, 0}; });
  refused("block_table has shape (2, 1073741824)", [](Cache &c) {
    c.blocks.shape[1] = int64_t(1) << 30;
    c.blocks.useStrides()[0] = 0;
  });
  refused("page_indptr has shape (2); it must be (batch + 1) = (3)", [](Cache &c) {
    c.useIndices();
    c.indptr.shape[0] = 2;
  });
  refused("cache_batch_idx has shape (1); it must be (batch) = (2)",
          [](Cache &c) { c.useRows(), c.rows.shape[0] = 1; });
  refused("leftpad_k has shape (1); it must be (batch) = (2)", [](Cache &c) {
    c.args.leftpad_k = c.leftpad.get();
    c.leftpad.shape[0] = 1;
  });
  refused("k has shape (10, 0, 2, 16), (num_blocks, page_size, heads_k, head_dim); page_size must be at "
          "least 1",
          [](Cache &c) { c.k.shape[1] = c.v.shape[1] = 0; });
  refused("k has shape (10, 4, 32); it must have 4 dimensions, (num_blocks, page_size, heads, head_dim), of "
          "a cache",
          [](Cache &c) {
            c.k.tensor.ndim = 3;
            c.k.shape[2] = 32;
          });
  refused("v has shape (9, 4, 2, 16); it must be (num_blocks of k, page_size of k, heads_k, head_dim_v) = "
          "(10, 4, 2, 16)",
          [](Cache &c) { c.v.shape[0] = 9; });
  refused("k has 1 rows of cache; without cache_batch_idx it must have at least 2, the batch", [](Cache &c) {
    c.useRows();
    c.args.cache_batch_idx = nullptr;
    c.args.leftpad_k = c.leftpad.get();
    c.k.shape[0] = c.v.shape[0] = 1;
  });
}

TEST_CASE("cache: values on the CPU, of entries that are used and of no others") {
  refused("block_table[1, 2] is 10; it is entry 2 of sequence 1, which reads it, so it must be 0 to 9, since "
          "k has 10 pages",
          [](Cache &c) { c.blocks.as<int32_t>()[5] = 10; });
  refused("block_table[0, 0] is -1", [](Cache &c) { c.blocks.as<int32_t>()[0] = -1; });
  refused("block_table[0, 2] is -1", [](Cache &c) { c.used.as<int32_t>()[0] = 9; });
  accepted([](Cache &c) { c.used.as<int32_t>()[0] = 8; });
  accepted([](Cache &c) { // entry 1 begins behind its last key
    c.blocks.as<int32_t>()[1] = 2147483647;
    c.used.as<int32_t>()[0] = 4;
  });
  accepted([](Cache &c) { // nothing but padding
    c.blocks.as<int32_t>()[0] = -5;
    c.used.as<int32_t>()[0] = 3;
    c.args.leftpad_k = c.leftpad.get();
    c.leftpad.as<int32_t>()[0] = 3;
  });
  // Pages before what a window shows may be anybody's.
  const auto window = [](Cache &c) {
    c.args.window_left = 3;
    c.blocks.as<int32_t>()[3] = -1;
  };
  accepted(window);
  refused("block_table[1, 0] is -1", [&](Cache &c) { window(c), c.args.window_left = 5; });
  refused("page_indices[2] is 12", [](Cache &c) { c.useIndices(), c.indices.as<int32_t>()[2] = 12; });
  refused("page_indptr[1] is 7; it must be 0 to 6", [](Cache &c) {
    c.useIndices();
    c.indptr.as<int32_t>()[1] = 7;
  });
  refused("page_indptr[2] is 1; it must be 2 to 6", [](Cache &c) {
    c.useIndices();
    c.indptr.as<int32_t>()[2] = 1;
  });
  refused("page_indptr[0] is -1", [](Cache &c) { c.useIndices(), c.indptr.as<int32_t>()[0] = -1; });
  refused("seqused_k says that sequence 0 has 9 keys; its cache has room for 8 (2 pages of 4)", [](Cache &c) {
    c.useIndices();
    c.used.as<int32_t>()[0] = 9;
  });
  refused("cache_batch_idx[1] is 10; it is entry 0 of sequence 1, which reads it, so it must be 0 to 9, "
          "since k has 10 rows of cache",
          [](Cache &c) { c.useRows(), c.rows.as<int32_t>()[1] = 10; });
  refused("seqused_k says that sequence 1 has 13 keys; its cache has room for 12 (3 pages of 4)",
          [](Cache &c) { c.used.as<int32_t>()[1] = 13; });
  refused("seqused_k says that sequence 1 has 5 keys; its cache has room for 4",
          [](Cache &c) { c.useRows(), c.used.as<int32_t>()[1] = 5; });
  refused("leftpad_k[1] is -2; it must not be negative", [](Cache &c) {
    c.args.leftpad_k = c.leftpad.get();
    c.leftpad.as<int32_t>()[1] = -2;
  });
}

TEST_CASE("cache: a plan needs no data, and looks at none") {
  Cache c;
  c.blocks.as<int32_t>()[0] = -1;
  ForwardProblem out;
  CHECK(check(c, out, DataPointers::Optional));
}

TEST_CASE("cache: a caller whose header has none gets none") {
  Cache c;
  c.args.struct_size = offsetof(flashplus_forward_args, block_table);
  ForwardProblem out;
  const Status status = check(c, out);
  CHECK(status.message().find("k has shape (10, 4, 2, 16); it must be (batch of q") != std::string::npos);
}
