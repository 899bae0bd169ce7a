/* What backend.h promises, of whatever backend is built. */
#include "backend/backend.h"
#include "core/alloc.h"

#include "support/faults.h"
#include "support/harness.h"
#include "support/net.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BOTH = BACKEND_READ | BACKEND_WRITE };

static struct backend *backend;

static void set_up(void)
{
    assert_int_equal(backend_open(&backend, alloc_choose(NULL)), ROUSE_OK);
}

static void tear_down(void)
{
    backend_close(backend);
}

static void make_pair(int ends[2])
{
    if (test_has("unix_sockets"))
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    else
        test_tcp_pair(ends);
    for (int i = 0; i < 2; i++)
        assert_int_equal(os_set_nonblocking(ends[i], true, NULL), ROUSE_OK);
}

static void close_pair(const int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

static struct backend_source attach(int descriptor, uint64_t token)
{
    struct backend_source source = {.handle = descriptor};
    assert_int_equal(backend_attach(backend, &source, token), ROUSE_OK);
    return source;
}

static int retired; /* how often `told` was told that a source is retired */

/* What a token is told of within a span of time, which ends early once that contains `wanted`. */
static uint32_t told(struct backend_source *source, uint64_t token, uint32_t wanted, int64_t span_ns)
{
    struct backend_event events[4];
    uint32_t channels = 0;
    int64_t end_ns = os_now() + span_ns;
    assert_int_equal(backend_arm(backend, source, BOTH), ROUSE_OK);
    do {
        int count = backend_wait(backend, events, 4, end_ns);
        require(count >= 0 && count <= 4);
        for (int i = 0; i < count; i++) {
            if (events[i].kind == BACKEND_RETIRED) {
                retired++;
                continue;
            }
            if (events[i].token < token) /* late, of a source that was detached before: harmless */
                continue;
            require(events[i].token == token && events[i].kind == BACKEND_READY);
            channels |= events[i].channels;
        }
        if (count > 0)
            assert_int_equal(backend_arm(backend, source, BOTH & ~channels), ROUSE_OK);
    } while ((wanted == 0 || (channels & wanted) != wanted) && os_now() < end_ns);
    return channels;
}

/* Waits until a source that was detached LATER is retired; answers whose it was. */
static uint64_t await_retired(void)
{
    struct backend_event event;
    int64_t end_ns = os_now() + TEST_SOON;
    while (os_now() < end_ns)
        if (backend_wait(backend, &event, 1, end_ns) == 1 && event.kind == BACKEND_RETIRED)
            return event.token;
    fail_msg("not retired in time");
    return 0;
}

static void forget(struct backend_source *source, uint64_t token)
{
    if (backend_detach(backend, source, false) == BACKEND_LATER)
        assert_true(await_retired() == token);
}

/* ---- open, close ---- */

TEST(closing_releases_everything)
{
    int ends[2], before = test_descriptor_count();
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
    tear_down();
    close_pair(ends);
    assert_int_equal(test_descriptor_count(), before);
}

static void open_and_close(void *unused)
{
    struct backend *made;
    (void)unused;
    if (backend_open(&made, alloc_choose(NULL)) == ROUSE_OK)
        backend_close(made);
}

TEST(an_opening_without_memory_leaves_nothing_half_made)
{
    test_needs("faults");
    if (!test_is_sanitized())
        assert_true(test_each_failing_allocation(open_and_close, NULL) > 0);
}

/* ---- attach, arm ---- */

TEST(readiness_that_exists_on_attaching_is_told)
{
    int ends[2];
    set_up();
    make_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    struct backend_source source = attach(ends[0], 7);
    assert_int_equal(told(&source, 7, BOTH, TEST_SOON) & BOTH, BOTH);
    forget(&source, 7);
    close_pair(ends);
    tear_down();
}

TEST(a_token_comes_back_as_it_was_given)
{
    static const uint64_t tokens[] = {0, 1, UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX - 1};
    set_up();
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        int ends[2];
        make_pair(ends);
        struct backend_source source = attach(ends[0], tokens[i]);
        assert_true(told(&source, tokens[i], BACKEND_WRITE, TEST_SOON) & BACKEND_WRITE);
        forget(&source, tokens[i]);
        close_pair(ends);
    }
    tear_down();
}

TEST(what_cannot_be_polled_is_refused)
{
    test_needs("descriptors");
    char path[] = "/tmp/rouse-backend-XXXXXX";
    int file = mkstemp(path);
    struct backend_source source = {.handle = file};
    set_up();
    assert_int_equal(backend_attach(backend, &source, 1), ROUSE_NOT_POLLABLE);
    tear_down();
    close(file);
    unlink(path);
}

TEST(a_handle_is_tracked_once_and_again_after_detaching)
{
    int ends[2];
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1), second = {.handle = ends[0]};
    assert_int_equal(backend_attach(backend, &second, 2), ROUSE_ALREADY_EXISTS);
    assert_true(told(&source, 1, BACKEND_WRITE, TEST_SOON) & BACKEND_WRITE);
    forget(&source, 1);
    second = attach(ends[0], 2);
    assert_true(told(&second, 2, BACKEND_WRITE, TEST_SOON) & BACKEND_WRITE);
    forget(&second, 2);
    close_pair(ends);
    tear_down();
}

TEST(each_moment_of_becoming_ready_is_told_once_it_is_armed)
{
    int ends[2];
    char byte;
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    (void)told(&source, 1, BACKEND_WRITE, TEST_SOON);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_true(told(&source, 1, BACKEND_READ, TEST_SOON) & BACKEND_READ);
        assert_int_equal(read(ends[0], &byte, 1), 1);
    }
    forget(&source, 1);
    close_pair(ends);
    tear_down();
}

TEST(a_channel_that_is_armed_after_another_is_told_as_well)
{
    set_up();
    for (uint64_t token = 1; token <= 10; token++) {
        int ends[2];
        make_pair(ends);
        struct backend_source source = attach(ends[0], token);
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
        assert_true(told(&source, token, BACKEND_WRITE, TEST_SOON) & BACKEND_WRITE);
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_true(told(&source, token, BACKEND_READ, TEST_SOON) & BACKEND_READ);
        forget(&source, token);
        close_pair(ends);
    }
    tear_down();
}

/* By a reset, because the plain end of a TCP connection is one of reading only. */
TEST(an_end_fires_both_channels)
{
    int ends[2];
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    (void)told(&source, 1, BACKEND_WRITE, TEST_SOON);
    test_close_with_reset(ends[1]);
    assert_int_equal(told(&source, 1, BOTH | BACKEND_HANGUP, TEST_SOON) & BOTH, BOTH);
    forget(&source, 1);
    close(ends[0]);
    tear_down();
}

/* ---- detach ---- */

TEST(a_detached_source_is_not_told_of_any_more)
{
    struct backend_event event;
    int ends[2];
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    (void)told(&source, 1, BACKEND_WRITE, TEST_SOON);
    forget(&source, 1);
    assert_int_equal(write(ends[1], "x", 1), 1);
    int64_t end_ns = os_now() + ROUSE_MS(10);
    while (os_now() < end_ns)
        assert_int_equal(backend_wait(backend, &event, 1, end_ns), 0);
    close_pair(ends);
    tear_down();
}

TEST(a_source_that_is_closed_after_detaching_leaves_its_number_to_the_next)
{
    int later = 0;
    set_up();
    for (uint64_t token = 1; token <= 20; token++) {
        int ends[2];
        make_pair(ends);
        struct backend_source source = attach(ends[0], token);
        assert_true(told(&source, token, BACKEND_WRITE, TEST_SOON) & BACKEND_WRITE);
        later += backend_detach(backend, &source, true) == BACKEND_LATER;
        close_pair(ends);
    }
    for (; retired < later; retired++)
        (void)await_retired();
    tear_down();
}

TEST(detaching_what_was_closed_already_does_no_harm)
{
    int ends[2];
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    close_pair(ends);
    (void)backend_detach(backend, &source, false);
    tear_down();
}

/* ---- wait, wake ---- */

TEST(a_wait_ends_at_its_deadline_and_never_before)
{
    struct backend_event event;
    set_up();
    for (int64_t span_ns = 1000; span_ns < ROUSE_MS(20); span_ns *= 3) {
        int64_t deadline_ns = os_now() + span_ns;
        assert_int_equal(backend_wait(backend, &event, 1, deadline_ns), 0);
        /* It may return early, but not because of rounding: what remains is waited for. */
        while (os_now() < deadline_ns)
            assert_int_equal(backend_wait(backend, &event, 1, deadline_ns), 0);
    }
    tear_down();
}

TEST(a_deadline_in_the_past_does_not_block)
{
    static const int64_t passed[] = {INT64_MIN, -1, 0, 1};
    struct backend_event event;
    set_up();
    int64_t start = test_now_ns();
    for (size_t i = 0; i < sizeof passed / sizeof passed[0]; i++)
        assert_int_equal(backend_wait(backend, &event, 1, passed[i]), 0);
    assert_true(test_now_ns() - start < TEST_SOON);
    tear_down();
}

TEST(a_wake_ends_the_next_wait)
{
    struct backend_event event;
    set_up();
    for (int i = 0; i < 100; i++) {
        backend_wake(backend);
        assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    }
    tear_down();
}

static void wake_late(void *unused)
{
    (void)unused;
    test_sleep_ns(ROUSE_MS(5));
    backend_wake(backend);
}

TEST(a_wake_ends_the_wait_in_progress)
{
    struct backend_event event;
    set_up();
    for (int i = 0; i < 10; i++) {
        test_thread thread;
        test_thread_start(&thread, wake_late, NULL);
        assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
        test_thread_join(&thread, TEST_SOON);
    }
    tear_down();
}

static void do_nothing(int signal)
{
    (void)signal;
}

static pthread_t waiting;

static void interrupt_late(void *unused)
{
    (void)unused;
    test_sleep_ns(ROUSE_MS(10));
    require(pthread_kill(waiting, SIGUSR2) == 0);
}

TEST(an_interrupted_wait_is_no_error)
{
    test_needs("signals");
    test_needs("handlers");
    struct backend_event event;
    struct sigaction action = {.sa_handler = do_nothing}, before;
    test_thread thread;
    set_up();
    assert_int_equal(sigaction(SIGUSR2, &action, &before), 0);
    waiting = pthread_self();
    test_thread_start(&thread, interrupt_late, NULL);
    assert_int_equal(backend_wait(backend, &event, 1, os_now() + ROUSE_MS(100)), 0);
    test_thread_join(&thread, TEST_SOON);
    assert_int_equal(sigaction(SIGUSR2, &before, NULL), 0);
    tear_down();
}

static int late_ends[2];

static void attach_late(void *source)
{
    test_sleep_ns(ROUSE_MS(5));
    struct backend_source *late = source;
    late->handle = late_ends[0];
    require_int(backend_attach(backend, late, 3), ==, ROUSE_OK);
    require_int(backend_arm(backend, late, BOTH), ==, ROUSE_OK);
}

TEST(what_another_thread_attaches_during_a_wait_is_told)
{
    struct backend_event event;
    struct backend_source source = {.record = NULL};
    test_thread thread;
    int count;
    set_up();
    make_pair(late_ends);
    test_thread_start(&thread, attach_late, &source);
    while ((count = backend_wait(backend, &event, 1, ROUSE_NEVER)) == 0) {}
    assert_int_equal(count, 1);
    assert_true(event.token == 3 && event.channels & BACKEND_WRITE);
    test_thread_join(&thread, TEST_SOON);
    forget(&source, 3);
    close_pair(late_ends);
    tear_down();
}

static atomic_bool ended;

static void wait_until_ended(void *unused)
{
    struct backend_event event;
    (void)unused;
    while (!atomic_load(&ended))
        require(backend_wait(backend, &event, 1, ROUSE_NEVER) >= 0);
}

TEST(what_is_detached_during_a_wait_can_be_closed_and_its_peer_learns_of_it)
{
    test_thread thread;
    set_up();
    atomic_store(&ended, false);
    test_thread_start(&thread, wait_until_ended, NULL);
    for (uint64_t token = 0; token < 20; token++) {
        int ends[2];
        make_pair(ends);
        struct backend_source source = attach(ends[0], token);
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
        test_sleep_ns(ROUSE_US(300)); /* most often it waits for this one by then */
        (void)backend_detach(backend, &source, token % 2);
        close(ends[0]);
        test_expect_end(ends[1]);
        close(ends[1]);
    }
    atomic_store(&ended, true);
    backend_wake(backend);
    test_thread_join(&thread, TEST_SOON);
    tear_down();
}

/* ---- handle, renew ---- */

static bool is_readable(os_handle handle, int timeout_ms)
{
    struct pollfd poller = {.fd = (int)handle, .events = POLLIN};
    return poll(&poller, 1, timeout_ms) == 1;
}

/* What comes late comes within a millisecond. */
static void drain(void)
{
    struct backend_event event;
    int64_t end_ns = os_now() + ROUSE_MS(1);
    while (os_now() < end_ns)
        if (backend_wait(backend, &event, 1, end_ns) > 0)
            end_ns = os_now() + ROUSE_MS(1);
}

TEST(the_handle_is_readable_while_a_wait_would_find_something_also_after_renewals)
{
    os_handle handle, again;
    struct backend_event event;
    int ends[2];
    set_up();
    int status = backend_handle(backend, &handle);
    if (status == ROUSE_OK) {
        for (int i = 0; i < 3; i++) {
            make_pair(ends);
            struct backend_source source = attach(ends[0], 1);
            (void)told(&source, 1, BACKEND_WRITE, TEST_SOON);
            drain();
            assert_false(is_readable(handle, 0));
            assert_int_equal(write(ends[1], "x", 1), 1);
            assert_true(is_readable(handle, 10000));
            (void)told(&source, 1, BACKEND_READ, TEST_SOON);
            drain();
            backend_wake(backend);
            assert_true(is_readable(handle, 10000));
            assert_int_equal(backend_wait(backend, &event, 1, 0), 0);
            forget(&source, 1);
            close_pair(ends);
            int renewed = backend_renew(backend);
            assert_true(renewed == ROUSE_OK || renewed == ROUSE_NOT_SUPPORTED);
            assert_int_equal(backend_handle(backend, &again), ROUSE_OK);
            assert_true(handle == again);
        }
    } else {
        assert_int_equal(status, ROUSE_NOT_SUPPORTED);
    }
    tear_down();
}

TEST(renewing_forgets_every_source_and_keeps_the_wake_up_path)
{
    struct backend_event event;
    int ends[2];
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    (void)told(&source, 1, BACKEND_WRITE, TEST_SOON);
    backend_wake(backend);
    int status = backend_renew(backend);
    if (status == ROUSE_OK) {
        assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0); /* the wake was not lost */
        assert_int_equal(write(ends[1], "x", 1), 1);
        int64_t end_ns = os_now() + ROUSE_MS(10);
        while (os_now() < end_ns)
            assert_int_equal(backend_wait(backend, &event, 1, end_ns), 0);
        source = attach(ends[0], 2);
        assert_int_equal(told(&source, 2, BOTH, TEST_SOON) & BOTH, BOTH);
        backend_wake(backend);
        assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
        forget(&source, 2);
    } else {
        assert_int_equal(status, ROUSE_NOT_SUPPORTED);
        forget(&source, 1);
    }
    close_pair(ends);
    tear_down();
}
