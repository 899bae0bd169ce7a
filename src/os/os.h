/* Every system call, clock, random number, thread and piece of stack memory of the library.
 *
 * One implementation is compiled in: os_posix*.c. Outside of it only src/backend, the fiber switches and their annotations
 * include system headers. Errors of the system become ROUSE_ statuses on the line after the call; errno
 * never travels. Interrupted calls are repeated inside, except close, which is never repeated. */
#ifndef ROUSE_OS_H
#define ROUSE_OS_H

#include "os/compiler.h"

#include <rouse/io.h>
#include <rouse/net.h>
#include <stdbool.h>

/* ---- clock, random numbers, processors ---- */

int64_t os_now(void); /* monotonic nanoseconds; never goes back, even if the system's clock does */
/* From now until a deadline, for a wait: not less than 0, which needs no look at the clock, and not more than `longest_ns`. */
static inline int64_t os_span_until(int64_t deadline_ns, int64_t longest_ns)
{
    int64_t span_ns = deadline_ns <= 0 ? 0 : deadline_ns == ROUSE_NEVER ? longest_ns : deadline_ns - os_now();
    return span_ns < 0 ? 0 : span_ns > longest_ns ? longest_ns : span_ns;
}
uint64_t os_random(void);     /* a seed: different for each call, process and machine */
unsigned os_processors(void); /* that this process may use (affinity, not the machine's count); at least 1 */

/* ---- memory ---- */

/* The C library's allocator with alignment; os_free ignores NULL. */
void *os_alloc(size_t size, size_t alignment);
void os_free(void *memory);

size_t os_page_bytes(void);
/* Address space for stacks, readable and writable, committed on first touch, without huge pages; NULL if refused. Where
 * stacks grow it is neither, until os_stack_commit. */
void *os_pages_reserve(size_t bytes);
void os_pages_release(void *pages, size_t bytes);
/* Gives the memory of whole pages back; they read as zero, or as before, afterwards. Where stacks grow they are as if just
 * reserved. */
void os_pages_discard(void *pages, size_t bytes);

/* Does memory have to be committed before it is used, and does the system do that for stacks, page by page, while they grow
 * (Windows)? Then os_stack_commit makes the `bytes` below `top` usable, and what is below growable: nothing may touch it
 * before a stack has grown into it. Again after what lies below them was discarded. OK or NO_MEMORY. Elsewhere it does
 * nothing. */
bool os_stacks_grow(void);
int os_stack_commit(void *top, size_t bytes);
/* How many bytes a guard below a stack must have: a page, or what the system needs to report an overflow. */
size_t os_guard_bytes(void);
/* Makes pages fault. os_guard_is_light: guards cost no mapping each (proved by asking the kernel to write to one).
 * os_guard_install answers OK, LIMIT or NO_MEMORY. os_guard_remove makes them usable memory again; it takes the pages
 * of one install, and comes before their release, because heavy guards are counted. */
bool os_guard_is_light(void);
int os_guard_install(void *pages, size_t bytes);
void os_guard_remove(void *pages, size_t bytes);
/* How many heavy guards this process may have (half of the system's limit of mappings); SIZE_MAX if there is none. */
size_t os_guard_limit(void);

/* Calls `hook` when the process ends normally, or the library is unloaded. OK or NO_MEMORY. */
int os_at_exit(void (*hook)(void));

/* ---- threads ---- */

typedef struct os_thread {
    uintptr_t id; /* of the system's thread; meaning belongs to the implementation */
} os_thread;

/* Starts a thread with all signals blocked but those that a fault of its own raises. `name` is for debuggers (15 bytes
 * are kept). NO_THREAD or NO_MEMORY. */
int os_thread_start(os_thread *thread, void (*body)(void *), void *argument, const char *name);
void os_thread_join(os_thread *thread);
void os_thread_yield(void);

/* The library's one thread-local pointer. Never inlined: a fiber that changes threads must not keep its address. */
void *os_current(void);
void os_current_set(void *current);

/* Sleeps while *word == expected, until woken, for no reason, or until the deadline; never sleeps if they differ. A
 * wake may name a word whose memory was freed meanwhile. */
void os_wait_on(const uint32_t *word, uint32_t expected, int64_t deadline_ns);
void os_wake_one(const uint32_t *word);
void os_wake_all(const uint32_t *word);

/* ---- fork ---- */

/* os_process: a number, never 0, that differs between a process and its forked child. os_forks: a number that changes with
 * each fork; descriptors opened before the last one may be open in a child too. */
uint32_t os_process(void);
uint32_t os_forks(void);

/* What is done around each fork for the sake of the child, where no thread goes on but the one that forked: `before` brings
 * something to rest, `after` lets it go on in both processes. Hooks of a lower order come first before the fork, and last
 * after it; each order has one, which is static. To be given when the library is loaded: a fork in progress would not
 * know it, and the first use may come then. */
struct os_fork_hook {
    void (*before)(void);
    void (*after)(bool in_child);
};
#define OS_FORK_ORDERS 8u
void os_at_fork(unsigned order, const struct os_fork_hook *hook);

/* ---- descriptors ---- */

typedef intptr_t os_handle;
#define OS_NO_HANDLE ((os_handle)-1)

/* What a descriptor is, as far as reading and writing it differs. */
enum os_kind {
    OS_KIND_STREAM_SOCKET, /* a byte stream whose short counts mean "drained": plain TCP */
    OS_KIND_OTHER_SOCKET,  /* recv and send work, short counts prove nothing */
    OS_KIND_OTHER          /* read and write; writes may raise SIGPIPE, which is kept from the caller */
};

int os_handle_kind(os_handle handle, enum os_kind *kind); /* BAD_DESCRIPTOR, NOT_POLLABLE for regular files */
int os_set_nonblocking(os_handle handle, bool on, bool *before);
int os_close(os_handle handle); /* never repeated, never BAD: the descriptor is gone whatever it answers */

/* One system call each: the count, 0 at the end, ROUSE_PENDING if it would block, or an error. Never SIGPIPE.
 * Pieces: at most 1024 are used; the rest is left for the next call. */
ptrdiff_t os_read(os_handle handle, enum os_kind kind, void *data, size_t length);
ptrdiff_t os_write(os_handle handle, enum os_kind kind, const void *data, size_t length);
ptrdiff_t os_readv(os_handle handle, enum os_kind kind, const rouse_buffer *pieces, size_t count);
ptrdiff_t os_writev(os_handle handle, enum os_kind kind, const rouse_buffer *pieces, size_t count);
ptrdiff_t os_peek(os_handle handle, enum os_kind kind, void *data, size_t length);

/* Is it ready in this direction (enum rouse_direction) at this moment, end and error included? 1, 0 or an error. */
int os_is_ready(os_handle handle, int direction);

/* ---- sockets: non-blocking and closed on exec from birth ---- */

int os_tcp_open(os_handle *handle, int family);
int os_tcp_bind(os_handle handle, const rouse_address *address, bool reuse_address, bool reuse_port, bool v6_only);
int os_tcp_listen(os_handle handle, int backlog);
/* OK, ROUSE_PENDING (nobody there), or an error; *peer may be NULL. */
int os_tcp_accept(os_handle listener, os_handle *handle, rouse_address *peer);
/* Is this error of os_tcp_accept about one connection only (try again at once)? Or about exhausted resources? */
bool os_accept_error_passes(int status);
bool os_accept_error_is_exhaustion(int status);
int os_tcp_connect(os_handle handle, const rouse_address *address); /* OK, PENDING or the reason */
int os_tcp_connect_result(os_handle handle);                        /* OK once connected, PENDING, or the reason */
int os_tcp_shutdown(os_handle handle, int side);
int os_local_address(os_handle handle, rouse_address *address);
int os_peer_address(os_handle handle, rouse_address *address);
int os_option_set(os_handle handle, int option, int value); /* enum rouse_option; INVALID, NOT_SUPPORTED */
int os_option_get(os_handle handle, int option, int *value);

/* Interface names of IPv6 scopes: index, or 0 if there is none of that name. */
uint32_t os_interface_index(const char *name);

/* ---- signals ---- */

/* A descriptor that becomes readable when notified. os_event_notify is async-signal-safe and never blocks. */
typedef struct os_event {
    os_handle readable; /* wait for this one */
    os_handle notify;   /* the same, or the writing end */
} os_event;
int os_event_open(os_event *event);
void os_event_close(os_event *event);
void os_event_notify(const os_event *event);
/* os_event_clear: not readable any more, until the next notification; answers whether it was. Where an event counts instead
 * of filling up, os_event_fills is false: each notification is an edge, and nobody need clear it. */
bool os_event_fills(void);
bool os_event_clear(const os_event *event);

/* Installs `handler` for one signal of enum rouse_signal, remembering what was there; restore puts it back. The handler
 * is called with the rouse_signal value and errno is kept around it. One caller at a time. */
int os_signal_install(int signal, void (*handler)(int signal));
void os_signal_restore(int signal);

/* Calls `hook` with the address whose access failed, in a signal handler, on a stack of its own. True: try the access
 * again; false: what was installed before gets the fault, and the process ends if that was nothing. One caller at a
 * time. os_fault_thread_enter gives the calling thread that stack (*memory may be NULL: it had one), leave takes it
 * back. Where stacks grow an overflow is reported before its guard is touched, on the stack itself, of which enter makes
 * the system keep some for the hook; the address is then the lowest of the guard. */
int os_fault_hook_install(bool (*hook)(uintptr_t address));
void os_fault_hook_remove(void);
int os_fault_thread_enter(void **memory);
void os_fault_thread_leave(void *memory);
/* Writes text to standard error, async-signal-safe. */
void os_write_error(const char *text, size_t length);

#endif
