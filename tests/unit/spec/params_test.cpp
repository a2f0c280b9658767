// SPDX-License-Identifier: BSD-3-Clause
#include "spec/params.h"

#include <doctest/doctest.h>

#include <set>

using namespace flashplus;

namespace {

size_t bytesOf(ParamType type) { return type == ParamType::Ptr || type == ParamType::I64 ? 8 : 4; }

void checkTable(std::span<const ParamInfo> table, size_t size) {
  size_t at = 0;
  std::set<std::string_view> names;
  for (const ParamInfo &field : table) {
    CAPTURE(field.name);
    CHECK(field.offset == at);
    CHECK(names.insert(field.name).second);
    at += bytesOf(field.type) * size_t(field.count);
  }
  CHECK(size - at < 8);
}

} // namespace

TEST_CASE("params: fields follow each other without a gap") {
  checkTable(paramTable<ForwardParams>(), sizeof(ForwardParams));
  checkTable(paramTable<CombineParams>(), sizeof(CombineParams));
  checkTable(paramTable<MergeParams>(), sizeof(MergeParams));
  checkTable(paramTable<BackwardParams>(), sizeof(BackwardParams));
}

TEST_CASE("params: the table is the struct") {
  ForwardParams p;
  p.num_splits = 77;
  p.scalar[3] = 2.5f;
  p.aux_last[5] = 9;
  for (const ParamInfo &field : paramTable<ForwardParams>()) {
    const char *at = reinterpret_cast<const char *>(&p) + field.offset;
    if (field.name == "num_splits")
      CHECK(*reinterpret_cast<const int32_t *>(at) == 77);
    if (field.name == "aux_last")
      CHECK(reinterpret_cast<const int32_t *>(at)[5] == 9);
    if (field.name == "scalar") {
      CHECK(field.count == kMaxScoreScalars);
      CHECK(reinterpret_cast<const float *>(at)[3] == 2.5f);
    }
  }
}

TEST_CASE("params: a kernel has the groups at the end up to the last one that it needs") {
  const auto table = paramTable<ForwardParams>();
  auto layout = [&](unsigned groups) { return paramLayout(table, sizeof(ForwardParams), groups); };
  const ParamLayout plain = layout(0), indices = layout(kIndexParams), paged = layout(kPagedParams),
                    dropout = layout(kDropoutParams), sinks = layout(kSinkParams);
  for (const ParamLayout &l : {plain, indices, paged, dropout, sinks})
    checkTable(l.fields, l.size);
  CHECK(plain.fields.back().name == "scalar");
  CHECK(indices.fields.back().name == "aux_last");
  CHECK(indices.fields.back().count == kMaxScoreTensors * kMaxScoreTensorRank);
  CHECK(plain.size <= indices.size - sizeof(ForwardParams::aux_last));
  CHECK(paged.fields.back().name == "page_table_stride");
  CHECK(paged.fields.size() == indices.fields.size() + 7);
  CHECK(dropout.fields.back().name == "drop_scale");
  CHECK(sinks.size == sizeof(ForwardParams));
  CHECK(paramLayoutText(sinks.fields, sinks.size) == paramLayoutText(table, sizeof(ForwardParams)));
  // What was there before these groups is where it was, whatever they are.
  CHECK(paramLayoutText(dropout.fields.first(plain.fields.size()), 0) == paramLayoutText(plain.fields, 0));
}

TEST_CASE("params: a slot's page by a product and a shift") {
  constexpr int32_t kMost = 2147483647;
  for (int32_t size : {1,       2,         3,     5,     7,     8,       16,
                       24,      48,        63,    64,    65,    256,     641,
                       1000,    1024,      65535, 65536, 65537, 1 << 29, (1 << 30) - 1,
                       1 << 30, kMost - 1, kMost}) {
    const PageDivisor divisor = PageDivisor::of(size);
    for (int64_t page = 0; page * size <= kMost; page = page < 3000 ? page + 1 : page * 3 / 2)
      for (int64_t slot : {page * size - 1, page * size, page * size + 1, page * size + size - 1})
        if (slot >= 0 && slot <= kMost && divisor.page(int32_t(slot)) != slot / size)
          FAIL("size ", size, " slot ", slot);
    for (int32_t slot : {kMost - 1, kMost})
      CHECK(divisor.page(slot) == slot / size);
  }
}

TEST_CASE("params: layout text") {
  const ParamInfo table[] = {
      {"q", ParamType::Ptr, 1, 0}, {"aux", ParamType::I64, 4, 8}, {"x", ParamType::F32, 1, 40}};
  CHECK(paramLayoutText(table, 48) == "q:ptr@0 aux:i64[4]@8 x:f32@40 size=48");
  CHECK(paramLayoutText(paramTable<ForwardParams>(), sizeof(ForwardParams)).starts_with("q:ptr@0 k:ptr@8 "));
}
