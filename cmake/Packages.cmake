# What the build needs of the machine, looked for before the first of it is used, so that all that is missing is named at
# once. packages.txt has the whole list; here is how to tell whether one of them is there.
if(DEFINED FLASHPLUS_PACKAGES AND NOT FLASHPLUS_PACKAGES)
  return()
endif()
set(missing "")

# flashplus_package(NAME FOUND): NAME is a line of packages.txt.
file(STRINGS ${CMAKE_CURRENT_SOURCE_DIR}/packages.txt packages REGEX "^[^#]")
function(flashplus_package name found)
  if(NOT name IN_LIST packages)
    message(FATAL_ERROR "cmake/Packages.cmake: ${name} is not in packages.txt")
  endif()
  if(NOT found)
    list(APPEND missing ${name})
    set(missing "${missing}" PARENT_SCOPE)
  endif()
endfunction()

# Programs that were named and are not there. Those that nobody named CMake looks for itself.
function(flashplus_program name)
  list(POP_BACK ARGN program) # of a launcher, what it launches through
  if(program AND NOT IS_ABSOLUTE "${program}")
    find_program(path ${program} NO_CACHE)
    flashplus_package(${name} "${path}")
    set(missing "${missing}" PARENT_SCOPE)
  endif()
endfunction()
flashplus_program(clang-22 "${CMAKE_C_COMPILER}")
flashplus_program(clang-22 "${CMAKE_CXX_COMPILER}")
flashplus_program(ccache ${CMAKE_CXX_COMPILER_LAUNCHER})
if(CMAKE_GENERATOR MATCHES Ninja AND NOT CMAKE_MAKE_PROGRAM)
  flashplus_program(ninja-build ninja)
endif()

# Where LLVM's packages for CMake may lie.
set(below "")
foreach(prefix ${CMAKE_PREFIX_PATH} $ENV{CMAKE_PREFIX_PATH} /usr/lib/llvm-22)
  list(APPEND below ${prefix}/lib/cmake ${prefix}/lib64/cmake)
endforeach()

# Headers and CMake packages. Before project() CMake knows of no folder of the system.
function(flashplus_file name file)
  find_path(path ${file} NO_CACHE HINTS ${ARGN} PATHS /usr/include /usr/local/include)
  flashplus_package(${name} "${path}")
  set(missing "${missing}" PARENT_SCOPE)
endfunction()
flashplus_file(nlohmann-json3-dev nlohmann/json.hpp)
flashplus_file(libcli11-dev CLI/CLI.hpp)
flashplus_file(libdlpack-dev dlpack/dlpack.h)
flashplus_file(libxxhash-dev xxhash.h)
if(NOT DEFINED FLASHPLUS_COMPILER OR FLASHPLUS_COMPILER)
  flashplus_file(libmlir-22-dev mlir/MLIRConfig.cmake ${below} ${MLIR_DIR}/.. $ENV{MLIR_DIR}/..)
  flashplus_file(llvm-22-dev llvm/LLVMConfig.cmake ${below} ${LLVM_DIR}/.. $ENV{LLVM_DIR}/..)
  find_program(mlir_tblgen mlir-tblgen NO_CACHE HINTS /usr/lib/llvm-22/bin)
  flashplus_package(mlir-22-tools "${mlir_tblgen}")
  if(FLASHPLUS_STATIC_LLVM)
    flashplus_file(zlib1g-dev zlib.h)
    flashplus_file(libzstd-dev zstd.h)
    find_program(lld ld.lld NO_CACHE HINTS /usr/lib/llvm-22/bin)
    flashplus_package(lld-22 "${lld}")
  endif()
endif()
if(NOT DEFINED FLASHPLUS_TESTS OR FLASHPLUS_TESTS)
  flashplus_file(doctest-dev doctest/doctest.h)
endif()

if(missing)
  list(REMOVE_DUPLICATES missing)
  string(JOIN " " missing ${missing})
  message(FATAL_ERROR "Missing packages: ${missing}\n"
    "All that the build needs is listed in packages.txt (${CMAKE_CURRENT_SOURCE_DIR}/packages.txt), by Debian 12's names. "
    "scripts/setup.sh, 'make setup', installs what is missing; so does, as root:\n"
    "  apt-get update && apt-get install -y --no-install-recommends ${missing}\n"
    "Where all is there and this look does not find it, -DFLASHPLUS_PACKAGES=OFF leaves it out.")
endif()
