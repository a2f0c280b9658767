// SPDX-License-Identifier: BSD-3-Clause
#include "tools/io/safetensors.h"

#include "spec/json_reader.h"
#include "tools/io/file.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace flashplus::io {

namespace {

using Json = nlohmann::json;

struct DtypeRow {
  std::string_view name;
  size_t bytes;
  std::optional<ElementType> type;
};
constexpr DtypeRow kDtypes[] = {
    {"F16", 2, ElementType::F16}, {"BF16", 2, ElementType::BF16}, {"F32", 4, ElementType::F32},
    {"F64", 8, ElementType::F64}, {"I32", 4, ElementType::I32},   {"I64", 8, ElementType::I64},
    {"BOOL", 1, std::nullopt},    {"U8", 1, std::nullopt},        {"I8", 1, std::nullopt},
    {"F8_E4M3", 1, std::nullopt}, {"F8_E5M2", 1, std::nullopt},   {"U16", 2, std::nullopt},
    {"I16", 2, std::nullopt},     {"U32", 4, std::nullopt},       {"U64", 8, std::nullopt}};

/// Bytes that are safe to print: valid text stays, anything else becomes '?'.
std::string printable(std::string_view text) {
  std::string out;
  for (char c : text.substr(0, 60))
    out += c >= 32 && c != 127 ? c : '?';
  return out;
}

Result<SafetensorsEntry> parseEntry(const std::string &name, const Json &value, uint64_t data_bytes,
                                    const std::string &where) {
  if (!value.is_object())
    return invalidArgument(where + ": must be an object");
  for (const auto &[field, unused] : value.items())
    if (field != "dtype" && field != "shape" && field != "data_offsets")
      return invalidArgument(where + ": unknown field '" + printable(field) +
                             "', allowed are dtype, shape and data_offsets");
  SafetensorsEntry entry;
  entry.name = name;

  auto dtype = value.find("dtype");
  if (dtype == value.end() || !dtype->is_string())
    return invalidArgument(where + ".dtype: must be there and a string");
  entry.dtype = dtype->get<std::string>();
  const DtypeRow *row = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                     [&](const DtypeRow &r) { return r.name == entry.dtype; });
  if (row == std::end(kDtypes))
    return invalidArgument(
        where + ".dtype: '" + printable(entry.dtype) +
        "' is not known; expected F16, BF16, F32, F64, I32, I64 or another type of the format");
  entry.type = row->type;

  auto shape = value.find("shape");
  if (shape == value.end() || !shape->is_array())
    return invalidArgument(where + ".shape: must be there and an array");
  if (shape->size() > kMaxRank)
    return invalidArgument(where + ".shape: has " + std::to_string(shape->size()) + " dimensions, at most " +
                           std::to_string(kMaxRank) + " are allowed");
  for (const Json &dim : *shape) {
    if (!dim.is_number_unsigned() || dim.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
      return invalidArgument(where + ".shape: every dimension must be an integer from 0 to 2^63 - 1");
    entry.shape.push_back(static_cast<int64_t>(dim.get<uint64_t>()));
  }

  auto offsets = value.find("data_offsets");
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2 ||
      !(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned())
    return invalidArgument(where + ".data_offsets: must be there and two integers of 0 or more");
  entry.begin = (*offsets)[0].get<uint64_t>();
  entry.end = (*offsets)[1].get<uint64_t>();
  if (entry.begin > entry.end || entry.end > data_bytes)
    return invalidArgument(where + ".data_offsets: [" + std::to_string(entry.begin) + ", " +
                           std::to_string(entry.end) + "] is not a range inside the " +
                           std::to_string(data_bytes) + " bytes of data");
  auto needed = tensorBytes(entry.shape, row->bytes);
  if (!needed || static_cast<uint64_t>(*needed) != entry.end - entry.begin)
    return invalidArgument(where + ".shape: " + shapeText(entry.shape) + " of " + entry.dtype + " needs " +
                           (needed ? std::to_string(*needed) : std::string("over 2^63")) +
                           " bytes, data_offsets give " + std::to_string(entry.end - entry.begin));
  return entry;
}

} // namespace

Result<SafetensorsHeader> parseSafetensorsHeader(std::string_view json, uint64_t data_bytes,
                                                 std::string_view source) {
  std::string prefix = std::string(source) + ": safetensors header";
  if (!json.starts_with('{'))
    return invalidArgument(prefix + ": must begin with '{'");
  // Of equal keys a parser keeps one, so that two readers could see different tensors: they are refused.
  std::string problem;
  const Json root = JsonReader::parse(json, {.most_depth = 3, .unique_keys = true}, problem);
  if (!problem.empty())
    return invalidArgument(prefix + ": " + problem);
  if (root.is_discarded() || !root.is_object())
    return invalidArgument(prefix + ": not a JSON object");

  SafetensorsHeader header;
  for (const auto &[name, value] : root.items()) {
    std::string where = prefix + ": '" + printable(name) + "'";
    if (name == "__metadata__") {
      if (!value.is_object())
        return invalidArgument(where + ": must be an object of strings");
      for (const auto &[key, text] : value.items()) {
        if (!text.is_string())
          return invalidArgument(where + ": '" + printable(key) + "' must be a string");
        header.metadata.emplace(key, text.get<std::string>());
      }
      continue;
    }
    Result<SafetensorsEntry> entry = parseEntry(name, value, data_bytes, where);
    if (!entry)
      return entry.status();
    header.entries.push_back(std::move(*entry));
  }
  std::sort(header.entries.begin(), header.entries.end(),
            [](const SafetensorsEntry &a, const SafetensorsEntry &b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  uint64_t at = 0;
  for (const SafetensorsEntry &entry : header.entries) {
    if (entry.begin != at)
      return invalidArgument(prefix + ": '" + printable(entry.name) + "'.data_offsets: begin at " +
                             std::to_string(entry.begin) + ", the tensor before ends at " +
                             std::to_string(at) + (entry.begin < at ? " (overlap)" : " (gap)"));
    at = entry.end;
  }
  if (at != data_bytes)
    return invalidArgument(prefix + ": tensors end at byte " + std::to_string(at) + " of " +
                           std::to_string(data_bytes) + " bytes of data");
  return header;
}

namespace {

/// The length field against the file's size; returns the length.
Result<uint64_t> headerLength(std::span<const std::byte> first, uint64_t file_size, std::string_view source) {
  std::string prefix = std::string(source) + ": safetensors header";
  if (first.size() < 8)
    return invalidArgument(prefix + ": the file has " + std::to_string(file_size) +
                           " bytes, at least 8 are needed");
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | std::to_integer<uint8_t>(first[static_cast<size_t>(i)]);
  if (length > kMaxSafetensorsHeaderBytes)
    return invalidArgument(prefix + ": length " + std::to_string(length) + " is over the limit of " +
                           std::to_string(kMaxSafetensorsHeaderBytes));
  if (length > file_size - 8)
    return invalidArgument(prefix + ": length " + std::to_string(length) +
                           " runs past the end of the file (" + std::to_string(file_size) + " bytes)");
  return length;
}

} // namespace

Result<SafetensorsHeader> parseSafetensors(std::span<const std::byte> bytes, std::string_view source) {
  Result<uint64_t> length = headerLength(bytes, bytes.size(), source);
  if (!length)
    return length.status();
  std::string_view json(reinterpret_cast<const char *>(bytes.data()) + 8, static_cast<size_t>(*length));
  return parseSafetensorsHeader(json, bytes.size() - 8 - *length, source);
}

Result<TensorMap> readSafetensors(const std::string &path, std::span<const std::string> names) {
  Result<InputFile> file = InputFile::open(path);
  if (!file)
    return file.status();
  std::vector<std::byte> first(static_cast<size_t>(std::min<uint64_t>(file->size(), 8)));
  FLASHPLUS_RETURN_IF_ERROR(file->read(0, first));
  Result<uint64_t> length = headerLength(first, file->size(), path);
  if (!length)
    return length.status();
  std::string json(static_cast<size_t>(*length), '\0');
  FLASHPLUS_RETURN_IF_ERROR(file->read(8, std::as_writable_bytes(std::span(json))));
  Result<SafetensorsHeader> header = parseSafetensorsHeader(json, file->size() - 8 - *length, path);
  if (!header)
    return header.status();

  TensorMap tensors;
  for (const std::string &name : names) {
    auto entry = std::find_if(header->entries.begin(), header->entries.end(),
                              [&](const SafetensorsEntry &e) { return e.name == name; });
    if (entry == header->entries.end()) {
      std::string have;
      for (size_t i = 0; i < header->entries.size() && i < 12; ++i)
        have += (i ? ", " : "") + printable(header->entries[i].name);
      return invalidArgument(path + ": has no tensor '" + name + "'; it has: " +
                             (have.empty() ? "none" : have) + (header->entries.size() > 12 ? ", ..." : ""));
    }
    if (!entry->type)
      return invalidArgument(path + ": '" + name + "'.dtype: " + entry->dtype +
                             " is not supported; allowed are F16, BF16, F32, F64, I32 and I64");
    Result<Tensor> tensor = makeTensor(*entry->type, entry->shape);
    if (!tensor)
      return Status(tensor.status().code(), path + ": '" + name + "': " + tensor.status().message());
    FLASHPLUS_RETURN_IF_ERROR(file->read(8 + *length + entry->begin, tensor->data));
    tensors.emplace(name, std::move(*tensor));
  }
  return tensors;
}

Status writeSafetensors(const std::string &path, const TensorMap &tensors,
                        const std::map<std::string, std::string> &metadata) {
  Json root = Json::object();
  if (!metadata.empty())
    root["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const auto &[name, tensor] : tensors) {
    const DtypeRow *row = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                       [&](const DtypeRow &r) { return r.type == tensor.type; });
    uint64_t end = at + tensor.data.size();
    root[name] = {{"dtype", row->name}, {"shape", tensor.shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string json = root.dump(-1, ' ', false, Json::error_handler_t::replace);
  json.append((8 - json.size() % 8) % 8, ' '); // data start aligned
  std::string head;
  for (int i = 0; i < 8; ++i)
    head += static_cast<char>(json.size() >> (8 * i) & 255);
  head += json;
  return writeFileAtomically(path, [&](const WritePiece &write) {
    FLASHPLUS_RETURN_IF_ERROR(write(std::as_bytes(std::span(head))));
    for (const auto &[name, tensor] : tensors)
      FLASHPLUS_RETURN_IF_ERROR(write(tensor.data));
    return Status::ok();
  });
}

} // namespace flashplus::io
