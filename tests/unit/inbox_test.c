#include "core/inbox.h"
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

TEST(a_new_inbox_is_empty)
{
    struct inbox inbox;
    struct queue out = {0};
    inbox_init(&inbox);
    assert_true(inbox_is_empty(&inbox));
    assert_false(inbox_take(&inbox, &out));
    assert_true(queue_is_empty(&out));
}

TEST(only_the_push_into_an_empty_inbox_says_so)
{
    struct inbox inbox;
    struct item items[3] = {0};
    struct queue out = {0};
    inbox_init(&inbox);
    assert_true(inbox_push(&inbox, &items[0].link));
    assert_false(inbox_is_empty(&inbox));
    assert_false(inbox_push(&inbox, &items[1].link));
    assert_true(inbox_take(&inbox, &out));
    assert_true(inbox_is_empty(&inbox));
    assert_true(inbox_push(&inbox, &items[2].link));
}

TEST(everything_is_taken_at_once_in_the_order_of_pushing)
{
    for (size_t count = 1; count <= 5; count++) {
        struct inbox inbox;
        struct item items[5] = {0}, before = {.number = 99};
        struct queue out = {0};
        inbox_init(&inbox);
        for (size_t i = 0; i < count; i++) {
            items[i].number = i;
            inbox_push(&inbox, &items[i].link);
        }
        queue_push(&out, &before.link);
        assert_true(inbox_take(&inbox, &out));
        assert_int_equal(out.count, count + 1);
        assert_int_equal(number_of(queue_pop(&out)), 99);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(number_of(queue_pop(&out)), i);
        assert_null(queue_pop(&out));
    }
}

/* ---- with threads ---- */

enum { PUSHERS = 3 };

struct post {
    struct inbox inbox;     /* under test */
    atomic_u32 asleep;      /* 1 while the owner sleeps or is about to */
    struct item *items;     /* a share of them for each pusher */
    size_t share;           /* items of one pusher */
    atomic_u32 next_pusher; /* the next pusher's index */
};

/* What os_wait_on compares. */
static const uint32_t *plain(const atomic_u32 *word)
{
    return (const uint32_t *)(const void *)word;
}

static void push_share(void *argument)
{
    struct post *post = argument;
    struct item *items = post->items + post->share * atomic_u32_add(&post->next_pusher, 1, RELAXED);
    for (size_t i = 0; i < post->share; i++) {
        inbox_push(&post->inbox, &items[i].link);
        if (atomic_u32_load(&post->asleep, SEQ_CST) && atomic_u32_exchange(&post->asleep, 0, SEQ_CST))
            os_wake_one(plain(&post->asleep));
    }
}

TEST(an_owner_that_sleeps_when_the_inbox_is_empty_misses_nothing)
{
    static struct post post;
    os_thread threads[PUSHERS];
    post.share = test_scale(30000, 10000000);
    post.items = calloc(PUSHERS * post.share, sizeof *post.items);
    assert_non_null(post.items);
    for (size_t i = 0; i < PUSHERS * post.share; i++)
        post.items[i].number = i;
    inbox_init(&post.inbox);
    for (int i = 0; i < PUSHERS; i++)
        require_int(os_thread_start(&threads[i], push_share, &post, "pusher"), ==, ROUSE_OK);
    size_t next[PUSHERS];
    for (size_t i = 0; i < PUSHERS; i++)
        next[i] = i * post.share;
    for (size_t left = PUSHERS * post.share; left > 0;) {
        struct queue taken = {0};
        if (!inbox_take(&post.inbox, &taken)) {
            atomic_u32_store(&post.asleep, 1, SEQ_CST);
            while (inbox_is_empty(&post.inbox) && atomic_u32_load(&post.asleep, SEQ_CST))
                os_wait_on(plain(&post.asleep), 1, ROUSE_NEVER);
            atomic_u32_store(&post.asleep, 0, SEQ_CST);
        }
        left -= taken.count;
        for (struct queue_link *link; (link = queue_pop(&taken)) != NULL;) {
            size_t number = number_of(link);
            require_int(number, ==, next[number / post.share]++);
        }
    }
    for (int i = 0; i < PUSHERS; i++)
        os_thread_join(&threads[i]);
    free(post.items);
}
