// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/bench_case.h"

#include "spec/kernel_spec.h"
#include "tools/flashplus/choice.h"
#include "tools/flashplus/gradients.h"
#include "tools/flashplus/table.h"

#include <algorithm>
#include <numeric>

namespace flashplus::tool {

int64_t BenchCase::rowsQ() const {
  return lengths.empty() ? batch * seqlen_q : std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}
int64_t BenchCase::rowsK() const {
  if (page_size)
    return batch * ((seqlen_k + page_size - 1) / page_size) * page_size;
  return lengths.empty() ? batch * seqlen_k : rowsQ();
}

bool BenchCase::readsMemory() const {
  constexpr int64_t kFewRows = 64; // of a key head
  return !backward && lengths.empty() && seqlen_q * (heads_q / heads_k) <= kFewRows && seqlen_q < seqlen_k;
}

double BenchCase::keyBytes() const {
  double rows = 0;
  for (int64_t b = 0; b < (lengths.empty() ? batch : 0); ++b)
    rows += static_cast<double>(window_left < 0 ? keysOf(b) : std::min(keysOf(b), window_left + seqlen_q));
  if (!lengths.empty())
    rows = static_cast<double>(rowsK());
  return rows * static_cast<double>(heads_k * (head_dim + head_dim_v) * dtypeBytes(dtype));
}

double BenchCase::visiblePairs() const {
  const int64_t right = causal ? 0 : window_right;
  if (lengths.empty() && keys.empty())
    return static_cast<double>(batch) * tool::visiblePairs(seqlen_q, seqlen_k, window_left, right);
  double pairs = 0;
  for (int64_t count : keys)
    pairs += tool::visiblePairs(seqlen_q, count, window_left, right);
  for (int64_t length : lengths)
    pairs += tool::visiblePairs(length, length, window_left, right);
  return pairs;
}

double BenchCase::flops() const {
  return (backward ? kBackwardFlops : 1) * 2 * visiblePairs() * static_cast<double>(heads_q) *
         static_cast<double>(head_dim + head_dim_v);
}

std::string BenchCase::label() const {
  std::string text = "D" + std::to_string(head_dim);
  if (head_dim_v != head_dim)
    text += "/" + std::to_string(head_dim_v);
  text += causal ? " causal" : " full";
  text += (lengths.empty() ? " S" : " ragged S<=") + std::to_string(seqlen_q);
  if (seqlen_k != seqlen_q)
    text += (keys.empty() ? "/" : "/<=") + std::to_string(seqlen_k);
  text += " B" + std::to_string(batch) + " H" + std::to_string(heads_q);
  if (heads_k != heads_q)
    text += "/" + std::to_string(heads_k);
  text += " " + std::string(dtypeName(dtype));
  if (window_left >= 0 || window_right >= 0)
    text += " window " + std::to_string(window_left) + "," + std::to_string(window_right);
  if (softcap > 0)
    text += " softcap";
  if (alibi)
    text += " alibi";
  if (sinks)
    text += " sinks";
  if (dropout > 0)
    text += " dropout " + numberText(dropout);
  if (page_size)
    text += " pages of " + std::to_string(page_size);
  if (append)
    text += " append " + std::to_string(append);
  if (max_seqlen)
    text += " max_seqlen " + std::to_string(max_seqlen);
  if (backward)
    text += any_order ? " backward any order" : " backward";
  return text;
}

Json BenchCase::json() const {
  Json out = {{"head_dim", head_dim}, {"head_dim_v", head_dim_v}, {"dtype", dtypeName(dtype)},
              {"causal", causal},     {"seqlen", seqlen_q},       {"seqlen_k", seqlen_k},
              {"batch", batch},       {"heads", heads_q},         {"heads_k", heads_k}};
  if (window_left >= 0 || window_right >= 0)
    out["window"] = {window_left, window_right};
  if (softcap > 0)
    out["softcap"] = softcap;
  if (alibi)
    out["alibi"] = true;
  if (sinks)
    out["sinks"] = true;
  if (dropout > 0)
    out["dropout"] = dropout;
  if (page_size)
    out["page_size"] = page_size;
  if (append)
    out["append"] = append;
  if (!keys.empty())
    out["keys"] = keys;
  if (!lengths.empty())
    out["lengths"] = lengths;
  if (max_seqlen)
    out["max_seqlen"] = max_seqlen;
  if (backward)
    out["backward"] = true;
  if (any_order)
    out["any_order"] = true;
  return out;
}

void addCaseFlags(CLI::App &verb, CaseFlags &f) {
  auto list = [](CLI::Option *option, const char *type) {
    option->delimiter(',')->allow_extra_args(false)->type_name(type);
  };
  verb.add_option("--shape", f.shapes, "One problem, repeatable; instead of the grid below")
      ->type_name("B,SQ,SK,HQ,HK,D[,DV]")
      ->allow_extra_args(false);
  list(verb.add_option("--head-dim", f.head_dims, "Head dims; 192/128 has another for v"), "D[/DV],...");
  list(verb.add_option("--seqlen", f.seqlens, "Sequence lengths; 4k is 4096")
           ->transform(sizeUnits())
           ->check(CLI::Range(1, 1 << 24)),
       "N,...");
  list(verb.add_option("--seqlen-k", f.seqlens_k,
                       "Lengths of the keys, one or as many as --seqlen [as --seqlen]")
           ->transform(sizeUnits())
           ->check(CLI::Range(1, 1 << 24)),
       "N,...");
  addCausalFlag(
      verb, /*several=*/true,
      [&f](const std::vector<bool> &causal) { f.causal.assign(causal.begin(), causal.end()); },
      "of a grid both, of --shape no");
  list(verb.add_option("--dtype", f.dtypes, "fp16, bf16, fp32 (CPU)")
           ->transform(dtypeNames())
           ->capture_default_str(),
       "TYPE,...");
  auto number = [&](const char *name, int64_t &to, const char *help) {
    verb.add_option(name, to, help)->transform(sizeUnits())->check(CLI::Range(1, 1 << 24))->type_name("N");
  };
  number("--tokens", f.tokens,
         "Query rows of a batch: its size is this over the length [GPU 16384, CPU 1024]");
  number("--batch", f.batch, "Batch size of every problem, instead of --tokens");
  number("--hidden", f.hidden, "Query heads are this over the head dim [GPU 2048, CPU 512]");
  number("--heads", f.heads, "Query heads of every problem, instead of --hidden");
  number("--heads-k", f.heads_k, "Heads of k and v [as the query's]");
  number("--page-size", f.page_size, "Keys lie in pages of so many slots, in random order [no pages]");
  verb.add_option("--window", f.window, "Sliding window: keys from L before to R after; -1 is unbounded")
      ->type_name("L,R");
  verb.add_option("--softcap", f.softcap, "s -> C * tanh(s / C); 0 is off")
      ->check(CLI::Range(0.0, 1e30))
      ->type_name("C");
  verb.add_flag("--alibi", f.alibi, "ALiBi, a slope a head");
  verb.add_flag("--sinks", f.sinks, "Attention sinks, a logit a head");
  verb.add_option("--dropout", f.dropout, "Probability of dropping a weight; 0 is off")
      ->check(CLI::Range(0.0, 255.0 / 256))
      ->type_name("P");
  verb.add_flag(
      "--any-order", f.any_order,
      "With --backward: dq may be summed in an order that differs from run to run, which is faster");
  verb.add_option("--device", f.device, "auto (the GPU if there is one), cpu, cuda, cuda:N or emulator")
      ->type_name("DEVICE")
      ->capture_default_str();
  verb.add_option("--threads", f.common.threads, "CPU threads [all]")
      ->check(CLI::Range(0, 4096))
      ->type_name("N");
}

CaseDefaults caseDefaults(bool gpu) {
  if (gpu)
    return {{"64", "128", "256"}, {512, 1024, 2048, 4096, 8192, 16384}, {0, 1}, 16384, 2048};
  return {{"64", "128"}, {256, 512, 1024}, {0, 1}, 1024, 512};
}

namespace {

Status parseHeadDims(const std::string &text, BenchCase &to) {
  std::string commas = text;
  std::replace(commas.begin(), commas.end(), '/', ',');
  auto dims = parseIntegers("--head-dim", commas, 1, 2);
  if (!dims)
    return dims.status();
  to.head_dim = dims->front();
  to.head_dim_v = dims->back();
  return Status::ok();
}

Status check(const BenchCase &c) {
  for (auto [name, value] : {std::pair("head dim", c.head_dim), {"head dim of v", c.head_dim_v}})
    if (value < 1 || value > kMaxHeadDim)
      return invalidArgument(std::string(name) + " " + std::to_string(value) + ": must be 1 to " +
                             std::to_string(kMaxHeadDim));
  if (c.heads_q % c.heads_k != 0)
    return invalidArgument("heads: " + std::to_string(c.heads_q) + " query heads can't share " +
                           std::to_string(c.heads_k) +
                           " heads of k and v; the latter must divide the former");
  return Status::ok();
}

} // namespace

Result<std::vector<BenchCase>> makeCases(const CaseFlags &flags, const CaseDefaults &defaults) {
  BenchCase base;
  if (!flags.window.empty()) {
    auto sides = parseIntegers("--window", flags.window, 2, 2);
    if (!sides)
      return sides.status();
    for (int64_t side : *sides)
      if (side < -1 || side > INT32_MAX)
        return invalidArgument("--window '" + flags.window + "': " + std::to_string(side) +
                               ", each side must be -1 (unbounded) to 2147483647");
    base.window_left = (*sides)[0];
    base.window_right = (*sides)[1];
  }
  base.softcap = flags.softcap;
  base.alibi = flags.alibi;
  base.sinks = flags.sinks;
  base.dropout = flags.dropout;
  base.backward = flags.backward;
  if (flags.any_order && !flags.backward)
    return invalidArgument("--any-order: only with --backward");
  base.any_order = flags.any_order;
  if (flags.page_size && flags.backward)
    return invalidArgument("--page-size: not with --backward, whose keys are rows");
  base.page_size = flags.page_size;
  const std::vector<int> full = {0};
  const auto &causal = !flags.causal.empty() ? flags.causal : flags.shapes.empty() ? defaults.causal : full;
  const auto &seqlens = flags.seqlens.empty() ? defaults.seqlens : flags.seqlens;
  if (flags.seqlens_k.size() > 1 && flags.seqlens_k.size() != seqlens.size())
    return invalidArgument("--seqlen-k: has " + std::to_string(flags.seqlens_k.size()) +
                           " values, must have 1 or as many as --seqlen (" + std::to_string(seqlens.size()) +
                           ")");
  std::vector<BenchCase> sizes; // without dtype and causal
  for (const std::string &text : flags.shapes) {
    auto n = parseIntegers("--shape", text, 6, 7);
    if (!n)
      return n.status();
    for (int64_t value : *n)
      if (value < 1 || value > INT32_MAX)
        return invalidArgument("--shape '" + text + "': " + std::to_string(value) +
                               ", each must be 1 to 2147483647");
    BenchCase c = base;
    c.batch = (*n)[0], c.seqlen_q = (*n)[1], c.seqlen_k = (*n)[2], c.heads_q = (*n)[3], c.heads_k = (*n)[4];
    c.head_dim = (*n)[5], c.head_dim_v = n->back();
    sizes.push_back(c);
  }
  if (flags.shapes.empty())
    for (const std::string &dims : flags.head_dims.empty() ? defaults.head_dims : flags.head_dims)
      for (size_t i = 0; i < seqlens.size(); ++i) {
        BenchCase c = base;
        FLASHPLUS_RETURN_IF_ERROR(parseHeadDims(dims, c));
        c.seqlen_q = seqlens[i];
        c.seqlen_k = flags.seqlens_k.empty() ? seqlens[i] : flags.seqlens_k[i % flags.seqlens_k.size()];
        const int64_t tokens = flags.tokens ? flags.tokens : defaults.tokens;
        c.batch = flags.batch ? flags.batch : std::max<int64_t>(1, tokens / c.seqlen_q);
        const int64_t hidden = flags.hidden ? flags.hidden : defaults.hidden;
        c.heads_q =
            flags.heads ? flags.heads : std::max<int64_t>(1, hidden / std::max<int64_t>(1, c.head_dim));
        c.heads_k = flags.heads_k ? flags.heads_k : c.heads_q;
        sizes.push_back(c);
      }
  std::vector<BenchCase> cases;
  for (const std::string &dtype : flags.dtypes)
    for (size_t at = 0; at < sizes.size();) {
      // Sizes of equal head dims stay together, so that a table reads like a plot: lengths innermost.
      size_t end = at;
      while (end < sizes.size() && sizes[end].head_dim == sizes[at].head_dim &&
             sizes[end].head_dim_v == sizes[at].head_dim_v)
        ++end;
      for (int value : causal)
        for (size_t i = at; i < end; ++i) {
          cases.push_back(sizes[i]);
          cases.back().dtype = *parseDType(dtype);
          cases.back().causal = value != 0;
          FLASHPLUS_RETURN_IF_ERROR(check(cases.back()));
        }
      at = end;
    }
  return cases;
}

} // namespace flashplus::tool
