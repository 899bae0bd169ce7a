#include "core/ring.h"

_Static_assert(RING_SIZE >= 2 && (RING_SIZE & (RING_SIZE - 1)) == 0,
               "slots are found by index % RING_SIZE across a wrap");

void ring_init(struct ring *ring)
{
    atomic_u64_init(&ring->head, 0);
    atomic_u32_init(&ring->tail, 0);
    for (size_t i = 0; i < RING_SIZE; i++)
        atomic_ptr_init(&ring->slots[i], NULL);
}

size_t ring_take_half(struct ring *ring, void *out[RING_SIZE / 2])
{
    /* RELAXED: as in ring_pop. */
    uint32_t tail = atomic_u32_load(&ring->tail, RELAXED);
    uint64_t head = atomic_u64_load(&ring->head, RELAXED);
    uint32_t real = ring_real_index(head);
    if (ring_steal_index(head) != real)
        return 0;
    uint32_t count = (tail - real) / 2;
    /* One exchange claims all of them: either a thief gets in before it or none does. RELEASE as in ring_pop. */
    if (!atomic_u64_cas(&ring->head, &head, ring_head(real + count, real + count), RELEASE, RELAXED))
        return 0;
    for (uint32_t i = 0; i < count; i++)
        out[i] = atomic_ptr_load(ring_slot(ring, real + i), RELAXED);
    return count;
}

/* Marks items of the victim as taken but not yet copied; answers how many, the first index in *first_index. */
static uint32_t claim(struct ring *victim, uint32_t room, uint32_t *first_index)
{
    /* ACQUIRE pairs with the RELEASE of every exchange of head: tail, loaded next, is not before the real index. If it
     * were, their difference would be taken for four billion items. */
    uint64_t head = atomic_u64_load(&victim->head, ACQUIRE);
    uint32_t real, count;
    do {
        real = ring_real_index(head);
        if (ring_steal_index(head) != real)
            return 0; /* one thief at a time: there is only one steal index */
        /* ACQUIRE pairs with the RELEASE of tail in ring_push and ring_steal: the slots before it are written. */
        uint32_t available = atomic_u32_load(&victim->tail, ACQUIRE) - real;
        count = available - available / 2;
        if (count > room)
            count = room;
        if (count == 0)
            return 0;
        /* RELEASE, and ACQUIRE on failure, for the sake of the next one who reads head and then tail, as above. */
    } while (!atomic_u64_cas_weak(&victim->head, &head, ring_head(real, real + count), RELEASE, ACQUIRE));
    *first_index = real;
    return count;
}

/* Ends what claim has begun: the copied slots may be written again. */
static void give_slots_back(struct ring *victim)
{
    /* RELAXED: the exchange finds out whether the owner has popped meanwhile. */
    uint64_t head = atomic_u64_load(&victim->head, RELAXED);
    uint64_t next;
    do {
        uint32_t real = ring_real_index(head);
        next = ring_head(real, real);
        /* RELEASE pairs with the ACQUIRE of head in ring_push: the slots have been read. */
    } while (!atomic_u64_cas_weak(&victim->head, &head, next, RELEASE, RELAXED));
}

size_t ring_steal(struct ring *victim, struct ring *thief, void **first)
{
    /* RELAXED and ACQUIRE as in ring_push: the caller is the thief ring's owner. */
    uint32_t tail = atomic_u32_load(&thief->tail, RELAXED);
    uint32_t used = tail - ring_steal_index(atomic_u64_load(&thief->head, ACQUIRE));
    uint32_t from;
    uint32_t count = claim(victim, RING_SIZE - used + 1, &from); /* one more than fits: the first is handed out */
    if (count == 0)
        return 0;
    *first = atomic_ptr_load(ring_slot(victim, from), RELAXED);
    for (uint32_t i = 1; i < count; i++) {
        void *item = atomic_ptr_load(ring_slot(victim, from + i), RELAXED);
        atomic_ptr_store(ring_slot(thief, tail + i - 1), item, RELAXED);
    }
    give_slots_back(victim);
    /* RELEASE as in ring_push. */
    atomic_u32_store(&thief->tail, tail + count - 1, RELEASE);
    return count;
}

uint32_t ring_length(const struct ring *ring)
{
    /* ACQUIRE as in claim; tail itself orders nothing here, so RELAXED. */
    uint32_t real = ring_real_index(atomic_u64_load(&ring->head, ACQUIRE));
    uint32_t length = atomic_u32_load(&ring->tail, RELAXED) - real;
    /* head may be older than tail by any number of pushes and pops */
    return length < RING_SIZE ? length : RING_SIZE;
}
