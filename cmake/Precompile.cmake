# flashplus_precompile(TARGET HEADER): a precompiled header. Without time stamps it has the same bytes whenever it is made, so
# that ccache finds what was compiled with it, in a clone made anew at the same place too. That takes ccache's sloppiness about
# headers that it does not see (CMakePresets.json).
function(flashplus_precompile target header)
  target_precompile_headers(${target} PRIVATE ${header})
  if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
    target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
  endif()
endfunction()
