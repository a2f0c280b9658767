// SPDX-License-Identifier: BSD-3-Clause
// The emulator as a device of the runtime. Device memory is host memory with shadow state; launches run at
// once and a fault is the launch's error.
#include "emulator/core/tensor_map.h"
#include "emulator/flashplus_emulator.h"
#include "emulator/report.h"
#include "runtime/devices/emulator/emulator_library.h"

#include "build_id.h"

#include <cstdio>
#include <mutex>

namespace flashplus {
namespace {

/// Settings and records, shared by all devices of the process.
struct Shared {
  std::mutex mutex;
  emu::Options options;
  bool record = false;
  nlohmann::ordered_json launches = nlohmann::ordered_json::array();
  std::string text;
};
Shared &shared() {
  static Shared *s = new Shared; // outlives every device, whatever the order of destruction
  return *s;
}

struct EmulatorKernel final : LoadedKernel {
  std::shared_ptr<const emu::Program> program;
  LaunchSchema schema;
};

class EmulatorDevice final : public Device {
public:
  EmulatorDevice(int number, int threads) : number_(number), threads_(threads) {
    // An A100's and an H100's figures, so that plans are those of a GPU.
    const bool hopper = number == 1;
    profile_.target = hopper ? Target{Isa::Sm90a, 90} : Target{Isa::Sm80, 80};
    profile_.multiprocessors = hopper ? 132 : 108;
    profile_.shared_memory_per_block = profile_.target.sharedMemoryPerBlock();
    profile_.shared_memory_per_sm = profile_.shared_memory_per_block + 1024;
  }

  DLDevice id() const override { return {kDLExtDev, number_}; }
  std::string name() const override { return number_ ? "emulator:" + std::to_string(number_) : "emulator"; }
  std::string detail() const override {
    return "PTX emulator on " + std::to_string(threads_) + (threads_ == 1 ? " thread" : " threads");
  }
  const DeviceProfile &profile() const override { return profile_; }
  bool takesPtx() const override { return true; }

  Result<std::unique_ptr<LoadedKernel>> load(const Artifact &artifact) override {
    if (artifact.kind != CodeKind::Ptx)
      return Status(StatusCode::CompileFailed, "the artifact holds no PTX");
    auto program =
        emu::loadProgram(std::string(artifact.code.begin(), artifact.code.end()), artifact.launch.entry);
    if (!program)
      return Status(StatusCode::CompileFailed,
                    "the emulator does not take the PTX: " + program.status().message());
    const std::vector<emu::Variable> &entry = (*program)->params;
    if (entry.empty() || int64_t(entry[0].bytes) != artifact.launch.params_size)
      return Status(StatusCode::CompileFailed, "the entry takes " + std::to_string((*program)->param_bytes) +
                                                   " bytes of parameters, its artifact says " +
                                                   std::to_string(artifact.launch.params_size));
    auto kernel = std::make_unique<EmulatorKernel>();
    kernel->program = std::move(*program);
    kernel->schema = artifact.launch;
    return std::unique_ptr<LoadedKernel>(std::move(kernel));
  }

  Status launch(LoadedKernel &loaded, const void *params, const Geometry &geometry,
                std::span<const TensorLayout> tensors, void *) override {
    const auto &kernel = static_cast<EmulatorKernel &>(loaded);
    const LaunchSchema &schema = kernel.schema;
    const int64_t work_items = geometry.items;
    if (work_items <= 0)
      return Status::ok();
    const int64_t blocks =
        schema.blocks_per_sm ? std::min(work_items, int64_t(schema.blocks_per_sm) * profile_.multiprocessors)
                             : work_items;
    // The parameter block: the struct, and the tensor maps behind it.
    const size_t maps_at = (size_t(schema.params_size) + 63) / 64 * 64;
    std::vector<uint8_t> block(schema.tensor_maps.empty()
                                   ? size_t(schema.params_size)
                                   : maps_at + schema.tensor_maps.size() * kTensorMapBytes);
    std::memcpy(block.data(), params, size_t(schema.params_size));
    for (size_t i = 0; i < schema.tensor_maps.size(); ++i) {
      const TensorMap &map = schema.tensor_maps[i];
      if (size_t(map.operand) >= tensors.size())
        return {StatusCode::Internal,
                "the kernel wants a tensor map of operand " + std::to_string(size_t(map.operand))};
      const emu::TensorMapContents contents = contentsOf(map, tensors[size_t(map.operand)]);
      std::memcpy(block.data() + maps_at + i * kTensorMapBytes, &contents, sizeof contents);
    }
    emu::LaunchConfig config;
    config.grid = {uint32_t(std::min<int64_t>(blocks, UINT32_MAX)), 1, 1};
    config.block = {uint32_t(schema.threads), 1, 1};
    config.dynamic_shared = uint32_t(schema.shared_memory);
    config.params = block;
    emu::Options options;
    bool record;
    {
      std::lock_guard lock(shared().mutex);
      options = shared().options;
      record = shared().record;
    }
    options.threads = threads_;
    options.shared_limit = uint32_t(profile_.shared_memory_per_block);
    const emu::LaunchResult result = emu::launch(*kernel.program, memory_, config, options);
    if (result.fault)
      return {StatusCode::DeviceError, kernel.program->entry + ": " + result.fault->text()};
    if (record) {
      std::lock_guard lock(shared().mutex);
      shared().launches.push_back(emu::describeLaunch(*kernel.program, config, result.statistics));
    }
    return Status::ok();
  }

  Result<void *> allocate(size_t bytes) override {
    void *memory = memory_.allocate(bytes);
    if (!memory)
      return Status(StatusCode::OutOfMemory,
                    "no " + std::to_string(bytes) + " bytes of host memory for the emulator");
    return memory;
  }
  Status release(void *memory) override {
    return memory_.release(memory) ? Status::ok()
                                   : invalidArgument("memory is no allocation of the emulator");
  }
  Result<void *> allocateAsync(size_t bytes, void *) override { return allocate(bytes); }
  Status releaseAsync(void *memory, void *) override { return release(memory); }
  Status clearAsync(void *memory, size_t bytes, void *) override {
    const std::vector<uint8_t> zeros(bytes);
    return copyToDevice(memory, zeros.data(), bytes);
  }
  Status copyToDevice(void *dst, const void *src, size_t bytes) override {
    return !bytes || memory_.write(reinterpret_cast<uint64_t>(dst), src, bytes)
               ? Status::ok()
               : invalidArgument("dst: " + std::to_string(bytes) +
                                 " bytes are not inside an allocation of the emulator");
  }
  Status copyToHost(void *dst, const void *src, size_t bytes) override {
    return !bytes || memory_.read(reinterpret_cast<uint64_t>(src), dst, bytes)
               ? Status::ok()
               : invalidArgument("src: " + std::to_string(bytes) +
                                 " bytes are not inside an allocation of the emulator");
  }
  Status synchronize(void *) override { return Status::ok(); }

private:
  static emu::TensorMapContents contentsOf(const TensorMap &map, const TensorLayout &t) {
    emu::TensorMapContents c;
    c.rank = 4;
    c.element_bytes = uint8_t(dtypeBytes(t.dtype));
    c.swizzle_bytes = 128;
    c.address = reinterpret_cast<uint64_t>(t.data);
    for (int d = 0; d < 4; ++d)
      c.extent[d] = uint64_t(std::max<int64_t>(t.extent[d], 0));
    for (int d = 0; d < 3; ++d)
      c.stride[d] = uint64_t(t.stride[d]);
    c.box[0] = uint32_t(map.box_columns);
    c.box[1] = uint32_t(boxRows(map.box_rows, t.run));
    c.box[2] = c.box[3] = 1;
    return c;
  }

  const int number_, threads_;
  DeviceProfile profile_;
  emu::GlobalMemory memory_;
};

} // namespace
} // namespace flashplus

using namespace flashplus;

#define FLASHPLUS_EXPORT extern "C" __attribute__((visibility("default")))

FLASHPLUS_EXPORT Device *flashplus_emulator_create_device(const char *build_id, int number, int threads,
                                                          char *why, size_t why_size) {
  auto refuse = [&](const std::string &message) -> Device * {
    std::snprintf(why, why_size, "%s", message.c_str());
    return nullptr;
  };
  if (std::string(build_id) != FLASHPLUS_BUILD_ID)
    return refuse(std::string("it is build " FLASHPLUS_BUILD_ID " and the runtime is build ") + build_id);
  if (number < 0 || number > 1)
    return refuse("emulator number " + std::to_string(number) +
                  " does not exist; there are 0 (sm_80) and 1 (sm_90a)");
  return new EmulatorDevice(number, std::max(threads, 1));
}

FLASHPLUS_EXPORT int flashplus_emulator_configure(const flashplus_emulator_options *o) {
  if (!o || o->struct_size < sizeof *o || o->async < FLASHPLUS_EMULATOR_LATE ||
      o->async > FLASHPLUS_EMULATOR_RANDOM)
    return -1;
  std::lock_guard lock(shared().mutex);
  shared().options = {};
  shared().options.async = emu::AsyncMode(o->async);
  shared().options.seed = o->seed;
  if (o->step_limit)
    shared().options.step_limit = o->step_limit;
  shared().record = o->record != 0;
  return 0;
}

FLASHPLUS_EXPORT const char *flashplus_emulator_report(void) {
  std::lock_guard lock(shared().mutex);
  // PTX text is ASCII; whatever else it holds must not make this throw.
  shared().text = shared().launches.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  shared().launches = nlohmann::ordered_json::array();
  return shared().text.c_str();
}
