# Turns test sources into executables and each of their TESTs into one CTest test.
#
# A source declares a test by a line that starts with TEST(name) or TEST_SERIAL(name); the executable run with that name
# as its only argument runs this one test, and without one all of them, each in a child of its own. Declarations are
# found without preprocessing: one that this configuration leaves out (#if) is not in the executable, and CTest reports
# it as skipped. So are all tests of a source whose line TEST_FILE_NEEDS(...) names a capability that the target lacks.

include("${PROJECT_SOURCE_DIR}/tests/capabilities.cmake")

# A backstop: the limit of the harness, which a test can move, comes first and prints stacks.
set(ROUSE_TEST_TIMEOUT 240 CACHE STRING "Seconds one test may take")
set(ROUSE_EACH_ALLOCATION_TIMEOUT 120 CACHE STRING "Seconds for all runs of one test with failing allocations")
set(ROUSE_TEST_LAUNCHER "" CACHE STRING "A command, with its arguments as a list, that runs each test program")
set(ROUSE_TEST_WHOLE "" CACHE STRING
    "Folders of tests whose programs are one CTest test each, for launchers that start slowly")

# What is built for another machine runs in CMake's emulator, which test programs need as well, for programs that they start.
set(rouse_test_launcher ${ROUSE_TEST_LAUNCHER})
if(CMAKE_CROSSCOMPILING_EMULATOR AND NOT rouse_test_launcher)
    set(rouse_test_launcher ${CMAKE_CROSSCOMPILING_EMULATOR})
endif()

set(rouse_test_environment
    "ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=0:abort_on_error=0:exitcode=99"
    "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1"
    "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")
if(CMAKE_CROSSCOMPILING_EMULATOR AND UNIX)
    list(JOIN CMAKE_CROSSCOMPILING_EMULATOR " " rouse_emulator)
    list(APPEND rouse_test_environment "ROUSE_TEST_EMULATOR=${rouse_emulator}")
endif()

# Sets names, serial_names (the TEST_SERIALs among them) and missing (a capability that the source needs and the target
# lacks, or nothing).
function(rouse_read_tests source)
    # A source may be another one under other conditions: #include "other_test.c".
    set(sources "${source}")
    get_filename_component(directory "${source}" DIRECTORY)
    file(STRINGS "${source}" includes REGEX "^#include \"[A-Za-z0-9_]+_test\\.c\"")
    foreach(include IN LISTS includes)
        string(REGEX REPLACE "^#include \"([^\"]+)\".*" "\\1" include "${include}")
        list(APPEND sources "${directory}/${include}")
    endforeach()

    # A test that is added to a source must reach CTest without anybody thinking of it.
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${sources})
    set(names "")
    set(serial_names "")
    set(missing "")
    foreach(each IN LISTS sources)
        file(STRINGS "${each}" lines REGEX "^TEST(_SERIAL|_FILE_NEEDS)?\\(")
        foreach(line IN LISTS lines)
            if(line MATCHES "^TEST_FILE_NEEDS\\(([a-z_, ]+)\\)")
                string(REGEX REPLACE ", *" ";" needs "${CMAKE_MATCH_1}")
                foreach(need IN LISTS needs)
                    if(NOT need IN_LIST rouse_test_capabilities)
                        message(FATAL_ERROR "${each} needs ${need}, which tests/capabilities.cmake does not know")
                    elseif(NOT need IN_LIST rouse_test_available AND NOT missing)
                        set(missing ${need})
                    endif()
                endforeach()
            elseif(line MATCHES "^TEST(_SERIAL)?\\(([A-Za-z0-9_]+)\\)")
                list(APPEND names ${CMAKE_MATCH_2})
                if(CMAKE_MATCH_1)
                    list(APPEND serial_names ${CMAKE_MATCH_2})
                endif()
            endif()
        endforeach()
    endforeach()
    if(NOT names)
        message(FATAL_ERROR "${source} declares no TEST(name) at the start of a line")
    endif()
    set(names "${names}" PARENT_SCOPE)
    set(serial_names "${serial_names}" PARENT_SCOPE)
    set(missing "${missing}" PARENT_SCOPE)
endfunction()

# rouse_add_test_program(<folder> <source> [EACH_ALLOCATION]) adds the executable and its tests, and names the target in
# rouse_test_target (nothing if the source cannot be compiled here). With EACH_ALLOCATION each test has a second form,
# which runs it once for each of its allocations with that one failing; only `ctest -C FailingAllocations` runs these.
function(rouse_add_test_program folder source)
    cmake_parse_arguments(PARSE_ARGV 2 with "EACH_ALLOCATION" "" "")
    get_filename_component(file "${source}" NAME_WE)
    set(target test_${folder}_${file})
    rouse_read_tests("${source}")
    if(missing)
        foreach(name IN LISTS names)
            add_test(NAME ${folder}.${file}.${name} COMMAND ${CMAKE_COMMAND} -E echo "[  REASON  ] needs ${missing}")
            set_tests_properties(${folder}.${file}.${name} PROPERTIES
                                 LABELS ${folder} SKIP_REGULAR_EXPRESSION "needs ${missing}")
        endforeach()
        set(rouse_test_target "" PARENT_SCOPE)
        return()
    endif()
    add_executable(${target} "${source}")
    rouse_compile_privately(${target})
    set_target_properties(${target} PROPERTIES
                          OUTPUT_NAME "${folder}.${file}"
                          RUNTIME_OUTPUT_DIRECTORY "${rouse_bin_dir}/tests")
    set(rouse_test_target ${target} PARENT_SCOPE)
    set(timeout ${ROUSE_TEST_TIMEOUT})
    set(environment ${rouse_test_environment})
    if(folder STREQUAL "model") # an exhaustive search takes its time, more so on a busy machine
        set(timeout 300)
        list(APPEND environment "ROUSE_TEST_SECONDS=240")
    endif()

    if(folder IN_LIST ROUSE_TEST_WHOLE)
        add_test(NAME ${folder}.${file} COMMAND ${rouse_test_launcher} $<TARGET_FILE:${target}>)
        set_tests_properties(${folder}.${file} PROPERTIES
                             TIMEOUT ${timeout}
                             LABELS ${folder}
                             ENVIRONMENT "${environment}")
        return()
    endif()
    foreach(name IN LISTS names)
        set(serial OFF)
        if(name IN_LIST serial_names)
            set(serial ON)
        endif()
        add_test(NAME ${folder}.${file}.${name} COMMAND ${rouse_test_launcher} $<TARGET_FILE:${target}> ${name})
        set_tests_properties(${folder}.${file}.${name} PROPERTIES
                             TIMEOUT ${timeout}
                             LABELS ${folder}
                             RUN_SERIAL ${serial}
                             SKIP_REGULAR_EXPRESSION "there is no test named ${name}[^A-Za-z0-9_];\\[  SKIPPED \\] ${name}"
                             ENVIRONMENT "${environment}")
        if(with_EACH_ALLOCATION)
            set(each failing_allocations.${file}.${name})
            add_test(NAME ${each} CONFIGURATIONS FailingAllocations
                     COMMAND ${rouse_test_launcher} $<TARGET_FILE:${target}> --failing-allocations ${name})
            set_tests_properties(${each} PROPERTIES
                                 TIMEOUT ${ROUSE_EACH_ALLOCATION_TIMEOUT}
                                 LABELS failing_allocations
                                 RUN_SERIAL ${serial}
                                 SKIP_REGULAR_EXPRESSION "there is no test named ${name}[^A-Za-z0-9_];\\[  SKIPPED \\] ${name}"
                                 ENVIRONMENT "${environment}")
        endif()
    endforeach()
endfunction()
