// SPDX-License-Identifier: BSD-3-Clause
#include "spec/kernel_spec.h"

#include "spec/score_cost.h"
#include "spec/score_gradient.h"

#include <charconv>

namespace flashplus {
namespace {

constexpr std::string_view kScore = "score={";

/// A name that a field had in an earlier version, with its values as numbers.
struct FormerName {
  std::string_view name;
  SpecField field;
};
constexpr FormerName kFormerNames[] = {{"split", SpecField::results}};

/// Takes a line apart, word by word.
class Parser {
public:
  explicit Parser(std::string_view text) : text_(text), rest_(text) {}

  Result<KernelSpec> parse() {
    const std::string_view name = word();
    const auto op = parseOperation(name);
    if (!op)
      return bad("the operation is '" + std::string(name) + "'; it must be one of " +
                 std::string(operationNames()));
    spec_.op = *op;
    info_ = &operationInfo(*op);
    while (status_ && !rest_.empty() && !rest_.starts_with(kScore))
      assignment(word());
    if (status_ && !rest_.empty())
      score();
    for (const SpecFieldInfo &f : specFields())
      if (status_ && f.required && f.isIn(*info_) && !(seen_ >> int(f.id) & 1))
        status_ = bad("'" + std::string(f.name) + "=' is missing");
    if (!status_)
      return status_;
    FLASHPLUS_RETURN_IF_ERROR(spec_.validate());
    return std::move(spec_);
  }

private:
  Status bad(const std::string &why) const {
    return invalidArgument("spec '" + std::string(text_.substr(0, 200)) + "' does not parse: " + why);
  }

  std::string_view word() {
    const size_t space = rest_.find(' ');
    const std::string_view w = rest_.substr(0, space);
    rest_ = space == std::string_view::npos ? std::string_view{} : rest_.substr(space + 1);
    if (space != std::string_view::npos && rest_.empty())
      status_ = bad("it ends in a blank");
    return w;
  }

  std::string fieldNames() const {
    std::string names;
    for (const SpecFieldInfo &f : specFields())
      if (f.isIn(*info_))
        names += (names.empty() ? "" : ", ") + std::string(f.name);
    return names;
  }

  void assignment(std::string_view w) {
    const size_t equals = std::min(w.find('='), w.size());
    const std::string_view name = w.substr(0, equals), value = equals < w.size() ? w.substr(equals + 1) : "";
    const SpecFieldInfo *field = nullptr;
    bool former = false;
    for (const FormerName &f : kFormerNames)
      if (former = f.name == name; former) {
        field = &specFields()[size_t(f.field)];
        break;
      }
    for (const SpecFieldInfo &f : specFields())
      if (f.name == name)
        field = &f;
    if (!field || !field->isIn(*info_) || equals == w.size()) {
      status_ = bad("unexpected '" + std::string(w) + "'; " + std::string(info_->name) + " has the fields " +
                    fieldNames() + (info_->hasScore() ? ", and score={...} at the end" : ""));
      return;
    }
    if (seen_ >> int(field->id) & 1) {
      status_ = bad(std::string(name) + " appears twice");
      return;
    }
    seen_ |= FieldSet(1) << int(field->id);
    int64_t number = 0;
    if (!former && field->kind == SpecFieldInfo::Kind::Word) {
      while (number <= field->most() && field->words[size_t(number)] != value)
        ++number;
    } else {
      const auto [stop, error] = std::from_chars(value.data(), value.data() + value.size(), number);
      if (error != std::errc() || stop != value.data() + value.size())
        number = -1;
    }
    const int64_t most = former ? 1 : field->most();
    if (number < 0 || number > most)
      status_ = bad(std::string(name) + " is '" + std::string(value) + "'; it must be " +
                    (former ? "0 or 1" : field->allowed()));
    else
      field->set(spec_, number);
  }

  void score() {
    if (!info_->hasScore()) {
      status_ = bad("unexpected '" + std::string(rest_) + "'; " + std::string(info_->name) + " has no score");
      return;
    }
    if (!rest_.ends_with("}")) {
      status_ = bad("score={ does not end in }");
      return;
    }
    auto parsed = ScoreExpr::parse(rest_.substr(kScore.size(), rest_.size() - kScore.size() - 1));
    if (!parsed)
      status_ = parsed.status();
    else
      spec_.score = std::move(*parsed);
  }

  std::string_view text_, rest_;
  KernelSpec spec_;
  const OperationInfo *info_ = nullptr;
  FieldSet seen_ = 0;
  Status status_;
};

} // namespace

std::string KernelSpec::text() const {
  const OperationInfo &info = operationInfo(op);
  std::string text(info.name);
  for (const SpecFieldInfo &f : specFields()) {
    const int64_t value = f.get(*this);
    if (!f.isIn(info) || (value == f.standard && !f.required))
      continue;
    text += " " + std::string(f.name) + "=";
    text += f.kind == SpecFieldInfo::Kind::Word ? std::string(f.words[size_t(value)]) : std::to_string(value);
  }
  if (info.hasScore() && !score.isIdentity())
    text += " score={" + score.canonical() + "}";
  return text;
}

Result<KernelSpec> KernelSpec::parse(std::string_view text) { return Parser(text).parse(); }

Status KernelSpec::validate() const {
  const OperationInfo &info = operationInfo(op);
  auto has = [&](SpecField f) { return (info.fields & fieldSet({f})) != 0; };
  for (auto [field, value] :
       {std::pair{SpecField::head_dim_qk, head_dim_qk}, {SpecField::head_dim_v, head_dim_v}})
    if (has(field) && (value < 1 || value > kMaxHeadDim))
      return invalidArgument(std::string(specFields()[size_t(field)].member) + " is " +
                             std::to_string(value) + "; it must be 1 to " + std::to_string(kMaxHeadDim));
  if (hasSinks() && isPartial())
    return invalidArgument("sinks is " + std::string(dtypeName(flashplus::dtypeOf(sinks))) +
                           ", but results is partial; rows get their sink where shares are combined");
  const int wanted = score_grads;
  if (wanted < 0 || wanted >= 1 << (kMaxScoreScalars + kMaxScoreTensors))
    return invalidArgument("score_grads is " + std::to_string(wanted) + "; it must be 0 to " +
                           std::to_string((1 << (kMaxScoreScalars + kMaxScoreTensors)) - 1));
  // Every tensor's rows are aligned, so elements of the smallest size limit what there may be.
  const int element = std::min({dtypeBytes(dtype), dtypeBytes(dtypeKV()), dtypeBytes(dtypeO())});
  if (alignment != 16 && alignment != element)
    return invalidArgument("alignment is " + std::to_string(alignment) +
                           "; it must be 16 or the element size " + std::to_string(element));
  if (alignment == 16 && (head_dim_qk * element % 16 || head_dim_v * element % 16))
    return invalidArgument("alignment is 16, but rows of head_dim_qk " + std::to_string(head_dim_qk) +
                           " and head_dim_v " + std::to_string(head_dim_v) +
                           " are not multiples of 16 bytes");
  if (info.score == ScoreUse::None || score.isIdentity())
    return Status::ok();
  if (info.score == ScoreUse::Value)
    return checkScoreCost(score.nodes, "score");
  return checkScoreCost(differentiate(score).nodes, "score with its derivatives");
}

} // namespace flashplus
