// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/problem_flags.h"
#include "tools/flashplus/choice.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <random>

namespace flashplus::tool {

namespace {

/// "name=value" -> {name, value}
Result<std::pair<std::string, std::string>> splitPair(const std::string &flag, const std::string &text) {
  size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
    return invalidArgument(flag + " '" + text +
                           "': must be NAME=" + (flag == "--tensor" ? "FILE.npy" : "NUMBER"));
  return std::pair(text.substr(0, equals), text.substr(equals + 1));
}

Result<float> parseFloat(const std::string &flag, const std::string &text) {
  float value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return invalidArgument(flag + " '" + text + "': must be a number");
  return value;
}

Status loadOptional(const std::string &flag, const std::string &path, io::ElementType type,
                    std::optional<io::Tensor> &to) {
  if (path.empty())
    return Status::ok();
  Result<io::Tensor> tensor = loadNpy(flag, path, type);
  if (!tensor)
    return tensor.status();
  to = std::move(*tensor);
  return Status::ok();
}

int64_t longestSequence(const io::Tensor &cu) {
  // Before checkProblem has seen it: whatever it holds must do no harm here.
  int64_t most = 0;
  const auto *at = reinterpret_cast<const int32_t *>(cu.data.data());
  for (size_t i = 1; i < cu.data.size() / sizeof *at; ++i)
    most = std::max(most, static_cast<int64_t>(at[i]) - at[i - 1]);
  return most;
}

/// Keys of the sequences of a ragged decode step: any number that has room for its last rows and for what is
/// new.
Status makeLengths(const ProblemFlags &flags, Problem &problem) {
  if (problem.seqused_k)
    return invalidArgument("--ragged: not with --seqused-k, which says the same");
  const int64_t most = problem.k.shape[1];
  const int64_t least = std::min(most, std::max(flags.input.rows, flags.append.rows));
  Result<io::Tensor> lengths = io::makeTensor(io::ElementType::I32, {problem.k.shape[0]});
  if (!lengths)
    return lengths.status();
  std::mt19937_64 random(flags.input.seed);
  for (int64_t b = 0; b < lengths->elements(); ++b)
    reinterpret_cast<int32_t *>(lengths->data.data())[b] = static_cast<int32_t>(
        least + static_cast<int64_t>(random() % static_cast<uint64_t>(most - least + 1)));
  problem.seqused_k = std::move(*lengths);
  return Status::ok();
}

/// Attention sinks: a file, or numbers of the seed.
Status makeSinks(const ProblemFlags &flags, Problem &problem) {
  if (flags.sinks.empty())
    return Status::ok();
  const std::vector<int64_t> shape = {problem.headsQ()};
  Result<io::Tensor> sinks = flags.sinks == "random"
                                 ? randomTensor(shape, io::ElementType::F32, flags.input.seed + 3)
                                 : loadNpy("--sinks", flags.sinks, io::ElementType::F32);
  if (!sinks)
    return sinks.status();
  if (sinks->shape != shape)
    return invalidArgument("--sinks: shape " + io::shapeText(sinks->shape) + ", must be " +
                           io::shapeText(shape) + ", a number a query head");
  problem.sinks = std::move(*sinks);
  return Status::ok();
}

/// The gradient that reaches the output: a file, or numbers of the seed that no other tensor of a problem
/// has.
Status makeDout(const ProblemFlags &flags, Problem &problem) {
  Result<io::Tensor> dout = flags.dout.empty()
                                ? randomTensor(problem.outputShape(), problem.q.type, ~flags.input.seed)
                                : loadNpy("--dout", flags.dout, problem.q.type);
  if (!dout)
    return dout.status();
  if (dout->shape != problem.outputShape())
    return invalidArgument("--dout: shape " + io::shapeText(dout->shape) + ", must be " +
                           io::shapeText(problem.outputShape()) + ", that of the output");
  problem.dout = std::move(*dout);
  return Status::ok();
}

} // namespace

Result<Problem> makeProblem(const ProblemFlags &flags) {
  Problem problem;
  FLASHPLUS_RETURN_IF_ERROR(loadInputs(flags.input, problem));
  using io::ElementType;
  FLASHPLUS_RETURN_IF_ERROR(
      loadOptional("--cu-seqlens-q", flags.cu_seqlens_q, ElementType::I32, problem.cu_seqlens_q));
  FLASHPLUS_RETURN_IF_ERROR(
      loadOptional("--cu-seqlens-k", flags.cu_seqlens_k, ElementType::I32, problem.cu_seqlens_k));
  FLASHPLUS_RETURN_IF_ERROR(
      loadOptional("--seqused-q", flags.seqused_q, ElementType::I32, problem.seqused_q));
  FLASHPLUS_RETURN_IF_ERROR(
      loadOptional("--seqused-k", flags.seqused_k, ElementType::I32, problem.seqused_k));
  if (flags.input.ragged)
    FLASHPLUS_RETURN_IF_ERROR(makeLengths(flags, problem));
  FLASHPLUS_RETURN_IF_ERROR(loadOptional("--alibi", flags.alibi, ElementType::F32, problem.alibi_slopes));
  if (problem.cu_seqlens_q && problem.cu_seqlens_k) {
    problem.max_seqlen_q =
        flags.max_seqlen_q >= 0 ? flags.max_seqlen_q : longestSequence(*problem.cu_seqlens_q);
    problem.max_seqlen_k =
        flags.max_seqlen_k >= 0 ? flags.max_seqlen_k : longestSequence(*problem.cu_seqlens_k);
  } else if (flags.max_seqlen_q >= 0 || flags.max_seqlen_k >= 0) {
    return invalidArgument("--max-seqlen-q/-k: only with --cu-seqlens-q and --cu-seqlens-k");
  }
  if (!flags.window.empty()) {
    auto sides = parseIntegers("--window", flags.window, 2, 2);
    if (!sides)
      return sides.status();
    for (int64_t side : *sides)
      if (side < -1 || side > INT32_MAX)
        return invalidArgument("--window '" + flags.window + "': " + std::to_string(side) +
                               ", each side must be -1 (unbounded) to 2147483647");
    problem.window_left = static_cast<int>((*sides)[0]);
    problem.window_right = static_cast<int>((*sides)[1]);
  }
  problem.causal |= flags.causal;
  if (flags.scale)
    problem.scale = static_cast<float>(*flags.scale);
  problem.softcap = static_cast<float>(flags.softcap);
  problem.score = flags.score;
  problem.lse_empty = flags.lse_empty == "-inf" ? -INFINITY : INFINITY;
  problem.dropout_p = static_cast<float>(flags.dropout);
  problem.dropout_seed = flags.input.seed;
  problem.num_splits = flags.num_splits;
  problem.batch_invariant = flags.batch_invariant;
  if (flags.any_order && !flags.backward)
    return invalidArgument("--any-order: only with --backward");
  problem.any_order = flags.any_order;
  for (const std::string &text : flags.tensors) {
    auto pair = splitPair("--tensor", text);
    if (!pair)
      return pair.status();
    Result<io::Tensor> tensor = loadNpy("--tensor " + pair->first, pair->second, ElementType::F32);
    if (!tensor)
      return tensor.status();
    problem.score_tensors.emplace_back(pair->first, std::move(*tensor));
  }
  for (const std::string &text : flags.scalars) {
    auto pair = splitPair("--scalar", text);
    if (!pair)
      return pair.status();
    Result<float> value = parseFloat("--scalar " + pair->first, pair->second);
    if (!value)
      return value.status();
    problem.score_scalars.emplace_back(pair->first, *value);
  }
  if (problem.score.empty() && !(problem.score_tensors.empty() && problem.score_scalars.empty()))
    return invalidArgument("--tensor and --scalar: only with --score, which names them");
  FLASHPLUS_RETURN_IF_ERROR(checkProblem(problem));
  FLASHPLUS_RETURN_IF_ERROR(makeSinks(flags, problem));
  if (flags.page_size && flags.backward)
    return invalidArgument("--page-size: not with --backward, whose keys are rows");
  if (!flags.page_size && flags.pages != "order")
    return invalidArgument("--pages: only with --page-size");
  problem.page_size = flags.page_size;
  problem.random_pages = flags.pages == "random";
  if (flags.append.given() && flags.backward)
    return invalidArgument("--append: not with --backward");
  if (!flags.append.given() && (flags.append.rotary || flags.append.interleaved))
    return invalidArgument("--rotary and --rotary-interleaved: only with --append");
  if (!flags.backward && !flags.dout.empty())
    return invalidArgument("--dout: only with --backward");
  if (flags.backward)
    FLASHPLUS_RETURN_IF_ERROR(makeDout(flags, problem));
  return problem;
}

void addProblemFlags(CLI::App &verb, ProblemFlags &f) {
  auto text = [&](const char *name, std::string &to, const char *type, const char *help) {
    return verb.add_option(name, to, help)->type_name(type);
  };
  text("--in", f.input.in, "FILE", "Input .safetensors with tensors q, k and v");
  text("--q", f.input.q, "FILE", "Queries, .npy");
  text("--k", f.input.k, "FILE", "Keys, .npy");
  text("--v", f.input.v, "FILE", "Values, .npy");
  text("--random", f.input.random, "B,SQ,SK,HQ,HK,D[,DV]", "Normally distributed input of these sizes");
  text("--decode", f.input.decode, "B,SK,HQ,HK,D[,DV]",
       "A decode step of random input: the last --rows of every sequence attend to its keys, causally");
  verb.add_option("--rows", f.input.rows, "With --decode, query rows of a sequence")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->type_name("N")
      ->capture_default_str();
  verb.add_flag("--ragged", f.input.ragged,
                "With --decode, a sequence has any number of keys up to SK, of --seed");
  verb.add_option("--dtype", f.input.dtype, "fp16, bf16 or fp32; files are converted [random: bf16]")
      ->transform(dtypeNames())
      ->type_name("TYPE");
  verb.add_option("--seed", f.input.seed, "Seed of --random, and of --dropout")
      ->check(unsignedNumber())
      ->capture_default_str();
  addCausalFlag(
      verb, /*several=*/false, [&f](const std::vector<bool> &causal) { f.causal = causal.front(); }, "no");
  text("--window", f.window, "L,R", "Sliding window: keys from L before to R after; -1 is unbounded");
  verb.add_option("--scale", f.scale, "softmax_scale [1/sqrt(head_dim)]")->type_name("NUMBER");
  verb.add_option("--softcap", f.softcap, "s -> C * tanh(s / C); 0 is off")
      ->type_name("C")
      ->capture_default_str();
  verb.add_option("--dropout", f.dropout, "Probability of dropping a weight, by the mask of --seed; 0 is off")
      ->check(CLI::Range(0.0, 255.0 / 256))
      ->type_name("P")
      ->capture_default_str();
  text("--alibi", f.alibi, "FILE", "ALiBi slopes, .npy of (heads) or (batch, heads)");
  text("--sinks", f.sinks, "FILE",
       "Attention sinks, .npy of (heads): a score more a row, without a value; random: of --seed");
  text("--score", f.score, "EXPR", "Score expression over s, b, h, hk, q, k, sq, sk and your own names");
  verb.add_option("--tensor", f.tensors, "Tensor of --score; repeatable")
      ->type_name("NAME=FILE.npy")
      ->allow_extra_args(false);
  verb.add_option("--scalar", f.scalars, "Scalar of --score; repeatable")
      ->type_name("NAME=NUMBER")
      ->allow_extra_args(false);
  text("--cu-seqlens-q", f.cu_seqlens_q, "FILE", "Offsets of the query sequences, int .npy of (batch + 1)");
  text("--cu-seqlens-k", f.cu_seqlens_k, "FILE", "Offsets of the key sequences");
  text("--seqused-q", f.seqused_q, "FILE", "Query rows in use per sequence, int .npy of (batch)");
  text("--seqused-k", f.seqused_k, "FILE", "Key rows in use per sequence");
  verb.add_option("--max-seqlen-q", f.max_seqlen_q, "Upper bound of the query lengths [the longest]")
      ->check(CLI::Range(int64_t{0}, int64_t{INT32_MAX}))
      ->type_name("N");
  verb.add_option("--max-seqlen-k", f.max_seqlen_k, "Upper bound of the key lengths [the longest]")
      ->check(CLI::Range(int64_t{0}, int64_t{INT32_MAX}))
      ->type_name("N");
  verb.add_option("--page-size", f.page_size,
                  "Keys lie in pages of N slots, found through a table [no pages]")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->type_name("N");
  verb.add_option("--pages", f.pages, "Order of the pages in the pool: order or random")
      ->transform(oneOf({"order", "random"}))
      ->capture_default_str();
  verb.add_option("--append", f.append.rows,
                  "The last N keys of every sequence are new: the forward writes them into the cache first")
      ->check(CLI::Range(int64_t{0}, int64_t{INT32_MAX}))
      ->type_name("N");
  verb.add_option("--rotary", f.append.rotary,
                  "With --append, rotary embedding of the new keys and of q, of so many columns")
      ->check(CLI::Range(int64_t{0}, int64_t{256}))
      ->type_name("DIM");
  verb.add_flag("--rotary-interleaved", f.append.interleaved, "Its pairs are columns (2i, 2i + 1)");
  verb.add_option("--lse-empty", f.lse_empty, "lse of a row that sees no key: inf or -inf")
      ->transform(oneOf({"inf", "-inf"}))
      ->type_name("VALUE")
      ->capture_default_str();
  verb.add_option("--num-splits", f.num_splits, "Shares of the keys: 0 chosen, 1 never split, at most 128")
      ->check(CLI::Range(0, 128))
      ->type_name("N");
  verb.add_flag("--batch-invariant", f.batch_invariant,
                "A row's result may not depend on the rest of the batch");
  verb.add_option("--threads", f.common.threads, "CPU threads [all]")
      ->check(CLI::Range(0, 4096))
      ->type_name("N");
  verb.add_flag("--backward", f.backward, "Run the backward, too: the gradients of q, k and v");
  verb.add_flag(
      "--any-order", f.any_order,
      "With --backward: dq may be summed in an order that differs from run to run, which is faster");
  text("--dout", f.dout, "FILE", "With --backward, the gradient of the output, .npy [random, of the seed]");
  verb.add_flag("--check", f.check, "Compare with the fp64 reference; exit status 1 when it is not met");
  addCommonFlags(verb, f.common);
}

} // namespace flashplus::tool
