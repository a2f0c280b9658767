// SPDX-License-Identifier: BSD-3-Clause
// Writes small relocatable x86-64 objects byte by byte, good ones and ones that are wrong in one place.
#pragma once

#include "spec/params.h"

#include <cstdint>
#include <cstring>
#include <elf.h>
#include <string>
#include <vector>

namespace flashplus::test {

using Bytes = std::vector<uint8_t>;

struct ObjectSection {
  Elf64_Shdr header{};
  Bytes bytes; ///< Empty for NOBITS.
};

/// A file in parts. Section 0 must be the null section. finish() fills in offsets (and sizes that are 0).
struct ObjectBuilder {
  Elf64_Ehdr header{};
  std::vector<ObjectSection> sections;

  ObjectBuilder() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_REL;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_ehsize = sizeof header;
    header.e_shentsize = sizeof(Elf64_Shdr);
    sections.emplace_back();
  }

  size_t add(uint32_t type, uint64_t flags, Bytes bytes, uint64_t align = 16) {
    ObjectSection s;
    s.header.sh_type = type;
    s.header.sh_flags = flags;
    s.header.sh_addralign = align;
    s.header.sh_size = bytes.size();
    s.bytes = std::move(bytes);
    sections.push_back(std::move(s));
    return sections.size() - 1;
  }

  template <class T> static void append(Bytes &to, const T &value) {
    const auto *raw = reinterpret_cast<const uint8_t *>(&value);
    to.insert(to.end(), raw, raw + sizeof value);
  }

  Bytes finish() {
    Bytes file(sizeof header);
    for (ObjectSection &s : sections) {
      while (file.size() % 16)
        file.push_back(0);
      if (!s.header.sh_offset)
        s.header.sh_offset = file.size();
      file.insert(file.end(), s.bytes.begin(), s.bytes.end());
    }
    if (!header.e_shoff)
      header.e_shoff = file.size();
    if (!header.e_shnum)
      header.e_shnum = uint16_t(sections.size());
    for (const ObjectSection &s : sections)
      append(file, s.header);
    std::memcpy(file.data(), &header, sizeof header);
    return file;
  }
};

/// Index of each section of answerObject().
enum : size_t { kText = 1, kData, kRela, kStrings, kSymbols };

/// `answer`: int32_t answer() returns 42, read from a data section through a PC-relative relocation.
inline ObjectBuilder answerObject() {
  ObjectBuilder b;
  b.add(SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, {0x8b, 0x05, 0, 0, 0, 0, 0xc3}); // mov eax, [rip + ?]; ret
  Bytes data;
  ObjectBuilder::append(data, int32_t(42));
  b.add(SHT_PROGBITS, SHF_ALLOC, data);
  Elf64_Rela rela{};
  rela.r_offset = 2;
  rela.r_info = ELF64_R_INFO(1, R_X86_64_PC32);
  rela.r_addend = -4;
  Bytes relas;
  ObjectBuilder::append(relas, rela);
  b.add(SHT_RELA, 0, relas);
  const std::string names("\0answer\0", 8);
  b.add(SHT_STRTAB, 0, Bytes(names.begin(), names.end()));
  Bytes symbols;
  ObjectBuilder::append(symbols, Elf64_Sym{});
  Elf64_Sym value{};
  value.st_info = ELF64_ST_INFO(STB_LOCAL, STT_OBJECT);
  value.st_shndx = kData;
  ObjectBuilder::append(symbols, value);
  Elf64_Sym answer{};
  answer.st_name = 1;
  answer.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
  answer.st_shndx = kText;
  ObjectBuilder::append(symbols, answer);
  b.add(SHT_SYMTAB, 0, symbols);
  b.sections[kRela].header.sh_info = kText;
  b.sections[kRela].header.sh_link = kSymbols;
  b.sections[kSymbols].header.sh_link = kStrings;
  return b;
}

/// A stand-in for a compiled kernel: each work item adds 1 to *params->tile_counter if that is not null. A
/// combine kernel does nothing.
inline Bytes countingKernel(const std::string &name, bool forward) {
  Bytes code;
  if (forward) {
    code = {0x48, 0x8b, 0x87}; // mov rax, [rdi + ?]
    ObjectBuilder::append(code, int32_t(offsetof(ForwardParams, tile_counter)));
    const Bytes rest = {0x48, 0x85, 0xc0,        // test rax, rax
                        0x74, 0x04,              // je past the increment
                        0xf0, 0x48, 0xff, 0x00}; // lock inc qword [rax]
    code.insert(code.end(), rest.begin(), rest.end());
  }
  code.push_back(0xc3); // ret
  ObjectBuilder b;
  b.add(SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, code);
  Bytes names(1);
  names.insert(names.end(), name.begin(), name.end());
  names.push_back(0);
  const size_t strings = b.add(SHT_STRTAB, 0, names);
  Bytes symbols;
  ObjectBuilder::append(symbols, Elf64_Sym{});
  Elf64_Sym entry{};
  entry.st_name = 1;
  entry.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
  entry.st_shndx = 1;
  ObjectBuilder::append(symbols, entry);
  const size_t table = b.add(SHT_SYMTAB, 0, symbols);
  b.sections[table].header.sh_link = uint32_t(strings);
  return b.finish();
}

} // namespace flashplus::test
