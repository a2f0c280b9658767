// SPDX-License-Identifier: BSD-3-Clause
// The serialised form of an Artifact. docs/file-formats.md has the grammar; keep both in step.
#include "spec/artifact.h"

#include "spec/bytes.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace flashplus {
namespace {

constexpr std::string_view kArtifactMagic = "FPAR";
constexpr uint32_t kArtifactVersion = 3;
// A name or a sentence; far more than any real one, little enough to allocate for nothing.
constexpr uint32_t kMaxTextBytes = 64 * 1024;

std::optional<CodeKind> codeKindFromNumber(uint32_t number) {
  switch (number) {
  case 0:
    return CodeKind::X86Object;
  case 1:
    return CodeKind::Ptx;
  case 2:
    return CodeKind::Cubin;
  }
  return std::nullopt;
}

uint32_t numberOf(CodeKind kind) {
  switch (kind) {
  case CodeKind::X86Object:
    return 0;
  case CodeKind::Ptx:
    return 1;
  case CodeKind::Cubin:
    return 2;
  }
  return ~0u;
}

Status malformed(std::string_view what) { return invalidArgument("artifact: " + std::string(what)); }

std::string cut(std::string_view text) { return std::string(text.substr(0, kMaxTextBytes)); }

void writeText(ByteWriter &out, std::string_view text) {
  out.integer<uint32_t>(static_cast<uint32_t>(text.size()));
  out.raw(text);
}

} // namespace

bool isBetter(const Artifact &a, const Artifact &b) {
  if ((a.kind == CodeKind::Ptx) != (b.kind == CodeKind::Ptx))
    return b.kind == CodeKind::Ptx;
  return std::pair(a.assembler.major, a.assembler.minor) > std::pair(b.assembler.major, b.assembler.minor);
}

Assembler assemblerOf(Assembler::Kind kind, std::string_view version) {
  Assembler out{kind, 0, 0};
  const size_t dot = version.find('.');
  const auto number = [](std::string_view text, int &value) {
    std::from_chars(text.data(), text.data() + text.size(), value);
  };
  number(version.substr(0, dot), out.major);
  if (dot != std::string_view::npos)
    number(version.substr(dot + 1), out.minor);
  return out;
}

std::vector<uint8_t> serializeArtifact(const Artifact &artifact) {
  // The provenance is for people: cutting it is better than making an artifact that cannot be read back.
  const std::string provenance = cut(artifact.provenance);
  ByteWriter out;
  out.reserve(artifact.code.size() + artifact.launch.entry.size() + provenance.size() + 80);
  out.raw(kArtifactMagic);
  out.integer(kArtifactVersion);
  out.integer(numberOf(artifact.kind));
  out.integer<int32_t>(artifact.launch.threads);
  out.integer<int64_t>(artifact.launch.shared_memory);
  out.integer<int64_t>(artifact.launch.scratch);
  out.integer<int64_t>(artifact.launch.params_size);
  out.integer<int32_t>(artifact.launch.blocks_per_sm);
  out.integer<uint32_t>(static_cast<uint32_t>(artifact.launch.tensor_maps.size()));
  for (const TensorMap &map : artifact.launch.tensor_maps) {
    out.integer(static_cast<uint32_t>(map.operand));
    out.integer<int32_t>(map.box_rows);
    out.integer<int32_t>(map.box_columns);
  }
  out.integer<int32_t>(artifact.resources.registers);
  out.integer<int32_t>(artifact.resources.spill_bytes);
  out.integer<int32_t>(artifact.resources.stack_bytes);
  out.integer(static_cast<uint32_t>(artifact.assembler.kind));
  out.integer<int32_t>(artifact.assembler.major);
  out.integer<int32_t>(artifact.assembler.minor);
  writeText(out, artifact.launch.entry);
  writeText(out, provenance);
  out.integer<uint64_t>(artifact.code.size());
  out.raw(artifact.code);
  return out.take();
}

Result<Artifact> parseArtifact(std::span<const uint8_t> bytes) {
  ByteReader in(bytes);
  if (in.text(kArtifactMagic.size()) != kArtifactMagic)
    return malformed("does not start with \"FPAR\"");
  const uint32_t version = in.integer<uint32_t>();
  if (!in.ok())
    return malformed("ends inside its header");
  if (version != kArtifactVersion)
    return malformed("version is " + std::to_string(version) + ", this library reads version " +
                     std::to_string(kArtifactVersion));

  Artifact artifact;
  const uint32_t kind_number = in.integer<uint32_t>();
  artifact.launch.threads = in.integer<int32_t>();
  artifact.launch.shared_memory = in.integer<int64_t>();
  artifact.launch.scratch = in.integer<int64_t>();
  artifact.launch.params_size = in.integer<int64_t>();
  artifact.launch.blocks_per_sm = in.integer<int32_t>();
  const uint32_t map_count = in.integer<uint32_t>();
  if (map_count > kMaxTensorMaps)
    return malformed("has " + std::to_string(map_count) + " tensor maps, at most " +
                     std::to_string(kMaxTensorMaps) + " are allowed");
  for (uint32_t i = 0; i < map_count; ++i) {
    TensorMap map;
    const uint32_t tensor = in.integer<uint32_t>();
    map.operand = static_cast<Operand>(tensor);
    map.box_rows = in.integer<int32_t>();
    map.box_columns = in.integer<int32_t>();
    // The limits of cuTensorMapEncodeTiled.
    if (in.ok() && (tensor >= uint32_t(kNumOperands) || map.box_rows < 1 || map.box_rows > 256 ||
                    map.box_columns < 1 || map.box_columns > 256))
      return malformed("tensor map " + std::to_string(i) + " is of tensor " + std::to_string(tensor) +
                       " and has boxes of " + std::to_string(map.box_rows) + " x " +
                       std::to_string(map.box_columns) + "; allowed are tensors 0 to " +
                       std::to_string(kNumOperands - 1) + " and boxes of 1 to 256");
    artifact.launch.tensor_maps.push_back(map);
  }
  artifact.resources.registers = in.integer<int32_t>();
  artifact.resources.spill_bytes = in.integer<int32_t>();
  artifact.resources.stack_bytes = in.integer<int32_t>();
  const uint32_t assembler = in.integer<uint32_t>();
  artifact.assembler.major = in.integer<int32_t>();
  artifact.assembler.minor = in.integer<int32_t>();
  const uint32_t entry_size = in.integer<uint32_t>();
  if (!in.ok())
    return malformed("ends inside its header");

  const std::optional<CodeKind> kind = codeKindFromNumber(kind_number);
  if (!kind)
    return malformed("code kind is " + std::to_string(kind_number) +
                     ", allowed are 0 (x86 object), 1 (PTX), 2 (cubin)");
  artifact.kind = *kind;
  const LaunchSchema &launch = artifact.launch;
  if (launch.threads < 0 || launch.shared_memory < 0 || launch.scratch < 0 || launch.params_size < 0 ||
      launch.blocks_per_sm < 0)
    return malformed(
        "threads, shared_memory, scratch, params_size and blocks_per_sm must not be negative, but are " +
        std::to_string(launch.threads) + ", " + std::to_string(launch.shared_memory) + ", " +
        std::to_string(launch.scratch) + ", " + std::to_string(launch.params_size) + ", " +
        std::to_string(launch.blocks_per_sm));

  if (assembler > uint32_t(Assembler::Kind::Driver) || artifact.assembler.major < 0 ||
      artifact.assembler.minor < 0)
    return malformed("assembler is " + std::to_string(assembler) + " version " +
                     std::to_string(artifact.assembler.major) + "." +
                     std::to_string(artifact.assembler.minor) +
                     "; allowed are 0 to 3 and versions that are not negative");
  artifact.assembler.kind = static_cast<Assembler::Kind>(assembler);

  if (entry_size > kMaxTextBytes)
    return malformed("entry name has " + std::to_string(entry_size) + " bytes, at most 65536 are allowed");
  artifact.launch.entry = in.text(entry_size);
  const uint32_t provenance_size = in.integer<uint32_t>();
  if (!in.ok())
    return malformed("ends inside the entry name");
  if (artifact.launch.entry.find('\0') != std::string::npos)
    return malformed("entry name contains a NUL");
  if (provenance_size > kMaxTextBytes)
    return malformed("provenance has " + std::to_string(provenance_size) +
                     " bytes, at most 65536 are allowed");
  artifact.provenance = in.text(provenance_size);

  const uint64_t code_size = in.integer<uint64_t>();
  std::span<const uint8_t> code = in.raw(code_size);
  if (!in.ok())
    return malformed("ends before the " + std::to_string(code_size) + " bytes of its code");
  if (!in.atEnd())
    return malformed(std::to_string(bytes.size() - in.offset()) + " bytes follow its end");
  if (artifact.kind == CodeKind::Ptx && std::find(code.begin(), code.end(), 0) != code.end())
    return malformed("PTX text contains a NUL");
  artifact.code.assign(code.begin(), code.end());
  return artifact;
}

} // namespace flashplus
