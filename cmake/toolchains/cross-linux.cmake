# Another Linux target, built with Debian's cross compilers and run by qemu's user emulation, or by the machine itself if
# it can:
#
#     cmake --toolchain cmake/toolchains/cross-linux.cmake -DTRIPLE=s390x-linux-gnu -DQEMU=s390x ...
#     cmake --toolchain cmake/toolchains/cross-linux.cmake -DTRIPLE=i686-linux-gnu ...      # on x86-64
#
# ROUSE_SYSROOT is where further libraries for the target were installed (cmocka).
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TRIPLE QEMU ROUSE_SYSROOT)
if(NOT TRIPLE)
    message(FATAL_ERROR "TRIPLE names the target, as the compiler's name begins: -DTRIPLE=aarch64-linux-gnu")
endif()

set(CMAKE_SYSTEM_NAME Linux)
string(REGEX REPLACE "-.*" "" CMAKE_SYSTEM_PROCESSOR "${TRIPLE}")
set(CMAKE_C_COMPILER ${TRIPLE}-gcc)

set(CMAKE_FIND_ROOT_PATH /usr/${TRIPLE} ${ROUSE_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} "") # the machine's own libraries are none of the target's

if(QEMU)
    set(CMAKE_CROSSCOMPILING_EMULATOR qemu-${QEMU}-static;-L;/usr/${TRIPLE})
else()
    # The kernel runs the programs, but does not find the C library, which the cross compiler keeps to itself.
    file(GLOB rouse_loader /usr/${TRIPLE}/lib/ld-linux*.so.*)
    if(rouse_loader)
        set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,--dynamic-linker=${rouse_loader},-rpath=/usr/${TRIPLE}/lib")
    endif()
endif()
