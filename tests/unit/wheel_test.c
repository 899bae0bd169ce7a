#include "core/wheel.h"

#include "support/harness.h"

#include <rouse/base.h>

#define TICK (INT64_C(1) << WHEEL_TICK_BITS)
#define YEAR (INT64_C(365) * 24 * 3600 * ROUSE_S(1))

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void add(struct wheel *wheel, struct wheel_node *node, int64_t deadline_ns)
{
    node->deadline_ns = deadline_ns;
    wheel_add(wheel, node);
}

/* Expires everything that is due, without a limit that matters. */
static size_t expire(struct wheel *wheel, int64_t now_ns, struct list_node *expired)
{
    list_init(expired);
    return wheel_expire(wheel, now_ns, expired, SIZE_MAX);
}

/* ---- one node ---- */

TEST(an_empty_wheel_has_nothing_to_expire)
{
    static struct wheel wheel;
    struct list_node expired;
    wheel_init(&wheel, 5);
    assert_true(wheel_is_empty(&wheel));
    assert_int_equal(wheel_next(&wheel), ROUSE_NEVER);
    assert_int_equal(expire(&wheel, 5, &expired), 0);
    assert_int_equal(expire(&wheel, YEAR, &expired), 0);
    assert_true(list_is_empty(&expired));
}

TEST(a_node_expires_at_its_deadline_and_not_a_nanosecond_before)
{
    static const int64_t starts[] = {0, 1, TICK - 1, 123456789012345, -YEAR, INT64_MAX - 3 * YEAR, INT64_MIN};
    static const int64_t spans[] = {1,         2,           TICK - 1, TICK,       TICK + 1,      63 * TICK,
                                    64 * TICK, ROUSE_MS(1), 4097,     ROUSE_S(1), ROUSE_S(3600), 64 * 64 * TICK + 1,
                                    YEAR,      2 * YEAR};
    static struct wheel wheel;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        for (size_t j = 0; j < sizeof spans / sizeof *spans; j++) {
            struct wheel_node node = {0};
            struct list_node expired;
            int64_t deadline = starts[i] + spans[j];
            wheel_init(&wheel, starts[i]);
            add(&wheel, &node, deadline);
            assert_false(wheel_is_empty(&wheel));
            assert_int_equal(wheel_next(&wheel), deadline);
            assert_int_equal(expire(&wheel, starts[i], &expired), 0);
            assert_int_equal(expire(&wheel, deadline - 1, &expired), 0);
            assert_int_equal(wheel_next(&wheel), deadline);
            assert_int_equal(expire(&wheel, deadline, &expired), 1);
            assert_ptr_equal(list_pop_front(&expired), &node.link);
            assert_true(wheel_is_empty(&wheel));
            assert_int_equal(wheel_next(&wheel), ROUSE_NEVER);
        }
    }
}

TEST(a_deadline_of_the_past_expires_at_once)
{
    static const int64_t deadlines[] = {ROUSE_S(100), ROUSE_S(100) - 1, ROUSE_S(99), 0, -1, INT64_MIN};
    static struct wheel wheel;
    for (size_t i = 0; i < sizeof deadlines / sizeof *deadlines; i++) {
        struct wheel_node node = {0};
        struct list_node expired;
        wheel_init(&wheel, ROUSE_S(100));
        add(&wheel, &node, deadlines[i]);
        assert_true(wheel_next(&wheel) <= ROUSE_S(100));
        assert_int_equal(expire(&wheel, ROUSE_S(100), &expired), 1);
    }
}

TEST(a_deadline_at_the_end_of_time_never_comes)
{
    static struct wheel wheel;
    struct wheel_node nodes[2] = {0};
    struct list_node expired;
    wheel_init(&wheel, ROUSE_S(1));
    add(&wheel, &nodes[0], INT64_MAX);
    add(&wheel, &nodes[1], INT64_MAX - 1);
    assert_int_equal(wheel_next(&wheel), INT64_MAX - 1);
    for (int64_t now = ROUSE_S(2); now < INT64_MAX / 2; now *= 3)
        assert_int_equal(expire(&wheel, now, &expired), 0);
    assert_int_equal(expire(&wheel, INT64_MAX - 2, &expired), 0);
    wheel_remove(&wheel, &nodes[1]);
    wheel_remove(&wheel, &nodes[0]);
    assert_true(wheel_is_empty(&wheel));
}

TEST(the_clock_may_jump_by_years_in_one_call)
{
    static struct wheel wheel;
    struct wheel_node nodes[8] = {0};
    struct list_node expired;
    wheel_init(&wheel, 0);
    for (int i = 0; i < 8; i++)
        add(&wheel, &nodes[i], (INT64_C(1) << (i * 7)) * 1000);
    assert_int_equal(expire(&wheel, 30 * YEAR, &expired), 8);
    for (int i = 0; i < 8; i++)
        assert_ptr_equal(list_pop_front(&expired), &nodes[i].link);
}

TEST(the_clock_may_stand_still)
{
    static struct wheel wheel;
    struct list_node expired;
    wheel_init(&wheel, ROUSE_S(7));
    for (int i = 0; i < 1000; i++) {
        struct wheel_node now = {0}, later = {0};
        add(&wheel, &later, ROUSE_S(7) + 1);
        add(&wheel, &now, ROUSE_S(7));
        assert_int_equal(expire(&wheel, ROUSE_S(7), &expired), 1);
        assert_ptr_equal(list_pop_front(&expired), &now.link);
        assert_int_equal(wheel_next(&wheel), ROUSE_S(7) + 1);
        wheel_remove(&wheel, &later);
    }
}

TEST(a_reading_of_the_clock_from_before_the_last_one_does_no_harm)
{
    static struct wheel wheel;
    struct wheel_node nodes[3] = {0};
    struct list_node expired;
    wheel_init(&wheel, 0);
    assert_int_equal(expire(&wheel, ROUSE_S(10), &expired), 0);
    add(&wheel, &nodes[0], ROUSE_S(9));
    add(&wheel, &nodes[1], ROUSE_S(9) + 5);
    add(&wheel, &nodes[2], ROUSE_S(11));
    assert_int_equal(wheel_next(&wheel), ROUSE_S(9));
    assert_int_equal(expire(&wheel, ROUSE_S(9) + 4, &expired), 1);
    assert_ptr_equal(list_pop_front(&expired), &nodes[0].link);
    assert_int_equal(expire(&wheel, ROUSE_S(10), &expired), 1);
    assert_ptr_equal(list_pop_front(&expired), &nodes[1].link);
    assert_int_equal(wheel_next(&wheel), ROUSE_S(11));
}

/* ---- order ---- */

TEST(nodes_expire_in_the_order_of_their_ticks_and_of_adding)
{
    enum { COUNT = 300 };
    static struct wheel wheel;
    static struct wheel_node nodes[COUNT];
    struct list_node expired;
    uint64_t random = 99;
    wheel_init(&wheel, 12345);
    for (int i = 0; i < COUNT; i++)
        add(&wheel, &nodes[i], 12345 + (int64_t)(next_random(&random) % 5000) * (TICK / 3));
    assert_int_equal(expire(&wheel, YEAR, &expired), COUNT);
    struct wheel_node *last = NULL;
    for (struct list_node *link; (link = list_pop_front(&expired)) != NULL;) {
        struct wheel_node *node = CONTAINER_OF(link, struct wheel_node, link);
        if (last) {
            assert_true(node->deadline_ns / TICK >= last->deadline_ns / TICK);
            if (node->deadline_ns / TICK == last->deadline_ns / TICK)
                assert_true(node > last);
        }
        last = node;
    }
}

/* ---- removing ---- */

TEST(removing_the_last_node_empties_the_wheel)
{
    static struct wheel wheel;
    wheel_init(&wheel, 0);
    for (int shift = 0; shift < 62; shift++) {
        struct wheel_node a = {0}, b = {0};
        add(&wheel, &a, INT64_C(1) << shift);
        add(&wheel, &b, INT64_C(1) << shift);
        wheel_remove(&wheel, &a);
        assert_false(list_is_linked(&a.link));
        assert_false(wheel_is_empty(&wheel));
        assert_int_equal(wheel_next(&wheel), INT64_C(1) << shift);
        wheel_remove(&wheel, &b);
        assert_true(wheel_is_empty(&wheel));
        assert_int_equal(wheel_next(&wheel), ROUSE_NEVER);
    }
}

TEST(after_a_removal_the_wheel_may_ask_to_be_called_too_early_but_only_once)
{
    static struct wheel wheel;
    struct wheel_node first = {0}, second = {0};
    struct list_node expired;
    wheel_init(&wheel, 0);
    add(&wheel, &first, 10);
    add(&wheel, &second, 20);
    wheel_remove(&wheel, &first);
    int64_t next = wheel_next(&wheel);
    assert_true(next <= 20);
    assert_int_equal(expire(&wheel, next, &expired), 0);
    assert_int_equal(wheel_next(&wheel), 20);
}

TEST(a_node_that_has_expired_can_still_be_removed_from_the_list_it_is_in)
{
    static struct wheel wheel;
    struct wheel_node nodes[3] = {0};
    struct list_node expired;
    wheel_init(&wheel, 0);
    for (int i = 0; i < 3; i++)
        add(&wheel, &nodes[i], 1);
    assert_int_equal(expire(&wheel, 1, &expired), 3);
    for (int i = 0; i < 3; i++) {
        assert_false(list_is_empty(&expired));
        wheel_remove(&wheel, &nodes[i]);
    }
    assert_true(list_is_empty(&expired));
    assert_true(wheel_is_empty(&wheel));
}

/* ---- the limit ---- */

TEST(a_call_that_stops_at_its_limit_asks_to_be_called_again_at_once)
{
    enum { COUNT = 100, LIMIT = 7 };
    static struct wheel wheel;
    static struct wheel_node nodes[COUNT];
    struct list_node expired;
    wheel_init(&wheel, 0);
    list_init(&expired);
    for (int i = 0; i < COUNT; i++)
        add(&wheel, &nodes[i], ROUSE_S(5) + i % 3);
    size_t count = 0;
    int calls = 0;
    while (count < COUNT) {
        assert_true(wheel_next(&wheel) <= ROUSE_S(6));
        assert_false(wheel_is_empty(&wheel));
        size_t now = wheel_expire(&wheel, ROUSE_S(6), &expired, LIMIT);
        assert_true(now <= LIMIT);
        count += now;
        assert_true(++calls < COUNT);
    }
    assert_true(calls > COUNT / LIMIT); /* moving down a level is work, too */
    assert_true(wheel_is_empty(&wheel));
}

TEST(nodes_can_be_added_and_removed_between_two_calls_that_share_the_work)
{
    enum { COUNT = 50 };
    static struct wheel wheel;
    static struct wheel_node nodes[COUNT];
    struct wheel_node added = {0};
    struct list_node expired;
    wheel_init(&wheel, 0);
    list_init(&expired);
    for (int i = 0; i < COUNT; i++)
        add(&wheel, &nodes[i], ROUSE_S(5) + i);
    assert_true(wheel_expire(&wheel, ROUSE_S(6), &expired, 10) <= 10);
    for (int i = 0; i < COUNT; i += 2)
        wheel_remove(&wheel, &nodes[i]); /* some still in their slot, some on their way, some expired */
    add(&wheel, &added, ROUSE_S(1));
    while (wheel_next(&wheel) <= ROUSE_S(6))
        wheel_expire(&wheel, ROUSE_S(6), &expired, 10);
    int count = 0;
    while (list_pop_front(&expired))
        count++;
    assert_int_equal(count, COUNT / 2 + 1);
    assert_true(wheel_is_empty(&wheel));
}

TEST(no_limit_means_no_work)
{
    static struct wheel wheel;
    struct wheel_node node = {0};
    struct list_node expired;
    wheel_init(&wheel, 0);
    list_init(&expired);
    add(&wheel, &node, 0);
    assert_int_equal(wheel_expire(&wheel, 1, &expired, 0), 0);
    assert_true(wheel_next(&wheel) <= 1);
}

/* ---- against a model ---- */

/* The same in the plainest form: an array of what should be in the wheel. */
struct timers {
    struct wheel wheel;
    struct wheel_node *nodes; /* with deadlines; linked those that are in the wheel or expired */
    bool *pending;            /* which nodes should be in the wheel */
    size_t count;             /* nodes */
    size_t pending_count;     /* true elements of pending */
    int64_t now_ns;           /* the clock */
};

static int64_t random_span(uint64_t *random)
{
    uint64_t kind = next_random(random) % 16;
    uint64_t number = next_random(random);
    if (kind == 0)
        return 0;
    if (kind == 1)
        return -(int64_t)(number % (UINT64_C(1) << 40));
    return (int64_t)(number >> (2 + next_random(random) % 61)); /* every order of magnitude up to 2^62 */
}

static int64_t plus(int64_t time_ns, int64_t span_ns)
{
    return span_ns > 0 && time_ns > INT64_MAX - span_ns ? INT64_MAX : time_ns + span_ns;
}

static void check_next(const struct timers *timers)
{
    int64_t earliest = ROUSE_NEVER;
    for (size_t i = 0; i < timers->count; i++) {
        if (timers->pending[i] && timers->nodes[i].deadline_ns < earliest)
            earliest = timers->nodes[i].deadline_ns;
    }
    assert_true(wheel_next(&timers->wheel) <= earliest);
    assert_int_equal(wheel_is_empty(&timers->wheel), timers->pending_count == 0);
    if (timers->pending_count == 0)
        assert_int_equal(wheel_next(&timers->wheel), ROUSE_NEVER);
}

/* Lets time come to now_ns and checks that exactly those expire that are due. */
static void check_expiry(struct timers *timers, uint64_t *random)
{
    struct list_node expired;
    list_init(&expired);
    int calls = 0;
    do {
        size_t limit = next_random(random) % 4 ? SIZE_MAX : 1 + next_random(random) % 8;
        size_t before = 0, after = 0;
        for (struct list_node *link = expired.next; link != &expired; link = link->next)
            before++;
        size_t answer = wheel_expire(&timers->wheel, timers->now_ns, &expired, limit);
        for (struct list_node *link = expired.next; link != &expired; link = link->next)
            after++;
        assert_int_equal(after - before, answer);
        assert_true(answer <= limit);
        assert_true(++calls < 100000);
    } while (wheel_next(&timers->wheel) <= timers->now_ns);
    for (struct list_node *link; (link = list_pop_front(&expired)) != NULL;) {
        struct wheel_node *node = CONTAINER_OF(link, struct wheel_node, link);
        size_t index = (size_t)(node - timers->nodes);
        assert_true(node->deadline_ns <= timers->now_ns);
        assert_true(timers->pending[index]);
        timers->pending[index] = false;
        timers->pending_count--;
    }
    for (size_t i = 0; i < timers->count; i++)
        assert_false(timers->pending[i] && timers->nodes[i].deadline_ns <= timers->now_ns);
}

static void run_random(struct timers *timers, uint64_t seed)
{
    uint64_t random = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    memset(timers->nodes, 0, timers->count * sizeof *timers->nodes);
    memset(timers->pending, 0, timers->count * sizeof *timers->pending);
    timers->pending_count = 0;
    timers->now_ns = next_random(&random) % 4 ? (int64_t)(next_random(&random) >> (1 + next_random(&random) % 40))
                                              : -random_span(&random);
    wheel_init(&timers->wheel, timers->now_ns);
    for (int step = 0; step < 400; step++) {
        size_t index = (size_t)(next_random(&random) % timers->count);
        struct wheel_node *node = &timers->nodes[index];
        switch (next_random(&random) % 8) {
        case 0:
            timers->now_ns = plus(timers->now_ns, random_span(&random) & INT64_MAX);
            timers->now_ns -= timers->now_ns == ROUSE_NEVER; /* that is no time */
            check_expiry(timers, &random);
            break;
        case 1: /* on time */
            if (wheel_next(&timers->wheel) != ROUSE_NEVER && wheel_next(&timers->wheel) > timers->now_ns) {
                timers->now_ns = wheel_next(&timers->wheel);
                check_expiry(timers, &random);
            }
            break;
        default:
            if (timers->pending[index]) {
                wheel_remove(&timers->wheel, node);
                timers->pending_count--;
            } else {
                int64_t span = random_span(&random);
                bool fits = span >= 0 || timers->now_ns >= INT64_MIN - span;
                add(&timers->wheel, node, fits ? plus(timers->now_ns, span) : INT64_MIN);
                timers->pending_count++;
            }
            timers->pending[index] = !timers->pending[index];
        }
        check_next(timers);
    }
}

TEST(random_operations_agree_with_an_array_of_deadlines)
{
    enum { COUNT = 24 };
    static struct wheel_node nodes[COUNT];
    static bool pending[COUNT];
    static struct timers timers = {.nodes = nodes, .pending = pending, .count = COUNT};
    uint64_t runs = test_scale(5000, 500000);
    for (uint64_t seed = 1; seed <= runs; seed++)
        run_random(&timers, seed);
}

TEST(many_timers_expire_each_exactly_once_in_small_steps)
{
    size_t count = (size_t)test_scale(100000, 2000000);
    static struct wheel wheel;
    struct wheel_node *nodes = calloc(count, sizeof *nodes);
    assert_non_null(nodes);
    uint64_t random = 7;
    wheel_init(&wheel, 0);
    for (size_t i = 0; i < count; i++)
        add(&wheel, &nodes[i], (int64_t)(next_random(&random) % (uint64_t)ROUSE_S(60)));
    size_t expired_count = 0;
    for (int64_t now = 0; !wheel_is_empty(&wheel);) {
        struct list_node expired;
        assert_true(wheel_next(&wheel) < ROUSE_S(60));
        if (now < wheel_next(&wheel))
            now = wheel_next(&wheel) + (int64_t)(next_random(&random) % (uint64_t)ROUSE_MS(5));
        list_init(&expired);
        expired_count += wheel_expire(&wheel, now, &expired, 256);
        for (struct list_node *link; (link = list_pop_front(&expired)) != NULL;) {
            struct wheel_node *node = CONTAINER_OF(link, struct wheel_node, link);
            assert_in_range(node->deadline_ns, 0, now);
            node->deadline_ns = INT64_MAX; /* a second expiry would fail the line above */
        }
    }
    assert_int_equal(expired_count, count);
    free(nodes);
}
