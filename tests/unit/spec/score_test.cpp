// SPDX-License-Identifier: BSD-3-Clause
#include "spec/score.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace flashplus;

namespace {

std::string canonical(std::string_view text) {
  auto expr = ScoreExpr::parse(text);
  REQUIRE_MESSAGE(expr.isOk(), expr.status().message());
  return expr->canonical();
}

std::string error(std::string_view text) {
  auto expr = ScoreExpr::parse(text);
  REQUIRE_FALSE(expr.isOk());
  CHECK(expr.status().code() == StatusCode::InvalidArgument);
  return expr.status().message();
}

bool contains(const std::string &text, std::string_view part) { return text.find(part) != std::string::npos; }

constexpr ScoreExpr::Point kPoint = {.s = 3, .b = 1, .h = 5, .hk = 2, .q = 7, .k = 11, .sq = 13, .sk = 17};

double value(std::string_view text) {
  auto expr = ScoreExpr::parse(text);
  REQUIRE_MESSAGE(expr.isOk(), expr.status().message());
  const double scalars[] = {100, 200};
  return expr->evaluate(kPoint, scalars, [](int slot, std::span<const int64_t> at) {
    double v = 1000 * (slot + 1);
    for (int64_t i : at)
      v = v * 10 + double(i);
    return v;
  });
}

} // namespace

TEST_CASE("score: precedence and grouping") {
  CHECK(value("1 + 2 * 3") == 7);
  CHECK(value("(1 + 2) * 3") == 9);
  CHECK(value("8 - 4 - 2") == 2);
  CHECK(value("8 - (4 - 2)") == 6);
  CHECK(value("16 / 4 / 2") == 2);
  CHECK(value("16 / (4 / 2)") == 8);
  CHECK(value("-2 * 3") == -6);
  CHECK(value("2 * -3") == -6);
  CHECK(value("--2") == 2);
  CHECK(value("-(1 + 2)") == -3);
  CHECK(value("1 + 2 < 4") == 1);
  CHECK(value("4 <= 3") == 0);
  CHECK(value("(1 < 2) + 5") == 6);
  // As Python has them.
  CHECK(value("1 + 7 % 4 * 2") == 7);
  CHECK(value("-7 % 4") == 1);
  CHECK(value("1 < 2 and 2 < 1") == 0);
  CHECK(value("1 or 0 and 0") == 1);
  CHECK(value("(1 or 0) and 0") == 0);
  CHECK(value("not 1 < 0 and 3") == 1);
  CHECK(value("not 0 or 1 / 0") == 1);
  CHECK(value("not not 5") == 1);
  CHECK(value("not(0)and(2)or(0)") == 1);
}

TEST_CASE("score: a remainder has the sign of its divisor") {
  for (auto [text, expected] : {std::pair<const char *, double>{"7 % 3", 1},
                                {"-7 % 3", 2},
                                {"7 % -3", -2},
                                {"-7 % -3", -1},
                                {"6 % 3", 0},
                                {"-6 % 3", 0},
                                {"0 % 3", 0},
                                {"7.5 % 2", 1.5},
                                {"-0.5 % 2", 1.5},
                                {"5 % inf", 5},
                                {"floor(-0.5)", -1},
                                {"floor(7 / 2)", 3},
                                {"floor(-inf)", -std::numeric_limits<double>::infinity()}})
    CHECK_MESSAGE(value(text) == expected, text);
  CHECK(std::isnan(value("5 % 0")));
}

TEST_CASE("score: every name and function") {
  CHECK(value("s") == 3);
  CHECK(value("b + 0") == 1);
  CHECK(value("h + 0") == 5);
  CHECK(value("hk + 0") == 2);
  CHECK(value("q + 0") == 7);
  CHECK(value("k + 0") == 11);
  CHECK(value("sq + 0") == 13);
  CHECK(value("sk + 0") == 17);
  CHECK(value("abs(q - k)") == 4);
  CHECK(value("neg(q)") == -7);
  CHECK(value("exp(s)") == doctest::Approx(std::exp(3.0)));
  CHECK(value("log(s)") == doctest::Approx(std::log(3.0)));
  CHECK(value("sqrt(s)") == doctest::Approx(std::sqrt(3.0)));
  CHECK(value("tanh(s)") == doctest::Approx(std::tanh(3.0)));
  CHECK(value("sigmoid(s)") == doctest::Approx(1 / (1 + std::exp(-3.0))));
  CHECK(value("sigmoid(-100)") == doctest::Approx(std::exp(-100.0)));
  CHECK(value("floor(s / 2)") == 1);
  CHECK(value("k % 4") == 3);
  CHECK(value("-inf") == -std::numeric_limits<double>::infinity());
  CHECK(value("information + notes") == 300); // no operators
  CHECK(value("min(q, k)") == 7);
  CHECK(value("max(q, k)") == 11);
  CHECK(value("where(q < k, 1, 2)") == 1);
  CHECK(value("where(q > k, 1, 2)") == 2);
  CHECK(value("where(q, 1, 2)") == 1);
  CHECK(value("(q == 7) + 10 * (q != 7) + 100 * (q >= 7)") == 101);
  CHECK(value("first + 2 * second") == 500);
  CHECK(value("bias[b, h]") == 100015);
  CHECK(value("one[k] + two[q]") == 10011 + 20007);
  CHECK(value("t[k / 2]") == 10005); // indices round towards zero
}

TEST_CASE("score: canonical text") {
  CHECK(canonical("s") == "s");
  CHECK(canonical(" ( s ) ") == "s");
  CHECK(ScoreExpr{}.canonical() == "s");
  CHECK(canonical("cap*tanh(s/cap)") == "p0 * tanh(s / p0)");
  CHECK(canonical("other * tanh( s/other )") == canonical("cap*tanh(s/cap)"));
  CHECK(canonical("s - slopes[h] * abs(q + sk - sq - k)") == "s - t0[h] * abs(q + sk - sq - k)");
  CHECK(canonical("y[x[k]] + x[q] + z + y[k]") == "t0[t1[k]] + t1[q] + p0 + t0[k]");
  CHECK(canonical("(s + 1) * 2") == "(s + 1) * 2");
  CHECK(canonical("s - (1 - 2)") == "s - (1 - 2)");
  CHECK(canonical("(s - 1) - 2") == "s - 1 - 2");
  CHECK(canonical("neg(neg(s + 1))") == "--(s + 1)");
  CHECK(canonical("(s < 1) < 2") == "(s < 1) < 2");
  CHECK(canonical("where(k<=q,s,0-1e30)") == "where(k <= q, s, 0 - 1.00000002e+30)");
  CHECK(canonical("s * 0.1") == "s * 0.100000001"); // a constant is what fp32 holds
  CHECK(canonical("s * 0.1") == canonical("s * 0.100000001"));
  CHECK(canonical("where((q<k)and not(k%2 or x),s,-inf)") == "where(q < k and (k % 2 or p0) == 0, s, -inf)");
  CHECK(canonical("sigmoid(s + 1)") == "1 / (1 + exp(-(s + 1)))");
  CHECK(canonical("a and (b0 and c) or (d or e) and not f") ==
        "p0 and (p1 and p2) or (p3 or p4) and p5 == 0");
  CHECK(canonical("s + 0.5") != canonical("s + 0.25"));

  for (const char *text :
       {"s * 1.17549435e-38 + 3.40282347e38", "s/3-7*-q", "max(a[b,h,q,k], -c) / (q - k)",
        "((s < 1) == (k > q)) != 0", "neg(s) - -neg(-2)", "where(a, b0, c) * (a - (b0 - (c - a)))",
        "a or b0 and not not c == not_d or (a or 1) % floor(s % -2)",
        "(a and c) + (not a) * -sigmoid(-inf)"}) {
    CAPTURE(text);
    const std::string once = canonical(text);
    CHECK(canonical(once) == once);
    const auto a = ScoreExpr::parse(text), b = ScoreExpr::parse(once);
    REQUIRE(a->nodes.size() == b->nodes.size());
    for (size_t i = 0; i < a->nodes.size(); ++i) {
      CHECK(a->nodes[i].op == b->nodes[i].op);
      CHECK(float(a->nodes[i].value) == float(b->nodes[i].value));
      CHECK(a->nodes[i].slot == b->nodes[i].slot);
      CHECK(a->nodes[i].operands == b->nodes[i].operands);
    }
  }
}

TEST_CASE("score: errors name the column and what was expected") {
  CHECK(contains(error(""), "column 1 (the end): expected a number, a name or '('"));
  CHECK(contains(error("s +"), "column 4 (the end)"));
  CHECK(contains(error("s + * 2"), "column 5 ('*')"));
  CHECK(contains(error("(s + 1"), "column 7 (the end): expected ')'"));
  CHECK(contains(error("s s"), "column 3 ('s'): expected an operator or the end"));
  CHECK(contains(error("1 < 2 < 3"), "column 7 ('<')"));
  CHECK(contains(error("s + foo(1)"), "column 5 ('f'): 'foo' is not a function; there is abs, exp"));
  CHECK(contains(error("min(s)"), "column 1 ('m'): 'min' takes 2 arguments, not 1"));
  CHECK(contains(error("tanh(s, s)"), "'tanh' takes 1 argument, not 2"));
  CHECK(contains(error("tanh + 1"), "column 1 ('t'): 'tanh' is a function; expected '('"));
  CHECK(contains(error("sigmoid(s, s)"), "column 1 ('s'): 'sigmoid' takes 1 argument, not 2"));
  CHECK(contains(error("sigmoid + 1"), "'sigmoid' is a function; expected '('"));
  CHECK(contains(error("s + and"), "column 5 ('a'): 'and' is an operator"));
  CHECK(contains(error("s == not k"), "column 6 ('n'): 'not' is an operator"));
  CHECK(contains(error("s and"), "column 6 (the end)"));
  CHECK(contains(error("s andk"), "column 3 ('a'): expected an operator or the end"));
  CHECK(contains(error("inf[1]"), "'inf' is built in and cannot name a tensor"));
  CHECK(contains(error("inf(1)"), "'inf' is not a function"));
  CHECK(contains(error("s % % 2"), "column 5 ('%')"));
  CHECK(contains(error("q[1]"), "'q' is built in and cannot name a tensor"));
  CHECK(contains(error("a[1] + a[1, 2]"), "column 8 ('a'): 'a' has 1 indices elsewhere"));
  CHECK(contains(error("a[1] + a"), "'a' is a tensor elsewhere"));
  CHECK(contains(error("a + a[1]"), "'a' is a scalar elsewhere"));
  CHECK(contains(error("a[1, 2, 3, 4, 5]"), "at most 4 indices"));
  CHECK(contains(error("a[]"), "column 3 (']')"));
  CHECK(contains(error("a[1"), "expected ',' or ']'"));
  CHECK(contains(error("1e99"), "column 1 ('1'): expected a number that fp32 can hold"));
  CHECK(contains(error("."), "column 1 ('.')"));
  CHECK(contains(error("s ? 1"), "column 3 ('?')"));
  CHECK(contains(error(std::string_view("s\0+ 1", 5)), "column 2 (an unprintable character)"));
  CHECK(contains(error("s\x80"), "an unprintable character"));
}

TEST_CASE("score: limits") {
  auto repeat = [](std::string_view part, int n) {
    std::string text;
    while (n-- > 0)
      text += part;
    return text;
  };
  CHECK(contains(error(repeat(" ", 4096) + "s"), "4097 bytes; at most 4096"));
  CHECK(ScoreExpr::parse(repeat(" ", 4095) + "s").isOk());
  CHECK(ScoreExpr::parse(repeat("(", 63) + "s" + repeat(")", 63)).isOk());
  CHECK(contains(error(repeat("(", 64) + "s" + repeat(")", 64)), "deeper than 64"));
  CHECK(contains(error(repeat("(", 4000)), "deeper than 64"));
  CHECK(ScoreExpr::parse(repeat("s+", 127) + "s").isOk());
  CHECK(ScoreExpr::parse(repeat("-", 255) + "s").isOk());
  CHECK(contains(error(repeat("-", 256) + "s"), "more than 256"));
  CHECK(contains(error(repeat("s+", 128) + "s"), "more than 256"));
  CHECK(ScoreExpr::parse("a+b0+c+d+e+f+g+i").isOk());
  CHECK(contains(error("a+b0+c+d+e+f+g+i+j"), "column 18 ('j'): more than 8 scalars"));
  CHECK(contains(error("a[k]+b0[k]+c[k]+d[k]+e[k]"), "more than 4 tensors"));
  CHECK(contains(error(repeat("x", 65)), "longer than 64"));

  // Canonical text may not nest deeper than what it came from: the compiler parses it again.
  for (const std::string &nested :
       {repeat("neg(1 + ", 63) + "s" + repeat(")", 63), repeat("not ", 63) + "s",
        "0 * (" + repeat("not ", 60) + "s)", repeat("1 / -sigmoid(1 + ", 15) + "s" + repeat(")", 15),
        repeat("1 and (1 or ", 60) + "s" + repeat(")", 60)})
    CHECK(canonical(canonical(nested)) == canonical(nested));
  CHECK(contains(error(repeat("not ", 64) + "s"), "deeper than 64"));
  CHECK(contains(error(repeat("sigmoid(", 16) + "s" + repeat(")", 16)), "deeper than 64"));
}

TEST_CASE("score: which indices are whole numbers, and which are clamped") {
  auto last = [](std::string_view text) {
    auto expr = ScoreExpr::parse(text);
    REQUIRE_MESSAGE(expr.isOk(), text);
    return std::pair{*expr, int(expr->nodes.size()) - 1};
  };
  // Up to what int32 holds, for all lengths; a query row lies before the end of its sequence, a key before
  // that of its own.
  for (const char *text :
       {"k", "q + k", "q + k + 3", "sq + sk + 1", "2 * k", "q + sk - sq - k", "q + sk - sq - k + 1e9", "-k",
        "abs(q - k)", "3", "1e9 - k", "k + 16777216 - 16777216", "min(k, 5) * 1000000",
        "min(q, 9) * min(k, 9)", "k % 4", "(q - k) % 1000", "(k % 7) * 1e8",
        "(q + k) * 2 - q - k - q - k + 3", "max(b, h) - hk"}) {
    CAPTURE(text);
    const auto [expr, node] = last(text);
    CHECK(expr.isIntegerIndex(node));
  }
  for (const char *text : {"q + k + 4",
                           "sq + sk + 2",
                           "k * 4",
                           "q * sk",
                           "k / 2",
                           "2.5",
                           "3e9",
                           "-3e9",
                           "k + 1.1e9",
                           "s + k",
                           "exp(k)",
                           "b + h + hk",
                           "p",
                           "t[k]",
                           "k < q",
                           "where(k, k, k)",
                           "k % 0",
                           "k % -3",
                           "k % sk",
                           "(4 * k) % 3",
                           "k % 2.5",
                           "floor(k / 2)",
                           "k and q",
                           "inf",
                           "abs(4 * k) - 4 * k",
                           "1e30 * 1e30 * k"}) {
    CAPTURE(text);
    const auto [expr, node] = last(text);
    CHECK_FALSE(expr.isIntegerIndex(node));
  }
  CHECK_FALSE(ScoreExpr{}.clampsIndices());
  CHECK_FALSE(last("cap * tanh(s / cap)").first.clampsIndices());
  CHECK_FALSE(last("s - slopes[h] * abs(q + sk - sq - k) + t[b, hk]").first.clampsIndices());
  for (const char *text :
       {"t[k]", "t[q]", "t[3]", "t[b, h, hk, sk]", "t[h + 1]", "t[u[h]]", "s - slopes[h] + t[0 / 0]"})
    CHECK_MESSAGE(last(text).first.clampsIndices(), text);
}

TEST_CASE("score: a number as an index") {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (auto [value, index] : {std::pair<double, int64_t>{0, 0},
                              {0.9, 0},
                              {1, 1},
                              {2.9, 2},
                              {-0.5, 0},
                              {-1, 0},
                              {-1e300, 0},
                              {-kInf, 0},
                              {2147483646, 2147483646},
                              {2147483647, 2147483647},
                              {2147483648, 2147483647},
                              {1e300, 2147483647},
                              {kInf, 2147483647}})
    CHECK(scoreIndex(value) == index);
  CHECK(scoreIndex(std::numeric_limits<double>::quiet_NaN()) == 0);
  CHECK(value("t[0 - 5]") == 10000);
  CHECK(value("t[0 / 0]") == 10000);
  CHECK(value("t[1 / 0]") == 10000.0 + 2147483647);
}

TEST_CASE("score: numbers become scalars, so that they make no kernel of their own") {
  auto lifted = [](const char *text) {
    ScoreExpr expr = *ScoreExpr::parse(text);
    std::vector<ScoreNumber> numbers = expr.liftNumbers();
    std::string all = expr.canonical();
    for (const ScoreNumber &n : numbers) {
      REQUIRE(expr.scalars[size_t(n.slot)].starts_with("flashplus_"));
      all += " p" + std::to_string(n.slot) + "=" + std::to_string(n.value).substr(0, 4);
    }
    // Slots are those of the canonical text, which is what a kernel is made from.
    const ScoreExpr again = *ScoreExpr::parse(expr.canonical());
    CHECK(again.scalars.size() == expr.scalars.size());
    for (size_t i = 0; i < expr.nodes.size(); ++i)
      CHECK(again.nodes[i].slot == expr.nodes[i].slot);
    return all;
  };
  CHECK(lifted("s") == "s");
  CHECK(lifted("s * 0.5") == "s * p0 p0=0.50");
  CHECK(lifted("s * 0.25 + a * 3 - a") == "s * p0 + p1 * p2 - p1 p0=0.25 p2=3.00");
  CHECK(lifted("max(s, -30)") == "max(s, -p0) p0=30.0");
  CHECK(lifted("where(k % 4 == 0, s, -inf)") == "where(k % p0 == 0, s, -inf) p0=4.00");
  CHECK(lifted("where(s > 0, 1 - s, 2)") == "where(s > 0, 1 - s, p0) p0=2.00");
  // How an index is worked out depends on its numbers.
  CHECK(lifted("s + 4 * t[k / 2 + u[7]]") == "s + p0 * t0[k / 2 + t1[7]] p0=4.00");
  // Eight slots in all; the caller's own come first.
  CHECK(lifted("2 * 3 * 4 * 5 * 6 * 7 * 8 * 9 * 10 * x") ==
        "p0 * p1 * p2 * p3 * p4 * p5 * p6 * 9 * 10 * p7 p0=2.00 p1=3.00 p2=4.00 p3=5.00 p4=6.00 p5=7.00 "
        "p6=8.00");
}
