// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/score_table.h"

#include <doctest/doctest.h>

using namespace flashplus;

namespace {

const ScoreForm &find(ScoreTable &table, const std::string &text) {
  auto form = table.find({text, false, 0});
  REQUIRE_MESSAGE(form.isOk(), form.status().message());
  return **form;
}

} // namespace

TEST_CASE("texts that differ in names and numbers share one form, which plans are keyed on") {
  ScoreTable table;
  const ScoreForm &a = find(table, "s * 0.5 + bias[h]"), &b = find(table, "s * 0.25 + slope[h]");
  CHECK(&a != &b);
  CHECK(a.shared == b.shared);
  CHECK(a.shared != find(table, "s * 0.5 - bias[h]").shared);
  CHECK(&find(table, "s * 0.5 + bias[h]") == &a);
  CHECK(ScoreForm::identity().shared == &ScoreForm::identity());
}

TEST_CASE("a caller who writes another number into every text makes nothing grow") {
  ScoreTable table;
  const ScoreForm *shared = find(table, "s * 0.5").shared;
  const ScoreForm *kept = &find(table, "s * 0.5");
  for (int i = 0; i < int(ScoreTable::kMostTexts) + 500; ++i) {
    const ScoreForm &form = find(table, "s * 1." + std::to_string(i + 1));
    CHECK(form.shared == shared);
    REQUIRE(form.numbers.size() == 1);
    CHECK(form.numbers[0].value == float(std::stod("1." + std::to_string(i + 1))));
  }
  CHECK(table.texts() == ScoreTable::kMostTexts);
  CHECK(&find(table, "s * 0.5") == kept);
}
