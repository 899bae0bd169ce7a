/* What every test program shares: tests that register themselves, and the checks around each of them.
 *
 *     #include "support/harness.h"
 *
 *     TEST(a_new_thing_is_empty)
 *     {
 *         assert_int_equal(thing_count(), 0);
 *     }
 *
 * `program NAME` runs one test in this process, `program` all, each in a child process of its own, `program --list`
 * lists them. Each test runs once in a process, so after it nothing may be left: the open descriptors, the number of
 * threads, the signal mask and what signals do are compared with what they were before, and heap blocks that are still
 * alive when the process ends (after the library's own clean-up at exit) fail the test. Under a sanitizer blocks are
 * not counted here; its own leak check does that. A test that takes too long is ended with the stacks of all threads.
 *
 * cmocka's assertions leave by longjmp: use them on the thread that runs the test, outside of fibers and tasks. In other
 * threads, fibers, tasks and forked children use require(), which ends the process. */
#ifndef TEST_SUPPORT_HARNESS_H
#define TEST_SUPPORT_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- tests ---- */

typedef struct test_case {
    const char *name;
    void (*body)(void);
    struct test_case *next;
} test_case;

void test_enroll(test_case *test);

/* Runs a function before main. The seam for compilers without GNU attributes. */
#if defined(_MSC_VER)
#define TEST_BEFORE_MAIN(function)                                                                                    \
    static void function(void);                                                                                       \
    __pragma(section(".CRT$XCU", read)) __declspec(allocate(".CRT$XCU")) void (*function##_pointer)(void) = function; \
    static void function(void)
#else
#define TEST_BEFORE_MAIN(function)                           \
    __attribute__((constructor)) static void function(void); \
    static void function(void)
#endif

/* Defines a test; stands at the start of a line, where the build looks for it. */
#define TEST(name)                                               \
    static void test_body_##name(void);                          \
    TEST_BEFORE_MAIN(test_enroll_##name)                         \
    {                                                            \
        static test_case test = {#name, test_body_##name, NULL}; \
        test_enroll(&test);                                      \
    }                                                            \
    static void test_body_##name(void)

/* The same for a test that must not share the machine with others: one that measures time or needs all descriptors. */
#define TEST_SERIAL(name) TEST(name)

/* The name of the test that runs. */
const char *test_name(void);

/* ---- what not every target can do ---- */

/* Ends the test as skipped, with the reason, unless the target has a capability: a name from tests/capabilities.cmake,
 * which says what each means. On the test's own thread, before it holds anything. */
void test_needs(const char *capability);
bool test_has(const char *capability);

/* The same for what depends on the machine or the build. */
void test_skip(const char *reason);

/* For a file that does not even compile without them: the build leaves it out, and CTest reports its tests as skipped.
 * Stands at the start of a line, where the build looks for it: TEST_FILE_NEEDS(fork, unix_sockets) */
#define TEST_FILE_NEEDS(...)

/* For a file whose tests are about this process and its system, not about the library: where the library is simulated, they
 * run outside of its world. */
#define TEST_FILE_IS_OUTSIDE          \
    TEST_BEFORE_MAIN(test_is_outside) \
    {                                 \
        test_stay_outside();          \
    }
void test_stay_outside(void);

/* Lets others go on: for a loop that waits until another thread has done something. */
void test_relax(void);

/* The same where threads take turns, because the world is a simulated one, and nothing elsewhere: for loops that shall be
 * as busy as they can. */
void test_take_turns(void);

/* Changes how long the test may take, from now on. The default is 50 s, and more under slow tools. */
void test_time_limit(unsigned seconds);

/* ---- requirements that work on any thread, in any fiber or task ---- */

/* True if memory was made to be missing (failing.h), and the status only says so: the call may then be made again. */
bool test_may_repeat(long long status);

/* Puts what the call answers into a variable: what it answers to a second attempt, if the first only lacked memory. */
#define test_call(variable, call)        \
    do {                                 \
        (variable) = (call);             \
        if (test_may_repeat(variable)) { \
            (variable) = (call);         \
        }                                \
    } while (0)

/* For a test that sees more of a call that failed than its status: a call is not made again then, and the test ends with
 * the first status that says that memory is missing. */
void test_may_not_repeat(const char *reason);

/* For a test that cannot run while memory is made to be missing: it ends here then, and is reported as skipped. */
void test_needs_all_memory(const char *reason);

/* Ends the process with a message if the condition does not hold. */
#define require(condition) ((condition) ? (void)0 : test_require_failed(#condition, __FILE__, __LINE__))

/* The same for two integers, which it prints: require_int(status, ==, ROUSE_OK). */
#define require_int(left, relation, right)                                                                            \
    do {                                                                                                              \
        long long require_left = (long long)(left), require_right = (long long)(right), require_first = require_left; \
        if (!(require_left relation require_right) && test_may_repeat(require_left)) {                                \
            require_left = (long long)(left);                                                                         \
        }                                                                                                             \
        if (!(require_left relation require_right)) {                                                                 \
            test_require_int_failed(#left " " #relation " " #right, require_first, require_left, require_right,       \
                                    __FILE__, __LINE__);                                                              \
        }                                                                                                             \
    } while (0)

#if defined(__GNUC__)
#define TEST_NO_RETURN __attribute__((noreturn))
#else
#define TEST_NO_RETURN
#endif
TEST_NO_RETURN void test_require_failed(const char *text, const char *file, int line);
TEST_NO_RETURN void test_require_int_failed(const char *text, long long first, long long left, long long right,
                                            const char *file, int line);

/* cmocka's, which looks at a status as require_int does. */
#undef assert_int_equal
#define assert_int_equal(left, right)                                                                             \
    do {                                                                                                          \
        long long assert_left = (long long)(left), assert_right = (long long)(right), assert_first = assert_left; \
        if (assert_left != assert_right && test_may_repeat(assert_left)) {                                        \
            assert_left = (long long)(left);                                                                      \
        }                                                                                                         \
        test_assert_int_equal(assert_first, assert_left, assert_right, __FILE__, __LINE__);                       \
    } while (0)
#undef assert_true
#define assert_true(condition) test_assert_true((condition) ? 1 : 0, #condition, __FILE__, __LINE__)
void test_assert_true(int holds, const char *text, const char *file, int line);
void test_assert_int_equal(long long first, long long left, long long right, const char *file, int line);

/* ---- how much ---- */

/* How often to do something: `small` by default, less under valgrind, ThreadSanitizer or an emulator but at least 1, `full` with
 * ROUSE_TEST_SCALE=full, or that percentage of `full` if ROUSE_TEST_SCALE is a number. */
size_t test_scale(size_t small, size_t full);

/* True where everything takes many times longer: under valgrind, in an emulator, or built with a sanitizer. */
bool test_is_slow(void);
bool test_is_valgrind(void);
bool test_is_emulated(
    void); /* an emulator of the processor, which ROUSE_TEST_EMULATOR names, runs this program, or Wine */

/* True if blocks are counted and calls can be made to fail: see faults.h. */
bool test_is_sanitized(void);

/* ---- memory ---- */

/* Zeros, to be freed; taken even while memory is made to be missing. For what belongs to the test. */
void *test_memory(size_t bytes);

/* ---- looking at this process ---- */

int64_t test_now_ns(void);        /* the system's monotonic clock, never the one that faults.h moves */
int64_t test_cpu_ns(void);        /* processor time that this process has used */
size_t test_rss_bytes(void);      /* memory of this process that is resident; 0 if the system does not tell */
int test_descriptor_count(void);  /* open descriptors; -1 if the system does not tell */
int test_thread_count(void);      /* threads; -1 if the system does not tell */
void test_sleep_ns(int64_t span); /* sleeps; only for things that have no other way of being waited for */

/* Fails the test unless the condition becomes true within a span of time. For effects outside of this process; what
 * the library does has something to wait for. */
#define eventually(condition, timeout_ns)                                          \
    do {                                                                           \
        int64_t eventually_end = test_now_ns() + (timeout_ns);                     \
        while (!(condition)) {                                                     \
            require(test_now_ns() < eventually_end && "not in time: " #condition); \
            test_sleep_ns(1000000);                                                \
        }                                                                          \
    } while (0)

/* Prints where every thread of a process stands, with a debugger if there is one. */
void test_print_stacks(int process);

/* Runs a function in a forked child and answers its status as waitpid does; ends the process if it takes longer than
 * the limit. The checks around a test are made around the child too: it ends with 0 only if nothing was left. */
int test_in_child(void (*body)(void *argument), void *argument, int64_t timeout_ns);

#endif
