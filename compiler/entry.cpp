// SPDX-License-Identifier: BSD-3-Clause
// The C table of entry.h. Everything that enters is text and is parsed before LLVM sees it.
#include "compiler/entry.h"

#include "build_id.h"
#include "compiler/codegen/nvjitlink.h"
#include "compiler/codegen/ptxas.h"
#include "compiler/compiler.h"

#include "compiler/own_stack.h"

#include "llvm/Config/llvm-config.h"
#include "llvm/Support/ErrorHandling.h"

#include <cstdlib>
#include <cstring>
#include <new>

static_assert(std::string_view(LLVM_VERSION_STRING) == FLASHPLUS_BUILD_LLVM_VERSION,
              "the build id was made for another LLVM than the one that is compiled against");

namespace flashplus {
namespace {

void setBytes(flashplus_compile_result *result, StatusCode code, const void *data, size_t size) {
  result->status = int(code);
  result->data = static_cast<uint8_t *>(std::malloc(size + 1));
  result->size = result->data ? size : 0;
  if (!result->data) {
    result->status = int(StatusCode::OutOfMemory);
    return;
  }
  if (size)
    std::memcpy(result->data, data, size);
  result->data[size] = 0; // text results are C strings too
}

void setFailure(flashplus_compile_result *result, const Status &status) {
  setBytes(result, status.code(), status.message().data(), status.message().size());
}

Result<Kernel> parseRequest(const flashplus_compile_request &request) {
  if (!request.spec || !request.schedule || !request.target)
    return invalidArgument("spec, schedule and target of a compile request must not be null");
  auto spec = KernelSpec::parse(request.spec);
  if (!spec)
    return spec.status();
  auto schedule = Schedule::parse(request.schedule);
  if (!schedule)
    return schedule.status();
  auto target = Target::parse(request.target);
  if (!target)
    return target.status();
  return Kernel{std::move(*spec), std::move(*schedule), *target};
}

/// `work` fills `result`, on a thread with a stack of its own.
template <class Work> void onOwnStack(flashplus_compile_result *result, Work work) {
  *result = {};
  if (const Status ran = runOnOwnStack(work); !ran)
    setFailure(result, ran);
}

void compile(const flashplus_compile_request *request, flashplus_compile_result *result) {
  onOwnStack(result, [&] {
    auto kernel = parseRequest(*request);
    if (!kernel)
      return setFailure(result, kernel.status());
    auto artifact = compileKernel(*kernel, {request->assemblers, request->assembler_seconds}, result->times);
    if (!artifact)
      return setFailure(result, artifact.status());
    const std::vector<uint8_t> bytes = serializeArtifact(*artifact);
    setBytes(result, StatusCode::Ok, bytes.data(), bytes.size());
  });
}

void print(const flashplus_compile_request *request, const char *stage, flashplus_compile_result *result) {
  onOwnStack(result, [&] {
    auto kernel = parseRequest(*request);
    if (!kernel)
      return setFailure(result, kernel.status());
    auto text = printStage(*kernel, stage ? stage : "", {request->assemblers, request->assembler_seconds});
    if (!text)
      return setFailure(result, text.status());
    setBytes(result, StatusCode::Ok, text->data(), text->size());
  });
}

void release(flashplus_compile_result *result) {
  std::free(result->data);
  *result = {};
}

void copyText(const std::string &message, char *text, size_t size) {
  if (size) {
    std::strncpy(text, message.c_str(), size - 1);
    text[size - 1] = 0;
  }
}

int nvjitlink(const char *path, char *text, size_t size) {
  const auto library = NvJitLink::open(path);
  copyText(library ? (*library)->version() : library.status().message(), text, size);
  return library.isOk();
}

int ptxas(const char *path, char *text, size_t size) {
  const auto program = Ptxas::find(path);
  copyText(program ? (*program)->version() : program.status().message(), text, size);
  return program.isOk();
}

void (*give_up)(int code, const char *text) = nullptr;

void noMemory() { give_up(int(StatusCode::OutOfMemory), "the compiler ran out of memory"); }

void serve(void (*told)(int code, const char *text)) {
  give_up = told;
  std::set_new_handler(noMemory);
  llvm::install_bad_alloc_error_handler([](void *, const char *, bool) { noMemory(); });
  llvm::install_fatal_error_handler([](void *, const char *why, bool) {
    give_up(int(StatusCode::CompileFailed), why && *why ? why : "a fatal error of LLVM's");
  });
}

} // namespace
} // namespace flashplus

extern "C" __attribute__((visibility("default"))) const flashplus_compiler_table *flashplus_compiler(void) {
  static const std::string description = flashplus::compilerDescription();
  static const flashplus_compiler_table table = {
      FLASHPLUS_COMPILER_ABI, FLASHPLUS_BUILD_ID,   description.c_str(), flashplus::compile, flashplus::print,
      flashplus::release,     flashplus::nvjitlink, flashplus::ptxas,    flashplus::serve};
  return &table;
}
