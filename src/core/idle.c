#include "core/idle.h"

#define ONE_AWAKE     ((uint32_t)1 << 16)
#define ONE_SEARCHING ((uint32_t)1)

void idle_init(struct idle *idle, unsigned workers, uint16_t *sleepers, bool *listed)
{
    *idle = (struct idle){.workers = workers, .sleepers = sleepers, .listed = listed};
    atomic_u32_init(&idle->state, workers * ONE_AWAKE);
    atomic_u32_init(&idle->sentinel, IDLE_NOBODY);
    atomic_i64_init(&idle->sweep_ns, 0);
}

/* Is there somebody to wake, and need? */
static bool wants_searcher(const struct idle *idle)
{
    uint32_t state = atomic_u32_load(&idle->state, RELAXED); /* after a fence, or under the lock */
    return idle_searching(state) == 0 && idle_awake(state) < idle->workers;
}

uint32_t idle_notify(struct idle *idle)
{
    uint32_t worker = IDLE_NOBODY;
    /* SEQ_CST pairs with the fence in idle_sleep: either this sees the sleeper, or the sleeper sees the push. */
    atomic_fence(SEQ_CST);
    if (!wants_searcher(idle))
        return IDLE_NOBODY;
    lock_acquire(&idle->lock);
    if (wants_searcher(idle) && idle->count > 0) {
        worker = idle->sleepers[--idle->count];
        idle->listed[worker] = false;
        /* Counted as searching by the notifier, so that a second push does not wake a second worker meanwhile. */
        atomic_u32_add(&idle->state, ONE_AWAKE + ONE_SEARCHING, SEQ_CST);
    }
    lock_release(&idle->lock);
    return worker;
}

bool idle_begin_search(struct idle *idle)
{
    if (2 * idle_searching(atomic_u32_load(&idle->state, RELAXED)) >= idle->workers)
        return false;
    atomic_u32_add(&idle->state, ONE_SEARCHING, SEQ_CST);
    return true;
}

bool idle_end_search(struct idle *idle)
{
    return idle_searching(atomic_u32_sub(&idle->state, ONE_SEARCHING, SEQ_CST)) == 1;
}

bool idle_sleep(struct idle *idle, unsigned worker, bool was_searching)
{
    lock_acquire(&idle->lock);
    idle->sleepers[idle->count++] = (uint16_t)worker;
    idle->listed[worker] = true;
    uint32_t before = atomic_u32_sub(&idle->state, ONE_AWAKE + (was_searching ? ONE_SEARCHING : 0), SEQ_CST);
    lock_release(&idle->lock);
    atomic_fence(SEQ_CST); /* pairs with idle_notify */
    return idle_searching(before) == (was_searching ? 1u : 0u);
}

bool idle_wake(struct idle *idle, unsigned worker)
{
    lock_acquire(&idle->lock);
    bool notified = !idle->listed[worker];
    if (!notified) {
        uint32_t place = 0;
        while (idle->sleepers[place] != worker)
            place++;
        for (idle->count--; place < idle->count; place++)
            idle->sleepers[place] = idle->sleepers[place + 1];
        idle->listed[worker] = false;
        atomic_u32_add(&idle->state, ONE_AWAKE, SEQ_CST);
    }
    lock_release(&idle->lock);
    return notified;
}

bool idle_was_notified(struct idle *idle, unsigned worker)
{
    lock_acquire(&idle->lock);
    bool notified = !idle->listed[worker];
    lock_release(&idle->lock);
    return notified;
}

uint32_t idle_any_sleeper(struct idle *idle)
{
    lock_acquire(&idle->lock);
    uint32_t worker = idle->count ? idle->sleepers[idle->count - 1] : IDLE_NOBODY;
    lock_release(&idle->lock);
    return worker;
}

uint32_t idle_sleeper_from(struct idle *idle, unsigned first)
{
    uint32_t worker = IDLE_NOBODY;
    if (idle_awake(atomic_u32_load(&idle->state, RELAXED)) == idle->workers)
        return IDLE_NOBODY;
    lock_acquire(&idle->lock);
    for (unsigned i = 0; i < idle->workers && worker == IDLE_NOBODY; i++)
        if (idle->listed[(first + i) % idle->workers])
            worker = (first + i) % idle->workers;
    lock_release(&idle->lock);
    return worker;
}
