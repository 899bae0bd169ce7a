/* Models of the run queue for the RING_SIZE of the file that includes this: each item is taken once, whoever comes
 * first, and its contents are there. The indices wrap on the way. */
#ifndef RING_MODEL_H
#define RING_MODEL_H

#include "core/ring.c"

#include "explorer.h"

#include "support/harness.h"

enum { ITEMS = 6 };

struct item {
    unsigned content;  /* written before the push, read by whoever takes the item */
    unsigned consumed; /* how often it was taken */
};

static struct item items[ITEMS];
static struct ring ring;      /* of the owner, thread 0 */
static struct ring others[3]; /* of thieves, by thread */
static unsigned push_count;   /* items of this model */

static void init_at(struct ring *r, uint32_t start)
{
    ring_init(r);
    atomic_u64_init(&r->head, ring_head(start, start));
    atomic_u32_init(&r->tail, start);
    model_cells(r->slots, sizeof r->slots);
}

static void setup(void)
{
    memset(items, 0, sizeof items);
    init_at(&ring, UINT32_MAX - 1);
    for (unsigned i = 0; i < 3; i++)
        init_at(&others[i], UINT32_MAX);
}

static void consume(void *taken)
{
    struct item *item = taken;
    model_check(item >= items && item < items + push_count);
    model_check(MODEL_READ(item->content) == 1);
    MODEL_WRITE(item->consumed, item->consumed + 1);
}

static void consume_ring(struct ring *r)
{
    for (void *taken; (taken = ring_pop(r)) != NULL;)
        consume(taken);
}

static void push_items(void)
{
    for (unsigned i = 0; i < push_count; i++) {
        MODEL_WRITE(items[i].content, 1);
        if (ring_push(&ring, &items[i]))
            continue;
        void *half[RING_SIZE / 2];
        size_t count = ring_take_half(&ring, half);
        for (size_t k = 0; k < count; k++)
            consume(half[k]);
        if (!ring_push(&ring, &items[i]))
            consume(&items[i]); /* a thief is at work: elsewhere with it */
    }
}

static void push_and_pop(void)
{
    push_items();
    consume_ring(&ring);
}

static void pop_between_pushes(void)
{
    push_items();
    void *taken = ring_pop(&ring);
    if (taken)
        consume(taken);
    model_check(ring_length(&ring) <= RING_SIZE);
    consume_ring(&ring);
}

static void steal_from(struct ring *victim)
{
    void *first;
    struct ring *mine = &others[model_self()];
    size_t count = ring_steal(victim, mine, &first);
    model_check(count <= RING_SIZE / 2 + 1);
    if (count > 0)
        consume(first);
    consume_ring(mine);
}

static void steal_once(void)
{
    steal_from(&ring);
}

static void steal_twice(void)
{
    steal_from(&ring);
    steal_from(&ring);
}

/* Leaves what it has stolen in its ring, for another thief. */
static void steal_and_keep(void)
{
    void *first;
    if (ring_steal(&ring, &others[1], &first) > 0)
        consume(first);
    consume_ring(&others[1]);
}

static void steal_from_thief(void)
{
    steal_from(&others[1]);
}

static void each_item_once(void)
{
    for (unsigned i = 0; i < push_count; i++)
        model_check(items[i].consumed == 1);
}

static void push_and_pop_one_by_one(void)
{
    for (unsigned i = 0; i < push_count; i++) {
        MODEL_WRITE(items[i].content, 1);
        if (!ring_push(&ring, &items[i]))
            consume(&items[i]);
        void *taken = ring_pop(&ring);
        if (taken)
            consume(taken);
    }
    consume_ring(&ring);
}

static void run_ring(const char *name, unsigned count, void (*owner)(void), void (*one)(void), void (*two)(void),
                     unsigned history, unsigned spurious)
{
    struct model model = {.name = name,
                          .setup = setup,
                          .threads = {owner, one, two},
                          .finish = each_item_once,
                          .history = history,
                          .spurious = spurious};
    push_count = count;
    assert_true(model_run(&model).ok);
}

/* ---- going to sleep ---- */

static atomic_u32 idle;
static bool noticed[2]; /* by each thread */

static void setup_sleep(void)
{
    setup();
    atomic_u32_init(&idle, 0);
    noticed[0] = noticed[1] = false;
}

static void push_and_look_for_sleepers(void)
{
    MODEL_WRITE(items[0].content, 1);
    model_check(ring_push(&ring, &items[0]));
    atomic_fence(SEQ_CST);
    noticed[0] = atomic_u32_load(&idle, RELAXED) == 1;
}

static void look_for_work_and_sleep(void)
{
    atomic_u32_store(&idle, 1, RELAXED);
    atomic_fence(SEQ_CST);
    noticed[1] = !ring_is_empty(&ring);
}

static void is_noticed(void)
{
    model_check(noticed[0] || noticed[1]);
}

static void run_sleep(void)
{
    struct model model = {.name = "ring sleep",
                          .setup = setup_sleep,
                          .threads = {push_and_look_for_sleepers, look_for_work_and_sleep},
                          .finish = is_noticed,
                          .history = 2};
    assert_true(model_run(&model).ok);
}

#endif
