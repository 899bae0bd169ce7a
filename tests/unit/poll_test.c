/* The poll backend: what is particular to it. What every backend owes is in tests/contract. */
#include "backend/backend.h"
#include "core/alloc.h"

#include "support/faults.h"
#include "support/harness.h"
#include "support/net.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BOTH = BACKEND_READ | BACKEND_WRITE };

static struct backend *backend;

static void set_up(void)
{
    assert_int_equal(backend_open(&backend, &alloc_default), ROUSE_OK);
}

static void tear_down(void)
{
    backend_close(backend);
}

static void make_pair(int ends[2])
{
    require(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    for (int i = 0; i < 2; i++) {
        require_int(os_set_nonblocking(ends[i], true, NULL), ==, ROUSE_OK);
    }
}

static void close_pair(const int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

static struct backend_source attach(int descriptor, uint64_t token)
{
    struct backend_source source = {.handle = descriptor};
    require_int(backend_attach(backend, &source, token), ==, ROUSE_OK);
    return source;
}

static void arm(struct backend_source *source, unsigned channels)
{
    require_int(backend_arm(backend, source, channels), ==, ROUSE_OK);
}

static void detach(struct backend_source *source)
{
    require_int(backend_detach(backend, source, false), ==, BACKEND_DONE);
}

/* The channels of the one event that there is now; 0 if there is none. */
static uint32_t told_now(uint64_t token)
{
    struct backend_event events[2];
    int count = backend_wait(backend, events, 2, 0);
    require(count == 0 || count == 1);
    require(count == 0 || (events[0].token == token && events[0].kind == BACKEND_READY));
    return count == 0 ? 0 : events[0].channels;
}

/* The call that the library waits with. */
static const char *waiting_call(void)
{
    uint64_t before = faults_syscall_count("ppoll");
    require_int(told_now(0), ==, 0);
    return faults_syscall_count("ppoll") > before ? "ppoll" : "poll";
}

/* ---- opening ---- */

TEST(opening_and_closing_leave_nothing)
{
    int before = test_descriptor_count(), first = dup(0);
    close(first);
    set_up();
    assert_in_range(test_descriptor_count(), before + 1, before + 2);
    assert_true(fcntl(first, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(first, F_GETFL) & O_NONBLOCK);
    tear_down();
    assert_int_equal(test_descriptor_count(), before);
}

TEST(a_failed_opening_leaves_nothing_half_made)
{
    test_needs("faults");
    int before = test_descriptor_count();
    faults_syscall("eventfd", 1, EMFILE, 1);
    assert_int_equal(backend_open(&backend, &alloc_default), ROUSE_TOO_MANY_FILES);
    assert_int_equal(test_descriptor_count(), before);
    for (unsigned long n = 1; n <= 2 && !test_is_sanitized(); n++) {
        faults_fail_alloc(n, false);
        assert_int_equal(backend_open(&backend, &alloc_default), ROUSE_NO_MEMORY);
        assert_int_equal(test_descriptor_count(), before);
    }
}

TEST(no_descriptor_stands_for_the_set_and_nothing_needs_renewing)
{
    os_handle handle;
    set_up();
    assert_int_equal(backend_handle(backend, &handle), ROUSE_NOT_SUPPORTED);
    assert_int_equal(backend_renew(backend), ROUSE_NOT_SUPPORTED);
    tear_down();
}

/* ---- levels ---- */

TEST(an_event_ends_the_arming_of_both_channels)
{
    int ends[2];
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    assert_int_equal(told_now(1), 0); /* not armed yet */
    arm(&source, BOTH);
    assert_int_equal(told_now(1), BACKEND_WRITE);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(told_now(1), 0);
    arm(&source, BACKEND_READ);
    assert_int_equal(told_now(1), BACKEND_READ);
    assert_int_equal(told_now(1), 0); /* though the byte is still there */
    arm(&source, BOTH);
    assert_int_equal(told_now(1), BOTH);
    detach(&source);
    close_pair(ends);
    tear_down();
}

TEST(arming_for_nothing_ends_an_arming)
{
    int ends[2];
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    arm(&source, BACKEND_WRITE);
    arm(&source, 0);
    assert_int_equal(told_now(1), 0);
    arm(&source, BACKEND_READ);
    arm(&source, BOTH); /* all that is waited for, in any order */
    assert_int_equal(told_now(1), BACKEND_WRITE);
    detach(&source);
    close_pair(ends);
    tear_down();
}

/* A poll that asks for POLLRDHUP as well would come back at once each time. */
TEST(one_who_waits_to_write_is_not_told_that_the_peer_has_ended)
{
    static char block[65536];
    struct backend_event event;
    int ends[2];
    set_up();
    test_tcp_pair(ends);
    assert_int_equal(os_set_nonblocking(ends[0], true, NULL), ROUSE_OK);
    while (write(ends[0], block, sizeof block) > 0) {}
    test_half_close(ends[1]);
    struct backend_source source = attach(ends[0], 1);
    arm(&source, BACKEND_READ);
    assert_int_equal(backend_wait(backend, &event, 1, os_now() + TEST_SOON), 1);
    assert_int_equal(event.channels, BACKEND_READ);    /* no hang-up: writing goes on */
    while (write(ends[0], block, sizeof block) > 0) {} /* there may be room meanwhile */
    int told = 0;
    for (int64_t end_ns = os_now() + ROUSE_MS(20); os_now() < end_ns;) {
        arm(&source, BACKEND_WRITE);
        told += backend_wait(backend, &event, 1, end_ns);
    }
    assert_in_range(told, 0, 5);
    detach(&source);
    close_pair(ends);
    tear_down();
}

TEST(what_urgent_data_leave_unread_is_seen_on_arming)
{
    struct backend_event event;
    char bytes[16];
    ssize_t count;
    int ends[2];
    set_up();
    test_tcp_pair(ends);
    assert_int_equal(os_set_nonblocking(ends[0], true, NULL), ROUSE_OK);
    assert_int_equal(send(ends[1], "before", 6, 0), 6);
    assert_int_equal(send(ends[1], "!", 1, MSG_OOB), 1);
    assert_int_equal(send(ends[1], "after", 5, 0), 5);
    struct backend_source source = attach(ends[0], 1);
    for (size_t got = 0; got < 11; got += (size_t)count) { /* one read after each event, however short */
        arm(&source, BACKEND_READ);
        while (backend_wait(backend, &event, 1, os_now() + TEST_SOON) == 0) {}
        assert_int_equal(event.channels & BOTH, BACKEND_READ);
        count = recv(ends[0], bytes, sizeof bytes, 0);
        assert_true(count > 0);
    }
    detach(&source);
    close_pair(ends);
    tear_down();
}

enum { CROWD = 20, SEATS = 3 };

/* Swapping the last armed source into the place of one that was told of passes over those in the middle for ever. */
TEST(sources_that_are_always_ready_are_told_in_turn)
{
    struct backend_source sources[CROWD];
    int ends[CROWD][2], told[CROWD] = {0};
    set_up();
    for (int i = 0; i < CROWD; i++) {
        make_pair(ends[i]);
        sources[i] = attach(ends[i][0], (uint64_t)i);
        arm(&sources[i], BACKEND_WRITE);
    }
    for (int i = 0; i < CROWD * 10; i++) {
        struct backend_event events[SEATS];
        assert_int_equal(backend_wait(backend, events, SEATS, 0), SEATS);
        for (int k = 0; k < SEATS; k++) {
            told[events[k].token]++;
            arm(&sources[events[k].token], BACKEND_WRITE);
        }
    }
    for (int i = 0; i < CROWD; i++) {
        assert_int_equal(told[i], 10 * SEATS);
        detach(&sources[i]);
        close_pair(ends[i]);
    }
    tear_down();
}

/* ---- descriptors that are closed too early ---- */

/* libevent#379: poll comes back at once and nobody is told. */
TEST(a_descriptor_that_was_closed_behind_our_back_hangs_up_and_is_polled_no_more)
{
    int ends[2], next[2];
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    arm(&source, BACKEND_READ);
    close(ends[0]);
    assert_int_equal(told_now(1), BOTH | BACKEND_HANGUP);
    assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_BAD_DESCRIPTOR);
    assert_int_equal(told_now(1), 0);
    make_pair(next);
    if (next[0] != ends[0]) {
        assert_int_equal(dup2(next[0], ends[0]), ends[0]);
    }
    struct backend_source successor = attach(ends[0], 2); /* the number is free again */
    arm(&successor, BACKEND_WRITE);
    assert_int_equal(told_now(2), BACKEND_WRITE);
    detach(&successor);
    if (next[0] != ends[0]) {
        close(ends[0]);
    }
    close(ends[1]);
    close_pair(next);
    tear_down();
}

TEST(a_number_that_was_reused_before_anybody_noticed_is_refused_until_it_is_detached)
{
    int ends[2], next[2];
    set_up();
    make_pair(ends);
    make_pair(next);
    struct backend_source source = attach(ends[0], 1), successor = {.handle = ends[0]};
    assert_int_equal(dup2(next[0], ends[0]), ends[0]);
    assert_int_equal(backend_attach(backend, &successor, 2), ROUSE_ALREADY_EXISTS);
    detach(&successor); /* as the layers above do with what nobody owns */
    assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_BAD_DESCRIPTOR);
    assert_int_equal(backend_attach(backend, &successor, 2), ROUSE_OK);
    arm(&successor, BACKEND_WRITE);
    assert_int_equal(told_now(2), BACKEND_WRITE);
    detach(&successor);
    close_pair(ends);
    close_pair(next);
    tear_down();
}

TEST(numbers_that_are_no_descriptors_are_refused)
{
    static const os_handle numbers[] = {-1, -2, INTPTR_MIN, INT32_MAX, INTPTR_MAX};
    set_up();
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct backend_source source = {.handle = numbers[i]};
        assert_int_equal(backend_attach(backend, &source, 1), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(backend_arm(backend, &source, BOTH), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(backend_detach(backend, &source, false), BACKEND_DONE);
        assert_int_equal(told_now(1), 0);
    }
    tear_down();
}

/* ---- the table ---- */

/* A copy of the descriptor with this number, or the highest that the system allows. */
static int copy_at(int descriptor, int number)
{
    struct rlimit limit;
    require(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if ((rlim_t)number >= limit.rlim_cur) {
        number = (int)limit.rlim_cur - 1;
    }
    require(dup2(descriptor, number) == number);
    return number;
}

TEST(the_table_grows_to_any_descriptor)
{
    static const int numbers[] = {62, 63, 64, 127, 128, 900, 100000};
    enum { COUNT = sizeof numbers / sizeof numbers[0] };
    struct backend_source sources[COUNT];
    int ends[2];
    set_up();
    make_pair(ends);
    for (uint64_t i = 0; i < COUNT; i++) {
        sources[i] = attach(copy_at(ends[0], numbers[i]), i);
        arm(&sources[i], BACKEND_WRITE);
    }
    struct backend_event events[COUNT + 1];
    assert_int_equal(backend_wait(backend, events, COUNT + 1, 0), COUNT);
    for (uint64_t i = 0; i < COUNT; i++) {
        assert_int_equal(events[i].token, i); /* in the order of their arming, through all tables */
        detach(&sources[i]);
        close((int)sources[i].handle);
    }
    close_pair(ends);
    tear_down();
}

TEST(attaching_without_memory_changes_nothing_and_can_be_tried_again)
{
    test_needs("faults");
    if (test_is_sanitized()) {
        return;
    }
    int ends[2];
    set_up();
    make_pair(ends);
    struct backend_source low = attach(ends[0], 1), high = {.handle = copy_at(ends[1], 500)};
    arm(&low, BACKEND_WRITE);
    faults_fail_alloc(1, false);
    assert_int_equal(backend_attach(backend, &high, 2), ROUSE_NO_MEMORY);
    assert_int_equal(backend_arm(backend, &high, BACKEND_WRITE), ROUSE_BAD_DESCRIPTOR);
    assert_int_equal(told_now(1), BACKEND_WRITE);
    assert_int_equal(backend_attach(backend, &high, 2), ROUSE_OK);
    faults_forbid_alloc(true); /* nothing but growing allocates */
    arm(&high, BACKEND_WRITE);
    assert_int_equal(told_now(2), BACKEND_WRITE);
    detach(&low);
    assert_int_equal(backend_attach(backend, &low, 3), ROUSE_OK);
    detach(&low);
    detach(&high);
    faults_forbid_alloc(false);
    close((int)high.handle);
    close_pair(ends);
    tear_down();
}

/* ---- a thread that waits ---- */

static struct {
    atomic_bool stops;
    atomic_uint waits;     /* that have ended */
    atomic_uint events[8]; /* by token */
} waiter;

static void wait_on(void *unused)
{
    (void)unused;
    while (!atomic_load(&waiter.stops)) {
        struct backend_event events[4];
        int count = backend_wait(backend, events, 4, ROUSE_NEVER);
        require(count >= 0);
        for (int i = 0; i < count; i++) {
            atomic_fetch_add(&waiter.events[events[i].token], 1);
        }
        atomic_fetch_add(&waiter.waits, 1);
    }
}

static void waiter_start(os_thread *thread)
{
    memset(&waiter, 0, sizeof waiter);
    require_int(os_thread_start(thread, wait_on, NULL, "waiter"), ==, ROUSE_OK);
}

static void waiter_stop(os_thread *thread)
{
    atomic_store(&waiter.stops, true);
    backend_wake(backend);
    os_thread_join(thread);
}

static void await_event(unsigned token, unsigned count)
{
    eventually(atomic_load(&waiter.events[token]) >= count, TEST_SOON);
}

TEST(what_is_armed_during_a_wait_takes_effect_whatever_the_table_did)
{
    os_thread thread;
    int ends[2];
    set_up();
    make_pair(ends);
    waiter_start(&thread);
    for (unsigned i = 0; i < 8; i++) {
        struct backend_source source = attach(copy_at(ends[0], 60 << (i % 4)), i); /* tables of four sizes */
        arm(&source, BACKEND_READ);
        arm(&source, BOTH);
        await_event(i, 1);
        detach(&source);
        close((int)source.handle);
    }
    waiter_stop(&thread);
    close_pair(ends);
    tear_down();
}

static void *count_alloc(void *blocks, size_t size, size_t alignment)
{
    atomic_fetch_add((atomic_int *)blocks, 1);
    return os_alloc(size, alignment);
}

static void count_free(void *blocks, void *memory, size_t size, size_t alignment)
{
    (void)size;
    (void)alignment;
    atomic_fetch_sub((atomic_int *)blocks, 1);
    os_free(memory);
}

/* The child has the table that its parent's wait uses, and nobody who ends that wait. */
TEST(a_child_gives_back_what_a_wait_of_its_parent_uses)
{
    test_needs("fork");
    static atomic_int blocks;
    rouse_allocator allocator = {count_alloc, count_free, &blocks};
    os_thread thread;
    int ends[2], status;
    assert_int_equal(backend_open(&backend, &allocator), ROUSE_OK);
    make_pair(ends);
    struct backend_source source = attach(ends[0], 0);
    waiter_start(&thread);
    arm(&source, BACKEND_WRITE);
    await_event(0, 1); /* from now on it waits for ever */
    struct backend_source high = attach(copy_at(ends[0], 500), 1);
    pid_t child = fork();
    if (child == 0) {
        backend_close(backend);
        _exit(atomic_load(&blocks));
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    arm(&source, BACKEND_WRITE); /* the parent goes on */
    await_event(0, 2);
    waiter_stop(&thread);
    assert_int_equal(atomic_load(&blocks), 2);
    detach(&high);
    close((int)high.handle);
    detach(&source);
    close_pair(ends);
    tear_down();
    assert_int_equal(atomic_load(&blocks), 0);
}

/* Linux keeps open what is polled. Were it not for the detaching, the peer would hear nothing until the wait ends. */
TEST(what_is_detached_during_a_wait_can_be_closed_at_once)
{
    os_thread thread;
    char byte;
    set_up();
    waiter_start(&thread);
    for (uint64_t i = test_scale(300, 30000); i > 0; i--) {
        int ends[2];
        make_pair(ends);
        struct backend_source source = attach(ends[0], 1);
        arm(&source, BACKEND_READ);
        unsigned waits = atomic_load(&waiter.waits);
        for (int k = 0; k < (int)(i % 50) && atomic_load(&waiter.waits) == waits; k++) {
            os_thread_yield(); /* most often the waiting thread polls it by now */
        }
        detach(&source);
        close(ends[0]);
        assert_int_equal(recv(ends[1], &byte, 1, MSG_DONTWAIT), 0);
        close(ends[1]);
    }
    assert_int_equal(atomic_load(&waiter.events[1]), 0);
    waiter_stop(&thread);
    tear_down();
}

TEST(nobody_is_woken_for_nothing)
{
    test_needs("faults");
    os_thread thread;
    int ends[2], other[2];
    set_up();
    make_pair(ends);
    make_pair(other);
    struct backend_source source = attach(ends[0], 1), second = attach(other[0], 2);
    faults_reset();
    arm(&source, BACKEND_READ); /* nobody waits */
    assert_int_equal(told_now(1), 0);
    arm(&source, BACKEND_READ);
    assert_int_equal(faults_syscall_count("write"), 0);
    const char *call = waiting_call();
    faults_reset();
    waiter_start(&thread);
    eventually(faults_syscall_count(call) == 1, TEST_SOON);
    for (int i = 0; i < 1000; i++) {
        arm(&source, BACKEND_READ); /* which is armed already */
        arm(&second, 0);
    }
    detach(&second); /* which nobody polls */
    assert_int_equal(faults_syscall_count("write"), 0);
    assert_int_equal(atomic_load(&waiter.waits), 0);
    waiter_stop(&thread);
    detach(&source);
    close_pair(ends);
    close_pair(other);
    tear_down();
}

static void wait_once(void *unused)
{
    struct backend_event event;
    (void)unused;
    require_int(backend_wait(backend, &event, 1, ROUSE_NEVER), ==, 0);
}

TEST(many_changes_make_one_wait_return_once)
{
    test_needs("faults");
    os_thread thread;
    struct backend_source sources[CROWD];
    int ends[CROWD][2];
    set_up();
    for (int i = 0; i < CROWD; i++) {
        make_pair(ends[i]);
        sources[i] = attach(ends[i][0], (uint64_t)i);
    }
    const char *call = waiting_call();
    faults_reset();
    assert_int_equal(os_thread_start(&thread, wait_once, NULL, "waiter"), ROUSE_OK);
    eventually(faults_syscall_count(call) == 1, TEST_SOON);
    for (int i = 0; i < CROWD; i++) {
        arm(&sources[i], BACKEND_READ);
    }
    assert_int_equal(faults_syscall_count("write"), 1);
    os_thread_join(&thread);
    for (int i = 0; i < CROWD; i++) {
        detach(&sources[i]);
        close_pair(ends[i]);
    }
    tear_down();
}

static void wake_often(void *rounds)
{
    for (unsigned i = 0; i < *(unsigned *)rounds; i++) {
        while (atomic_load(&waiter.waits) < i) {
            os_thread_yield();
        }
        backend_wake(backend);
    }
}

/* The event is emptied in the turn that sees both. */
TEST(no_wake_is_lost_among_events)
{
    unsigned rounds = (unsigned)test_scale(3000, 300000);
    struct backend_event event;
    os_thread thread;
    int ends[2];
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    memset(&waiter, 0, sizeof waiter);
    assert_int_equal(os_thread_start(&thread, wake_often, &rounds, "waker"), ROUSE_OK);
    for (unsigned i = 0; i < rounds; i++) {
        arm(&source, i % 3 ? BACKEND_WRITE : BACKEND_READ); /* each third wait is ended by a wake alone */
        require_int(backend_wait(backend, &event, 1, ROUSE_NEVER), ==, i % 3 ? 1 : 0);
        atomic_fetch_add(&waiter.waits, 1);
    }
    os_thread_join(&thread);
    detach(&source);
    close_pair(ends);
    tear_down();
}

/* ---- waits that fail ---- */

TEST(a_wait_that_the_system_refuses_says_why_and_loses_nothing)
{
    test_needs("faults");
    static const struct {
        int error, status;
    } pairs[] = {{EINTR, 0}, {EAGAIN, ROUSE_NO_MEMORY}, {ENOMEM, ROUSE_NO_MEMORY}, {EINVAL, ROUSE_INVALID}};
    struct backend_event event;
    int ends[2];
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    const char *call = waiting_call();
    arm(&source, BACKEND_WRITE);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        faults_syscall(call, 1, pairs[i].error, 1);
        backend_wake(backend);
        assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), pairs[i].status);
        assert_int_equal(told_now(1), BACKEND_WRITE);
        assert_int_equal(backend_wait(backend, &event, 1, 0), 0);
        arm(&source, BACKEND_WRITE);
    }
    detach(&source);
    close_pair(ends);
    tear_down();
}

TEST(an_event_that_the_program_has_closed_is_an_error_and_sources_go_on)
{
    struct backend_event event;
    int ends[2], first = dup(0);
    close(first);
    set_up();
    make_pair(ends);
    struct backend_source source = attach(ends[0], 1);
    close(first);
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), ROUSE_BAD_DESCRIPTOR);
    arm(&source, BACKEND_WRITE);
    assert_int_equal(told_now(1), BACKEND_WRITE);
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), ROUSE_BAD_DESCRIPTOR);
    detach(&source);
    close_pair(ends);
    tear_down();
}

static void wake_late(void *unused)
{
    (void)unused;
    test_sleep_ns(ROUSE_MS(5));
    backend_wake(backend);
}

/* A span that overflows what poll takes would be none, or endless. */
TEST(spans_of_any_length_block)
{
    static const int64_t far[] = {ROUSE_NEVER, ROUSE_NEVER - 1, INT64_MAX / 2, ROUSE_S(86400) * 365};
    struct backend_event event;
    test_thread thread;
    set_up();
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        int64_t start = test_now_ns();
        test_thread_start(&thread, wake_late, NULL);
        assert_int_equal(backend_wait(backend, &event, 1, far[i] < ROUSE_S(86400) * 400 ? os_now() + far[i] : far[i]),
                         0);
        assert_true(test_now_ns() - start >= ROUSE_MS(4));
        test_thread_join(&thread, TEST_SOON);
    }
    tear_down();
}
