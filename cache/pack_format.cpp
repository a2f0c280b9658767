// SPDX-License-Identifier: BSD-3-Clause
#include "cache/pack_format.h"

#include "spec/bytes.h"

#include <algorithm>

namespace flashplus {
namespace {

// As an entry's (cache/entry.cpp).
constexpr uint8_t kMagic[8] = {0x89, 'F', 'P', 'P', '\r', '\n', 0x1a, '\n'};
constexpr uint32_t kPackVersion = 1;
constexpr size_t kRowBytes = 16 + 8 + 8, kChecksumBytes = 16;

struct Prefix {
  uint32_t entries = 0, texts = 0, build_bytes = 0, target_bytes = 0;
  uint64_t file_bytes = 0, head_bytes = 0;
};

bool isLess(const Hash128 &a, const Hash128 &b) {
  return std::pair(a.high, a.low) < std::pair(b.high, b.low);
}

std::string targetLines(const std::vector<std::string> &targets) {
  std::string text;
  for (const std::string &target : targets)
    text += target + "\n";
  return text;
}

void writeRow(ByteWriter &out, const PackRow &row) {
  out.raw(row.hash.bytes());
  out.integer(row.offset);
  out.integer(row.bytes);
}

PackRow readRow(ByteReader &in) {
  PackRow row;
  uint64_t halves[2] = {};
  for (uint64_t &half : halves)
    for (const uint8_t byte : in.raw(8))
      half = half << 8 | byte;
  row.hash = {halves[0], halves[1]};
  row.offset = in.integer<uint64_t>();
  row.bytes = in.integer<uint64_t>();
  return row;
}

PackHeadSize failed(EntryError error, std::string detail) { return {error, std::move(detail), 0}; }

PackHeadSize readPrefix(std::span<const uint8_t> bytes, uint64_t file_bytes, Prefix &prefix) {
  ByteReader in(bytes);
  (void)in.raw(sizeof(kMagic));
  const uint32_t version = in.integer<uint32_t>();
  // Before anything else: what follows may be laid out in another way.
  if (!std::ranges::equal(bytes.first(std::min(bytes.size(), sizeof(kMagic))),
                          std::span(kMagic).first(std::min(bytes.size(), sizeof(kMagic)))))
    return failed(EntryError::BadMagic, "it does not start as a pack of kernels does");
  if (in.ok() && version != kPackVersion)
    return failed(EntryError::OtherVersion, "its format version is " + std::to_string(version) +
                                                ", this library reads " + std::to_string(kPackVersion));
  prefix.entries = in.integer<uint32_t>();
  prefix.texts = in.integer<uint32_t>();
  prefix.build_bytes = in.integer<uint32_t>();
  prefix.target_bytes = in.integer<uint32_t>();
  prefix.file_bytes = in.integer<uint64_t>();
  if (!in.ok())
    return failed(EntryError::Truncated,
                  "it has " + std::to_string(file_bytes) + " bytes, fewer than the start of a pack");
  if (prefix.entries > kMaxPackEntries || prefix.texts > kMaxPackTexts ||
      prefix.build_bytes > kMaxPackBuild || prefix.target_bytes > kMaxPackTargets)
    return failed(EntryError::Malformed, "its head announces more than a pack may have");
  prefix.head_bytes = kPackPrefixBytes + prefix.build_bytes + prefix.target_bytes +
                      kRowBytes * (uint64_t(prefix.entries) + prefix.texts) + kChecksumBytes;
  if (file_bytes < prefix.file_bytes || file_bytes < prefix.head_bytes)
    return failed(EntryError::Truncated,
                  "it has " + std::to_string(file_bytes) + " bytes, fewer than its head announces");
  if (file_bytes > prefix.file_bytes)
    return failed(EntryError::Malformed, "bytes follow its end");
  return {EntryError::None, "", prefix.head_bytes};
}

} // namespace

const PackRow *PackHead::find(const Hash128 &hash) const {
  const auto it = std::ranges::lower_bound(entries, hash, isLess, &PackRow::hash);
  return it != entries.end() && it->hash == hash ? &*it : nullptr;
}

std::vector<uint8_t> encodePackHead(PackHead &head) {
  const std::string targets = targetLines(head.targets);
  const uint64_t head_bytes = kPackPrefixBytes + head.build.size() + targets.size() +
                              kRowBytes * (head.entries.size() + head.texts.size()) + kChecksumBytes;
  uint64_t offset = head_bytes;
  for (std::vector<PackRow> *rows : {&head.entries, &head.texts})
    for (PackRow &row : *rows) {
      row.offset = offset;
      offset += row.bytes;
    }
  ByteWriter out;
  out.reserve(head_bytes);
  out.raw(kMagic);
  out.integer(kPackVersion);
  out.integer(static_cast<uint32_t>(head.entries.size()));
  out.integer(static_cast<uint32_t>(head.texts.size()));
  out.integer(static_cast<uint32_t>(head.build.size()));
  out.integer(static_cast<uint32_t>(targets.size()));
  out.integer(offset);
  out.raw(head.build);
  out.raw(targets);
  for (const std::vector<PackRow> *rows : {&head.entries, &head.texts})
    for (const PackRow &row : *rows)
      writeRow(out, row);
  out.raw(hashBytes(out.bytes()).bytes());
  return out.take();
}

PackHeadSize packHeadSize(std::span<const uint8_t> prefix, uint64_t file_bytes) {
  Prefix ignored;
  return readPrefix(prefix.first(std::min(prefix.size(), kPackPrefixBytes)), file_bytes, ignored);
}

ParsedPackHead parsePackHead(std::span<const uint8_t> bytes, uint64_t file_bytes) {
  ParsedPackHead parsed;
  const auto failed = [&](EntryError error, std::string detail) {
    parsed.error = error;
    parsed.detail = std::move(detail);
    parsed.head = {};
    return parsed;
  };
  Prefix prefix;
  if (PackHeadSize size = readPrefix(bytes, file_bytes, prefix); size.error != EntryError::None)
    return failed(size.error, size.detail);
  if (bytes.size() < prefix.head_bytes)
    return failed(EntryError::Truncated, "its head was not read whole");
  const size_t checked = prefix.head_bytes - kChecksumBytes;
  if (!std::ranges::equal(bytes.subspan(checked, kChecksumBytes), hashBytes(bytes.first(checked)).bytes()))
    return failed(EntryError::BadChecksum, "the checksum of its head does not match");

  ByteReader in(bytes.first(checked));
  (void)in.raw(kPackPrefixBytes);
  PackHead &head = parsed.head;
  head.build = in.text(prefix.build_bytes);
  const std::string lines = in.text(prefix.target_bytes);
  for (size_t at = 0; at < lines.size();) {
    const size_t end = lines.find('\n', at);
    if (end == std::string::npos || end == at ||
        (!head.targets.empty() && head.targets.back() >= lines.substr(at, end - at)))
      return failed(EntryError::Malformed, "its list of targets makes no sense");
    head.targets.push_back(lines.substr(at, end - at));
    at = end + 1;
  }
  uint64_t offset = prefix.head_bytes;
  const auto readRows = [&](uint32_t count, std::vector<PackRow> &rows) {
    rows.reserve(count);
    for (uint32_t i = 0; i < count; ++i) {
      const PackRow row = readRow(in);
      if (row.offset != offset || row.bytes > file_bytes - offset)
        return false;
      offset += row.bytes;
      rows.push_back(row);
    }
    return true;
  };
  if (!readRows(prefix.entries, head.entries) || !readRows(prefix.texts, head.texts) ||
      offset != file_bytes ||
      std::ranges::adjacent_find(head.entries, [](const PackRow &a, const PackRow &b) {
        return !isLess(a.hash, b.hash);
      }) != head.entries.end())
    return failed(EntryError::Malformed, "its index makes no sense");
  return parsed;
}

std::vector<uint8_t> encodePackText(const PackText &text) {
  ByteWriter out;
  out.integer(static_cast<uint32_t>(text.name.size()));
  out.raw(text.name);
  out.raw(text.text);
  return out.take();
}

std::optional<PackText> parsePackText(std::span<const uint8_t> bytes) {
  ByteReader in(bytes);
  PackText text;
  text.name = in.text(in.integer<uint32_t>());
  if (!in.ok() || text.name.empty() || text.name.size() > 255 || text.name == "." || text.name == ".." ||
      text.name.find('/') != std::string::npos || text.name.find('\0') != std::string::npos)
    return std::nullopt;
  text.text = in.text(bytes.size() - in.offset());
  return text;
}

} // namespace flashplus
