// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/ptx/parser.h"

#include <cstring>

namespace flashplus::emu {
namespace {

// Sizes above these are mistakes (or attacks): refused before anything is allocated.
constexpr uint64_t kMaxVariableBytes = 1u << 26;
constexpr int kMaxRegisters = 1 << 20;
constexpr int kMaxDepth = 64;

/// Nothing throws: the first failure is kept and the rest of the text is skipped, so that every loop over it
/// ends as at the end of the text, and whatever is parsed after that is thrown away with the module.
class Parser {
public:
  explicit Parser(ModuleAst &module) : module_(module), text_(module.source) {}

  Status parse() {
    skipSpace();
    while (!atEnd()) {
      parseTopLevel();
      skipSpace();
    }
    if (module_.version == 0)
      fail(here(), ".version is missing");
    return failed_ ? invalidArgument(message_) : Status::ok();
  }

private:
  // --- characters
  // ------------------------------------------------------------------------------------------------
  bool atEnd() const { return pos_ >= text_.size(); }
  char peek(size_t ahead = 0) const { return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : '\0'; }
  void advance() {
    if (!atEnd() && text_[pos_++] == '\n') {
      ++line_;
      line_start_ = pos_;
    }
  }
  Location here() const { return {line_, int(pos_ - line_start_) + 1}; }
  void fail(Location at, const std::string &message) {
    if (!failed_)
      message_ = at.text() + ": " + message;
    failed_ = true;
    pos_ = text_.size();
  }

  void skipSpace() {
    while (!atEnd()) {
      const char c = peek();
      if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        advance();
      } else if (c == '/' && peek(1) == '/') {
        while (!atEnd() && peek() != '\n')
          advance();
      } else if (c == '/' && peek(1) == '*') {
        const Location start = here();
        advance(), advance();
        while (!(peek() == '*' && peek(1) == '/')) {
          if (atEnd())
            return fail(start, "comment without an end");
          advance();
        }
        advance(), advance();
      } else {
        return;
      }
    }
  }

  static bool isWordStart(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' || c == '%';
  }
  static bool isDigit(char c) { return c >= '0' && c <= '9'; }
  static bool isWord(char c) { return isWordStart(c) || isDigit(c); }

  std::string_view word(const char *what) {
    skipSpace();
    const size_t start = pos_;
    if (!isWordStart(peek())) {
      fail(here(), std::string("expected ") + what + unexpected());
      return {};
    }
    while (isWord(peek()))
      advance();
    return text_.substr(start, pos_ - start);
  }

  std::string unexpected() const {
    if (atEnd())
      return ", found the end of the text";
    const char c = peek();
    return c >= ' ' && c <= '~' ? std::string(", found '") + c + "'" : ", found a character that is not text";
  }

  bool accept(char c) {
    skipSpace();
    if (peek() != c)
      return false;
    advance();
    return true;
  }
  void expect(char c) {
    if (!accept(c))
      fail(here(), std::string("expected '") + c + "'" + unexpected());
  }

  /// ".name", with "::" inside; empty if the next thing is no dot.
  std::string_view dotted() {
    skipSpace();
    if (peek() != '.')
      return {};
    advance();
    const size_t start = pos_;
    while (isWord(peek()) || (peek() == ':' && peek(1) == ':'))
      peek() == ':' ? (advance(), advance()) : advance();
    if (start == pos_) {
      fail(here(), "expected a name after '.'" + unexpected());
      return {};
    }
    return text_.substr(start, pos_ - start);
  }

  // --- numbers
  // -----------------------------------------------------------------------------------------------------
  uint64_t digits(int base, int max_digits) {
    uint64_t value = 0;
    int count = 0;
    for (;; ++count) {
      const char c = peek();
      int digit = isDigit(c)             ? c - '0'
                  : c >= 'a' && c <= 'f' ? c - 'a' + 10
                  : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                         : 99;
      if (digit >= base)
        break;
      if (count >= max_digits || value > (UINT64_MAX - uint64_t(digit)) / uint64_t(base)) {
        fail(here(), "number is too large");
        return 0;
      }
      value = value * uint64_t(base) + uint64_t(digit);
      advance();
    }
    if (count == 0)
      fail(here(), "expected a digit" + unexpected());
    return value;
  }

  OperandAst number() {
    skipSpace();
    OperandAst out;
    out.at = here();
    out.kind = OperandAst::Kind::Integer;
    bool negative = false;
    if (peek() == '-') {
      negative = true;
      advance();
    }
    if (!isDigit(peek())) {
      fail(here(), "expected a number" + unexpected());
      return out;
    }
    const char second = peek(1);
    if (peek() == '0' && (second == 'f' || second == 'F' || second == 'd' || second == 'D')) {
      const bool wide = second == 'd' || second == 'D';
      advance(), advance();
      const size_t start = pos_;
      out.value = digits(16, 16);
      if (pos_ - start != (wide ? 16u : 8u))
        fail(out.at, wide ? "0d needs 16 hexadecimal digits" : "0f needs 8 hexadecimal digits");
      out.kind = wide ? OperandAst::Kind::Float64 : OperandAst::Kind::Float32;
      if (negative)
        out.value ^= wide ? uint64_t(1) << 63 : uint64_t(1) << 31;
    } else if (peek() == '0' && (second == 'x' || second == 'X')) {
      advance(), advance();
      out.value = digits(16, 16);
    } else if (peek() == '0' && (second == 'b' || second == 'B')) {
      advance(), advance();
      out.value = digits(2, 64);
    } else if (peek() == '0' && isDigit(second)) {
      out.value = digits(8, 23);
    } else {
      const size_t start = pos_;
      while (isDigit(peek()))
        advance();
      if (peek() == '.' || peek() == 'e' || peek() == 'E') { // a decimal floating point number is an f64
        while (isDigit(peek()) || peek() == '.' || peek() == 'e' || peek() == 'E' ||
               ((peek() == '-' || peek() == '+') && (text_[pos_ - 1] == 'e' || text_[pos_ - 1] == 'E')))
          advance();
        const std::string digits_text(text_.substr(start, pos_ - start));
        char *end = nullptr;
        double value = std::strtod(digits_text.c_str(), &end);
        if (*end)
          fail(out.at, "'" + digits_text + "' is no number");
        value = negative ? -value : value;
        std::memcpy(&out.value, &value, 8);
        out.kind = OperandAst::Kind::Float64;
        return out;
      }
      pos_ = start;
      out.value = digits(10, 20);
    }
    if (out.kind == OperandAst::Kind::Integer) {
      if (peek() == 'U')
        advance();
      if (negative)
        out.value = uint64_t(0) - out.value;
    }
    if (isWord(peek()))
      fail(here(), "a number ends in '" + std::string(1, peek()) + "'");
    return out;
  }

  uint64_t unsignedNumber(const char *what, uint64_t max) {
    const OperandAst n = number();
    if (n.kind == OperandAst::Kind::Integer && n.value <= max)
      return n.value;
    fail(n.at, std::string(what) + " must be an integer from 0 to " + std::to_string(max));
    return 0;
  }

  // --- declarations
  // ------------------------------------------------------------------------------------------------
  void parseTopLevel() {
    const Location at = here();
    std::string_view name = dotted();
    if (name.empty())
      return fail(at, "expected a directive" + unexpected());
    if (name == "version") {
      const uint64_t major = unsignedNumberNoDot("version");
      expect('.');
      module_.version = int(major * 10 + digits(10, 2));
      return;
    }
    if (name == "target") {
      module_.target = std::string(word("a target"));
      while (accept(','))
        word("a target option");
      return;
    }
    if (name == "address_size") {
      if (unsignedNumber("address size", 64) != 64)
        return fail(at, "only .address_size 64 is modelled");
      return;
    }
    if (name == "file") {
      skipLine();
      return;
    }
    if (name == "section")
      return skipBraces();
    bool external = false;
    while (name == "visible" || name == "extern" || name == "weak" || name == "common") {
      external |= name == "extern";
      name = dotted();
    }
    if (name == "entry")
      return parseEntry(at);
    if (name == "func")
      return fail(at, "device functions (.func) are not modelled");
    const Space space = variableSpace(name);
    if (space == Space::Generic)
      return fail(at, "directive ." + std::string(name) + " is not known");
    parseVariables(space, external, [&](VariableAst v) { module_.variables.push_back(std::move(v)); });
  }

  uint64_t unsignedNumberNoDot(const char *what) {
    skipSpace();
    if (!isDigit(peek())) {
      fail(here(), std::string("expected the ") + what + unexpected());
      return 0;
    }
    return digits(10, 2);
  }

  static Space variableSpace(std::string_view name) {
    return name == "global"   ? Space::Global
           : name == "shared" ? Space::Shared
           : name == "const"  ? Space::Const
           : name == "local"  ? Space::Local
                              : Space::Generic;
  }

  void skipLine() {
    while (!atEnd() && peek() != '\n')
      advance();
  }
  void skipBraces() {
    const Location start = here();
    while (!atEnd() && peek() != '{')
      advance();
    while (!atEnd() && peek() != '}')
      advance();
    if (atEnd())
      return fail(start, "section without an end");
    advance();
  }

  /// [.align N] .type after the space, for variables and parameters.
  void parseAlignAndType(VariableAst &v) {
    v.at = here();
    for (;;) {
      const Location at = here();
      const std::string_view name = dotted();
      if (name.empty())
        return fail(at, "expected a type" + unexpected());
      if (name == "align") {
        const uint64_t align = unsignedNumber("alignment", 1 << 16);
        if (align == 0 || (align & (align - 1)))
          return fail(at, "alignment " + std::to_string(align) + " is no power of two");
        v.align = uint32_t(align);
        continue;
      }
      if (name == "ptr" || name == "global" || name == "shared" || name == "const" || name == "local")
        continue; // what a pointer parameter points to: a hint
      if (name == "attribute" || name == "unified" || name == "managed")
        return fail(at, "variable attributes are not modelled");
      v.type = typeNamed(name);
      if (v.type == Type::None || v.type == Type::Pred)
        return fail(at, "." + std::string(name) + " is no type of a variable");
      break;
    }
    v.align = std::max(v.align, uint32_t(typeBits(v.type) / 8));
  }

  /// Pointer parameters may have ".ptr .global .align N" after the type.
  void skipPointerHints() {
    skipSpace();
    while (peek() == '.') {
      const std::string_view hint = dotted();
      if (hint == "align")
        (void)unsignedNumber("alignment", 1 << 16);
    }
  }

  void parseNameAndSize(VariableAst &v) {
    skipSpace();
    v.at = here();
    v.name = word("a name");
    uint64_t bytes = uint64_t(typeBits(v.type) / 8);
    bool array = false;
    while (accept('[')) {
      array = true;
      if (accept(']')) {
        bytes = 0;
        break;
      }
      bytes *= unsignedNumber("array length", kMaxVariableBytes);
      expect(']');
      if (bytes > kMaxVariableBytes)
        return fail(v.at, "variable " + std::string(v.name) + " is larger than " +
                              std::to_string(kMaxVariableBytes) + " bytes");
    }
    v.bytes = bytes;
    if (array && bytes == 0 && !v.external)
      return fail(v.at, "only .extern variables may leave their length open");
  }

  template <class Add> void parseVariables(Space space, bool external, Add add) {
    VariableAst base;
    base.space = space;
    base.external = external;
    parseAlignAndType(base);
    do {
      VariableAst v;
      v.space = base.space, v.external = base.external, v.type = base.type, v.align = base.align;
      parseNameAndSize(v);
      if (accept('='))
        parseInitializer(v);
      add(std::move(v));
    } while (accept(','));
    expect(';');
  }

  void parseInitializer(VariableAst &v) {
    if (v.space == Space::Shared)
      return fail(here(), "shared memory cannot be initialised");
    auto element = [&] {
      const OperandAst n = number();
      const size_t bytes = size_t(typeBits(v.type) / 8);
      if (v.initial.size() + bytes > v.bytes)
        return fail(n.at, "more initial values than " + std::string(v.name) + " has elements");
      const size_t at = v.initial.size();
      v.initial.resize(at + bytes);
      std::memcpy(v.initial.data() + at, &n.value, std::min<size_t>(bytes, 8));
    };
    if (!accept('{'))
      return element();
    if (accept('}'))
      return;
    do
      element();
    while (accept(','));
    expect('}');
  }

  // --- entries
  // -------------------------------------------------------------------------------------------------------
  void parseEntry(Location at) {
    EntryAst entry;
    entry.at = at;
    entry.name = word("the entry's name");
    if (accept('(') && !accept(')')) {
      do {
        const Location where = here();
        if (dotted() != "param")
          return fail(where, "expected .param");
        VariableAst p;
        p.space = Space::Param;
        parseAlignAndType(p);
        skipPointerHints();
        parseNameAndSize(p);
        entry.params.push_back(std::move(p));
      } while (accept(','));
      expect(')');
    }
    for (skipSpace(); peek() == '.'; skipSpace()) {
      const Location where = here();
      const std::string_view name = dotted();
      auto dims = [&](uint32_t(&out)[3]) {
        out[0] = uint32_t(unsignedNumber("thread count", 1u << 20));
        out[1] = out[2] = 1;
        for (int i = 1; i < 3 && accept(','); ++i)
          out[i] = uint32_t(unsignedNumber("thread count", 1u << 20));
      };
      if (name == "reqntid")
        dims(entry.required_threads);
      else if (name == "maxntid")
        dims(entry.max_threads);
      else if (name == "minnctapersm")
        entry.min_ctas = int(unsignedNumber("number of CTAs", 64));
      else if (name == "maxnreg")
        entry.max_registers = int(unsignedNumber("number of registers", 255));
      else if (name == "reqnctapercluster")
        dims(entry.cluster);
      else if (name == "explicitcluster")
        continue;
      else if (name == "pragma")
        skipLine();
      else
        return fail(where, "directive ." + std::string(name) + " of an entry is not known");
    }
    expect('{');
    entry.scopes.emplace_back();
    parseBlock(entry, 0, 0);
    module_.entries.push_back(std::move(entry));
  }

  void parseBlock(EntryAst &entry, int scope, int depth) {
    if (depth > kMaxDepth)
      return fail(here(), "blocks are nested too deeply");
    for (;;) {
      skipSpace();
      const Location at = here();
      if (atEnd())
        return fail(at, "the body of " + std::string(entry.name) + " has no end");
      if (accept('}')) {
        entry.end = at;
        return;
      }
      if (accept('{')) {
        const int inner = int(entry.scopes.size());
        entry.scopes.emplace_back().parent = scope;
        parseBlock(entry, inner, depth + 1);
        continue;
      }
      if (accept(';'))
        continue;
      if (peek() == '.') {
        parseBodyDirective(entry, scope);
        continue;
      }
      parseStatement(entry, scope);
    }
  }

  void parseBodyDirective(EntryAst &entry, int scope) {
    const Location at = here();
    const std::string_view name = dotted();
    if (name == "reg")
      return parseRegisters(entry, scope);
    if (name == "loc" || name == "file" || name == "pragma")
      return skipLine();
    const Space space = variableSpace(name);
    if (space == Space::Generic)
      return fail(at, "directive ." + std::string(name) + " inside a body is not known");
    parseVariables(space, false, [&](VariableAst v) {
      entry.scopes[size_t(scope)].variables[v.name] = entry.variables.size();
      entry.variables.push_back(std::move(v));
    });
  }

  void parseRegisters(EntryAst &entry, int scope) {
    const Location at = here();
    const std::string_view type_name = dotted();
    const Type type = typeNamed(type_name);
    if (type == Type::None || type == Type::B8 || type == Type::U8 || type == Type::S8 || type == Type::B128)
      return fail(at, "." + std::string(type_name) + " is no type of a register");
    do {
      skipSpace();
      const Location where = here();
      const std::string_view name = word("a register");
      RegisterAst reg{type, -1};
      if (accept('<')) {
        reg.count = int(unsignedNumber("number of registers", kMaxRegisters));
        expect('>');
      }
      if (!entry.scopes[size_t(scope)].registers.emplace(name, reg).second)
        return fail(where, "register " + std::string(name) + " is declared twice");
    } while (accept(','));
    expect(';');
  }

  void parseStatement(EntryAst &entry, int scope) {
    InstructionAst in;
    in.scope = scope;
    const size_t start = pos_;
    skipSpace();
    in.at = here();
    if (accept('@')) {
      in.guard_negated = accept('!');
      in.guard = word("a predicate");
      skipSpace();
    }
    const size_t opcode_start = pos_;
    in.opcode = word("an instruction");
    if (in.guard.empty() && peek() == ':' && peek(1) != ':') {
      advance();
      if (!entry.scopes[size_t(scope)].labels.emplace(in.opcode, uint32_t(entry.code.size())).second)
        return fail(in.at, "label " + std::string(in.opcode) + " is declared twice");
      return;
    }
    (void)opcode_start;
    while (peek() == '.') {
      in.modifier_columns.push_back(here().column);
      in.modifiers.push_back(dotted());
    }
    skipSpace();
    if (peek() != ';') {
      do
        in.operands.push_back(parseOperand(0));
      while (accept(','));
    }
    expect(';');
    in.text = text_.substr(start, pos_ - start);
    entry.code.push_back(std::move(in));
  }

  OperandAst parseOperand(int depth) {
    OperandAst out;
    if (depth > kMaxDepth) {
      fail(here(), "operands are nested too deeply");
      return out;
    }
    skipSpace();
    out.at = here();
    if (accept('!')) {
      out = parseOperand(depth + 1);
      out.negated = !out.negated;
      return out;
    }
    if (accept('{')) {
      out.kind = OperandAst::Kind::Vector;
      do
        out.elements.push_back(parseOperand(depth + 1));
      while (accept(','));
      expect('}');
      return out;
    }
    if (accept('[')) {
      out.kind = OperandAst::Kind::Address;
      out.elements.push_back(parseOperand(depth + 1));
      for (skipSpace(); peek() == '+' || peek() == '-'; skipSpace()) {
        const bool negative = peek() == '-';
        advance();
        const OperandAst n = number();
        if (n.kind != OperandAst::Kind::Integer)
          fail(n.at, "an address offset must be an integer");
        out.offset = int64_t(uint64_t(out.offset) + (negative ? uint64_t(0) - n.value : n.value));
      }
      while (accept(','))
        out.elements.push_back(parseOperand(depth + 1));
      expect(']');
      return out;
    }
    if (isDigit(peek()) || peek() == '-')
      return number();
    const size_t start = pos_;
    out.name = word("an operand");
    if (out.name == "_") {
      out.kind = OperandAst::Kind::Sink;
    } else if (out.name.starts_with('%') && peek() == '.' && isWordStart(peek(1))) { // %tid.x
      advance();
      while (isWord(peek()))
        advance();
      out.name = text_.substr(start, pos_ - start);
    }
    if (accept('|'))
      out.second = std::make_unique<OperandAst>(parseOperand(depth + 1));
    return out;
  }

  ModuleAst &module_;
  std::string_view text_;
  size_t pos_ = 0, line_start_ = 0;
  int line_ = 1;
  bool failed_ = false;
  std::string message_; ///< Of the first failure.
};

} // namespace

Result<std::unique_ptr<ModuleAst>> parsePtx(std::string text) {
  auto module = std::make_unique<ModuleAst>();
  while (!text.empty() && text.back() == '\0') // as drivers take it
    text.pop_back();
  module->source = std::move(text);
  FLASHPLUS_RETURN_IF_ERROR(Parser(*module).parse());
  return module;
}

} // namespace flashplus::emu
