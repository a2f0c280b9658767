// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/spec_flags.h"

#include "spec/target.h"
#include "tools/flashplus/gpu_names.h"
#include "tools/flashplus/near.h"

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

namespace {

/// What people call a target, as `Target::parse` has it; what it does not stand for stays.
Result<std::string> meantTarget(flashplus_context *context, const std::string &text) {
  if (text == "cuda" || text == "gpu" || text == "nvidia" || text.starts_with("cuda:")) {
    const std::string name = text.starts_with("cuda:") ? text : "cuda:0";
    Result<Json> json = describe(context);
    if (!json)
      return json.status();
    for (const Json &device : json->value("devices", Json::array()))
      if (device.value("name", "") == name)
        return device.value("target", "");
    return invalidArgument(
        "--target " + text +
        ": this machine has none. For a GPU of another machine type its name, "
        "such as --gpu h100, or its instructions and chip, such as --target sm_80 --arch sm_89");
  }
  if (text == "sm_90")
    return invalidArgument(
        "--target sm_90: is a chip with two sets of instructions here; type --target sm_90a for "
        "Hopper's own, or --target sm_80 --arch sm_90 for those of sm_80 on it");
  if (text == "host" || text == "native")
    return std::string("cpu");
  if (text == "avx2" || text == "avx512")
    return std::string(text == "avx2" ? "x86-64-v3" : "x86-64-v4");
  if (Target::parse(text))
    return text;
  if (const std::vector<std::string> family = targetsOfFamily(text); family.size() == 1) {
    return family.front();
  } else if (!family.empty()) {
    std::string chips;
    for (const std::string &one : family)
      chips += (chips.empty() ? "" : ", ") + one.substr(one.find('@') + 1);
    return invalidArgument("--target " + text +
                           ": its GPUs have different chips; type those that you mean of " + chips);
  }
  std::string chip =
      text; // "sm_89", "89", "8.9", "sm_120a": a chip that sm_80's instructions are assembled for
  std::erase(chip, '.');
  if (chip.ends_with('a') || chip.ends_with('f'))
    chip.pop_back();
  if (!chip.starts_with("sm_"))
    chip.insert(0, "sm_");
  if (Target::parse("sm_80@" + chip))
    return "sm_80@" + chip;
  return targetOfGpu(text).value_or(text);
}

} // namespace

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
  for (const std::string &given : targets) {
    auto meant = meantTarget(context, given);
    if (!meant)
      return meant.status();
    const std::string &text = *meant;
    if (text == "cpu") {
      Result<std::string> host = hostTarget(context);
      if (!host)
        return host.status();
      FLASHPLUS_RETURN_IF_ERROR(add("--target cpu", *host));
      continue;
    }
    Result<Target> target = Target::parse(text);
    if (!target) {
      std::vector<std::string> names = gpuNames();
      names.insert(names.begin(), {"cpu", "cuda", "x86-64-v3", "x86-64-v4", "sm_80", "sm_90a"});
      return invalidArgument("--target: " + target.status().message() +
                             " (or cpu or cuda, this machine's; or a GPU's name, such as h100)" +
                             didYouMean(text, names));
    }
    if (!isGpu(target->isa) || text.find('@') != std::string::npos || archs.empty()) {
      FLASHPLUS_RETURN_IF_ERROR(add("--target", text));
      continue;
    }
    gpu = true;
    for (std::string arch : archs) {
      if (const auto named = targetOfGpu(arch)) { // the chip of a GPU, with these instructions
        arch = named->substr(named->find('@') + 1);
        if (arch.ends_with('a') && !text.ends_with('a'))
          arch.pop_back();
      }
      FLASHPLUS_RETURN_IF_ERROR(add("--arch " + arch, text + "@" + arch));
    }
  }
  if (!archs.empty() && !gpu)
    return invalidArgument("--arch: only with a GPU target that names no chip, such as --target sm_80");
  return expanded;
}

Result<int> scoreGradients(const std::string &flag, const ScoreExpr &score,
                           const std::vector<std::string> &names) {
  std::vector<std::pair<std::string, int>> inputs; // names and their bits
  for (size_t i = 0; i < score.scalars.size(); ++i)
    inputs.emplace_back(score.scalars[i], static_cast<int>(i));
  for (size_t i = 0; i < score.tensors.size(); ++i)
    inputs.emplace_back(score.tensors[i].name, static_cast<int>(kMaxScoreScalars + i));
  int bits = 0;
  for (const std::string &name : names) {
    bool found = false;
    for (const auto &[input, bit] : inputs)
      if (name == input || name == "all") {
        bits |= 1 << bit;
        found = true;
      }
    if (found)
      continue;
    std::string there;
    for (const auto &[input, bit] : inputs)
      there += (there.empty() ? "" : ", ") + input;
    return invalidArgument(flag + " '" + name + "': " +
                           (there.empty() ? "this score has no scalars or tensors of its own"
                                          : "allowed are " + there + " and all"));
  }
  return bits;
}

int naturalAlignment(const KernelSpec &spec) {
  int element = dtypeBytes(spec.dtype);
  return spec.head_dim_qk * element % 16 == 0 && spec.head_dim_v * element % 16 == 0 ? 16 : element;
}

} // namespace flashplus::tool
