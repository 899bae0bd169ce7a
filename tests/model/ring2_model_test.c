/* The run queue with two slots, where every push but one meets the edge. */
#define RING_SIZE 2
#include "ring_model.h"

TEST(an_owner_and_a_thief_take_each_item_once)
{
    run_ring("ring", RING_SIZE, pop_between_pushes, steal_once, NULL, 2, 0);
}

TEST(a_thief_comes_back)
{
    run_ring("ring twice", 3, push_and_pop, steal_twice, NULL, (unsigned)test_scale(1, 2), 0);
}

TEST(a_full_ring_overflows_while_a_thief_is_at_work)
{
    run_ring("ring overflow", RING_SIZE + (unsigned)test_scale(1, 2), push_and_pop, steal_once, NULL, 2, 0);
}

TEST(two_thieves_take_each_item_once)
{
    run_ring("ring thieves", (unsigned)test_scale(2, 3), push_and_pop, steal_once, steal_once, 1, 0);
}

TEST(two_thieves_share_several_items)
{
    run_ring("ring shares", (unsigned)test_scale(3, 4), push_and_pop, steal_once, steal_once, 0, 0);
}

TEST(a_thief_steals_from_a_thief)
{
    run_ring("ring chain", (unsigned)test_scale(3, 4), push_and_pop, steal_and_keep, steal_from_thief, 1, 0);
}

TEST(exchanges_that_fail_for_no_reason_are_repeated)
{
    run_ring("ring spurious", (unsigned)test_scale(2, 3), push_and_pop, steal_once, NULL, 1, 1);
}

TEST(a_thief_that_was_stopped_takes_nothing_when_the_owner_has_come_round)
{
    run_ring("ring round", (unsigned)test_scale(5, ITEMS), push_and_pop_one_by_one, steal_once, NULL, 0, 0);
}

TEST(with_fences_a_push_and_a_sleep_cannot_miss_each_other)
{
    run_sleep();
}
