# For the models, after their targets: have the compiler announce plain accesses to the explorer, and plant faults.

# Instrumented for the thread sanitizer, which is not linked: the explorer takes its calls. A sanitizer that is linked
# has calls of its own.
if(ROUSE_SANITIZER STREQUAL "none" AND CMAKE_C_COMPILER_ID MATCHES "^(GNU|Clang)$"
   AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*_test.c")
    set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS -fsanitize=thread)

    find_package(Python3 3.7 COMPONENTS Interpreter QUIET)
    if(Python3_Interpreter_FOUND)
        add_test(NAME model.faults
                 COMMAND "${Python3_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/check_faults"
                         --compiler "${CMAKE_C_COMPILER}")
        set_tests_properties(model.faults PROPERTIES TIMEOUT 300 LABELS model SKIP_RETURN_CODE 77)
    endif()
endif()
