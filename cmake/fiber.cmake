# How fibers switch stacks. Sets rouse_fiber_switch (asm or portable) and rouse_switch_source.

include(CheckCSourceCompiles)

set(rouse_switch_source "")
if(ROUSE_FIBER_SWITCH STREQUAL "portable")
    set(rouse_fiber_switch portable)
elseif(ROUSE_FIBER_SWITCH MATCHES "^(auto|asm)$")
    # The compiler knows what it generates code for; CMAKE_SYSTEM_PROCESSOR only knows the machine.
    check_c_source_compiles("
        #if !defined(__x86_64__) || defined(__ILP32__) || defined(_WIN32)
        #error another instruction set or calling convention
        #endif
        int main(void) { return 0; }" ROUSE_TARGET_IS_X86_64_SYSV)
    set(rouse_candidate "")
    if(ROUSE_TARGET_IS_X86_64_SYSV)
        set(rouse_candidate "${PROJECT_SOURCE_DIR}/src/fiber/switch_x86_64_sysv.S")
    endif()
    if(rouse_candidate AND EXISTS "${rouse_candidate}")
        set(rouse_fiber_switch asm)
        set(rouse_switch_source "${rouse_candidate}")
    elseif(ROUSE_FIBER_SWITCH STREQUAL "asm")
        message(FATAL_ERROR "ROUSE_FIBER_SWITCH=asm: there is no assembly switch for this target; use auto or portable.")
    else()
        set(rouse_fiber_switch portable)
    endif()
else()
    message(FATAL_ERROR "ROUSE_FIBER_SWITCH=${ROUSE_FIBER_SWITCH} is none of auto, asm, portable.")
endif()
