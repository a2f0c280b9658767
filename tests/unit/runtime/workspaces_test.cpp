// SPDX-License-Identifier: BSD-3-Clause
// Memory that streams keep: who shares it, who does not, and that it goes back.
#include "runtime/plans/workspaces.h"

#include "tests/unit/cache/children.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <doctest/doctest.h>
#include <set>
#include <thread>
#include <vector>

using namespace flashplus;

namespace {

/// Streams are numbers; a capture on one is under way if `capture` is not 0.
struct StreamDevice final : Device {
  DLDevice id() const override { return {kDLCUDA, 0}; }
  std::string name() const override { return "streams"; }
  std::string detail() const override { return ""; }
  const DeviceProfile &profile() const override { return profile_; }
  Result<std::unique_ptr<LoadedKernel>> load(const Artifact &) override {
    return std::make_unique<LoadedKernel>();
  }
  Status launch(LoadedKernel &, const void *, const Geometry &, std::span<const TensorLayout>,
                void *) override {
    return Status::ok();
  }
  std::optional<StreamKey> streamKey(void *stream) override {
    if (!tells)
      return std::nullopt;
    return StreamKey{uint64_t(reinterpret_cast<uintptr_t>(stream)), capture};
  }
  Result<void *> allocateZeroed(size_t bytes) override {
    if (full)
      return Status(StatusCode::OutOfMemory, "no memory for a workspace");
    while (stands) {
      asked = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    void *memory = std::aligned_alloc(256, bytes);
    std::lock_guard lock(mutex);
    live.insert(memory);
    allocated.push_back(bytes);
    return memory;
  }
  Status release(void *memory) override {
    std::lock_guard lock(mutex);
    CHECK(live.erase(memory) == 1);
    std::free(memory);
    return Status::ok();
  }
  Result<void *> allocate(size_t) override { return Status(StatusCode::OutOfMemory, "none"); }
  Result<void *> allocateAsync(size_t, void *) override { return Status(StatusCode::OutOfMemory, "none"); }
  Status releaseAsync(void *, void *) override { return Status::ok(); }
  Status clearAsync(void *, size_t, void *) override { return Status::ok(); }
  Status copyToDevice(void *, const void *, size_t) override { return Status::ok(); }
  Status copyToHost(void *, const void *, size_t) override { return Status::ok(); }
  Status synchronize(void *) override { return Status::ok(); }

  DeviceProfile profile_ = offlineProfile({Isa::Sm80, 80});
  std::mutex mutex;
  std::set<void *> live;
  std::vector<size_t> allocated;
  bool tells = true, full = false;
  std::atomic<bool> stands{false}, asked{false}; ///< A driver that takes its time.
  uint64_t capture = 0;
};

void *stream(uintptr_t number) { return reinterpret_cast<void *>(number); }

void *memoryOf(Workspaces &w, Device &device, size_t bytes, size_t zeroed, void *on) {
  auto lease = w.borrow(device, bytes, zeroed, on);
  REQUIRE_MESSAGE(lease.isOk(), lease.status().message());
  return lease->memory();
}

} // namespace

TEST_CASE("a stream keeps its workspace; streams, captures and sizes of counters have their own") {
  StreamDevice device;
  {
    Workspaces w;
    void *first = memoryOf(w, device, 1000, 256, stream(1));
    CHECK(first);
    CHECK(memoryOf(w, device, 1000, 256, stream(1)) == first);
    CHECK(memoryOf(w, device, size_t(1) << 20, 256, stream(1)) == first); // the least that is kept
    CHECK(device.allocated == std::vector<size_t>{size_t(1) << 20});
    CHECK(memoryOf(w, device, 1000, 256, stream(2)) != first);
    CHECK(memoryOf(w, device, 1000, 512, stream(1)) != first);
    device.capture = 7;
    void *captured = memoryOf(w, device, 1000, 256, stream(1));
    CHECK(captured != first);
    device.capture = 8;
    CHECK(memoryOf(w, device, 1000, 256, stream(1)) != captured);
    device.capture = 0;
    CHECK(memoryOf(w, device, 1000, 256, stream(1)) == first);
  }
  CHECK(device.live.empty());
}

TEST_CASE("a larger workspace takes a smaller one's place, which stays: enqueued work may use it") {
  StreamDevice device;
  {
    Workspaces w;
    void *small = memoryOf(w, device, 1000, 0, stream(1));
    void *large = memoryOf(w, device, (size_t(2) << 20) + 1, 0, stream(1));
    CHECK(large != small);
    CHECK(device.allocated.back() == size_t(4) << 20);
    CHECK(device.live.count(small) == 1);
    CHECK(memoryOf(w, device, 1000, 0, stream(1)) == large);
  }
  CHECK(device.live.empty());
}

TEST_CASE("no memory is kept for who needs much, for devices that cannot tell, and beyond the limit") {
  StreamDevice device, other;
  Workspaces w;
  CHECK_FALSE(memoryOf(w, device, Workspaces::kMostBytes + 1, 0, stream(1)));
  CHECK(memoryOf(w, device, Workspaces::kMostBytes, 0, stream(1)));
  device.tells = false;
  CHECK_FALSE(memoryOf(w, device, 1000, 0, stream(1)));
  device.tells = true;
  const size_t least = Workspaces::kMostBytes / 8;
  for (size_t all = Workspaces::kMostBytes + least; all <= Workspaces::kMostInAll; all += least)
    CHECK(memoryOf(w, device, 16, 0, stream(1000 + all / least)));
  CHECK_FALSE(memoryOf(w, device, 16, 0, stream(9000)));
  CHECK_FALSE(memoryOf(w, device, 2 * least, 0, stream(1010))); // nor a larger one for who has one
  CHECK(memoryOf(w, device, 16, 0, stream(1010)));
  CHECK(memoryOf(w, other, 16, 0, stream(9000))); // another device has its own
}

TEST_CASE("a workspace that cannot be had is said, and the next call tries anew") {
  StreamDevice device;
  Workspaces w;
  device.full = true;
  CHECK(w.borrow(device, 1000, 0, stream(1)).status().code() == StatusCode::OutOfMemory);
  device.full = false;
  void *small = memoryOf(w, device, 1000, 0, stream(1));
  device.full = true;
  CHECK_FALSE(w.borrow(device, size_t(4) << 20, 0, stream(1)).isOk());
  CHECK(memoryOf(w, device, 1000, 0, stream(1)) == small);
}

TEST_CASE("launches of one stream do not come in between each other's") {
  StreamDevice device;
  Workspaces w;
  std::atomic<int> inside = 0, most = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        auto lease = w.borrow(device, 1000, 0, stream(1));
        const int now = ++inside;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);)
          ;
        --inside;
      }
    });
  for (std::thread &t : threads)
    t.join();
  CHECK(most == 1);
}

TEST_CASE("threads that want one workspace at once get one") {
  StreamDevice device;
  {
    Workspaces w;
    device.stands = true;
    std::vector<std::thread> threads;
    std::atomic<void *> first{nullptr};
    std::atomic<int> others{0};
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&] {
        auto lease = w.borrow(device, 1000, 0, stream(1));
        void *none = nullptr;
        if (!lease || (!first.compare_exchange_strong(none, lease->memory()) && none != lease->memory()))
          ++others;
      });
    while (!device.asked)
      std::this_thread::yield();
    device.stands = false;
    for (std::thread &thread : threads)
      thread.join();
    CHECK(first.load());
    CHECK(others == 0);
    CHECK(device.allocated.size() == 1);
  }
  CHECK(device.live.empty());
}

TEST_CASE("memory that could not be had is not counted as kept") {
  StreamDevice device;
  Workspaces w;
  device.full = true;
  for (size_t all = 0; all <= 2 * Workspaces::kMostInAll; all += Workspaces::kMostBytes)
    CHECK(!w.borrow(device, Workspaces::kMostBytes, 0, stream(1)));
  device.full = false;
  CHECK(memoryOf(w, device, Workspaces::kMostBytes, 0, stream(1)));
}

#ifndef FLASHPLUS_TSAN // which does not follow fork() from a process with threads
TEST_CASE("a driver that takes its time keeps no lock from a fork") {
  ForkWaits::setMostForTests(std::chrono::milliseconds(50));
  StreamDevice device;
  Workspaces w;
  CHECK(memoryOf(w, device, 1000, 0, stream(1)));
  device.stands = true;
  std::thread waits([&] { (void)w.borrow(device, 1000, 0, stream(2)); });
  while (!device.asked)
    std::this_thread::yield();
  CHECK(test::waitAtMost(test::startChild([&] {
                           auto lease = w.borrow(device, 1000, 0, stream(1));
                           return !isForkBroken() && lease && lease->memory() ? 0 : 1;
                         }),
                         std::chrono::seconds(10)) == 0);
  device.stands = false;
  waits.join();
  ForkWaits::setMostForTests(std::chrono::seconds(ForkWaits::kMostSeconds));
}
#endif
