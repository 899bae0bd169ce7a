/* Accepting while descriptors, memory or the network are missing: no connection is lost that could be served, no processor
 * time is burnt, and others go on. */
#include "support/io.h"

#include <sys/resource.h>

TEST_FILE_NEEDS(faults)

static rouse_address target;

static rouse_listener *listen_here(void)
{
    rouse_listener *listener = NULL;
    require_int(rouse_listen(&listener, "127.0.0.1:0", NULL), ==, ROUSE_OK);
    require_int(rouse_listener_address(listener, &target), ==, ROUSE_OK);
    return listener;
}

static ptrdiff_t accept_in(int style, rouse_listener *listener, rouse_stream **stream, rouse_address *peer)
{
    rouse_op op;
    rouse_accept_init(&op, listener, stream, peer);
    return answer_of(&op, style);
}

/* hickory-dns#3725, tiny-http#283: one connection that failed while it waited ended the listener. */
static int accept_in_spite_of(void *error)
{
    rouse_listener *listener = listen_here();
    for (int style = 0; style < STYLES; style++) {
        for (uint64_t times = 1; times <= 40; times += 39) {
            rouse_stream *stream = NULL;
            rouse_address peer = {0}, local;
            int client = test_connect_port(target.port);
            faults_syscall("accept4", 1, *(int *)error, times);
            require_int(accept_in(style, listener, &stream, &peer), ==, ROUSE_OK);
            require_int(rouse_peer_address(stream, &local), ==, ROUSE_OK);
            require(memcmp(&local, &peer, sizeof local) == 0);
            test_send_all(client, "x", 1);
            char byte;
            require_int(rouse_read(stream, &byte, 1), ==, 1);
            require_int(rouse_close(stream), ==, ROUSE_OK);
            test_close(client);
        }
    }
    return rouse_listener_close(listener);
}

TEST(errors_of_one_connection_do_not_end_accepting)
{
    static int errors[] = {ECONNABORTED, ECONNRESET, EPROTO,       EPERM,       EINTR,    ENETDOWN,
                           ENETUNREACH,  EHOSTDOWN,  EHOSTUNREACH, ENOPROTOOPT, ETIMEDOUT};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        on_each_executor(accept_in_spite_of, &errors[i]);
}

static int accept_when_there_is_one_again(void *error)
{
    rouse_listener *listener = listen_here();
    for (int style = 0; style < STYLES; style++) {
        rouse_stream *stream = NULL;
        int client = test_connect_port(target.port);
        int64_t start = rouse_now();
        faults_syscall("accept4", 1, *(int *)error, 1);
        require_int(accept_in(style, listener, &stream, NULL), ==, ROUSE_OK);
        require(rouse_now() - start >= ROUSE_MS(99));
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(client);
    }
    return rouse_listener_close(listener);
}

TEST(exhaustion_is_waited_for_and_not_reported)
{
    static int errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
    for (int i = 0; i < 4; i++) {
        rouse_options options = flavour(i % FLAVOURS);
        assert_int_equal(rouse_run(accept_when_there_is_one_again, &errors[i], &options), ROUSE_OK);
    }
}

static ptrdiff_t read_nothing(void *object, void *data, size_t length, rouse_context *context)
{
    (void)object, (void)data, (void)length, (void)context;
    return 0;
}

static ptrdiff_t write_nothing(void *object, const void *data, size_t length, rouse_context *context)
{
    (void)object, (void)data, (void)context;
    return (ptrdiff_t)length;
}

static const rouse_stream_type hollow = {.name = "hollow", .poll_read = read_nothing, .poll_write = write_nothing};

/* Makes streams until the library's table of them is full and would have to grow. */
static size_t fill_table(rouse_stream **streams, size_t limit)
{
    size_t count = 0;
    faults_fail_alloc(1, true);
    while (rouse_stream_new(&streams[count], &hollow, NULL) == ROUSE_OK) {
        count++;
        require(count < limit);
    }
    return count;
}

static int accept_when_there_is_memory_again(void *unused)
{
    static rouse_stream *streams[5000];
    rouse_stream *stream = NULL;
    rouse_listener *listener = listen_here();
    int client = test_connect_port(target.port);
    (void)unused;
    size_t count = fill_table(streams, 5000);
    faults_fail_alloc(1, false);
    require_int(rouse_accept(listener, &stream, NULL), ==, ROUSE_OK);
    require(faults_alloc_hit() == 1);
    require_int(rouse_write_all(stream, "!", 1, NULL), ==, ROUSE_OK);
    test_expect(client, "!");
    require_int(rouse_close(stream), ==, ROUSE_OK);
    test_close(client);
    while (count > 0)
        require_int(rouse_close(streams[--count]), ==, ROUSE_OK);
    return rouse_listener_close(listener);
}

/* It was accepted and closed again: what is accepted cannot be put back. */
TEST(a_connection_that_there_is_no_memory_for_waits_and_is_served)
{
    rouse_options options = flavour(0);
    assert_int_equal(rouse_run(accept_when_there_is_memory_again, NULL, &options), ROUSE_OK);
}

static int connect_soon(void *client)
{
    require_int(rouse_sleep(ROUSE_MS(5)), ==, ROUSE_OK);
    *(int *)client = test_connect_port(target.port);
    return ROUSE_OK;
}

static int accept_though_it_is_not_watched(void *error)
{
    for (int style = 0; style < STYLES; style++) {
        rouse_listener *listener = listen_here(); /* never watched yet */
        rouse_stream *stream = NULL;
        int client;
        require_int(rouse_go(connect_soon, &client), ==, ROUSE_OK);
        faults_syscall("set_change", 1, *(int *)error, 1);
        require_int(accept_in(style, listener, &stream, NULL), ==, ROUSE_OK);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(client);
        require_int(rouse_listener_close(listener), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(a_listener_that_the_system_cannot_watch_for_a_moment_goes_on)
{
    test_needs("kernel_set");
    static int errors[] = {ENOMEM, FAULTS_SET_FULL};
    for (int i = 0; i < 2; i++)
        for (int kind = 0; kind < FLAVOURS; kind++) {
            rouse_options options = flavour(kind);
            assert_int_equal(rouse_run(accept_though_it_is_not_watched, &errors[i], &options), ROUSE_OK);
        }
}

static int close_soon(void *stream)
{
    require_int(rouse_sleep(ROUSE_MS(5)), ==, ROUSE_OK);
    return rouse_close(stream);
}

static int be_told_of_a_close(void *unused)
{
    rouse_listener *listener = listen_here();
    int64_t taken_ns = ROUSE_NEVER;
    (void)unused;
    /* Other work of the machine may make a round as late as the timer would; without the close all of them are. */
    for (int round = 0; round < 30 && taken_ns >= ROUSE_MS(95); round++) {
        rouse_scope scope;
        int peer;
        rouse_stream *other = tcp_stream(&peer), *stream = NULL;
        int client = test_connect_port(target.port);
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        require_int(rouse_go(close_soon, other), ==, ROUSE_OK);
        faults_syscall("accept4", 1, EMFILE, 1);
        int64_t start = rouse_now();
        require_int(rouse_accept(listener, &stream, NULL), ==, ROUSE_OK);
        taken_ns = rouse_now() - start;
        require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(client);
        test_close(peer);
    }
    if (!test_is_slow())
        require_int(taken_ns, <, ROUSE_MS(95));
    return rouse_listener_close(listener);
}

TEST_SERIAL(a_descriptor_that_is_freed_is_used_at_once)
{
    on_each_executor(be_told_of_a_close, NULL);
}

/* ---- many who wait for descriptors ---- */

static rouse_listener *shared;
static atomic_int accepted_count;

static int accept_one(void *style)
{
    rouse_stream *stream = NULL;
    ptrdiff_t status;
    test_call(status, accept_in((int)(intptr_t)style, shared, &stream, NULL));
    if (status != ROUSE_OK)
        return (int)status;
    atomic_fetch_add(&accepted_count, 1);
    return rouse_close(stream);
}

enum { WAITERS = 100 };

/* More waiters than are woken in one batch, on threads that wait again while the others are being woken. */
static int wait_in_a_crowd(void *unused)
{
    rouse_scope scope;
    int clients[WAITERS];
    (void)unused;
    shared = listen_here();
    atomic_store(&accepted_count, 0);
    for (int i = 0; i < WAITERS; i++)
        clients[i] = test_connect_port(target.port);
    faults_reset();
    faults_syscall("accept4", 1, EMFILE, FAULTS_ALWAYS);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < WAITERS; i++)
        require_int(rouse_go(accept_one, (void *)(intptr_t)(i % STYLES)), ==, ROUSE_OK);
    int64_t cpu = test_cpu_ns();
    require_int(rouse_sleep(ROUSE_MS(350)), ==, ROUSE_OK);
    cpu = test_cpu_ns() - cpu;
    /* The first round, and three or four rounds of the timer. */
    require_int(faults_syscall_count("accept4"), <=, 6 * WAITERS);
    if (!test_is_slow())
        require_int(cpu, <, ROUSE_MS(60));
    faults_syscall("accept4", 1, EMFILE, 0);
    int status = rouse_scope_close(&scope);
    require_int(atomic_load(&accepted_count), ==, WAITERS);
    for (int i = 0; i < WAITERS; i++)
        test_close(clients[i]);
    require_int(rouse_listener_close(shared), ==, ROUSE_OK);
    return status;
}

TEST_SERIAL(a_crowd_that_waits_for_descriptors_does_not_spin)
{
    on_each_executor(wait_in_a_crowd, NULL);
}

static int give_up(void *unused)
{
    rouse_stream *stream = NULL;
    (void)unused;
    require_int(rouse_accept(shared, &stream, NULL), ==, ROUSE_CANCELLED);
    require(stream == NULL);
    return ROUSE_OK;
}

static int cancel_the_crowd(void *unused)
{
    rouse_scope scope;
    (void)unused;
    shared = listen_here();
    int client = test_connect_port(target.port);
    faults_syscall("accept4", 1, EMFILE, FAULTS_ALWAYS);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < WAITERS; i++)
        require_int(rouse_go(give_up, NULL), ==, ROUSE_OK);
    for (int i = 0; i < 10; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    faults_reset();
    test_close(client);
    return rouse_listener_close(shared);
}

TEST(waiting_for_a_descriptor_can_be_cancelled)
{
    on_each_executor(cancel_the_crowd, NULL);
}

static int time_out(void *unused)
{
    rouse_deadline deadline = {{0}};
    rouse_stream *stream = NULL;
    (void)unused;
    shared = listen_here();
    int client = test_connect_port(target.port);
    faults_syscall("accept4", 1, EMFILE, FAULTS_ALWAYS);
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(20))), ==, ROUSE_OK);
    require_int(rouse_accept(shared, &stream, NULL), ==, ROUSE_TIMED_OUT);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    faults_reset();
    require_int(rouse_accept(shared, &stream, NULL), ==, ROUSE_OK);
    require_int(rouse_close(stream), ==, ROUSE_OK);
    test_close(client);
    return rouse_listener_close(shared);
}

TEST(waiting_for_a_descriptor_ends_at_its_deadline)
{
    on_each_executor(time_out, NULL);
}

static int close_while_exhausted(void *unused)
{
    rouse_scope scope;
    (void)unused;
    shared = listen_here();
    int client = test_connect_port(target.port);
    faults_syscall("accept4", 1, EMFILE, FAULTS_ALWAYS);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(accept_one, (void *)(intptr_t)IN_FIBER), ==, ROUSE_OK);
    for (int i = 0; i < 5; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    require_int(rouse_listener_close(shared), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_CLOSED);
    faults_reset();
    test_close(client);
    return ROUSE_OK;
}

TEST(closing_the_listener_ends_the_wait_for_a_descriptor)
{
    on_each_executor(close_while_exhausted, NULL);
}

/* The timer of that wait lies in the wheel of the runtime that armed it first; others wait on after its end. */
TEST(the_wait_for_descriptors_outlives_the_runtime_that_began_it)
{
    rouse_options options = flavour(0);
    rouse_runtime *first;
    rouse_task task;
    rouse_op op;
    rouse_stream *stream = NULL, *other = NULL;
    struct hand waiting;
    rouse_listener *listener = listen_here();
    int client = test_connect_port(target.port);
    assert_int_equal(rouse_runtime_new(&first, &options), ROUSE_OK);
    faults_syscall("accept4", 1, EMFILE, FAULTS_ALWAYS);
    rouse_accept_init(&op, listener, &stream, NULL);
    assert_int_equal(rouse_spawn_on(first, &task, &op_task, &op), ROUSE_OK);
    assert_true(rouse_runtime_turn(first, 0) >= 1);
    hand_init(&waiting);
    rouse_accept_init(&waiting.op, listener, &other, NULL);
    assert_int_equal(hand_poll(&waiting), ROUSE_PENDING);
    rouse_detach(&task);
    assert_int_equal(rouse_runtime_shutdown(first, 0, NULL, NULL), ROUSE_OK);
    faults_reset();
    assert_int_equal(hand_finish(&waiting), ROUSE_OK);
    assert_int_equal(rouse_close(other), ROUSE_OK);
    hand_fini(&waiting);
    test_close(client);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    end_default_runtime();
}

/* ---- who waits where ---- */

/* Polls operations by hand in a runtime that is turned once and then driven no more: no timer of it ends their wait. */
struct hands {
    struct hand hand[4];
    int count;
};

static int poll_hands(void *state, void *result, rouse_context *context)
{
    struct hands *hands = *(struct hands **)state;
    (void)result;
    (void)context;
    for (int i = 0; i < hands->count; i++)
        require_int(hand_poll(&hands->hand[i]), ==, ROUSE_PENDING);
    return ROUSE_OK;
}

static const rouse_task_type poll_hands_task = {.poll = poll_hands, .state_size = sizeof(struct hands *)};

static rouse_runtime *single_runtime(void)
{
    rouse_options options = flavour(0);
    rouse_runtime *runtime = NULL;
    require_int(rouse_runtime_new(&runtime, &options), ==, ROUSE_OK);
    return runtime;
}

static void poll_hands_in(rouse_runtime *runtime, struct hands *hands)
{
    require_int(rouse_spawn_on(runtime, NULL, &poll_hands_task, &hands), ==, ROUSE_OK);
    while (rouse_runtime_turn(runtime, 0) == 0) {}
}

/* The first of them waits first. */
static void hands_accept(struct hands *hands, int count, rouse_listener *const *listeners, rouse_stream **streams)
{
    hands->count = count;
    for (int i = 0; i < count; i++) {
        hand_init(&hands->hand[i]);
        rouse_accept_init(&hands->hand[i].op, listeners[i], &streams[i], NULL);
    }
}

static int accept_within_limits(void *listener)
{
    rouse_stream *stream = NULL;
    require_int(rouse_accept(listener, &stream, NULL), ==, ROUSE_OK);
    return rouse_close(stream);
}

TEST(who_waits_for_a_descriptor_needs_no_runtime_but_its_own)
{
    rouse_runtime *idle = single_runtime(), *driven = single_runtime();
    struct hands hands;
    rouse_stream *stream = NULL;
    rouse_task task;
    rouse_listener *listener = listen_here();
    int client = test_connect_port(target.port);
    hands_accept(&hands, 1, &listener, &stream);
    faults_syscall("accept4", 1, EMFILE, 2);
    poll_hands_in(idle, &hands);
    assert_int_equal(rouse_spawn_fiber_at(&task, driven, accept_within_limits, listener, 0, 0, NULL, NULL), ROUSE_OK);
    assert_int_equal(rouse_join(&task, NULL), ROUSE_OK);
    assert_int_equal(faults_syscall_hit("accept4"), 2);
    rouse_op_cancel(&hands.hand[0].op);
    hand_fini(&hands.hand[0]);
    test_close(client);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    assert_int_equal(rouse_runtime_shutdown(driven, 0, NULL, NULL), ROUSE_OK);
    assert_int_equal(rouse_runtime_shutdown(idle, 0, NULL, NULL), ROUSE_OK);
}

static void free_a_descriptor(void)
{
    int peer;
    rouse_stream *other = tcp_stream(&peer);
    require_int(rouse_close(other), ==, ROUSE_OK);
    test_close(peer);
}

struct inheritance {
    rouse_listener *listener;
    struct hands hands;
};

static void accept_in_child(void *argument)
{
    struct inheritance *inherited = argument;
    rouse_runtime *own = single_runtime();
    rouse_task task;
    faults_reset();
    faults_syscall("accept4", 1, EMFILE, 1);
    require_int(rouse_spawn_fiber_at(&task, own, accept_within_limits, inherited->listener, 0, 0, NULL, NULL), ==,
                ROUSE_OK);
    while (rouse_runtime_turn(own, 0) == 0) {}
    /* The parent's waiter is neither woken nor counted on. */
    free_a_descriptor();
    require_int(hand_wakes(&inherited->hands.hand[0]), ==, 0);
    require_int(rouse_op_cancel(&inherited->hands.hand[0].op), ==, ROUSE_OP_IDLE);
    require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
    /* With nobody to tell of a descriptor, the timer does. */
    int client = test_connect_port(target.port);
    faults_syscall("accept4", 1, EMFILE, 1);
    require_int(rouse_spawn_fiber_at(&task, own, accept_within_limits, inherited->listener, 0, 0, NULL, NULL), ==,
                ROUSE_OK);
    require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
    test_close(client);
    require_int(rouse_runtime_shutdown(own, 0, NULL, NULL), ==, ROUSE_OK);
}

TEST(a_forked_child_waits_for_descriptors_by_itself)
{
    rouse_runtime *runtime = single_runtime();
    struct inheritance inherited = {.listener = listen_here()};
    rouse_stream *stream = NULL;
    int client = test_connect_port(target.port);
    hands_accept(&inherited.hands, 1, &inherited.listener, &stream);
    faults_syscall("accept4", 1, EMFILE, 1);
    poll_hands_in(runtime, &inherited.hands);
    assert_int_equal(test_in_child(accept_in_child, &inherited, TEST_SOON), 0);
    assert_int_equal(rouse_op_cancel(&inherited.hands.hand[0].op), ROUSE_OP_IDLE);
    hand_fini(&inherited.hands.hand[0]);
    test_close(client);
    assert_int_equal(rouse_listener_close(inherited.listener), ROUSE_OK);
    assert_int_equal(rouse_runtime_shutdown(runtime, 0, NULL, NULL), ROUSE_OK);
}

/* Which of the operations were woken, a bit for each. */
static int who_was_woken(struct hands *hands)
{
    int woken = 0;
    for (int i = 0; i < hands->count; i++)
        woken |= hand_wakes(&hands->hand[i]) > 0 ? 1 << i : 0;
    return woken;
}

TEST(each_descriptor_that_is_freed_wakes_one_of_those_who_wait)
{
    rouse_runtime *runtime = single_runtime();
    struct hands hands;
    rouse_stream *streams[4];
    rouse_listener *listener = listen_here(), *listeners[] = {listener, listener, listener, listener};
    int client = test_connect_port(target.port);
    hands_accept(&hands, 4, listeners, streams);
    faults_syscall("accept4", 1, EMFILE, 4);
    poll_hands_in(runtime, &hands);
    assert_int_equal(who_was_woken(&hands), 0);
    for (int i = 0; i < 4; i++) {
        free_a_descriptor();
        assert_int_equal(who_was_woken(&hands), (2 << i) - 1);
    }
    for (int i = 0; i < 4; i++) {
        rouse_op_cancel(&hands.hand[i].op);
        hand_fini(&hands.hand[i]);
    }
    test_close(client);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    assert_int_equal(rouse_runtime_shutdown(runtime, 0, NULL, NULL), ROUSE_OK);
}

/* The first gives up, the third finds that there is no connection any more, the second that its listener was closed. */
TEST(a_descriptor_that_was_freed_for_one_who_does_not_take_it_is_handed_on)
{
    test_needs_all_memory("a connection that gets no memory is closed, and the test counts on each");
    rouse_runtime *runtime = single_runtime();
    struct hands hands;
    rouse_stream *streams[4], *early = NULL;
    rouse_listener *third = listen_here();
    int third_client = test_connect_port(target.port);
    rouse_listener *second = listen_here(), *first = listen_here(), *listeners[] = {first, second, third, first};
    int second_client = 0, client = test_connect_port(target.port);
    assert_int_equal(rouse_listener_address(second, &target), ROUSE_OK);
    second_client = test_connect_port(target.port);
    hands_accept(&hands, 4, listeners, streams);
    faults_syscall("accept4", 1, EMFILE, 4);
    poll_hands_in(runtime, &hands);
    assert_int_equal(rouse_accept(third, &early, NULL), ROUSE_OK);
    assert_int_equal(who_was_woken(&hands), 0);
    free_a_descriptor();
    assert_int_equal(who_was_woken(&hands), 1);
    assert_int_equal(rouse_op_cancel(&hands.hand[0].op), ROUSE_OP_IDLE);
    assert_int_equal(who_was_woken(&hands), 3);
    assert_int_equal(rouse_listener_close(second), ROUSE_OK); /* frees one more */
    assert_int_equal(who_was_woken(&hands), 7);
    assert_int_equal(hand_poll(&hands.hand[2]), ROUSE_PENDING);
    assert_int_equal(who_was_woken(&hands), 15);
    assert_int_equal(hand_poll(&hands.hand[1]), ROUSE_CLOSED);
    assert_int_equal(hand_poll(&hands.hand[3]), ROUSE_OK);
    assert_int_equal(rouse_op_cancel(&hands.hand[2].op), ROUSE_OP_IDLE);
    for (int i = 0; i < 4; i++)
        hand_fini(&hands.hand[i]);
    assert_int_equal(rouse_close(streams[3]), ROUSE_OK);
    assert_int_equal(rouse_close(early), ROUSE_OK);
    assert_int_equal(rouse_listener_close(first), ROUSE_OK);
    assert_int_equal(rouse_listener_close(third), ROUSE_OK);
    test_close(client);
    test_close(second_client);
    test_close(third_client);
    assert_int_equal(rouse_runtime_shutdown(runtime, 0, NULL, NULL), ROUSE_OK);
    end_default_runtime();
}

TEST(a_plain_thread_that_finds_no_descriptors_for_the_default_runtime_learns_so)
{
    test_needs("kernel_set");
    rouse_listener *listener = listen_here();
    rouse_stream *stream = NULL;
    rouse_op op = {{0}};
    faults_syscall("set_open", 1, EMFILE, FAULTS_ALWAYS);
    assert_int_equal(rouse_accept(listener, &stream, NULL), ROUSE_TOO_MANY_FILES);
    assert_int_equal(rouse_sleep(ROUSE_S(10)), ROUSE_TOO_MANY_FILES);
    assert_int_equal(rouse_spawn(NULL, &op_task, &op), ROUSE_TOO_MANY_FILES);
    int client = test_connect_port(target.port);
    faults_syscall("accept4", 1, EMFILE, FAULTS_ALWAYS);
    assert_int_equal(rouse_accept(listener, &stream, NULL), ROUSE_TOO_MANY_FILES);
    faults_reset();
    assert_int_equal(rouse_accept(listener, &stream, NULL), ROUSE_OK);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    test_close(client);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    end_default_runtime();
}

/* ---- the limit of the system itself ---- */

enum { CLIENTS = 200, LIMIT = 64 };

static struct {
    int clients[CLIENTS];
    rouse_stream *served[CLIENTS];
    atomic_int count, ticks;
    int64_t worst_tick_ns; /* of processor time between two ticks */
} e;

static int tick(void *unused)
{
    rouse_interval interval;
    int64_t cpu = test_cpu_ns();
    (void)unused;
    require_int(rouse_interval_init(&interval, rouse_after(ROUSE_MS(10)), ROUSE_MS(10), ROUSE_MISSED_SKIP), ==,
                ROUSE_OK);
    for (;;) {
        int skipped = rouse_interval_tick(&interval);
        if (skipped == ROUSE_CANCELLED)
            return ROUSE_OK;
        require_int(skipped, >=, 0);
        int64_t now = test_cpu_ns();
        e.worst_tick_ns = now - cpu > e.worst_tick_ns ? now - cpu : e.worst_tick_ns;
        cpu = now;
        atomic_fetch_add(&e.ticks, 1);
    }
}

static int accept_all(void *unused)
{
    (void)unused;
    for (int i = 0; i < CLIENTS; i++) {
        require_int(rouse_accept(shared, &e.served[i], NULL), ==, ROUSE_OK);
        require_int(rouse_write_all(e.served[i], "!", 1, NULL), ==, ROUSE_OK);
        atomic_store(&e.count, i + 1);
    }
    return ROUSE_OK;
}

/* How many descriptors can still be had. */
static int count_free(void)
{
    int taken[LIMIT], count = 0, last;
    while ((last = dup(0)) >= 0) {
        require_int(count, <, LIMIT);
        taken[count++] = last;
    }
    require_int(errno, ==, EMFILE);
    for (int i = 0; i < count; i++)
        require(close(taken[i]) == 0);
    return count;
}

/* Whether those who wait leave the processor alone; how often they try is the same on every machine. */
static bool look_for_spinning(void)
{
    rouse_scope ticking;
    e.worst_tick_ns = 0;
    atomic_store(&e.ticks, 0);
    require_int(rouse_scope_open(&ticking), ==, ROUSE_OK);
    require_int(rouse_go(tick, NULL), ==, ROUSE_OK);
    int64_t cpu = test_cpu_ns(), span = rouse_now();
    uint64_t calls = faults_syscall_count("accept4");
    require_int(rouse_sleep(ROUSE_MS(400)), ==, ROUSE_OK);
    span = rouse_now() - span; /* more on a busy machine */
    cpu = test_cpu_ns() - cpu;
    calls = faults_syscall_count("accept4") - calls;
    while (atomic_load(&e.ticks) < 3)
        require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&ticking, 0), ==, ROUSE_OK);
    require_int(rouse_scope_close(&ticking), ==, ROUSE_OK);
    /* The first attempt, and those of the timer. */
    require_int(calls, <=, span / ROUSE_MS(100) + 2);
    return test_is_slow() || (cpu < span / 20 /* 5 % */ && e.worst_tick_ns < ROUSE_MS(10));
}

/* libuv's ancestor #690, nodejs/node#45242, bun#32705: accepting span while there were no descriptors. */
static int serve_at_the_limit(void *unused)
{
    rouse_scope scope;
    struct rlimit before, low;
    (void)unused;
    memset(&e, 0, sizeof e);
    shared = listen_here();
    for (int i = 0; i < CLIENTS; i++)
        e.clients[i] = test_connect_port(target.port);
    require(getrlimit(RLIMIT_NOFILE, &before) == 0);
    low = before;
    low.rlim_cur = (rlim_t)(e.clients[CLIENTS - 1] + 1 + LIMIT / 2);
    require(setrlimit(RLIMIT_NOFILE, &low) == 0);
    int served = count_free();
    require_int(served, >=, 3);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    faults_reset();
    require_int(rouse_go(accept_all, NULL), ==, ROUSE_OK);
    while (atomic_load(&e.count) < served)
        require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
    /* A machine that is busy with other work may make one look wrong, not five; spinning makes all of them wrong. */
    bool rests = false;
    for (int look = 0; look < 5 && !rests; look++)
        rests = look_for_spinning();
    require(rests);
    require_int(atomic_load(&e.count), ==, served);
    /* One descriptor is freed: the next client is served. */
    for (int i = 0; i < 3; i++) {
        char byte;
        require_int(rouse_close(e.served[i]), ==, ROUSE_OK);
        while (atomic_load(&e.count) < served + i + 1)
            require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
        test_receive_exact(e.clients[served + i], &byte, 1);
    }
    require(setrlimit(RLIMIT_NOFILE, &before) == 0);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    for (int i = 0; i < CLIENTS; i++) {
        test_close(e.clients[i]);
        if (i >= 3)
            require_int(rouse_close(e.served[i]), ==, ROUSE_OK);
    }
    return rouse_listener_close(shared);
}

TEST_SERIAL(at_the_limit_of_descriptors_nothing_spins_and_freed_ones_are_used)
{
    if (test_is_valgrind()) /* keeps the limit by itself: what the kernel has accepted beyond it is closed, and lost */
        return;
    on_each_executor(serve_at_the_limit, NULL);
}
