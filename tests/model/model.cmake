# For the models, after their targets: the rest of the explorer, plain accesses announced to it, and planted faults.

file(GLOB model_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*_test.c")
file(GLOB explorer_parts CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/explorer_*.c"
                                           "${CMAKE_CURRENT_LIST_DIR}/coroutine.c")
list(REMOVE_ITEM explorer_parts ${model_sources})
foreach(source IN LISTS model_sources)
    get_filename_component(file "${source}" NAME_WE)
    target_sources(test_model_${file} PRIVATE ${explorer_parts})
endforeach()

# Instrumented for the thread sanitizer, which is not linked: the explorer takes its calls. A sanitizer that is linked
# has calls of its own.
if(ROUSE_SANITIZER STREQUAL "none" AND CMAKE_C_COMPILER_ID MATCHES "^(GNU|Clang)$"
   AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    set_source_files_properties(${model_sources} PROPERTIES COMPILE_OPTIONS -fsanitize=thread)

    find_package(Python3 3.7 COMPONENTS Interpreter QUIET)
    if(Python3_Interpreter_FOUND)
        add_test(NAME model.faults # the models without faults are tests of their own
                 COMMAND "${Python3_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/check_faults" --faults-only
                         --compiler "${CMAKE_C_COMPILER}")
        set_tests_properties(model.faults PROPERTIES TIMEOUT 900 LABELS model SKIP_RETURN_CODE 77)
    endif()
endif()
