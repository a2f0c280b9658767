// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/score_binding.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

namespace flashplus {
namespace {

class ScoreBinder {
public:
  ScoreBinder(TensorReader &reader, const ScoreArgs &args, const TensorSizes &sizes,
              const AttentionProblem &problem, const ScoreParams &out)
      : reader_(reader), a_(args), sizes_(sizes), problem_(problem), out_(out) {}

  Status run(ScoreTable &scores, const ScoreForm *&found) {
    if (!std::isfinite(a_.softcap) || a_.softcap < 0)
      return invalidArgument("softcap is " + std::to_string(a_.softcap) +
                             "; it must be 0 (off) or a positive number");
    if (a_.alibi_slopes)
      FLASHPLUS_RETURN_IF_ERROR(readSlopes());
    auto form = scores.find({a_.score ? a_.score : "", a_.softcap > 0, slopes_.rank});
    if (!form)
      return form.status();
    for (auto [name, count, list] :
         {std::tuple{"score_tensors", a_.num_tensors, static_cast<const void *>(a_.tensors)},
          {"score_scalars", a_.num_scalars, static_cast<const void *>(a_.scalars)}})
      if (count < 0 || (count > 0 && !list))
        return invalidArgument(std::string("num_") + name + " is " + std::to_string(count) + " and " + name +
                               " is " + (list ? "given" : "null") + "; they must agree");
    found = *form;
    const ScoreForm &f = *found;
    auto number = f.numbers.begin(); // their slots ascend
    for (size_t slot = 0; slot < f.expr.scalars.size(); ++slot) {
      if (number != f.numbers.end() && number->slot == int(slot))
        out_.scalar[slot] = number++->value;
      else
        FLASHPLUS_RETURN_IF_ERROR(bindScalar(f.expr.scalars[slot], out_.scalar[slot]));
    }
    for (size_t slot = 0; slot < f.expr.tensors.size(); ++slot)
      FLASHPLUS_RETURN_IF_ERROR(bindTensor(f, int(slot)));
    return everythingUsed(f.expr);
  }

private:
  Status readSlopes() {
    FLASHPLUS_RETURN_IF_ERROR(reader_.read("alibi_slopes", a_.alibi_slopes, slopes_));
    FLASHPLUS_RETURN_IF_ERROR(slopes_.wantType(kDLFloat, 32, "float32"));
    if (!slopes_.hasShape({sizes_.heads_q}) && !slopes_.hasShape({sizes_.batch, sizes_.heads_q}))
      return invalidArgument(
          "alibi_slopes has shape " + slopes_.shapeText() +
          "; it must be (heads_q) or (batch, heads_q) = " + dimsText({sizes_.batch, sizes_.heads_q}));
    return Status::ok();
  }

  Status bindScalar(const std::string &name, float &value) {
    if (name == ScoreForm::kSoftcap) {
      value = a_.softcap;
      return Status::ok();
    }
    for (int i = 0; i < a_.num_scalars; ++i)
      if (a_.scalars[i].name && name == a_.scalars[i].name) {
        value = a_.scalars[i].value;
        return Status::ok();
      }
    return invalidArgument("score uses the scalar '" + name + "', which score_scalars does not give");
  }

  Status bindTensor(const ScoreForm &form, int slot) {
    const ScoreTensor &wanted = form.expr.tensors[size_t(slot)];
    TensorView t = slopes_;
    if (wanted.name != ScoreForm::kSlopes) {
      const DLTensor *source = nullptr;
      for (int i = 0; i < a_.num_tensors && !source; ++i)
        if (a_.tensors[i].name && wanted.name == a_.tensors[i].name)
          source = a_.tensors[i].tensor;
      if (!source)
        return invalidArgument("score uses the tensor '" + wanted.name +
                               "', which score_tensors does not give");
      FLASHPLUS_RETURN_IF_ERROR(reader_.read(form.labels[size_t(slot)].c_str(), source, t));
      FLASHPLUS_RETURN_IF_ERROR(t.wantType(kDLFloat, 32, "float32"));
    }
    if (t.rank != wanted.rank)
      return invalidArgument(std::string(t.name) + " has shape " + t.shapeText() +
                             "; the score reads it with " + std::to_string(wanted.rank) + " indices");
    for (const ScoreForm::Index &index : form.indices)
      if (index.slot == slot)
        FLASHPLUS_RETURN_IF_ERROR(checkIndex(t, index));
    // Kernels clamp indices to the tensor, which needs something to clamp to; without a key nothing is read.
    if (t.isEmpty() && !problem_.empty && sizes_.rows_k > 0)
      return invalidArgument(std::string(t.name) + " has shape " + t.shapeText() +
                             "; the score reads it, so it must have an element");
    out_.aux[slot] = t.data;
    for (int d = 0; d < t.rank; ++d) {
      out_.aux_stride[slot * kMaxScoreTensorRank + d] = t.strides[d];
      out_.aux_last[slot * kMaxScoreTensorRank + d] =
          int32_t(std::clamp<int64_t>(t.shape[d] - 1, 0, std::numeric_limits<int32_t>::max()));
    }
    return Status::ok();
  }

  /// An index that is a number or a built-in name must be inside the tensor, as far as that is known: rows
  /// are only where every sequence has them all. b, h and hk are not clamped by kernels and rely on this.
  Status checkIndex(const TensorView &t, const ScoreForm::Index &index) {
    const char *by = "";
    int64_t least = 0;
    switch (index.op) {
    case ScoreOp::Constant:
      by = "a number";
      least = index.value + 1;
      break;
    case ScoreOp::Batch:
      by = "b";
      least = sizes_.batch;
      break;
    case ScoreOp::Head:
      by = "h";
      least = sizes_.heads_q;
      break;
    case ScoreOp::HeadK:
      by = "hk";
      least = sizes_.heads_k;
      break;
    case ScoreOp::Query:
      by = "q";
      least = sizes_.uneven_q ? 0 : sizes_.rows_q;
      break;
    case ScoreOp::Key:
      by = "k";
      least = sizes_.uneven_k ? 0 : sizes_.rows_k;
      break;
    default:
      break;
    }
    if (t.shape[index.dimension] >= least)
      return Status::ok();
    return invalidArgument(std::string(t.name) + " has shape " + t.shapeText() +
                           "; the score reads dimension " + std::to_string(index.dimension) + " by " + by +
                           ", so it must be at least " + std::to_string(least));
  }

  /// A name that the score never mentions is most likely misspelt.
  Status everythingUsed(const ScoreExpr &expr) {
    for (int i = 0; i < a_.num_scalars; ++i) {
      const char *name = a_.scalars[i].name;
      if (!name || std::count(expr.scalars.begin(), expr.scalars.end(), name) == 0)
        return invalidArgument("score_scalars gives '" + std::string(name ? name : "(null)") +
                               "', which the score does not use");
    }
    for (int i = 0; i < a_.num_tensors; ++i) {
      const char *name = a_.tensors[i].name;
      bool used = false;
      for (const ScoreTensor &t : expr.tensors)
        used |= name && t.name == name;
      if (!used)
        return invalidArgument("score_tensors gives '" + std::string(name ? name : "(null)") +
                               "', which the score does not use");
    }
    return Status::ok();
  }

  TensorReader &reader_;
  const ScoreArgs &a_;
  const TensorSizes &sizes_;
  const AttentionProblem &problem_;
  const ScoreParams &out_;
  TensorView slopes_;
};

[[gnu::noinline]] Status wrongScale(float value) {
  return invalidArgument("softmax_scale is " + std::to_string(value) + "; it must be finite");
}

} // namespace

Status bindScore(TensorReader &reader, const ScoreArgs &args, ScoreTable &scores, const TensorSizes &sizes,
                 AttentionProblem &problem, const ScoreParams &out) {
  // Most calls have no score at all, and nothing of one to check.
  if ((!args.score || !*args.score) && args.softcap == 0 && !args.alibi_slopes && args.num_tensors == 0 &&
      args.num_scalars == 0)
    return Status::ok();
  return ScoreBinder(reader, args, sizes, problem, out).run(scores, problem.spec.score);
}

Status checkSoftmaxScale(const float *given, int64_t head_dim, float &out) {
  // Rounded once, as head_dim ** -0.5 of a caller's language is.
  out = given ? *given : float(1.0 / std::sqrt(double(head_dim)));
  return std::isfinite(out) ? Status::ok() : wrongScale(out);
}

} // namespace flashplus
