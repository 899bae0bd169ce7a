/* The kqueue backend: what is particular to it. What every backend owes is in contract/backend_test.c. */
#include "backend/backend.h"
#include "core/alloc.h"

#include "support/faults.h"
#include "support/harness.h"
#include "support/net.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/types.h> /* before the next one */

#include <sys/event.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct backend *open_backend(void)
{
    struct backend *backend = NULL;
    require_int(backend_open(&backend, &alloc_default), ==, ROUSE_OK);
    return backend;
}

static struct backend_source attach(struct backend *backend, int descriptor, uint64_t token)
{
    struct backend_source source = {.handle = descriptor};
    assert_int_equal(os_set_nonblocking(descriptor, true, NULL), ROUSE_OK);
    assert_int_equal(backend_attach(backend, &source, token), ROUSE_OK);
    return source;
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

static void close_pair(const int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

/* ---- opening ---- */

TEST(a_failed_opening_leaves_nothing_half_made)
{
    test_needs("faults");
    struct backend *backend;
    int before = test_descriptor_count();
    faults_syscall("kqueue", 1, EMFILE, 1);
    assert_int_equal(backend_open(&backend, &alloc_default), ROUSE_TOO_MANY_FILES);
    faults_syscall("fcntl", 1, ENOMEM, 1);
    assert_int_equal(backend_open(&backend, &alloc_default), ROUSE_NO_MEMORY);
    faults_syscall("kevent_wake", 1, ENOMEM, 1);
    assert_int_equal(backend_open(&backend, &alloc_default), ROUSE_NO_MEMORY);
    assert_int_equal(test_descriptor_count(), before);
}

TEST(the_queue_is_closed_on_exec)
{
    struct backend *backend = open_backend();
    os_handle handle;
    assert_int_equal(backend_handle(backend, &handle), ROUSE_OK);
    assert_true(fcntl((int)handle, F_GETFD) & FD_CLOEXEC);
    backend_close(backend);
}

/* ---- where there are no user events ---- */

static struct backend *open_without_user_events(void)
{
    faults_syscall("kevent_wake", 1, EINVAL, FAULTS_ALWAYS);
    struct backend *backend = open_backend();
    assert_int_equal(faults_syscall_hit("kevent_wake"), 1);
    return backend;
}

TEST(without_user_events_a_descriptor_ends_waits)
{
    test_needs("faults");
    struct backend *backend = open_without_user_events();
    struct backend_event event;
    int ends[2];
    make_unix_pair(ends);
    attach(backend, ends[0], 1);
    assert_int_equal(channels_now(backend, 1), BACKEND_WRITE);
    for (int i = 0; i < 1000; i++) {
        backend_wake(backend);
        if (i % 2) {
            backend_wake(backend);
        }
        assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    }
    int64_t deadline = os_now() + ROUSE_MS(5); /* it wakes once only */
    while (os_now() < deadline) {
        assert_int_equal(backend_wait(backend, &event, 1, deadline), 0);
    }
    assert_int_equal(faults_syscall_hit("kevent_wake"), 1);
    close_pair(ends);
    backend_close(backend);
}

TEST(without_user_events_a_failed_opening_leaves_nothing)
{
    test_needs("faults");
    struct backend *backend;
    int before = test_descriptor_count();
    faults_syscall("kevent_wake", 1, EINVAL, FAULTS_ALWAYS);
    faults_syscall("set_change", 1, ENOMEM, 1);
    assert_int_equal(backend_open(&backend, &alloc_default), ROUSE_NO_MEMORY);
    faults_syscall("eventfd", 1, EMFILE, 1);
    assert_int_equal(backend_open(&backend, &alloc_default), ROUSE_TOO_MANY_FILES);
    assert_int_equal(test_descriptor_count(), before);
}

TEST(an_interrupted_wake_is_repeated)
{
    test_needs("faults");
    struct backend *backend = open_backend();
    struct backend_event event;
    faults_syscall("kevent_wake", 1, EINTR, 3);
    backend_wake(backend);
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    assert_int_equal(faults_syscall_hit("kevent_wake"), 3);
    backend_close(backend);
}

/* ---- ends ---- */

TEST(a_half_close_is_no_hang_up_and_comes_with_the_data)
{
    struct backend *backend = open_backend();
    char text[16];
    int ends[2];
    test_tcp_pair(ends);
    attach(backend, ends[0], 1);
    (void)channels_now(backend, 1);
    test_send_all(ends[1], "last words", 10);
    test_half_close(ends[1]);
    assert_false(channels_until(backend, 1, BACKEND_READ | BACKEND_URGENT) & BACKEND_HANGUP);
    assert_int_equal(read(ends[0], text, sizeof text), 10);
    assert_int_equal(read(ends[0], text, sizeof text), 0);
    close_pair(ends);
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

TEST(a_refused_connection_is_a_hang_up_and_keeps_its_error)
{
    struct backend *backend = open_backend();
    rouse_address address = test_address(test_free_port());
    os_handle handle;
    assert_int_equal(os_tcp_open(&handle, address.family), ROUSE_OK);
    int status = os_tcp_connect(handle, &address);
    attach(backend, (int)handle, 1);
    if (status == ROUSE_PENDING) {
        (void)channels_until(backend, 1, BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP);
        status = os_tcp_connect_result(handle);
    }
    assert_int_equal(status, ROUSE_CONNECTION_REFUSED);
    assert_int_equal(os_close(handle), ROUSE_OK);
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
        (void)channels_until(backend, 1, gone == 0 ? BACKEND_WRITE : BACKEND_READ);
        close(ends[1 - gone]);
        backend_close(backend);
    }
}

/* The filter for writing is refused then. */
TEST(both_ends_of_a_pipe_can_be_attached_when_the_other_is_gone)
{
    for (int gone = 0; gone < 2; gone++) {
        struct backend *backend = open_backend();
        int ends[2];
        make_pipe(ends);
        assert_int_equal(write(ends[1], "x", 1), 1);
        close(ends[gone]);
        struct backend_source source = attach(backend, ends[1 - gone], 1);
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ | BACKEND_WRITE), ROUSE_OK);
        (void)channels_until(backend, 1, gone == 0 ? BACKEND_WRITE : BACKEND_READ);
        close(ends[1 - gone]);
        backend_close(backend);
    }
}

/* ---- sources ---- */

TEST(a_direction_that_the_handle_does_not_have_cannot_be_armed)
{
    struct backend *backend = open_backend();
    int queue = kqueue(); /* has no filter for writing */
    assert_true(queue >= 0);
    struct backend_source source = {.handle = queue};
    assert_int_equal(backend_attach(backend, &source, 1), ROUSE_OK);
    assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
    assert_int_equal(backend_arm(backend, &source, BACKEND_WRITE), ROUSE_NOT_POLLABLE);
    detach(backend, queue, false);
    close(queue);
    backend_close(backend);
}

TEST(an_attach_that_the_kernel_refuses_says_why_and_can_be_tried_again)
{
    test_needs("faults");
    static const struct {
        int error, status;
    } pairs[] = {{ENOMEM, ROUSE_NO_MEMORY},   {EINVAL, ROUSE_NOT_POLLABLE},  {ENODEV, ROUSE_NOT_POLLABLE},
                 {EPERM, ROUSE_NOT_POLLABLE}, {EBADF, ROUSE_BAD_DESCRIPTOR}, {EPIPE, ROUSE_BROKEN_PIPE}};
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    struct backend_source source = {.handle = ends[0]}, closed = {.handle = OS_NO_HANDLE};
    assert_int_equal(backend_attach(backend, &closed, 1), ROUSE_BAD_DESCRIPTOR);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        faults_syscall("set_change", 1, pairs[i].error, 1);
        assert_int_equal(backend_attach(backend, &source, 1), pairs[i].status);
        assert_int_equal(channels_now(backend, 1), 0);
    }
    faults_syscall("set_change", 1, EINTR, 2);
    assert_int_equal(backend_attach(backend, &source, 1), ROUSE_OK);
    assert_int_equal(channels_now(backend, 1), BACKEND_WRITE);
    close_pair(ends);
    backend_close(backend);
}

/* A kernel that is told of a filter again replaces its token. */
TEST(attaching_twice_takes_nothing_from_the_first)
{
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    attach(backend, ends[0], 0);
    struct backend_source second = {.handle = ends[0]};
    assert_int_equal(backend_attach(backend, &second, 2), ROUSE_ALREADY_EXISTS);
    (void)channels_now(backend, 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    (void)channels_until(backend, 0, BACKEND_READ);
    close_pair(ends);
    backend_close(backend);
}

TEST(a_number_that_was_closed_behind_our_back_is_free)
{
    for (int copied = 0; copied < 2; copied++) {
        struct backend *backend = open_backend();
        int ends[2], others[2];
        make_unix_pair(ends);
        make_unix_pair(others);
        attach(backend, ends[0], 1);
        (void)channels_now(backend, 1);
        int copy = copied ? dup(ends[0]) : -1;
        assert_int_equal(dup2(others[0], ends[0]), ends[0]);
        attach(backend, ends[0], 2);
        assert_int_equal(channels_now(backend, 2), BACKEND_WRITE);
        assert_true(!copied || write(ends[1], "x", 1) == 1); /* the copy is readable, and nobody is told */
        assert_int_equal(channels_now(backend, 2), 0);
        assert_int_equal(write(others[1], "x", 1), 1);
        (void)channels_until(backend, 2, BACKEND_READ);
        if (copied) {
            close(copy);
        }
        close_pair(ends);
        close_pair(others);
        backend_close(backend);
    }
}

TEST(closing_ends_the_events_of_what_a_copy_keeps_open_so_nothing_is_renewed)
{
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    attach(backend, ends[0], 1);
    (void)channels_now(backend, 1);
    int copy = dup(ends[0]);
    close(ends[0]);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(channels_now(backend, 1), 0);
    assert_int_equal(backend_renew(backend), ROUSE_NOT_SUPPORTED);
    close(copy);
    close(ends[1]);
    backend_close(backend);
}

TEST(high_numbers_are_tracked_once_there_is_memory)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int number = limit.rlim_cur > 5000 ? 5000 : (int)limit.rlim_cur - 1;
    struct backend *backend = open_backend();
    int low[2], high[2];
    make_unix_pair(low);
    make_unix_pair(high);
    assert_int_equal(dup2(high[0], number), number);
    attach(backend, low[0], 1);
    (void)channels_now(backend, 1);
    struct backend_source source = {.handle = number};
    if (test_has("faults") && !test_is_sanitized()) {
        faults_fail_alloc(1, false);
        assert_int_equal(backend_attach(backend, &source, 2), ROUSE_NO_MEMORY);
        assert_int_equal(channels_now(backend, 2), 0);
    }
    assert_int_equal(backend_attach(backend, &source, 2), ROUSE_OK);
    assert_int_equal(channels_now(backend, 2), BACKEND_WRITE);
    source.handle = low[0]; /* what was tracked before still is */
    assert_int_equal(backend_attach(backend, &source, 3), ROUSE_ALREADY_EXISTS);
    close(number);
    close_pair(low);
    close_pair(high);
    backend_close(backend);
}

TEST(detaching_before_a_close_makes_no_system_call)
{
    test_needs("faults");
    struct backend *backend = open_backend();
    int ends[2];
    make_unix_pair(ends);
    attach(backend, ends[0], 1);
    uint64_t before = faults_syscall_count("set_change");
    detach(backend, ends[0], true);
    assert_int_equal(faults_syscall_count("set_change"), before);
    close(ends[0]);
    assert_int_equal(channels_now(backend, 1), 0);
    close(ends[1]);
    backend_close(backend);
}

/* ---- waiting ---- */

TEST(a_wait_that_the_kernel_ends_early_goes_on)
{
    test_needs("faults");
    struct backend *backend = open_backend();
    struct backend_event event;
    assert_int_equal(setenv("KQUEUE_EARLY_US", "8000", 1), 0);
    uint64_t waits = faults_syscall_count("kevent_wait");
    for (int i = 0; i < 10; i++) {
        int64_t deadline = os_now() + ROUSE_MS(10);
        assert_int_equal(backend_wait(backend, &event, 1, deadline), 0);
        assert_true(os_now() >= deadline);
    }
    assert_true(faults_syscall_count("kevent_wait") > waits + 10); /* on a busy machine some end late all the same */
    assert_int_equal(unsetenv("KQUEUE_EARLY_US"), 0);
    backend_close(backend);
}

static void wake_late(void *argument)
{
    test_sleep_ns(ROUSE_MS(20));
    backend_wake(argument);
}

/* Kernels refuse spans that are too long for them. */
TEST(the_longest_single_wait_is_bounded)
{
    static const int64_t far[] = {ROUSE_NEVER, ROUSE_NEVER - 1, INT64_MAX / 2};
    for (size_t i = 0; i < 3; i++) {
        struct backend *backend = open_backend();
        struct backend_event event;
        test_thread thread;
        test_thread_start(&thread, wake_late, backend);
        int64_t start = test_now_ns();
        assert_int_equal(backend_wait(backend, &event, 1, far[i]), 0);
        assert_true(test_now_ns() - start >= ROUSE_MS(10));
        test_thread_join(&thread, TEST_SOON);
        backend_close(backend);
    }
}

TEST_SERIAL(short_waits_are_not_rounded_to_ticks)
{
    test_needs("faults"); /* real kernels may do so */
    struct backend *backend = open_backend();
    struct backend_event event;
    int64_t best = INT64_MAX;
    for (int i = 0; i < 50; i++) {
        int64_t start = os_now();
        assert_int_equal(backend_wait(backend, &event, 1, start + 100000), 0);
        int64_t took = os_now() - start;
        assert_true(took >= 100000);
        best = took < best ? took : best;
    }
    assert_true(test_is_slow() || best < 900000);
    backend_close(backend);
}

TEST(an_error_of_waiting_is_answered_and_an_interruption_is_none)
{
    test_needs("faults");
    struct backend *backend = open_backend();
    struct backend_event event;
    faults_syscall("kevent_wait", 1, EBADF, 1);
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), ROUSE_BAD_DESCRIPTOR);
    faults_syscall("kevent_wait", 1, EINTR, 1);
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    assert_int_equal(backend_wait(backend, &event, 1, 0), 0);
    backend_close(backend);
}

/* ---- foreign loops ---- */

static bool is_told(int loop, int timeout_ms)
{
    struct timespec span = {timeout_ms / 1000, timeout_ms % 1000 * 1000000};
    struct kevent event;
    return kevent(loop, NULL, 0, &event, 1, &span) == 1;
}

TEST(a_foreign_queue_hears_of_events_and_wakes)
{
    static const unsigned short modes[] = {EV_ADD, EV_ADD | EV_CLEAR};
    for (size_t i = 0; i < 2; i++) {
        struct backend *backend = open_backend();
        os_handle handle;
        struct kevent change;
        int loop = kqueue(), ends[2];
        assert_int_equal(backend_handle(backend, &handle), ROUSE_OK);
        EV_SET(&change, (uintptr_t)handle, EVFILT_READ, modes[i], 0, 0, 0);
        assert_int_equal(kevent(loop, &change, 1, NULL, 0, NULL), 0);
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
            detach(backend, ends[0], false);
        }
        close(loop);
        close_pair(ends);
        backend_close(backend);
    }
}

/* ---- fork ---- */

static void close_in_child(void *backend)
{
    os_handle handle;
    require_int(backend_handle(backend, &handle), ==, ROUSE_OK);
    require(fcntl((int)handle, F_GETFD) < 0); /* a child has no queue */
    require(dup2(0, (int)handle) == (int)handle);
    backend_close(backend);
    require(fcntl((int)handle, F_GETFD) >= 0);
    require(close((int)handle) == 0);
}

TEST(a_child_closes_nothing_that_has_the_queues_number)
{
    test_needs("fork");
    struct backend *backend = open_backend();
    assert_int_equal(test_in_child(close_in_child, backend, TEST_SOON), 0);
    struct backend_event event;
    backend_wake(backend);
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    backend_close(backend);
}
