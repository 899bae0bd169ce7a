#include "core/slab.h"
#include "os/os.h"

#define CHUNK_HEADER size_align(sizeof(struct slab_chunk), SLAB_LINE_BYTES)

struct slab *slab_new(const rouse_allocator *allocator, void *scheduler, void *owner)
{
    struct slab *slab = alloc_take(allocator, sizeof *slab, 64);
    if (!slab)
        return NULL;
    *slab = (struct slab){.allocator = *allocator, .scheduler = scheduler, .next_chunks = 1, .process = os_process()};
    atomic_ptr_init(&slab->owner, owner);
    atomic_ptr_init(&slab->returned, NULL);
    atomic_ptr_init(&slab->chunks, NULL);
    atomic_size_init(&slab->debt, SLAB_BIAS);
    atomic_size_init(&slab->gate, 0);
    list_init(&slab->large);
    return slab;
}

/* Makes chunks of one size: a block of several at once, so that the alignment wastes little. All cells but the first go
 * on the free list, low addresses first. */
static bool grow(struct slab *slab, size_t class)
{
    size_t count = slab->next_chunks, bytes = count * SLAB_CHUNK_BYTES;
    char *block = alloc_take(&slab->allocator, bytes, SLAB_CHUNK_BYTES);
    if (!block && count > 1) {
        count = 1, bytes = SLAB_CHUNK_BYTES;
        block = alloc_take(&slab->allocator, bytes, SLAB_CHUNK_BYTES);
    }
    if (!block)
        return false;
    if (slab->next_chunks < 16)
        slab->next_chunks *= 2;
    size_t cell_bytes = (class + 1) * SLAB_CLASS_BYTES, cells = (SLAB_CHUNK_BYTES - CHUNK_HEADER) / cell_bytes;
    struct queue_link **tail = &slab->free[class];
    for (size_t i = 0; i < count; i++) {
        struct slab_chunk *chunk = (struct slab_chunk *)(void *)(block + i * SLAB_CHUNK_BYTES);
        *chunk = (struct slab_chunk){.slab = slab, .cell_bytes = cell_bytes, .cells = cells, .bytes = i ? 0 : bytes};
        for (size_t k = 0; k < cells; k++) {
            struct slab_cell *cell = (struct slab_cell *)(void *)((char *)chunk + CHUNK_HEADER + k * cell_bytes);
            atomic_size_init(&cell->word, 0);
            *tail = &cell->link;
            tail = &cell->link.next;
        }
        *tail = NULL;
        chunk->next = atomic_ptr_load(&slab->chunks, RELAXED);
        atomic_ptr_store(&slab->chunks, chunk,
                         RELEASE); /* pairs with ACQUIRE in slab_walk: the cells are initialised */
    }
    return true;
}

/* Sorts what other threads freed into the free lists. */
static void collect(struct slab *slab)
{
    struct queue_link *link = atomic_ptr_exchange(&slab->returned, NULL, ACQUIRE); /* pairs with RELEASE in slab_give */
    while (link) {
        struct queue_link *next = link->next;
        size_t class = slab_chunk_of(link)->cell_bytes / SLAB_CLASS_BYTES - 1;
        link->next = slab->free[class];
        slab->free[class] = link;
        link = next;
    }
}

static struct slab_cell *take_small(struct slab *slab, size_t class)
{
    if (!slab->free[class] && atomic_ptr_load(&slab->returned, RELAXED))
        collect(slab);
    if (!slab->free[class] && !grow(slab, class))
        return NULL;
    struct queue_link *link = slab->free[class];
    slab->free[class] = link->next;
    slab->live++;
    return CONTAINER_OF(link, struct slab_cell, link);
}

static struct slab_cell *take_large(struct slab *slab, size_t bytes, size_t alignment)
{
    size_t header = size_align(sizeof(struct slab_chunk), alignment), total;
    if (!size_add(bytes, header, &total))
        return NULL;
    struct slab_chunk *chunk = alloc_take(&slab->allocator, total, SLAB_CHUNK_BYTES);
    if (!chunk)
        return NULL;
    *chunk = (struct slab_chunk){.slab = slab, .cell_bytes = header, .cells = 1, .bytes = total};
    struct slab_cell *cell = (struct slab_cell *)(void *)((char *)chunk + header);
    atomic_size_init(&cell->word, 0);
    list_push_back(&slab->large, &chunk->large);
    slab->live++;
    return cell;
}

struct slab_cell *slab_take(struct slab *slab, size_t bytes, size_t alignment, bool *large)
{
    struct slab_cell *cell;
    *large = alignment > SLAB_CLASS_BYTES || bytes > SLAB_CLASSES * SLAB_CLASS_BYTES;
    bool locked = !atomic_ptr_load(&slab->owner, RELAXED) || *large;
    if (alignment < SLAB_CLASS_BYTES)
        alignment = SLAB_CLASS_BYTES;
    if (locked)
        lock_acquire(&slab->lock);
    if (*large)
        cell = take_large(slab, bytes, alignment);
    else
        cell = take_small(slab, size_align(bytes, alignment) / SLAB_CLASS_BYTES - 1);
    if (locked)
        lock_release(&slab->lock);
    return cell;
}

static void destroy(struct slab *slab)
{
    struct slab_chunk *chunk = atomic_ptr_load(&slab->chunks, RELAXED), *blocks = NULL;
    while (chunk) { /* headers of a block's other chunks go with the block: find the blocks first */
        struct slab_chunk *next = chunk->next;
        if (chunk->bytes)
            chunk->next = blocks, blocks = chunk;
        chunk = next;
    }
    rouse_allocator allocator = slab->allocator;
    while (blocks) {
        struct slab_chunk *next = blocks->next;
        alloc_give(&allocator, blocks, blocks->bytes, SLAB_CHUNK_BYTES);
        blocks = next;
    }
    alloc_give(&allocator, slab, sizeof *slab, 64);
}

void slab_give(struct slab_cell *cell, bool large)
{
    struct slab_chunk *chunk = slab_chunk_of(cell);
    struct slab *slab = chunk->slab;
    /* RELAXED: only the owner itself finds itself here; it stops being one before its runtime's end. */
    void *owner = atomic_ptr_load(&slab->owner, RELAXED);
    bool local = owner && owner == os_current();
    if (large && slab->process != os_process())
        return; /* in a forked child the lock may be held for ever */
    if (large) {
        lock_acquire(&slab->lock);
        list_remove(&chunk->large);
        lock_release(&slab->lock);
        rouse_allocator allocator = slab->allocator;
        alloc_give(&allocator, chunk, chunk->bytes, SLAB_CHUNK_BYTES);
    } else if (local) {
        size_t class = chunk->cell_bytes / SLAB_CLASS_BYTES - 1;
        cell->link.next = slab->free[class];
        slab->free[class] = &cell->link;
    } else {
        void *top = atomic_ptr_load(&slab->returned, RELAXED);
        do
            cell->link.next = top;
        while (!atomic_ptr_cas_weak(&slab->returned, &top, &cell->link, RELEASE, RELAXED)); /* with collect */
    }
    if (local)
        slab->live--;
    else if (atomic_size_sub(&slab->debt, 1, ACQ_REL) == 1)
        destroy(slab); /* with the other subtractions */
}

void slab_walk(struct slab *slab, bool (*hold)(struct slab_cell *cell),
               void (*visit)(struct slab_cell *cell, void *context), void *context)
{
    struct slab_chunk *chunk = atomic_ptr_load(&slab->chunks, ACQUIRE); /* pairs with RELEASE in grow */
    for (; chunk; chunk = chunk->next)
        for (size_t k = 0; k < chunk->cells; k++) {
            struct slab_cell *cell = (struct slab_cell *)(void *)((char *)chunk + CHUNK_HEADER + k * chunk->cell_bytes);
            if (hold(cell))
                visit(cell, context);
        }
    /* Large cells are really freed: each is held under the lock and the list turned round once. */
    lock_acquire(&slab->lock);
    size_t count = 0;
    for (struct list_node *node = slab->large.next; node != &slab->large; node = node->next)
        count++;
    for (; count && !list_is_empty(&slab->large); count--) {
        struct list_node *node = list_pop_front(&slab->large);
        list_push_back(&slab->large, node);
        chunk = CONTAINER_OF(node, struct slab_chunk, large);
        struct slab_cell *cell = (struct slab_cell *)(void *)((char *)chunk + chunk->cell_bytes);
        bool held = hold(cell);
        lock_release(&slab->lock);
        if (held)
            visit(cell, context);
        lock_acquire(&slab->lock);
    }
    lock_release(&slab->lock);
}

void slab_wait_for_gate(struct slab *slab)
{
    /* ACQ_REL: the addition of nothing is a read-modify-write, so that who enters the gate after it sees every task
     * complete; pairs with waker.c. */
    while (atomic_size_add(&slab->gate, 0, ACQ_REL) != 0)
        os_thread_yield();
}

void slab_retire(struct slab *slab)
{
    size_t live = slab->live;
    atomic_ptr_store(&slab->owner, NULL, RELAXED); /* a foreign thread may be giving a cell back */
    /* What is left of the bias is cells that others hold. ACQ_REL: whoever reaches zero sees everything before. */
    size_t drop = SLAB_BIAS - live;
    if (atomic_size_sub(&slab->debt, drop, ACQ_REL) == drop)
        destroy(slab);
}
