# What the target and the backend can do, as far as tests need it; the only place that says so. A test asks for a
# capability (test_needs, TEST_FILE_NEEDS in support/harness.h), never for a system or a backend by name. Sets
# rouse_test_capabilities, all names, and rouse_test_available, those that are there; rouse_test_outside, those of a file
# that is TEST_FILE_IS_OUTSIDE.

set(rouse_test_capabilities
    real_threads  # threads of the system run side by side, and blocking calls of theirs wait in real time
    system_layer  # the library talks to the system, not to a simulated world
    descriptors   # pipes, terminals and other things that are not sockets are descriptors that can be waited for
    unix_sockets  # AF_UNIX
    fork          # a process can be forked, and goes on in both
    signals       # POSIX signals: handlers, masks, a process can send itself one
    handlers      # after the handler of a signal a thread is what it was: in qemu's i386 it takes itself for another
    hang_up       # SIGHUP can be had again and again: on Windows it is the last that a process hears
    processes     # programs can be started, and told by SIGINT to end
    terminate     # and by SIGTERM
    faults        # system calls and allocations can be made to fail, and the clock can be moved (support/faults.h)
    proc_files    # /proc tells about this process
    kernel_set    # descriptors are put into a set of the kernel's, by system calls, which can be made to fail
    watchable     # a foreign loop can wait for a runtime through one descriptor
    leftovers     # the kernel tracks open descriptions: one that was closed while a copy lives on goes on reporting
    inherited_sets # a forked child has its parent's kernel sets, and gives them up
    outer_set     # what a foreign loop waits for is made when it asks, which can fail
    completion_port # the backend is that of Windows: polls in flight are the kernel's, other completions are events
    commit_on_touch # memory that was reserved may be used anywhere: the system commits it when it is touched
    residence     # the system tells which pages are in memory, and those that were given back are not, at once
    reuse_port    # several listeners may share a port
    keep_alive_read # how long a connection is silent before it is probed can be read back
    errors_once   # asking a socket for its error takes it, and a connection that is gone has no peer any more
    strict_texts  # inet_pton takes addresses as POSIX writes them, and nothing else
    urgent_data   # TCP's out-of-band byte is told from others
    shared_library # the library can be loaded at run time
    unloading     # and is unloaded when it is closed: musl keeps what was loaded once
)

set(rouse_test_available real_threads system_layer strict_texts urgent_data processes terminate handlers)
if(UNIX)
    list(APPEND rouse_test_available descriptors unix_sockets fork signals hang_up shared_library commit_on_touch reuse_port
         errors_once keep_alive_read)
endif()
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    list(APPEND rouse_test_available faults proc_files residence)
endif()
if(ROUSE_BACKEND MATCHES "^(epoll|kqueue)$")
    list(APPEND rouse_test_available kernel_set watchable)
endif()
if(ROUSE_BACKEND STREQUAL "epoll")
    list(APPEND rouse_test_available leftovers outer_set)
endif()
if(ROUSE_BACKEND MATCHES "^(epoll|poll)$")
    list(APPEND rouse_test_available inherited_sets)
endif()
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    include(CheckSymbolExists)
    check_symbol_exists(__GLIBC__ features.h ROUSE_HAS_GLIBC)
    if(ROUSE_HAS_GLIBC)
        list(APPEND rouse_test_available unloading)
    endif()
elseif(UNIX)
    list(APPEND rouse_test_available unloading)
endif()
if(ROUSE_BACKEND STREQUAL "iocp")
    list(APPEND rouse_test_available completion_port)
endif()

set(rouse_test_outside ${rouse_test_available})
# A simulated world has threads that take turns, TCP and time; its signals run no handler on a stack of somebody else.
if(ROUSE_BACKEND STREQUAL "sim")
    list(REMOVE_ITEM rouse_test_outside faults system_layer)
    set(rouse_test_available handlers hang_up strict_texts watchable reuse_port commit_on_touch errors_once keep_alive_read)
endif()

# What runs the tests may have less than the target.
set(ROUSE_TEST_LACKS "" CACHE STRING "Capabilities of the target that an emulator, or this machine, does not have")
list(REMOVE_ITEM rouse_test_available ${ROUSE_TEST_LACKS})
list(REMOVE_ITEM rouse_test_outside ${ROUSE_TEST_LACKS})
