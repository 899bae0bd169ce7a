# The static library, twice: rouse_static is what users get, and rouse_internals what the tests and benchmarks link.
#
# Hidden visibility keeps the library's inner names out of a shared library's exports, but in an archive of plain objects
# they would still clash with the user's: a program with a function of its own called task_wake would not link. So the
# objects are joined into one first, and what is hidden is made local there. Tests reach the inner names, hence the
# second archive, of the same objects as they are.

add_library(rouse_internals STATIC EXCLUDE_FROM_ALL $<TARGET_OBJECTS:rouse_objects>)
target_include_directories(rouse_internals INTERFACE "${PROJECT_SOURCE_DIR}/include")
target_compile_definitions(rouse_internals INTERFACE ROUSE_STATIC=1)
target_link_libraries(rouse_internals PUBLIC ${rouse_os_libraries})
target_link_options(rouse_internals PUBLIC ${rouse_sanitizer_flags})
set_target_properties(rouse_internals PROPERTIES LINKER_LANGUAGE C)

# A sanitized library is not given to users, and a generator of several configurations has several sets of objects.
if(CMAKE_OBJCOPY AND NOT APPLE AND NOT WIN32 AND NOT rouse_is_multi_config AND ROUSE_SANITIZER STREQUAL "none")
    # What the compiler lets the linker choose one copy of (i386: how position independent code learns where it is) is made
    # local as well, and must not be thrown away for the copy of another object.
    include(CheckLinkerFlag)
    check_linker_flag(C "-Wl,--force-group-allocation" ROUSE_LINKER_ALLOCATES_GROUPS)
    set(rouse_join_flags "")
    if(ROUSE_LINKER_ALLOCATES_GROUPS)
        set(rouse_join_flags "-Wl,--force-group-allocation")
    endif()
    set(rouse_joined "${PROJECT_BINARY_DIR}/rouse_joined${CMAKE_C_OUTPUT_EXTENSION}")
    separate_arguments(rouse_target_flags UNIX_COMMAND "${CMAKE_C_FLAGS}")
    add_custom_command(OUTPUT "${rouse_joined}"
                       COMMAND "${CMAKE_C_COMPILER}" ${rouse_target_flags} ${rouse_join_flags} -r -nostdlib -o "${rouse_joined}"
                               $<TARGET_OBJECTS:rouse_objects>
                       COMMAND "${CMAKE_OBJCOPY}" --localize-hidden "${rouse_joined}"
                       DEPENDS rouse_objects $<TARGET_OBJECTS:rouse_objects>
                       COMMENT "Making the inner names of librouse.a local"
                       COMMAND_EXPAND_LISTS VERBATIM)
    set_source_files_properties("${rouse_joined}" PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
    add_library(rouse_static STATIC "${rouse_joined}")
else()
    add_library(rouse_static STATIC $<TARGET_OBJECTS:rouse_objects>)
endif()
