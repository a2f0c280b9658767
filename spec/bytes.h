// SPDX-License-Identifier: BSD-3-Clause
// Little-endian byte strings, written and read field by field. For our own binary formats
// (docs/file-formats.md); a reader never trusts a length before it has compared it with what is left.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace flashplus {

/// Appends fields to a byte string.
class ByteWriter {
public:
  void raw(std::span<const uint8_t> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void raw(std::string_view text) { bytes_.insert(bytes_.end(), text.begin(), text.end()); }

  template <std::integral T> void integer(T value) {
    auto bits = static_cast<std::make_unsigned_t<T>>(value);
    for (size_t i = 0; i < sizeof(T); ++i)
      bytes_.push_back(static_cast<uint8_t>(static_cast<uint64_t>(bits) >> (8 * i)));
  }

  void reserve(size_t size) { bytes_.reserve(size); }
  std::span<const uint8_t> bytes() const { return bytes_; }
  std::vector<uint8_t> take() { return std::move(bytes_); }

private:
  std::vector<uint8_t> bytes_;
};

/// Reads fields from borrowed bytes. A read past the end returns zero or nothing, and from then on ok() is
/// false and every further read fails too: a parser may read a few fields and check once.
class ByteReader {
public:
  explicit ByteReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  /// The next `size` bytes, borrowed from the input.
  std::span<const uint8_t> raw(uint64_t size) {
    if (!ok_ || size > bytes_.size() - offset_) {
      ok_ = false;
      return {};
    }
    std::span<const uint8_t> field = bytes_.subspan(offset_, static_cast<size_t>(size));
    offset_ += field.size();
    return field;
  }

  template <std::integral T> T integer() {
    uint64_t bits = 0;
    std::span<const uint8_t> field = raw(sizeof(T));
    for (size_t i = 0; i < field.size(); ++i)
      bits |= static_cast<uint64_t>(field[i]) << (8 * i);
    return static_cast<T>(static_cast<std::make_unsigned_t<T>>(bits));
  }

  std::string text(uint64_t size) {
    std::span<const uint8_t> field = raw(size);
    return std::string(field.begin(), field.end());
  }

  bool ok() const { return ok_; }
  bool atEnd() const { return offset_ == bytes_.size(); }
  size_t offset() const { return offset_; }

private:
  std::span<const uint8_t> bytes_;
  size_t offset_ = 0;
  bool ok_ = true;
};

} // namespace flashplus
