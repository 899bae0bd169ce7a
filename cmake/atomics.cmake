# Atomic 64-bit numbers: some 32-bit processors have none (i486, ARM before version 7), and the compiler then calls a library
# of its own. Adds that to rouse_os_libraries where it is needed, and sets rouse_pc_atomics for pkg-config.

include(CheckCSourceCompiles)

set(rouse_pc_atomics "")
if(NOT MSVC)
    set(rouse_atomics_source "
        #include <stdatomic.h>
        #include <stdint.h>
        static _Atomic(uint64_t) number;
        int main(int count, char **arguments)
        {
            uint64_t found = atomic_load(&number);
            (void)arguments;
            atomic_store(&number, (uint64_t)count);
            return !atomic_compare_exchange_strong(&number, &found, atomic_fetch_add(&number, 1));
        }")
    check_c_source_compiles("${rouse_atomics_source}" ROUSE_HAS_ATOMICS)
    if(NOT ROUSE_HAS_ATOMICS)
        set(CMAKE_REQUIRED_LIBRARIES atomic)
        check_c_source_compiles("${rouse_atomics_source}" ROUSE_HAS_LIBATOMIC)
        unset(CMAKE_REQUIRED_LIBRARIES)
        if(NOT ROUSE_HAS_LIBATOMIC)
            message(FATAL_ERROR "Atomic 64-bit numbers do not link for this target, neither by themselves nor with "
                                "-latomic. Install the compiler's libatomic, or compile for a newer processor.")
        endif()
        list(APPEND rouse_os_libraries atomic)
        set(rouse_pc_atomics " -latomic")
    endif()
endif()
