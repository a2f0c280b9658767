// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/elf_loader.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <elf.h>
#include <limits>
#include <map>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace flashplus {

struct LoadedObject::Symbols {
  std::map<std::string, void *, std::less<>> by_name; ///< Global functions.
  std::vector<LoadedFunction> functions;
  std::vector<uint64_t> section_addresses; ///< Of each section; 0 if it is not in memory.
};

namespace {

Status bad(const std::string &why) {
  return {StatusCode::InvalidArgument, "the code is not an object that this loader takes: " + why};
}

constexpr size_t kMaxImage = size_t(1) << 30;
constexpr size_t kMaxZeroed = size_t(64) << 20; ///< Memory that the file has no bytes for.
constexpr size_t kMaxName = 4096;

/// Bounds-checked access to the file. Structures are copied out, so that alignment does not matter.
class File {
public:
  explicit File(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  template <class T> bool read(uint64_t offset, T &out) const {
    if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T))
      return false;
    std::memcpy(&out, bytes_.data() + offset, sizeof(T));
    return true;
  }
  const uint8_t *range(uint64_t offset, uint64_t size) const {
    if (offset > bytes_.size() || bytes_.size() - offset < size)
      return nullptr;
    return bytes_.data() + offset;
  }
  /// A NUL-terminated name inside a string section.
  bool name(const Elf64_Shdr &strings, uint64_t at, std::string &out) const {
    const uint8_t *table = range(strings.sh_offset, strings.sh_size);
    if (!table || at >= strings.sh_size)
      return false;
    const void *end = std::memchr(table + at, 0, std::min<uint64_t>(strings.sh_size - at, kMaxName));
    if (!end)
      return false;
    out.assign(reinterpret_cast<const char *>(table + at), static_cast<const char *>(end));
    return true;
  }

private:
  std::span<const uint8_t> bytes_;
};

struct Section {
  Elf64_Shdr header;
  uint64_t at = 0; ///< Offset in the image.
  bool mapped = false;
};

/// Value of one relocation; false for a kind that self-contained code does not have.
bool relocate(uint32_t type, uint8_t *place, uint64_t available, uint64_t symbol, int64_t addend) {
  // Unsigned, as addresses are: a wild addend wraps around and is then caught as an overflow.
  const uint64_t absolute = symbol + uint64_t(addend);
  const auto relative = int64_t(absolute - reinterpret_cast<uintptr_t>(place));
  switch (type) {
  case R_X86_64_PC32:
  case R_X86_64_PLT32: {
    const int32_t value = int32_t(relative);
    if (available < 4 || value != relative)
      return false;
    std::memcpy(place, &value, 4);
    return true;
  }
  case R_X86_64_PC64:
    if (available < 8)
      return false;
    std::memcpy(place, &relative, 8);
    return true;
  case R_X86_64_64: {
    if (available < 8)
      return false;
    std::memcpy(place, &absolute, 8);
    return true;
  }
  default:
    return false;
  }
}

} // namespace

LoadedObject::~LoadedObject() {
  if (base_)
    munmap(base_, size_);
}

void *LoadedObject::find(std::string_view name) const {
  const auto it = symbols_->by_name.find(name);
  return it == symbols_->by_name.end() ? nullptr : it->second;
}

const std::vector<LoadedFunction> &LoadedObject::functions() const { return symbols_->functions; }

std::vector<uint8_t> LoadedObject::symbolFile(std::span<const uint8_t> object) const {
  std::vector<uint8_t> file(object.begin(), object.end());
  Elf64_Ehdr header;
  // load() checked the bounds of this and of the section table
  std::memcpy(&header, file.data(), sizeof header);
  for (size_t i = 0; i < symbols_->section_addresses.size(); ++i)
    std::memcpy(file.data() + header.e_shoff + i * sizeof(Elf64_Shdr) + offsetof(Elf64_Shdr, sh_addr),
                &symbols_->section_addresses[i], sizeof(uint64_t));
  return file;
}

Result<std::unique_ptr<LoadedObject>> LoadedObject::load(std::span<const uint8_t> object) {
  const File file(object);
  Elf64_Ehdr header;
  if (!file.read(0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB)
    return bad("it is not a 64-bit little-endian ELF file");
  if (header.e_type != ET_REL || header.e_machine != EM_X86_64 || header.e_shentsize != sizeof(Elf64_Shdr))
    return bad("it is not a relocatable x86-64 object");

  // Lay the allocated sections out, code first; data follows on a page of its own.
  const uint64_t page = uint64_t(sysconf(_SC_PAGESIZE));
  std::vector<Section> sections(header.e_shnum);
  for (size_t i = 0; i < sections.size(); ++i)
    if (!file.read(header.e_shoff + i * sizeof(Elf64_Shdr), sections[i].header))
      return bad("the section table is cut off");
  // What is read, copied and kept is bounded by the file's size, as no byte of it is in two sections: else a
  // small file of many sections could ask for hours and for all memory.
  uint64_t in_file = 0, zeroed = 0;
  size_t symbol_tables = 0;
  for (const Section &s : sections) {
    if (s.header.sh_type == SHT_NULL)
      continue;
    const bool is_zeroed = s.header.sh_type == SHT_NOBITS;
    const uint64_t most = is_zeroed ? kMaxZeroed : object.size();
    uint64_t &sum = is_zeroed ? zeroed : in_file;
    if (s.header.sh_size > most - sum)
      return bad(is_zeroed ? "its zeroed sections have more than 64 MiB"
                           : "its sections have more bytes than the file");
    sum += s.header.sh_size;
    symbol_tables += s.header.sh_type == SHT_SYMTAB;
  }
  if (symbol_tables > 1)
    return bad("it has more than one symbol table");
  uint64_t image = 0, code_end = 0;
  for (bool code : {true, false}) {
    for (Section &s : sections) {
      if (!(s.header.sh_flags & SHF_ALLOC) || bool(s.header.sh_flags & SHF_EXECINSTR) != code)
        continue;
      const uint64_t align = s.header.sh_addralign ? s.header.sh_addralign : 1;
      if (align > page || (align & (align - 1)) || s.header.sh_size > kMaxImage)
        return bad("a section's size or alignment is out of range");
      image = (image + align - 1) / align * align;
      s.at = image;
      s.mapped = true;
      image += s.header.sh_size;
      if (image > kMaxImage)
        return bad("it is larger than 1 GiB");
    }
    image = (image + page - 1) / page * page;
    if (code)
      code_end = image;
  }
  if (!code_end)
    return bad("it has no code");

  std::unique_ptr<LoadedObject> loaded(new LoadedObject);
  loaded->symbols_ = std::make_unique<Symbols>();
  void *memory = mmap(nullptr, image, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return Status(StatusCode::OutOfMemory, "no memory for " + std::to_string(image) + " bytes of code");
  loaded->base_ = static_cast<uint8_t *>(memory);
  loaded->size_ = image;
  for (const Section &s : sections)
    loaded->symbols_->section_addresses.push_back(s.mapped ? reinterpret_cast<uintptr_t>(loaded->base_ + s.at)
                                                           : 0);
  for (const Section &s : sections) {
    if (!s.mapped || s.header.sh_type == SHT_NOBITS)
      continue;
    const uint8_t *bytes = file.range(s.header.sh_offset, s.header.sh_size);
    if (!bytes)
      return bad("a section is cut off");
    std::memcpy(loaded->base_ + s.at, bytes, s.header.sh_size);
  }

  /// Address of symbol `index` of symbol table `table`.
  auto symbolAddress = [&](const Section &table, uint64_t index, Elf64_Sym &symbol) -> const uint8_t * {
    if (index >= table.header.sh_size / sizeof(Elf64_Sym) ||
        !file.read(table.header.sh_offset + index * sizeof(Elf64_Sym), symbol))
      return nullptr;
    if (symbol.st_shndx == SHN_UNDEF || symbol.st_shndx >= sections.size())
      return nullptr;
    const Section &home = sections[symbol.st_shndx];
    if (!home.mapped || symbol.st_value > home.header.sh_size)
      return nullptr;
    return loaded->base_ + home.at + symbol.st_value;
  };

  for (const Section &s : sections) {
    if (s.header.sh_type == SHT_REL)
      return bad("it has relocations without addends");
    const bool table = s.header.sh_type == SHT_RELA || s.header.sh_type == SHT_SYMTAB;
    if (table && !file.range(s.header.sh_offset, s.header.sh_size)) // also bounds the loops below
      return bad("a table is cut off");
    if (s.header.sh_type == SHT_RELA) {
      if (s.header.sh_info >= sections.size() || s.header.sh_link >= sections.size())
        return bad("a relocation section names no section");
      const Section &target = sections[s.header.sh_info];
      if (!target.mapped)
        continue; // debug information
      for (uint64_t i = 0; i < s.header.sh_size / sizeof(Elf64_Rela); ++i) {
        Elf64_Rela rela;
        Elf64_Sym symbol;
        if (!file.read(s.header.sh_offset + i * sizeof rela, rela) || rela.r_offset > target.header.sh_size)
          return bad("a relocation lies outside its section");
        const uint8_t *address = symbolAddress(sections[s.header.sh_link], ELF64_R_SYM(rela.r_info), symbol);
        if (!address)
          return bad("a relocation needs a symbol that is not in the object");
        if (!relocate(ELF64_R_TYPE(rela.r_info), loaded->base_ + target.at + rela.r_offset,
                      target.header.sh_size - rela.r_offset, reinterpret_cast<uintptr_t>(address),
                      rela.r_addend))
          return bad("relocation type " + std::to_string(ELF64_R_TYPE(rela.r_info)) +
                     " is not allowed or overflows");
      }
    }
    if (s.header.sh_type == SHT_SYMTAB) {
      if (s.header.sh_link >= sections.size())
        return bad("the symbol table has no names");
      size_t names = 0, code = 0;
      for (uint64_t i = 0; i < s.header.sh_size / sizeof(Elf64_Sym); ++i) {
        Elf64_Sym symbol;
        const uint8_t *address = symbolAddress(s, i, symbol);
        std::string name;
        if (!address || ELF64_ST_TYPE(symbol.st_info) != STT_FUNC)
          continue;
        if (!file.name(sections[s.header.sh_link].header, symbol.st_name, name))
          return bad("a symbol's name is cut off");
        const uint64_t at = uint64_t(address - loaded->base_);
        if (at >= code_end)
          return bad("a function lies outside the code");
        const size_t size = std::min<size_t>(symbol.st_size, code_end - at);
        names += name.size();
        code += size;
        if (names > object.size() || code > code_end) // they share a name's end, or code, too often
          return bad("its functions have more names or code than the file");
        if (ELF64_ST_BIND(symbol.st_info) == STB_GLOBAL)
          loaded->symbols_->by_name[name] = const_cast<uint8_t *>(address);
        loaded->symbols_->functions.push_back({std::move(name), address, size});
      }
    }
  }
  if (mprotect(loaded->base_, code_end, PROT_READ | PROT_EXEC) != 0)
    return Status(StatusCode::DeviceError, "the system does not let memory become executable");
  return loaded;
}

} // namespace flashplus
