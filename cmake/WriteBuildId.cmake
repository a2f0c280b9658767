# Script mode: see BuildId.cmake.
file(GLOB_RECURSE sources RELATIVE ${SOURCE_DIR} ${SOURCE_DIR}/spec/* ${SOURCE_DIR}/ir/* ${SOURCE_DIR}/templates/*
     ${SOURCE_DIR}/compiler/*)
list(SORT sources)
set(all "llvm ${LLVM_VERSION}\n")
foreach(source IN LISTS sources)
  file(SHA256 ${SOURCE_DIR}/${source} hash)
  string(APPEND all "${source} ${hash}\n")
endforeach()
string(SHA256 id "${all}")
string(SUBSTRING ${id} 0 32 id)
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT
  "#define FLASHPLUS_BUILD_ID \"${id}\"\n#define FLASHPLUS_BUILD_LLVM_VERSION \"${LLVM_VERSION}\"\n")
