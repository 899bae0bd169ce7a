/* The inbox: nothing is lost, nothing comes twice, each pusher's order is kept, and an owner that goes to sleep is
 * woken. */
#include "core/inbox.c"

#include "explorer.h"

#include "os/os.h"

#include "support/harness.h"

enum { PUSHERS = 2, SHARE = 2 };

struct item {
    struct queue_link link;
    unsigned content; /* written before the push, read by the owner */
    unsigned taken;   /* how often the owner got it */
};

static struct inbox inbox;
static struct item items[PUSHERS][SHARE];
static unsigned taken_of[PUSHERS];
static atomic_u32 asleep; /* the owner sleeps or is about to */
static unsigned pusher_count;

static void setup(void)
{
    inbox_init(&inbox);
    memset(items, 0, sizeof items);
    memset(taken_of, 0, sizeof taken_of);
    atomic_u32_init(&asleep, 0);
}

static bool push(struct item *item)
{
    MODEL_WRITE(item->content, 1);
    return inbox_push(&inbox, &item->link);
}

static void push_two(void)
{
    for (unsigned i = 0; i < SHARE; i++)
        push(&items[model_self()][i]);
}

static void push_one(void)
{
    push(&items[model_self()][0]);
}

/* Owner. Answers how many came. */
static unsigned take(void)
{
    struct queue out = {0};
    unsigned count = 0;
    model_check(inbox_take(&inbox, &out) == (out.count > 0));
    for (struct queue_link *link; (link = queue_pop(&out)) != NULL; count++) {
        struct item *item = CONTAINER_OF(link, struct item, link);
        unsigned pusher = item >= items[1];
        model_check(item == &items[pusher][taken_of[pusher]]); /* in its order, and once */
        model_check(MODEL_READ(item->content) == 1);
        taken_of[pusher]++;
    }
    return count;
}

static void take_twice(void)
{
    take();
    take();
}

static void take_the_rest(void)
{
    take();
    model_check(inbox_is_empty(&inbox));
}

static void all_of_both_taken(void)
{
    take_the_rest();
    model_check(taken_of[0] == SHARE && taken_of[1] == SHARE);
}

static void one_of_both_taken(void)
{
    take_the_rest();
    model_check(taken_of[0] == 1 && taken_of[1] == 1);
}

TEST(all_links_come_once_and_in_the_order_of_each_pusher)
{
    struct model model = {.name = "inbox",
                          .setup = setup,
                          .threads = {push_two, push_two, take_twice},
                          .finish = all_of_both_taken,
                          .history = 1};
    assert_true(model_run(&model).ok);
}

TEST(pushes_that_fail_for_no_reason_are_repeated)
{
    struct model model = {.name = "inbox spurious",
                          .setup = setup,
                          .threads = {push_one, push_one, take_twice},
                          .finish = one_of_both_taken,
                          .history = 2,
                          .spurious = 1};
    assert_true(model_run(&model).ok);
}

/* ---- sleeping ---- */

static void push_one_and_wake(void)
{
    push_one();
    if (atomic_u32_load(&asleep, SEQ_CST) && atomic_u32_exchange(&asleep, 0, SEQ_CST))
        os_wake_one(&asleep.value);
}

/* The same for a mark that is not SEQ_CST itself. */
static void push_one_and_wake_after_fence(void)
{
    push_one();
    atomic_fence(SEQ_CST);
    if (atomic_u32_load(&asleep, RELAXED) && atomic_u32_exchange(&asleep, 0, RELAXED))
        os_wake_one(&asleep.value);
}

static void take_or_sleep(enum model_order order)
{
    for (unsigned count = 0; count < pusher_count;) {
        unsigned now = take();
        count += now;
        if (now > 0)
            continue;
        atomic_u32_store(&asleep, 1, order);
        if (order != SEQ_CST)
            atomic_fence(SEQ_CST);
        if (inbox_is_empty(&inbox))
            os_wait_on(&asleep.value, 1, ROUSE_NEVER);
        atomic_u32_store(&asleep, 0, RELAXED);
    }
}

static void take_all_and_sleep_between(void)
{
    take_or_sleep(SEQ_CST);
}

static void take_all_and_sleep_between_with_fence(void)
{
    take_or_sleep(RELAXED);
}

TEST(an_owner_that_sleeps_is_woken_by_every_push)
{
    pusher_count = 2;
    struct model model = {.name = "inbox sleep",
                          .setup = setup,
                          .threads = {push_one_and_wake, push_one_and_wake, take_all_and_sleep_between},
                          .finish = one_of_both_taken,
                          .history = 1};
    assert_true(model_run(&model).ok);
}

TEST(a_fence_serves_instead_of_sequentially_consistent_marks)
{
    struct model model = {.name = "inbox fence",
                          .setup = setup,
                          .threads = {push_one_and_wake_after_fence, take_all_and_sleep_between_with_fence},
                          .history = 2};
    pusher_count = 1;
    assert_true(model_run(&model).ok);
    struct model two = {.name = "inbox fence 2", .setup = setup, .finish = one_of_both_taken};
    two.threads[0] = two.threads[1] = push_one_and_wake_after_fence;
    two.threads[2] = take_all_and_sleep_between_with_fence;
    two.history = (unsigned)test_scale(1, 2) - 1;
    pusher_count = 2;
    assert_true(model_run(&two).ok);
}

/* ---- who wakes ---- */

/* Only the push that found the inbox empty wakes. The owner takes all that is there before it sleeps. */
static void push_two_and_wake_if_first(void)
{
    for (unsigned i = 0; i < SHARE; i++) {
        if (push(&items[0][i]) && atomic_u32_exchange(&asleep, 0, SEQ_CST))
            os_wake_one(&asleep.value);
    }
}

static void take_two_and_sleep_between(void)
{
    for (unsigned count = 0; count < SHARE;) {
        atomic_u32_store(&asleep, 1, SEQ_CST);
        unsigned now = take();
        count += now;
        if (now == 0)
            os_wait_on(&asleep.value, 1, ROUSE_NEVER);
        atomic_u32_store(&asleep, 0, SEQ_CST);
    }
}

TEST(it_is_enough_when_the_first_push_wakes)
{
    struct model model = {.name = "inbox first",
                          .setup = setup,
                          .threads = {push_two_and_wake_if_first, take_two_and_sleep_between},
                          .history = 2};
    assert_true(model_run(&model).ok);
}
