// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/workbench.h"

#include "spec/kernel_spec.h"
#include "spec/operation.h"
#include "spec/schedule.h"
#include "templates/registry.h"
#include "tools/flashplus/device_flag.h"
#include "tools/flashplus/gradients.h"
#include "tools/flashplus/machine.h"
#include "tools/flashplus/near.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>

namespace flashplus::tool {

namespace {

io::ElementType elementType(DType dtype) {
  return dtype == DType::F16    ? io::ElementType::F16
         : dtype == DType::BF16 ? io::ElementType::BF16
                                : io::ElementType::F32;
}

} // namespace

Result<TimedDevice> TimedDevice::open(const CaseFlags &flags) {
  TimedDevice timed;
  Result<Context> context = makeContext(flags.common);
  if (!context)
    return context.status();
  timed.context = std::move(*context);
  const bool fp32 = std::ranges::count(flags.dtypes, "fp32") != 0;
  Result<DLDevice> device = chooseDevice(flags.device, timed.context.get(), !fp32);
  if (!device)
    return device.status();
  timed.device = *device;
  FLASHPLUS_RETURN_IF_ERROR(wakeDevice(timed.context.get(), timed.device));
  Result<Json> facts = machineFacts(timed.context.get(), timed.device);
  if (!facts)
    return facts.status();
  timed.facts = std::move(*facts);
  return timed;
}

Result<Plan> createPlan(flashplus_context *context, const flashplus_forward_args &args) {
  flashplus_plan *plan = nullptr;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_plan_create(context, &args, &plan)));
  return Plan(plan);
}

Result<Plan> createPlan(flashplus_context *context, const flashplus_backward_args &args) {
  flashplus_plan *plan = nullptr;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_backward_plan_create(context, &args, &plan)));
  return Plan(plan);
}

Result<DeviceMemory> DeviceMemory::make(flashplus_context *context, DLDevice device, size_t bytes) {
  DeviceMemory made;
  made.context_ = context;
  made.device_ = device;
  made.size_ = bytes;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_device_malloc(context, device, bytes, &made.memory_)));
  return Result<DeviceMemory>(std::move(made));
}

DeviceMemory::DeviceMemory(DeviceMemory &&other) noexcept
    : context_(other.context_), device_(other.device_), memory_(std::exchange(other.memory_, nullptr)),
      size_(other.size_) {}
DeviceMemory &DeviceMemory::operator=(DeviceMemory &&other) noexcept {
  std::swap(context_, other.context_);
  std::swap(device_, other.device_);
  std::swap(memory_, other.memory_);
  std::swap(size_, other.size_);
  return *this;
}
DeviceMemory::~DeviceMemory() {
  if (memory_)
    (void)flashplus_device_free(context_, device_, memory_);
}

Prepared::~Prepared() = default;

std::vector<const Json *> Prepared::chosenSteps() const {
  // The others, which merge or prepare rows, have one schedule, and no score either.
  std::vector<const Json *> steps;
  for (const Json &step : description_["steps"])
    if (auto spec = KernelSpec::parse(step.value("spec", "")); spec && operationInfo(spec->op).hasScore())
      steps.push_back(&step);
  return steps;
}

std::string Prepared::schedule() const {
  std::string text;
  for (const Json *step : chosenSteps())
    text += (text.empty() ? "" : "; ") + step->value("schedule", "");
  return text;
}

std::vector<Prepared::Step> Prepared::steps() const {
  std::vector<Step> steps;
  for (const Json *step : chosenSteps())
    steps.push_back({step->value("spec", ""), step->value("schedule", "")});
  return steps;
}

Status Prepared::settle() const {
  return case_.backward ? libraryStatus(flashplus_forward(context_, &args_, /*stream=*/nullptr))
                        : Status::ok();
}

Status Prepared::put(const io::Tensor &host, const DLTensor *&to, DLDevice device) {
  auto made = DeviceTensor::upload(context_, device, host);
  if (!made)
    return made.status();
  own_.push_back(std::move(*made));
  to = own_.back().dl();
  return Status::ok();
}

/// What says where keys are and how many, and what is new, in args_.
Status Prepared::addCache(DLDevice device) {
  const BenchCase &c = case_;
  auto integers = [&](std::vector<int64_t> shape, const DLTensor *&to, auto value) -> Status {
    auto host = io::makeTensor(io::ElementType::I32, std::move(shape));
    if (!host)
      return host.status();
    for (int64_t i = 0; i < host->elements(); ++i)
      reinterpret_cast<int32_t *>(host->data.data())[i] = static_cast<int32_t>(value(i));
    return put(*host, to, device);
  };
  if (c.page_size) {
    std::vector<int64_t> pages(static_cast<size_t>(c.rowsK() / c.page_size));
    std::iota(pages.begin(), pages.end(), int64_t{0});
    std::shuffle(pages.begin(), pages.end(), std::mt19937(1));
    FLASHPLUS_RETURN_IF_ERROR(integers({c.batch, int64_t(pages.size()) / c.batch}, args_.block_table,
                                       [&](int64_t i) { return pages[size_t(i)]; }));
  }
  if (!c.keys.empty() || c.append || c.page_size)
    FLASHPLUS_RETURN_IF_ERROR(
        integers({c.batch}, args_.seqused_k, [&](int64_t b) { return c.keysOf(b) - c.append; }));
  if (!c.append)
    return Status::ok();
  const io::ElementType type = elementType(c.dtype);
  for (auto [shape, to] :
       {std::pair(std::vector{c.batch, c.append, c.heads_k, c.head_dim}, &args_.k_new),
        {std::vector{c.batch, c.append, c.heads_k, c.head_dim_v}, &args_.v_new},
        {std::vector{c.seqlen_k + c.seqlen_q, c.head_dim / 2}, &args_.rotary_cos}, // any numbers take as long
        {std::vector{c.seqlen_k + c.seqlen_q, c.head_dim / 2}, &args_.rotary_sin}}) {
    auto host = randomTensor(shape, type, 5);
    if (!host)
      return host.status();
    FLASHPLUS_RETURN_IF_ERROR(put(*host, *to, device));
  }
  return Status::ok();
}

Status Prepared::run() const {
  if (!places_.empty()) {
    std::tie(k_now_.data, v_now_.data) = places_[turn_];
    turn_ = (turn_ + 1) % places_.size();
  }
  if (case_.backward)
    return libraryStatus(flashplus_backward_plan_run(plan_.get(), &backward_args_, workspace_.get(),
                                                     workspace_.size(),
                                                     /*stream=*/nullptr));
  return libraryStatus(
      flashplus_plan_run(plan_.get(), &args_, workspace_.get(), workspace_.size(), /*stream=*/nullptr));
}

namespace {

/// That there is such an algorithm, which has these knobs. Which values go together, the library knows.
Status checkNames(const std::string &flag, const std::string &text, const Schedule &schedule) {
  const auto refused = [&](const std::string &name, const char *is_no,
                           const std::vector<std::string> &known) {
    std::string message = flag + " '" + text + "': '" + name + "' is no " + is_no + "; there are ";
    for (const std::string &one : known)
      message += (one == known.front() ? "" : ", ") + one;
    return invalidArgument(message + didYouMean(name, known));
  };
  const Algorithm *algorithm = findAlgorithm(schedule.algorithm);
  if (!algorithm)
    return refused(schedule.algorithm, "algorithm", algorithmNames());
  std::vector<std::string> knobs;
  for (const Knob &knob : algorithm->knobs)
    knobs.emplace_back(knob.name);
  for (const auto &[name, value] : schedule.knobs)
    if (std::ranges::find(knobs, name) == knobs.end())
      return refused(name, ("knob of " + schedule.algorithm).c_str(), knobs);
  return Status::ok();
}

} // namespace

Result<std::string> scheduleText(const std::string &flag, const std::string &text,
                                 const std::string &chosen) {
  std::string blanks = text;
  std::replace(blanks.begin(), blanks.end(), ',', ' ');
  const bool changes = blanks.substr(0, blanks.find(' ')).find('=') != std::string::npos;
  auto given = Schedule::parse(changes ? "x " + blanks : blanks);
  if (!given)
    return invalidArgument(flag + " '" + text +
                           "': must be name=integer,... or 'algorithm name=integer ...'");
  if (!changes) {
    FLASHPLUS_RETURN_IF_ERROR(checkNames(flag, text, *given));
    return given->text();
  }
  auto base = Schedule::parse(chosen);
  if (!base)
    return base.status();
  for (const auto &[name, value] : given->knobs)
    base->knobs[name] = value;
  FLASHPLUS_RETURN_IF_ERROR(checkNames(flag, text, *base));
  return base->text();
}

namespace {

/// Normally distributed numbers, all over. The same block again and again: what the hardware sees is as
/// random, and a gigabyte of fresh numbers would take half a minute.
Status fill(flashplus_context *context, DLDevice device, const DeviceMemory &memory,
            const io::Tensor &block) {
  for (size_t at = 0; at < memory.size(); at += block.data.size())
    FLASHPLUS_RETURN_IF_ERROR(
        libraryStatus(flashplus_copy_to_device(context, device, memory.get() + at, block.data.data(),
                                               std::min(block.data.size(), memory.size() - at))));
  return Status::ok();
}

} // namespace

Result<std::unique_ptr<Workbench>> Workbench::make(flashplus_context *context, DLDevice device,
                                                   const std::vector<BenchCase> &cases) {
  std::unique_ptr<Workbench> bench(new Workbench());
  bench->context_ = context;
  bench->device_ = device;
  struct Most {
    int64_t q = 1, k = 1, v = 1, dout = 0;
  };
  std::map<DType, Most> most;
  // What a call has read is to be out of every cache when its turn comes again.
  const int64_t memory_bytes = int64_t{device.device_type == kDLCUDA ? 256 : 64} << 20;
  int64_t o_bytes = 1, rows = 1, dq_bytes = 0, dk_bytes = 0, dv_bytes = 0;
  for (const BenchCase &c : cases) {
    Most &m = most[c.dtype];
    m.q = std::max(m.q, c.rowsQ() * c.heads_q * c.head_dim);
    m.k = std::max(m.k, c.rowsK() * c.heads_k * c.head_dim);
    m.v = std::max(m.v, c.rowsK() * c.heads_k * c.head_dim_v);
    if (c.readsMemory() && device.device_type != kDLExtDev)
      for (int64_t *elements : {&m.k, &m.v})
        *elements = std::max(*elements, memory_bytes / dtypeBytes(c.dtype));
    o_bytes = std::max(o_bytes, c.rowsQ() * c.heads_q * c.head_dim_v * dtypeBytes(c.dtype));
    rows = std::max(rows, c.rowsQ() * c.heads_q);
    if (c.backward) {
      m.dout = std::max(m.dout, c.rowsQ() * c.heads_q * c.head_dim_v);
      dq_bytes = std::max(dq_bytes, m.q * dtypeBytes(c.dtype));
      dk_bytes = std::max(dk_bytes, m.k * dtypeBytes(c.dtype));
      dv_bytes = std::max(dv_bytes, m.v * dtypeBytes(c.dtype));
    }
  }
  for (const auto &[dtype, m] : most) {
    Inputs &inputs = bench->inputs_[dtype];
    uint64_t seed = 1;
    for (auto [to, elements] :
         {std::pair(&inputs.q, m.q), {&inputs.k, m.k}, {&inputs.v, m.v}, {&inputs.dout, m.dout}}) {
      if (!elements)
        continue;
      auto memory = DeviceMemory::make(context, device, static_cast<size_t>(elements * dtypeBytes(dtype)));
      if (!memory)
        return memory.status();
      // A length that no row count divides: the block does not repeat from one head or sequence to the next.
      auto block = randomTensor({std::min<int64_t>(elements, 1'000'003)}, elementType(dtype), seed++);
      if (!block)
        return block.status();
      *to = std::move(*memory);
      FLASHPLUS_RETURN_IF_ERROR(fill(context, device, *to, *block));
    }
  }
  for (auto [to, bytes] : {std::pair(&bench->o_, o_bytes),
                           {&bench->lse_, rows * 4},
                           {&bench->dq_, dq_bytes},
                           {&bench->dk_, dk_bytes},
                           {&bench->dv_, dv_bytes}}) {
    if (!bytes)
      continue;
    auto memory = DeviceMemory::make(context, device, static_cast<size_t>(bytes));
    if (!memory)
      return memory.status();
    *to = std::move(*memory);
  }
  return bench;
}

Result<std::unique_ptr<Prepared>> Workbench::prepare(const BenchCase &problem,
                                                     const std::string &schedule) const {
  std::unique_ptr<Prepared> p(new Prepared());
  p->context_ = context_;
  p->case_ = problem;
  const BenchCase &c = p->case_;
  const bool ragged = !c.lengths.empty();
  auto shape = [&](int64_t batch, int64_t rows, int64_t heads, int64_t dim) {
    return ragged ? std::vector<int64_t>{rows * batch, heads, dim}
                  : std::vector<int64_t>{batch, rows, heads, dim};
  };
  const int64_t batch = ragged ? 1 : c.batch, sq = ragged ? c.rowsQ() : c.seqlen_q,
                sk = ragged ? c.rowsK() : c.seqlen_k;
  p->shapes_ = {shape(batch, sq, c.heads_q, c.head_dim), shape(batch, sk, c.heads_k, c.head_dim),
                shape(batch, sk, c.heads_k, c.head_dim_v), shape(batch, sq, c.heads_q, c.head_dim_v),
                ragged ? std::vector<int64_t>{c.heads_q, sq}
                       : std::vector<int64_t>{c.batch, c.heads_q, c.seqlen_q}};
  if (c.page_size)
    for (size_t i : {size_t{1}, size_t{2}}) // K and V
      p->shapes_[i] = {c.rowsK() / c.page_size, c.page_size, c.heads_k, i == 1 ? c.head_dim : c.head_dim_v};
  const Inputs &inputs = inputs_.at(c.dtype);
  enum { Q, K, V, O, LSE }; // of shapes_
  const std::tuple<DLTensor *, const DeviceMemory *, int> tensors[] = {
      {&p->q_, &inputs.q, Q}, {&p->k_, &inputs.k, K}, {&p->v_, &inputs.v, V},
      {&p->o_, &o_, O},       {&p->lse_, &lse_, LSE}, {&p->dout_, &inputs.dout, O},
      {&p->dq_, &dq_, Q},     {&p->dk_, &dk_, K},     {&p->dv_, &dv_, V}};
  const DLDataType type = {static_cast<uint8_t>(c.dtype == DType::BF16 ? kDLBfloat : kDLFloat),
                           static_cast<uint8_t>(8 * dtypeBytes(c.dtype)), 1};
  for (auto [tensor, memory, shape_of] : tensors) {
    std::vector<int64_t> &dims = p->shapes_[static_cast<size_t>(shape_of)];
    tensor->data = memory->get();
    tensor->device = device_;
    tensor->ndim = static_cast<int32_t>(dims.size());
    tensor->shape = dims.data();
    tensor->dtype = tensor == &p->lse_ ? DLDataType{kDLFloat, 32, 1} : type;
  }
  flashplus_forward_args &args = p->args_;
  args.q = &p->q_, args.k = &p->k_, args.v = &p->v_, args.o = &p->o_, args.lse = &p->lse_;
  p->own_.reserve(8); // args point at them
  auto put = [&](const io::Tensor &host) -> Result<const DLTensor *> {
    auto made = DeviceTensor::upload(context_, device_, host);
    if (!made)
      return made.status();
    p->own_.push_back(std::move(*made));
    return static_cast<const DLTensor *>(p->own_.back().dl());
  };
  if (ragged) {
    std::vector<int32_t> offsets(1, 0);
    for (int64_t length : c.lengths)
      offsets.push_back(offsets.back() + static_cast<int32_t>(length));
    auto host = io::makeTensor(io::ElementType::I32, {static_cast<int64_t>(offsets.size())});
    if (!host)
      return host.status();
    std::memcpy(host->data.data(), offsets.data(), host->data.size());
    auto put_offsets = put(*host);
    if (!put_offsets)
      return put_offsets.status();
    args.cu_seqlens_q = args.cu_seqlens_k = *put_offsets;
    args.max_seqlen_q = args.max_seqlen_k = c.max_seqlen ? c.max_seqlen : c.seqlen_q;
  }
  if (c.alibi) { // the slopes of the ALiBi paper for powers of two: 2^(-8 i / heads)
    auto host = io::makeTensor(io::ElementType::F32, {c.heads_q});
    if (!host)
      return host.status();
    for (int64_t h = 0; h < c.heads_q; ++h) {
      const float slope = std::exp2(-8.0f * static_cast<float>(h + 1) / static_cast<float>(c.heads_q));
      std::memcpy(host->data.data() + h * 4, &slope, 4);
    }
    auto slopes = put(*host);
    if (!slopes)
      return slopes.status();
    args.alibi_slopes = *slopes;
  }
  if (c.sinks) {
    auto host = randomTensor({c.heads_q}, io::ElementType::F32, 19);
    if (!host)
      return host.status();
    auto sinks = put(*host);
    if (!sinks)
      return sinks.status();
    args.sinks = *sinks;
  }
  FLASHPLUS_RETURN_IF_ERROR(p->addCache(device_));
  if (c.readsMemory()) {
    const auto bytes = [&](int64_t dim) {
      return static_cast<size_t>(c.rowsK() * c.heads_k * dim * dtypeBytes(c.dtype));
    };
    const size_t k_bytes = (bytes(c.head_dim) + 255) / 256 * 256,
                 v_bytes = (bytes(c.head_dim_v) + 255) / 256 * 256;
    const size_t count = std::max<size_t>(1, std::min(inputs.k.size() / k_bytes, inputs.v.size() / v_bytes));
    for (size_t i = 0; i < count; ++i)
      p->places_.emplace_back(inputs.k.get() + i * k_bytes, inputs.v.get() + i * v_bytes);
    p->k_now_ = p->k_, p->v_now_ = p->v_;
    args.k = &p->k_now_, args.v = &p->v_now_;
  }
  args.causal = c.causal;
  args.window_left = static_cast<int32_t>(c.window_left);
  args.window_right = static_cast<int32_t>(c.window_right);
  args.softcap = static_cast<float>(c.softcap);
  args.dropout_p = static_cast<float>(c.dropout);
  args.dropout_seed = 1;
  flashplus_backward_args &backward = p->backward_args_ = backwardArgs(args);
  backward.any_order = c.any_order;
  backward.dout = &p->dout_, backward.dq = &p->dq_, backward.dk = &p->dk_, backward.dv = &p->dv_;

  auto plan = [&](const std::string &text) -> Status {
    p->schedule_text_ = text;
    (c.backward ? backward.schedule : args.schedule) = text.empty() ? nullptr : p->schedule_text_.c_str();
    auto made = c.backward ? createPlan(context_, backward) : createPlan(context_, args);
    if (!made)
      return made.status();
    p->plan_ = std::move(*made);
    p->description_ =
        Json::parse(flashplus_plan_describe(p->plan_.get()), nullptr, /*allow_exceptions=*/false);
    if (!p->description_.is_object() || p->description_["steps"].empty())
      return Status(StatusCode::Internal, "flashplus_plan_describe gave text that is not a plan");
    return Status::ok();
  };
  std::string text = schedule;
  if (text.substr(0, text.find_first_of(" ,")).find('=') != std::string::npos) {
    FLASHPLUS_RETURN_IF_ERROR(plan(""));
    if (const auto steps = p->chosenSteps(); steps.size() > 1) {
      std::string names;
      for (const Json *step : steps)
        names += (names.empty() ? "" : " or ") +
                 step->value("schedule", "").substr(0, step->value("schedule", "").find(' '));
      return invalidArgument("--schedule '" + schedule + "': which kernel's? It must begin with " + names);
    }
    auto whole = scheduleText("--schedule", schedule, p->schedule());
    if (!whole)
      return whole.status();
    text = *whole;
  } else if (!text.empty()) {
    auto whole = scheduleText("--schedule", schedule, "");
    if (!whole)
      return whole.status();
    text = *whole;
  }
  FLASHPLUS_RETURN_IF_ERROR(plan(text));
  if (size_t bytes = flashplus_plan_workspace(p->plan_.get())) {
    auto memory = DeviceMemory::make(context_, device_, bytes);
    if (!memory)
      return memory.status();
    p->workspace_ = std::move(*memory);
    const std::vector<char> zeros(std::min<size_t>(bytes, FLASHPLUS_WORKSPACE_ZEROED));
    FLASHPLUS_RETURN_IF_ERROR(libraryStatus(
        flashplus_copy_to_device(context_, device_, p->workspace_.get(), zeros.data(), zeros.size())));
  }
  return p;
}

Result<double> Workbench::time(const Prepared &prepared, int calls) const {
  // The launches of a GPU overlap its work, so that one wait at the end is all that is not the kernel's.
  FLASHPLUS_RETURN_IF_ERROR(prepared.settle());
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_synchronize(context_, device_, nullptr)));
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i)
    FLASHPLUS_RETURN_IF_ERROR(prepared.run());
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_synchronize(context_, device_, nullptr)));
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
}

Result<Workbench::Calls> Workbench::calibrate(const Prepared &prepared, double milliseconds) const {
  if (auto first = time(prepared, 1); !first)
    return first.status();
  double least = std::numeric_limits<double>::infinity(); // one stall would make rounds of too few calls
  int runs = 0;
  for (int calls : {1, 1, 4, 4}) {
    const auto once = time(prepared, calls);
    if (!once)
      return once.status();
    least = std::min(least, *once);
    if (++runs > 1 && calls * least > milliseconds / 1000)
      break;
  }
  const int count = static_cast<int>(std::clamp(milliseconds / 1000 / std::max(least, 1e-7), 1.0, 100000.0));
  return Calls{count, count * least};
}

} // namespace flashplus::tool
