#include "core/spawner.h"
#include "core/scope.h"

int spawner_init(struct spawner *spawner, const rouse_allocator *allocator)
{
    spawner->allocator = allocator;
    spawner->process = os_process();
    atomic_i64_init(&spawner->scheduler.limit_ns, ROUSE_NEVER);
    atomic_u32_init(&spawner->closed, 0);
    atomic_u32_init(&spawner->endings, 0);
    spawner->outside = slab_new(allocator, &spawner->scheduler, NULL);
    return spawner->outside ? ROUSE_OK : ROUSE_NO_MEMORY;
}

static void count(atomic_u64 *counter)
{
    /* One writer: no read-modify-write is needed. RELEASE pairs with ACQUIRE where the sums are made. */
    atomic_u64_store(counter, atomic_u64_load(counter, RELAXED) + 1, RELEASE);
}

static bool is_closed(struct spawner *spawner)
{
    return atomic_u32_load(&spawner->closed, ACQUIRE) != 0; /* pairs with spawner_close */
}

/* Threads that are no workers: the closed flag and the count change under one lock, so that a spawn is either refused or
 * counted before shutdown looks. A worker needs no lock: its running task keeps the runtime from having none left. */
static bool count_spawn(struct spawner *spawner, struct spawn_counts *counts)
{
    if (counts) {
        if (is_closed(spawner))
            return false;
        count(&counts->spawned);
        return true;
    }
    lock_acquire(&spawner->outside_lock);
    bool open = !is_closed(spawner);
    if (open)
        count(&spawner->outside_counts.spawned);
    lock_release(&spawner->outside_lock);
    return open;
}

void spawner_count_completion(struct spawner *spawner, struct spawn_counts *counts)
{
    if (counts) {
        count(&counts->completed);
    } else {
        lock_acquire(&spawner->outside_lock);
        count(&spawner->outside_counts.completed);
        lock_release(&spawner->outside_lock);
    }
    /* ACQUIRE pairs with spawner_close. Without a fence this may miss a close that is just happening, and the count be
     * missed by it; a fence for each completion is dearer than that shutdown looks again every few milliseconds. */
    if (atomic_u32_load(&spawner->closed, ACQUIRE)) {
        atomic_u32_add(&spawner->endings, 1, RELEASE);
        os_wake_all(atomic_u32_word(&spawner->endings));
    }
}

int spawner_make(struct spawner *spawner, struct slab *slab, struct spawn_counts *counts,
                 const struct spawn_request *request, struct task_cell **made)
{
    size_t bytes, alignment, flags = 0;
    bool large, with_origin = request->scope || request->deadline_ns != ROUSE_NEVER;
    if (spawner->process != os_process())
        return ROUSE_FORKED;
    int status = task_measure(request->type, with_origin, &bytes, &alignment);
    if (status != ROUSE_OK)
        return status;
    if (!size_add(bytes, request->extra_bytes, &bytes) || bytes > SIZE_MAX / 4)
        return ROUSE_TOO_LARGE;
    struct task_cell *cell =
        (struct task_cell *)(void *)slab_take(slab ? slab : spawner->outside, bytes, alignment, &large);
    if (!cell)
        return ROUSE_NO_MEMORY;
    if (large)
        flags |= STATE_LARGE;
    if (with_origin)
        flags |= STATE_SURROUNDED;
    if (!count_spawn(spawner, counts)) {
        slab_give(&cell->slot, large);
        return ROUSE_SHUTTING_DOWN;
    }
    task_prepare(cell, request->type, request->state, request->joinable, flags, request->site);
    struct origin *origin = task_origin(cell);
    if (origin && request->deadline_ns != ROUSE_NEVER) {
        origin->root.kind = FRAME_DEADLINE;
        origin->root.effective_ns = request->deadline_ns;
    }
    if (request->scope && (status = scope_add(request->scope, origin)) != ROUSE_OK) {
        /* Not queued, not in the scope; a walk may hold it for a moment: references end it, nobody runs it. */
        size_t word = atomic_size_load(&cell->slot.word, RELAXED), references = request->joinable ? 3 : 2;
        while (!atomic_size_cas_weak(&cell->slot.word, &word, (word | STATE_COMPLETE) - references * STATE_REFERENCE,
                                     ACQ_REL, RELAXED)) {}
        if (STATE_COUNT(word) == references)
            slab_give(&cell->slot, large);
        spawner_count_completion(spawner, counts);
        return status;
    }
    *made = cell;
    return ROUSE_OK;
}

void spawner_close(struct spawner *spawner)
{
    lock_acquire(&spawner->outside_lock);
    atomic_u32_store(&spawner->closed, 1, RELEASE); /* pairs with is_closed and spawner_count_completion */
    lock_release(&spawner->outside_lock);
}

static void cancel_one(struct slab_cell *slot, void *context)
{
    struct task_cell *cell = (struct task_cell *)(void *)slot;
    (void)context;
    task_cancel_again(cell); /* the limit of its shields may be a new one */
    task_release(cell);
}

void spawner_cancel_all(struct slab *slab)
{
    slab_walk(slab, task_acquire_live, cancel_one, NULL);
}
