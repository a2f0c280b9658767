# flashplus_build_id: an interface library with "build_id.h", which defines FLASHPLUS_BUILD_ID, a hash of
# everything that decides what code the compiler generates: the sources of spec/, ir/, templates/ and compiler/ and
# the LLVM version. It goes into every cache key, and the runtime refuses a compiler library of another build.
# The header is remade when a source changes and touched only when the hash changes.
# The LLVM version is that of the LLVM which is there, to the last number; a runtime that is built where there is none has to
# be told which one its compiler library has.
set(FLASHPLUS_COMPILER_LLVM_VERSION "" CACHE STRING "LLVM release that the compiler library is built on [the one found here]")
function(flashplus_find_llvm_version out)
  if(NOT LLVM_PACKAGE_VERSION) # a build without the compiler library
    find_package(LLVM 22.1 QUIET CONFIG HINTS /usr/lib/llvm-22/lib/cmake/llvm)
  endif()
  if(FLASHPLUS_COMPILER_LLVM_VERSION AND FLASHPLUS_COMPILER AND NOT FLASHPLUS_COMPILER_LLVM_VERSION STREQUAL LLVM_PACKAGE_VERSION)
    message(FATAL_ERROR "FLASHPLUS_COMPILER_LLVM_VERSION is ${FLASHPLUS_COMPILER_LLVM_VERSION}; the compiler library is built on "
                        "${LLVM_PACKAGE_VERSION}. Leave it out: it is for builds without the compiler library.")
  endif()
  set(version "${FLASHPLUS_COMPILER_LLVM_VERSION}")
  if(NOT version)
    set(version "${LLVM_PACKAGE_VERSION}")
  endif()
  if(NOT version)
    message(FATAL_ERROR "FLASHPLUS_COMPILER_LLVM_VERSION is not set and there is no LLVM 22 here; it must be the release that "
                        "the compiler library is built on, such as 22.1.8")
  endif()
  set(${out} "${version}" PARENT_SCOPE)
endfunction()
flashplus_find_llvm_version(llvm_version)
add_custom_target(flashplus_build_id_header
  COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${CMAKE_SOURCE_DIR} -DOUTPUT=${CMAKE_BINARY_DIR}/generated/build_id.h
          -DLLVM_VERSION=${llvm_version} -P ${CMAKE_SOURCE_DIR}/cmake/WriteBuildId.cmake
  BYPRODUCTS ${CMAKE_BINARY_DIR}/generated/build_id.h
  COMMENT "Hashing the compiler's sources")
add_library(flashplus_build_id INTERFACE)
target_include_directories(flashplus_build_id INTERFACE ${CMAKE_BINARY_DIR}/generated)
add_dependencies(flashplus_build_id flashplus_build_id_header)
