// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/core/cluster.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

namespace flashplus::emu {

const char *opClassName(OpClass c) {
  constexpr const char *kNames[kOpClasses] = {
      "control",     "integer",      "float",       "special function", "convert",        "move",
      "global load", "global store", "shared load", "shared store",     "parameter load", "local memory",
      "async copy",  "matrix",       "wgmma",       "barrier",          "lane exchange",  "atomic",
      "other"};
  return kNames[size_t(c)];
}

void Statistics::add(const Statistics &o) {
  by_pc.resize(std::max(by_pc.size(), o.by_pc.size()));
  for (size_t i = 0; i < o.by_pc.size(); ++i) {
    by_pc[i].warps += o.by_pc[i].warps;
    by_pc[i].lanes += o.by_pc[i].lanes;
    by_pc[i].wavefronts += o.by_pc[i].wavefronts;
    by_pc[i].conflicts += o.by_pc[i].conflicts;
  }
  global_read += o.global_read;
  global_written += o.global_written;
  global_sectors_read += o.global_sectors_read;
  global_sectors_written += o.global_sectors_written;
  shared_read += o.shared_read;
  shared_written += o.shared_written;
  ctas += o.ctas;
}

namespace {

std::string dims(const uint32_t *d) {
  return "(" + std::to_string(d[0]) + ", " + std::to_string(d[1]) + ", " + std::to_string(d[2]) + ")";
}

std::optional<Fault> checkLaunch(const Program &p, const LaunchConfig &c, const Options &o) {
  auto refuse = [&](FaultKind kind, std::string message) {
    Fault f;
    f.kind = kind;
    f.message = std::move(message);
    f.where.line = p.code.empty() ? 0 : p.code.front().at.line;
    return f;
  };
  const uint64_t threads = uint64_t(c.block[0]) * c.block[1] * c.block[2];
  if (threads == 0 || threads > 1024)
    return refuse(FaultKind::Launch, "a block of " + dims(c.block.data()) + " threads; it must be 1 to 1024");
  if (p.required_threads[0] && !std::equal(c.block.begin(), c.block.end(), p.required_threads))
    return refuse(FaultKind::Launch, "a block of " + dims(c.block.data()) + " threads; the entry requires " +
                                         dims(p.required_threads));
  if (p.max_threads[0] && threads > uint64_t(p.max_threads[0]) * p.max_threads[1] * p.max_threads[2])
    return refuse(FaultKind::Launch, "a block of " + std::to_string(threads) + " threads; the entry allows " +
                                         dims(p.max_threads));
  if (c.grid[0] == 0 || c.grid[1] == 0 || c.grid[2] == 0 || c.grid[1] > 65535 || c.grid[2] > 65535 ||
      c.grid[0] > 0x7fffffff)
    return refuse(FaultKind::Launch, "a grid of " + dims(c.grid.data()) + " blocks");
  const std::array<uint32_t, 3> cluster = Cluster::shapeOf(p, c);
  if (p.explicit_cluster && !std::equal(cluster.begin(), cluster.end(), p.cluster))
    return refuse(FaultKind::Launch,
                  "clusters of " + dims(cluster.data()) + " CTAs; the entry requires " + dims(p.cluster));
  if (std::max({cluster[0], cluster[1], cluster[2]}) > 8 || cluster[0] * cluster[1] * cluster[2] > 8)
    return refuse(FaultKind::Launch, "clusters of " + dims(cluster.data()) + " CTAs; at most 8 are portable");
  for (size_t axis = 0; axis < 3; ++axis)
    if (cluster[axis] == 0 || c.grid[axis] % cluster[axis])
      return refuse(FaultKind::Launch, "a grid of " + dims(c.grid.data()) +
                                           " blocks is no multiple of clusters of " + dims(cluster.data()));
  if (c.params.size() != p.param_bytes)
    return refuse(FaultKind::Launch, std::to_string(c.params.size()) +
                                         " bytes of parameters; the entry takes " +
                                         std::to_string(p.param_bytes));
  const uint64_t shared = p.dynamic_shared_offset + c.dynamic_shared;
  if (shared > o.shared_limit)
    return refuse(FaultKind::SharedMemory, std::to_string(shared) +
                                               " bytes of shared memory; a block may use " +
                                               std::to_string(o.shared_limit));
  return std::nullopt;
}

} // namespace

LaunchResult launch(const Program &program, GlobalMemory &memory, const LaunchConfig &config,
                    const Options &options) {
  LaunchResult result;
  result.fault = checkLaunch(program, config, options);
  result.statistics.by_pc.resize(program.code.size());
  if (result.fault)
    return result;
  const std::array<uint32_t, 3> shape = Cluster::shapeOf(program, config);
  const uint64_t clusters =
      uint64_t(config.grid[0] / shape[0]) * (config.grid[1] / shape[1]) * (config.grid[2] / shape[2]);
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  uint64_t faulty = UINT64_MAX; // the fault of the first cluster is reported, whatever the order
  auto work = [&] {
    Statistics statistics;
    statistics.by_pc.resize(program.code.size());
    Cluster cluster(program, memory, config, options, statistics);
    for (uint64_t index; (index = next++) < clusters;) {
      if (auto fault = cluster.run(index)) {
        std::lock_guard lock(mutex);
        if (index < faulty) {
          faulty = index;
          result.fault = std::move(fault);
        }
        next = clusters;
      }
    }
    std::lock_guard lock(mutex);
    result.statistics.add(statistics);
  };
  std::vector<std::thread> helpers;
  const uint64_t threads = std::min<uint64_t>(clusters, uint64_t(std::max(options.threads, 1)));
  for (uint64_t i = 1; i < threads; ++i)
    helpers.emplace_back(work);
  work();
  for (std::thread &t : helpers)
    t.join();
  return result;
}

} // namespace flashplus::emu
