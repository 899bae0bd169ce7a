/* Making calls fail on purpose, and counting heap blocks.
 *
 * Works on calls from all files that are linked into the test program, the library's and the test's own alike: the
 * linker sends them through wrappers; wrapped_symbols.txt names them. The helpers of support/ and the threads that
 * test_thread_start (net.h) starts are exempt. Everything may be called from any thread. Where the linker cannot wrap
 * (macOS), or the library is the simulated one, FAULTS_AVAILABLE is 0 and nothing here has an effect. */
#ifndef TEST_SUPPORT_FAULTS_H
#define TEST_SUPPORT_FAULTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/world.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FAULTS_ADDRESS_SANITIZER 1
#endif
#if __has_feature(thread_sanitizer)
#define FAULTS_THREAD_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(FAULTS_ADDRESS_SANITIZER)
#define FAULTS_ADDRESS_SANITIZER 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(FAULTS_THREAD_SANITIZER)
#define FAULTS_THREAD_SANITIZER 1
#endif
#if !defined(FAULTS_ADDRESS_SANITIZER)
#define FAULTS_ADDRESS_SANITIZER 0
#endif
#if !defined(FAULTS_THREAD_SANITIZER)
#define FAULTS_THREAD_SANITIZER 0
#endif
#define FAULTS_SANITIZED (FAULTS_ADDRESS_SANITIZER || FAULTS_THREAD_SANITIZER)

/* 1: the backend is kqueue (the build says so). */
#if !defined(FAULTS_KQUEUE)
#define FAULTS_KQUEUE 0
#endif

/* The calls of a simulated world do not reach the system; blocks are counted there too. */
#if defined(__linux__)
#define FAULTS_BLOCKS_COUNTED 1
#else
#define FAULTS_BLOCKS_COUNTED 0
#endif
#define FAULTS_AVAILABLE (FAULTS_BLOCKS_COUNTED && !ROUSE_TEST_SIM)

/* Undoes everything that the calls below have set up, and sets their counters to 0. */
void faults_reset(void);

/* While on, calls of this thread are neither counted nor made to fail, and its clock is not moved. Answers what it was
 * before. */
bool faults_exempt(bool on);

/* ---- memory ---- */

/* Makes the n-th allocation from now fail (1 is the next one), and all later ones too if `sticky`; 0: none. */
void faults_fail_alloc(unsigned long n, bool sticky);
unsigned long faults_alloc_count(void); /* allocations that were asked for since faults_fail_alloc or faults_reset */
unsigned long faults_alloc_hit(void);   /* how many of them were made to fail */

/* Between faults_forbid_alloc(true) and (false) an allocation by this thread ends the process with its stack. */
void faults_forbid_alloc(bool forbid);

/* A second way to make allocations fail, of which those above know nothing: for failing.h, which has it around whole tests.
 * In memory that is shared with forked children, whose allocations count as well. NULL: none. */
#define FAULTS_PLACES 20000
struct faults_sweep {
    unsigned long failing; /* the number of the allocation that fails; 0: none */
    bool sticky;           /* and all later ones */
    bool recording;
    atomic_ulong count, hits;
    uint64_t places[FAULTS_PLACES]; /* of each allocation a number for the calls that led to it, if recording */
};
void faults_sweep_begin(struct faults_sweep *sweep);

/* Runs the scenario in a forked child with the first allocation failing, then with the second, and so on until a run
 * asks for no more; then again with all allocations from the n-th on failing. Each run must end by itself, in time, with
 * nothing left. Ends the process otherwise. Under valgrind and emulators every seventh has to do. Answers about how many allocations the
 * scenario makes when none fails; the scenario's own count too, so let it allocate inside faults_exempt, or not at all. */
unsigned long test_each_failing_allocation(void (*scenario)(void *argument), void *argument);

/* The same for every call of one system call (see below), which fails with `error`: the first, then the second ... */
unsigned long test_each_failing_call(const char *name, int error, void (*scenario)(void *argument), void *argument);

/* ---- system calls, by the names in wrapped_symbols.txt; a name that is not there ends the process ---- */

/* Besides, whatever the backend does it with: set_open makes the kernel's set, set_change tells it of a descriptor.
 * kevent is three: kevent_change (set_change), kevent_wake for user events, kevent_wait. */

#define FAULTS_ALWAYS UINT64_MAX

/* The error of a set that takes no more, and what becomes of it. */
#define FAULTS_SET_FULL        (FAULTS_KQUEUE ? ENOMEM : ENOSPC)
#define FAULTS_SET_FULL_STATUS (FAULTS_KQUEUE ? ROUSE_NO_MEMORY : ROUSE_LIMIT)

/* Makes the nth call from now (1 is the next one), and those after it, `times` in all, fail with `error` and not reach
 * the system. `close` and a `connect` that fails with EINTR or EINPROGRESS do reach it, since that is what these errors
 * mean. One setting for each name; times 0 ends it. */
void faults_syscall(const char *name, uint64_t nth, int error, uint64_t times);

uint64_t faults_syscall_count(const char *name); /* calls since faults_reset */
uint64_t faults_syscall_hit(const char *name);   /* how many of them were made to fail */

/* Makes calls that move bytes move between 1 and `most` of them, as a pseudorandom number says; 0: as many as asked. */
void faults_clamp(const char *name, size_t most);

/* Moves what clock_gettime answers for the monotonic clocks, forwards or backwards; adds up. */
void faults_clock_step(int64_t span_ns);

/* ---- heap blocks, for the harness ---- */

void faults_blocks_begin(void);   /* blocks that are allocated from now on count */
size_t faults_blocks_alive(void); /* how many of them are alive; 0 under a sanitizer */
void faults_blocks_report(void);  /* prints some; with ROUSE_TEST_TRACE=1 in the environment, with their stacks */

#endif
