/* The epoll backend: what every backend owes, and what is particular to this one. */
#include "backend/backend.h"

#include "support/faults.h"
#include "support/harness.h"
#include "support/net.h"

#if defined(__linux__)

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void *give(void *context, size_t size, size_t alignment)
{
    (void)context;
    return os_alloc(size, alignment);
}

static void take(void *context, void *memory, size_t size, size_t alignment)
{
    (void)context;
    (void)size;
    (void)alignment;
    os_free(memory);
}

static const rouse_allocator allocator = {give, take, NULL};

/* The calls as they are without the tests' wrappers: valgrind and emulators know no epoll_pwait2. */
static struct backend *open_backend(void)
{
    struct backend *backend = NULL;
    require_int(backend_open(&backend, &allocator), ==, ROUSE_OK);
    return backend;
}

static struct backend_source source_of(int descriptor)
{
    assert_int_equal(os_set_nonblocking(descriptor, true, NULL), ROUSE_OK);
    return (struct backend_source){.handle = descriptor};
}

static void attach(struct backend *backend, int descriptor, uint64_t token)
{
    struct backend_source source = source_of(descriptor);
    assert_int_equal(backend_attach(backend, &source, token), ROUSE_OK);
}

static void detach(struct backend *backend, int descriptor, bool closing)
{
    struct backend_source source = {.handle = descriptor};
    assert_int_equal(backend_detach(backend, &source, closing), BACKEND_DONE);
}

/* All channels that a token is told of, until a look finds nothing any more; other tokens must not appear. */
static uint32_t channels_now(struct backend *backend, uint64_t token)
{
    struct backend_event events[8];
    uint32_t channels = 0;
    int count;
    while ((count = backend_wait(backend, events, 8, 0)) > 0) {
        for (int i = 0; i < count; i++) {
            require(events[i].token == token);
            require(events[i].kind == BACKEND_READY);
            channels |= events[i].channels;
        }
    }
    require_int(count, ==, 0);
    return channels;
}

/* Waits until the token was told of all the channels in `wanted`; answers all of which it was told. */
static uint32_t channels_until(struct backend *backend, uint64_t token, uint32_t wanted)
{
    uint32_t channels = 0;
    int64_t end = os_now() + TEST_SOON;
    while ((channels & wanted) != wanted) {
        struct backend_event event;
        require(os_now() < end);
        if (backend_wait(backend, &event, 1, end) == 1) {
            require(event.token == token);
            channels |= event.channels;
        }
    }
    return channels;
}

static void make_unix_pair(int ends[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
}

static void make_pipe(int ends[2])
{
    assert_int_equal(pipe(ends), 0);
}

/* ---- opening ---- */

TEST(opening_and_closing_leave_nothing)
{
    int before = test_descriptor_count();
    struct backend *backend = open_backend();
    os_handle handle;
    assert_int_equal(test_descriptor_count(), before + 2);
    assert_int_equal(backend_handle(backend, &handle), ROUSE_OK);
    assert_true(fcntl((int)handle, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(test_descriptor_count(), before + 3);
    backend_close(backend);
    assert_int_equal(test_descriptor_count(), before);
}

TEST(a_failed_opening_leaves_nothing_half_made)
{
    test_needs("faults");
    static const char *const calls[] = {"epoll_create1", "eventfd", "epoll_ctl"};
    struct backend *backend;
    int before = test_descriptor_count();
    for (size_t i = 0; i < 3; i++) {
        faults_syscall(calls[i], 1, EMFILE, 1);
        assert_int_equal(backend_open(&backend, &allocator), ROUSE_TOO_MANY_FILES);
        assert_int_equal(test_descriptor_count(), before);
    }
    if (test_is_sanitized())
        return;
    faults_fail_alloc(1, false);
    assert_int_equal(backend_open(&backend, &allocator), ROUSE_NO_MEMORY);
    assert_int_equal(test_descriptor_count(), before);
}

/* ---- sources ---- */

static const struct {
    void (*make)(int ends[2]);
    uint32_t reader; /* what the reading end is told of at once */
} media[] = {{make_pipe, 0}, {make_unix_pair, BACKEND_WRITE}, {test_tcp_pair, BACKEND_WRITE}};

TEST(readiness_that_exists_is_reported_on_attaching)
{
    for (size_t i = 0; i < 3; i++) {
        struct backend *backend = open_backend();
        int ends[2];
        media[i].make(ends);
        attach(backend, ends[0], 5);
        assert_int_equal(channels_now(backend, 5), media[i].reader);
        attach(backend, ends[1], 5);
        assert_int_equal(channels_now(backend, 5), BACKEND_WRITE);
        detach(backend, ends[0], false);
        assert_int_equal(write(ends[1], "x", 1), 1);
        attach(backend, ends[0], 5);
        assert_int_equal(channels_until(backend, 5, BACKEND_READ), media[i].reader | BACKEND_READ);
        close(ends[0]);
        close(ends[1]);
        backend_close(backend);
    }
}

TEST(each_arrival_of_data_is_told_once)
{
    for (size_t i = 0; i < 3; i++) {
        struct backend *backend = open_backend();
        struct backend_source source;
        int ends[2];
        media[i].make(ends);
        attach(backend, ends[0], UINT64_MAX - 1);
        (void)channels_now(backend, UINT64_MAX - 1);
        for (int k = 0; k < 5; k++) {
            source = (struct backend_source){.handle = ends[0]};
            assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
            assert_int_equal(write(ends[1], "x", 1), 1);
            assert_true(channels_until(backend, UINT64_MAX - 1, BACKEND_READ) & BACKEND_READ);
            assert_int_equal(channels_now(backend, UINT64_MAX - 1), 0);
        }
        close(ends[0]);
        close(ends[1]);
        backend_close(backend);
    }
}

TEST(a_peer_that_reads_makes_a_full_source_writable)
{
    for (size_t i = 0; i < 3; i++) {
        static char block[65536];
        struct backend *backend = open_backend();
        int ends[2];
        media[i].make(ends);
        attach(backend, ends[1], 9);
        (void)channels_now(backend, 9);
        while (write(ends[1], block, sizeof block) > 0) {}
        (void)channels_now(backend, 9);
        assert_int_equal(os_set_nonblocking(ends[0], true, NULL), ROUSE_OK);
        uint32_t channels = 0;
        int64_t end = test_now_ns() + TEST_SOON;
        while (!(channels & BACKEND_WRITE) && test_now_ns() < end) {
            while (read(ends[0], block, sizeof block) > 0) {}
            channels = channels_now(backend, 9);
        }
        assert_int_equal(channels, BACKEND_WRITE);
        close(ends[0]);
        close(ends[1]);
        backend_close(backend);
    }
}

TEST(a_half_close_is_no_hang_up_but_says_that_short_counts_prove_nothing)
{
    struct backend *backend = open_backend();
    int ends[2];
    test_tcp_pair(ends);
    attach(backend, ends[0], 1);
    (void)channels_now(backend, 1);
    assert_int_equal(write(ends[1], "last words", 10), 10);
    test_half_close(ends[1]);
    uint32_t channels = channels_until(backend, 1, BACKEND_READ | BACKEND_URGENT);
    assert_false(channels & BACKEND_HANGUP);
    close(ends[0]);
    close(ends[1]);
    backend_close(backend);
}

TEST(a_reset_is_a_hang_up_in_both_directions)
{
    struct backend *backend = open_backend();
    int ends[2];
    test_tcp_pair(ends);
    attach(backend, ends[0], 1);
    (void)channels_now(backend, 1);
    test_close_with_reset(ends[1]);
    (void)channels_until(backend, 1, BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP);
    close(ends[0]);
    backend_close(backend);
}

TEST(a_socket_that_is_closed_on_both_sides_hangs_up)
{
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    attach(backend, ends[0], 1);
    (void)channels_now(backend, 1);
    close(ends[1]);
    (void)channels_until(backend, 1, BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP);
    close(ends[0]);
    backend_close(backend);
}

TEST(both_ends_of_a_pipe_learn_that_the_other_is_gone)
{
    for (int gone = 0; gone < 2; gone++) {
        struct backend *backend = open_backend();
        int ends[2];
        make_pipe(ends);
        attach(backend, ends[1 - gone], 1);
        (void)channels_now(backend, 1);
        close(ends[gone]);
        (void)channels_until(backend, 1, BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP);
        close(ends[1 - gone]);
        backend_close(backend);
    }
}

TEST(urgent_data_is_told)
{
    struct backend *backend = open_backend();
    int ends[2];
    test_tcp_pair(ends);
    attach(backend, ends[0], 1);
    assert_false(channels_now(backend, 1) & BACKEND_URGENT);
    assert_int_equal(send(ends[1], "!", 1, MSG_OOB), 1);
    (void)channels_until(backend, 1, BACKEND_URGENT);
    close(ends[0]);
    close(ends[1]);
    backend_close(backend);
}

TEST(what_cannot_be_waited_for_is_refused)
{
    struct backend *backend = open_backend();
    char path[] = "/tmp/rouse-test-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(unlink(path), 0);
    os_handle epoll;
    assert_int_equal(backend_handle(backend, &epoll), ROUSE_OK);
    struct backend_source source = {.handle = file}, closed = {.handle = OS_NO_HANDLE}, self = {.handle = epoll};
    assert_int_equal(backend_attach(backend, &source, 1), ROUSE_NOT_POLLABLE);
    assert_int_equal(backend_attach(backend, &closed, 1), ROUSE_BAD_DESCRIPTOR);
    assert_true(backend_attach(backend, &self, 1) < 0);
    close(file);
    backend_close(backend);
}

TEST(an_attach_that_the_kernel_refuses_says_why_and_can_be_tried_again)
{
    test_needs("faults");
    static const struct {
        int error, status;
    } pairs[] = {
        {ENOSPC, ROUSE_LIMIT}, {ENOMEM, ROUSE_NO_MEMORY}, {EPERM, ROUSE_NOT_POLLABLE}, {ELOOP, ROUSE_NOT_POLLABLE}};
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    struct backend_source source = source_of(ends[0]);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        faults_syscall("epoll_ctl", 1, pairs[i].error, 1);
        assert_int_equal(backend_attach(backend, &source, 1), pairs[i].status);
    }
    assert_int_equal(backend_attach(backend, &source, 1), ROUSE_OK);
    assert_int_equal(channels_now(backend, 1), BACKEND_WRITE);
    close(ends[0]);
    close(ends[1]);
    backend_close(backend);
}

TEST(an_entry_that_was_left_behind_is_told_and_detaching_takes_it_away)
{
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    attach(backend, ends[0], 1);
    (void)channels_now(backend, 1);
    int copy = dup(ends[0]);
    close(ends[0]);
    assert_int_equal(dup2(copy, ends[0]), ends[0]);
    struct backend_source source = source_of(ends[0]);
    assert_int_equal(backend_attach(backend, &source, 2), ROUSE_ALREADY_EXISTS);
    detach(backend, ends[0], false);
    attach(backend, ends[0], 2);
    assert_int_equal(channels_now(backend, 2), BACKEND_WRITE);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_true(channels_until(backend, 2, BACKEND_READ) & BACKEND_READ);
    close(copy);
    close(ends[0]);
    close(ends[1]);
    backend_close(backend);
}

TEST(a_detached_source_is_silent)
{
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    attach(backend, ends[0], 1);
    int copy = dup(ends[0]); /* without a detach the kernel would go on */
    detach(backend, ends[0], false);
    close(ends[0]);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(channels_now(backend, 1), 0);
    close(copy);
    close(ends[1]);
    backend_close(backend);
}

TEST(a_source_that_was_closed_behind_our_back_is_detached_without_an_error)
{
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    attach(backend, ends[0], 1);
    close(ends[0]);
    detach(backend, ends[0], false);
    detach(backend, ends[0], false);
    detach(backend, ends[1], false); /* was never attached */
    close(ends[1]);
    backend_close(backend);
}

TEST(detaching_before_a_close_makes_no_system_call)
{
    test_needs("faults");
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    attach(backend, ends[0], 1);
    uint64_t before = faults_syscall_count("epoll_ctl");
    detach(backend, ends[0], true);
    assert_int_equal(faults_syscall_count("epoll_ctl"), before);
    close(ends[0]);
    assert_int_equal(channels_now(backend, 1), 0);
    close(ends[1]);
    backend_close(backend);
}

TEST(more_sources_than_one_wait_takes_are_all_told)
{
    enum { PAIRS = 20 };
    struct backend *backend = open_backend();
    int ends[PAIRS][2];
    bool told[PAIRS] = {false};
    for (int i = 0; i < PAIRS; i++) {
        make_unix_pair(ends[i]);
        attach(backend, ends[i][0], (uint64_t)i);
    }
    int waits = 0, count;
    struct backend_event events[3];
    while ((count = backend_wait(backend, events, 3, 0)) > 0) {
        assert_true(count <= 3);
        for (int i = 0; i < count; i++) {
            assert_false(told[events[i].token]);
            told[events[i].token] = true;
        }
        waits++;
    }
    assert_true(waits >= PAIRS / 3);
    for (int i = 0; i < PAIRS; i++) {
        assert_true(told[i]);
        close(ends[i][0]);
        close(ends[i][1]);
    }
    backend_close(backend);
}

/* ---- waking ---- */

TEST(a_wake_before_the_wait_ends_it_and_is_no_event)
{
    struct backend *backend = open_backend();
    struct backend_event event;
    for (int i = 0; i < 1000; i++) {
        backend_wake(backend);
        if (i % 2)
            backend_wake(backend);
        int64_t start = test_now_ns();
        assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
        assert_true(test_now_ns() - start < TEST_SOON);
    }
    int64_t deadline = os_now() + ROUSE_MS(5); /* it wakes once only */
    while (os_now() < deadline)
        assert_int_equal(backend_wait(backend, &event, 1, deadline), 0);
    backend_close(backend);
}

struct waker {
    struct backend *backend;
    _Atomic(uint32_t) waits;
    uint32_t rounds;
};

static void wake_each_wait(void *argument)
{
    struct waker *waker = argument;
    for (uint32_t i = 0; i < waker->rounds; i++) {
        while (waker->waits != i)
            os_thread_yield();
        backend_wake(waker->backend);
    }
}

TEST(every_wake_from_another_thread_ends_a_wait)
{
    struct waker waker = {.backend = open_backend(), .rounds = (uint32_t)test_scale(20000, 1000000)};
    os_thread thread;
    struct backend_event event;
    assert_int_equal(os_thread_start(&thread, wake_each_wait, &waker, "waker"), ROUSE_OK);
    for (uint32_t i = 0; i < waker.rounds; i++) {
        require_int(backend_wait(waker.backend, &event, 1, ROUSE_NEVER), ==, 0);
        waker.waits = i + 1;
    }
    os_thread_join(&thread);
    backend_close(waker.backend);
}

static void wake_late(void *argument)
{
    test_sleep_ns(ROUSE_MS(20));
    backend_wake(argument);
}

TEST(a_wait_without_a_deadline_sleeps_until_the_wake)
{
    struct backend *backend = open_backend();
    struct backend_event event;
    os_thread thread;
    int64_t start = test_now_ns();
    assert_int_equal(os_thread_start(&thread, wake_late, backend, "waker"), ROUSE_OK);
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    assert_true(test_now_ns() - start >= ROUSE_MS(15));
    os_thread_join(&thread);
    backend_close(backend);
}

/* The wake-up descriptor: of the two that opening makes, the one that takes a number. */
static int wake_descriptor(struct backend **backend)
{
    int first = dup(0), second = dup(0);
    close(first);
    close(second);
    *backend = open_backend();
    uint64_t zero = 0;
    if (write(first, &zero, sizeof zero) == (ssize_t)sizeof zero)
        return first;
    assert_int_equal(write(second, &zero, sizeof zero), (ssize_t)sizeof zero);
    return second;
}

TEST(a_full_counter_neither_blocks_a_wake_nor_loses_it)
{
    struct backend *backend;
    struct backend_event event;
    int wake = wake_descriptor(&backend);
    uint64_t nearly_full = UINT64_MAX - 1;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(write(wake, &nearly_full, sizeof nearly_full), (ssize_t)sizeof nearly_full);
        assert_int_equal(backend_wait(backend, &event, 1, 0), 0);
        backend_wake(backend);
        int64_t start = test_now_ns();
        assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
        assert_true(test_now_ns() - start < TEST_SOON);
        uint64_t count;
        assert_int_equal(read(wake, &count, sizeof count), (ssize_t)sizeof count);
    }
    backend_close(backend);
}

TEST(a_wake_up_descriptor_that_somebody_has_replaced_does_no_harm)
{
    struct backend *backend;
    struct backend_event event;
    int ends[2];
    int wake = wake_descriptor(&backend);
    make_pipe(ends);
    assert_int_equal(dup2(ends[0], wake), wake); /* cannot be written to */
    close(ends[0]);
    backend_wake(backend);
    assert_int_equal(backend_wait(backend, &event, 1, 0), 0);
    close(ends[1]);
    backend_close(backend);
}

TEST(an_interrupted_wake_is_repeated)
{
    test_needs("faults");
    struct backend *backend = open_backend();
    struct backend_event event;
    faults_syscall("write", 1, EINTR, 3);
    backend_wake(backend);
    faults_reset();
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    backend_close(backend);
}

static void add_as_wake_up(int epoll, int descriptor)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET};
    event.data.u64 = UINT64_MAX; /* the token of the wake-up descriptor */
    assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event), 0);
}

/* golang/go#72900: a mask that nobody expected on the wake-up descriptor ended the process. */
TEST(whatever_the_wake_up_entry_reports_is_a_wake_up)
{
    struct backend *backend;
    struct backend_event events[8];
    os_handle epoll;
    int broken[2], hung[2], urgent[2];
    assert_int_equal(backend_open(&backend, &allocator), ROUSE_OK);
    assert_int_equal(backend_handle(backend, &epoll), ROUSE_OK);
    assert_int_equal(pipe(broken), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, hung), 0);
    test_tcp_pair(urgent);
    add_as_wake_up((int)epoll, broken[1]);
    add_as_wake_up((int)epoll, hung[0]);
    add_as_wake_up((int)epoll, urgent[0]);
    close(broken[0]);
    close(hung[1]);
    assert_int_equal(send(urgent[1], "!", 1, MSG_OOB), 1);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(backend_wait(backend, events, 8, os_now() + ROUSE_MS(1)), 0);
        backend_wake(backend);
        assert_int_equal(backend_wait(backend, events, 8, ROUSE_NEVER), 0);
    }
    close(broken[1]);
    close(hung[0]);
    test_close(urgent[0]);
    test_close(urgent[1]);
    backend_close(backend);
}

/* ---- deadlines ---- */

static void check_deadlines(struct backend *backend)
{
    static const int64_t spans[] = {1, 1000, 100000, ROUSE_MS(1) - 1, ROUSE_MS(1), ROUSE_MS(1) + 1, ROUSE_MS(20)};
    struct backend_event event;
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
        int waits = 0;
        int64_t deadline = os_now() + spans[i];
        while (os_now() < deadline) {
            assert_int_equal(backend_wait(backend, &event, 1, deadline), 0);
            waits++;
        }
        assert_true(waits <= 3); /* it was not rounded down, which would spin */
    }
    static const int64_t past[] = {0, -1, 1, INT64_MIN};
    int64_t start = test_now_ns();
    for (int i = 0; i < 1000; i++)
        assert_int_equal(backend_wait(backend, &event, 1, past[i % 4]), 0);
    assert_int_equal(backend_wait(backend, &event, 1, os_now() - 1), 0);
    assert_true(test_now_ns() - start < TEST_SOON);
}

TEST(a_wait_ends_at_its_deadline)
{
    struct backend *backend = open_backend();
    check_deadlines(backend);
    backend_close(backend);
}

TEST_SERIAL(short_waits_are_not_rounded_to_milliseconds)
{
    struct backend *backend = open_backend();
    struct backend_event event;
    uint64_t coarse = faults_syscall_count("epoll_wait");
    int64_t best = INT64_MAX;
    for (int i = 0; i < 50; i++) {
        int64_t start = os_now();
        assert_int_equal(backend_wait(backend, &event, 1, start + 100000), 0);
        int64_t took = os_now() - start;
        assert_true(took >= 100000);
        best = took < best ? took : best;
    }
    if (!test_is_slow() && faults_syscall_count("epoll_wait") == coarse) /* else the system has milliseconds only */
        assert_true(best < 900000);
    backend_close(backend);
}

TEST(without_nanoseconds_deadlines_are_kept_and_the_missing_call_is_asked_for_once)
{
    test_needs("faults");
    static const int errors[] = {ENOSYS, EPERM};
    for (size_t i = 0; i < 2; i++) {
        struct backend *backend = open_backend();
        int ends[2];
        faults_reset();
        faults_syscall("syscall", 1, errors[i], FAULTS_ALWAYS);
        check_deadlines(backend);
        assert_int_equal(faults_syscall_hit("syscall"), 1);
        make_unix_pair(ends);
        attach(backend, ends[0], 1);
        assert_int_equal(channels_now(backend, 1), BACKEND_WRITE);
        backend_wake(backend);
        assert_int_equal(channels_now(backend, 1), 0);
        close(ends[0]);
        close(ends[1]);
        backend_close(backend);
    }
}

TEST(the_longest_single_wait_is_bounded)
{
    test_needs("faults");
    /* With milliseconds only, the span is an argument of a call that can be seen to overflow: it would not block. */
    static const int64_t far[] = {ROUSE_NEVER, ROUSE_NEVER - 1, INT64_MAX / 2};
    for (size_t i = 0; i < 3; i++) {
        struct backend *backend = open_backend();
        struct backend_event event;
        os_thread thread;
        faults_syscall("syscall", 1, ENOSYS, 1);
        assert_int_equal(os_thread_start(&thread, wake_late, backend, "waker"), ROUSE_OK);
        int64_t start = test_now_ns();
        assert_int_equal(backend_wait(backend, &event, 1, far[i]), 0);
        assert_true(test_now_ns() - start >= ROUSE_MS(10));
        os_thread_join(&thread);
        backend_close(backend);
    }
}

TEST(an_error_of_waiting_is_answered)
{
    test_needs("faults");
    struct backend *backend = open_backend();
    struct backend_event event;
    faults_syscall("syscall", 1, EBADF, 1);
    faults_syscall("epoll_wait", 1, EBADF, 1);
    assert_int_equal(backend_wait(backend, &event, 1, 0), ROUSE_BAD_DESCRIPTOR);
    faults_reset();
    assert_int_equal(backend_wait(backend, &event, 1, 0), 0);
    backend_close(backend);
}

static void do_nothing(int signal)
{
    (void)signal;
}

static pthread_t waiting_thread;

static void interrupt_late(void *ignored)
{
    (void)ignored;
    test_sleep_ns(ROUSE_MS(20));
    pthread_kill(waiting_thread, SIGUSR2);
}

TEST(a_signal_ends_the_wait_with_no_events)
{
    test_needs("handlers");
    struct backend *backend = open_backend();
    struct backend_event event;
    struct sigaction action = {.sa_handler = do_nothing}, before;
    os_thread thread;
    assert_int_equal(sigaction(SIGUSR2, &action, &before), 0);
    waiting_thread = pthread_self();
    assert_int_equal(os_thread_start(&thread, interrupt_late, NULL, "signal"), ROUSE_OK);
    assert_int_equal(backend_wait(backend, &event, 1, os_now() + TEST_SOON), 0);
    os_thread_join(&thread);
    assert_int_equal(sigaction(SIGUSR2, &before, NULL), 0);
    backend_close(backend);
}

/* ---- foreign loops ---- */

/* A loop over epoll of somebody else, told of each edge or as long as it lasts. */
static int foreign_loop(struct backend *backend, uint32_t mode)
{
    struct epoll_event event = {.events = EPOLLIN | mode};
    os_handle handle;
    int loop = epoll_create1(EPOLL_CLOEXEC);
    assert_true(loop >= 0);
    assert_int_equal(backend_handle(backend, &handle), ROUSE_OK);
    assert_int_equal(epoll_ctl(loop, EPOLL_CTL_ADD, (int)handle, &event), 0);
    return loop;
}

static bool is_told(int loop, int timeout_ms)
{
    struct epoll_event event;
    int count;
    while ((count = epoll_wait(loop, &event, 1, timeout_ms)) < 0 && errno == EINTR) {}
    return count == 1;
}

TEST(a_foreign_loop_hears_of_events_and_wakes_also_after_renewals)
{
    static const uint32_t modes[] = {0, EPOLLET};
    for (size_t i = 0; i < 2; i++) {
        struct backend *backend = open_backend();
        int loop = foreign_loop(backend, modes[i]), ends[2];
        make_unix_pair(ends);
        for (int round = 0; round < 3; round++) {
            attach(backend, ends[0], 1);
            (void)channels_now(backend, 1);
            (void)is_told(loop, 0); /* where edges are told, of the attaching */
            assert_false(is_told(loop, 0));
            assert_int_equal(write(ends[1], "x", 1), 1);
            assert_true(is_told(loop, 10000));
            assert_true(channels_now(backend, 1) & BACKEND_READ);
            backend_wake(backend);
            assert_true(is_told(loop, 10000));
            assert_int_equal(channels_now(backend, 1), 0);
            assert_int_equal(backend_renew(backend), ROUSE_OK);
            (void)channels_now(backend, 1);
        }
        close(loop);
        close(ends[0]);
        close(ends[1]);
        backend_close(backend);
    }
}

TEST(a_foreign_loop_is_not_kept_busy_by_a_set_that_a_child_holds)
{
    struct backend *backend = open_backend();
    int loop = foreign_loop(backend, 0), ends[2];
    make_unix_pair(ends);
    for (int round = 0; round < 2; round++) {
        attach(backend, ends[0], 1);
        (void)channels_now(backend, 1);
        pid_t child = fork();
        require(child >= 0);
        if (child == 0) {
            alarm(10); /* if the test fails, nobody ends it */
            pause();
            _exit(0);
        }
        assert_int_equal(backend_renew(backend), ROUSE_OK);
        (void)channels_now(backend, 1);
        assert_int_equal(write(ends[1], "x", 1), 1); /* the old set is told, and nobody looks into it */
        assert_false(is_told(loop, 20));
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
    }
    close(loop);
    close(ends[0]);
    close(ends[1]);
    backend_close(backend);
}

TEST(a_handle_that_cannot_be_made_leaves_nothing_and_can_be_asked_for_again)
{
    test_needs("faults");
    static const char *const calls[] = {"epoll_create1", "epoll_ctl"};
    struct backend *backend = open_backend();
    int before = test_descriptor_count();
    os_handle handle;
    for (size_t i = 0; i < 2; i++) {
        faults_syscall(calls[i], 1, EMFILE, 1);
        assert_int_equal(backend_handle(backend, &handle), ROUSE_TOO_MANY_FILES);
        assert_int_equal(test_descriptor_count(), before);
    }
    assert_int_equal(backend_handle(backend, &handle), ROUSE_OK);
    backend_close(backend);
}

TEST(a_foreign_loop_hears_on_when_a_renewal_fails)
{
    test_needs("faults");
    struct backend *backend = open_backend();
    int loop = foreign_loop(backend, 0);
    int before = test_descriptor_count();
    for (uint64_t i = 1; i <= 5; i++) { /* the wake-up path; into the outer set, the old one out of it, in again, out */
        faults_syscall("epoll_ctl", i, ENOMEM, 1);
        assert_int_equal(backend_renew(backend), i <= 2 ? ROUSE_NO_MEMORY : ROUSE_OK);
        faults_syscall("epoll_ctl", 1, ENOMEM, 0);
        assert_int_equal(test_descriptor_count(), before);
        (void)channels_now(backend, 1);
        assert_false(is_told(loop, 0));
        backend_wake(backend);
        assert_true(is_told(loop, 10000));
        (void)channels_now(backend, 1);
    }
    close(loop);
    backend_close(backend);
}

/* ---- forgetting everything ---- */

TEST(renewing_forgets_what_can_no_longer_be_named)
{
    struct backend *backend = open_backend();
    struct backend_event event;
    os_handle handle, again;
    int ends[2], others[2];
    assert_int_equal(backend_handle(backend, &handle), ROUSE_OK);
    int before = test_descriptor_count();
    make_unix_pair(ends);
    make_unix_pair(others);
    attach(backend, ends[0], 1);
    (void)channels_now(backend, 1);
    attach(backend, others[0], 2);
    (void)channels_now(backend, 2);
    int copy = dup(ends[0]);
    close(ends[0]);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_true(channels_now(backend, 1) & BACKEND_READ); /* the ghost */
    assert_int_equal(backend_renew(backend), ROUSE_OK);
    assert_int_equal(backend_handle(backend, &again), ROUSE_OK);
    assert_true(handle == again);
    assert_true(fcntl((int)handle, F_GETFD) & FD_CLOEXEC);
    (void)backend_wait(backend, &event, 1, 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(channels_now(backend, 1), 0);
    attach(backend, others[0], 2);
    assert_int_equal(channels_now(backend, 2), BACKEND_WRITE);
    backend_wake(backend);
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    close(copy);
    close(ends[1]);
    close(others[0]);
    close(others[1]);
    assert_int_equal(test_descriptor_count(), before);
    backend_close(backend);
}

TEST(a_wake_before_renewing_is_not_lost)
{
    struct backend *backend = open_backend();
    struct backend_event event;
    backend_wake(backend);
    assert_int_equal(backend_renew(backend), ROUSE_OK);
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    backend_close(backend);
}

TEST(a_renewal_that_fails_leaves_everything_as_it_was)
{
    test_needs("faults");
    static const char *const calls[] = {"epoll_create1", "epoll_ctl"};
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    attach(backend, ends[0], 1);
    (void)channels_now(backend, 1);
    int before = test_descriptor_count();
    for (size_t i = 0; i < 2; i++) {
        faults_syscall(calls[i], 1, EMFILE, 1);
        assert_int_equal(backend_renew(backend), ROUSE_TOO_MANY_FILES);
        assert_int_equal(test_descriptor_count(), before);
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_true(channels_until(backend, 1, BACKEND_READ) & BACKEND_READ);
    }
    close(ends[0]);
    close(ends[1]);
    backend_close(backend);
}

#endif
