// SPDX-License-Identifier: BSD-3-Clause
// Arguments of new keys and values: bad ones are a status and a sentence that names the argument, its value
// and what is allowed; good ones say where rows go.
#include "flashplus/flashplus.h"
#include "runtime/arguments/append_args.h"
#include "tests/unit/runtime/problem.h"

#include <doctest/doctest.h>
#include <functional>
#include <string>

using namespace flashplus;
using namespace flashplus::test;

namespace {

HostTensor int64s(std::initializer_list<int64_t> values) {
  HostTensor t({int64_t(values.size())}, {kDLInt, 64, 1});
  std::copy(values.begin(), values.end(), t.as<int64_t>());
  return t;
}

/// Two sequences of 5 and 9 keys, in three blocks each of 10 pages of 4 slots (the second one's third is page
/// 3), two new keys and two queries each; rotary embedding of 8 of the 16 columns for 20 positions.
struct Append {
  Append()
      : problem(2, 2, 4, 4, 2, 16), k({10, 4, 2, 16}), v({10, 4, 2, 16}),
        blocks(HostTensor::int32({7, 1, 5, 0, 9, 3})), indptr(HostTensor::int32({0, 3, 6})),
        used(HostTensor::int32({5, 9})), k_new({2, 2, 2, 16}), v_new({2, 2, 2, 16}), cos({20, 4}),
        sin({20, 4}), positions(HostTensor::int32({0, 3})), slots(int64s({4, 5, 13, 14})), packed({4, 2, 16}),
        packed_v({4, 2, 16}), cu(HostTensor::int32({0, 3, 4})) {
    blocks.shape = {2, 3};
    blocks.strides = {3, 1};
    blocks.tensor.shape = blocks.shape.data();
    blocks.tensor.strides = blocks.strides.data();
    blocks.tensor.ndim = 2;
    args.k = k.get();
    args.v = v.get();
    args.seqused_k = used.get();
    args.block_table = blocks.get();
    args.k_new = k_new.get();
    args.v_new = v_new.get();
    args.causal = 1;
  }
  void turn() {
    args.rotary_cos = cos.get();
    args.rotary_sin = sin.get();
  }
  void pack() {
    args.k_new = packed.get();
    args.v_new = packed_v.get();
    args.cu_seqlens_k_new = cu.get();
  }
  /// Plain k and v with room for 4 keys.
  void useRows() {
    args.block_table = nullptr;
    used.as<int32_t>()[0] = 1;
    used.as<int32_t>()[1] = 2;
    args.k = problem.k.get();
    args.v = problem.v.get();
  }

  Problem problem;
  HostTensor k, v, blocks, indptr, used, k_new, v_new, cos, sin, positions, slots, packed, packed_v, cu;
  flashplus_forward_args &args = problem.args;
};

Status check(Append &c, ForwardProblem &out, DataPointers data = DataPointers::Required) {
  ScoreTable scores;
  return checkForwardArgs(&c.args, data, scores, out);
}

void refused(const std::string &sentence, const std::function<void(Append &)> &change) {
  Append c;
  change(c);
  ForwardProblem out;
  const Status status = check(c, out);
  INFO(status.message());
  CHECK(status.code() == StatusCode::InvalidArgument);
  CHECK_MESSAGE(status.message().find(sentence) != std::string::npos, sentence);
}

ForwardProblem accepted(const std::function<void(Append &)> &change = {}) {
  Append c;
  if (change)
    change(c);
  ForwardProblem out;
  const Status status = check(c, out);
  CHECK_MESSAGE(status, status.message());
  CHECK(out.spec.append);
  REQUIRE(out.append.has_value());
  return out;
}

} // namespace

TEST_CASE("append: what plans and kernels get to know") {
  const ForwardProblem pages = accepted();
  CHECK(pages.bounds.max_seqlen_new == 2);
  CHECK(!pages.bounds.rotates_q);
  const AppendParams &p = *pages.append;
  CHECK(p.page_size == 4);
  CHECK(p.page_entries == 3);
  CHECK(p.page_table_stride == 3);
  CHECK(p.num_pages == 10);
  CHECK(p.seqlen_new == 2);
  CHECK(p.rotary_dim == 0);
  CHECK(p.k == pages.params.k);
  CHECK(p.seqused_k == pages.params.seqused_k);
  CHECK(!p.wide); // fp32
  CHECK(p.rotates_rows);
  CHECK(!accepted([](Append &c) { c.args.causal = 0; }).append->rotates_rows);
  CHECK(accepted([](Append &c) { c.args.causal = 0, c.args.window_left = 9; }).append->rotates_rows);

  const ForwardProblem turned = accepted([](Append &c) { c.turn(), c.args.rotary_interleaved = 1; });
  CHECK(turned.bounds.rotates_q);
  CHECK(turned.append->rotary_dim == 8);
  CHECK(turned.append->rotary_rows == 20);
  CHECK(turned.append->rotary_cos_stride == 4);
  CHECK(turned.append->interleaved == 1);

  const ForwardProblem packed = accepted([](Append &c) { c.pack(); });
  CHECK(packed.bounds.max_seqlen_new == 4);
  CHECK(packed.append->k_new_stride_b == 0);
  CHECK(accepted([](Append &c) { c.pack(), c.args.max_seqlen_k_new = 3; }).bounds.max_seqlen_new == 3);

  const ForwardProblem rows = accepted([](Append &c) { c.useRows(); });
  CHECK(!rows.spec.pagedKeys());
  CHECK(rows.append->page_size == 4);
  CHECK(rows.append->page_entries == 1);
  CHECK(rows.append->num_pages == 2);
  CHECK(!rows.append->page_table);

  const ForwardProblem none = accepted([](Append &c) {
    c.k_new.shape[1] = c.v_new.shape[1] = 0;
    c.blocks.as<int32_t>()[1] = 1;
  });
  CHECK(none.bounds.max_seqlen_new == 0);
  CHECK(!none.empty);
}

TEST_CASE("append: rows of 16 bytes are told from others") {
  const auto wide = [](const std::function<void(Append &)> &change) {
    return accepted([&](Append &c) {
             c.cos = HostTensor({20, 8});
             c.sin = HostTensor({20, 8});
             c.turn();
             for (HostTensor *t :
                  {&c.problem.q, &c.problem.o, &c.k, &c.v, &c.k_new, &c.v_new, &c.cos, &c.sin})
               t->tensor.dtype = {kDLBfloat, 16, 1};
             change(c);
           })
        .append->wide;
  };
  CHECK(wide([](Append &) {}));
  for (HostTensor Append::*t :
       {&Append::k, &Append::v, &Append::k_new, &Append::v_new, &Append::cos, &Append::sin})
    CHECK(!wide([&](Append &c) { (c.*t).tensor.byte_offset = 2; }));
  CHECK(!wide([](Append &c) { c.problem.q.tensor.byte_offset = 2; }));
  CHECK(!wide([](Append &c) { c.k_new.useStrides()[0] += 1; }));
  CHECK(!wide([](Append &c) { c.cos.shape[1] = c.sin.shape[1] = 4; })); // 8 columns in all
  // q is not read if nothing turns.
  CHECK(wide([](Append &c) {
    c.args.rotary_cos = c.args.rotary_sin = nullptr;
    c.problem.q.tensor.byte_offset = 2;
  }));
}

TEST_CASE("append: fields go together") {
  const auto without = [](const DLTensor *flashplus_forward_args::*field) {
    return [field](Append &c) {
      const DLTensor *kept = c.args.*field;
      c.args.k_new = c.args.v_new = nullptr;
      c.args.*field = kept ? kept : c.used.get();
    };
  };
  using A = flashplus_forward_args;
  refused("v_new is given and k_new is null", without(&A::v_new));
  refused("cu_seqlens_k_new is given and k_new is null", without(&A::cu_seqlens_k_new));
  refused("slot_mapping is given and k_new is null", without(&A::slot_mapping));
  refused("rotary_cos is given and k_new is null", without(&A::rotary_cos));
  refused("rotary_sin is given and k_new is null", without(&A::rotary_sin));
  refused("rotary_seqlens is given and k_new is null", without(&A::rotary_seqlens));
  refused("max_seqlen_k_new is 3 and k_new is null", [](Append &c) {
    c.args.k_new = c.args.v_new = nullptr;
    c.args.max_seqlen_k_new = 3;
  });
  refused("v_new is null and k_new is not", [](Append &c) { c.args.v_new = nullptr; });
  refused("seqused_k is null and k_new is given", [](Append &c) { c.args.seqused_k = nullptr; });
  refused("rotary_sin is null and the other is not", [](Append &c) { c.args.rotary_cos = c.cos.get(); });
  refused("rotary_cos is null and the other is not", [](Append &c) { c.args.rotary_sin = c.sin.get(); });
  refused("rotary_seqlens is given and rotary_cos is null",
          [](Append &c) { c.args.rotary_seqlens = c.positions.get(); });
  refused("rotary_interleaved is 2; it must be 0 or 1", [](Append &c) { c.args.rotary_interleaved = 2; });
  refused("rotary_interleaved is 1 and rotary_cos is null", [](Append &c) {
    c.args.k_new = c.args.v_new = nullptr;
    c.args.rotary_interleaved = 1;
  });
  refused("slot_mapping is given without block_table and page_indices", [](Append &c) {
    c.useRows();
    c.args.slot_mapping = c.slots.get();
  });
}

TEST_CASE("append: tensors") {
  refused("k_new has dtype float16; it must be q's, float32", [](Append &c) {
    c.k_new.tensor.dtype = {kDLFloat, 16, 1};
  });
  refused(
      "k_new has shape (2, 2, 2, 15); it must be (batch, seqlen_new, heads_k, head_dim of q) = (2, 2, 2, 16)",
      [](Append &c) { c.k_new.shape[3] = 15; });
  refused("k_new has shape (1, 2, 2, 16)", [](Append &c) { c.k_new.shape[0] = 1; });
  refused("v_new has shape (2, 1, 2, 16); it must be (batch, seqlen_new of k_new, heads_k, head_dim_v)",
          [](Append &c) { c.v_new.shape[1] = 1; });
  refused("v_new has stride 2", [](Append &c) { c.v_new.useStrides()[3] = 2; });
  refused("k_new has shape (4, 2, 16); it must have 4 dimensions",
          [](Append &c) { c.args.k_new = c.packed.get(); });
  refused("k_new has shape (2, 2, 2, 16); it must have 3 dimensions",
          [](Append &c) { c.args.cu_seqlens_k_new = c.cu.get(); });
  refused("cu_seqlens_k_new has shape (3)", [](Append &c) { // one sequence fewer than q has
    c.pack();
    c.cu.shape[0] = 3;
    c.problem.q.shape[0] = c.problem.o.shape[0] = 1;
    c.used.shape[0] = c.blocks.shape[0] = 1;
  });
  refused("cu_seqlens_k_new[2] is 2, less than 3", [](Append &c) {
    c.pack();
    c.cu.as<int32_t>()[0] = 0, c.cu.as<int32_t>()[1] = 3, c.cu.as<int32_t>()[2] = 2;
  });
  refused("cu_seqlens_k_new ends at 5; there are only 4 rows", [](Append &c) {
    c.pack();
    c.cu.as<int32_t>()[2] = 5;
  });
  refused("max_seqlen_k_new is 2, but cu_seqlens_k_new holds a sequence of 3 rows", [](Append &c) {
    c.pack();
    c.args.max_seqlen_k_new = 2;
  });
  refused("max_seqlen_k_new is -1", [](Append &c) { c.pack(), c.args.max_seqlen_k_new = -1; });
  refused("rotary_cos has shape (20, 9), for a rotary_dim of 18; it must be 2 to 16, the head_dim of q",
          [](Append &c) {
            c.cos = HostTensor({20, 9}), c.sin = HostTensor({20, 9}), c.turn();
          });
  refused("rotary_cos has shape (20, 0)", [](Append &c) { c.turn(), c.cos.shape[1] = 0; });
  refused("rotary_cos has shape (20); it must have 2 dimensions",
          [](Append &c) { c.turn(), c.cos.tensor.ndim = 1; });
  refused("rotary_sin has shape (20, 3)", [](Append &c) { c.turn(), c.sin.shape[1] = 3; });
  refused("rotary_sin has dtype bfloat16", [](Append &c) {
    c.turn(), c.sin.tensor.dtype = {kDLBfloat, 16, 1};
  });
  refused("rotary_seqlens has shape (1)", [](Append &c) {
    c.turn();
    c.positions.shape[0] = 1;
    c.args.rotary_seqlens = c.positions.get();
  });
  refused("slot_mapping has shape (3)", [](Append &c) {
    c.slots.shape[0] = 3;
    c.args.slot_mapping = c.slots.get();
  });
  refused("slot_mapping has dtype int32", [](Append &c) {
    c.slots.tensor.dtype = {kDLInt, 32, 1};
    c.args.slot_mapping = c.slots.get();
  });
}

TEST_CASE("append: the cache has memory of its own") {
  refused("k_new lies in the memory of k", [](Append &c) { c.k_new.tensor.data = c.k.tensor.data; });
  refused("v_new lies in the memory of v", [](Append &c) { c.v_new.tensor.data = c.v.as<float>() + 100; });
  refused("v_new lies in the memory of k", [](Append &c) { c.v_new.tensor.data = c.k.as<float>() + 4; });
  refused("o lies in the memory of v", [](Append &c) { c.problem.o.tensor.data = c.v.tensor.data; });
  refused("q lies in the memory of k", [](Append &c) { c.problem.q.tensor.data = c.k.tensor.data; });
  refused("k has stride 0", [](Append &c) { c.k.useStrides()[0] = 0; });
}

TEST_CASE("append: on a CPU every new row has a slot before anything is written") {
  accepted([](Append &c) { c.used.as<int32_t>()[0] = 10, c.used.as<int32_t>()[1] = 10; }); // to the last slot
  refused("k_new adds 2 keys to sequence 1, of which seqused_k says 11; its cache has room for 12",
          [](Append &c) { c.used.as<int32_t>()[1] = 11; });
  refused("k_new adds 2 keys to sequence 0, of which seqused_k says 3; its cache has room for 4",
          [](Append &c) {
            c.useRows();
            c.args.k = c.k.get(), c.args.v = c.v.get();
            c.used.as<int32_t>()[0] = 3;
            c.k.shape[0] = c.v.shape[0] = 2;
          });
  refused("block_table[0, 1] is 10; new keys of sequence 0 go there, so it must be 0 to 9",
          [](Append &c) { c.blocks.as<int32_t>()[1] = 10; });
  refused("block_table[0, 2] is -1", [](Append &c) { // the second new key's
    c.used.as<int32_t>()[0] = 7;
    c.blocks.as<int32_t>()[2] = -1;
  });
  refused("page_indices[1] is 12", [](Append &c) {
    c.args.block_table = nullptr;
    c.args.page_indptr = c.indptr.get();
    c.args.page_indices = c.blocks.get();
    c.blocks.tensor.ndim = 1;
    c.blocks.shape[0] = 6;
    c.blocks.strides[0] = 1;
    c.blocks.as<int32_t>()[1] = 12;
  });
  // A sequence that fills up a batch: it has no page for its new keys, and none that are read.
  accepted([](Append &c) {
    c.used.as<int32_t>()[0] = 0;
    for (int i = 0; i < 3; ++i)
      c.blocks.as<int32_t>()[i] = -1;
  });
  // Its other keys are read nevertheless.
  refused("block_table[0, 0] is 33", [](Append &c) {
    c.blocks.as<int32_t>()[0] = 33;
    c.blocks.as<int32_t>()[1] = -1;
    c.used.as<int32_t>()[0] = 4;
  });
  refused("slot_mapping[2] is 40; it must be less than 40", [](Append &c) {
    c.args.slot_mapping = c.slots.get();
    c.slots.as<int64_t>()[2] = 40;
  });
  accepted([](Append &c) {
    c.args.slot_mapping = c.slots.get();
    c.slots.as<int64_t>()[1] = -1;
  });
  // New keys count as keys: the table has to name their page even if they are written by slot_mapping.
  refused("block_table[1, 2] is 77; it is entry 2 of sequence 1, which reads it", [](Append &c) {
    c.args.slot_mapping = c.slots.get();
    c.used.as<int32_t>()[1] = 7;
    c.blocks.as<int32_t>()[5] = 77;
  });
}

TEST_CASE("append: a plan needs no data, and looks at none") {
  Append c;
  c.turn();
  c.used.as<int32_t>()[1] = 100;
  c.blocks.as<int32_t>()[0] = -7;
  for (HostTensor *t : {&c.k, &c.v, &c.k_new, &c.v_new, &c.problem.q, &c.problem.o, &c.cos, &c.sin})
    t->tensor.data = nullptr;
  ForwardProblem out;
  const Status status = check(c, out, DataPointers::Optional);
  CHECK_MESSAGE(status, status.message());
}
