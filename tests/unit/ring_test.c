#include "core/ring.h"
#include "os/os.h"

#include "support/harness.h"

/* Items are numbers from 1 on, kept in the pointers. */
static void *item(uintptr_t number)
{
    return (void *)number;
}

static void assert_pop(struct ring *ring, uintptr_t number)
{
    assert_ptr_equal(ring_pop(ring), item(number));
}

/* An empty ring whose indices stand at `start`. */
static void init_at(struct ring *ring, uint32_t start)
{
    ring_init(ring);
    atomic_u64_init(&ring->head, ring_head(start, start));
    atomic_u32_init(&ring->tail, start);
}

/* Starts that differ in where the indices wrap: nowhere, between two slots of the ring, at its end. */
static const uint32_t starts[] = {0, 77, UINT32_MAX - RING_SIZE / 2, UINT32_MAX, UINT32_MAX - RING_SIZE + 1};
enum { STARTS = sizeof starts / sizeof *starts };

static void fill(struct ring *ring, uintptr_t first, uintptr_t count)
{
    for (uintptr_t i = 0; i < count; i++)
        assert_true(ring_push(ring, item(first + i)));
}

TEST(a_new_ring_is_empty)
{
    struct ring ring, other;
    void *first;
    ring_init(&ring);
    ring_init(&other);
    assert_true(ring_is_empty(&ring));
    assert_null(ring_pop(&ring));
    assert_int_equal(ring_steal(&ring, &other, &first), 0);
}

TEST(a_ring_is_first_in_first_out_across_the_wrap_of_its_indices)
{
    struct ring ring;
    for (int s = 0; s < STARTS; s++) {
        init_at(&ring, starts[s]);
        uintptr_t pushed = 0, popped = 0;
        for (int round = 0; round < 3 * RING_SIZE; round++) {
            fill(&ring, pushed + 1, 3);
            pushed += 3;
            for (int i = 0; i < 3; i++)
                assert_pop(&ring, ++popped);
            assert_null(ring_pop(&ring));
        }
    }
}

TEST(a_full_ring_refuses_one_more_and_keeps_what_it_has)
{
    struct ring ring;
    for (int s = 0; s < STARTS; s++) {
        init_at(&ring, starts[s]);
        fill(&ring, 1, RING_SIZE);
        assert_int_equal(ring_length(&ring), RING_SIZE);
        assert_false(ring_push(&ring, item(999)));
        assert_pop(&ring, 1);
        assert_true(ring_push(&ring, item(RING_SIZE + 1)));
        for (uintptr_t i = 2; i <= RING_SIZE + 1; i++)
            assert_pop(&ring, i);
        assert_null(ring_pop(&ring));
    }
}

TEST(taking_half_makes_room_and_takes_the_oldest)
{
    struct ring ring;
    void *out[RING_SIZE / 2];
    for (int s = 0; s < STARTS; s++) {
        init_at(&ring, starts[s]);
        fill(&ring, 1, RING_SIZE);
        assert_int_equal(ring_take_half(&ring, out), RING_SIZE / 2);
        for (uintptr_t i = 0; i < RING_SIZE / 2; i++)
            assert_ptr_equal(out[i], item(i + 1));
        assert_true(ring_push(&ring, item(RING_SIZE + 1)));
        for (uintptr_t i = RING_SIZE / 2 + 1; i <= RING_SIZE + 1; i++)
            assert_pop(&ring, i);
    }
}

TEST(a_thief_takes_the_older_half_in_order)
{
    struct ring victim, thief;
    for (uintptr_t count = 1; count <= RING_SIZE; count++) {
        void *first;
        init_at(&victim, starts[count % STARTS]);
        init_at(&thief, starts[(count + 1) % STARTS]);
        fill(&victim, 1, count);
        size_t taken = ring_steal(&victim, &thief, &first);
        assert_int_equal(taken, count - count / 2);
        assert_ptr_equal(first, item(1));
        for (uintptr_t i = 2; i <= taken; i++)
            assert_pop(&thief, i);
        assert_null(ring_pop(&thief));
        for (uintptr_t i = taken + 1; i <= count; i++)
            assert_pop(&victim, i);
        assert_null(ring_pop(&victim));
    }
}

TEST(a_thief_takes_no_more_than_its_own_ring_can_hold)
{
    struct ring victim, thief;
    for (uintptr_t used = 0; used <= RING_SIZE; used++) {
        void *first;
        init_at(&victim, starts[used % STARTS]);
        init_at(&thief, starts[(used + 1) % STARTS]);
        fill(&victim, 1, RING_SIZE);
        fill(&thief, 1000, used);
        size_t room = RING_SIZE - used + 1; /* one is handed out */
        size_t taken = ring_steal(&victim, &thief, &first);
        assert_int_equal(taken, room < RING_SIZE / 2 ? room : RING_SIZE / 2);
        assert_ptr_equal(first, item(1));
        assert_int_equal(ring_length(&thief), used + taken - 1);
        assert_int_equal(ring_length(&victim), RING_SIZE - taken);
        for (uintptr_t i = 0; i < used; i++)
            assert_pop(&thief, 1000 + i);
        for (uintptr_t i = 2; i <= taken; i++)
            assert_pop(&thief, i);
    }
}

TEST(while_a_thief_is_at_work_its_slots_are_not_reused_and_nobody_else_takes)
{
    struct ring victim, other;
    void *first, *out[RING_SIZE / 2];
    for (int s = 0; s < STARTS; s++) {
        init_at(&victim, starts[s]);
        ring_init(&other);
        fill(&victim, 1, RING_SIZE);
        /* what a thief does first: it has claimed 3 items and not copied them yet */
        atomic_u64_init(&victim.head, ring_head(starts[s], starts[s] + 3));
        assert_false(ring_push(&victim, item(999)));
        assert_int_equal(ring_take_half(&victim, out), 0);
        assert_int_equal(ring_steal(&victim, &other, &first), 0);
        assert_pop(&victim, 4);
        assert_false(ring_push(&victim, item(999)));
        for (uintptr_t i = 0; i < 3; i++)
            assert_ptr_equal(atomic_ptr_load(ring_slot(&victim, starts[s] + (uint32_t)i), RELAXED), item(1 + i));
    }
}

TEST(the_length_counts_pushes_pops_and_thefts)
{
    struct ring ring, thief;
    void *first;
    init_at(&ring, UINT32_MAX - 2);
    ring_init(&thief);
    fill(&ring, 1, 10);
    assert_int_equal(ring_length(&ring), 10);
    assert_pop(&ring, 1);
    assert_int_equal(ring_length(&ring), 9);
    assert_int_equal(ring_steal(&ring, &thief, &first), 5);
    assert_int_equal(ring_length(&ring), 4);
    assert_int_equal(ring_length(&thief), 4);
    assert_false(ring_is_empty(&ring));
}

/* ---- with threads ---- */

enum { THIEVES = 3 };

/* Each item is consumed once: a thief or the owner that gets it twice, or an item nobody gets, shows in `seen`. */
struct market {
    struct ring owner_ring;           /* filled by the owner, emptied by everybody */
    struct ring thief_rings[THIEVES]; /* each thief's own; thieves also steal from each other */
    atomic_u32 *seen;                 /* how often each item was consumed; by item number */
    size_t items;                     /* items are 1 ... items */
    atomic_size consumed;             /* in all */
    atomic_u32 thief_number;          /* the next thief's index */
};

static void consume(struct market *market, void *taken)
{
    uintptr_t number = (uintptr_t)taken;
    require(number >= 1 && number <= market->items);
    require(atomic_u32_add(&market->seen[number], 1, RELAXED) == 0);
    atomic_size_add(&market->consumed, 1, RELAXED);
}

static bool all_consumed(struct market *market)
{
    return atomic_size_load(&market->consumed, RELAXED) == market->items;
}

static void steal_all(void *argument)
{
    struct market *market = argument;
    uint32_t me = atomic_u32_add(&market->thief_number, 1, RELAXED);
    struct ring *own = &market->thief_rings[me];
    for (uint32_t round = 0; !all_consumed(market); round++) {
        uint32_t victim = round % (THIEVES + 1);
        void *taken;
        if (victim != me) {
            struct ring *ring = victim == THIEVES ? &market->owner_ring : &market->thief_rings[victim];
            if (ring_steal(ring, own, &taken) > 0)
                consume(market, taken);
            else
                os_thread_yield();
        }
        if (round % 2 == 0 && (taken = ring_pop(own)) != NULL)
            consume(market, taken);
    }
}

static void produce_all(struct market *market)
{
    for (uintptr_t number = 1; number <= market->items;) {
        void *taken, *half[RING_SIZE / 2];
        if (ring_push(&market->owner_ring, item(number))) {
            number++;
        } else {
            size_t count = ring_take_half(&market->owner_ring, half);
            for (size_t i = 0; i < count; i++)
                consume(market, half[i]);
        }
        if (number % 3 == 0 && (taken = ring_pop(&market->owner_ring)) != NULL)
            consume(market, taken);
        if (number % 1024 == 0)
            os_thread_yield();
    }
    for (void *taken; (taken = ring_pop(&market->owner_ring)) != NULL;)
        consume(market, taken);
}

static void run_market(uint32_t start, size_t items)
{
    static struct market market;
    os_thread threads[THIEVES];
    init_at(&market.owner_ring, start);
    for (int i = 0; i < THIEVES; i++)
        init_at(&market.thief_rings[i], start + 1);
    market.items = items;
    market.seen = calloc(items + 1, sizeof *market.seen);
    require(market.seen);
    atomic_size_init(&market.consumed, 0);
    atomic_u32_init(&market.thief_number, 0);
    for (int i = 0; i < THIEVES; i++)
        require_int(os_thread_start(&threads[i], steal_all, &market, "thief"), ==, ROUSE_OK);
    produce_all(&market);
    for (int i = 0; i < THIEVES; i++)
        os_thread_join(&threads[i]);
    for (size_t number = 1; number <= items; number++)
        require_int(atomic_u32_load(&market.seen[number], RELAXED), ==, 1);
    free(market.seen);
}

TEST(every_item_is_taken_exactly_once_by_the_owner_or_a_thief)
{
    run_market(0, test_scale(2000000, 100000000));
}

TEST(nothing_is_lost_where_the_indices_wrap_while_thieves_are_at_work)
{
    uint64_t rounds = test_scale(20, 2000);
    for (uint64_t i = 0; i < rounds; i++)
        run_market(UINT32_MAX - 2000, 6000);
}
