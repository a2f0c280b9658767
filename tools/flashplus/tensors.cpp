// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/tensors.h"

#include "tools/flashplus/command.h"
#include "tools/flashplus/pages.h"
#include "tools/io/convert.h"
#include "tools/io/npy.h"
#include "tools/io/safetensors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>

namespace flashplus::tool {

using io::ElementType;
using io::Tensor;

std::vector<int64_t> Problem::outputShape() const {
  std::vector<int64_t> shape = q.shape;
  shape.back() = v.shape.back();
  return shape;
}

std::vector<int64_t> Problem::lseShape() const {
  if (ragged())
    return {q.shape[1], q.shape[0]};
  return {q.shape[0], q.shape[2], q.shape[1]};
}

namespace {

/// Input that can't be read is the user's input: it leaves with exit code 2 as every other bad input.
Status asInput(const std::string &flag, const Status &status) {
  if (status.code() == StatusCode::OutOfMemory)
    return status;
  return invalidArgument(flag + ": " + status.message());
}

std::optional<ElementType> storageType(const std::string &dtype) {
  for (ElementType type : {ElementType::F16, ElementType::BF16, ElementType::F32})
    if (dtype == io::elementName(type))
      return type;
  return std::nullopt;
}

/// The same numbers from the same seed on every machine.
class Normal {
public:
  explicit Normal(uint64_t seed) : state_(seed) {}
  float next() {
    // Box-Muller, one of the pair: speed is no concern, sameness is.
    double u = (static_cast<double>(bits() >> 11) + 1) * 0x1p-53,
           v = static_cast<double>(bits() >> 11) * 0x1p-53;
    return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
  }

private:
  uint64_t bits() { // an LCG's high bits folded; good enough for noise
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    uint64_t x = state_;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
  }
  uint64_t state_;
};

Status makeRandom(const InputFlags &flags, ElementType type, Problem &problem) {
  const std::string flag = flags.decode.empty() ? "--random" : "--decode";
  const std::string &text = flags.decode.empty() ? flags.random : flags.decode;
  const size_t given = flags.decode.empty() ? 6 : 5; // a decode step has its query rows from another flag
  auto sizes = parseIntegers(flag, text, given, given + 1);
  if (!sizes)
    return sizes.status();
  if (!flags.decode.empty()) {
    sizes->insert(sizes->begin() + 1, flags.rows);
    problem.causal = true;
  }
  const char *names[] = {"B", "SQ", "SK", "HQ", "HK", "D", "DV"};
  for (size_t i = 0; i < sizes->size(); ++i) {
    int64_t least = i == 1 || i == 2 ? 0 : 1;
    if ((*sizes)[i] < least || (*sizes)[i] > INT32_MAX)
      return invalidArgument(flag + " '" + text + "': " + names[i] + " = " + std::to_string((*sizes)[i]) +
                             ", allowed are " + std::to_string(least) + " to 2147483647");
  }
  if (!flags.decode.empty() && (*sizes)[2] < flags.rows)
    return invalidArgument("--rows " + std::to_string(flags.rows) + ": must be at most " +
                           std::to_string((*sizes)[2]) + ", the SK of --decode: the rows are the last ones");
  int64_t b = (*sizes)[0], sq = (*sizes)[1], sk = (*sizes)[2], hq = (*sizes)[3], hk = (*sizes)[4],
          d = (*sizes)[5];
  int64_t dv = sizes->size() == 7 ? (*sizes)[6] : d;
  Tensor *tensors[] = {&problem.q, &problem.k, &problem.v};
  std::vector<int64_t> shapes[] = {{b, sq, hq, d}, {b, sk, hk, d}, {b, sk, hk, dv}};
  for (size_t i = 0; i < 3; ++i) {
    Result<Tensor> made = randomTensor(shapes[i], type, flags.seed * 3 + i);
    if (!made)
      return asInput(flag + " '" + text + "'", made.status());
    *tensors[i] = std::move(*made);
  }
  problem.source =
      (flags.decode.empty() ? "random, seed " : "a decode step, random, seed ") + std::to_string(flags.seed);
  return Status::ok();
}

Status loadFiles(const InputFlags &flags, Problem &problem) {
  Tensor *tensors[] = {&problem.q, &problem.k, &problem.v};
  const char *names[] = {"q", "k", "v"};
  if (!flags.in.empty()) {
    std::string wanted[] = {"q", "k", "v"};
    Result<io::TensorMap> map = io::readSafetensors(flags.in, wanted);
    if (!map)
      return asInput("--in", map.status());
    for (size_t i = 0; i < 3; ++i)
      *tensors[i] = std::move((*map)[names[i]]);
    problem.source = flags.in;
    return Status::ok();
  }
  const std::string *paths[] = {&flags.q, &flags.k, &flags.v};
  for (size_t i = 0; i < 3; ++i) {
    std::string flag = std::string("--") + names[i];
    if (paths[i]->empty())
      return invalidArgument(flag + ": missing; --q, --k and --v go together");
    Result<Tensor> read = io::readNpy(*paths[i]);
    if (!read)
      return asInput(flag, read.status());
    *tensors[i] = std::move(*read);
  }
  problem.source = flags.q;
  return Status::ok();
}

} // namespace

Result<Tensor> randomTensor(std::vector<int64_t> shape, ElementType type, uint64_t seed) {
  Result<Tensor> made = io::makeTensor(ElementType::F32, std::move(shape));
  if (!made)
    return made.status();
  Normal normal(seed);
  for (int64_t i = 0, n = made->elements(); i < n; ++i) {
    float value = normal.next();
    std::memcpy(made->data.data() + static_cast<size_t>(i) * sizeof value, &value, sizeof value);
  }
  return io::convert(*made, type);
}

Result<Tensor> loadNpy(const std::string &flag, const std::string &path, ElementType type) {
  Result<Tensor> tensor = io::readNpy(path);
  if (!tensor)
    return asInput(flag, tensor.status());
  Result<Tensor> converted = io::convert(*tensor, type);
  return converted ? std::move(converted) : Result<Tensor>(asInput(flag + ": " + path, converted.status()));
}

Status loadInputs(const InputFlags &flags, Problem &problem) {
  int ways = !flags.in.empty() + !flags.random.empty() + !flags.decode.empty() +
             !(flags.q.empty() && flags.k.empty() && flags.v.empty());
  if (ways != 1)
    return invalidArgument(
        "input: give exactly one of --in FILE, --q/--k/--v FILE, --random SIZES or --decode SIZES");
  if (flags.decode.empty() && (flags.rows != 1 || flags.ragged))
    return invalidArgument("--rows and --ragged: only with --decode");
  std::optional<ElementType> type;
  if (!flags.dtype.empty() && !(type = storageType(flags.dtype)))
    return invalidArgument("--dtype '" + flags.dtype + "': allowed are fp16, bf16 and fp32");
  if (!flags.random.empty() || !flags.decode.empty())
    return makeRandom(flags, type.value_or(ElementType::BF16), problem);
  FLASHPLUS_RETURN_IF_ERROR(loadFiles(flags, problem));
  size_t index = 0;
  for (Tensor *tensor : {&problem.q, &problem.k, &problem.v}) {
    std::string name(1, "qkv"[index++]);
    if (type) {
      Result<Tensor> converted = io::convert(*tensor, *type);
      if (!converted)
        return asInput(name, converted.status());
      *tensor = std::move(*converted);
    } else if (!storageType(std::string(io::elementName(tensor->type)))) {
      return invalidArgument(name + ": dtype " + std::string(io::elementName(tensor->type)) +
                             ", allowed are fp16, bf16 and fp32 (--dtype converts fp64)");
    }
  }
  return Status::ok();
}

std::vector<std::pair<int64_t, int64_t>> sequenceLengths(const Problem &problem) {
  auto at = [](const Tensor &tensor, int64_t i) { return static_cast<int64_t>(io::elementAt(tensor, i)); };
  std::vector<std::pair<int64_t, int64_t>> lengths;
  int64_t batch =
      problem.ragged() ? std::max<int64_t>(0, problem.cu_seqlens_q->elements() - 1) : problem.q.shape[0];
  for (int64_t b = 0; b < batch; ++b) {
    int64_t sq = problem.ragged() ? at(*problem.cu_seqlens_q, b + 1) - at(*problem.cu_seqlens_q, b)
                                  : problem.q.shape[1];
    int64_t sk = problem.ragged() ? at(*problem.cu_seqlens_k, b + 1) - at(*problem.cu_seqlens_k, b)
                                  : problem.k.shape[1];
    if (problem.seqused_q)
      sq = std::min(sq, at(*problem.seqused_q, b));
    if (problem.seqused_k)
      sk = std::min(sk, at(*problem.seqused_k, b));
    lengths.emplace_back(sq, sk);
  }
  return lengths;
}

double visiblePairs(int64_t seqlen_q, int64_t seqlen_k, int64_t window_left, int64_t window_right) {
  double pairs = 0;
  for (int64_t i = 0; i < seqlen_q; ++i) {
    int64_t p = i + seqlen_k - seqlen_q;
    int64_t lo = window_left < 0 ? 0 : std::clamp<int64_t>(p - window_left, 0, seqlen_k);
    int64_t hi = window_right < 0 ? seqlen_k : std::clamp<int64_t>(p + window_right + 1, 0, seqlen_k);
    pairs += static_cast<double>(std::max<int64_t>(0, hi - lo));
  }
  return pairs;
}

double visiblePairs(const Problem &problem) {
  double pairs = 0;
  for (auto [sq, sk] : sequenceLengths(problem))
    pairs += visiblePairs(sq, sk, problem.window_left, problem.causal ? 0 : problem.window_right);
  return pairs;
}

Result<DeviceTensor> DeviceTensor::upload(flashplus_context *context, DLDevice device, const Tensor &host) {
  DeviceTensor made;
  made.context_ = context;
  made.type_ = host.type;
  made.shape_ = host.shape;
  void *memory = nullptr;
  // At least one byte, so that an empty tensor has a pointer too.
  size_t bytes = std::max<size_t>(host.data.size(), 1);
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_device_malloc(context, device, bytes, &memory)));
  bool integer = host.type == ElementType::I32 || host.type == ElementType::I64;
  made.tensor_.data = memory;
  made.tensor_.device = device;
  made.tensor_.ndim = static_cast<int32_t>(made.shape_.size());
  made.tensor_.dtype.code = static_cast<uint8_t>(integer                          ? kDLInt
                                                 : host.type == ElementType::BF16 ? kDLBfloat
                                                                                  : kDLFloat);
  made.tensor_.dtype.bits = static_cast<uint8_t>(8 * io::elementBytes(host.type));
  made.tensor_.dtype.lanes = 1;
  made.tensor_.shape = made.shape_.data();
  if (!host.data.empty())
    FLASHPLUS_RETURN_IF_ERROR(
        libraryStatus(flashplus_copy_to_device(context, device, memory, host.data.data(), host.data.size())));
  return Result<DeviceTensor>(std::move(made));
}

DeviceTensor::DeviceTensor(DeviceTensor &&other) noexcept
    : context_(std::exchange(other.context_, nullptr)), type_(other.type_), shape_(std::move(other.shape_)),
      tensor_(other.tensor_) {
  tensor_.shape = shape_.data();
}

DeviceTensor::~DeviceTensor() {
  if (context_ && tensor_.data)
    (void)flashplus_device_free(context_, tensor_.device, tensor_.data);
}

Result<Tensor> DeviceTensor::download() const {
  Result<Tensor> host = io::makeTensor(type_, shape_);
  if (!host)
    return host.status();
  if (!host->data.empty())
    FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_copy_to_host(
        context_, tensor_.device, host->data.data(), tensor_.data, host->data.size())));
  return host;
}

Status DeviceProblem::upload(flashplus_context *context, DLDevice device, const Problem &problem) {
  tensors_.reserve(16 + problem.score_tensors.size()); // `args_` points at elements
  auto put = [&](const Tensor &host, const DLTensor **to) -> Status {
    Result<DeviceTensor> made = DeviceTensor::upload(context, device, host);
    if (!made)
      return made.status();
    tensors_.push_back(std::move(*made));
    *to = tensors_.back().dl();
    return Status::ok();
  };
  FLASHPLUS_RETURN_IF_ERROR(put(problem.q, &args_.q));
  if (problem.page_size) {
    Result<PagedKeys> paged = makePages(problem);
    if (!paged)
      return paged.status();
    FLASHPLUS_RETURN_IF_ERROR(put(paged->k, &args_.k));
    FLASHPLUS_RETURN_IF_ERROR(put(paged->v, &args_.v));
    FLASHPLUS_RETURN_IF_ERROR(put(paged->block_table, &args_.block_table));
    FLASHPLUS_RETURN_IF_ERROR(put(paged->seqused_k, &args_.seqused_k));
  } else {
    FLASHPLUS_RETURN_IF_ERROR(put(problem.k, &args_.k));
    FLASHPLUS_RETURN_IF_ERROR(put(problem.v, &args_.v));
    for (auto [host, to] : {std::pair{&problem.cu_seqlens_k, &args_.cu_seqlens_k},
                            std::pair{&problem.seqused_k, &args_.seqused_k}})
      if (*host)
        FLASHPLUS_RETURN_IF_ERROR(put(**host, to));
  }
  const std::pair<const std::optional<Tensor> *, const DLTensor **> optional[] = {
      {&problem.cu_seqlens_q, &args_.cu_seqlens_q},
      {&problem.seqused_q, &args_.seqused_q},
      {&problem.alibi_slopes, &args_.alibi_slopes},
      {&problem.sinks, &args_.sinks}};
  for (auto [host, to] : optional)
    if (*host)
      FLASHPLUS_RETURN_IF_ERROR(put(**host, to));
  for (const auto &[name, host] : problem.score_tensors) {
    flashplus_score_tensor tensor = {name.c_str(), nullptr};
    FLASHPLUS_RETURN_IF_ERROR(put(host, &tensor.tensor));
    score_tensors_.push_back(tensor);
  }
  for (const auto &[name, value] : problem.score_scalars)
    score_scalars_.push_back({name.c_str(), value});

  // Outputs start as NaN, so that a row the kernel forgets shows in --check.
  for (auto [shape, type, to] : {std::tuple(problem.outputShape(), problem.q.type, &output_),
                                 std::tuple(problem.lseShape(), ElementType::F32, &lse_)}) {
    Result<Tensor> host = io::makeTensor(type, shape);
    if (!host)
      return host.status();
    std::fill(host->data.begin(), host->data.end(), std::byte{0xff});
    Result<DeviceTensor> made = DeviceTensor::upload(context, device, *host);
    if (!made)
      return made.status();
    to->emplace(std::move(*made));
  }
  args_.o = output_->dl();
  args_.lse = lse_->dl();
  args_.max_seqlen_q = problem.max_seqlen_q;
  args_.max_seqlen_k = problem.max_seqlen_k;
  scale_ = problem.scale.value_or(0);
  args_.softmax_scale = problem.scale ? &scale_ : nullptr;
  args_.causal = problem.causal;
  args_.window_left = problem.window_left;
  args_.window_right = problem.window_right;
  args_.lse_empty = problem.lse_empty;
  args_.softcap = problem.softcap;
  args_.score = problem.score.empty() ? nullptr : problem.score.c_str();
  args_.score_tensors = score_tensors_.data();
  args_.num_score_tensors = static_cast<int32_t>(score_tensors_.size());
  args_.score_scalars = score_scalars_.data();
  args_.num_score_scalars = static_cast<int32_t>(score_scalars_.size());
  args_.dropout_p = problem.dropout_p;
  args_.dropout_seed = problem.dropout_seed;
  args_.num_splits = problem.num_splits;
  args_.batch_invariant = problem.batch_invariant;
  return Status::ok();
}

} // namespace flashplus::tool
