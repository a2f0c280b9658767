# flashplus_precompile(TARGET HEADER): a precompiled header. Without time stamps it has the same bytes whenever it is made, so
# that ccache finds what was compiled with it, in a clone made anew at the same place too. That takes ccache's sloppiness about
# headers that it does not see (CMakePresets.json).
function(flashplus_precompile target header)
  target_precompile_headers(${target} PRIVATE ${header})
  if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
    target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
  endif()
endfunction()

# flashplus_precompile_standard(TARGET...): the standard headers, a third of what a file without LLVM takes to compile. Not in
# the thread-sanitized build, where a file that does not include what it uses is found.
function(flashplus_precompile_standard)
  if(NOT FLASHPLUS_SANITIZE MATCHES thread)
    foreach(target IN LISTS ARGN)
      flashplus_precompile(${target} ${CMAKE_SOURCE_DIR}/cmake/standard.h)
    endforeach()
  endif()
endfunction()
