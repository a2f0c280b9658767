# flashplus_portable(TARGET): a binary that is shipped runs on systems with an older C++ library than the one it is built with:
# ours is linked in. libgcc_s stays shared, since every system has it and its archive asks for glibc 2.35 (_dl_find_object).
# tests/install/symbols.py has what may be asked of a system (docs/rationale/portable-binaries.md).
function(flashplus_portable target)
  if(NOT FLASHPLUS_SANITIZE) # whose run time wants the shared one
    target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/glibc_2_34.cpp)
    target_link_options(${target} PRIVATE -static-libstdc++ -Wl,--exclude-libs,libstdc++.a)
  endif()
endfunction()
# The SONAME's number: before 1.0 a minor version may change the ABI.
set(FLASHPLUS_SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
