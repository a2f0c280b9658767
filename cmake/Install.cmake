# `cmake --install`: the command, the libraries (side by side, where libflashplus.so looks for the others), the public
# headers, a CMake package and a pkg-config file. Nothing installed holds an absolute path, so the prefix may be moved.
include(CMakePackageConfigHelpers)

install(TARGETS flashplus EXPORT flashplusTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/runtime/include/flashplus DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        COMPONENT development)
find_path(FLASHPLUS_DLPACK dlpack/dlpack.h REQUIRED) # which our headers include
install(FILES ${FLASHPLUS_DLPACK}/dlpack/dlpack.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/dlpack COMPONENT development)
if(TARGET flashplus-compiler) # with the process that it is opened in, which is looked for beside it
  install(TARGETS flashplus-compiler LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT compiler)
  install(TARGETS flashplus-compile-helper RUNTIME DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT compiler)
endif()
if(TARGET flashplus-emulator)
  install(TARGETS flashplus-emulator LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime)
endif()
if(TARGET flashplus-cli)
  install(TARGETS flashplus-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/flashplus)
install(EXPORT flashplusTargets NAMESPACE flashplus:: DESTINATION ${package_dir} COMPONENT development)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/flashplusConfig.cmake.in
  ${CMAKE_BINARY_DIR}/package/flashplusConfig.cmake INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may change the API.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/package/flashplusConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/package/flashplusConfig.cmake ${CMAKE_BINARY_DIR}/package/flashplusConfigVersion.cmake
        DESTINATION ${package_dir} COMPONENT development)

file(RELATIVE_PATH pc_to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(${CMAKE_CURRENT_LIST_DIR}/flashplus.pc.in ${CMAKE_BINARY_DIR}/package/flashplus.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/package/flashplus.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
        COMPONENT development)
