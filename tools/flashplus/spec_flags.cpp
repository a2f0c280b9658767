// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/spec_flags.h"

#include "spec/target.h"

#include <algorithm>

namespace flashplus::tool {

Result<ScoreExpr> composeScore(const std::string &expression, bool softcap, const std::string &alibi) {
  Result<ScoreExpr> parsed =
      expression.empty() ? Result<ScoreExpr>(ScoreExpr()) : ScoreExpr::parse(expression);
  if (!parsed)
    return invalidArgument("--score: " + parsed.status().message());
  if (!softcap && alibi == "none") {
    parsed->liftNumbers(); // as the library does, so that its kernels are those of any such score
    return parsed;
  }

  // The library composes the expression for a forward of the least size; only its score is of interest here.
  auto tensor = [](std::vector<int64_t> &shape, DLDataTypeCode code, int bits) {
    DLTensor made = {};
    made.device = {kDLCPU, 0};
    made.ndim = static_cast<int32_t>(shape.size());
    made.shape = shape.data();
    made.dtype = {static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1};
    return made;
  };
  std::vector<int64_t> qkv_shape = {1, 1, 1, 8}, ones(kMaxScoreTensorRank, 1);
  std::vector<int64_t> slopes_shape = alibi == "batch" ? std::vector<int64_t>{1, 1} : std::vector<int64_t>{1};
  DLTensor qkv = tensor(qkv_shape, kDLFloat, 16), slopes = tensor(slopes_shape, kDLFloat, 32);
  std::vector<DLTensor> storage;
  std::vector<std::vector<int64_t>> shapes;
  for (const ScoreTensor &t : parsed->tensors)
    shapes.emplace_back(static_cast<size_t>(t.rank), 1);
  for (auto &shape : shapes)
    storage.push_back(tensor(shape, kDLFloat, 32));
  std::vector<flashplus_score_tensor> tensors;
  for (size_t i = 0; i < storage.size(); ++i)
    tensors.push_back({parsed->tensors[i].name.c_str(), &storage[i]});
  std::vector<flashplus_score_scalar> scalars;
  for (const std::string &name : parsed->scalars)
    scalars.push_back({name.c_str(), 1.0f});

  flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
  DLTensor output = qkv;
  args.q = args.k = args.v = &qkv;
  args.o = &output;
  args.score = expression.empty() ? nullptr : expression.c_str();
  args.score_tensors = tensors.data();
  args.num_score_tensors = static_cast<int32_t>(tensors.size());
  args.score_scalars = scalars.data();
  args.num_score_scalars = static_cast<int32_t>(scalars.size());
  args.softcap = softcap ? 1.0f : 0.0f;
  args.alibi_slopes = alibi == "none" ? nullptr : &slopes;
  char *text = nullptr;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_spec_of(&args, &text)));
  Result<KernelSpec> spec = KernelSpec::parse(text);
  flashplus_free_text(text);
  if (!spec)
    return spec.status();
  return std::move(spec->score);
}

Result<ScoreExpr> composeScore(const std::string &expression, ScoreMode mode) {
  return composeScore(expression, mode == ScoreMode::Softcap,
                      mode == ScoreMode::AlibiPerHead           ? "heads"
                      : mode == ScoreMode::AlibiPerBatchAndHead ? "batch"
                                                                : "none");
}

Result<std::vector<std::string>> expandTargets(flashplus_context *context,
                                               const std::vector<std::string> &targets,
                                               const std::vector<std::string> &archs) {
  std::vector<std::string> expanded;
  auto add = [&](const std::string &flag, const std::string &text) -> Status {
    Result<Target> target = Target::parse(text);
    if (!target)
      return invalidArgument(flag + ": " + target.status().message());
    if (std::find(expanded.begin(), expanded.end(), target->text()) == expanded.end())
      expanded.push_back(target->text());
    return Status::ok();
  };
  bool gpu = false;
  for (const std::string &text : targets) {
    if (text == "cpu") {
      Result<std::string> host = hostTarget(context);
      if (!host)
        return host.status();
      FLASHPLUS_RETURN_IF_ERROR(add("--target cpu", *host));
      continue;
    }
    Result<Target> target = Target::parse(text);
    if (!target)
      return invalidArgument("--target: " + target.status().message() + " (or cpu, this machine's)");
    if (!isGpu(target->isa) || text.find('@') != std::string::npos || archs.empty()) {
      FLASHPLUS_RETURN_IF_ERROR(add("--target", text));
      continue;
    }
    gpu = true;
    for (const std::string &arch : archs)
      FLASHPLUS_RETURN_IF_ERROR(add("--arch " + arch, text + "@" + arch));
  }
  if (!archs.empty() && !gpu)
    return invalidArgument("--arch: only with a GPU target that names no chip, such as --target sm_80");
  return expanded;
}

int naturalAlignment(const KernelSpec &spec) {
  int element = dtypeBytes(spec.dtype);
  return spec.head_dim_qk * element % 16 == 0 && spec.head_dim_v * element % 16 == 0 ? 16 : element;
}

} // namespace flashplus::tool
