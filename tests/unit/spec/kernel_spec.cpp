// SPDX-License-Identifier: BSD-3-Clause
#include "spec/kernel_spec.h"

#include <doctest/doctest.h>

#include <functional>
#include <set>

using namespace flashplus;

namespace {

KernelSpec forward() {
  KernelSpec spec;
  spec.dtype = DType::BF16;
  spec.head_dim_qk = 128;
  spec.head_dim_v = 64;
  return spec;
}

std::string error(std::string_view text) {
  auto spec = KernelSpec::parse(text);
  REQUIRE_FALSE(spec.isOk());
  CHECK(spec.status().code() == StatusCode::InvalidArgument);
  return spec.status().message();
}

bool contains(const std::string &text, std::string_view part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("spec: text") {
  CHECK(forward().text() == "forward dtype=bf16 dqk=128 dv=64 left=0 right=0 split=0 align=16 score={s}");
  KernelSpec combine;
  combine.op = Operation::Combine;
  combine.dtype = DType::F32;
  combine.head_dim_v = 5;
  combine.alignment = 4;
  CHECK(combine.text() == "combine dtype=fp32 dv=5 align=4");
  CHECK(KernelSpec::parse(combine.text())->text() == combine.text());
}

TEST_CASE("spec: every field changes the text, and the text brings it back") {
  const std::function<void(KernelSpec &)> changes[] = {
      [](KernelSpec &) {},
      [](KernelSpec &s) { s.dtype = DType::F16; },
      [](KernelSpec &s) { s.dtype = DType::F32; },
      [](KernelSpec &s) { s.head_dim_qk = 64; },
      [](KernelSpec &s) { s.head_dim_v = 128; },
      [](KernelSpec &s) { s.bounded_left = true; },
      [](KernelSpec &s) { s.bounded_right = true; },
      [](KernelSpec &s) { s.split = true; },
      [](KernelSpec &s) { s.alignment = 2; },
      [](KernelSpec &s) { s.score = *ScoreExpr::parse("cap * tanh(s / cap)"); },
      [](KernelSpec &s) { s.score = *ScoreExpr::parse("cap * tanh(s / other)"); },
      [](KernelSpec &s) { s.score = *ScoreExpr::parse("s + bias[h]"); },
      [](KernelSpec &s) { s.score = *ScoreExpr::parse("s + bias[h, k]"); },
      [](KernelSpec &s) { s.op = Operation::Combine; },
  };
  std::set<std::string> texts;
  for (const auto &change : changes) {
    KernelSpec spec = forward();
    change(spec);
    if (spec.dtype == DType::F32)
      spec.alignment = 4;
    CAPTURE(spec.text());
    CHECK(texts.insert(spec.text()).second);
    auto back = KernelSpec::parse(spec.text());
    REQUIRE_MESSAGE(back.isOk(), back.status().message());
    CHECK(back->text() == spec.text());
    CHECK(back->op == spec.op);
    CHECK(back->dtype == spec.dtype);
    CHECK(back->head_dim_v == spec.head_dim_v);
    CHECK(back->alignment == spec.alignment);
    if (spec.op == Operation::Combine)
      continue;
    CHECK(back->head_dim_qk == spec.head_dim_qk);
    CHECK(back->bounded_left == spec.bounded_left);
    CHECK(back->bounded_right == spec.bounded_right);
    CHECK(back->split == spec.split);
    CHECK(back->score.canonical() == spec.score.canonical());
  }
}

TEST_CASE("spec: parse errors name the field") {
  CHECK(contains(error(""), "the operation is ''; it must be forward or combine"));
  CHECK(contains(error("backward dtype=bf16"), "'backward'"));
  CHECK(contains(error("forward dtype=int8 dqk=64"), "dtype is 'int8'; it must be fp16, bf16 or fp32"));
  CHECK(contains(error("forward dqk=64"), "expected 'dtype='"));
  CHECK(contains(error("forward dtype=bf16 dqk=x"), "dqk is 'x'; it must be an integer"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 left=2 right=0 split=0 align=16 score={s}"),
                 "left is 2; it must be 0 or 1"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 left=0 right=0 split=0 align=16"), "score={"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 left=0 right=0 split=0 align=16 score={s +}"), "column 4"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 left=0 right=0 split=0 align=16 score={s} "), "score={"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 left=0 right=0 split=0 align=16 score={"), "score={"));
  CHECK(contains(error("combine dtype=bf16 dv=64 align=2 extra"), "unexpected 'extra'"));
  CHECK(contains(error("combine dtype=bf16 dv=99999999999 align=2"), "dv is"));
}

TEST_CASE("spec: validation names the field, its value and what is allowed") {
  auto message = [](auto change) {
    KernelSpec spec = forward();
    change(spec);
    const Status status = spec.validate();
    REQUIRE_FALSE(status.isOk());
    return status.message();
  };
  CHECK(forward().validate().isOk());
  CHECK(contains(message([](KernelSpec &s) { s.head_dim_qk = 0; }), "head_dim_qk is 0; it must be 1 to 256"));
  CHECK(contains(message([](KernelSpec &s) { s.head_dim_qk = 257; }), "head_dim_qk is 257"));
  CHECK(contains(message([](KernelSpec &s) { s.head_dim_v = -1; }), "head_dim_v is -1"));
  CHECK(contains(message([](KernelSpec &s) { s.alignment = 8; }), "alignment is 8; it must be 16 or the element size 2"));
  CHECK(contains(message([](KernelSpec &s) { s.head_dim_v = 60; }), "not multiples of 16 bytes"));
  KernelSpec odd = forward();
  odd.head_dim_qk = 5;
  odd.alignment = 2;
  CHECK(odd.validate().isOk());
}
