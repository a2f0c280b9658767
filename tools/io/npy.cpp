// SPDX-License-Identifier: BSD-3-Clause
#include "tools/io/npy.h"

#include "tools/io/convert.h"
#include "tools/io/file.h"

#include <algorithm>
#include <cstring>

namespace flashplus::io {

namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

struct DescrRow {
  std::string_view descr;
  ElementType type;
};
constexpr DescrRow kDescr[] = {{"<f2", ElementType::F16},  {"<V2", ElementType::BF16},
                               {"|V2", ElementType::BF16}, {"<f4", ElementType::F32},
                               {"<f8", ElementType::F64},  {"<i4", ElementType::I32},
                               {"<i8", ElementType::I64}};

/// The header is a Python dict literal with three keys; this reads exactly that and nothing more of Python.
class DictReader {
public:
  DictReader(std::string_view text, std::string_view source) : text_(text), source_(source) {}

  Status read(NpyHeader &header) {
    FLASHPLUS_RETURN_IF_ERROR(expect('{'));
    bool descr = false, order = false, shape = false;
    while (!accept('}')) {
      std::string_view key;
      FLASHPLUS_RETURN_IF_ERROR(readString(key, "a key"));
      FLASHPLUS_RETURN_IF_ERROR(expect(':'));
      bool *seen = key == "descr"           ? &descr
                   : key == "fortran_order" ? &order
                   : key == "shape"         ? &shape
                                            : nullptr;
      if (!seen)
        return fail("unknown key '" + printable(key) + "', allowed are descr, fortran_order and shape");
      if (std::exchange(*seen, true))
        return fail("key '" + std::string(key) + "' occurs twice");
      FLASHPLUS_RETURN_IF_ERROR(seen == &descr   ? readDescr(header)
                                : seen == &order ? readOrder()
                                                 : readShape(header));
      if (!accept(',')) {
        FLASHPLUS_RETURN_IF_ERROR(expect('}'));
        break;
      }
    }
    skipSpace();
    if (at_ != text_.size())
      return fail("text after the closing brace");
    for (auto [seen, name] : {std::pair(descr, "descr"), {order, "fortran_order"}, {shape, "shape"}})
      if (!seen)
        return fail(std::string("key '") + name + "' is missing");
    return Status::ok();
  }

private:
  Status fail(const std::string &what) const {
    return invalidArgument(std::string(source_) + ": npy header: " + what);
  }
  static std::string printable(std::string_view text) {
    std::string out;
    for (char c : text.substr(0, 40))
      out += c >= 32 && c < 127 ? c : '?';
    return out;
  }
  void skipSpace() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }
  bool accept(char c) {
    skipSpace();
    if (at_ >= text_.size() || text_[at_] != c)
      return false;
    ++at_;
    return true;
  }
  Status expect(char c) {
    if (!accept(c))
      return fail(std::string("'") + c + "' expected at byte " + std::to_string(at_));
    return Status::ok();
  }
  Status readString(std::string_view &out, const char *what) {
    skipSpace();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"'))
      return fail(std::string(what) + " in quotes expected at byte " + std::to_string(at_));
    size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string_view::npos)
      return fail("string at byte " + std::to_string(at_) + " has no end");
    out = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return Status::ok();
  }
  Status readDescr(NpyHeader &header) {
    std::string_view descr;
    FLASHPLUS_RETURN_IF_ERROR(readString(descr, "descr"));
    for (const DescrRow &row : kDescr)
      if (row.descr == descr) {
        header.type = row.type;
        return Status::ok();
      }
    return fail("descr '" + printable(descr) +
                "' is not supported; allowed are <f2, <f4, <f8, <i4, <i8 and <V2 (bf16)");
  }
  Status readOrder() {
    skipSpace();
    if (text_.substr(at_).starts_with("False")) {
      at_ += 5;
      return Status::ok();
    }
    if (text_.substr(at_).starts_with("True"))
      return fail("fortran_order is True; only False is supported (save with numpy.ascontiguousarray)");
    return fail("fortran_order must be True or False");
  }
  Status readShape(NpyHeader &header) {
    FLASHPLUS_RETURN_IF_ERROR(expect('('));
    header.shape.clear();
    while (!accept(')')) {
      if (header.shape.size() == kMaxRank)
        return fail("shape has more than " + std::to_string(kMaxRank) + " dimensions");
      skipSpace();
      int64_t value = 0;
      size_t start = at_;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, text_[at_] - '0', &value))
          return fail("a dimension of shape is 2^63 or more");
      if (at_ == start)
        return fail("shape: a number of 0 or more expected at byte " + std::to_string(at_));
      header.shape.push_back(value);
      if (!accept(',')) {
        FLASHPLUS_RETURN_IF_ERROR(expect(')'));
        break;
      }
    }
    return Status::ok();
  }

  std::string_view text_, source_;
  size_t at_ = 0;
};

} // namespace

Result<NpyHeader> parseNpyHeader(std::span<const std::byte> bytes, uint64_t file_size,
                                 std::string_view source) {
  auto fail = [&](const std::string &what) { return invalidArgument(std::string(source) + ": " + what); };
  std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  if (!text.starts_with(kMagic))
    return fail("not a .npy file (the magic bytes are missing)");
  if (text.size() < 10)
    return fail("npy header: file ends inside it");
  auto byteAt = [&](size_t i) { return static_cast<uint64_t>(std::to_integer<uint8_t>(bytes[i])); };
  uint64_t major = byteAt(6);
  if (major < 1 || major > 3)
    return fail("npy header: format version " + std::to_string(major) +
                " is not supported, allowed are 1 to 3");
  size_t start = major == 1 ? 10 : 12;
  if (text.size() < start)
    return fail("npy header: file ends inside it");
  uint64_t length = byteAt(8) | byteAt(9) << 8;
  if (major > 1)
    length |= byteAt(10) << 16 | byteAt(11) << 24;
  if (length > kMaxNpyHeaderBytes)
    return fail("npy header: length " + std::to_string(length) + " is over the limit of " +
                std::to_string(kMaxNpyHeaderBytes));
  if (length > text.size() - start)
    return fail("npy header: length " + std::to_string(length) + " runs past the end of the file (" +
                std::to_string(file_size) + " bytes)");
  NpyHeader header;
  FLASHPLUS_RETURN_IF_ERROR(DictReader(text.substr(start, length), source).read(header));
  header.data_offset = start + length;
  auto needed = tensorBytes(header.shape, elementBytes(header.type));
  if (!needed)
    return fail("npy header: shape " + shapeText(header.shape) + " has more than 2^63 bytes");
  header.data_bytes = static_cast<uint64_t>(*needed);
  if (header.data_offset > file_size || header.data_bytes != file_size - header.data_offset)
    return fail("npy header: shape " + shapeText(header.shape) + " of " +
                std::string(elementName(header.type)) + " needs " + std::to_string(header.data_bytes) +
                " bytes of data, the file holds " +
                std::to_string(file_size - std::min(file_size, header.data_offset)));
  return header;
}

Result<Tensor> readNpy(const std::string &path) {
  Result<InputFile> file = InputFile::open(path);
  if (!file)
    return file.status();
  std::vector<std::byte> head(static_cast<size_t>(std::min<uint64_t>(file->size(), 12 + kMaxNpyHeaderBytes)));
  FLASHPLUS_RETURN_IF_ERROR(file->read(0, head));
  Result<NpyHeader> header = parseNpyHeader(head, file->size(), path);
  if (!header)
    return header.status();
  Result<Tensor> tensor = makeTensor(header->type, header->shape);
  if (!tensor)
    return Status(tensor.status().code(), path + ": " + tensor.status().message());
  FLASHPLUS_RETURN_IF_ERROR(file->read(header->data_offset, tensor->data));
  return tensor;
}

Status writeNpy(const std::string &path, const Tensor &tensor) {
  if (tensor.type == ElementType::BF16) {
    Result<Tensor> wide = convert(tensor, ElementType::F32);
    return wide ? writeNpy(path, *wide) : wide.status();
  }
  std::string_view descr;
  for (const DescrRow &row : kDescr)
    if (row.type == tensor.type)
      descr = row.descr;
  std::string dict = "{'descr': '" + std::string(descr) +
                     "', 'fortran_order': False, 'shape': " + shapeText(tensor.shape) + ", }";
  // Data start at a multiple of 64 bytes; the header ends with a newline.
  dict.append(63 - (10 + dict.size()) % 64, ' ').push_back('\n');
  std::string head(kMagic);
  head += {'\x01', '\x00', static_cast<char>(dict.size() & 255), static_cast<char>(dict.size() >> 8)};
  head += dict;
  return writeFileAtomically(path, [&](const WritePiece &write) {
    FLASHPLUS_RETURN_IF_ERROR(write(std::as_bytes(std::span(head))));
    return write(tensor.data);
  });
}

} // namespace flashplus::io
