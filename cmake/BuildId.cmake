# flashplus_build_id: an interface library with "build_id.h", which defines FLASHPLUS_BUILD_ID, a hash of
# everything that decides what code the compiler generates: the sources of spec/, ir/, templates/ and compiler/ and
# the LLVM version. It goes into every cache key, and the runtime refuses a compiler library of another build.
# The header is remade when a source changes and touched only when the hash changes.
set(FLASHPLUS_LLVM_VERSION "22.1" CACHE STRING "LLVM release that the compiler library is built on")
add_custom_target(flashplus_build_id_header
  COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${CMAKE_SOURCE_DIR} -DOUTPUT=${CMAKE_BINARY_DIR}/generated/build_id.h
          -DLLVM_VERSION=${FLASHPLUS_LLVM_VERSION} -P ${CMAKE_SOURCE_DIR}/cmake/WriteBuildId.cmake
  BYPRODUCTS ${CMAKE_BINARY_DIR}/generated/build_id.h
  COMMENT "Hashing the compiler's sources")
add_library(flashplus_build_id INTERFACE)
target_include_directories(flashplus_build_id INTERFACE ${CMAKE_BINARY_DIR}/generated)
add_dependencies(flashplus_build_id flashplus_build_id_header)
