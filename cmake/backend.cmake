# Which backend is linked. Sets ROUSE_BACKEND, rouse_os_families (which src/os/os_<family>*.c belong to the target),
# rouse_os_libraries, and rouse_backend_definitions (what the backend's own checks have found).

if(WIN32)
    set(rouse_os_families windows)
    set(rouse_os_libraries ws2_32 synchronization)
    set(rouse_target_backends iocp)
elseif(APPLE)
    set(rouse_os_families posix darwin)
    set(rouse_os_libraries Threads::Threads)
    set(rouse_target_backends kqueue poll sim)
elseif(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    set(rouse_os_families posix linux)
    set(rouse_os_libraries Threads::Threads)
    set(rouse_target_backends epoll poll sim)
elseif(CMAKE_SYSTEM_NAME MATCHES "BSD$|^DragonFly$")
    set(rouse_os_families posix bsd)
    set(rouse_os_libraries Threads::Threads)
    set(rouse_target_backends kqueue poll sim)
else()
    set(rouse_os_families posix)
    set(rouse_os_libraries Threads::Threads)
    set(rouse_target_backends poll sim)
endif()

# kqueue on Linux is a model of it (tests/support/kqueue), there for the backend's own tests and for nothing else.
set(rouse_kqueue_is_model OFF)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND ROUSE_BACKEND STREQUAL "kqueue")
    if(NOT rouse_is_top OR NOT ROUSE_BUILD_TESTS)
        message(FATAL_ERROR "ROUSE_BACKEND=kqueue is on Linux a model for rouse's own tests: it needs ROUSE_BUILD_TESTS=ON in "
                            "a build of rouse itself.")
    endif()
    set(rouse_kqueue_is_model ON)
    list(APPEND rouse_target_backends kqueue)
    set(rouse_os_libraries rouse_kqueue_model)
    set(ROUSE_INSTALL OFF)
endif()

list(GET rouse_target_backends 0 rouse_default_backend)
set(ROUSE_BACKEND ${rouse_default_backend} CACHE STRING "How readiness is learnt: epoll, kqueue, iocp, poll or sim")
set(rouse_backends epoll kqueue iocp poll sim)
set_property(CACHE ROUSE_BACKEND PROPERTY STRINGS ${rouse_backends})

# Available is what the target's kernel has and this tree contains.
set(rouse_available_backends "")
foreach(rouse_candidate IN LISTS rouse_target_backends)
    file(GLOB rouse_candidate_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/backend/${rouse_candidate}/*.c")
    if(rouse_candidate_sources)
        list(APPEND rouse_available_backends ${rouse_candidate})
    endif()
endforeach()

if(NOT ROUSE_BACKEND IN_LIST rouse_available_backends)
    list(JOIN rouse_available_backends ", " rouse_available_backends)
    if(NOT rouse_available_backends)
        set(rouse_available_backends "none")
    endif()
    message(FATAL_ERROR "ROUSE_BACKEND=${ROUSE_BACKEND} is not available on ${CMAKE_SYSTEM_NAME}. "
                        "Available: ${rouse_available_backends}.")
endif()

# The simulation replaces the operating system as well as the backend; and it is another library, which may lie beside the
# real one.
set(rouse_output_name rouse)
if(ROUSE_BACKEND STREQUAL "sim")
    set(rouse_os_families sim)
    set(rouse_output_name rouse-sim)
endif()

# What a backend wants to know of the target's C library: it appends to rouse_backend_definitions.
set(rouse_backend_definitions "")
include("${PROJECT_SOURCE_DIR}/src/backend/${ROUSE_BACKEND}/checks.cmake" OPTIONAL)
