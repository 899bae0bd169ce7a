# How fibers switch stacks. Sets rouse_fiber_switch (asm or portable) and rouse_switch_source.

include(CheckCSourceCompiles)
include(CheckFunctionExists)

# The compiler knows what it generates code for; CMAKE_SYSTEM_PROCESSOR only knows the machine, or what somebody called it.
function(rouse_find_switch name condition variable)
    check_c_source_compiles("
        #if !(${condition})
        #error another instruction set or calling convention
        #endif
        int main(void) { return 0; }" ${variable})
    if(${variable} AND EXISTS "${PROJECT_SOURCE_DIR}/src/fiber/switch_${name}.S")
        set(rouse_switch_source "${PROJECT_SOURCE_DIR}/src/fiber/switch_${name}.S" PARENT_SCOPE)
    endif()
endfunction()

set(rouse_switch_source "")
if(NOT ROUSE_FIBER_SWITCH MATCHES "^(auto|asm|portable)$")
    message(FATAL_ERROR "ROUSE_FIBER_SWITCH=${ROUSE_FIBER_SWITCH} is none of auto, asm, portable.")
endif()
if(NOT ROUSE_FIBER_SWITCH STREQUAL "portable")
    rouse_find_switch(x86_64_sysv "defined(__x86_64__) && !defined(__ILP32__) && !defined(_WIN32)"
                      ROUSE_TARGET_IS_X86_64_SYSV)
    # MSVC's assembler is another language, and so is its source.
    rouse_find_switch(x86_64_win64 "defined(_WIN64) && (defined(__x86_64__) || defined(_M_X64)) && !defined(_M_ARM64EC)"
                      ROUSE_TARGET_IS_X86_64_WINDOWS)
    if(ROUSE_TARGET_IS_X86_64_WINDOWS AND MSVC)
        enable_language(ASM_MASM)
        set(rouse_switch_source "${PROJECT_SOURCE_DIR}/src/fiber/switch_x86_64_win64.asm")
    endif()
    rouse_find_switch(aarch64 "defined(__aarch64__) && !defined(__ILP32__) && !defined(_WIN32)" ROUSE_TARGET_IS_AARCH64)
    if(NOT rouse_switch_source AND ROUSE_FIBER_SWITCH STREQUAL "asm")
        message(FATAL_ERROR "ROUSE_FIBER_SWITCH=asm: there is no assembly switch for this target; use auto or portable.")
    endif()
endif()

if(rouse_switch_source)
    set(rouse_fiber_switch asm)
else()
    set(rouse_fiber_switch portable)
    # POSIX no longer has it, and musl never had; its headers declare it all the same, so that only linking tells.
    if(WIN32)
        check_c_source_compiles("
            #include <windows.h>
            int main(void) { RtlRestoreContext((CONTEXT *)0, (EXCEPTION_RECORD *)0); return 0; }" ROUSE_HAS_RESTORE_CONTEXT)
        if(NOT ROUSE_HAS_RESTORE_CONTEXT)
            message(FATAL_ERROR "The fiber switch of this build would be RtlRestoreContext (ROUSE_FIBER_SWITCH="
                                "${ROUSE_FIBER_SWITCH}), which 32-bit Windows does not have.")
        endif()
    else()
        check_function_exists(swapcontext ROUSE_HAS_SWAPCONTEXT)
        if(NOT ROUSE_HAS_SWAPCONTEXT)
            message(FATAL_ERROR "The fiber switch of this build would be swapcontext (ROUSE_FIBER_SWITCH="
                                "${ROUSE_FIBER_SWITCH}), which this C library does not have. Without it fibers need an "
                                "assembly switch for the target, src/fiber/switch_*.S; they exist for x86-64 and AArch64.")
        endif()
    endif()
endif()
