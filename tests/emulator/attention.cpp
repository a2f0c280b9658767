// SPDX-License-Identifier: BSD-3-Clause
#include "tests/emulator/attention.h"

#include "emulator/core/tensor_map.h"
#include "reference/numeric.h"
#include "runtime/kernels/compiler_library.h"
#include "runtime/environment.h"
#include "tests/emulator/cases.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>

namespace flashplus::emu::test {

Target targetOf(const Shape &s) {
  return s.isa == Isa::Sm90a ? Target{Isa::Sm90a, 90} : Target{Isa::Sm80, 80};
}

static ScoreExpr scoreOf(const Shape &s) { return *ScoreExpr::parse(s.score); }

KernelSpec specOf(const Shape &s) {
  KernelSpec spec;
  spec.dtype = s.dtype;
  spec.head_dim_qk = s.dqk;
  spec.head_dim_v = s.dv;
  spec.bounded_left = s.window_left >= 0;
  spec.bounded_right = s.window_right >= 0;
  spec.alignment = s.unaligned || s.dqk % 8 || s.dv % 8 ? 2 : 16;
  spec.score = scoreOf(s);
  if (s.page_size)
    spec.keys = KeyAddressing::Paged;
  return spec;
}

static int64_t sum(const std::vector<int32_t> &v) {
  int64_t n = 0;
  for (int32_t x : v)
    n += x;
  return n;
}
static int64_t most(const std::vector<int32_t> &v) {
  int64_t n = 0;
  for (int32_t x : v)
    n = std::max<int64_t>(n, x);
  return n;
}
std::vector<int32_t> cumulative(const std::vector<int32_t> &v) {
  std::vector<int32_t> cu{0};
  for (int32_t x : v)
    cu.push_back(cu.back() + x);
  return cu;
}

Bounds boundsOf(const Shape &s) {
  Bounds b;
  const bool ragged = !s.lengths_q.empty();
  b.batch = ragged ? int64_t(s.lengths_q.size()) : s.batch;
  b.max_seqlen_q = ragged ? most(s.lengths_q) : s.seqlen_q;
  b.max_seqlen_k = ragged ? most(s.lengths_k) : s.seqlen_k;
  b.total_q = ragged ? sum(s.lengths_q) : s.batch * s.seqlen_q;
  b.heads_q = s.heads_q;
  b.heads_k = s.heads_k;
  b.window_left = s.window_left;
  b.window_right = s.window_right;
  if (s.page_size)
    b.key_run = keyRun(int32_t(s.page_size), int32_t(s.seqlen_k), /*leftpad=*/false);
  return b;
}

namespace {

/// Device memory of one tensor.
struct Buffer {
  uint8_t *data = nullptr;
  size_t bytes = 0;
};

} // namespace

std::string Outcome::text() const {
  if (!error.empty())
    return error;
  if (!stray.empty())
    return stray;
  return "error " + std::to_string(comparison.error) + " (allowed " + std::to_string(comparison.bound) +
         "), of lse " + std::to_string(comparison.lse_error) + " (allowed " +
         std::to_string(comparison.lse_bound) + "), row " + std::to_string(comparison.worst_row) + " head " +
         std::to_string(comparison.worst_head);
}

Compiled compile(const Shape &shape) {
  static CompilerLibrary compiler(Environment::read().compiler, "", "");
  Compiled out;
  const Target target = targetOf(shape);
  DeviceProfile profile = offlineProfile(target);
  profile.multiprocessors = shape.multiprocessors;
  PlanOptions options;
  options.num_splits = shape.num_splits;
  auto plan = planForward(specOf(shape), boundsOf(shape), profile, options);
  if (!plan) {
    out.error = plan.status().message();
    return out;
  }
  out.plan = std::move(*plan);
  if (!shape.schedule.empty()) {
    PlanStep &step = out.plan.steps[0];
    step.schedule = completeSchedule(*Schedule::parse(shape.schedule));
    auto launch = launchSchema(step.spec, step.schedule, target);
    if (!launch) {
      out.error = launch.status().message();
      return out;
    }
    step.launch = *launch;
    step.item.rows = itemTraits(step.schedule).rows;
  }
  for (const PlanStep &step : out.plan.steps) {
    auto artifact = compiler.compilePtx(step.spec.text(), step.schedule.text(), target.text());
    if (!artifact) {
      out.error = artifact.status().message();
      return out;
    }
    out.ptx.emplace_back(artifact->artifact.code.begin(), artifact->artifact.code.end());
  }
  return out;
}

Outcome runAttention(const Shape &s, const Compiled &compiled, const Options &options) {
  Outcome out;
  out.error = compiled.error;
  if (!out.error.empty())
    return out;
  const Plan &plan = compiled.plan;
  std::vector<std::shared_ptr<const Program>> programs;
  for (size_t i = 0; i < compiled.ptx.size(); ++i) {
    auto program = loadProgram(compiled.ptx[i], plan.steps[i].launch.entry);
    if (!program) {
      out.error = program.status().message();
      return out;
    }
    programs.push_back(*program);
  }

  // --- memory ---
  GlobalMemory memory;
  const Bounds b = boundsOf(s);
  const bool ragged = !s.lengths_q.empty();
  const int64_t rows_q = b.total_q, rows_k = ragged ? sum(s.lengths_k) : s.batch * s.seqlen_k;
  const size_t shift = s.unaligned ? 2 : 0;
  auto allocate = [&](size_t bytes) -> Buffer {
    return {static_cast<uint8_t *>(memory.allocate(bytes)), bytes};
  };
  auto address = [](const void *p) { return reinterpret_cast<uint64_t>(p); };
  // Host copies hold everything (the reference never looks at rows out of use); the device has only rows in
  // use.
  Random random(7);
  auto fill = [&](int64_t rows, int64_t heads, int dim) {
    std::vector<uint16_t> v(size_t(rows * heads * dim));
    for (uint16_t &x : v) {
      float f = 0; // about normal
      for (int i = 0; i < 4; ++i)
        f += float(random.below(65536)) / 32768.0f - 1.0f;
      x = s.dtype == DType::F16 ? reference::floatToFp16(f) : reference::floatToBf16(f);
    }
    return v;
  };
  const auto host_q = fill(rows_q, s.heads_q, s.dqk), host_k = fill(rows_k, s.heads_k, s.dqk),
             host_v = fill(rows_k, s.heads_k, s.dv);
  const auto cu_q = cumulative(s.lengths_q), cu_k = cumulative(s.lengths_k);
  auto inUse = [&](bool query, int64_t row) {
    const auto &cu = query ? cu_q : cu_k;
    const auto &used = query ? s.used_q : s.used_k;
    int64_t batch = 0, first = 0;
    if (ragged) {
      while (row >= cu[size_t(batch) + 1])
        ++batch;
      first = cu[size_t(batch)];
    } else {
      batch = row / (query ? s.seqlen_q : s.seqlen_k);
      first = batch * (query ? s.seqlen_q : s.seqlen_k);
    }
    return used.empty() || row - first < used[size_t(batch)];
  };
  auto upload = [&](const std::vector<uint16_t> &host, bool query, int64_t rows, size_t row_bytes) {
    Buffer buffer = allocate(host.size() * 2 + shift);
    for (int64_t row = 0; row < rows; ++row)
      if (inUse(query, row))
        (void)memory.write(address(buffer.data) + shift + size_t(row) * row_bytes,
                           reinterpret_cast<const uint8_t *>(host.data()) + size_t(row) * row_bytes,
                           row_bytes);
    return buffer;
  };
  const Buffer q = upload(host_q, true, rows_q, size_t(s.heads_q * s.dqk) * 2);
  const Buffer k = upload(host_k, false, rows_k, size_t(s.heads_k * s.dqk) * 2);
  const Buffer v = upload(host_v, false, rows_k, size_t(s.heads_k * s.dv) * 2);
  const Buffer o = allocate(size_t(rows_q * s.heads_q * s.dv) * 2 + shift),
               lse = allocate(size_t(rows_q * s.heads_q) * 4);
  const Buffer counter = allocate(8);
  const uint64_t zero = 0;
  (void)memory.write(address(counter.data), &zero, 8);
  auto integers = [&](const std::vector<int32_t> &values) -> void * {
    if (values.empty())
      return nullptr;
    void *p = memory.allocate(values.size() * 4);
    (void)memory.write(address(p), values.data(), values.size() * 4);
    return p;
  };

  // --- parameters ---
  ForwardParams p;
  p.q = q.data + shift, p.k = k.data + shift, p.v = v.data + shift, p.o = o.data + shift;
  p.lse = lse.data;
  if (ragged)
    p.cu_seqlens_q = integers(cu_q), p.cu_seqlens_k = integers(cu_k);
  p.seqused_q = integers(s.used_q);
  p.seqused_k = integers(s.used_k);
  p.tile_counter = counter.data;
  p.q_stride_s = s.heads_q * s.dqk, p.q_stride_h = s.dqk,
  p.q_stride_b = ragged ? 0 : s.seqlen_q * p.q_stride_s;
  p.k_stride_s = s.heads_k * s.dqk, p.k_stride_h = s.dqk,
  p.k_stride_b = ragged ? 0 : s.seqlen_k * p.k_stride_s;
  p.v_stride_s = s.heads_k * s.dv, p.v_stride_h = s.dv, p.v_stride_b = ragged ? 0 : s.seqlen_k * p.v_stride_s;
  p.o_stride_s = s.heads_q * s.dv, p.o_stride_h = s.dv, p.o_stride_b = ragged ? 0 : s.seqlen_q * p.o_stride_s;
  if (s.page_size) { // the same memory as a pool, and its pages in order
    const PageDivisor divisor = PageDivisor::of(int32_t(s.page_size));
    p.page_size = divisor.page_size, p.page_multiplier = divisor.multiplier, p.page_shift = divisor.shift;
    std::vector<int32_t> table(size_t(rows_k / s.page_size));
    std::iota(table.begin(), table.end(), 0);
    p.page_table = integers(table);
    p.page_table_stride = s.seqlen_k / s.page_size;
    p.k_stride_b = s.page_size * p.k_stride_s, p.v_stride_b = s.page_size * p.v_stride_s;
  }
  p.lse_stride_h = ragged ? rows_q : s.seqlen_q;
  p.lse_stride_b = ragged ? 0 : s.heads_q * s.seqlen_q;
  p.rows_q = rows_q;
  p.rows_k = rows_k;
  p.batch = int32_t(b.batch);
  p.seqlen_q = int32_t(b.max_seqlen_q), p.seqlen_k = int32_t(b.max_seqlen_k);
  p.heads_q = int32_t(s.heads_q), p.heads_k = int32_t(s.heads_k);
  p.window_left = s.window_left, p.window_right = s.window_right;
  p.softmax_scale = 1.0f / std::sqrt(float(s.dqk));
  p.lse_empty = INFINITY;
  const ItemShape &shares = plan.steps[0].item;
  const Geometry geometry = geometryOf(shares, b);
  p.num_m_tiles = int32_t(geometry.tiles);
  p.num_splits = shares.num_splits;
  p.num_work_items = int32_t(geometry.items);
  p.heads_per_section = shares.heads_per_section;
  if (plan.workspace_bytes) { // one allocation, as the caller's: its parts are not apart
    uint8_t *workspace = allocate(size_t(plan.workspace_bytes)).data;
    if (plan.zeroed_bytes) {
      const std::vector<uint8_t> zeros(size_t(plan.zeroed_bytes));
      (void)memory.write(address(workspace), zeros.data(), zeros.size());
      p.work_counter = workspace;
    }
    p.partial_o = workspace + plan.parts[kPartialO].offset;
    p.partial_lse = workspace + plan.parts[kPartialLse].offset;
  }
  CombineParams c;
  c.partial_o = p.partial_o, c.partial_lse = p.partial_lse, c.o = p.o, c.lse = p.lse;
  c.cu_seqlens_q = p.cu_seqlens_q, c.seqused_q = p.seqused_q;
  c.o_stride_b = p.o_stride_b, c.o_stride_s = p.o_stride_s, c.o_stride_h = p.o_stride_h;
  c.lse_stride_b = p.lse_stride_b, c.lse_stride_h = p.lse_stride_h;
  c.rows_q = p.rows_q, c.batch = p.batch, c.seqlen_q = p.seqlen_q, c.heads_q = p.heads_q;
  c.num_splits = p.num_splits, c.lse_empty = p.lse_empty;

  // --- run ---
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < programs.size(); ++i) {
    const PlanStep &step = plan.steps[i];
    LaunchConfig config;
    const Geometry own = geometryOf(step.item, b);
    int64_t items = own.items;
    // a kernel may take less
    config.params = {reinterpret_cast<const uint8_t *>(&p), size_t(step.launch.params_size)};
    if (step.spec.op == Operation::Combine) {
      c.num_row_blocks = int32_t(own.tiles);
      config.params = {reinterpret_cast<const uint8_t *>(&c), size_t(step.launch.params_size)};
    }
    if (items == 0)
      continue;
    std::vector<uint8_t> block(config.params.begin(), config.params.end());
    for (const TensorMap &map : step.launch.tensor_maps) {
      const bool is_q = map.operand == flashplus::Operand::Q, is_v = map.operand == flashplus::Operand::V;
      TensorMapContents m;
      m.rank = 4;
      m.swizzle_bytes = 128;
      m.address = address(is_q ? p.q : is_v ? p.v : p.k);
      const int64_t length = is_q ? s.seqlen_q : s.seqlen_k, rows = is_q ? rows_q : rows_k;
      m.extent[0] = uint64_t(is_v ? s.dv : s.dqk);
      m.extent[1] = uint64_t(ragged ? rows : length);
      m.extent[2] = uint64_t(is_q ? s.heads_q : s.heads_k);
      m.extent[3] = uint64_t(ragged ? 1 : b.batch);
      m.stride[0] = uint64_t(2 * (is_q ? p.q_stride_s : is_v ? p.v_stride_s : p.k_stride_s));
      m.stride[1] = uint64_t(2 * (is_q ? p.q_stride_h : is_v ? p.v_stride_h : p.k_stride_h));
      m.stride[2] = uint64_t(2 * (is_q ? p.q_stride_b : is_v ? p.v_stride_b : p.k_stride_b));
      if (s.page_size && !is_q)
        m.extent[1] = uint64_t(s.page_size), m.extent[3] = uint64_t(rows_k / s.page_size);
      m.box[0] = uint32_t(map.box_columns);
      m.box[1] = uint32_t(is_q ? map.box_rows : boxRows(map.box_rows, b.key_run));
      m.box[2] = m.box[3] = 1;
      const size_t at = (block.size() + 63) / 64 * 64;
      block.resize(at + kTensorMapBytes);
      std::memcpy(block.data() + at, &m, sizeof m);
    }
    config.params = block;
    if (step.launch.blocks_per_sm) // few blocks, so that each has several items
      items = std::min<int64_t>(items, 3);
    config.grid = {uint32_t(items), 1, 1};
    config.block = {uint32_t(step.launch.threads), 1, 1};
    config.dynamic_shared = uint32_t(step.launch.shared_memory);
    Options with = options;
    with.shared_limit = uint32_t(targetOf(s).sharedMemoryPerBlock());
    LaunchResult result = launch(*programs[i], memory, config, with);
    if (result.fault) {
      out.error = result.fault->text();
      out.fault = std::move(result.fault);
      return out;
    }
  }
  out.emulated_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();

  // --- judge ---
  reference::Problem r;
  r.dtype = s.dtype;
  r.batch = b.batch;
  r.seqlen_q = s.seqlen_q, r.seqlen_k = s.seqlen_k, r.total_q = rows_q;
  r.heads_q = s.heads_q, r.heads_k = s.heads_k, r.head_dim_qk = s.dqk, r.head_dim_v = s.dv;
  r.q = host_q.data(), r.k = host_k.data(), r.v = host_v.data();
  r.q_strides = {p.q_stride_b, p.q_stride_s, p.q_stride_h};
  const int64_t pages = s.page_size ? s.seqlen_k / s.page_size : 1; // of a batch entry
  r.k_strides = {pages * p.k_stride_b, p.k_stride_s, p.k_stride_h};
  r.v_strides = {pages * p.v_stride_b, p.v_stride_s, p.v_stride_h};
  if (ragged)
    r.cu_seqlens_q = cu_q.data(), r.cu_seqlens_k = cu_k.data();
  r.seqused_q = s.used_q.empty() ? nullptr : s.used_q.data();
  r.seqused_k = s.used_k.empty() ? nullptr : s.used_k.data();
  r.window_left = s.window_left, r.window_right = s.window_right;
  r.softmax_scale = p.softmax_scale;
  r.lse_empty = p.lse_empty;
  r.score = scoreOf(s);
  reference::Actual actual;
  const GlobalMemory::Allocation *written_o = memory.find(address(o.data), 1),
                                 *written_lse = memory.find(address(lse.data), 1);
  for (int64_t row = 0; row < rows_q; ++row)
    for (int64_t h = 0; h < s.heads_q; ++h) {
      const bool valid = inUse(true, row);
      for (int d = 0; d < s.dv; ++d) {
        const uint64_t at = address(o.data) + shift + size_t((row * s.heads_q + h) * s.dv + d) * 2;
        if (bool(*written_o->shadow(at)) != valid && out.stray.empty())
          out.stray = "o of row " + std::to_string(row) + ", head " + std::to_string(h) + ", column " +
                      std::to_string(d) +
                      (valid ? " was not written" : " was written though the row is not in use");
        uint16_t bits;
        std::memcpy(&bits, o.data + (at - address(o.data)), 2);
        actual.o.push_back(s.dtype == DType::F16 ? reference::fp16ToFloat(bits)
                                                 : reference::bf16ToFloat(bits));
      }
      const int64_t batch_row = ragged ? row : row % s.seqlen_q, batch = ragged ? 0 : row / s.seqlen_q;
      const size_t at = size_t(batch * p.lse_stride_b + h * p.lse_stride_h + batch_row) * 4;
      if (bool(*written_lse->shadow(address(lse.data) + at)) != valid && out.stray.empty())
        out.stray = "lse of row " + std::to_string(row) + ", head " + std::to_string(h) +
                    (valid ? " was not written" : " was written though the row is not in use");
      float value;
      std::memcpy(&value, lse.data + at, 4);
      actual.lse.push_back(value);
    }
  if (rows_q)
    out.comparison = reference::compare(r, actual, 1);
  return out;
}

} // namespace flashplus::emu::test
