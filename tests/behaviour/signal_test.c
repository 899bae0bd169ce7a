/* Waiting for signals: which came, who learns of it, what is kept, and what is put back. */
#include "support/io.h"

#include <signal.h>

TEST_FILE_NEEDS(handlers)

static const struct {
    int number, name;
} known[] = {{SIGINT, ROUSE_SIGNAL_INTERRUPT}, {SIGTERM, ROUSE_SIGNAL_TERMINATE}, {SIGHUP, ROUSE_SIGNAL_HANG_UP}};
enum { ALL = ROUSE_SIGNAL_INTERRUPT | ROUSE_SIGNAL_TERMINATE | ROUSE_SIGNAL_HANG_UP };

/* How many of them, from the first, can be sent here. */
static int count_known(void)
{
    return test_has("hang_up") ? 3 : 2;
}

static int all_known(void)
{
    return test_has("hang_up") ? ALL : ALL & ~ROUSE_SIGNAL_HANG_UP;
}

static ptrdiff_t wait_in(int style, int signals)
{
    rouse_op op;
    rouse_signal_wait_init(&op, signals);
    return answer_of(&op, style);
}

static int raise_soon(void *which)
{
    for (int i = 0; i < 5; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    require(kill(getpid(), known[(intptr_t)which].number) == 0);
    return ROUSE_OK;
}

static int wait_for_each(void *unused)
{
    (void)unused;
    require_int(rouse_signal_catch(ALL), ==, ROUSE_OK);
    intptr_t count = count_known();
    for (intptr_t i = 0; i < count * STYLES * 2; i++) {
        rouse_scope scope;
        int name = known[i % count].name;
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        require_int(rouse_go(raise_soon, (void *)(i % count)), ==, ROUSE_OK);
        require_int(wait_in((int)i % STYLES, i < count * STYLES ? name : ALL), ==, name);
        require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    }
    rouse_signal_restore();
    return ROUSE_OK;
}

TEST(the_signal_that_came_is_answered)
{
    on_each_executor(wait_for_each, NULL);
}

TEST(signals_that_come_while_nobody_waits_are_kept)
{
    assert_int_equal(rouse_signal_catch(ALL), ROUSE_OK);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < count_known(); i++) {
            assert_int_equal(raise(known[i].number), 0);
            assert_int_equal(raise(known[i].number), 0); /* merged */
        }
        int seen = 0;
        for (int i = 0; i < count_known(); i++) {
            int signal;
            test_call(signal, rouse_signal_wait(ALL));
            assert_true(signal > 0 && (seen & signal) == 0);
            seen |= signal;
        }
        assert_int_equal(seen, all_known());
    }
    rouse_signal_restore();
    end_default_runtime();
}

TEST(sets_that_name_nothing_or_something_unknown_are_invalid)
{
    static const int wrong[] = {0, 8, -1, 9, INT32_MIN};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(rouse_signal_wait(wrong[i]), ROUSE_INVALID);
        assert_int_equal(rouse_signal_catch(wrong[i]), ROUSE_INVALID);
    }
}

/* ---- several who wait ---- */

static struct hand hands[40];
enum { HANDS = 40 };

static void start_waiting(int i, int signals)
{
    hand_init(&hands[i]);
    rouse_signal_wait_init(&hands[i].op, signals);
    assert_int_equal(hand_poll(&hands[i]), ROUSE_PENDING);
}

TEST(who_waits_for_another_signal_waits_on)
{
    for (int i = 0; i < count_known(); i++)
        start_waiting(i, known[i].name);
    for (int i = count_known() - 1; i >= 0; i--) {
        assert_int_equal(raise(known[i].number), 0);
        assert_int_equal(hand_finish(&hands[i]), known[i].name);
        for (int k = 0; k < i; k++)
            assert_int_equal(hand_poll(&hands[k]), ROUSE_PENDING);
    }
    for (int i = 0; i < count_known(); i++)
        hand_fini(&hands[i]);
    rouse_signal_restore();
    end_default_runtime();
}

/* tokio@2d4bfa148: dropping one listener starved the others. */
TEST(of_forty_who_wait_one_gets_each_signal_and_those_who_leave_take_none_along)
{
    for (int i = 0; i < HANDS; i++)
        start_waiting(i, ROUSE_SIGNAL_TERMINATE);
    bool done[HANDS] = {false};
    for (int i = 0; i < HANDS; i += 2)
        assert_int_equal(rouse_op_cancel(&hands[i].op), ROUSE_OP_IDLE);
    for (int left = HANDS / 2; left > 0; left--) {
        bool found = false;
        assert_int_equal(raise(SIGTERM), 0);
        int64_t end = test_now_ns() + TEST_SOON;
        while (!found) {
            assert_true(test_now_ns() < end);
            for (int i = 1; i < HANDS && !found; i += 2) {
                ptrdiff_t answer = done[i] ? ROUSE_PENDING : hand_poll(&hands[i]);
                found = answer == ROUSE_SIGNAL_TERMINATE;
                done[i] |= found;
                assert_true(found || answer == ROUSE_PENDING);
            }
        }
    }
    for (int i = 0; i < HANDS; i++)
        hand_fini(&hands[i]);
    rouse_signal_restore();
    end_default_runtime();
}

TEST(restoring_ends_the_waits_and_puts_back_what_was)
{
    struct sigaction before, during, after;
    test_needs("signals");
    assert_int_equal(sigaction(SIGTERM, NULL, &before), 0);
    start_waiting(0, ALL);
    assert_int_equal(sigaction(SIGTERM, NULL, &during), 0);
    assert_true(during.sa_handler != before.sa_handler);
    rouse_signal_restore();
    assert_int_equal(hand_finish(&hands[0]), ROUSE_CLOSED);
    hand_fini(&hands[0]);
    assert_int_equal(sigaction(SIGTERM, NULL, &after), 0);
    assert_true(after.sa_handler == before.sa_handler);
    rouse_signal_restore();
    end_default_runtime();
}

TEST(catching_and_restoring_again_and_again_leaves_nothing)
{
    for (uint64_t i = test_scale(200, 20000); i > 0; i--) {
        assert_int_equal(rouse_signal_catch(ROUSE_SIGNAL_TERMINATE), ROUSE_OK);
        assert_int_equal(rouse_signal_catch(ALL), ROUSE_OK);
        assert_int_equal(raise(SIGTERM), 0);
        assert_int_equal(rouse_signal_wait(ALL), ROUSE_SIGNAL_TERMINATE);
        rouse_signal_restore();
    }
    end_default_runtime();
}

/* ---- ends of waiting ---- */

static int give_up(void *unused)
{
    (void)unused;
    require_int(rouse_signal_wait(ALL), ==, ROUSE_CANCELLED);
    return ROUSE_OK;
}

static int stop_waiting(void *unused)
{
    rouse_deadline deadline = {{0}};
    rouse_scope scope;
    (void)unused;
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(5))), ==, ROUSE_OK);
    require_int(rouse_signal_wait(ALL), ==, ROUSE_TIMED_OUT);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(give_up, NULL), ==, ROUSE_OK);
    for (int i = 0; i < 3; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    rouse_signal_restore();
    return ROUSE_OK;
}

TEST(waiting_for_a_signal_ends_at_a_deadline_and_when_cancelled)
{
    on_each_executor(stop_waiting, NULL);
}

/* zguide#812: a flood of signals filled the pipe, and the handler blocked. */
TEST(a_flood_of_signals_neither_blocks_nor_is_lost_altogether)
{
    assert_int_equal(rouse_signal_catch(ALL), ROUSE_OK);
    uint64_t count = (uint64_t)count_known();
    for (uint64_t i = test_scale(20000, 1000000); i > 0; i--)
        assert_int_equal(raise(known[i % count].number), 0);
    int seen = 0;
    for (int i = 0; i < count_known(); i++) {
        int signal;
        test_call(signal, rouse_signal_wait(all_known() & ~seen));
        seen |= signal;
    }
    assert_int_equal(seen, all_known());
    rouse_signal_restore();
    end_default_runtime();
}

TEST(handlers_that_cannot_be_installed_leave_nothing)
{
    test_needs("faults");
    static const char *const names[] = {"eventfd", "sigaction"};
    for (int i = 0; i < 2; i++) {
        for (uint64_t nth = 1; nth <= (i == 0 ? 1 : (uint64_t)count_known()); nth++) {
            int before = test_descriptor_count();
            faults_syscall(names[i], nth, i == 0 ? EMFILE : EINVAL, 1);
            int status = rouse_signal_catch(ALL);
            faults_reset();
            assert_true(status < 0);
            assert_int_equal(test_descriptor_count(), before);
        }
    }
    assert_int_equal(rouse_signal_catch(ALL), ROUSE_OK);
    rouse_signal_restore();
}

/* One thread waits while others send and restore: no crash, no descriptor of somebody else is written to. */
static atomic_bool enough;

static void restore_often(void *unused)
{
    (void)unused;
    while (!atomic_load(&enough)) {
        require_int(rouse_signal_catch(ROUSE_SIGNAL_HANG_UP), ==, ROUSE_OK);
        rouse_signal_restore();
        test_take_turns();
    }
}

TEST(waiting_while_another_thread_restores_is_answered)
{
    test_thread thread;
    test_thread_start(&thread, restore_often, NULL);
    for (uint64_t i = test_scale(300, 30000); i > 0; i--) {
        struct hand waiting;
        hand_init(&waiting);
        rouse_signal_wait_init(&waiting.op, ROUSE_SIGNAL_HANG_UP);
        ptrdiff_t answer = hand_poll(&waiting);
        if (answer == ROUSE_PENDING)
            rouse_op_cancel(&waiting.op);
        else
            assert_int_equal(answer, ROUSE_CLOSED);
        hand_fini(&waiting);
    }
    atomic_store(&enough, true);
    test_thread_join(&thread, TEST_SOON);
    rouse_signal_restore();
    end_default_runtime();
}
