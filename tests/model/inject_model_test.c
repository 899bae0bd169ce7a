/* The shared queue: nothing is lost, and a worker that announces its sleep and a push cannot miss each other. */
#include "model_lock.h"

#include "core/inject.c"

#include "explorer.h"

#include "support/harness.h"

enum { ITEMS = 3 };

struct item {
    struct queue_link link;
    unsigned content; /* written before the push, read by whoever pops */
    unsigned popped;  /* how often */
};

static struct inject inject;
static struct item items[ITEMS];
static atomic_u32 idle;
static bool noticed[2]; /* by each thread */

static void setup(void)
{
    inject_init(&inject);
    memset(items, 0, sizeof items);
    atomic_u32_init(&idle, 0);
    noticed[0] = noticed[1] = false;
}

static void push_one(void)
{
    MODEL_WRITE(items[0].content, 1);
    inject_push(&inject, &items[0].link);
}

static void push_batch(void)
{
    struct queue batch = {0};
    for (unsigned i = 1; i < ITEMS; i++) {
        MODEL_WRITE(items[i].content, 1);
        queue_push(&batch, &items[i].link);
    }
    inject_push_batch(&inject, &batch);
}

static void consume(struct queue_link *link)
{
    struct item *item = CONTAINER_OF(link, struct item, link);
    model_check(MODEL_READ(item->content) == 1);
    MODEL_WRITE(item->popped, item->popped + 1);
}

static void pop_one(void)
{
    struct queue_link *link = inject_pop(&inject);
    if (link)
        consume(link);
}

static void pop_two(void)
{
    struct queue some = {0};
    model_check(inject_pop_some(&inject, &some, 2) == some.count);
    for (struct queue_link *link; (link = queue_pop(&some)) != NULL;)
        consume(link);
}

static void each_item_once(void)
{
    for (struct queue_link *link; (link = inject_pop(&inject)) != NULL;)
        consume(link);
    model_check(inject_is_empty(&inject));
    for (unsigned i = 0; i < ITEMS; i++)
        model_check(items[i].popped == 1);
}

TEST(each_item_comes_out_once_with_its_contents)
{
    struct model model = {.name = "inject",
                          .setup = setup,
                          .threads = {push_one, push_batch, pop_two, pop_one},
                          .finish = each_item_once,
                          .history = (unsigned)test_scale(1, 2) - 1};
    assert_true(model_run(&model).ok);
    model.threads[3] = NULL;
    model.history = 2;
    assert_true(model_run(&model).ok);
}

static void push_and_look_for_sleepers(void)
{
    push_one();
    atomic_fence(SEQ_CST);
    noticed[0] = atomic_u32_load(&idle, RELAXED) == 1;
}

static void look_for_work_and_sleep(void)
{
    atomic_u32_store(&idle, 1, RELAXED);
    atomic_fence(SEQ_CST);
    noticed[1] = !inject_is_empty(&inject);
}

static void is_noticed(void)
{
    model_check(noticed[0] || noticed[1]);
}

TEST(with_fences_a_push_and_a_sleep_cannot_miss_each_other)
{
    struct model model = {.name = "inject sleep",
                          .setup = setup,
                          .threads = {push_and_look_for_sleepers, look_for_work_and_sleep},
                          .finish = is_noticed,
                          .history = 2};
    assert_true(model_run(&model).ok);
}
