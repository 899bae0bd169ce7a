/* Listening and accepting: each connection is accepted once, by one, and whoever waits learns of the end. */
#include "support/io.h"

static rouse_listener *listener;
static rouse_address target;

static void listen_again(const rouse_listen_options *options)
{
    require_int(rouse_listen(&listener, "127.0.0.1:0", options), ==, ROUSE_OK);
    require_int(rouse_listener_address(listener, &target), ==, ROUSE_OK);
}

/* ---- opening ---- */

TEST(addresses_that_cannot_be_had_are_refused)
{
    rouse_listener *other = (rouse_listener *)1;
    char text[ROUSE_ADDRESS_TEXT_MAX];
    listen_again(NULL);
    assert_true(rouse_address_format(&target, text, sizeof text) > 0);
    assert_int_equal(rouse_listen(&other, text, NULL), ROUSE_ADDRESS_IN_USE);
    assert_null(other);
    assert_int_equal(rouse_listen(&other, "192.0.2.1:0", NULL), ROUSE_ADDRESS_NOT_AVAILABLE);
    assert_int_equal(rouse_listen(&other, "nonsense", NULL), ROUSE_INVALID);
    assert_int_equal(rouse_listen(&other, NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_listen(NULL, "127.0.0.1:0", NULL), ROUSE_INVALID);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    assert_int_equal(rouse_listener_close(listener), ROUSE_CLOSED);
    assert_int_equal(rouse_listener_address(listener, &target), ROUSE_CLOSED);
}

TEST(a_port_that_lingers_can_be_listened_on_again)
{
    char text[ROUSE_ADDRESS_TEXT_MAX];
    rouse_stream *stream;
    listen_again(NULL);
    assert_true(rouse_address_format(&target, text, sizeof text) > 0);
    int client = test_connect_port(target.port);
    assert_int_equal(rouse_accept(listener, &stream, NULL), ROUSE_OK);
    assert_int_equal(rouse_close(stream), ROUSE_OK); /* our side lingers */
    test_close(client);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    assert_int_equal(rouse_listen(&listener, text, NULL), ROUSE_OK);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    end_default_runtime();
}

TEST(options_of_listening_are_those_that_were_asked_for)
{
    for (int bits = 0; bits < 8; bits++) {
        rouse_listen_options options = ROUSE_LISTEN_OPTIONS_INIT;
        rouse_stream *stream;
        int value;
        options.reuse_address = bits & 1;
        options.reuse_port = (bits & 2) != 0;
        options.no_delay = (bits & 4) != 0;
        if (options.reuse_port && !test_has("reuse_port")) {
            assert_int_equal(rouse_listen(&listener, "127.0.0.1:0", &options), ROUSE_NOT_SUPPORTED);
            continue;
        }
        listen_again(&options);
        assert_int_equal(rouse_option_get((rouse_stream *)listener, ROUSE_OPTION_REUSE_ADDRESS, &value), ROUSE_OK);
        assert_int_equal(value, options.reuse_address);
        if (test_has("reuse_port")) {
            assert_int_equal(rouse_option_get((rouse_stream *)listener, ROUSE_OPTION_REUSE_PORT, &value), ROUSE_OK);
            assert_int_equal(value, options.reuse_port);
        }
        int client = test_connect_port(target.port);
        assert_int_equal(rouse_accept(listener, &stream, NULL), ROUSE_OK);
        assert_int_equal(rouse_option_get(stream, ROUSE_OPTION_NO_DELAY, &value), ROUSE_OK);
        assert_int_equal(value, options.no_delay);
        assert_int_equal(rouse_close(stream), ROUSE_OK);
        assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
        test_close(client);
    }
    end_default_runtime();
}

TEST(options_of_another_size_are_read_as_far_as_they_go)
{
    struct {
        rouse_listen_options known;
        int later;
    } longer = {ROUSE_LISTEN_OPTIONS_INIT, 1};
    longer.known.size = sizeof longer;
    listen_again(&longer.known);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    longer.known.size = 0;
    assert_int_equal(rouse_listen(&listener, "127.0.0.1:0", &longer.known), ROUSE_INVALID);
    longer.known.size = sizeof longer.known;
    longer.known.backlog = -1;
    assert_int_equal(rouse_listen(&listener, "127.0.0.1:0", &longer.known), ROUSE_INVALID);
}

TEST(a_listener_neither_reads_nor_writes_and_a_stream_does_not_accept)
{
    int peer;
    char byte = 0;
    rouse_stream *stream = tcp_stream(&peer), *other;
    listen_again(NULL);
    assert_int_equal(rouse_read((rouse_stream *)listener, &byte, 1), ROUSE_INVALID);
    assert_int_equal(rouse_write((rouse_stream *)listener, &byte, 1), ROUSE_INVALID);
    assert_int_equal(rouse_accept((rouse_listener *)stream, &other, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_accept(listener, NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    test_close(peer);
    end_default_runtime();
}

/* ---- accepting ---- */

enum { ACCEPTORS = 16 };
static atomic_int accepted_count;

static int accept_for_ever(void *style)
{
    for (;;) {
        rouse_op op;
        rouse_stream *stream = NULL;
        rouse_address peer = {0};
        rouse_accept_init(&op, listener, &stream, &peer);
        ptrdiff_t status = answer_of(&op, (int)(intptr_t)style);
        if (status != ROUSE_OK) {
            require(stream == NULL);
            return status == ROUSE_CLOSED ? ROUSE_OK : (int)status;
        }
        require(peer.family == ROUSE_IPV4 && peer.port != 0);
        atomic_fetch_add(&accepted_count, 1);
        require_int(rouse_write_all(stream, "!", 1, NULL), ==, ROUSE_OK);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
}

static void connect_often(void *count)
{
    for (int i = *(int *)count; i > 0; i--) {
        int client = test_connect_port(target.port);
        test_expect(client, "!");
        test_expect_end(client);
        test_close(client);
    }
    require_int(rouse_listener_close(listener), ==, ROUSE_OK);
}

static int accept_in_company(void *count)
{
    rouse_scope scope;
    test_thread clients;
    atomic_store(&accepted_count, 0);
    listen_again(NULL);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (intptr_t i = 0; i < ACCEPTORS; i++)
        require_int(rouse_go(accept_for_ever, (void *)(i % STYLES)), ==, ROUSE_OK);
    test_thread_start(&clients, connect_often, count);
    int status = rouse_scope_close(&scope);
    test_thread_join(&clients, TEST_SOON);
    require_int(atomic_load(&accepted_count), ==, *(int *)count);
    return status;
}

TEST(sixteen_who_accept_share_the_connections_and_learn_of_the_close)
{
    int count = (int)test_scale(200, 100000);
    test_time_limit(600);
    on_each_executor(accept_in_company, &count);
}

static int count_woken(struct hand *hands, rouse_stream **streams)
{
    int woken = 0;
    for (int i = 0; i < ACCEPTORS; i++)
        woken += streams[i] == NULL && hand_wakes(&hands[i]) != hands[i].seen;
    return woken;
}

static int count_accepted(rouse_stream **streams)
{
    int count = 0;
    for (int i = 0; i < ACCEPTORS; i++)
        count += streams[i] != NULL;
    return count;
}

/* Polls those who were woken and have nothing yet, once each. Answers how many. */
static int poll_woken(struct hand *hands, rouse_stream **streams)
{
    int polled = 0;
    for (int i = 0; i < ACCEPTORS; i++) {
        if (streams[i] == NULL && hand_wakes(&hands[i]) != hands[i].seen) {
            hands[i].seen = hand_wakes(&hands[i]);
            polled++;
            if (hand_poll(&hands[i]) != ROUSE_OK)
                assert_null(streams[i]);
        }
    }
    return polled;
}

/* gunicorn#792: one connection woke everybody who waited for one. */
TEST(a_connection_wakes_one_of_those_who_wait)
{
    static struct hand hands[ACCEPTORS];
    static rouse_stream *streams[ACCEPTORS];
    int clients[ACCEPTORS], woken = 0;
    listen_again(NULL);
    for (int i = 0; i < ACCEPTORS; i++) {
        hand_init(&hands[i]);
        rouse_accept_init(&hands[i].op, listener, &streams[i], NULL);
        assert_int_equal(hand_poll(&hands[i]), ROUSE_PENDING);
    }
    for (int i = 0; i < ACCEPTORS; i++) {
        clients[i] = test_connect_port(target.port);
        /* Whoever has accepted hands on, because there might be another connection: that one looks, and waits again. It
         * may be polled only after the next connection has come, and find that one before the kernel has told of it. */
        do {
            eventually(count_woken(hands, streams) > 0, TEST_SOON);
            woken += poll_woken(hands, streams);
        } while (count_accepted(streams) <= i);
        assert_int_equal(count_accepted(streams), i + 1);
        assert_true(woken <= 2 * (i + 1));
    }
    for (int i = 0; i < ACCEPTORS; i++) {
        hand_fini(&hands[i]);
        assert_int_equal(rouse_close(streams[i]), ROUSE_OK);
        test_close(clients[i]);
    }
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    end_default_runtime();
}

TEST(of_a_hundred_who_wait_for_a_connection_all_learn_of_the_close)
{
    static struct hand hands[100];
    static rouse_stream *streams[100];
    listen_again(NULL);
    for (int i = 0; i < 100; i++) {
        hand_init(&hands[i]);
        rouse_accept_init(&hands[i].op, listener, &streams[i], NULL);
        assert_int_equal(hand_poll(&hands[i]), ROUSE_PENDING);
    }
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(hand_finish(&hands[i]), ROUSE_CLOSED);
        hand_fini(&hands[i]);
    }
    end_default_runtime();
}

TEST(closing_a_listener_that_was_never_polled_is_fine)
{
    for (int i = 0; i < 10; i++) {
        listen_again(NULL);
        assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    }
}

/* ---- serving ---- */

static int answer_one(void *stream)
{
    char byte;
    if (rouse_read(stream, &byte, 1) == 1)
        (void)rouse_write_all(stream, &byte, 1, NULL);
    return rouse_close(stream);
}

/* Who finds no memory left is turned away, by a close or by a reset: that visitor comes again. */
static bool is_greeted(int client, char greeting)
{
    char byte = 0;
    ptrdiff_t count = test_receive(client, &byte, 1, TEST_SOON);
    bool turned_away = count <= 0 && test_may_repeat(ROUSE_NO_MEMORY);
    require(turned_away || (count == 1 && byte == greeting));
    if (!turned_away)
        test_expect_end(client);
    test_close(client);
    return !turned_away;
}

static void visit(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20;) {
        int client = test_connect_port(target.port);
        test_send_all(client, "x", 1);
        i += is_greeted(client, 'x');
    }
    require_int(rouse_listener_close(listener), ==, ROUSE_OK);
}

static int serve_visitors(void *unused)
{
    test_thread visitor;
    (void)unused;
    listen_again(NULL);
    test_thread_start(&visitor, visit, NULL);
    require_int(rouse_serve(listener, answer_one), ==, ROUSE_CLOSED);
    test_thread_join(&visitor, TEST_SOON);
    require_int(rouse_listener_close(listener), ==, ROUSE_CLOSED);
    listen_again(NULL);
    require_int(rouse_serve(listener, NULL), ==, ROUSE_INVALID);
    require_int(rouse_listener_close(listener), ==, ROUSE_CLOSED);
    return ROUSE_OK;
}

TEST(serving_answers_each_visitor_until_the_listener_is_closed)
{
    on_each_executor(serve_visitors, NULL);
}

static void visit_around_a_cancel(void *argument)
{
    while (!is_greeted(test_connect(&target), '!')) {}
    require_int(rouse_scope_cancel(argument, 0), ==, ROUSE_OK);
    int peer = test_connect(&target); /* turned away: by a close, or by a reset */
    char byte;
    require_int(test_receive(peer, &byte, 1, TEST_SOON), <=, 0);
    test_close(peer);
}

static int greet(void *argument)
{
    require_int(rouse_write_all(argument, "!", 1, NULL), ==, ROUSE_OK);
    return rouse_close(argument);
}

static int serve_into_cancelled_scope(void *unused)
{
    test_thread thread;
    rouse_scope scope;
    (void)unused;
    listen_again(NULL);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    test_thread_start(&thread, visit_around_a_cancel, &scope);
    require_int(rouse_serve(listener, greet), ==, ROUSE_CANCELLED);
    require_int(rouse_listener_close(listener), ==, ROUSE_CLOSED);
    require_int(rouse_is_cancelled(), ==, 0);
    test_thread_join(&thread, TEST_SOON);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    return ROUSE_OK;
}

TEST(serving_into_a_scope_ends_when_that_is_cancelled)
{
    on_each_executor(serve_into_cancelled_scope, NULL);
}

/* ---- growth ---- */

static int churn(void *unused)
{
    (void)unused;
    int descriptors = test_descriptor_count();
    uint64_t rounds = test_scale(2000, 50000);
    size_t before = 0;
    listen_again(NULL);
    for (uint64_t i = 0; i < rounds; i++) {
        rouse_stream *client, *server;
        char text[ROUSE_ADDRESS_TEXT_MAX], byte;
        if (i == rounds / 4)
            before = test_rss_bytes();
        require(rouse_address_format(&target, text, sizeof text) > 0);
        require_int(rouse_connect(&client, text), ==, ROUSE_OK);
        require_int(rouse_option_set(client, ROUSE_OPTION_LINGER, 0), ==, ROUSE_OK); /* leaves no port behind */
        require_int(rouse_accept(listener, &server, NULL), ==, ROUSE_OK);
        require_int(rouse_write(client, "x", 1), ==, 1);
        require_int(rouse_read(server, &byte, 1), ==, 1);
        require_int(rouse_close(server), ==, ROUSE_OK);
        require_int(rouse_close(client), ==, ROUSE_OK);
    }
    if (!test_is_slow())
        require_int(test_rss_bytes(), <, before + (1 << 20));
    require_int(rouse_listener_close(listener), ==, ROUSE_OK);
    require_int(test_descriptor_count(), ==, descriptors);
    return ROUSE_OK;
}

TEST(connections_that_come_and_go_leave_nothing_behind)
{
    test_time_limit(600);
    on_each_executor(churn, NULL);
}
