# The same machine with another C library: Debian's musl-tools. The kernel's headers are the machine's own, which musl-gcc
# does not look for.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${CMAKE_HOST_SYSTEM_PROCESSOR})
set(CMAKE_C_COMPILER musl-gcc)
execute_process(COMMAND gcc -print-multiarch OUTPUT_VARIABLE rouse_multiarch OUTPUT_STRIP_TRAILING_WHITESPACE)
set(CMAKE_C_FLAGS_INIT "-idirafter /usr/include -idirafter /usr/include/${rouse_multiarch}")
set(ENV{PKG_CONFIG_LIBDIR} "") # the other C library's
