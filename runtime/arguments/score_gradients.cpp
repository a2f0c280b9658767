// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/score_gradients.h"

#include <algorithm>

namespace flashplus {
namespace {

class GradientBinder {
public:
  GradientBinder(TensorReader &reader, const flashplus_backward_args &args,
                 std::span<const OperandArg> operands, BackwardProblem &out)
      : reader_(reader), a_(args), operands_(operands), out_(out), form_(*out.spec.score) {}

  Status run() {
    if (a_.num_score_gradients < 0 || (a_.num_score_gradients > 0 && !a_.score_gradients))
      return invalidArgument("num_score_gradients is " + std::to_string(a_.num_score_gradients) +
                             " and score_gradients is " + (a_.score_gradients ? "given" : "null") +
                             "; they must agree");
    if (a_.dalibi_slopes) {
      if (!a_.alibi_slopes)
        return invalidArgument("dalibi_slopes is given and alibi_slopes is null; there is no gradient of "
                               "slopes that are not there");
      FLASHPLUS_RETURN_IF_ERROR(
          ofTensor("dalibi_slopes", ScoreForm::kSlopes, a_.alibi_slopes, a_.dalibi_slopes));
    }
    if (a_.dsoftcap) {
      if (a_.softcap == 0)
        return invalidArgument("dsoftcap is given and softcap is 0, which is none");
      FLASHPLUS_RETURN_IF_ERROR(ofScalar("dsoftcap", ScoreForm::kSoftcap, a_.dsoftcap));
    }
    for (int i = 0; i < a_.num_score_gradients; ++i)
      FLASHPLUS_RETURN_IF_ERROR(named(a_.score_gradients[i]));
    return Status::ok();
  }

private:
  Status named(const flashplus_score_gradient &g) {
    const std::string_view name = g.name ? g.name : "";
    const std::string label = "score gradient of '" + std::string(g.name ? g.name : "(null)") + "'";
    if (!name.starts_with(ScoreForm::kReserved)) {
      for (int i = 0; i < a_.num_score_tensors; ++i)
        if (a_.score_tensors[i].name && name == a_.score_tensors[i].name)
          return ofTensor(label, name, a_.score_tensors[i].tensor, g.tensor);
      for (int i = 0; i < a_.num_score_scalars; ++i)
        if (a_.score_scalars[i].name && name == a_.score_scalars[i].name)
          return ofScalar(label, name, g.tensor);
    }
    return invalidArgument("score_gradients names '" + std::string(g.name ? g.name : "(null)") +
                           "', which is no tensor or scalar of the score");
  }

  /// The score has a tensor of this name: bindScore saw to it.
  Status ofTensor(const std::string &label, std::string_view name, const DLTensor *of, const DLTensor *to) {
    const auto &tensors = form_.expr.tensors;
    const auto slot = std::ranges::find(tensors, name, &ScoreTensor::name) - tensors.begin();
    TensorView t;
    FLASHPLUS_RETURN_IF_ERROR(read(label, to, t));
    if (!t.hasShape(std::span(of->shape, size_t(of->ndim))))
      return invalidArgument(label + " has shape " + t.shapeText() + "; it must have that of " +
                             form_.labels[size_t(slot)]);
    int64_t elements = 1;
    for (int d = t.rank; d-- > 0;) {
      out_.params.daux_stride[slot * kMaxScoreTensorRank + d] = elements;
      elements *= t.shape[d];
    }
    out_.params.daux[slot] = t.data;
    return add(label, kMaxScoreScalars + int(slot), t, elements);
  }

  Status ofScalar(const std::string &label, std::string_view name, const DLTensor *to) {
    const auto &scalars = form_.expr.scalars;
    const auto slot = std::ranges::find(scalars, name) - scalars.begin();
    TensorView t;
    FLASHPLUS_RETURN_IF_ERROR(read(label, to, t));
    FLASHPLUS_RETURN_IF_ERROR(t.wantShape({1}, "that of one element"));
    out_.params.dscalar[slot] = t.data;
    return add(label, int(slot), t, 1);
  }

  Status read(const std::string &label, const DLTensor *to, TensorView &t) {
    FLASHPLUS_RETURN_IF_ERROR(reader_.read(label.c_str(), to, t));
    FLASHPLUS_RETURN_IF_ERROR(t.wantType(kDLFloat, 32, "float32"));
    int64_t compact = 1;
    for (int d = t.rank; d-- > 0; compact *= t.shape[d])
      if (!t.isEmpty() && t.shape[d] > 1 && t.strides[d] != compact)
        return invalidArgument(label + " has stride " + std::to_string(t.strides[d]) + " in dimension " +
                               std::to_string(d) + "; it must be compact, which is " +
                               std::to_string(compact) + " there");
    return Status::ok();
  }

  Status add(const std::string &label, int bit, const TensorView &t, int64_t elements) {
    if (out_.spec.score_grads >> bit & 1)
      return invalidArgument(label + " is given twice");
    FLASHPLUS_RETURN_IF_ERROR(checkApart(label, t));
    out_.spec.score_grads |= 1 << bit;
    out_.score_gradients.data[bit] = t.data;
    out_.score_gradients.elements[bit] = elements;
    return Status::ok();
  }

  /// It is written before what else begins there is read, or over it.
  Status checkApart(const std::string &label, const TensorView &t) {
    auto shares = [&](const void *other) { return t.data && !t.isEmpty() && t.data == other; };
    auto refusal = [&](const char *other) {
      return invalidArgument(label + " has the memory of " + other + "; a gradient needs memory of its own");
    };
    for (const OperandArg &operand : operands_)
      if (shares(operand.view.data) && !operand.view.isEmpty())
        return refusal(operand.name);
    for (size_t slot = 0; slot < form_.expr.tensors.size(); ++slot)
      if (shares(out_.params.aux[slot]))
        return refusal(form_.labels[slot].c_str());
    for (auto [name, data] :
         {std::pair{"lse", out_.params.lse}, {"dlse", out_.params.dlse}, {"delta", out_.params.delta}})
      if (shares(data))
        return refusal(name);
    for (const void *other : out_.score_gradients.data)
      if (shares(other))
        return refusal("another gradient");
    return Status::ok();
  }

  TensorReader &reader_;
  const flashplus_backward_args &a_;
  std::span<const OperandArg> operands_;
  BackwardProblem &out_;
  const ScoreForm &form_;
};

} // namespace

Status bindScoreGradients(TensorReader &reader, const flashplus_backward_args &args,
                          std::span<const OperandArg> operands, BackwardProblem &out) {
  return GradientBinder(reader, args, operands, out).run();
}

} // namespace flashplus
