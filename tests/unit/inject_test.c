#include "core/inject.h"
#include "os/os.h"

#include "support/harness.h"

struct item {
    struct queue_link link;
    size_t number;
};

static size_t number_of(struct queue_link *link)
{
    return CONTAINER_OF(link, struct item, link)->number;
}

static void number_items(struct item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        items[i].number = i;
}

TEST(a_new_shared_queue_is_empty)
{
    struct inject inject;
    struct queue out = {0};
    inject_init(&inject);
    assert_true(inject_is_empty(&inject));
    assert_null(inject_pop(&inject));
    assert_int_equal(inject_pop_some(&inject, &out, 10), 0);
    assert_true(queue_is_empty(&out));
}

TEST(the_shared_queue_is_first_in_first_out)
{
    struct inject inject;
    struct item items[5];
    inject_init(&inject);
    number_items(items, 5);
    for (size_t i = 0; i < 5; i++) {
        inject_push(&inject, &items[i].link);
        assert_int_equal(inject_length(&inject), i + 1);
    }
    for (size_t i = 0; i < 5; i++) {
        assert_false(inject_is_empty(&inject));
        assert_int_equal(number_of(inject_pop(&inject)), i);
    }
    assert_true(inject_is_empty(&inject));
}

TEST(a_batch_keeps_its_order_and_an_empty_one_changes_nothing)
{
    struct inject inject;
    struct item items[4];
    struct queue batch = {0};
    inject_init(&inject);
    number_items(items, 4);
    inject_push_batch(&inject, &batch);
    assert_true(inject_is_empty(&inject));
    inject_push(&inject, &items[0].link);
    queue_push(&batch, &items[1].link);
    queue_push(&batch, &items[2].link);
    inject_push_batch(&inject, &batch);
    assert_true(queue_is_empty(&batch));
    assert_int_equal(inject_length(&inject), 3);
    inject_push(&inject, &items[3].link);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(number_of(inject_pop(&inject)), i);
}

TEST(popping_some_takes_the_oldest_and_appends_them)
{
    enum { COUNT = 6 };
    for (size_t limit = 0; limit <= COUNT + 1; limit++) {
        struct inject inject;
        struct item items[COUNT], before = {.number = 99};
        struct queue out = {0};
        inject_init(&inject);
        number_items(items, COUNT);
        for (size_t i = 0; i < COUNT; i++)
            inject_push(&inject, &items[i].link);
        queue_push(&out, &before.link);
        size_t taken = limit < COUNT ? limit : COUNT;
        assert_int_equal(inject_pop_some(&inject, &out, limit), taken);
        assert_int_equal(inject_length(&inject), COUNT - taken);
        assert_int_equal(out.count, taken + 1);
        assert_int_equal(number_of(queue_pop(&out)), 99);
        for (size_t i = 0; i < taken; i++)
            assert_int_equal(number_of(queue_pop(&out)), i);
        for (size_t i = taken; i < COUNT; i++)
            assert_int_equal(number_of(inject_pop(&inject)), i);
    }
}

/* ---- with threads ---- */

enum { PUSHERS = 2, POPPERS = 2 };

struct exchange {
    struct inject inject;   /* under test */
    struct item *items;     /* a share of them for each pusher */
    size_t share;           /* items of one pusher */
    atomic_u32 *seen;       /* how often each item came out */
    atomic_size popped;     /* in all */
    atomic_u32 next_pusher; /* the next pusher's index */
};

static void push_share(void *argument)
{
    struct exchange *exchange = argument;
    struct item *items = exchange->items + exchange->share * atomic_u32_add(&exchange->next_pusher, 1, RELAXED);
    for (size_t i = 0; i < exchange->share;) {
        if (i % 5 == 0 && i + 3 <= exchange->share) {
            struct queue batch = {0};
            for (int k = 0; k < 3; k++)
                queue_push(&batch, &items[i++].link);
            inject_push_batch(&exchange->inject, &batch);
        } else {
            inject_push(&exchange->inject, &items[i++].link);
        }
    }
}

static void pop_all(void *argument)
{
    struct exchange *exchange = argument;
    size_t last[PUSHERS] = {0};
    while (atomic_size_load(&exchange->popped, RELAXED) < PUSHERS * exchange->share) {
        struct queue some = {0};
        if (inject_pop_some(&exchange->inject, &some, 4) == 0) {
            struct queue_link *one = inject_pop(&exchange->inject);
            if (one)
                queue_push(&some, one);
            else
                os_thread_yield();
        }
        for (struct queue_link *link; (link = queue_pop(&some)) != NULL;) {
            size_t number = number_of(link), pusher = number / exchange->share;
            require_int(atomic_u32_add(&exchange->seen[number], 1, RELAXED), ==, 0);
            require(number + 1 > last[pusher]); /* what one thread pushed comes out in its order */
            last[pusher] = number + 1;
            atomic_size_add(&exchange->popped, 1, RELAXED);
        }
    }
}

TEST(threads_that_push_and_pop_at_once_lose_nothing_and_keep_each_pushers_order)
{
    static struct exchange exchange;
    os_thread threads[PUSHERS + POPPERS];
    exchange.share = test_scale(50000, 20000000);
    exchange.items = calloc(PUSHERS * exchange.share, sizeof *exchange.items);
    exchange.seen = calloc(PUSHERS * exchange.share, sizeof *exchange.seen);
    assert_non_null(exchange.items);
    assert_non_null(exchange.seen);
    number_items(exchange.items, PUSHERS * exchange.share);
    inject_init(&exchange.inject);
    for (int i = 0; i < PUSHERS + POPPERS; i++)
        require_int(os_thread_start(&threads[i], i < PUSHERS ? push_share : pop_all, &exchange, "exchange"), ==,
                    ROUSE_OK);
    for (int i = 0; i < PUSHERS + POPPERS; i++)
        os_thread_join(&threads[i]);
    assert_true(inject_is_empty(&exchange.inject));
    free(exchange.items);
    free(exchange.seen);
}
