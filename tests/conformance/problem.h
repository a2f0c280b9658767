// SPDX-License-Identifier: BSD-3-Clause
// One attention problem as a test writes it down. A test lists what differs from the defaults; instance.h
// makes tensors of it, check.h runs and judges it.
#pragma once

#include "spec/dtype.h"

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace flashplus::conformance {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// How a (batch, rows, heads, dim) or (total, heads, dim) tensor lies in its memory.
struct Layout {
  enum class Order { Bshd, Bhsd, Sbhd }; ///< Slowest first; without the b when ragged.
  Order order = Order::Bshd;
  int64_t gap = 0;        ///< Elements of poison after every row of `dim` elements.
  int64_t shift = 0;      ///< Elements by which the first one lies off a 256-byte boundary.
  bool broadcast = false; ///< Stride 0 over the batch: all entries are the first one.
};

/// A cache that the keys lie in. Lengths (sk, ragged_k, used_k) stay those of the keys; what lies in no slot
/// of a key is poison, and entries that no query reads are garbage.
struct Pages {
  enum class Form {
    Table,   ///< block_table
    Indices, ///< page_indptr and page_indices
    Rows,    ///< cache_batch_idx: a page is a row of the cache
    Order,   ///< Neither: entry b uses row b
  };
  int64_t size = 0; ///< Slots of a page; 0: there is no cache, and keys are rows.
  Form form = Form::Table;
  bool heads_first = false; ///< (num_blocks, heads, page_size, head_dim) in memory.
  bool interleaved = false; ///< K and V of a page lie side by side; head dims are equal.
  bool cumulative = false;  ///< Lengths of packed queries' keys by cu_seqlens_k.
};

/// An auxiliary fp32 tensor of a score, of random values unless `values` gives them.
struct Aux {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values = {}; ///< Compact, in order of `shape`.
  bool transposed = false;        ///< Stored with its dimensions in reverse order.
};

enum class Alibi { None, PerHead, PerBatch };

/// Value of element c of a row of tensor 'q', 'k' or 'v'; `row` counts inside its sequence.
using Fill = std::function<float(char tensor, int64_t b, int64_t row, int64_t head, int64_t c)>;

struct Case {
  DType dtype = DType::BF16;
  int64_t batch = 1, sq = 1, sk = 1; ///< sq, sk: of a dense problem.
  int64_t hq = 2, hk = 1;
  int64_t d = 64, dv = 0; ///< dv 0: as d.

  std::vector<int64_t> ragged_q,
      ragged_k;                   ///< Lengths of the sequences; makes the problem ragged, `batch` is unused.
  int64_t tail_q = 0, tail_k = 0; ///< Rows after the last sequence.
  int64_t max_q = -1, max_k = -1; ///< max_seqlen; -1: the true maximum.
  std::vector<int32_t> used_q, used_k; ///< seqused; empty: none.

  bool causal = false;
  int window_left = -1, window_right = -1;
  std::optional<float> scale = {};
  float softcap = 0;
  Alibi alibi = Alibi::None;
  std::string score = {};
  std::vector<Aux> aux = {};
  std::vector<std::pair<std::string, float>> scalars = {};
  bool aux_at_start = false; ///< On a CPU auxiliary tensors lie right before an unmapped page, or right
                             ///< behind one.

  float dropout = 0;
  uint64_t rng_seed = 0, rng_offset = 0;
  bool rng_pointer = false; ///< Both come as rng_state.

  std::optional<DType> sinks = {};     ///< Attention sinks, of this dtype,
  std::vector<float> sink_values = {}; ///< of the heads; empty: normally distributed, with a deviation of 3.
  bool lse_without_sinks = false;

  float lse_empty = kInf;
  bool want_lse = true;
  int64_t lse_gap = 0; ///< Elements of poison after every head's rows.
  int num_splits = 1;
  bool batch_invariant = false;
  std::string schedule = {}; ///< Of the forward; empty: chosen.

  Layout q_layout = {}, k_layout = {}, v_layout = {}, o_layout = {};
  Pages pages = {};
  std::vector<int32_t> leftpad = {}; ///< With pages: slots before each sequence's keys; empty: none given.
  bool packed_qkv = false; ///< q, k and v are slices of one (.., rows, hq + 2 hk, d).

  Fill fill = {};          ///< Empty: normally distributed.
  int64_t first_batch = 0; ///< Entry b holds the random values of entry first_batch + b.
  uint64_t seed = 1;

  bool ragged() const { return !ragged_q.empty(); }
  int64_t batches() const { return ragged() ? int64_t(ragged_q.size()) : batch; }
  int64_t dimV() const { return dv ? dv : d; }
  float softmaxScale() const { return scale.value_or(1.0f / std::sqrt(float(d))); }
  bool paged() const { return pages.size > 0; }
  int64_t leftpadOf(int64_t b) const { return leftpad.empty() ? 0 : leftpad[size_t(b)]; }
  int windowRight() const { return causal ? 0 : window_right; }

  int64_t startQ(int64_t b) const {
    return start(ragged_q, b);
  } ///< First row of a sequence when ragged, else 0.
  int64_t startK(int64_t b) const { return start(ragged_k, b); }
  int64_t lengthQ(int64_t b) const { return length(ragged_q, used_q, sq, b); } ///< Rows in use.
  int64_t lengthK(int64_t b) const { return length(ragged_k, used_k, sk, b); }
  /// Rows of the tensors: of one batch entry, or in total when ragged.
  int64_t rowsQ() const { return ragged() ? start(ragged_q, batches()) + tail_q : sq; }
  int64_t rowsK() const { return ragged() ? start(ragged_k, batches()) + tail_k : sk; }

  /// The definition of the mask: whether row i of entry b sees key j.
  bool sees(int64_t b, int64_t i, int64_t j) const {
    const int64_t p = i + lengthK(b) - lengthQ(b);
    return j >= 0 && j < lengthK(b) && (window_left < 0 || j >= p - window_left) &&
           (windowRight() < 0 || j <= p + windowRight());
  }

  struct Field {
    const char *name;
    std::string value;
    bool usual; ///< The value is the default.
  };
  /// Every member but `fill`, of which only whether it is there.
  std::vector<Field> fields() const;
  /// One line with everything that is not a default.
  std::string text() const;

private:
  static int64_t start(const std::vector<int64_t> &lengths, int64_t b);
  static int64_t length(const std::vector<int64_t> &ragged, const std::vector<int32_t> &used, int64_t dense,
                        int64_t b);
};

} // namespace flashplus::conformance
