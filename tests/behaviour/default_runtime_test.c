/* The default runtime: who keeps it alive, and its end. */
#include "support/io.h"
#include "support/runtimes.h"

#include <sched.h>

/* ---- threads that wait in it ---- */

struct sleeper {
    rouse_stream *stream;
    int status;
    atomic_bool entered;
};

static void read_in_thread(void *argument)
{
    struct sleeper *sleeper = argument;
    char byte;
    atomic_store(&sleeper->entered, true);
    sleeper->status = (int)rouse_read(sleeper->stream, &byte, 1);
}

TEST(the_default_runtime_does_not_end_while_a_plain_thread_waits_in_it)
{
    for (int i = 0; i < 3; i++) {
        struct sleeper sleeper = {.status = 0};
        test_thread thread;
        int peer;
        sleeper.stream = tcp_stream(&peer);
        test_thread_start(&thread, read_in_thread, &sleeper);
        while (!atomic_load(&sleeper.entered) || rouse_default_shutdown(ROUSE_S(10)) != ROUSE_BUSY) {
            sched_yield(); /* ends it, perhaps, just before the thread is inside */
        }
        assert_int_equal(rouse_default_shutdown(0), ROUSE_BUSY);
        /* It still works, for that thread and for others. */
        assert_int_equal(rouse_sleep(ROUSE_US(10)), ROUSE_OK);
        test_send_all(peer, "x", 1);
        test_thread_join(&thread, TEST_SOON);
        assert_int_equal(sleeper.status, 1);
        assert_int_equal(rouse_close(sleeper.stream), ROUSE_OK);
        test_close(peer);
        assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
        assert_int_equal(rouse_default_shutdown(0), ROUSE_OK);
    }
}

static int answer_nine(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    return 9;
}

static const rouse_task_type nine_type = {.name = "nine", .poll = answer_nine};

static void use_often(void *argument)
{
    atomic_int *left = argument;
    for (uint64_t i = 0; i < test_scale(100, 5000); i++) {
        int status = i & 1 ? rouse_sleep(ROUSE_US(20)) : rouse_block_on(NULL, &nine_type, NULL, NULL);
        /* Refused while it ends, or given up by its end. */
        require(status == (i & 1 ? ROUSE_OK : 9) || status == ROUSE_SHUTTING_DOWN || status == ROUSE_CANCELLED);
    }
    atomic_fetch_sub(left, 1);
}

TEST(threads_use_the_default_runtime_while_others_end_it_again_and_again)
{
    enum { THREADS = 3 };
    atomic_int left = THREADS;
    test_thread threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        test_thread_start(&threads[i], use_often, &left);
    }
    while (atomic_load(&left) > 0) {
        int status = rouse_default_shutdown(ROUSE_S(10));
        require(status == ROUSE_OK || status == ROUSE_BUSY);
        sched_yield();
    }
    for (int i = 0; i < THREADS; i++) {
        test_thread_join(&threads[i], TEST_SOON);
    }
    end_default_runtime();
}

/* ---- when the process ends ---- */

static int descriptors_before, threads_before;

static void require_nothing_left(void)
{
    /* One that was joined may be in the list a moment longer. */
    eventually(test_thread_count() == threads_before, ROUSE_S(5));
    require_int(test_descriptor_count(), ==, descriptors_before);
}

static int sleep_for_ever(void *argument)
{
    (void)argument;
    return rouse_sleep(ROUSE_NEVER);
}

static void leave_with_default(void *argument)
{
    descriptors_before = test_descriptor_count();
    threads_before = test_thread_count();
    require(atexit(require_nothing_left) == 0); /* runs after what the library has registered later */
    require_int(rouse_block_on(NULL, &nine_type, NULL, NULL), ==, 9);
    require_int(rouse_go_detached(sleep_for_ever, NULL), ==, ROUSE_OK);
    if (argument != NULL) { /* the one that is left is the second */
        end_default_runtime();
        require_int(rouse_go_detached(sleep_for_ever, NULL), ==, ROUSE_OK);
        require_int(rouse_sleep(1), ==, ROUSE_OK);
    }
    exit(0);
}

TEST(the_default_runtime_ends_with_the_process)
{
    test_needs("fork");
    assert_int_equal(test_in_child(leave_with_default, NULL, TEST_SOON), 0);
    assert_int_equal(test_in_child(leave_with_default, &descriptors_before, TEST_SOON), 0);
}

TEST(the_default_runtime_that_was_shut_down_by_its_pointer_is_made_anew)
{
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rouse_sleep(ROUSE_MS(1)), ROUSE_OK);
        assert_int_equal(rouse_runtime_shutdown(rouse_runtime_default(), ROUSE_S(5), NULL, NULL), ROUSE_OK);
    }
    assert_int_equal(rouse_sleep(ROUSE_MS(1)), ROUSE_OK);
    assert_int_equal(rouse_default_shutdown(ROUSE_S(5)), ROUSE_OK);
}
