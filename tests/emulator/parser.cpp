// SPDX-License-Identifier: BSD-3-Clause
// Bad PTX: an error with line and column, never a guess.
#include "emulator/core/program.h"
#include "tests/emulator/cases.h"

#include <algorithm>
#include <doctest/doctest.h>

using namespace flashplus::emu;
using flashplus::emu::test::module;

namespace {

std::string load(const std::string &ptx) {
  auto program = loadProgram(ptx, "");
  return program ? "" : program.status().message();
}

/// The error of a module whose body has `line` as its 12th line, without the location if it is right.
std::string body(const std::string &line) {
  const std::string ptx = module(line);
  const int at = 1 + int(std::count(ptx.begin(), ptx.begin() + long(ptx.find(line)), '\n'));
  const std::string error = load(ptx), start = "line " + std::to_string(at) + ", column ";
  if (error.empty())
    return "accepted";
  if (!error.starts_with(start))
    return "wrong place: " + error;
  return error.substr(start.size());
}

bool says(const std::string &error, const std::string &part) { return error.find(part) != std::string::npos; }

} // namespace

TEST_CASE("unknown things in a body are errors at their place") {
  CHECK(body("frobnicate.b32 %r1, %r2;") == "1: instruction 'frobnicate' is not known");
  CHECK(body("add.s32.fast %r1, %gid, 1;") == "8: add: modifier .fast is not known here");
  CHECK(body("  add.fast.s32 %r1, %gid, 1;") == "6: add: modifier .fast is not known here");
  CHECK(body("mma.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 {%r1}, {%r1}, {%r1}, {%r1};") ==
        "17: mma: expected .m16n8k16, .m16n8k8, found .m16n8k32");
  CHECK(says(body("ld.global.b33 %r1, [%in];"), "modifier .b33 is not known here"));
  CHECK(says(body("ld.global %r1, [%in];"), "a type is missing"));
  CHECK(says(body("ld.texture.b32 %r1, [%in];"), ".texture is not known here"));
  CHECK(says(body("cp.async.cg.shared.global [%in], [%in], 8;"), "the size must be 4, 8 or 16, with .cg 16"));
  CHECK(says(body("setp.hi.s32 %p1, %gid, 1;"), "setp.hi does not exist for .s32"));
  CHECK(says(body("min.b32 %r1, %gid, 1;"), "min does not exist for .b32"));
  CHECK(says(body("fma.f32 %r1, %gid, %gid, %gid;"), "a rounding (.rn, .rz, .rm, .rp) is missing"));
  CHECK(says(body("cvt.f16.f32 %rs1, %gid;"), "a rounding (.rn, .rz, .rm, .rp) is missing"));
  CHECK(says(body("shfl.sync.bfly.b64 %rd1, %rd2, 1, 31, -1;"), "expected .b32"));
  CHECK(says(body("call foo;"), "instruction 'call' is not known"));
}

TEST_CASE("operands are checked") {
  CHECK(says(body("add.s32 %r1, %gid;"), "2 operands, expected 3"));
  CHECK(body("add.s32 %rd1, %gid, 1;") == "9: add: register %rd1 is .b64, the instruction writes .s32");
  CHECK(body("add.s32 %r1, %rs1, 1;") == "14: add: register %rs1 is .b16, the instruction reads .s32");
  CHECK(body("add.s32 %r1, %nosuch, 1;") == "14: '%nosuch' is not declared");
  CHECK(body("add.s32 %r64, %gid, 1;") == "9: register %r64 is past the 64 that are declared");
  CHECK(says(body("add.s32 5, %gid, 1;"), "a destination must be a register"));
  CHECK(says(body("add.s32 %r1, %gid, 0x100000000;"), "does not fit .s32"));
  CHECK(says(body("add.f32 %r1, %gid, 1;"), "an integer where a .f32 is expected"));
  CHECK(says(body("add.s32 %r1, %p1, 1;"), "register %p1 is .pred"));
  CHECK(says(body("@%r1 add.s32 %r1, %gid, 1;"), "is no predicate"));
  CHECK(says(body("selp.b32 %r1, %gid, 1, %r2;"), "a predicate is expected"));
  CHECK(says(body("bra NOWHERE;"), "label 'NOWHERE' is not declared"));
  CHECK(says(body("ld.global.v4.b32 {%r1, %r2}, [%in];"), "2 registers in braces, expected 4"));
  CHECK(says(body("ld.global.b32 %r1, %in;"), "expected an address in brackets"));
  CHECK(says(body("ld.global.b32 %r1, [%r2];"), "an address is .b64"));
  CHECK(says(body("ld.shared.b32 %r1, [input];"), "input is in .param space"));
  CHECK(says(body("cp.async.wait_group %r1;"), "must be a constant"));
}

TEST_CASE("text that is no PTX") {
  CHECK(says(load(""), ".version is missing"));
  CHECK(says(load("hello"), "line 1, column 1: expected a directive, found 'h'"));
  CHECK(says(load(".version 8.0\n.frob 3"), "line 2, column 1: directive .frob is not known"));
  CHECK(says(load(".version 8.0\n.func foo() {}"), "device functions (.func) are not modelled"));
  CHECK(says(load(".version 8.0\n/* no end"), "line 2, column 1: comment without an end"));
  CHECK(says(load(".version 8.0\n.visible .entry test() {\n ret"),
             "line 3, column 5: expected an operand, found the end of the text"));
  CHECK(says(load(".version 8.0\n.visible .entry test() {\n"), "the body of test has no end"));
  CHECK(says(load(".version 8.0\n.visible .entry test() {\n\t.reg .b32 %r<4>, %r<4>;\n}"),
             "line 3, column 19: register %r is declared twice"));
  CHECK(says(load(".version 8.0\n.visible .entry test() {\nA: A: ret; }"),
             "line 3, column 4: label A is declared twice"));
  CHECK(says(load(".version 8.0\n.shared .align 3 .b8 x[4];"), "alignment 3 is no power of two"));
  CHECK(
      says(load(".version 8.0\n.shared .b8 x[999999999999];"), "array length must be an integer from 0 to"));
  CHECK(says(load(".version 8.0\n.shared .b8 x[];"), "only .extern variables may leave their length open"));
  CHECK(says(load(".version 8.0\n.visible .entry test() { .reg .b32 %r1; mov.b32 %r1, 0f12; }"),
             "0f needs 8 hexadecimal digits"));
  CHECK(
      says(load(".version 8.0\n.visible .entry test() { .reg .b32 %r1; mov.b32 %r1, 99999999999999999999; }"),
           "number is too large"));
  CHECK(says(load(".version 8.0\n.visible .entry test() { .reg .b32 %r1; mov.b32 %r1, 12ab; }"),
             "a number ends in 'a'"));
  CHECK(says(load(std::string(".version 8.0\n.visible .entry test() { mov.b32 ") + std::string(100, '{')),
             "nested too deeply"));
  CHECK(says(load(".version 8.0\n.visible .entry test() {" + std::string(100, '{')), "nested too deeply"));
  const std::string global = ".version 8.0\n.global .b8 x[4];\n.visible .entry test() { .reg .b64 %r1; ";
  CHECK(load(global + "ret; }") == ""); // what code says to its loader
  CHECK(says(load(global + "mov.b64 %r1, x; ret; }"), "global variables are not modelled"));
  CHECK(says(load(global + "ld.global.b64 %r1, [x]; ret; }"), "global variables are not modelled"));
  CHECK(says(load(".version 8.0\n.visible .entry a() { ret; }\n.visible .entry b() { ret; }"), "2 entries"));
}

TEST_CASE("the first mistake is told, and what follows one does no harm") {
  CHECK(says(load(".version 8.0\n.frob\n.func f() {}"), "line 2, column 1: directive .frob"));
  CHECK(body("mov.u32 %none, 1; add.u32 %r1, %alsonone, 2;") == "9: '%none' is not declared");
  const std::string good =
      module("L: mov.u32 %r1, 0x10; @%p1 bra L; { .reg .b32 %x<2>; add.s32 %x1, %r1, -1; }\n"
             "ld.global.v2.u32 {%r1, %r2}, [%rd1+8]; setp.lt.and.f32 %p1|%p2, %r3, 0f3f800000, "
             "%p2;\nshfl.sync.bfly.b32 %r1|%p1, %r2, 1, 31, -1; mov.b64 {%r1, %r2}, %rd1; "
             "cvt.rn.f32.s32 %r3, %r1; atom.global.cas.b32 %r1, [%rd1], %r2, 0; elect.sync "
             "%r1|%p1, -1;\n");
  REQUIRE(load(good) == "");
  const size_t lines = size_t(std::count(good.begin(), good.end(), '\n')) + 1;
  for (size_t at = 0; at < good.size(); ++at) {
    CAPTURE(at);
    CHECK((load(good.substr(0, at)) != "" || at + 1 == good.size()));
    for (char c : std::string("{[(.,;\"/*9-%_|@!\n")) { // each ends, as a program or an error within the text
      std::string changed = good;
      changed[at] = c;
      const std::string error = load(changed);
      if (error.starts_with("line "))
        CHECK(size_t(std::stoi(error.substr(5))) <= lines + 1);
    }
    std::string shorter = good;
    shorter.erase(at, 1 + at % 7);
    (void)load(shorter);
  }
}

TEST_CASE("what is accepted") {
  CHECK(load(".version 8.0 .target sm_90a, debug .address_size 64 .visible .entry test() .maxntid 128, 1, 1 "
             ".minnctapersm 2 { ret; }") == "");
  CHECK(body(".loc 1 2 3\n// comment\n/* and\nanother */ mov.u32 %r1, 0b101; mov.b32 %r2, 017; mov.b32 %r3, "
             "-5;") == "accepted");
  CHECK(body("L1: { L1: bra L1; }") == "accepted");
  CHECK(load(module("") + std::string(1, '\0')) == "");
}
