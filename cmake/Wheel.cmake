# What the Python wheel holds beside the sources in python/flashplus (pyproject.toml). Relative to site-packages.
set(binaries flashplus/lib)
# A wheel has no links: libflashplus.so is there by the name that the command and library.py ask for, its SONAME.
add_custom_target(wheel)
if(FLASHPLUS_PREBUILT)
  install(PROGRAMS ${FLASHPLUS_PREBUILT}/libflashplus.so.${FLASHPLUS_SOVERSION} ${FLASHPLUS_PREBUILT}/libflashplus-compiler.so
          ${FLASHPLUS_PREBUILT}/libflashplus-emulator.so ${FLASHPLUS_PREBUILT}/flashplus
          ${FLASHPLUS_PREBUILT}/flashplus-compile-helper DESTINATION ${binaries})
else()
  add_dependencies(wheel flashplus flashplus-compiler flashplus-compile-helper flashplus-emulator flashplus-cli)
  install(TARGETS flashplus flashplus-compiler flashplus-emulator LIBRARY DESTINATION ${binaries} NAMELINK_SKIP)
  install(TARGETS flashplus-cli flashplus-compile-helper RUNTIME DESTINATION ${binaries})
endif()
# Read at interpreter start, so that `flash_attn` is found (docs/rationale/python-face.md).
install(FILES ${CMAKE_CURRENT_LIST_DIR}/../python/flash_attn_plus.pth DESTINATION .)

# Licences of what is linked in or compiled in, as the distribution that it comes from states them.
foreach(package llvm-22-dev libzstd-dev zlib1g-dev libxxhash-dev nlohmann-json3-dev libcli11-dev libdlpack-dev libstdc++6)
  set(copyright /usr/share/doc/${package}/copyright)
  if(EXISTS ${copyright})
    file(REAL_PATH ${copyright} copyright)
    install(FILES ${copyright} DESTINATION flashplus/licenses RENAME ${package}.txt)
  else()
    message(WARNING "${copyright} is missing; the wheel may be used but not passed on without that licence")
  endif()
endforeach()
