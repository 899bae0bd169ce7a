/* The harness itself: a check that never fails would hide everything else. */
#include "support/failing.h"
#include "support/faults.h"
#include "support/harness.h"
#include "support/net.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

TEST_FILE_IS_OUTSIDE

#define CHILD_LIMIT INT64_C(5000000000)

/* Keeps compilers from leaving out an allocation that is not used. */
static void *volatile kept;

static bool passes(void (*body)(void *argument))
{
    return test_in_child(body, NULL, CHILD_LIMIT) == 0;
}

static void do_nothing(void *argument)
{
    (void)argument;
}

static void leave_a_block(void *argument)
{
    (void)argument;
    kept = malloc(10);
    kept = NULL;
}

static void leave_a_descriptor(void *argument)
{
    (void)argument;
    require(open("/dev/null", O_RDONLY) >= 0);
}

static void change_a_descriptor(void *argument)
{
    (void)argument;
    int other = open("/dev/zero", O_RDONLY);
    require(dup2(other, 0) == 0);
    require(close(other) == 0);
}

static void wait_for_ever(void *argument)
{
    (void)argument;
    for (;;) {
        test_sleep_ns(1000000000);
    }
}

static void leave_a_thread(void *argument)
{
    static test_thread thread;
    (void)argument;
    test_thread_start(&thread, wait_for_ever, NULL);
}

static void leave_a_handler(void *argument)
{
    (void)argument;
    signal(SIGUSR1, SIG_IGN);
}

static void leave_a_mask(void *argument)
{
    sigset_t set;
    (void)argument;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static void free_at_exit(void)
{
    free(kept);
}

static void leave_a_block_that_is_freed_at_exit(void *argument)
{
    (void)argument;
    kept = malloc(10);
    atexit(free_at_exit);
}

TEST(a_clean_test_passes)
{
    test_needs("fork");
    assert_true(passes(do_nothing));
}

TEST(what_is_left_behind_fails_the_test)
{
    test_needs("fork");
    assert_false(passes(leave_a_descriptor));
    assert_false(passes(change_a_descriptor));
    assert_false(passes(leave_a_thread));
    assert_false(passes(leave_a_handler));
    assert_false(passes(leave_a_mask));
}

TEST(a_block_that_is_left_fails_the_test)
{
    test_needs("fork");
    if (FAULTS_THREAD_SANITIZER) {
        test_skip("ThreadSanitizer");
    }
    assert_false(passes(leave_a_block));
}

TEST(a_block_may_live_until_the_process_ends)
{
    test_needs("fork");
    assert_true(passes(leave_a_block_that_is_freed_at_exit));
}

TEST(a_block_of_libc_may_be_freed)
{
    char *copy = strdup("text");
    assert_non_null(copy);
    copy = realloc(copy, 1000);
    assert_non_null(copy);
    free(copy);
}

static void take_too_long(void *argument)
{
    (void)argument;
    setenv("PATH", "/nonexistent", 1); /* no debugger: this is about the limit */
    test_time_limit(1);
    wait_for_ever(NULL);
}

TEST(a_test_that_hangs_is_ended)
{
    test_needs("fork");
    if (test_is_valgrind()) {
        test_skip("valgrind");
    }
    int status = test_in_child(take_too_long, NULL, CHILD_LIMIT);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 124);
}

/* ---- faults ---- */

static void need_faults(void)
{
    test_needs("faults");
}

struct blocks {
    int wanted;
    bool leaks;
};

static void allocate_some(void *argument)
{
    const struct blocks *blocks = argument;
    void *volatile got[8] = {NULL};
    for (int i = 0; i < blocks->wanted; i++) {
        got[i] = malloc(10);
        if (got[i] == NULL && blocks->leaks) {
            return;
        }
    }
    for (int i = 0; i < blocks->wanted; i++) {
        free(got[i]);
    }
}

static void try_each_allocation(void *argument)
{
    test_each_failing_allocation(allocate_some, argument);
}

TEST(each_allocation_fails_once)
{
    struct blocks blocks = {5, false};
    assert_int_equal(test_each_failing_allocation(allocate_some, &blocks), FAULTS_AVAILABLE ? 5 : 0);
}

TEST(a_leak_after_a_failed_allocation_is_found)
{
    struct blocks blocks = {5, true};
    need_faults();
    if (FAULTS_THREAD_SANITIZER) {
        test_skip("ThreadSanitizer");
    }
    assert_int_not_equal(test_in_child(try_each_allocation, &blocks, CHILD_LIMIT), 0);
}

/* ---- each allocation of a test ---- */

static int run_counted(test_case *test)
{
    faults_reset();
    faults_blocks_begin();
    failing_begin();
    test->body();
    failing_end();
    return faults_blocks_alive() > 0;
}

static bool survives_failing_allocations(void (*body)(void))
{
    test_case test = {"a_test", body, NULL};
    return failing_allocations(&test, run_counted, 0, false) == 0;
}

static int keep_block(void)
{
    kept = malloc(20);
    return kept != NULL ? 0 : -7; /* ROUSE_NO_MEMORY */
}

static void keep_two(void)
{
    require_int(keep_block(), ==, 0);
    void *first = kept;
    assert_int_equal(keep_block(), 0);
    free(kept);
    free(first);
}

static void insist(void)
{
    int status = keep_block();
    require_int(status, ==, 0);
    free(kept);
}

static void write_without_looking(void)
{
    (void)keep_block();
    *(volatile char *)kept = 1;
    free(kept);
}

static void take_for_another_value(void)
{
    int status = keep_block();
    free(kept);
    require_int(status == 0 ? 5 : 6, ==, 5);
}

static void hang_without_memory(void)
{
    int status = keep_block();
    test_time_limit(1);
    while (status != 0) {
        test_sleep_ns(1000000);
    }
    free(kept);
}

static void leave_first(void)
{
    void *volatile first = malloc(30); /* or the compiler leaves it out */
    int status = keep_block();
    if (status == 0) {
        free(kept);
        free(first);
    }
}

static int lose_first(void)
{
    kept = malloc(30);
    return kept != NULL ? keep_block() : -7;
}

static void stop_after_a_loss(void)
{
    int status = lose_first();
    require_int(status, ==, 0);
    _exit(0);
}

TEST(a_test_survives_failing_allocations_if_its_calls_can_be_repeated_or_it_stops_at_the_status)
{
    assert_true(survives_failing_allocations(keep_two));
    assert_true(survives_failing_allocations(insist));
}

TEST(crashes_hangs_wrong_values_and_leaks_after_a_failed_allocation_are_found)
{
    need_faults();
    if (FAULTS_THREAD_SANITIZER || test_is_valgrind()) {
        test_skip("ThreadSanitizer or valgrind");
    }
    assert_false(survives_failing_allocations(write_without_looking));
    assert_false(survives_failing_allocations(take_for_another_value));
    assert_false(survives_failing_allocations(hang_without_memory));
    assert_false(survives_failing_allocations(leave_first));
    if (FAULTS_ADDRESS_SANITIZER) {
        assert_false(survives_failing_allocations(stop_after_a_loss));
    }
}

/* ---- system calls and the rest ---- */

static void allocate_where_none_is_allowed(void *argument)
{
    (void)argument;
    faults_forbid_alloc(true);
    kept = malloc(1);
    free(kept);
}

TEST(a_forbidden_allocation_ends_the_process)
{
    need_faults();
    int status = test_in_child(allocate_where_none_is_allowed, NULL, CHILD_LIMIT);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

TEST(the_nth_call_fails)
{
    int ends[2];
    char byte;
    need_faults();
    assert_int_equal(pipe(ends), 0);
    faults_syscall("write", 2, EIO, 2);
    assert_int_equal(write(ends[1], "a", 1), 1);
    for (int i = 0; i < 2; i++) {
        errno = 0;
        assert_int_equal(write(ends[1], "b", 1), -1);
        assert_int_equal(errno, EIO);
    }
    assert_int_equal(write(ends[1], "c", 1), 1);
    assert_int_equal(faults_syscall_count("write"), 4);
    assert_int_equal(faults_syscall_hit("write"), 2);

    faults_exempt(true);
    faults_syscall("write", 1, EIO, FAULTS_ALWAYS);
    assert_int_equal(write(ends[1], "d", 1), 1);
    faults_exempt(false);
    assert_int_equal(write(ends[1], "e", 1), -1);

    for (const char *expected = "acd"; *expected != '\0'; expected++) {
        assert_int_equal(read(ends[0], &byte, 1), 1);
        assert_int_equal(byte, *expected);
    }
    faults_syscall("close", 1, EINTR, 1);
    assert_int_equal(close(ends[0]), -1); /* and it is closed all the same, which the harness sees */
    assert_int_equal(close(ends[1]), 0);
}

TEST(clamped_calls_move_less)
{
    int ends[2];
    char all[64], parts[2][32];
    struct iovec pieces[2] = {{parts[0], sizeof parts[0]}, {parts[1], sizeof parts[1]}};
    need_faults();
    test_tcp_pair(ends);
    memset(all, 'x', sizeof all);
    faults_clamp("send", 7);
    faults_clamp("readv", 1);
    for (int i = 0; i < 20; i++) {
        ssize_t sent = send(ends[0], all, sizeof all, 0);
        assert_in_range(sent, 1, 7);
        while (sent-- > 0) {
            assert_int_equal(readv(ends[1], pieces, 2), 1);
        }
    }
    test_close(ends[0]);
    test_close(ends[1]);
}

TEST(the_clock_can_be_moved)
{
    struct timespec before, after;
    int64_t now = test_now_ns();
    need_faults();
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &before), 0);
    faults_clock_step(INT64_C(3600000000000));
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &after), 0);
    assert_in_range(after.tv_sec - before.tv_sec, 3600, 3660);
    faults_clock_step(-INT64_C(7200000000000));
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &after), 0);
    assert_in_range(before.tv_sec - after.tv_sec, 3540, 3600);
    assert_true(test_now_ns() - now < CHILD_LIMIT);
}

TEST(a_mapping_can_be_refused)
{
    need_faults();
    faults_syscall("mmap", 1, ENOMEM, 1);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), MAP_FAILED);
    assert_int_equal(errno, ENOMEM);
}
