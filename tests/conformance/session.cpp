// SPDX-License-Identifier: BSD-3-Clause
#include "tests/conformance/session.h"

#include "tests/soak.h"

#include <doctest/doctest.h>

#include <charconv>
#include <cstdio>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace flashplus::conformance {
namespace {

/// "cpu", or "cuda" or "emulator" and perhaps ":N".
bool parseDevice(const std::string &text, DLDevice &out) {
  if (text == "cpu") {
    out = {kDLCPU, 0};
    return true;
  }
  const std::string kind = text.substr(0, text.find(':'));
  if (kind != "cuda" && kind != "emulator")
    return false;
  out = {kind == "cuda" ? kDLCUDA : kDLExtDev, 0};
  if (kind == text)
    return true;
  const char *end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data() + kind.size() + 1, end, out.device_id);
  return error == std::errc() && at == end && out.device_id >= 0;
}

} // namespace

Session &Session::get() {
  static Session session;
  return session;
}

flashplus_status Session::start(const Options &options, std::string &error) {
  options_ = options;
  if (!parseDevice(options.device, device_)) {
    error = "--device is '" + options.device +
            "'; it must be cpu, cuda[:N], emulator (sm_80) or emulator:1 (sm_90a)";
    return FLASHPLUS_INVALID_ARGUMENT;
  }
  flashplus_context_options context = {.struct_size = sizeof context};
  context.cache_dir = options_.cache_dir.c_str();
  context.num_threads = kThreads;
  context.log = [](void *, const char *message) { std::fprintf(stderr, "flashplus: %s\n", message); };
  flashplus_status status = flashplus_context_create(&context, &context_);
  void *probe = nullptr;
  if (status == FLASHPLUS_OK)
    status = flashplus_device_malloc(context_, device_, 256, &probe);
  if (status == FLASHPLUS_OK)
    status = flashplus_device_free(context_, device_, probe);
  if (status != FLASHPLUS_OK)
    error = flashplus_last_error();
  return status;
}

void Session::stop() {
  flashplus_context_destroy(context_);
  context_ = nullptr;
}

std::vector<DType> Session::dtypes() const {
  if (onCpu())
    return {DType::F16, DType::BF16, DType::F32};
  return {DType::F16, DType::BF16};
}

bool Session::pairsOnly() const {
  if (options_.cases != Options::Cases::Usual)
    return options_.cases == Options::Cases::Pairs;
  return !test::soak() && (device_.device_type == kDLExtDev || onCpu());
}

int Session::rounds(int whole, int least) const {
  return test::soakCount(/*everything=*/!pairsOnly(), whole, least);
}

void Session::record(DType dtype, const reference::Comparison &c, const std::string &name) {
  Tally &tally = tallies_[dtype];
  ++tally.cases;
  tally.rows += c.rows;
  if (c.rows == 0)
    return;
  if (c.error / c.bound > tally.o) {
    tally.o = c.error / c.bound;
    tally.worst = name;
  }
  tally.lse = std::max(tally.lse, c.lse_error / c.lse_bound);
}

void Session::record(DType dtype, const reference::BackwardComparison &c, const std::string &name) {
  BackwardTally &tally = backward_tallies_[dtype];
  ++tally.cases;
  for (const auto &part : c.parts) {
    if (part.rows == 0)
      continue;
    const double ratio = std::max(part.error / part.bound, part.rms / part.rms_bound);
    double &worst = tally.parts[part.name];
    worst = std::max(worst, ratio);
    if (ratio > tally.largest) {
      tally.largest = ratio;
      tally.worst = part.name + " of " + name;
    }
  }
}

void Session::recordRefused(const std::string &message) {
  if (refused_++ == 0)
    refusal_ = message;
}

std::string Session::backwardSummary() const {
  char line[512];
  std::string text;
  for (const auto &[dtype, t] : backward_tallies_) {
    std::snprintf(line, sizeof line, "%-6s %6lld backwards, error/bound",
                  std::string(dtypeName(dtype)).c_str(), static_cast<long long>(t.cases));
    text += line;
    for (const auto &[part, ratio] : t.parts) {
      std::snprintf(line, sizeof line, " %s %.3f", part.c_str(), ratio);
      text += line;
    }
    text += "   " + t.worst + "\n";
  }
  if (refused_)
    text += "backwards skipped because the device refuses them: " + std::to_string(refused_) + " (" +
            refusal_ + ")\n";
  return text;
}

std::string Session::summary() const {
  char line[512];
  std::string text = "\nconformance on " + options_.device + "\n";
  std::snprintf(line, sizeof line, "%-6s %6s %10s %16s %16s   %s\n", "dtype", "cases", "rows",
                "o error/bound", "lse error/bound", "where o is worst");
  text += line;
  for (const auto &[dtype, t] : tallies_) {
    std::snprintf(line, sizeof line, "%-6s %6lld %10lld %16.3f %16.3f   %s\n",
                  std::string(dtypeName(dtype)).c_str(), static_cast<long long>(t.cases),
                  static_cast<long long>(t.rows), t.o, t.lse, t.worst.c_str());
    text += line;
  }
  text += backwardSummary();
  if (pairsOnly()) {
    std::snprintf(line, sizeof line, "pairs only: %zu more cases with --cases all\n", left_out_);
    text += line;
  }
  flashplus_counters counters = {.struct_size = sizeof counters};
  if (flashplus_get_counters(context_, &counters) == FLASHPLUS_OK) {
    std::snprintf(line, sizeof line, "kernels compiled: %lld in %.1f s of compiling, found on disk: %lld\n",
                  static_cast<long long>(counters.compiles), counters.compile_ms / 1e3,
                  static_cast<long long>(counters.disk_hits));
    text += line;
  }
  return text;
}

DeviceBuffer::DeviceBuffer(size_t bytes) : size_(bytes) {
  const Session &s = Session::get();
  if (bytes)
    require(flashplus_device_malloc(s.context(), s.device(), bytes, &data_), "flashplus_device_malloc");
}
DeviceBuffer::DeviceBuffer(const std::vector<std::byte> &content) : DeviceBuffer(content.size()) {
  write(content);
}
DeviceBuffer::DeviceBuffer(DeviceBuffer &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)),
      pages_(std::exchange(other.pages_, nullptr)), pages_size_(std::exchange(other.pages_size_, 0)) {}
DeviceBuffer &DeviceBuffer::operator=(DeviceBuffer &&other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(pages_, other.pages_);
  std::swap(pages_size_, other.pages_size_);
  return *this;
}
DeviceBuffer::~DeviceBuffer() {
  const Session &s = Session::get();
  if (pages_)
    munmap(pages_, pages_size_);
  else if (data_)
    (void)flashplus_device_free(s.context(), s.device(), data_);
}

DeviceBuffer DeviceBuffer::guarded(const std::vector<std::byte> &content, bool at_start) {
  if (!Session::get().onCpu() || content.empty())
    return DeviceBuffer(content);
  const size_t page = size_t(sysconf(_SC_PAGESIZE)), inside = (content.size() + page - 1) / page * page;
  DeviceBuffer buffer;
  buffer.pages_size_ = inside + 2 * page;
  buffer.pages_ = mmap(nullptr, buffer.pages_size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(buffer.pages_ != MAP_FAILED);
  std::byte *first = static_cast<std::byte *>(buffer.pages_) + page;
  REQUIRE(mprotect(first, inside, PROT_READ | PROT_WRITE) == 0);
  buffer.data_ = at_start ? first : first + (inside - content.size());
  buffer.size_ = content.size();
  buffer.write(content);
  return buffer;
}

void DeviceBuffer::write(const std::vector<std::byte> &content) {
  const Session &s = Session::get();
  if (!content.empty())
    require(flashplus_copy_to_device(s.context(), s.device(), data_, content.data(), content.size()),
            "flashplus_copy_to_device");
}

std::vector<std::byte> DeviceBuffer::read() const {
  const Session &s = Session::get();
  std::vector<std::byte> content(size_);
  if (size_)
    require(flashplus_copy_to_host(s.context(), s.device(), content.data(), data_, size_),
            "flashplus_copy_to_host");
  return content;
}

void require(flashplus_status status, const std::string &what) {
  REQUIRE_MESSAGE(status == FLASHPLUS_OK, what << ": " << std::string(flashplus_status_name(status)) << ": "
                                               << std::string(flashplus_last_error()));
}

} // namespace flashplus::conformance
