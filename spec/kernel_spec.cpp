// SPDX-License-Identifier: BSD-3-Clause
#include "spec/kernel_spec.h"

#include <charconv>

namespace flashplus {
namespace {

std::string_view operationName(Operation op) { return op == Operation::Forward ? "forward" : "combine"; }

Status bad(std::string_view text, std::string_view why) {
  return invalidArgument("spec '" + std::string(text.substr(0, 200)) + "' does not parse: " + std::string(why));
}

/// Walks "name=value" words in a fixed order.
class Reader {
public:
  explicit Reader(std::string_view text) : text_(text), rest_(text) {}

  Status status = Status::ok();

  std::string_view word() {
    const size_t space = rest_.find(' ');
    const std::string_view w = rest_.substr(0, space);
    rest_ = space == std::string_view::npos ? std::string_view{} : rest_.substr(space + 1);
    return w;
  }

  std::string_view value(std::string_view name) {
    const std::string_view w = word();
    if (!w.starts_with(name) || w.size() <= name.size() || w[name.size()] != '=') {
      fail("expected '" + std::string(name) + "=' at '" + std::string(w) + "'");
      return {};
    }
    return w.substr(name.size() + 1);
  }

  int integer(std::string_view name) {
    const std::string_view v = value(name);
    int result = 0;
    const auto [stop, error] = std::from_chars(v.data(), v.data() + v.size(), result);
    if (status && (error != std::errc() || stop != v.data() + v.size()))
      fail(std::string(name) + " is '" + std::string(v) + "'; it must be an integer");
    return result;
  }

  bool flag(std::string_view name) {
    const int v = integer(name);
    if (status && v != 0 && v != 1)
      fail(std::string(name) + " is " + std::to_string(v) + "; it must be 0 or 1");
    return v == 1;
  }

  DType dtype() {
    const std::string_view v = value("dtype");
    const auto parsed = parseDType(v);
    if (status && !parsed)
      fail("dtype is '" + std::string(v) + "'; it must be fp16, bf16 or fp32");
    return parsed.value_or(DType::BF16);
  }

  std::string_view rest() const { return rest_; }

  void fail(const std::string &why) {
    if (status)
      status = bad(text_, why);
  }

private:
  std::string_view text_, rest_;
};

} // namespace

std::string KernelSpec::text() const {
  auto field = [](const char *name, int value) { return std::string(" ") + name + "=" + std::to_string(value); };
  std::string out(operationName(op));
  out += " dtype=" + std::string(dtypeName(dtype));
  if (op == Operation::Combine)
    return out + field("dv", head_dim_v) + field("align", alignment);
  out += field("dqk", head_dim_qk) + field("dv", head_dim_v) + field("left", bounded_left) +
         field("right", bounded_right) + field("split", split) + field("align", alignment);
  return out + " score={" + score.canonical() + "}";
}

Result<KernelSpec> KernelSpec::parse(std::string_view text) {
  Reader reader(text);
  KernelSpec spec;
  const std::string_view op = reader.word();
  if (op == operationName(Operation::Combine)) {
    spec.op = Operation::Combine;
    spec.dtype = reader.dtype();
    spec.head_dim_v = reader.integer("dv");
    spec.alignment = reader.integer("align");
    if (!reader.rest().empty())
      reader.fail("unexpected '" + std::string(reader.rest()) + "'");
  } else if (op == operationName(Operation::Forward)) {
    spec.dtype = reader.dtype();
    spec.head_dim_qk = reader.integer("dqk");
    spec.head_dim_v = reader.integer("dv");
    spec.bounded_left = reader.flag("left");
    spec.bounded_right = reader.flag("right");
    spec.split = reader.flag("split");
    spec.alignment = reader.integer("align");
    const std::string_view score = reader.rest();
    if (!score.starts_with("score={") || !score.ends_with("}"))
      reader.fail("expected 'score={...}' at the end");
    if (reader.status) {
      auto parsed = ScoreExpr::parse(score.substr(7, score.size() - 8));
      if (!parsed)
        return parsed.status();
      spec.score = std::move(*parsed);
    }
  } else {
    reader.fail("the operation is '" + std::string(op) + "'; it must be forward or combine");
  }
  if (!reader.status)
    return reader.status;
  FLASHPLUS_RETURN_IF_ERROR(spec.validate());
  return spec;
}

Status KernelSpec::validate() const {
  auto headDim = [](const char *name, int value) {
    if (value >= 1 && value <= kMaxHeadDim)
      return Status::ok();
    return invalidArgument(std::string(name) + " is " + std::to_string(value) + "; it must be 1 to " +
                           std::to_string(kMaxHeadDim));
  };
  if (op == Operation::Forward)
    FLASHPLUS_RETURN_IF_ERROR(headDim("head_dim_qk", head_dim_qk));
  FLASHPLUS_RETURN_IF_ERROR(headDim("head_dim_v", head_dim_v));
  const int element = dtypeBytes(dtype);
  if (alignment != 16 && alignment != element)
    return invalidArgument("alignment is " + std::to_string(alignment) + "; it must be 16 or the element size " +
                           std::to_string(element));
  if (alignment == 16 && (head_dim_qk * element % 16 || head_dim_v * element % 16))
    return invalidArgument("alignment is 16, but rows of head_dim_qk " + std::to_string(head_dim_qk) +
                           " and head_dim_v " + std::to_string(head_dim_v) + " are not multiples of 16 bytes");
  return Status::ok();
}

} // namespace flashplus
