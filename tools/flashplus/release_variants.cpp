// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/release_variants.h"

namespace flashplus::tool {

namespace {

constexpr VariantRow kRows[] = {
    // qk   v    score                    none   causal window
    {32, 32, ScoreMode::Plain, true, false, false, "small encoders (MiniLM)"},
    {64, 64, ScoreMode::Plain, true, true, true, "BERT, GPT-2, Whisper, ModernBERT, most vision encoders"},
    {72, 72, ScoreMode::Plain, true, false, false, "SigLIP so400m"},
    {80, 80, ScoreMode::Plain, true, true, false, "Phi-2, Qwen-VL vision"},
    {96, 96, ScoreMode::Plain, true, true, true, "Phi-3"},
    {112, 112, ScoreMode::Plain, false, true, false, "Kimi, Zamba"},
    {128, 128, ScoreMode::Plain, true, true, true, "Llama, Qwen, Mistral, most decoders; Flux"},
    {192, 192, ScoreMode::Plain, true, true, false, "Nemotron"},
    {192, 128, ScoreMode::Plain, true, true, false, "DeepSeek MLA, prefill"},
    {256, 256, ScoreMode::Plain, true, true, true, "Gemma, Qwen3-Next"},
    {128, 128, ScoreMode::Softcap, false, true, true, "Gemma 2 27B, Grok"},
    {256, 256, ScoreMode::Softcap, false, true, true, "Gemma 2"},
    {64, 64, ScoreMode::AlibiPerHead, false, true, false, "BLOOM"},
    {128, 128, ScoreMode::AlibiPerHead, false, true, false, "MPT, BLOOM, Baichuan"},
};

} // namespace

std::span<const VariantRow> releaseVariants() { return kRows; }

const char *scoreText(ScoreMode mode) {
  switch (mode) {
  case ScoreMode::Plain:
    return "s";
  case ScoreMode::Softcap:
    return "cap * tanh(s / cap)";
  case ScoreMode::AlibiPerHead:
    return "s - slopes[h] * abs(q + sk - sq - k)";
  case ScoreMode::AlibiPerBatchAndHead:
    return "s - slopes[b, h] * abs(q + sk - sq - k)";
  }
  return "s";
}

std::vector<KernelSpec> specsOfRow(const VariantRow &row, DType dtype, const ScoreExpr &score) {
  KernelSpec spec;
  spec.dtype = dtype;
  spec.head_dim_qk = row.head_dim_qk;
  spec.head_dim_v = row.head_dim_v;
  spec.score = score;
  std::vector<KernelSpec> specs;
  auto add = [&](bool wanted, bool left, bool right) {
    spec.bounded_left = left;
    spec.bounded_right = right;
    if (wanted)
      specs.push_back(spec);
  };
  add(row.plain, false, false);
  add(row.causal, false, true);
  add(row.window, true, true);
  return specs;
}

} // namespace flashplus::tool
