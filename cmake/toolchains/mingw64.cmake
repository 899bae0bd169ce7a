# For Windows on x86-64, with MinGW-w64 from another system; what was built runs under Wine:
#   cmake -S . -B build/windows -DCMAKE_TOOLCHAIN_FILE=cmake/toolchains/mingw64.cmake
# ROUSE_MINGW_ROOT is where further libraries for the target are installed, cmocka for example.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
set(ROUSE_MINGW_ROOT "" CACHE PATH "Where further libraries for the target are installed")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ROUSE_MINGW_ROOT)
set(CMAKE_FIND_ROOT_PATH ${ROUSE_MINGW_ROOT} /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
find_program(ROUSE_WINE NAMES wine wine64 PATHS /usr/lib/wine)
if(ROUSE_WINE)
    set(CMAKE_CROSSCOMPILING_EMULATOR "${ROUSE_WINE}")
endif()
