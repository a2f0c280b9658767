# Rooms: who may include whom, enforced by the compiler's search path. There is no include path to the whole source tree;
# a library sees its own folder and, through what it links, the folders below it, so that an #include against the arrows
# of docs/architecture.md ends in "file not found". Each room is a link in the build folder under its own name.

# flashplus_room(TARGET FOLDER...): TARGET's sources, and those that link it, may include "FOLDER/...".
function(flashplus_room target)
  get_target_property(type ${target} TYPE)
  foreach(folder IN LISTS ARGN)
    set(room ${CMAKE_BINARY_DIR}/rooms/${folder})
    file(MAKE_DIRECTORY ${room})
    file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${folder} ${room}/${folder} SYMBOLIC)
    if(type STREQUAL INTERFACE_LIBRARY)
      target_include_directories(${target} INTERFACE $<BUILD_INTERFACE:${room}>)
    else()
      target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${room}>)
    endif()
  endforeach()
endfunction()

# flashplus_door(TARGET HEADER...): TARGET, an interface library, lets those who link it include single headers of a room
# whose other headers stay closed to them.
function(flashplus_door target)
  add_library(${target} INTERFACE)
  foreach(header IN LISTS ARGN)
    set(door ${CMAKE_BINARY_DIR}/rooms/${target})
    get_filename_component(folder ${header} DIRECTORY)
    file(MAKE_DIRECTORY ${door}/${folder})
    file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${header} ${door}/${header} SYMBOLIC)
  endforeach()
  target_include_directories(${target} INTERFACE ${door})
endfunction()
