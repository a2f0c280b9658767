// SPDX-License-Identifier: BSD-3-Clause
// A score that would keep the compiler busy for minutes is an error, and what people write is not.
#include "spec/kernel_spec.h"
#include "spec/score_cost.h"
#include "spec/score_gradient.h"

#include <doctest/doctest.h>

using namespace flashplus;

namespace {

std::string nested(const std::string &before, const std::string &after, int times) {
  std::string text = "s";
  for (int i = 0; i < times; ++i)
    text = before + text + after;
  return text;
}

std::string repeated(const std::string &term, int times) {
  std::string text = "s";
  for (int i = 0; i < times; ++i)
    text += " + " + term;
  return text;
}

std::string error(const std::string &score) {
  auto expr = ScoreExpr::parse(score);
  return expr ? "" : expr.status().message();
}

std::string error(Operation op, const std::string &score) {
  auto expr = ScoreExpr::parse(score);
  REQUIRE_MESSAGE(expr.isOk(), expr.status().message());
  KernelSpec spec;
  spec.op = op;
  spec.head_dim_qk = spec.head_dim_v = 64;
  spec.score = *expr;
  const Status status = spec.validate();
  CHECK((status.isOk() || status.code() == StatusCode::InvalidArgument));
  return status.message();
}

} // namespace

TEST_CASE("a score that is too much for the compiler is refused, with what it comes to") {
  CHECK(error(nested("tanh(", ")", 63)) == ""); // as deep as text may nest
  CHECK(error(repeated("tanh(s)", 78)) == "");
  CHECK(error(repeated("tanh(s)", 79)) ==
        "score comes to 1027 instructions a score; at most 1024 are allowed (an operation is 1, exp, log and "
        "sqrt 4, a division 8, tanh 12, an element of a tensor 4 and 4 an index)");
  CHECK(error(repeated("s", 127)) == ""); // as many operations as there may be, of the cheap kind
  CHECK(error(repeated("exp(k)", 60)) == "");
  CHECK(error("cap * tanh(s / cap) - slopes[h] * abs(q + sk - sq - k) + bias[b, h, q, k]") == "");
}

TEST_CASE("a score whose derivatives are too much can be run forward, and not backward") {
  const std::string much = nested("tanh(", ")", 63);
  CHECK(error(Operation::Forward, much) == "");
  for (const Operation op :
       {Operation::Backward, Operation::BackwardKV, Operation::BackwardQ, Operation::BackwardScore})
    CHECK(error(op, much).starts_with("score with its derivatives comes to "));
  CHECK(error(Operation::Backward, nested("tanh(", ")", 40)) == "");
  CHECK(error(Operation::Combine, "s") == "");
  CHECK(error(Operation::Backward,
              "cap * tanh(s / cap) - slopes[h] * abs(q + sk - sq - k) + bias[b, h, q, k]") == "");
}

TEST_CASE("nothing that parses has a gradient of unbounded size") {
  for (const char *term : {"tanh(s)", "s / (1 + abs(s))", "min(s, k)", "where(s > k, s, q)", "sqrt(abs(s))"})
    for (int times = 1; times < 60; times += 7)
      if (auto expr = ScoreExpr::parse(repeated(term, times)))
        CHECK(differentiate(*expr).nodes.size() <= size_t(kMaxScoreGradientNodes));
}
