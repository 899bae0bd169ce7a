# Systems of which no machine is at hand, by zig, which brings their headers and the names in their libraries along:
#
#     cmake --toolchain cmake/toolchains/zig.cmake -DROUSE_ZIG=/path/to/zig -DROUSE_ZIG_TARGET=aarch64-macos ...
#
# What comes out links, and runs nowhere here. ROUSE_SYSROOT is where further libraries for the target were installed
# (cmocka). Targets: x86_64 and aarch64 with macos, freebsd, netbsd and openbsd, which may end with the oldest version that the
# program shall run on: x86_64-macos.13.0.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ROUSE_ZIG ROUSE_ZIG_TARGET ROUSE_SYSROOT)
if(NOT ROUSE_ZIG OR NOT ROUSE_ZIG_TARGET MATCHES "^([a-z0-9_]+)-(macos|freebsd|netbsd|openbsd)([.][0-9.]+)?$")
    message(FATAL_ERROR "ROUSE_ZIG is the path of zig, and ROUSE_ZIG_TARGET a target of it: -DROUSE_ZIG_TARGET=aarch64-macos")
endif()
set(CMAKE_SYSTEM_PROCESSOR ${CMAKE_MATCH_1})
set(rouse_system_macos Darwin)
set(rouse_system_freebsd FreeBSD)
set(rouse_system_netbsd NetBSD)
set(rouse_system_openbsd OpenBSD)
set(CMAKE_SYSTEM_NAME ${rouse_system_${CMAKE_MATCH_2}})

# Without optimisation zig checks for undefined behaviour, and it links a runtime of its own to everything, which takes up to a
# minute to build for each target. Needed is that where memcpy comes from it (zig's OpenBSD) and where long doubles are of 128
# bits (AArch64, but for macOS).
set(CMAKE_C_COMPILER "${ROUSE_ZIG}" cc -target ${ROUSE_ZIG_TARGET} -fno-sanitize=undefined)
if(NOT ROUSE_ZIG_TARGET MATCHES "openbsd|aarch64-(freebsd|netbsd)")
    list(APPEND CMAKE_C_COMPILER -rtlib=none)
endif()
set(CMAKE_ASM_COMPILER ${CMAKE_C_COMPILER})
# This machine's ar makes no indices for foreign objects.
set(CMAKE_C_ARCHIVE_CREATE "\"${ROUSE_ZIG}\" ar qc <TARGET> <OBJECTS>")
set(CMAKE_C_ARCHIVE_APPEND "\"${ROUSE_ZIG}\" ar q <TARGET> <OBJECTS>")
set(CMAKE_C_ARCHIVE_FINISH "\"${ROUSE_ZIG}\" ranlib <TARGET>")
set(CMAKE_OBJCOPY OFF) # nor does zig link objects into one

set(CMAKE_FIND_ROOT_PATH ${ROUSE_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} "") # the machine's own libraries are none of the target's
