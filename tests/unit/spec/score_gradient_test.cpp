// SPDX-License-Identifier: BSD-3-Clause
#include "spec/score_gradient.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

using namespace flashplus;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

ScoreExpr parse(std::string_view text) {
  auto expr = ScoreExpr::parse(text);
  REQUIRE_MESSAGE(expr.isOk(), text << ": " << expr.status().message());
  return *expr;
}

/// Values of an expression's inputs; elements of tensors are a number of their own each, by a hash of the
/// indices.
struct Point {
  ScoreExpr::Point at = {.s = 0.7, .b = 1, .h = 5, .hk = 2, .q = 7, .k = 11, .sq = 13, .sk = 17};
  std::vector<double> scalars = {0.6, 1.7, -0.8, 2.4, 0.3, 1.1, -1.9, 0.9};
  double tensor_scale = 1;
  int moved_slot = -1; ///< An element that is `moved_by` more than it was.
  std::vector<int64_t> moved_at;
  double moved_by = 0;

  double element(int slot, std::span<const int64_t> indices) const {
    uint64_t hash = uint64_t(slot) + 1;
    for (int64_t i : indices)
      hash = (hash ^ uint64_t(i)) * 0x9E3779B97F4A7C15u;
    double value = tensor_scale * (double(hash >> 40) / double(1 << 24) + 0.2);
    if (slot == moved_slot && std::equal(indices.begin(), indices.end(), moved_at.begin(), moved_at.end()))
      value += moved_by;
    return value;
  }
  std::vector<double> evaluate(std::span<const ScoreNode> nodes) const {
    return evaluateNodes(nodes, at, scalars, [this](int slot, std::span<const int64_t> indices) {
      return element(slot, indices);
    });
  }
};

/// The value of an expression by its own nodes.
double value(const ScoreExpr &expr, const Point &p) {
  return expr.isIdentity() ? p.at.s : p.evaluate(expr.nodes).back();
}

/// The central difference of f, and whether it is the same with half the step.
template <class F> std::optional<double> slope(F f) {
  const double h = 1e-4, wide = (f(h) - f(-h)) / (2 * h), near = (f(h / 2) - f(-h / 2)) / h;
  if (!std::isfinite(f(0)) || !std::isfinite(wide) || !std::isfinite(near) ||
      std::fabs(wide - near) > 1e-4 * (1e-3 + std::fabs(near)))
    return std::nullopt;
  return near + (near - wide) / 3;
}

struct Checked {
  int smooth = 0, all = 0;
};

/// Every derivative of `expr` at `p` against the central difference of its value, where that exists.
Checked check(const ScoreExpr &expr, const Point &p) {
  const ScoreGradient g = differentiate(expr);
  const std::vector<double> v = p.evaluate(g.nodes);
  const double w = value(expr, p);
  CHECK((v[size_t(g.value)] == w || (std::isnan(w) && std::isnan(v[size_t(g.value)]))));
  Checked checked;
  auto compare = [&](const std::string &what, int node, const std::optional<double> &expected) {
    ++checked.all;
    if (!expected)
      return;
    ++checked.smooth;
    const double tolerance = 1e-5 * std::fabs(*expected) + 1e-7 + 1e-10 * std::fabs(w), got = v[size_t(node)];
    CHECK_MESSAGE(std::fabs(got - *expected) <= tolerance, what << " is " << got << ", by differences "
                                                                << *expected << ": " << expr.canonical()
                                                                << "\n"
                                                                << g.text());
  };
  compare("d/ds", g.ds, slope([&](double h) {
            Point moved = p;
            moved.at.s += h;
            return value(expr, moved);
          }));
  if (const double product = v[size_t(g.ds_factor)] * v[size_t(g.ds_element)]; std::isfinite(product))
    CHECK(v[size_t(g.ds)] == product);
  for (size_t slot = 0; slot < expr.scalars.size(); ++slot)
    compare("d/dp" + std::to_string(slot), g.dscalars[slot],
            slot < p.scalars.size() ? slope([&](double h) {
              Point moved = p;
              moved.scalars[slot] += h;
              return value(expr, moved);
            })
                                    : std::nullopt);
  // Two reads may be of one element here: all that read it move together.
  for (const ScoreGradient::Read &read : g.reads) {
    auto elementOf = [&](const ScoreNode &node) {
      std::vector<int64_t> indices;
      for (int index : node.operands)
        indices.push_back(scoreIndex(v[size_t(index)]));
      return indices;
    };
    const std::vector<int64_t> indices = elementOf(g.nodes[size_t(read.node)]);
    bool alone = true; // and no other node reads the element: those without a derivative jump
    for (size_t i = 0; i < g.nodes.size(); ++i)
      alone &= int(i) == read.node || g.nodes[i].op != ScoreOp::Tensor || g.nodes[i].slot != read.slot ||
               elementOf(g.nodes[i]) != indices;
    compare("d/dt" + std::to_string(read.slot), read.adjoint, !alone ? std::nullopt : slope([&](double h) {
              Point moved = p;
              moved.moved_slot = read.slot;
              moved.moved_at = indices;
              moved.moved_by = h;
              return value(expr, moved);
            }));
  }
  return checked;
}

std::string ds(const char *text) {
  const ScoreGradient g = differentiate(parse(text));
  return g.text(g.ds);
}

} // namespace

TEST_CASE("score gradient: every operation against central differences") {
  std::mt19937 engine(3);
  std::uniform_real_distribution<double> any(-2, 2), positive(0.1, 2);
  int smooth = 0;
  for (const char *text : {"s",
                           "-s * a",
                           "abs(s) * abs(a)",
                           "exp(s) + exp(a * s)",
                           "tanh(s) + tanh(a - s)",
                           "s + a + t[h]",
                           "s - a - t[h]",
                           "s * a * t[q, k]",
                           "a / s + s / a + t[k] / s",
                           "min(s, a) + min(t[k], s)",
                           "max(s, a) + max(t[k], s * c)",
                           "where(s < a, s * s, a * s)",
                           "where(a, t[k] * s, s)",
                           "(s < a) * s + (s <= a) * a + (s > t[k]) * s + (s >= a) + (s == a) + (s != a) * s",
                           "sigmoid(s) * a - sigmoid(a * s - t[k])",
                           "floor(s * 3) * a + floor(a) * s + s",
                           "s % a + (a * s) % t[k] + s % -a",
                           "where(s < a and t[k] < s or not s < 0.3, s * s, a * s) + (s and a) * s",
                           "where(k % 2 == 0, s * a, -inf)",
                           "s * q + k * a - h / s * b + sq * s - hk * a * s / sk",
                           "t[q] * t[k] * s + t[q] * a",
                           "a * tanh(s / a)",
                           "(s - slopes[h] * abs(q + sk - sq - k)) * c",
                           "s + t[u[k]] + t[s] * u[a]",
                           "tanh(tanh(exp(-s * s)) * a) / (1 + exp(-s))"})
    for (int i = 0; i < 20; ++i) {
      Point p;
      p.at.s = any(engine);
      for (double &x : p.scalars)
        x = any(engine);
      smooth += check(parse(text), p).smooth;
    }
  for (const char *text :
       {"log(s) * a + log(a)", "sqrt(s) * a + sqrt(a * s)", "log(s / a) + sqrt(log(s) * log(s) + t[k])"})
    for (int i = 0; i < 20; ++i) {
      Point p;
      p.at.s = positive(engine);
      for (double &x : p.scalars)
        x = positive(engine);
      smooth += check(parse(text), p).smooth;
    }
  CHECK(smooth > 1100); // where a square root of a negative number or a jump is not
}

TEST_CASE("score gradient: far out the slope of tanh is no difference of numbers near 1") {
  const ScoreGradient g = differentiate(*ScoreExpr::parse("tanh(s)"));
  for (double x : {-300.0, -20.0, -1.0, 0.0, 0.3, 9.0, 25.0}) {
    ScoreExpr::Point at;
    at.s = x;
    const double slope = evaluateNodes(g.nodes, at, {}, {})[size_t(g.ds)];
    const double exact = 1 / (std::cosh(x) * std::cosh(x));
    CHECK(std::fabs(slope - exact) <= 1e-13 * exact);
  }
}

TEST_CASE("score gradient: what kernels are spared") {
  CHECK(ds("s") == "1");
  CHECK(ds("s - slopes[h] * abs(q + sk - sq - k)") == "1");
  CHECK(ds("s * 0 + c") == "0");
  CHECK(ds("cap * tanh(s / cap)") == "x0 = s / p0; sech2(x0, tanh(x0))");
  CHECK(ds("a * tanh(s / c)") == "x0 = s / p1; p0 / p1 * sech2(x0, tanh(x0))");
  CHECK(ds("a * s / a + 2 * (s - 3)") == "3");
  CHECK(ds("-(-(s * s))") == "2 * s");
  CHECK(ds("--s") == "1");
  CHECK(ds("0 - s") == "-1");
  CHECK(ds("c - s * a") == "-p1");
  CHECK(ds("where(k <= q, s * a, s * c)") == "where(k <= q, p0, p1)");
  CHECK(ds("where(k <= q, s, c)") == "k <= q");
  CHECK(ds("where(k <= q, s, s)") == "1");
  CHECK(ds("where(k <= q, s, where(k <= q, c, s))") == "1");
  CHECK(ds("where(k <= q, where(k <= q, s * a, c), s * e)") == "where(k <= q, p0, p2)");
  CHECK(ds("where(1, s, c)") == "1");
  CHECK(ds("s + s + s") == "3");
  CHECK(ds("sqrt(s * s + 1)") == "1 / sqrt(s * s + 1) * s");

  // Nodes of the score are what they were: a number of an index is no fp32 number.
  const ScoreGradient index = differentiate(parse("s * t[k + 16777216 - 16777216]"));
  CHECK(index.text(index.value) == "s * t0[k + 16777216 - 16777216]");
  CHECK(isIntegerIndex(index.nodes, index.nodes[size_t(index.reads[0].node)].operands[0]));

  const ScoreGradient softcap = differentiate(parse("cap * tanh(s / cap)"));
  CHECK_FALSE(softcap.isLinear());
  CHECK(softcap.isFinite(softcap.ds));
  CHECK(softcap.isConstant(softcap.ds_factor, 1));
  CHECK(softcap.text() ==
        "x0 = s / p0\nx1 = tanh(x0)\nx2 = sech2(x0, x1)\nscore = p0 * x1\nd/ds = x2\nd/dp0 = x1 - x2 * x0\n");

  const ScoreGradient alibi =
      differentiate(parse("c * s - slopes[h] * abs(q + sk - sq - k) + t[k] + u[b, h, q, k] + w[k < 3]"));
  CHECK(alibi.isLinear());
  CHECK(alibi.isUniform(alibi.ds));
  CHECK(alibi.ds == alibi.ds_factor);
  CHECK(alibi.isConstant(alibi.ds_element, 1));
  REQUIRE(alibi.reads.size() == 4);
  CHECK(alibi.reads[0].indexed_by == kReadsHead);
  CHECK(alibi.text(alibi.reads[0].adjoint) == "-abs(q + sk - sq - k)");
  CHECK(alibi.reads[1].indexed_by == kReadsKey);
  CHECK(alibi.isConstant(alibi.reads[1].adjoint, 1));
  CHECK(alibi.reads[2].indexed_by == (kReadsBatch | kReadsHead | kReadsQuery | kReadsKey));
  CHECK(alibi.reads[3].indexed_by == kReadsKey);
  REQUIRE(alibi.dscalars.size() == 1);
  CHECK(alibi.text(alibi.dscalars[0]) == "s");

  // An element that is only an index or a condition has no derivative; equal reads are one.
  const ScoreGradient reads = differentiate(parse("where(u[q] > 0, t[u[k]] * s, t[u[k]])"));
  REQUIRE(reads.reads.size() == 1);
  CHECK(reads.reads[0].slot == 1);
  CHECK(reads.text(reads.reads[0].adjoint) == "where(t0[q] > 0, s, 1)");
  const ScoreGradient head = differentiate(parse("s * t[h]"));
  CHECK(head.text(head.ds_factor) == "t0[h]");
  CHECK(head.isConstant(head.ds_element, 1));
  const ScoreGradient key = differentiate(parse("s * t[k]"));
  CHECK(key.isLinear());
  CHECK_FALSE(key.isUniform(key.ds));
}

TEST_CASE("score gradient: places without a derivative") {
  auto at = [](const char *text, double s, double a = 0) {
    Point p;
    p.at.s = s;
    p.scalars[0] = a;
    const ScoreGradient g = differentiate(parse(text));
    const std::vector<double> v = p.evaluate(g.nodes);
    return std::pair{v[size_t(g.ds)], g.dscalars.empty() ? 0 : v[size_t(g.dscalars[0])]};
  };
  CHECK(at("abs(s)", 0).first == 0);
  CHECK(at("abs(s)", -0.0).first == 0);
  CHECK(at("3 * abs(s * s * s)", 0).first == 0);
  CHECK(at("max(s, a)", 2, 2) == std::pair{0.5, 0.5});
  CHECK(at("min(s, a)", 2, 2) == std::pair{0.5, 0.5});
  CHECK(at("min(s, a)", 0.0, -0.0) == std::pair{0.5, 0.5});
  CHECK(at("max(s, s) * a", 2, 3).first == 3);
  CHECK(at("where(s == a, s * 5, s)", 2, 2).first == 5);
}

TEST_CASE("score gradient: what is not finite stays where it is") {
  struct Row {
    const char *text;
    double s, a, ds, da;
    double tensor = 1; ///< Elements are this much times something positive.
  };
  const Row rows[] = {
      // softcap at its ends
      {"a * tanh(s / a)", 1e6, 2, 0, 1},
      {"a * tanh(s / a)", -kInf, 2, 0,
       std::nan("")}, // no score of finite q and k is infinite; ds is 0 all the same
      {"a * tanh((s + t[k]) / a)", 3, 2, 0, -1, -kInf},
      {"tanh(a * t[k] + s)", 3, 2, 0, 0, -kInf},
      // a branch that is not selected
      {"where(s < 80, exp(s), s + a)", 1000, 0, 1, 1},
      {"where(s > 0, log(s) * a, s)", 0, 3, 1, 0},
      {"where(s > 0, sqrt(s) * a, s)", 0, 3, 1, 0},
      {"where(s > 0, a / s, s)", 0, 3, 1, 0},
      {"where(a, s / a, s)", 2, 0, 1, 0},
      {"where(a, s / a + tanh(s / a), s)", 0, 0, 1, 0},
      {"where(a, exp(s / a) * a, s)", 0, 0, 1, 0},
      {"where(k < q, t[k] * s, s)", 2, 0, 1, 0, -kInf},
      {"where(k < q, t[h] * s, s)", 2, 0, 1, 0, -kInf},
      {"where(k < q, a * (t[h] * s), s)", 2, 3, 1, 0, kInf},
      {"where(k < q, abs(t[h] * s), s)", 2, 3, 1, 0, kInf},
      {"where(k < q, max(t[h] * s, s * s) * exp(1000 * s), s)", 2, 3, 1, 0, kInf},
      {"where(k < q, where(q < k, s, sqrt(0 - s)), where(q < k, s, log(0 - s))) * a", 2, 3, 3, 2},
      {"where(k < q, 1, 0) * exp(s) + s", 1, 0, 1, 0},
      {"min(sqrt(s), a)", -1, 3, 0, 1}, // min and max ignore a NaN
      {"max(sqrt(s) * a, s)", -1, 3, 1, 0},
      {"sqrt(max(s, 0)) + s", -1, 0, 1, 0},
      // 0 times infinity in a chain
      {"exp(0 - exp(s))", 1000, 0, 0, 0},
      {"exp(0 - exp(s)) * a + s", 1000, 2, 1, 0},
      {"tanh(exp(s) * a)", 1000, 2, 0, 0},
      {"tanh(log(abs(s))) * a", 0, 2, 0, -1},
      {"tanh(1 / s)", 0, 0, 0, 0},
  };
  for (const Row &row : rows) {
    CAPTURE(row.text);
    CAPTURE(row.s);
    Point p;
    p.at.s = row.s;
    p.scalars[0] = row.a;
    p.tensor_scale = row.tensor;
    const ScoreExpr expr = parse(row.text);
    const ScoreGradient g = differentiate(expr);
    CAPTURE(g.text());
    const std::vector<double> v = p.evaluate(g.nodes);
    CHECK(std::isfinite(v[size_t(g.value)]));
    CHECK(v[size_t(g.ds)] == row.ds);
    if (!expr.scalars.empty() && !std::isnan(row.da))
      CHECK(v[size_t(g.dscalars[0])] == row.da);
  }
  // What may be multiplied by p = 0, and what has to be selected.
  auto finite = [](const char *text) {
    const ScoreGradient g = differentiate(parse(text));
    return g.isFinite(g.ds);
  };
  CHECK(finite("a * tanh((s + t[k]) / a)"));
  CHECK(finite("where(k < q, s * a, s)"));
  CHECK_FALSE(finite("exp(s)"));
  CHECK_FALSE(finite("log(s)"));
  CHECK_FALSE(finite("s * t[k]"));
  CHECK_FALSE(finite("1 / s"));
}

namespace {

/// Random text of the grammar.
class Writer {
public:
  explicit Writer(uint32_t seed) : engine_(seed) {}
  std::string write(int depth) {
    if (depth == 0 || below(6) == 0) {
      static const char *kLeaves[] = {"s",  "s",   "s", "a", "c", "e",    "q",    "k",       "h",
                                      "sk", "0.5", "2", "1", "0", "t[h]", "t[k]", "u[q, k]", "u[h, q - k]"};
      return kLeaves[below(18)];
    }
    auto sub = [&] { return write(depth - 1); };
    static const char *kUnary[] = {"-", "abs", "exp", "log", "sqrt", "tanh", "tanh", "neg"};
    static const char *kBinary[] = {"+", "-", "*", "/", "+", "*", "<", "<=", ">", ">=", "==", "!="};
    switch (below(10)) {
    case 0:
    case 1:
    case 2:
      return std::string(kUnary[below(8)]) + "(" + sub() + ")";
    case 3:
      return "min(" + sub() + ", " + sub() + ")";
    case 4:
      return "max(" + sub() + ", " + sub() + ")";
    case 5:
      return "where(" + sub() + ", " + sub() + ", " + sub() + ")";
    default:
      return "(" + sub() + " " + kBinary[below(12)] + " " + sub() + ")";
    }
  }

private:
  uint32_t below(uint32_t n) { return uint32_t(engine_() % n); }
  std::mt19937 engine_;
};

void checkForm(const ScoreExpr &expr, const ScoreGradient &g) {
  REQUIRE(g.nodes.size() <= 10 * std::max<size_t>(expr.nodes.size(), 1));
  REQUIRE(g.facts.size() == g.nodes.size());
  std::vector<bool> used(g.nodes.size(), false);
  for (int root : {g.value, g.ds, g.ds_factor, g.ds_element})
    used.at(size_t(root)) = true;
  for (int root : g.dscalars)
    used.at(size_t(root)) = true;
  for (const ScoreGradient::Read &read : g.reads)
    used.at(size_t(read.node)) = used.at(size_t(read.adjoint)) = true;
  for (size_t i = g.nodes.size(); i-- > 0;) {
    CHECK(used[i]);
    for (int operand : g.nodes[i].operands) {
      REQUIRE((operand >= 0 && size_t(operand) < i));
      used[size_t(operand)] = true;
    }
  }
}

} // namespace

TEST_CASE("score gradient: random expressions") {
  int smooth = 0, all = 0;
  for (uint32_t seed = 0; seed < 1500; ++seed) {
    CAPTURE(seed);
    Writer writer(seed);
    const auto expr = ScoreExpr::parse(writer.write(2 + int(seed % 4)));
    if (!expr) // too many of something
      continue;
    checkForm(*expr, differentiate(*expr));
    std::mt19937 engine(seed);
    std::uniform_real_distribution<double> any(-3, 3);
    for (int i = 0; i < 3; ++i) {
      Point p;
      p.at.s = any(engine);
      for (double &x : p.scalars)
        x = any(engine);
      const Checked checked = check(*expr, p);
      smooth += checked.smooth;
      all += checked.all;
    }
  }
  CHECK(smooth > all / 2);
}

TEST_CASE("score gradient: the largest expressions have a bounded gradient and text") {
  auto repeat = [](std::string_view part, int n) {
    std::string text;
    while (n-- > 0)
      text += part;
    return text;
  };
  for (const std::string &text :
       {repeat("s*", 127) + "s", repeat("s/", 127) + "s", repeat("s+", 127) + "s",
        repeat("tanh(", 63) + "s" + repeat(")", 63), repeat("abs(", 63) + "s" + repeat(")", 63),
        repeat("exp(a/", 60) + "s" + repeat(")", 60), repeat("max(s,", 60) + "a" + repeat(")", 60),
        repeat("where(s,s/a,", 45) + "s" + repeat(")", 45),
        repeat("sqrt(where(k<q,s,", 25) + "s" + repeat("))", 25), repeat("t[k]/", 60) + "s",
        repeat("tanh(s/", 50) + "a" + repeat(")", 50),
        repeat("where(k<q,1,", 30) + "tanh(a*s)" + repeat(")*exp(s)", 30)}) {
    CAPTURE(text);
    const ScoreExpr expr = parse(text);
    const ScoreGradient g = differentiate(expr);
    checkForm(expr, g);
    CHECK(g.nodes.size() <= size_t(kMaxScoreGradientNodes));
    CHECK(g.text().size() < 50 * g.nodes.size() + 200);
    CHECK(g.text(g.ds).size() < 50 * g.nodes.size() + 200);
  }
}
