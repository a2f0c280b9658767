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

TEST_CASE("spec: text leaves out what is at its default") {
  CHECK(forward().text() == "forward dtype=bf16 dqk=128 dv=64");
  KernelSpec spec = forward();
  spec.dtype_o = DType::F16;
  spec.bounded_left = spec.bounded_right = true;
  spec.results = Results::Partial;
  spec.alignment = 2;
  spec.score = *ScoreExpr::parse("cap * tanh(s / cap)");
  CHECK(spec.text() == "forward dtype=bf16 dtype_o=fp16 dqk=128 dv=64 left=1 right=1 results=partial align=2 "
                       "score={p0 * tanh(s / p0)}");
  KernelSpec combine;
  combine.op = Operation::Combine;
  combine.dtype = DType::F32;
  combine.head_dim_v = 5;
  combine.alignment = 4;
  CHECK(combine.text() == "combine dtype=fp32 dv=5 align=4");
  CHECK(KernelSpec::parse(combine.text())->text() == combine.text());
}

TEST_CASE("spec: what 0.1 wrote is understood, and fields may stand in any order and at their default") {
  auto canonical = [](std::string_view text) {
    auto spec = KernelSpec::parse(text);
    REQUIRE_MESSAGE(spec.isOk(), spec.status().message());
    return spec->text();
  };
  CHECK(canonical("forward dtype=bf16 dqk=128 dv=64 left=0 right=0 split=0 align=16 score={s}") ==
        forward().text());
  CHECK(canonical("forward dtype=bf16 dqk=128 dv=64 left=0 right=1 split=1 align=16 score={s + x}") ==
        "forward dtype=bf16 dqk=128 dv=64 right=1 results=partial score={s + p0}");
  CHECK(canonical("forward align=16 dv=64 results=final dqk=128 dtype_kv=same dtype=bf16") ==
        forward().text());
  CHECK(canonical("combine dtype=bf16 dv=64 align=16") == "combine dtype=bf16 dv=64");
}

namespace {

/// Another valid value of a field than `spec` has.
KernelSpec withOther(KernelSpec spec, const SpecFieldInfo &field) {
  if (field.id == SpecField::alignment)
    field.set(spec, 2); // 16 or the element's size
  else
    field.set(spec, field.kind == SpecFieldInfo::Kind::Integer ? field.get(spec) + 16
                                                               : (field.get(spec) + 1) % (field.most() + 1));
  if (field.id == SpecField::dtype)
    spec.alignment = spec.dtype == DType::F32 ? 4 : 16;
  return spec;
}

} // namespace

TEST_CASE("spec: every field changes text, words and comparison, and the text brings it back") {
  std::vector<KernelSpec> specs{forward()};
  for (const SpecFieldInfo &field : specFields()) {
    specs.push_back(forward());
    if (!field.isIn(operationInfo(Operation::Forward)))
      specs.back().op = Operation::BackwardScore;
    specs.back() = withOther(specs.back(), field);
  }
  specs.push_back(withOther(withOther(forward(), specFields()[0]), specFields()[0])); // every dtype
  specs.push_back(forward());
  specs.back().op = Operation::Combine;
  specs.back().head_dim_qk = 0;
  std::set<std::string> texts;
  std::set<std::array<uint64_t, SpecFields::kPackedWords>> words;
  for (const KernelSpec &spec : specs) {
    CAPTURE(spec.text());
    CHECK(texts.insert(spec.text()).second);
    CHECK(words.insert(spec.pack()).second);
    auto back = KernelSpec::parse(spec.text());
    REQUIRE_MESSAGE(back.isOk(), back.status().message());
    CHECK(back->text() == spec.text());
    CHECK(static_cast<const SpecFields &>(*back) == spec);
  }
}

TEST_CASE("spec: scores tell specs apart, names in them do not") {
  std::set<std::string> texts;
  for (const char *score :
       {"s", "cap * tanh(s / cap)", "cap * tanh(s / other)", "s + bias[h]", "s + bias[h, k]"}) {
    KernelSpec spec = forward();
    spec.score = *ScoreExpr::parse(score);
    CHECK(texts.insert(spec.text()).second);
    CHECK(KernelSpec::parse(spec.text())->score.canonical() == spec.score.canonical());
  }
  KernelSpec a = forward(), b = forward();
  a.score = *ScoreExpr::parse("s * x");
  b.score = *ScoreExpr::parse("s * y");
  CHECK(a.text() == b.text());
}

TEST_CASE("spec: parse errors name the field") {
  CHECK(contains(error(""), "the operation is ''; it must be one of forward, combine"));
  CHECK(contains(error("sideways dtype=bf16"), "'sideways'"));
  CHECK(contains(error("forward dtype=int8 dqk=64 dv=64"), "dtype is 'int8'; it must be fp16, bf16 or fp32"));
  CHECK(contains(error("forward dtype_o=int8"), "dtype_o is 'int8'; it must be same, fp16, bf16 or fp32"));
  CHECK(contains(error("forward dqk=64 dv=64"), "'dtype=' is missing"));
  CHECK(contains(error("forward dtype=bf16 dqk=64"), "'dv=' is missing"));
  CHECK(
      contains(error("forward dtype=bf16 dqk=x dv=64"), "dqk is 'x'; it must be an integer from 0 to 4095"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 left=2"), "left is '2'; it must be 0 or 1"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 split=2"), "split is '2'; it must be 0 or 1"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 results=1"),
                 "results is '1'; it must be final, partial or merged"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 dqk=64"), "dqk appears twice"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 results=final split=0"), "split appears twice"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 colour=3"),
                 "unexpected 'colour=3'; forward has the fields dtype, "));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 score={s +}"), "column 4"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 score={s} "), "score={ does not end in }"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 score={"), "score={"));
  CHECK(contains(error("forward dtype=bf16 dqk=64 dv=64 "), "it ends in a blank"));
  CHECK(contains(error("forward dtype=bf16 dqk=64  dv=64"), "unexpected ''"));
  CHECK(contains(error("combine dtype=bf16 dv=64 align=2 extra"), "unexpected 'extra'"));
  CHECK(contains(error("combine dtype=bf16 dqk=64 dv=64"),
                 "unexpected 'dqk=64'; combine has the fields dtype, dtype_o, dv, align"));
  CHECK(contains(error("combine dtype=bf16 dv=64 score={s}"), "combine has no score"));
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
  CHECK(contains(message([](KernelSpec &s) { s.alignment = 8; }),
                 "alignment is 8; it must be 16 or the element size 2"));
  CHECK(contains(message([](KernelSpec &s) { s.head_dim_v = 60; }), "not multiples of 16 bytes"));
  KernelSpec odd = forward();
  odd.head_dim_qk = 5;
  odd.alignment = 2;
  CHECK(odd.validate().isOk());
}
