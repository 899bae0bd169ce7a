# Flags. Sets rouse_sanitizer_flags and defines
#   rouse_compile(target)            language, warnings, sanitizer: for everything built here
#   rouse_compile_privately(target)  the same, and what only the library's own files and its tests may see

if(ROUSE_SANITIZER STREQUAL "none")
    set(rouse_sanitizer_flags "")
elseif(ROUSE_SANITIZER STREQUAL "address")
    set(rouse_sanitizer_flags -fsanitize=address,undefined)
elseif(ROUSE_SANITIZER STREQUAL "thread")
    set(rouse_sanitizer_flags -fsanitize=thread)
else()
    message(FATAL_ERROR "ROUSE_SANITIZER=${ROUSE_SANITIZER} is none of none, address, thread.")
endif()

set(rouse_compile_options "")
if(CMAKE_C_COMPILER_ID MATCHES "GNU|Clang")
    list(APPEND rouse_compile_options
         -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wundef)
    # Operations, scopes and frames lie in storage that the caller declared with another type.
    list(APPEND rouse_compile_options -fno-strict-aliasing)
    # GCC's notes on what older versions of it passed or aligned otherwise (i386, ARM) concern nobody here.
    list(APPEND rouse_compile_options -Wno-psabi)
    if(ROUSE_WERROR)
        list(APPEND rouse_compile_options -Werror)
    endif()
endif()
set(rouse_plain_options ${rouse_compile_options})
if(rouse_sanitizer_flags)
    list(APPEND rouse_compile_options ${rouse_sanitizer_flags} -fno-omit-frame-pointer)
    if(ROUSE_SANITIZER STREQUAL "address")
        list(APPEND rouse_compile_options -fno-sanitize-recover=undefined)
    endif()
    # Unoptimised instrumented code is several times slower and shows nothing more.
    list(APPEND rouse_compile_options $<$<CONFIG:Debug>:-O1>)
endif()

function(rouse_compile target)
    set_target_properties(${target} PROPERTIES
                          C_STANDARD 11
                          C_STANDARD_REQUIRED ON
                          C_EXTENSIONS OFF
                          C_VISIBILITY_PRESET hidden
                          RUNTIME_OUTPUT_DIRECTORY "${rouse_bin_dir}")
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:C>:${rouse_compile_options}>")
    if(rouse_sanitizer_flags)
        target_link_options(${target} PRIVATE ${rouse_sanitizer_flags})
    endif()
    if(NOT WIN32)
        # With extensions off the system's headers hide everything that is not ISO C.
        target_compile_definitions(${target} PRIVATE _GNU_SOURCE=1)
    endif()
endfunction()

function(rouse_compile_privately target)
    rouse_compile(${target})
    target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
    if(rouse_kqueue_is_model)
        target_include_directories(${target} BEFORE PRIVATE "${PROJECT_SOURCE_DIR}/tests/support/kqueue/include")
    endif()
    target_compile_definitions(${target} PRIVATE ROUSE_BACKEND_NAME="${ROUSE_BACKEND}")
    if(ROUSE_BACKEND STREQUAL "sim")
        target_compile_definitions(${target} PRIVATE ROUSE_ATOMIC_SIM=1)
    endif()
    if(rouse_fiber_switch STREQUAL "portable")
        target_compile_definitions(${target} PRIVATE ROUSE_FIBER_PORTABLE=1)
    endif()
endfunction()
