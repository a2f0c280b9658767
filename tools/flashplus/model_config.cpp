// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/model_config.h"

#include "tools/flashplus/machine.h"
#include "tools/flashplus/spec_flags.h"

#include <algorithm>

namespace flashplus::tool {

namespace {

/// The fields of a config, under any of the names that they go by.
class Config {
public:
  Config(std::string path, Json json) : path_(std::move(path)), json_(std::move(json)) {
    // A model of several kinds of input has its decoder's fields inside.
    for (const char *name : {"text_config", "language_config", "llm_config"})
      if (const auto at = json_.find(name); at != json_.end() && at->is_object()) {
        Json inner = *at;
        for (const char *shared : {"torch_dtype", "dtype"})
          if (!inner.contains(shared) && json_.contains(shared))
            inner[shared] = json_[shared];
        json_ = std::move(inner);
        break;
      }
  }

  const Json *find(std::initializer_list<const char *> names) const {
    for (const char *name : names)
      if (const auto at = json_.find(name); at != json_.end() && !at->is_null())
        return &*at;
    return nullptr;
  }
  /// 0 where there is none.
  Result<int64_t> integer(std::initializer_list<const char *> names) const {
    const Json *value = find(names);
    if (!value)
      return int64_t{0};
    if (!value->is_number_integer() || value->get<int64_t>() < 0)
      return wrong(*names.begin(), *value, "a whole number");
    return value->get<int64_t>();
  }
  bool flag(std::initializer_list<const char *> names, bool standard) const {
    const Json *value = find(names);
    return value && value->is_boolean() ? value->get<bool>() : standard;
  }
  double number(std::initializer_list<const char *> names) const {
    const Json *value = find(names);
    return value && value->is_number() ? value->get<double>() : 0;
  }
  std::string text(std::initializer_list<const char *> names) const {
    const Json *value = find(names);
    return value && value->is_string() ? value->get<std::string>() : "";
  }
  Status wrong(const std::string &name, const Json &value, const std::string &allowed) const {
    return invalidArgument("--model " + path_ + ": " + name + " is " + value.dump() + ", must be " + allowed);
  }
  Status missing(const std::string &what) const {
    return invalidArgument("--model " + path_ + ": it has neither " + what);
  }

private:
  std::string path_;
  Json json_;
};

struct Shape {
  int64_t heads = 0, heads_k = 0, dim_qk = 0, dim_v = 0;
};

Result<Shape> shapeOf(const Config &config) {
  const auto heads = config.integer({"num_attention_heads", "n_head", "n_heads", "num_heads"});
  const auto hidden = config.integer({"hidden_size", "n_embd", "d_model"});
  const auto head_dim = config.integer({"head_dim"});
  const auto heads_k = config.integer({"num_key_value_heads"});
  const auto nope = config.integer({"qk_nope_head_dim"}), rope = config.integer({"qk_rope_head_dim"});
  const auto dim_v = config.integer({"v_head_dim"});
  for (const auto *field : {&heads, &hidden, &head_dim, &heads_k, &nope, &rope, &dim_v})
    if (!*field)
      return field->status();
  Shape shape;
  shape.heads = *heads;
  shape.heads_k = *heads_k ? *heads_k : *heads;
  if (*nope && *rope) { // latent attention, whose prefill has heads of their own
    shape.dim_qk = *nope + *rope;
    shape.dim_v = *dim_v ? *dim_v : *nope;
  } else if (*head_dim) {
    shape.dim_qk = shape.dim_v = *head_dim;
  } else if (*hidden && *heads) {
    if (*hidden % *heads)
      return config.wrong("hidden_size", *hidden,
                          "a multiple of num_attention_heads, " + std::to_string(*heads) +
                              ", where there is no head_dim");
    shape.dim_qk = shape.dim_v = *hidden / *heads;
  } else {
    return config.missing("head_dim nor hidden_size and num_attention_heads");
  }
  for (auto [name, dim] : {std::pair("head_dim", shape.dim_qk), {"v_head_dim", shape.dim_v}})
    if (dim < 1 || dim > kMaxHeadDim)
      return config.wrong(name, dim, "1 to " + std::to_string(kMaxHeadDim));
  if (shape.heads && shape.heads % shape.heads_k)
    return config.wrong("num_key_value_heads", shape.heads_k,
                        "a divisor of num_attention_heads, " + std::to_string(shape.heads));
  return shape;
}

Result<std::vector<DType>> dtypesOf(const Config &config, const std::vector<std::string> &given,
                                    std::vector<std::string> &notes) {
  std::vector<DType> dtypes;
  for (const std::string &name : given)
    dtypes.push_back(*parseDType(name));
  if (!dtypes.empty())
    return dtypes;
  const std::string text = config.text({"dtype", "torch_dtype"});
  for (auto [name, dtype] :
       {std::pair("float16", DType::F16), {"bfloat16", DType::BF16}, {"float32", DType::F32}})
    if (text == name)
      return std::vector{dtype};
  if (!text.empty() && text != "auto")
    return config.wrong("torch_dtype", text, "float16, bfloat16 or float32, or be given by --dtype");
  notes.push_back("it names no dtype; bf16 is taken (--dtype)");
  return std::vector{DType::BF16};
}

/// Kinds of layers that attend to all before them, and to a window.
struct Kinds {
  bool full = false, window = false;
};

Kinds kindsOf(const Config &config, std::vector<std::string> &notes) {
  const bool slides = config.number({"sliding_window"}) > 0 && config.flag({"use_sliding_window"}, true);
  Kinds kinds;
  if (const Json *layers = config.find({"layer_types"}); layers && layers->is_array()) {
    std::vector<std::string> others;
    for (const Json &layer : *layers) {
      const std::string type = layer.is_string() ? layer.get<std::string>() : layer.dump();
      if (type == "full_attention")
        kinds.full = true;
      else if (type == "sliding_attention")
        kinds.window = true;
      else if (!std::ranges::count(others, type))
        others.push_back(type);
    }
    for (const std::string &type : others)
      notes.push_back("layers of type '" + type + "' are left out: they are no attention of this library");
    // A prompt that is shorter than the window has none: clients leave it out then.
    kinds.full |= kinds.window;
    return kinds;
  }
  return {true, slides};
}

/// Whether attention layers have sinks. Their config has no field for them: which models do is known.
bool hasSinks(const Config &config) { return config.text({"model_type"}) == "gpt_oss"; }

} // namespace

Result<ModelAttention> readModelConfig(const std::string &path, const std::vector<std::string> &dtypes,
                                       const std::string &causal) {
  auto json = readJson("--model", path);
  if (!json)
    return json.status();
  if (!json->is_object())
    return invalidArgument("--model " + path + ": must be an object, the config.json of a model");
  const Config config(path, std::move(*json));
  ModelAttention model;
  auto shape = shapeOf(config);
  if (!shape)
    return shape.status();
  auto types = dtypesOf(config, dtypes, model.notes);
  if (!types)
    return types.status();
  const Kinds kinds = kindsOf(config, model.notes);
  const Json *attn = config.find({"attn_config"});
  const bool alibi = config.flag({"alibi"}, config.text({"model_type"}) == "bloom") ||
                     (attn && attn->is_object() && attn->value("alibi", false));
  auto score = composeScore("", config.number({"attn_logit_softcapping"}) > 0, alibi ? "heads" : "none");
  if (!score)
    return score.status();
  model.drops = config.number({"attention_dropout", "attention_probs_dropout_prob", "attn_pdrop"}) > 0;
  std::string names;
  for (DType dtype : *types) {
    names += (names.empty() ? "" : ", ") + std::string(dtypeName(dtype));
    KernelSpec spec;
    spec.dtype = dtype;
    spec.head_dim_qk = static_cast<int>(shape->dim_qk);
    spec.head_dim_v = static_cast<int>(shape->dim_v);
    spec.score = *score;
    spec.alignment = naturalAlignment(spec);
    if (hasSinks(config))
      spec.sinks = sinksOf(dtype); // as transformers and vLLM hand them over
    for (bool right : {true, false}) {
      if (right ? causal == "no" : causal != "no" && causal != "both")
        continue;
      spec.bounded_right = right;
      if (kinds.full)
        model.variants.push_back({spec, right ? "causal" : "full"});
    }
    spec.bounded_left = spec.bounded_right = true;
    if (kinds.window)
      model.variants.push_back({spec, "window"});
  }
  if (hasSinks(config))
    names += ", sinks";
  const std::string type = config.text({"model_type"});
  model.name = (type.empty() ? "a model" : type) + ", D " + std::to_string(shape->dim_qk) +
               (shape->dim_v == shape->dim_qk ? "" : "/" + std::to_string(shape->dim_v)) + ", " +
               std::to_string(shape->heads) + " heads over " + std::to_string(shape->heads_k) + ", " + names;
  if (model.variants.empty())
    return invalidArgument("--model " + path + ": it has no layer of attention");
  return model;
}

} // namespace flashplus::tool
