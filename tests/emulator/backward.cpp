// SPDX-License-Identifier: BSD-3-Clause
#include "tests/emulator/backward.h"

#include "reference/numeric.h"
#include "runtime/environment.h"
#include "runtime/kernels/compiler_library.h"
#include "runtime/plans/tensor_layouts.h"
#include "templates/backward/planner.h"
#include "tests/emulator/cases.h"

#include <cmath>
#include <cstring>
#include <optional>

namespace flashplus::emu::test {
namespace {

uint64_t address(const void *p) { return reinterpret_cast<uint64_t>(p); }

/// A tensor of 16-bit elements on the device.
struct DeviceTensor {
  int64_t rows, heads;
  int dim;
  int64_t stride_b, stride_s, stride_h, length; ///< length: rows of a batch entry; 0 if packed.
  uint8_t *data = nullptr;                      ///< Of element 0.

  uint64_t at(int64_t row, int64_t head) const {
    const int64_t b = length ? row / length : 0, s = length ? row % length : row;
    return address(data) + uint64_t(b * stride_b + s * stride_s + head * stride_h) * 2;
  }
};

class Run {
public:
  Run(const BackwardShape &b, const Compiled &compiled)
      : b_(b), s_(b.shape), compiled_(compiled), ragged_(!s_.lengths_q.empty()), bounds_(boundsOf(s_)) {
    rows_q_ = bounds_.total_q;
    rows_k_ = ragged_ ? cumulative(s_.lengths_k).back() : s_.batch * s_.seqlen_k;
  }

  BackwardOutcome run(const Options &options, const std::function<void(int, BackwardParams &)> &plant) {
    makeInputs();
    expected_ = gradientsOnce();
    upload();
    launchAll(options, plant);
    if (out_.error.empty())
      judge();
    return std::move(out_);
  }

private:
  /// A shape has always the same inputs, and runs once for every mutant of its kernels.
  const Gradients &gradientsOnce() const {
    thread_local std::optional<BackwardShape> last;
    thread_local Gradients known;
    if (last != b_) {
      known = gradients(s_, in_);
      last = b_;
    }
    return known;
  }

  double rounded(double x) const { return reference::roundToStorage(s_.dtype, float(x)); }

  void makeInputs() {
    Random random(7);
    auto normal = [&] {
      float f = 0;
      for (int i = 0; i < 4; ++i)
        f += float(random.below(65536)) / 32768.0f - 1.0f;
      return f;
    };
    auto fill = [&](int64_t rows, int64_t heads, int dim) {
      HostTensor t(rows, heads, dim);
      for (double &x : t.values)
        x = rounded(normal());
      return t;
    };
    in_.q = fill(rows_q_, s_.heads_q, s_.dqk), in_.k = fill(rows_k_, s_.heads_k, s_.dqk);
    if (b_.steep) {
      for (double &x : in_.q.values)
        x = rounded(x - b_.steep);
      for (double &x : in_.k.values)
        x = rounded(1 + x / 16);
    }
    in_.v = fill(rows_k_, s_.heads_k, s_.dv), in_.dout = fill(rows_q_, s_.heads_q, s_.dv);
    if (b_.dlse) {
      in_.dlse = HostTensor(rows_q_, s_.heads_q, 1);
      for (double &x : in_.dlse.values)
        x = normal();
    }
    p_.softmax_scale = 1.0f / std::sqrt(float(s_.dqk));
    in_.scale = p_.softmax_scale;
    makeScore(random);
  }

  /// What the score reads, on the host.
  void makeScore(Random &random) {
    const ScoreExpr score = specOf(s_).score;
    for (size_t i = 0; i < score.scalars.size(); ++i)
      in_.scalars.push_back(float(i) + 1.5f);
    constexpr int64_t kDims[] = {4, 8, 97, 90}; // batch entries, heads, queries or keys, keys
    for (const auto &tensor : score.tensors) {
      reference::AuxTensor t;
      const int first = tensor.rank > 2 ? 4 - tensor.rank : 3 - tensor.rank;
      for (int d = 0; d < tensor.rank; ++d)
        t.shape[size_t(d)] = kDims[first + d];
      int64_t count = 1;
      for (int d = tensor.rank; d-- > 0; count *= t.shape[size_t(d)])
        t.strides[size_t(d)] = count;
      std::vector<float> &data = score_data_.emplace_back(size_t(count));
      for (size_t i = 0; i < data.size(); ++i)
        data[i] = i % 5 == 3 ? 0 : 0.25f + float(random.below(65536)) / 65536;
      t.data = data.data();
      in_.tensors.push_back(t);
    }
  }

  void uploadScore() {
    for (size_t i = 0; i < in_.scalars.size(); ++i)
      p_.scalar[i] = in_.scalars[i];
    for (size_t slot = 0; slot < in_.tensors.size(); ++slot) {
      const std::vector<float> &data = score_data_[slot];
      p_.aux[slot] = memory_.allocate(data.size() * 4);
      (void)memory_.write(address(p_.aux[slot]), data.data(), data.size() * 4);
      for (size_t d = 0; d < kMaxScoreTensorRank; ++d) {
        const size_t at = slot * kMaxScoreTensorRank + d;
        p_.aux_stride[at] = in_.tensors[slot].strides[d];
        p_.aux_last[at] = int32_t(std::max<int64_t>(1, in_.tensors[slot].shape[d]) - 1);
      }
    }
  }

  bool query(Side side) const { return side == Side::Query; }

  DeviceTensor allocate(Side side, int64_t heads, int dim, bool heads_first) {
    const int64_t rows = query(side) ? rows_q_ : rows_k_, dense = query(side) ? s_.seqlen_q : s_.seqlen_k;
    DeviceTensor t{rows, heads, dim, 0, heads * dim, dim, ragged_ ? 0 : dense};
    if (heads_first)
      t.stride_s = dim, t.stride_h = (ragged_ ? rows : dense) * dim;
    t.stride_b = ragged_ ? 0 : dense * heads * dim;
    const size_t shift = s_.unaligned ? 2 : 0;
    t.data = static_cast<uint8_t *>(memory_.allocate(size_t(rows * heads * dim) * 2 + shift)) + shift;
    return t;
  }

  template <class Each> void forRows(Side side, Each each) {
    for (const Rows &r : sequencesOf(s_))
      for (int64_t i = 0; i < (query(side) ? r.q_len : r.k_len); ++i)
        each((query(side) ? r.first_q : r.first_k) + i);
  }

  DeviceTensor upload(Side side, const HostTensor &host, bool heads_first) {
    DeviceTensor t = allocate(side, host.heads, host.dim, heads_first);
    std::vector<uint16_t> row_bits(size_t(host.dim));
    forRows(side, [&](int64_t row) {
      for (int64_t h = 0; h < host.heads; ++h) {
        for (int d = 0; d < host.dim; ++d)
          reference::storeElement(row_bits.data(), s_.dtype, d, float(host.at(row, h)[d]));
        (void)memory_.write(t.at(row, h), row_bits.data(), row_bits.size() * 2);
      }
    });
    return t;
  }

  size_t valueAt(int64_t row, int64_t head) const { // of lse and dlse: (batch, heads, seqlen)
    const int64_t b = ragged_ ? 0 : row / s_.seqlen_q, i = ragged_ ? row : row % s_.seqlen_q;
    return size_t(b * p_.lse_stride_b + head * p_.lse_stride_h + i) * 4;
  }

  void *integers(const std::vector<int32_t> &values) {
    if (values.empty())
      return nullptr;
    void *p = memory_.allocate(values.size() * 4);
    (void)memory_.write(address(p), values.data(), values.size() * 4);
    return p;
  }

  void upload() {
    auto set = [](const DeviceTensor &t, void *&data, int64_t &b, int64_t &s, int64_t &h) {
      data = t.data, b = t.stride_b, s = t.stride_s, h = t.stride_h;
    };
    set(upload(Side::Query, in_.q, false), p_.q, p_.q_stride_b, p_.q_stride_s, p_.q_stride_h);
    set(upload(Side::Key, in_.k, false), p_.k, p_.k_stride_b, p_.k_stride_s, p_.k_stride_h);
    set(upload(Side::Key, in_.v, false), p_.v, p_.v_stride_b, p_.v_stride_s, p_.v_stride_h);
    set(upload(Side::Query, expected_.o, false), p_.o, p_.o_stride_b, p_.o_stride_s, p_.o_stride_h);
    set(upload(Side::Query, in_.dout, true), p_.dout, p_.dout_stride_b, p_.dout_stride_s, p_.dout_stride_h);
    dq_ = allocate(Side::Query, s_.heads_q, s_.dqk, true),
    dk_ = allocate(Side::Key, s_.heads_k, s_.dqk, true);
    dv_ = allocate(Side::Key, s_.heads_k, s_.dv, true);
    set(dq_, p_.dq, p_.dq_stride_b, p_.dq_stride_s, p_.dq_stride_h);
    set(dk_, p_.dk, p_.dk_stride_b, p_.dk_stride_s, p_.dk_stride_h);
    set(dv_, p_.dv, p_.dv_stride_b, p_.dv_stride_s, p_.dv_stride_h);
    p_.lse_stride_h = p_.dlse_stride_h = ragged_ ? rows_q_ : s_.seqlen_q;
    p_.lse_stride_b = p_.dlse_stride_b = ragged_ ? 0 : s_.heads_q * s_.seqlen_q;
    p_.lse = memory_.allocate(size_t(rows_q_ * s_.heads_q) * 4);
    if (b_.dlse)
      p_.dlse = memory_.allocate(size_t(rows_q_ * s_.heads_q) * 4);
    const float garbage[] = {INFINITY, -INFINITY, NAN, 1e30f, -3e38f, 0};
    int next = 0;
    forRows(Side::Query, [&](int64_t row) {
      for (int64_t h = 0; h < s_.heads_q; ++h) {
        float lse = float(expected_.lse.at(row, h)[0]);
        if (std::isinf(lse))
          lse = garbage[next++ % 6];
        (void)memory_.write(address(p_.lse) + valueAt(row, h), &lse, 4);
        if (b_.dlse) {
          const float dlse = float(in_.dlse.at(row, h)[0]);
          (void)memory_.write(address(p_.dlse) + valueAt(row, h), &dlse, 4);
        }
      }
    });
    if (ragged_)
      p_.cu_seqlens_q = integers(cumulative(s_.lengths_q)),
      p_.cu_seqlens_k = integers(cumulative(s_.lengths_k));
    p_.seqused_q = integers(s_.used_q), p_.seqused_k = integers(s_.used_k);
    p_.tile_counter = memory_.allocate(8);
    const uint64_t zero = 0;
    (void)memory_.write(address(p_.tile_counter), &zero, 8);
    auto *workspace = static_cast<uint8_t *>(memory_.allocate(size_t(compiled_.plan.workspace_bytes)));
    p_.row_lse = workspace + compiled_.plan.parts[kRowLse].offset;
    p_.row_delta = workspace + compiled_.plan.parts[kRowDelta].offset;
    if (compiled_.plan.parts[kDQParts].bytes)
      p_.dq_parts = workspace + compiled_.plan.parts[kDQParts].offset, p_.dq_columns = s_.dqk;
    p_.rows_q = rows_q_, p_.rows_k = rows_k_;
    p_.batch = int32_t(bounds_.batch);
    p_.seqlen_q = int32_t(bounds_.max_seqlen_q), p_.seqlen_k = int32_t(bounds_.max_seqlen_k);
    p_.heads_q = int32_t(s_.heads_q), p_.heads_k = int32_t(s_.heads_k);
    p_.window_left = s_.window_left, p_.window_right = s_.window_right;
    uploadScore();
  }

  /// The kernel's params and, behind them, its tensor maps.
  std::vector<uint8_t> paramBlock(const PlanStep &step, const BackwardParams &p) const {
    const auto *bytes = reinterpret_cast<const uint8_t *>(&p);
    std::vector<uint8_t> block(bytes, bytes + step.launch.params_size);
    const auto layouts = tensorLayouts<flashplus::Operand::Q, flashplus::Operand::K, flashplus::Operand::V,
                                       flashplus::Operand::DO>(p, step.spec);
    for (const TensorMap &map : step.launch.tensor_maps) {
      const TensorLayout &t = layouts[size_t(map.operand)];
      TensorMapContents m;
      m.rank = 4;
      m.swizzle_bytes = 128;
      m.address = address(t.data);
      for (int d = 0; d < 4; ++d)
        m.extent[d] = uint64_t(std::max<int64_t>(t.extent[d], 0));
      for (int d = 0; d < 3; ++d)
        m.stride[d] = uint64_t(t.stride[d]);
      m.box[0] = uint32_t(map.box_columns);
      m.box[1] = uint32_t(map.box_rows);
      m.box[2] = m.box[3] = 1;
      const size_t at = (block.size() + 63) / 64 * 64;
      block.resize(at + kTensorMapBytes);
      std::memcpy(block.data() + at, &m, sizeof m);
    }
    return block;
  }

  void launchAll(const Options &options, const std::function<void(int, BackwardParams &)> &plant) {
    for (size_t i = 0; i < compiled_.ptx.size(); ++i) {
      const PlanStep &step = compiled_.plan.steps[i];
      auto program = loadProgram(compiled_.ptx[i], step.launch.entry);
      if (!program) {
        out_.error = program.status().message();
        return;
      }
      const Geometry geometry = geometryOf(step.item, bounds_);
      if (geometry.items == 0)
        continue;
      BackwardParams p = p_;
      p.num_m_tiles = int32_t(geometry.tiles), p.num_work_items = int32_t(geometry.items);
      p.num_splits = step.item.num_splits, p.heads_per_section = step.item.heads_per_section;
      if (plant)
        plant(int(i), p);
      LaunchConfig config;
      const std::vector<uint8_t> block = paramBlock(step, p);
      config.params = block;
      // Of blocks that loop over the items few, so that each has several.
      config.grid = {
          uint32_t(step.launch.blocks_per_sm ? std::min<int64_t>(geometry.items, 3) : geometry.items), 1, 1};
      config.block = {uint32_t(step.launch.threads), 1, 1};
      config.dynamic_shared = uint32_t(step.launch.shared_memory);
      Options with = options;
      with.shared_limit = uint32_t(targetOf(s_).sharedMemoryPerBlock());
      LaunchResult result = launch(**program, memory_, config, with);
      if (result.fault) {
        out_.error = std::string(operationInfo(step.spec.op).name) + ": " + result.fault->text();
        return;
      }
    }
    std::memcpy(&out_.tiles, p_.tile_counter, 8);
  }

  Deviation judge(const char *name, Side side, const DeviceTensor &t, const Expected &expected) {
    std::vector<uint8_t> valid(size_t(t.rows), 0);
    forRows(side, [&](int64_t row) { valid[size_t(row)] = 1; });
    HostTensor actual(t.rows, t.heads, t.dim);
    for (int64_t row = 0; row < t.rows; ++row)
      for (int64_t h = 0; h < t.heads; ++h)
        for (int d = 0; d < t.dim; ++d) {
          const uint64_t at = t.at(row, h) + uint64_t(d) * 2;
          const GlobalMemory::Allocation *a = memory_.find(at, 2);
          const bool written = *a->shadow(at) && *a->shadow(at + 1);
          if (written != bool(valid[size_t(row)]) && out_.stray.empty())
            out_.stray = std::string(name) + " of row " + std::to_string(row) + ", head " +
                         std::to_string(h) + ", column " + std::to_string(d) +
                         (written ? " was written though the row is not in use" : " was not written");
          uint16_t bits = 0;
          std::memcpy(&bits, a->data(at), 2);
          actual.at(row, h)[d] = valid[size_t(row)] ? reference::loadElement(&bits, s_.dtype, 0) : 0;
          out_.bits.push_back(valid[size_t(row)] ? bits : 0);
        }
    return deviation(expected, actual);
  }

  void judge() {
    out_.dq = judge("dq", Side::Query, dq_, expected_.dq);
    out_.dk = judge("dk", Side::Key, dk_, expected_.dk);
    out_.dv = judge("dv", Side::Key, dv_, expected_.dv);
  }

  const BackwardShape &b_;
  const Shape &s_;
  const Compiled &compiled_;
  const bool ragged_;
  const Bounds bounds_;
  int64_t rows_q_, rows_k_;
  GlobalMemory memory_;
  Inputs in_;
  std::vector<std::vector<float>> score_data_;
  Gradients expected_;
  BackwardParams p_;
  DeviceTensor dq_{}, dk_{}, dv_{};
  BackwardOutcome out_;
};

} // namespace

std::string BackwardOutcome::text() const {
  if (!error.empty())
    return error;
  if (!stray.empty())
    return stray;
  std::string text;
  for (auto [name, d] : {std::pair{"dq", dq}, {"dk", dk}, {"dv", dv}})
    text += std::string(text.empty() ? "" : ", ") + name + ": worst " + std::to_string(d.worst) + ", rms " +
            std::to_string(d.rms);
  return text;
}

Compiled compileBackward(const BackwardShape &b) {
  static CompilerLibrary compiler(Environment::read().compiler, "", "");
  Compiled out;
  const Target target = targetOf(b.shape);
  KernelSpec spec = specOf(b.shape);
  spec.op = Operation::Backward;
  PlanOptions options;
  if (!b.whole.empty())
    options.schedule = completeSchedule(*Schedule::parse(b.whole)), options.any_order = true;
  auto plan = planBackward(spec, boundsOf(b.shape), offlineProfile(target), options);
  if (!plan) {
    out.error = plan.status().message();
    return out;
  }
  out.plan = std::move(*plan);
  for (PlanStep &step : out.plan.steps) {
    const std::string &wanted = step.spec.op == Operation::BackwardKV  ? b.kv
                                : step.spec.op == Operation::BackwardQ ? b.q
                                                                       : std::string();
    if (!wanted.empty()) {
      step.schedule = completeSchedule(*Schedule::parse(wanted));
      auto launch = launchSchema(step.spec, step.schedule, target);
      if (!launch) {
        out.error = launch.status().message();
        return out;
      }
      step.launch = *launch;
      step.item.rows = itemTraits(step.schedule).rows;
    }
    auto artifact = compiler.compilePtx(step.spec.text(), step.schedule.text(), target.text());
    if (!artifact) {
      out.error = artifact.status().message();
      return out;
    }
    out.ptx.emplace_back(artifact->artifact.code.begin(), artifact->artifact.code.end());
  }
  return out;
}

BackwardOutcome runBackward(const BackwardShape &shape, const Compiled &compiled, const Options &options,
                            const std::function<void(int step, BackwardParams &)> &plant) {
  if (compiled.error.empty())
    return Run(shape, compiled).run(options, plant);
  BackwardOutcome out;
  out.error = compiled.error;
  return out;
}

} // namespace flashplus::emu::test
