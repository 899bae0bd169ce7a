/* rouse: statuses, time, memory and version. Every other header includes this one. */
#ifndef ROUSE_BASE_H
#define ROUSE_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Export control. Users of the static library on Windows define ROUSE_STATIC; ROUSE_BUILD is the library's own. */
#if defined(_MSC_VER) || defined(__MINGW32__)
#if defined(ROUSE_STATIC)
#define ROUSE_API
#elif defined(ROUSE_BUILD)
#define ROUSE_API __declspec(dllexport)
#else
#define ROUSE_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define ROUSE_API __attribute__((visibility("default")))
#else
#define ROUSE_API
#endif

/* ---- version ---- */

#define ROUSE_VERSION_MAJOR 0
#define ROUSE_VERSION_MINOR 1
#define ROUSE_VERSION_PATCH 0
#define ROUSE_VERSION_HEX   ((ROUSE_VERSION_MAJOR << 16) | (ROUSE_VERSION_MINOR << 8) | ROUSE_VERSION_PATCH)

/* The version of the library that runs, in the form of ROUSE_VERSION_HEX; and as text, "0.1.0". Any thread. */
ROUSE_API int rouse_version(void);
ROUSE_API const char *rouse_version_text(void);

/* The polling backend chosen when the library was built: "epoll", "kqueue", "iocp", "poll" or "sim". Any thread. */
ROUSE_API const char *rouse_backend_name(void);

/* ---- statuses ----
 *
 * Calls answer an int: 0 is success, a negative number one of the statuses below, with the same value on every
 * system. Calls that count answer the count or a negative status. A number never changes its meaning. FAILED is for your
 * own functions: the library never answers it. */

#define ROUSE_STATUS_MAP(X)                                                                              \
    X(OK, 0, "success")                                                                                  \
    X(FAILED, -1, "failed")                                                                              \
    X(PENDING, -2147483647, "not finished: the waker will be called")                                    \
    X(CANCELLED, -2, "the task or its scope was cancelled")                                              \
    X(TIMED_OUT, -3, "the deadline passed")                                                              \
    X(CLOSED, -4, "the handle was closed, or never was open")                                            \
    X(END_OF_STREAM, -5, "the stream ended before all bytes had come")                                   \
    X(INVALID, -6, "an argument is not valid")                                                           \
    X(NO_MEMORY, -7, "out of memory")                                                                    \
    X(NOT_SUPPORTED, -8, "not supported by this system, backend or object")                              \
    X(IN_POLL, -9, "a blocking call inside a poll function: poll the operation instead, or use a fiber") \
    X(SHUTTING_DOWN, -10, "the runtime is shutting down")                                                \
    X(FORKED, -11, "the runtime belongs to the parent process")                                          \
    X(TOO_LARGE, -12, "a size or count is too large")                                                    \
    X(BUSY, -13, "in use by another call")                                                               \
    X(UNBALANCED, -14, "a scope, shield or deadline was left open, or closed out of order")              \
    X(NOT_IN_FIBER, -15, "this call works only inside a fiber")                                          \
    X(LIMIT, -16, "a limit of the system or of the runtime's options was reached")                       \
    X(NO_THREAD, -17, "the system refused to start a thread")                                            \
    X(ADDRESS_IN_USE, -100, "the address is in use")                                                     \
    X(ADDRESS_NOT_AVAILABLE, -101, "the address does not belong to this machine")                        \
    X(CONNECTION_REFUSED, -102, "the peer refused the connection")                                       \
    X(CONNECTION_RESET, -103, "the peer reset the connection")                                           \
    X(CONNECTION_ABORTED, -104, "the connection was aborted")                                            \
    X(NOT_CONNECTED, -105, "the socket is not connected")                                                \
    X(ALREADY_CONNECTED, -106, "the socket is already connected")                                        \
    X(BROKEN_PIPE, -107, "the reading end is gone")                                                      \
    X(HOST_UNREACHABLE, -108, "the host cannot be reached")                                              \
    X(NETWORK_UNREACHABLE, -109, "the network cannot be reached")                                        \
    X(NETWORK_DOWN, -110, "the network is down")                                                         \
    X(PERMISSION_DENIED, -111, "permission denied")                                                      \
    X(TOO_MANY_FILES, -112, "this process has too many open descriptors")                                \
    X(TOO_MANY_FILES_SYSTEM, -113, "the system has too many open descriptors")                           \
    X(NO_BUFFERS, -114, "the system has no buffer space left")                                           \
    X(NOT_FOUND, -115, "not found")                                                                      \
    X(ALREADY_EXISTS, -116, "exists already")                                                            \
    X(IO_ERROR, -117, "input/output error")                                                              \
    X(MESSAGE_TOO_LONG, -118, "the message is too long")                                                 \
    X(BAD_DESCRIPTOR, -119, "not an open descriptor of a usable kind")                                   \
    X(NO_SPACE, -120, "no space left")                                                                   \
    X(PROTOCOL_ERROR, -121, "protocol error")                                                            \
    X(NAME_TOO_LONG, -122, "the name is too long")                                                       \
    X(NOT_POLLABLE, -123, "this descriptor cannot be waited for")                                        \
    X(UNKNOWN, -199, "an error of the system that has no name here")

enum rouse_status {
#define ROUSE_STATUS_ENUM(name, value, text) ROUSE_##name = value,
    ROUSE_STATUS_MAP(ROUSE_STATUS_ENUM)
#undef ROUSE_STATUS_ENUM
        ROUSE_STATUS_END = 1
};

/* The name ("TIMED_OUT") and a sentence for a status; for any other number "UNKNOWN". Static text. Any thread. */
ROUSE_API const char *rouse_status_name(int status);
ROUSE_API const char *rouse_status_text(int status);

/* What main should return for a status: 0 for ROUSE_OK, positive values up to 125 unchanged, else 1. */
ROUSE_API int rouse_exit_code(int status);

/* ---- time ----
 *
 * Time is a signed 64-bit number of nanoseconds. A *deadline* is a point on the monotonic clock of rouse_now, a
 * *timeout* a span from now. The clock does not run while the machine is suspended where the system offers the
 * choice (CLOCK_MONOTONIC on Linux; on Windows it does run). Nothing ever happens before its deadline. */

#define ROUSE_US(n) ((int64_t)(n)*1000)
#define ROUSE_MS(n) ((int64_t)(n)*1000000)
#define ROUSE_S(n)  ((int64_t)(n)*1000000000)
#define ROUSE_NEVER INT64_MAX /* as a deadline or a timeout: wait for ever */

/* Now, in nanoseconds since an unspecified start; never goes back. Any thread. */
ROUSE_API int64_t rouse_now(void);

/* now + timeout without overflow: ROUSE_NEVER stays ROUSE_NEVER, a negative timeout is now. Any thread. */
ROUSE_API int64_t rouse_after(int64_t timeout_ns);

/* ---- memory ----
 *
 * A runtime takes its memory (tasks and their results, queues, reactors, what it knows of stacks) from one allocator, given
 * when it is made. Called from any thread, also for memory that another thread allocated. Not from it come the stacks of
 * fibers, which the system gives in pages; and from the C library the process-wide table of streams, a few words for each
 * thread that is started and for each wait of a plain thread, and the signal stacks of rouse_options.report_overflow. It is
 * called with locks of the library held: it must not call the library. */
typedef struct rouse_allocator {
    /* `size` bytes aligned to `alignment` (a power of two, at most 64 KiB), or NULL. Contents may be anything. */
    void *(*alloc)(void *context, size_t size, size_t alignment);
    /* Takes back what alloc gave; size and alignment are those of the allocation. */
    void (*free)(void *context, void *memory, size_t size, size_t alignment);
    /* Passed to both. */
    void *context;
} rouse_allocator;

/* What the library keeps in memory of its callers: as large and as aligned on every processor. (i386 aligns 64-bit numbers
 * to four bytes, and where they cross a cache line they are not atomic.) */
#if defined(__GNUC__)
typedef uint64_t rouse_storage __attribute__((aligned(8)));
#else
typedef uint64_t rouse_storage;
#endif

/* Where a call stands in its source, "file.c:12": kept with tasks and streams for reports of what was left open. */
#define ROUSE_HERE_TEXT2(line) #line
#define ROUSE_HERE_TEXT(line)  ROUSE_HERE_TEXT2(line)
#define ROUSE_HERE             __FILE__ ":" ROUSE_HERE_TEXT(__LINE__)

#ifdef __cplusplus
}
#endif
#endif
