// SPDX-License-Identifier: BSD-3-Clause
// The fields of a KernelSpec, as one table. Members, text, parser, comparison, hash, plan key and the
// dialect's attributes are all made from it: a field that is added here cannot be forgotten in one of them.
#pragma once

#include "spec/dtype.h"
#include "spec/operation.h"

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace flashplus {

inline constexpr int kMaxHeadDim = 256;

/// What becomes of the results of a work item.
enum class Results : uint8_t {
  Final,   ///< o and lse: the item saw all keys.
  Partial, ///< fp32 partial results of one share of the keys, for a combine.
  Merged,  ///< o and lse, of shares that the kernel itself merges.
};

/// How the keys of a sequence are found.
enum class KeyAddressing : uint8_t {
  Rows,  ///< Equally far apart: dense, packed or partly in use (docs/rationale/addressing.md).
  Paged, ///< In pages that a table names (docs/rationale/paged-keys.md).
};

// X(type, member, default, name in the text, bits of its value, required in the text)
//
//   dtype          of q, and of every tensor that has none of its own
//   dtype_kv       of k and v, where it is another than q's; a gradient has the dtype of what it is the
//                  gradient of
//   dtype_o        of o, where it is another than q's
//   head_dim_qk    elements of a q or k row, as stored
//   head_dim_v     elements of a v or o row, as stored
//   bounded_left   the mask is an interval of visible keys per query row: with p = q + sk - sq,
//   bounded_right    [ bounded_left ? p - window_left : 0, bounded_right ? p + window_right + 1 : sk ) cut to
//                    [0, sk);
//                  causal is bounded_right with window_right = 0
//   results        final, partial or merged in the kernel
//   alignment      bytes to which every row of q, k, v and o is known to be aligned: 16 or the element's
//   keys           rows, or paged: k and v are pools of pages
//   append         new keys are written into the cache first: of what callers ask for. A plan has a step
//                  for it, so that no kernel has it
//   dropout        probabilities are dropped by the mask of spec/dropout.h; its rate is a run-time parameter
//   score_grads    of which of the score's own inputs gradients are wanted, a bit each: i of scalar i,
//                  kMaxScoreScalars + i of tensor i. A backward has a step for them (BackwardScore), so that
//                  no other kernel has it
//   sinks          a learned logit a query head in every row's denominator, and its dtype. They are applied
//                  where a row is finished, so that no kernel of partial results has them
//                  (docs/rationale/sinks.md)
//
// A field at its default is left out of the text unless it is required, so that a new one changes no text,
// drops no tuning record and needs no new number of a format.
#define FLASHPLUS_BUILTIN_FIELDS(X)                                                                          \
  X(DType, dtype, DType::BF16, "dtype", 4, true)                                                             \
  X(std::optional<DType>, dtype_kv, std::nullopt, "dtype_kv", 4, false)                                      \
  X(std::optional<DType>, dtype_o, std::nullopt, "dtype_o", 4, false)                                        \
  X(int, head_dim_qk, 0, "dqk", 12, true)                                                                    \
  X(int, head_dim_v, 0, "dv", 12, true)                                                                      \
  X(bool, bounded_left, false, "left", 1, false)                                                             \
  X(bool, bounded_right, false, "right", 1, false)                                                           \
  X(Results, results, Results::Final, "results", 2, false)                                                   \
  X(int, alignment, 16, "align", 5, false)                                                                   \
  X(KeyAddressing, keys, KeyAddressing::Rows, "keys", 2, false)                                              \
  X(bool, append, false, "append", 1, false)                                                                 \
  X(bool, dropout, false, "dropout", 1, false)                                                               \
  X(int, score_grads, 0, "score_grads", 12, false)                                                           \
  X(Sinks, sinks, Sinks::None, "sinks", 2, false)

// A test compiles these sources with a field of its own, to see that a row is all that it takes.
#ifndef FLASHPLUS_MORE_FIELDS
#define FLASHPLUS_MORE_FIELDS(X)
#endif
#define FLASHPLUS_SPEC_FIELDS(X)                                                                             \
  FLASHPLUS_BUILTIN_FIELDS(X)                                                                                \
  FLASHPLUS_MORE_FIELDS(X)

enum class SpecField : uint8_t {
#define FLASHPLUS_FIELD_ENUMERATOR(TYPE, MEMBER, ...) MEMBER,
  FLASHPLUS_SPEC_FIELDS(FLASHPLUS_FIELD_ENUMERATOR)
#undef FLASHPLUS_FIELD_ENUMERATOR
};

constexpr FieldSet fieldSet(std::initializer_list<SpecField> fields) {
  FieldSet set = 0;
  for (SpecField f : fields)
    set |= FieldSet(1) << int(f);
  return set;
}
inline constexpr FieldSet kAllFields = ~FieldSet(0);
inline constexpr FieldSet kForwardFields = kAllFields & ~fieldSet({SpecField::score_grads});
/// Of a backward, whose keys are rows, and no new ones; what it knows of sinks is in the LSE.
inline constexpr FieldSet kBackwardFields =
    kForwardFields & ~fieldSet({SpecField::keys, SpecField::append, SpecField::sinks});
/// Of those that know of gradients of the score's own inputs.
inline constexpr FieldSet kParameterFields = kBackwardFields | fieldSet({SpecField::score_grads});
/// Of operations whose rows are those of o, or of dq.
inline constexpr FieldSet kRowsOfV =
    fieldSet({SpecField::dtype, SpecField::dtype_o, SpecField::head_dim_v, SpecField::alignment});
/// Of the one that finishes rows of shares.
inline constexpr FieldSet kFinishedRowsOfV = kRowsOfV | fieldSet({SpecField::sinks});
inline constexpr FieldSet kRowsOfQ =
    fieldSet({SpecField::dtype, SpecField::head_dim_qk, SpecField::alignment});
/// Of operations on rows of keys and values.
inline constexpr FieldSet kRowsOfKV =
    fieldSet({SpecField::dtype, SpecField::head_dim_qk, SpecField::head_dim_v, SpecField::alignment});

/// Values as whole numbers, one overload a type of field.
namespace field {
constexpr int64_t encode(bool v) { return v; }
constexpr int64_t encode(int v) { return v; }
constexpr int64_t encode(DType v) { return int64_t(v); }
constexpr int64_t encode(Results v) { return int64_t(v); }
constexpr int64_t encode(Sinks v) { return int64_t(v); }
constexpr int64_t encode(KeyAddressing v) { return int64_t(v); }
constexpr int64_t encode(std::optional<DType> v) { return v ? 1 + int64_t(*v) : 0; }
constexpr void decode(int64_t n, bool &v) { v = n != 0; }
constexpr void decode(int64_t n, int &v) { v = int(n); }
constexpr void decode(int64_t n, DType &v) { v = DType(n); }
constexpr void decode(int64_t n, Results &v) { v = Results(n); }
constexpr void decode(int64_t n, Sinks &v) { v = Sinks(n); }
constexpr void decode(int64_t n, KeyAddressing &v) { v = KeyAddressing(n); }
constexpr void decode(int64_t n, std::optional<DType> &v) {
  v = n ? std::optional(DType(n - 1)) : std::nullopt;
}

/// Words of SpecFields::pack(): the operation has 8 bits, a field those of its row, and none is in two words.
constexpr int packedWords() {
  int used = 8, words = 1;
#define FLASHPLUS_FIELD_BITS(TYPE, MEMBER, DEFAULT, NAME, BITS, ...) BITS,
  for (int bits : {FLASHPLUS_SPEC_FIELDS(FLASHPLUS_FIELD_BITS)}) {
    if (used + bits > 64) {
      ++words;
      used = 0;
    }
    used += bits;
  }
#undef FLASHPLUS_FIELD_BITS
  return words;
}
} // namespace field

/// The fields as plain data: what launches compare instead of text. Equal if every field is.
struct SpecFields {
  Operation op = Operation::Forward;
#define FLASHPLUS_FIELD_MEMBER(TYPE, MEMBER, DEFAULT, ...) TYPE MEMBER = DEFAULT;
  FLASHPLUS_SPEC_FIELDS(FLASHPLUS_FIELD_MEMBER)
#undef FLASHPLUS_FIELD_MEMBER

  DType dtypeKV() const { return dtype_kv.value_or(dtype); }
  DType dtypeO() const { return dtype_o.value_or(dtype); }
  DType dtypeOf(Operand operand) const {
    if (operandInfo(operand).side == Side::Key)
      return dtypeKV();
    return operand == Operand::O || operand == Operand::DO ? dtypeO() : dtype;
  }

  bool hasSinks() const { return sinks != Sinks::None; }
  /// k and v are pools of pages.
  bool pagedKeys() const { return keys == KeyAddressing::Paged; }
  /// A work item has one share of the keys.
  bool sharesKeys() const { return results != Results::Final; }
  /// What it writes are partial results.
  bool isPartial() const { return results == Results::Partial; }

  bool operator==(const SpecFields &) const = default;

  /// Two specs pack to equal words if and only if they are equal, as long as validate() holds for both.
  static constexpr int kPackedWords = field::packedWords();
  std::array<uint64_t, kPackedWords> pack() const;
};

inline std::array<uint64_t, SpecFields::kPackedWords> SpecFields::pack() const {
  std::array<uint64_t, kPackedWords> words{uint64_t(op)};
  int used = 8, word = 0;
  auto add = [&](int64_t value, int bits) {
    if (used + bits > 64) {
      ++word;
      used = 0;
    }
    words[size_t(word)] |= uint64_t(value) << used;
    used += bits;
  };
#define FLASHPLUS_FIELD_PACK(TYPE, MEMBER, DEFAULT, NAME, BITS, ...) add(field::encode(MEMBER), BITS);
  FLASHPLUS_SPEC_FIELDS(FLASHPLUS_FIELD_PACK)
#undef FLASHPLUS_FIELD_PACK
  return words;
}

/// One row of the table, for text, parser and dialect.
struct SpecFieldInfo {
  enum class Kind { Flag, Integer, Word };

  SpecField id;
  std::string_view name;   ///< In the text: "dqk".
  std::string_view member; ///< In messages and as the dialect's attribute: "head_dim_qk".
  Kind kind;
  std::span<const std::string_view> words; ///< Names of the values 0, 1, ... (Word).
  bool is_dtype;                           ///< Its words are names of dtypes.
  int bits;
  bool required;
  int64_t standard; ///< The default.
  int64_t (*get)(const SpecFields &spec);
  void (*set)(SpecFields &spec, int64_t value);

  bool isIn(const OperationInfo &operation) const { return operation.fields >> int(id) & 1; }
  /// The largest value that text or an attribute may have.
  int64_t most() const { return kind == Kind::Word ? int64_t(words.size()) - 1 : (int64_t(1) << bits) - 1; }
  /// "0 or 1", "fp16, bf16 or fp32": what a value may be.
  std::string allowed() const;
};

std::span<const SpecFieldInfo> specFields();

} // namespace flashplus
