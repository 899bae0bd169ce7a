/* Sleepers and searchers: who is woken, who is the last to search, and what a worker that goes to sleep must look at. */
#include "core/idle.h"
#include "support/harness.h"

enum { WORKERS = 4 };

static struct idle idle;
static uint16_t sleepers[WORKERS];
static bool listed[WORKERS];

static void begin(void)
{
    memset(listed, 0, sizeof listed);
    idle_init(&idle, WORKERS, sleepers, listed);
}

static uint32_t searching(void)
{
    return idle_searching(atomic_u32_load(&idle.state, RELAXED));
}

static uint32_t awake(void)
{
    return idle_awake(atomic_u32_load(&idle.state, RELAXED));
}

TEST(who_goes_to_sleep_looks_at_everything_exactly_when_nobody_searches_any_more)
{
    /* Each number of searchers among the awake, the sleeper one of them or not. */
    for (unsigned searchers = 0; searchers <= 2; searchers++) {
        for (int itself = 0; itself <= (searchers > 0); itself++) {
            begin();
            for (unsigned i = 0; i < searchers; i++) {
                assert_true(idle_begin_search(&idle));
            }
            unsigned others = searchers - (unsigned)itself;
            assert_int_equal(idle_sleep(&idle, 1, itself), others == 0);
            assert_int_equal(searching(), others);
            assert_int_equal(awake(), WORKERS - 1);
        }
    }
}

TEST(half_of_the_workers_search_at_most_and_the_last_to_end_is_told)
{
    begin();
    assert_true(idle_begin_search(&idle));
    assert_true(idle_begin_search(&idle));
    assert_false(idle_begin_search(&idle));
    assert_false(idle_end_search(&idle));
    assert_true(idle_end_search(&idle));
    assert_int_equal(searching(), 0);
}

TEST(nobody_is_woken_while_somebody_searches_or_all_are_awake)
{
    begin();
    assert_int_equal(idle_notify(&idle), IDLE_NOBODY);
    assert_true(idle_sleep(&idle, 2, false));
    assert_true(idle_sleep(&idle, 0, false));
    assert_int_equal(idle_any_sleeper(&idle), 0);
    assert_true(idle_begin_search(&idle));
    assert_int_equal(idle_notify(&idle), IDLE_NOBODY);
    assert_true(idle_end_search(&idle));
    assert_int_equal(idle_notify(&idle), 0); /* the last to sleep; counts as searching from now on */
    assert_int_equal(searching(), 1);
    assert_int_equal(awake(), 3);
    assert_int_equal(idle_notify(&idle), IDLE_NOBODY);
    assert_true(idle_was_notified(&idle, 0));
    assert_false(idle_was_notified(&idle, 2));
    assert_true(idle_wake(&idle, 0));
    assert_true(idle_end_search(&idle));
    assert_false(idle_wake(&idle, 2)); /* by itself */
    assert_int_equal(awake(), WORKERS);
    assert_int_equal(searching(), 0);
}

TEST(sleepers_wake_in_any_order)
{
    for (unsigned first = 0; first < WORKERS; first++) {
        begin();
        for (unsigned i = 0; i < WORKERS; i++) {
            assert_true(idle_sleep(&idle, i, false));
        }
        assert_int_equal(awake(), 0);
        for (unsigned i = 0; i < WORKERS; i++) {
            assert_false(idle_wake(&idle, (first + i) % WORKERS));
            assert_int_equal(awake(), i + 1);
        }
        assert_int_equal(idle_any_sleeper(&idle), IDLE_NOBODY);
    }
}

TEST(the_next_sleeper_is_looked_for_from_a_place_and_round)
{
    begin();
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(idle_sleeper_from(&idle, i), IDLE_NOBODY);
    }
    idle_sleep(&idle, 3, false);
    idle_sleep(&idle, 1, false);
    static const uint32_t expected[WORKERS] = {1, 1, 3, 3};
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(idle_sleeper_from(&idle, i), expected[i]);
    }
    idle_wake(&idle, 1);
    assert_int_equal(idle_sleeper_from(&idle, 0), 3);
    idle_wake(&idle, 3);
    assert_int_equal(idle_sleeper_from(&idle, 0), IDLE_NOBODY);
}
