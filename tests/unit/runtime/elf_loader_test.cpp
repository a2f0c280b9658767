// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/elf_loader.h"
#include "tests/unit/runtime/object_builder.h"

#include <chrono>
#include <doctest/doctest.h>
#include <functional>

using namespace flashplus;
using namespace flashplus::test;

namespace {

/// Changes the good object in one place; the loader must refuse it with a message that contains `why`.
void refused(const std::string &why, const std::function<void(ObjectBuilder &)> &change) {
  ObjectBuilder b = answerObject();
  change(b);
  const Bytes file = b.finish();
  auto loaded = LoadedObject::load(file);
  INFO(why);
  REQUIRE(!loaded);
  CHECK(loaded.status().code() == StatusCode::InvalidArgument);
  INFO(loaded.status().message());
  CHECK(loaded.status().message().find(why) != std::string::npos);
}

template <class T> T &record(ObjectSection &s, size_t index) {
  return *reinterpret_cast<T *>(s.bytes.data() + index * sizeof(T));
}

int call(const LoadedObject &object) {
  auto *answer = reinterpret_cast<int (*)()>(object.find("answer"));
  REQUIRE(bool(answer));
  return answer();
}

} // namespace

TEST_CASE("a good object is mapped, relocated and runs") {
  auto loaded = LoadedObject::load(answerObject().finish());
  REQUIRE_MESSAGE(loaded.isOk(), loaded.status().message());
  CHECK(call(**loaded) == 42);
  CHECK((*loaded)->find("other") == nullptr);
  CHECK((*loaded)->find("") == nullptr);
}

TEST_CASE("the file's bytes need no alignment and may go away") {
  Bytes file = answerObject().finish();
  Bytes shifted(1);
  shifted.insert(shifted.end(), file.begin(), file.end());
  auto loaded = LoadedObject::load({shifted.data() + 1, file.size()});
  shifted.assign(shifted.size(), 0xff);
  REQUIRE(loaded.isOk());
  CHECK(call(**loaded) == 42);
}

TEST_CASE("64-bit relocations and zero-filled sections") {
  // The data section holds the address of `answer` (R_X86_64_64) and the code is `mov rax, [rip]; ret` on it.
  ObjectBuilder b = answerObject();
  b.sections[kText].bytes = {0x48, 0x8b, 0x05, 0, 0, 0, 0, 0xc3};
  b.sections[kText].header.sh_size = 8;
  b.sections[kData].bytes.assign(8, 0);
  b.sections[kData].header.sh_size = 8;
  record<Elf64_Rela>(b.sections[kRela], 0).r_offset = 3;
  Bytes relas;
  Elf64_Rela rela{};
  rela.r_info = ELF64_R_INFO(2, R_X86_64_64);
  rela.r_addend = 5;
  ObjectBuilder::append(relas, rela);
  const size_t extra = b.add(SHT_RELA, 0, relas);
  b.sections[extra].header.sh_info = kData;
  b.sections[extra].header.sh_link = kSymbols;
  const size_t zeros = b.add(SHT_NOBITS, SHF_ALLOC | SHF_WRITE, {});
  b.sections[zeros].header.sh_size = 100000;
  auto loaded = LoadedObject::load(b.finish());
  REQUIRE_MESSAGE(loaded.isOk(), loaded.status().message());
  void *answer = (*loaded)->find("answer");
  CHECK(reinterpret_cast<char *(*)()>(answer)() == static_cast<char *>(answer) + 5);
}

TEST_CASE("a malformed object is refused with the reason") {
  refused("not a 64-bit little-endian ELF", [](auto &b) { b.header.e_ident[0] = 0; });
  refused("not a 64-bit little-endian ELF", [](auto &b) { b.header.e_ident[EI_CLASS] = ELFCLASS32; });
  refused("not a 64-bit little-endian ELF", [](auto &b) { b.header.e_ident[EI_DATA] = ELFDATA2MSB; });
  refused("not a relocatable x86-64", [](auto &b) { b.header.e_type = ET_DYN; });
  refused("not a relocatable x86-64", [](auto &b) { b.header.e_machine = EM_AARCH64; });
  refused("not a relocatable x86-64", [](auto &b) { b.header.e_shentsize = 63; });
  refused("section table is cut off", [](auto &b) { b.header.e_shnum = 60000; });
  refused("section table is cut off", [](auto &b) { b.header.e_shoff = ~uint64_t(0) - 10; });
  refused("size or alignment", [](auto &b) { b.sections[kText].header.sh_addralign = 3; });
  refused("size or alignment", [](auto &b) { b.sections[kText].header.sh_addralign = 1 << 20; });
  refused("more bytes than the file", [](auto &b) { b.sections[kText].header.sh_size = ~uint64_t(0); });
  refused("more than 64 MiB", [](auto &b) {
    for (size_t i : {kText, kData}) {
      b.sections[i].header.sh_type = SHT_NOBITS;
      b.sections[i].header.sh_size = 33 << 20;
    }
  });
  refused("more than one symbol table", [](auto &b) { b.sections[kData].header.sh_type = SHT_SYMTAB; });
  refused("no code", [](auto &b) { b.sections[kText].header.sh_flags = 0; });
  refused("no code", [](auto &b) { b.sections[kText].header.sh_flags = SHF_ALLOC; });
  refused("more bytes than the file", [](auto &b) { b.sections[kData].header.sh_size = 100000; });
  refused("a section is cut off", [](auto &b) { b.sections[kData].header.sh_offset = ~uint64_t(0); });
  refused("without addends", [](auto &b) { b.sections[kRela].header.sh_type = SHT_REL; });
  refused("names no section", [](auto &b) { b.sections[kRela].header.sh_info = 77; });
  refused("names no section", [](auto &b) { b.sections[kRela].header.sh_link = 77; });
  refused("outside its section", [](auto &b) { record<Elf64_Rela>(b.sections[kRela], 0).r_offset = 8; });
  refused("a table is cut off", [](auto &b) { b.sections[kRela].header.sh_offset = ~uint64_t(0) - 40; });
  refused("more bytes than the file", [](auto &b) { b.sections[kRela].header.sh_size = 24000; });
  refused("more bytes than the file",
          [](auto &b) { b.sections[kSymbols].header.sh_size = uint64_t(1) << 60; });
  refused("overflows", [](auto &b) { record<Elf64_Rela>(b.sections[kRela], 0).r_offset = 4; });
  refused("overflows", [](auto &b) { record<Elf64_Rela>(b.sections[kRela], 0).r_addend = INT64_MAX; });
  refused("overflows", [](auto &b) { record<Elf64_Rela>(b.sections[kRela], 0).r_addend = INT64_MIN; });
  refused("relocation type 10", [](auto &b) {
    record<Elf64_Rela>(b.sections[kRela], 0).r_info = ELF64_R_INFO(1, R_X86_64_32);
  });
  refused("symbol that is not in the object", [](auto &b) { // a call of another library's function
    record<Elf64_Sym>(b.sections[kSymbols], 1).st_shndx = SHN_UNDEF;
  });
  refused("symbol that is not in the object",
          [](auto &b) { record<Elf64_Sym>(b.sections[kSymbols], 1).st_shndx = SHN_ABS; });
  refused("symbol that is not in the object",
          [](auto &b) { record<Elf64_Sym>(b.sections[kSymbols], 1).st_value = 1000; });
  refused("symbol that is not in the object", [](auto &b) {
    record<Elf64_Rela>(b.sections[kRela], 0).r_info = ELF64_R_INFO(9, R_X86_64_PC32);
  });
  refused("more than one symbol table", // each could be read once for each relocation
          [](auto &b) { b.sections.push_back(ObjectSection(b.sections[kSymbols])); });
  refused("no names", [](auto &b) { b.sections[kSymbols].header.sh_link = 77; });
  refused("name is cut off", [](auto &b) { record<Elf64_Sym>(b.sections[kSymbols], 2).st_name = 1000; });
  refused("name is cut off", [](auto &b) { b.sections[kStrings].bytes.back() = 'x'; });
  refused("outside the code", [](auto &b) { record<Elf64_Sym>(b.sections[kSymbols], 2).st_shndx = kData; });
}

TEST_CASE("an object cut off anywhere is refused or has its code") {
  const Bytes file = answerObject().finish();
  for (size_t size = 0; size < file.size(); ++size)
    CHECK(!LoadedObject::load({file.data(), size}));
}

namespace {

/// Whether an object is answered at once, however it is made.
void quicklyRefused(const char *reason, const Bytes &file) {
  REQUIRE(file.size() < size_t(2) << 20);
  const auto start = std::chrono::steady_clock::now();
  const auto loaded = LoadedObject::load(file);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  REQUIRE_FALSE(loaded.isOk());
  CHECK_MESSAGE(loaded.status().message().find(reason) != std::string::npos, loaded.status().message());
  CHECK(took.count() < 1); // milliseconds; unbounded it was 15 s and 4 GB
}

/// Many functions, each called by `name` of the string table and with all of the code.
ObjectBuilder manyFunctions(size_t count, uint32_t (*name)(size_t), uint64_t size, const Bytes &names) {
  ObjectBuilder b = answerObject();
  b.sections[kStrings].bytes = names;
  b.sections[kStrings].header.sh_size = names.size();
  Bytes symbols = b.sections[kSymbols].bytes;
  Elf64_Sym function = record<Elf64_Sym>(b.sections[kSymbols], 2);
  for (size_t i = 0; i < count; ++i) {
    function.st_name = name(i);
    function.st_size = size;
    ObjectBuilder::append(symbols, function);
  }
  b.sections[kSymbols].bytes = symbols;
  b.sections[kSymbols].header.sh_size = symbols.size();
  return b;
}

} // namespace

TEST_CASE("a small object cannot ask for much time or memory") {
  Bytes names(300'000, 'n');
  names.front() = names.back() = 0;
  SUBCASE("one long name") {
    quicklyRefused("name is cut off", manyFunctions(
                                          12'000, [](size_t) { return 1u; }, 0, names)
                                          .finish());
  }
  SUBCASE("names that share an end") {
    for (size_t i = 4000; i < names.size(); i += 4000)
      names[i] = 0;
    quicklyRefused("more names or code", manyFunctions(
                                             12'000, [](size_t i) { return uint32_t(i + 1); }, 0, names)
                                             .finish());
  }
  SUBCASE("functions that share the code") {
    names[7] = 0;
    quicklyRefused("more names or code", manyFunctions(
                                             12'000, [](size_t) { return 0u; }, 7, names)
                                             .finish());
  }
  for (uint32_t type : {SHT_SYMTAB, SHT_RELA, SHT_PROGBITS, SHT_NOBITS}) {
    CAPTURE(type); // one table, read by very many sections
    ObjectBuilder b = answerObject();
    Bytes table(200'000);
    const size_t first = b.add(SHT_PROGBITS, 0, table);
    b.finish();
    for (int i = 0; i < 8000; ++i) {
      ObjectSection again = b.sections[type == SHT_SYMTAB ? kSymbols : kRela];
      again.bytes.clear();
      again.header.sh_type = type;
      again.header.sh_flags = type == SHT_PROGBITS || type == SHT_NOBITS ? uint64_t(SHF_ALLOC) : 0;
      again.header.sh_addralign = 16;
      again.header.sh_size = table.size();
      again.header.sh_offset = b.sections[first].header.sh_offset;
      b.sections.push_back(again);
    }
    b.header.e_shoff = 0;
    b.header.e_shnum = 0;
    quicklyRefused(type == SHT_NOBITS ? "more than 64 MiB" : "more bytes than the file", b.finish());
  }
}
