// SPDX-License-Identifier: BSD-3-Clause
#include "spec/fields.h"

namespace flashplus {
namespace {

constexpr std::string_view kDTypes[] = {dtypeName(DType::F16), dtypeName(DType::BF16), dtypeName(DType::F32)};
constexpr std::string_view kOtherDTypes[] = {"same", kDTypes[0], kDTypes[1], kDTypes[2]};
constexpr std::string_view kSinks[] = {"none", kDTypes[0], kDTypes[1], kDTypes[2]};
constexpr std::string_view kAddressings[] = {"rows", "paged"};
constexpr std::string_view kResults[] = {"final", "partial", "merged"};

using Kind = SpecFieldInfo::Kind;

template <class T> struct Values;
template <> struct Values<bool> {
  static constexpr Kind kind = Kind::Flag;
  static constexpr std::span<const std::string_view> words;
  static constexpr bool is_dtype = false;
};
template <> struct Values<int> {
  static constexpr Kind kind = Kind::Integer;
  static constexpr std::span<const std::string_view> words;
  static constexpr bool is_dtype = false;
};
template <> struct Values<DType> {
  static constexpr Kind kind = Kind::Word;
  static constexpr std::span<const std::string_view> words = kDTypes;
  static constexpr bool is_dtype = true;
};
template <> struct Values<std::optional<DType>> {
  static constexpr Kind kind = Kind::Word;
  static constexpr std::span<const std::string_view> words = kOtherDTypes;
  static constexpr bool is_dtype = true;
};
template <> struct Values<Sinks> {
  static constexpr Kind kind = Kind::Word;
  static constexpr std::span<const std::string_view> words = kSinks;
  static constexpr bool is_dtype = false;
};
template <> struct Values<KeyAddressing> {
  static constexpr Kind kind = Kind::Word;
  static constexpr std::span<const std::string_view> words = kAddressings;
  static constexpr bool is_dtype = false;
};
template <> struct Values<Results> {
  static constexpr Kind kind = Kind::Word;
  static constexpr std::span<const std::string_view> words = kResults;
  static constexpr bool is_dtype = false;
};

constexpr SpecFieldInfo kFields[] = {
#define FLASHPLUS_FIELD_ROW(TYPE, MEMBER, DEFAULT, NAME, BITS, REQUIRED)                                     \
  {SpecField::MEMBER,                                                                                        \
   NAME,                                                                                                     \
   #MEMBER,                                                                                                  \
   Values<TYPE>::kind,                                                                                       \
   Values<TYPE>::words,                                                                                      \
   Values<TYPE>::is_dtype,                                                                                   \
   BITS,                                                                                                     \
   REQUIRED,                                                                                                 \
   field::encode(TYPE(DEFAULT)),                                                                             \
   [](const SpecFields &spec) { return field::encode(spec.MEMBER); },                                        \
   [](SpecFields &spec, int64_t value) { field::decode(value, spec.MEMBER); }},
    FLASHPLUS_SPEC_FIELDS(FLASHPLUS_FIELD_ROW)
#undef FLASHPLUS_FIELD_ROW
};
static_assert(std::size(kFields) <= 32, "FieldSet has a bit a field");

/// The words of every field fit its bits, and its bits a word of pack().
constexpr bool fits() {
  for (const SpecFieldInfo &f : kFields)
    if (f.bits > 56 || f.words.size() > size_t(1) << f.bits)
      return false;
  return true;
}
static_assert(fits());
static_assert(kMaxHeadDim < 1 << 16);

} // namespace

std::span<const SpecFieldInfo> specFields() { return kFields; }

std::string SpecFieldInfo::allowed() const {
  if (kind == Kind::Flag)
    return "0 or 1";
  if (kind == Kind::Integer)
    return "an integer from 0 to " + std::to_string(most());
  std::string text;
  for (size_t i = 0; i < words.size(); ++i)
    text += (i == 0 ? "" : i + 1 < words.size() ? ", " : " or ") + std::string(words[i]);
  return text;
}

} // namespace flashplus
