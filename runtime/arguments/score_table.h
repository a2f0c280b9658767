// SPDX-License-Identifier: BSD-3-Clause
// Scores as callers give them (text, softcap, ALiBi), parsed once: a launch finds the parsed form by a hash
// of what the caller passed, without a lock, an allocation or a parse.
#pragma once

#include "cache/fork.h"
#include "flashplus/flashplus.h"
#include "spec/score.h"
#include "spec/status.h"

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace flashplus {

/// What of a call decides the score expression.
struct ScoreRequest {
  std::string_view text; ///< Empty: the identity.
  bool softcap = false;
  int slopes_rank = 0; ///< ALiBi: 0 = off, 1 = slopes[h], 2 = slopes[b, h].

  bool isIdentity() const { return text.empty() && !softcap && slopes_rank == 0; }
  bool operator==(const ScoreRequest &) const = default;
};

/// A parsed score. Softcap and ALiBi are score expressions like the caller's own, composed as text around it.
struct ScoreForm {
  /// Where the value of a scalar or tensor slot comes from.
  static constexpr std::string_view kReserved = "flashplus_"; ///< Callers' names may not begin so.
  static constexpr std::string_view kSoftcap = "flashplus_softcap";
  static constexpr std::string_view kSlopes = "flashplus_slopes";

  /// An index of a tensor that is a built-in name or a number: how long that dimension has to be.
  struct Index {
    int slot, dimension;
    ScoreOp op;      ///< Batch, Head, HeadK, Query, Key or Constant.
    int64_t value;   ///< Constant only.
  };

  ScoreExpr expr;
  std::vector<ScoreNumber> numbers; ///< Scalars of `expr` that are numbers of the text.
  std::string canonical;
  /// The form that stands for all with this canonical text: kernels and plans are the same for them. It lives
  /// as long as the table; this one may be its own, and live for the call only.
  const ScoreForm *shared = nullptr;
  std::vector<std::string> labels; ///< "score tensor 'bias'", one a tensor slot.
  std::vector<Index> indices;

  /// InvalidArgument gives the column inside the caller's own text.
  static Result<ScoreForm> make(const ScoreRequest &request);
  /// "s"; lives for ever.
  static const ScoreForm &identity();
};

/// Thread-safe. So many texts stay, and cost neither a lock nor a parse when they come again; others, as of a
/// caller who writes numbers into the text of each call, are parsed anew, so that nothing grows with them.
class ScoreTable {
public:
  ScoreTable() = default;
  ~ScoreTable();
  ScoreTable(const ScoreTable &) = delete;
  ScoreTable &operator=(const ScoreTable &) = delete;

  /// Valid until this thread has found another that is not kept, twice; ScoreForm::shared of it is for
  /// longer.
  Result<const ScoreForm *> find(const ScoreRequest &request);
  static constexpr size_t kMostTexts = 4096;
  size_t texts() const { return texts_; }

private:
  struct Node;
  const ScoreForm *sharedOf(const ScoreForm &form);
  static constexpr size_t kBuckets = 1024;
  std::atomic<Node *> buckets_[kBuckets] = {};
  std::atomic<size_t> texts_{0};
  ForkSafe<std::mutex> adding_;
  std::map<std::string, std::unique_ptr<const ScoreForm>> shared_; ///< By canonical text; under adding_.
};

} // namespace flashplus
