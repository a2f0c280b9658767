// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/variants.h"

#include "tools/flashplus/gpu_names.h"
#include "tools/flashplus/model_config.h"
#include "tools/flashplus/release_variants.h"
#include "tools/flashplus/spec_flags.h"
#include "tools/flashplus/spec_list.h"

#include <algorithm>
#include <map>
#include <set>

namespace flashplus::tool {

namespace {

std::vector<bool> choices(const std::string &flag) {
  return flag == "both" ? std::vector{false, true} : std::vector{flag == "yes"};
}

/// Specs from the flags, for one target.
Result<std::vector<KernelSpec>> specsOfFlags(const VariantFlags &flags, const std::string &target) {
  if (flags.head_dims.empty())
    return invalidArgument(
        "--head-dim: missing; the flags that choose variants need it (without any of them the "
        "variants of --list are warmed)");
  if (flags.head_dims_v.size() > 1 && flags.head_dims_v.size() != flags.head_dims.size())
    return invalidArgument("--head-dim-v: has " + std::to_string(flags.head_dims_v.size()) +
                           " values, must have 1 or as many as --head-dim (" +
                           std::to_string(flags.head_dims.size()) + ")");
  std::vector<KernelSpec> specs;
  std::vector<std::string> dtypes =
      flags.dtypes.empty() ? std::vector<std::string>{"fp16", "bf16"} : flags.dtypes;
  struct Rest {
    std::string alignment, sinks;
    bool dropout;
  };
  std::vector<Rest> rests;
  for (const std::string &alignment : flags.alignment)
    for (const std::string &sinks : flags.sinks)
      for (bool dropout : choices(flags.dropout))
        rests.push_back({alignment, sinks, dropout});
  for (bool softcap : choices(flags.softcap))
    for (const std::string &alibi : flags.alibi) {
      Result<ScoreExpr> score = composeScore(flags.score, softcap, alibi);
      if (!score)
        return score.status();
      if (auto wanted = scoreGradients("--score-gradients", *score, flags.score_gradients); !wanted)
        return wanted.status();
      for (size_t i = 0; i < flags.head_dims.size(); ++i)
        for (const std::string &dtype : dtypes)
          for (bool causal : choices(flags.causal))
            for (bool window : flags.window == "left" ? std::vector{true} : choices(flags.window))
              for (const auto &[alignment, sinks, dropout] : rests) {
                KernelSpec spec;
                spec.dtype = *parseDType(dtype);
                spec.head_dim_qk = flags.head_dims[i];
                spec.head_dim_v = flags.head_dims_v.empty() ? flags.head_dims[i]
                                                            : flags.head_dims_v[i % flags.head_dims_v.size()];
                spec.bounded_left = window;
                spec.bounded_right = (window && flags.window != "left") || causal;
                spec.dropout = dropout;
                if (sinks != "none")
                  spec.sinks = sinksOf(parseDType(sinks).value_or(spec.dtype));
                spec.alignment = alignment == "auto" ? naturalAlignment(spec)
                                 : alignment == "16" ? 16
                                                     : dtypeBytes(spec.dtype);
                spec.score = *score;
                Status valid = spec.validate();
                if (!valid)
                  return invalidArgument(valid.message() + " (for " + target + ")");
                specs.push_back(std::move(spec));
              }
    }
  return specs;
}

/// The backward that training with `forward` needs; with gradients of these inputs of its score.
KernelSpec backwardOf(KernelSpec forward, const std::vector<std::string> &score_gradients = {}) {
  forward.op = Operation::Backward;
  forward.sinks = Sinks::None;
  if (auto wanted = scoreGradients("--score-gradients", forward.score, score_gradients))
    forward.score_grads = *wanted;
  return forward;
}

KernelSpec pagedOf(KernelSpec forward) {
  forward.keys = KeyAddressing::Paged;
  return forward;
}

/// What a release ships for one target.
Result<std::vector<KernelSpec>> specsOfRelease(const std::string &target) {
  std::vector<KernelSpec> specs;
  for (const VariantRow &row : releaseVariants()) {
    Result<ScoreExpr> score = composeScore("", row.score);
    if (!score)
      return score.status();
    for (DType dtype : {DType::F16, DType::BF16, DType::F32}) {
      if (dtype == DType::F32 && gpuTarget(target))
        continue;
      for (KernelSpec &spec : specsOfRow(row, dtype, *score)) {
        FLASHPLUS_RETURN_IF_ERROR(spec.validate());
        specs.push_back(std::move(spec));
      }
    }
  }
  return specs;
}

/// What --spec and --specs name.
Result<std::vector<NamedSpec>> namedSpecs(const VariantFlags &flags) {
  std::vector<NamedSpec> specs;
  for (const std::string &text : flags.spec_texts) {
    Result<NamedSpec> spec = readSpec("--spec", text);
    if (!spec)
      return spec.status();
    specs.push_back(std::move(*spec));
  }
  for (const std::string &path : flags.spec_files) {
    Result<std::vector<NamedSpec>> read = readSpecFile(path);
    if (!read)
      return read.status();
    specs.insert(specs.end(), read->begin(), read->end());
  }
  return specs;
}

/// The targets that --target, --gpu and --arch name; without them, those of this machine's devices.
Result<std::vector<std::string>> wantedTargets(const VariantFlags &flags, flashplus_context *context) {
  std::vector<std::string> wanted = flags.targets;
  for (const std::string &name : flags.gpus) {
    auto target = gpuTargetFor("--gpu", name);
    if (!target)
      return target.status();
    wanted.push_back(*target);
  }
  if (wanted.empty()) {
    wanted.push_back("cpu");
    Result<Json> found = describe(context);
    if (!found)
      return found.status();
    for (const Json &device : found->value("devices", Json::array()))
      if (gpuTarget(device.value("target", "")))
        wanted.push_back(device.value("target", ""));
    if (!flags.archs.empty())
      return invalidArgument("--arch: needs --target, such as --target sm_80");
  }
  return expandTargets(context, wanted, flags.archs);
}

/// Collects variants and their kernels, each once.
class Enumeration {
public:
  Enumeration(const VariantFlags &flags, flashplus_context *context, std::vector<std::string> targets)
      : flags_(flags), context_(context), targets_(std::move(targets)) {}

  /// What --spec and --specs name.
  Status addNamed();
  /// All that a server of --model meets, and with --backward its training.
  Status addModel();
  /// Those of the flags that choose variants, else what a release ships.
  Status addChosen();
  Variants take() { return std::move(variants_); }

private:
  /// Adds what any plan of `spec` on `target` can use. False if that is nothing and `optional`.
  Result<bool> add(const KernelSpec &spec, const std::string &target, bool optional,
                   const std::string &purpose = "");
  void add(Kernel kernel) {
    if (seen_.insert(kernel).second)
      variants_.kernels.push_back(std::move(kernel));
  }
  Status addModel(const ModelAttention &model, const std::string &target);
  Status addChosen(KernelSpec spec, const std::string &target);

  const VariantFlags &flags_;
  flashplus_context *context_;
  std::vector<std::string> targets_;
  Variants variants_;
  std::set<std::pair<std::string, std::string>> seen_specs_;
  std::set<Kernel> seen_;
};

Result<bool> Enumeration::add(const KernelSpec &spec, const std::string &target, bool optional,
                              const std::string &purpose) {
  std::pair<std::string, std::string> item(spec.text(), target);
  if (seen_specs_.contains(item))
    return true;
  struct Visit {
    std::vector<Kernel> kernels;
    const std::string *target;
  } visit = {{}, &target};
  auto visitor = [](void *to, const char *kernel_spec, const char *schedule) {
    auto &v = *static_cast<Visit *>(to);
    v.kernels.push_back({kernel_spec, schedule, *v.target});
  };
  Status status = libraryStatus(
      flashplus_reachable_kernels(context_, item.first.c_str(), target.c_str(), visitor, &visit));
  if (!status) {
    if (optional && status.code() == StatusCode::Unsupported)
      return false;
    return Status(status.code(), item.first + " on " + target + ": " + status.message());
  }
  for (Kernel &kernel : visit.kernels)
    add(std::move(kernel));
  seen_specs_.insert(item);
  variants_.specs.push_back({std::move(item.first), std::move(item.second), purpose});
  return true;
}

Status Enumeration::addNamed() {
  auto named = namedSpecs(flags_);
  if (!named)
    return named.status();
  // A kernel that was missed somewhere: where targets are named, only if it is for one of those.
  const bool chosen = !flags_.targets.empty() || !flags_.gpus.empty();
  std::map<std::string, size_t> others;
  size_t left_out = 0;
  for (const NamedSpec &n : *named) {
    Result<KernelSpec> spec = KernelSpec::parse(n.spec);
    if (!spec)
      return spec.status();
    if (n.target.empty()) {
      for (const std::string &target : targets_)
        if (auto done = add(*spec, target, /*optional=*/false); !done)
          return done.status();
      continue;
    }
    if (chosen && std::ranges::find(targets_, n.target) == targets_.end()) {
      ++others[n.target], ++left_out;
      continue;
    }
    if (auto done = add(*spec, n.target, /*optional=*/true); !done)
      return done.status();
    add(Kernel{n.spec, n.schedule, n.target});
  }
  if (named->empty())
    std::fprintf(stderr, "flashplus: --specs: there is no spec in what was named; nothing is to be done\n");
  if (left_out == 0)
    return Status::ok();
  std::string text = std::to_string(left_out) + " of " + std::to_string(named->size()) +
                     " specs of --specs are for other targets:";
  for (const auto &[target, count] : others)
    text += (target == others.begin()->first ? " " : ", ") + target + " (" + std::to_string(count) + ")";
  if (left_out == named->size()) {
    text += "; asked for";
    for (const std::string &target : targets_)
      text += (target == targets_.front() ? " is " : ", ") + target;
    return invalidArgument(text);
  }
  std::fprintf(stderr, "flashplus: %s\n", text.c_str());
  return Status::ok();
}

Status Enumeration::addModel() {
  auto model = readModelConfig(flags_.model, flags_.dtypes, flags_.has_causal ? flags_.causal : "");
  if (!model)
    return model.status();
  for (const std::string &note : model->notes)
    std::fprintf(stderr, "flashplus: %s: %s\n", flags_.model.c_str(), note.c_str());
  variants_.model = model->name;
  for (const std::string &target : targets_)
    FLASHPLUS_RETURN_IF_ERROR(addModel(*model, target));
  return Status::ok();
}

Status Enumeration::addModel(const ModelAttention &model, const std::string &target) {
  for (const ModelVariant &variant : model.variants) {
    KernelSpec served = variant.spec;
    served.append = true;
    KernelSpec dropping = variant.spec;
    dropping.dropout = true;
    std::vector<std::pair<KernelSpec, std::string>> wanted = {
        {variant.spec, "prefill, decode over rows"},
        {pagedOf(variant.spec), "chunked prefill, decode over pages"},
        {served, "append to rows"},
        {pagedOf(served), "append to pages"}};
    if (flags_.backward)
      wanted.emplace_back(backwardOf(variant.spec), "training");
    if (flags_.backward && model.drops) {
      wanted.emplace_back(dropping, "training with dropout");
      wanted.emplace_back(backwardOf(dropping), "training with dropout");
    }
    for (const auto &[spec, purpose] : wanted)
      if (auto done = add(spec, target, /*optional=*/false, purpose + ", " + variant.purpose); !done)
        return done.status();
  }
  return Status::ok();
}

Status Enumeration::addChosen() {
  for (const std::string &target : targets_) {
    auto specs = flags_.has_variant_flags ? specsOfFlags(flags_, target) : specsOfRelease(target);
    if (!specs)
      return specs.status();
    for (KernelSpec &spec : *specs)
      FLASHPLUS_RETURN_IF_ERROR(addChosen(std::move(spec), target));
  }
  return Status::ok();
}

Status Enumeration::addChosen(KernelSpec spec, const std::string &target) {
  spec.append = flags_.append;
  // Of what a release ships, training gets those that have a backward; what was asked for by flags must
  // have one.
  if (flags_.backward) {
    auto trained =
        add(backwardOf(spec, flags_.score_gradients), target, /*optional=*/!flags_.has_variant_flags);
    if (!trained || !*trained)
      return trained.status();
  }
  if (auto done = add(spec, target, /*optional=*/false); !done)
    return done.status();
  if (flags_.paged)
    return add(pagedOf(spec), target, /*optional=*/false).status();
  return Status::ok();
}

} // namespace

Result<Variants> enumerateVariants(const VariantFlags &flags, flashplus_context *context) {
  auto targets = wantedTargets(flags, context);
  if (!targets)
    return targets.status();
  Enumeration found(flags, context, std::move(*targets));
  FLASHPLUS_RETURN_IF_ERROR(flags.namesSpecs()     ? found.addNamed()
                            : !flags.model.empty() ? found.addModel()
                                                   : found.addChosen());
  return found.take();
}

} // namespace flashplus::tool
