#include "fiber/stack.h"

#include "fiber/annotate.h"

#include <string.h>

enum {
    DEFAULT_BYTES = 64 * 1024,
    KEEP_BYTES = 8 * 1024,       /* what a free stack keeps of its upper end; two pages hold most fibers */
    SLAB_STACKS = 64,            /* 10^5 stacks are then 1563 mappings, of 65,530 that Linux allows */
    POOL_STACKS = 64,            /* in a list of a pool; above that the lower half goes to the store */
    BATCH_STACKS = 16,           /* that a pool takes from the store at once */
    POOL_DEEP_STACKS = 16,       /* in a pool that may hold on to memory below the kept part */
    STORE_TOUCHED_STACKS = 4096, /* in a store that may hold on to the kept part: 32 MiB at most */
    ODD_STACKS = 16              /* of other sizes that a store holds */
};

/* Unlikely in memory, not zero, and not an address. */
static const uint64_t canary = 0xd15ea5ed57acca9eU;
static const uint64_t mark = 0x5eabed0fadeebe57U;

/* One mapping with its stacks. */
struct stack_slab {
    struct stack_slab *next;       /* an older one; never changes once the slab is in the store's list */
    struct stack_slab *next_spare; /* while it is in the store's list of spares */
    atomic_ptr low;                /* of the mapping; NULL while it is a spare */
    atomic_size stride;            /* guard and stack */
    size_t count;                  /* of stacks: 1 for other sizes than the store's */
    size_t record_bytes;           /* of this allocation */
    struct stack_item {
        struct stack stack;
        unsigned valgrind; /* the number valgrind knows it by */
    } items[];
};

/* ---- lists and places ---- */

static void list_push(struct stack_list *list, struct stack *stack)
{
    stack->next = list->top;
    list->top = stack;
    list->count++;
}

static struct stack *list_pop(struct stack_list *list)
{
    struct stack *stack = list->top;
    if (stack) {
        list->top = stack->next;
        list->count--;
    }
    return stack;
}

/* Puts all of `from` on top of `to`. */
static void list_move(struct stack_list *to, struct stack_list *from)
{
    struct stack *last = from->top;
    if (!last)
        return;
    while (last->next)
        last = last->next;
    last->next = to->top;
    to->top = from->top;
    to->count += from->count;
    *from = (struct stack_list){0};
}

static char *top_of(const struct stack *stack)
{
    return (char *)stack->low + stack->bytes;
}

/* Stacks that are all kept need no marks and give nothing back. */
static bool is_all_kept(const struct stack_store *store, const struct stack *stack)
{
    return stack->bytes <= store->keep;
}

static bool has_marks(const struct stack_store *store, const struct stack *stack)
{
    return !store->grows && !is_all_kept(store, stack);
}

static uint64_t *first_mark(const struct stack_store *store, const struct stack *stack)
{
    return (uint64_t *)(void *)(top_of(stack) - store->page);
}

/* The same as the first where pages are as large as what is kept. */
static uint64_t *second_mark(const struct stack_store *store, const struct stack *stack)
{
    return (uint64_t *)(void *)(top_of(stack) - store->keep);
}

/* ---- overflow ---- */

bool stack_is_intact(const struct stack *stack)
{
    return !stack->watched || *(const uint64_t *)stack->low == canary;
}

/* Appends as much of `text` as there is room for. */
static size_t append(char *line, size_t used, size_t room, const char *text)
{
    size_t length = strlen(text);
    if (length > room - used)
        length = room - used;
    memcpy(line + used, text, length);
    return used + length;
}

static size_t append_number(char *line, size_t used, size_t room, size_t number)
{
    char digits[24];
    size_t first = sizeof digits - 1;
    digits[first] = '\0';
    do {
        digits[--first] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return append(line, used, room, digits + first);
}

void stack_report_overflow(const struct stack *stack)
{
    char line[256]; /* small: this may run on the stack of a signal handler; and no stdio, which may allocate */
    size_t room = sizeof line - 1;
    size_t used = append(line, 0, room, "rouse: stack overflow in ");
    used = append(line, used, room, stack->name ? stack->name : "a fiber");
    if (stack->site) {
        used = append(line, used, room, " started at ");
        used = append(line, used, room, stack->site);
    }
    used = append(line, used, room, ": its stack has ");
    used = append_number(line, used, room, stack->bytes);
    used = append(line, used, room, " bytes");
    line[used++] = '\n';
    os_write_error(line, used);
}

/* What lies below the stack, another fiber's perhaps, was written to: there is no way on. */
void stack_die_overflowed(const struct stack *stack)
{
    stack_report_overflow(stack);
    OS_TRAP();
}

const struct stack *stack_store_find_guard(const struct stack_store *store, uintptr_t address)
{
    /* ACQUIRE pairs with slab_publish: the records are written. The asking thread runs on a stack of the store, or asks
     * for something that is none of ours, so its own slab stays; spares may come and go meanwhile, and the second look
     * at `low` finds out. */
    const struct stack_slab *slab = atomic_ptr_load(&store->slabs, ACQUIRE);
    for (; slab; slab = slab->next) {
        uintptr_t low = (uintptr_t)atomic_ptr_load(&slab->low, ACQUIRE);
        size_t stride = atomic_size_load(&slab->stride, ACQUIRE);
        if (!low || address < low || (address - low) / stride >= slab->count)
            continue;
        if ((uintptr_t)atomic_ptr_load(&slab->low, RELAXED) != low)
            continue;
        return (address - low) % stride < store->guard ? &slab->items[(address - low) / stride].stack : NULL;
    }
    return NULL;
}

/* ---- memory of one stack ---- */

/* The lowest byte that may be committed. A stack that grows may have used some of its guard. */
static char *lowest_used(const struct stack_store *store, const struct stack *stack)
{
    return store->grows ? stack->guard : stack->low;
}

static void give_back_all(const struct stack_store *store, struct stack *stack)
{
    char *low = lowest_used(store, stack);
    os_pages_discard(low, (size_t)(top_of(stack) - low));
    stack->deep = false;
    stack->watched = false;
    stack->blank = true;
}

/* Where stacks grow: commits the kept part. OK or NO_MEMORY. */
static int commit(const struct stack_store *store, struct stack *stack)
{
    size_t bytes = is_all_kept(store, stack) ? stack->bytes : store->keep;
    stack->limit = top_of(stack) - bytes;
    return store->grows ? os_stack_commit(top_of(stack), bytes) : ROUSE_OK;
}

/* Gives back what lies below the kept part. */
static void give_back_below(const struct stack_store *store, struct stack *stack)
{
    char *low = lowest_used(store, stack) + (stack->watched ? store->page : 0); /* the canary stays */
    char *high = top_of(stack) - store->keep;
    stack->deep = false;
    if (high <= low)
        return;
    os_pages_discard(low, (size_t)(high - low));
    if (commit(store, stack) != ROUSE_OK)
        give_back_all(store, stack);
}

/* Writes what must stand in a stack that is handed out. OK, or NO_MEMORY where stacks grow. */
static int make_ready(const struct stack_store *store, struct stack *stack)
{
    if (stack->blank && commit(store, stack) != ROUSE_OK)
        return ROUSE_NO_MEMORY;
#if defined(NDEBUG)
    bool watch = !store->grows && !stack->guarded;
#else
    bool watch = !store->grows;
#endif
    if (stack->blank && has_marks(store, stack)) {
        *first_mark(store, stack) = mark;
        stack->marked = first_mark(store, stack) == second_mark(store, stack);
    }
    if (watch && !stack->watched)
        *(uint64_t *)stack->low = canary;
    stack->watched = watch;
    stack->blank = false;
    stack->name = NULL;
    stack->site = NULL;
    stack->deepest = top_of(stack);
    return ROUSE_OK;
}

/* Did the last user go below the kept part? Renews the marks. */
static bool was_used_deeply(const struct stack_store *store, struct stack *stack)
{
    if (store->grows)
        return (uintptr_t)stack->limit < (uintptr_t)top_of(stack) - store->keep;
    if (!has_marks(store, stack))
        return false;
    uint64_t *first = first_mark(store, stack), *second = second_mark(store, stack);
    bool deep = (uintptr_t)stack->deepest < (uintptr_t)second;
    if (*first != mark) {
        /* Its second page is committed now, so that it may have a mark from now on; until then, deep is the guess. */
        deep |= !stack->marked || *second != mark;
        *first = mark;
        *second = mark;
        stack->marked = true;
    }
    return deep;
}

/* Installs the guard if it is not there. A stack without may be used if the caller allows it. */
static int make_guarded(const struct stack_store *store, struct stack *stack, bool allow_unguarded)
{
    int status = ROUSE_OK;
    if (!stack->guarded) {
        status = os_guard_install(stack->guard, store->guard);
        stack->guarded = status == ROUSE_OK;
    }
    return allow_unguarded ? ROUSE_OK : status;
}

/* After use: everything that the next user must not find. */
static void clean(const struct stack_store *store, struct stack *stack)
{
    annotation_stack_clean(store->valgrind, stack->low, stack->bytes);
    if (!stack_is_intact(stack))
        stack_die_overflowed(stack);
    stack->deep |= was_used_deeply(store, stack);
}

/* ---- slabs ---- */

static struct stack_slab *record_new(const struct stack_store *store, size_t count)
{
    size_t bytes = sizeof(struct stack_slab) + count * sizeof(struct stack_item);
    struct stack_slab *slab = alloc_take(store->allocator, bytes, _Alignof(struct stack_slab));
    if (slab) {
        memset(slab, 0, bytes);
        slab->count = count;
        slab->record_bytes = bytes;
    }
    return slab;
}

static void record_free(const struct stack_store *store, struct stack_slab *slab)
{
    alloc_give(store->allocator, slab, slab->record_bytes, _Alignof(struct stack_slab));
}

/* Reserves the memory of a slab without any, for stacks of `stack_bytes`. */
static bool slab_map(const struct stack_store *store, struct stack_slab *slab, size_t stack_bytes)
{
    size_t stride = stack_bytes + store->guard, bytes;
    char *low = size_multiply(slab->count, stride, &bytes) ? os_pages_reserve(bytes) : NULL;
    if (!low)
        return false;
    for (size_t i = 0; i < slab->count; i++) {
        struct stack_item *item = &slab->items[i];
        item->stack = (struct stack){.low = low + i * stride + store->guard,
                                     .bytes = stack_bytes,
                                     .guard = low + i * stride,
                                     .slab = slab,
                                     .blank = true};
        item->valgrind = annotation_stack_add(store->valgrind, item->stack.low, stack_bytes);
    }
    /* RELEASE, stride first: stack_store_find_guard must not find this memory with the stride of a former one. */
    atomic_size_store(&slab->stride, stride, RELEASE);
    atomic_ptr_store(&slab->low, low, RELEASE);
    return true;
}

static void slab_unmap(const struct stack_store *store, struct stack_slab *slab)
{
    char *low = atomic_ptr_load(&slab->low, RELAXED);
    atomic_ptr_store(&slab->low, NULL, RELEASE);
    for (size_t i = 0; i < slab->count; i++) {
        struct stack_item *item = &slab->items[i];
        annotation_stack_remove(store->valgrind, item->valgrind);
        if (item->stack.guarded)
            os_guard_remove(item->stack.guard, store->guard);
    }
    os_pages_release(low, slab->count * atomic_size_load(&slab->stride, RELAXED));
}

/* Makes a new slab known to stack_store_find_guard. Under the lock. */
static void slab_publish(struct stack_store *store, struct stack_slab *slab)
{
    slab->next = atomic_ptr_load(&store->slabs, RELAXED);
    /* RELEASE: see stack_store_find_guard. */
    atomic_ptr_store(&store->slabs, slab, RELEASE);
}

/* A new slab of stacks of the store's size. Where the address space is scarce a smaller one will do. */
static struct stack_slab *slab_new(struct stack_store *store)
{
    for (size_t count = SLAB_STACKS; count > 0; count /= 8) {
        struct stack_slab *slab = record_new(store, count);
        if (!slab)
            return NULL;
        if (slab_map(store, slab, store->stack_bytes)) {
            lock_acquire(&store->lock);
            slab_publish(store, slab);
            lock_release(&store->lock);
            return slab;
        }
        record_free(store, slab);
    }
    return NULL;
}

/* ---- stacks of the store's size ---- */

/* Takes in a pool's free stacks. */
static void store_put(struct stack_store *store, bool guarded, struct stack_list *list)
{
    lock_acquire(&store->lock);
    bool crowded = store->free[guarded].count >= STORE_TOUCHED_STACKS;
    lock_release(&store->lock);
    for (struct stack *stack = list->top; stack; stack = stack->next) {
        if (crowded && !stack->blank)
            give_back_all(store, stack);
        else if (stack->deep)
            give_back_below(store, stack);
    }
    lock_acquire(&store->lock);
    list_move(&store->free[guarded], list);
    lock_release(&store->lock);
}

/* Moves free stacks of one kind from the store to the pool, one batch at most. */
static bool pool_take(struct stack_pool *pool, bool guarded)
{
    struct stack_store *store = pool->store;
    lock_acquire(&store->lock);
    for (int i = 0; i < BATCH_STACKS && store->free[guarded].top; i++)
        list_push(&pool->free[guarded], list_pop(&store->free[guarded]));
    lock_release(&store->lock);
    return pool->free[guarded].top != NULL;
}

/* Gets stacks of any kind into an empty pool. */
static int pool_fill(struct stack_pool *pool)
{
    if (pool_take(pool, true) || pool_take(pool, false))
        return ROUSE_OK;
    struct stack_slab *slab = slab_new(pool->store);
    if (!slab)
        return ROUSE_NO_MEMORY;
    struct stack_list rest = {0};
    for (size_t i = slab->count; i-- > 0;)
        list_push(i < BATCH_STACKS ? &pool->free[false] : &rest, &slab->items[i].stack);
    store_put(pool->store, false, &rest);
    return ROUSE_OK;
}

static struct stack *pool_pop(struct stack_pool *pool, bool guarded)
{
    struct stack *stack = list_pop(&pool->free[guarded]);
    if (stack && stack->deep)
        pool->deep--;
    return stack;
}

static int pool_acquire(struct stack_pool *pool, bool allow_unguarded, struct stack **result)
{
    if (!pool->free[true].top && !pool->free[false].top) {
        int status = pool_fill(pool);
        if (status != ROUSE_OK)
            return status;
    }
    struct stack *stack = pool_pop(pool, true);
    if (!stack) {
        stack = pool_pop(pool, false);
        int status = make_guarded(pool->store, stack, allow_unguarded);
        if (status != ROUSE_OK) {
            pool->deep += stack->deep;
            list_push(&pool->free[false], stack);
            /* The last guards may stand before stacks that others have released. */
            if (!pool_take(pool, true))
                return status;
            stack = pool_pop(pool, true);
        }
    }
    int status = make_ready(pool->store, stack);
    if (status == ROUSE_OK)
        *result = stack;
    else
        list_push(&pool->free[stack->guarded], stack);
    return status;
}

/* A full list gives away its lower half, which has not been used for longest. */
static void pool_spill(struct stack_pool *pool, bool guarded)
{
    struct stack_list *list = &pool->free[guarded], rest = {0};
    struct stack *last = list->top;
    for (int i = 1; i < POOL_STACKS / 2; i++)
        last = last->next;
    rest.top = last->next;
    rest.count = list->count - POOL_STACKS / 2;
    last->next = NULL;
    list->count = POOL_STACKS / 2;
    for (struct stack *stack = rest.top; stack; stack = stack->next)
        pool->deep -= stack->deep;
    store_put(pool->store, guarded, &rest);
}

static void pool_release(struct stack_pool *pool, struct stack *stack)
{
    struct stack_list *list = &pool->free[stack->guarded];
    if (stack->deep && pool->deep >= POOL_DEEP_STACKS)
        give_back_below(pool->store, stack);
    pool->deep += stack->deep;
    list_push(list, stack);
    if (list->count > POOL_STACKS)
        pool_spill(pool, stack->guarded);
}

/* ---- stacks of other sizes ---- */

/* A free stack of exactly this size, out of the list. Under the lock. */
static struct stack *odd_find(struct stack_store *store, size_t bytes)
{
    for (struct stack **link = &store->odd.top; *link; link = &(*link)->next) {
        struct stack *stack = *link;
        if (stack->bytes == bytes) {
            *link = stack->next;
            store->odd.count--;
            return stack;
        }
    }
    return NULL;
}

/* Maps one. A record that was in use before is preferred: no record leaves the list that find_guard walks. */
static struct stack *odd_new(struct stack_store *store, size_t bytes)
{
    lock_acquire(&store->lock);
    struct stack_slab *slab = store->spare;
    if (slab)
        store->spare = slab->next_spare;
    lock_release(&store->lock);
    bool fresh = !slab;
    if (fresh)
        slab = record_new(store, 1);
    if (!slab)
        return NULL;
    bool mapped = slab_map(store, slab, bytes);
    if (!mapped && fresh) {
        record_free(store, slab);
        return NULL;
    }
    lock_acquire(&store->lock);
    if (!mapped) {
        slab->next_spare = store->spare;
        store->spare = slab;
    } else if (fresh) {
        slab_publish(store, slab);
    }
    lock_release(&store->lock);
    return mapped ? &slab->items[0].stack : NULL;
}

static void odd_release(struct stack_store *store, struct stack *stack)
{
    if (stack->deep)
        give_back_below(store, stack);
    lock_acquire(&store->lock);
    bool kept = store->odd.count < ODD_STACKS;
    if (kept)
        list_push(&store->odd, stack);
    lock_release(&store->lock);
    if (kept)
        return;
    struct stack_slab *slab = stack->slab;
    slab_unmap(store, slab);
    lock_acquire(&store->lock);
    slab->next_spare = store->spare;
    store->spare = slab;
    lock_release(&store->lock);
}

static int odd_acquire(struct stack_store *store, size_t bytes, bool allow_unguarded, struct stack **result)
{
    lock_acquire(&store->lock);
    struct stack *stack = odd_find(store, bytes);
    lock_release(&store->lock);
    if (!stack)
        stack = odd_new(store, bytes);
    if (!stack)
        return ROUSE_NO_MEMORY;
    int status = make_guarded(store, stack, allow_unguarded);
    if (status == ROUSE_OK)
        status = make_ready(store, stack);
    if (status == ROUSE_OK)
        *result = stack;
    else
        odd_release(store, stack);
    return status;
}

/* ---- what the others call ---- */

/* Whole pages; 0 if that is too large. */
static size_t round_size(const struct stack_store *store, size_t bytes)
{
    return bytes <= SIZE_MAX / 2 - store->page - store->guard ? size_align(bytes, store->page) : 0;
}

int stack_store_init(struct stack_store *store, size_t stack_bytes, const rouse_allocator *allocator)
{
    memset(store, 0, sizeof *store);
    store->allocator = allocator;
    store->page = os_page_bytes();
    store->guard = os_guard_bytes();
    store->grows = os_stacks_grow();
    store->keep = size_align(KEEP_BYTES, store->page);
    store->valgrind = annotation_valgrind();
    store->stack_bytes = round_size(store, stack_bytes ? stack_bytes : DEFAULT_BYTES);
    return store->stack_bytes ? ROUSE_OK : ROUSE_TOO_LARGE;
}

void stack_store_fini(struct stack_store *store)
{
    struct stack_slab *newest = atomic_ptr_load(&store->slabs, RELAXED), *next;
    size_t away = 0;
    for (struct stack_slab *slab = newest; slab; slab = slab->next)
        away += atomic_ptr_load(&slab->low, RELAXED) ? slab->count : 0;
    away -= store->free[true].count + store->free[false].count + store->odd.count;
    if (away != 0)
        OS_TRAP(); /* a fiber's stack would be unmapped */
    for (struct stack_slab *slab = newest; slab; slab = next) {
        next = slab->next;
        if (atomic_ptr_load(&slab->low, RELAXED))
            slab_unmap(store, slab);
        record_free(store, slab);
    }
}

void stack_pool_init(struct stack_pool *pool, struct stack_store *store)
{
    memset(pool, 0, sizeof *pool);
    pool->store = store;
}

void stack_pool_fini(struct stack_pool *pool)
{
    store_put(pool->store, true, &pool->free[true]);
    store_put(pool->store, false, &pool->free[false]);
}

int stack_acquire(struct stack_pool *pool, size_t bytes, bool allow_unguarded, struct stack **stack)
{
    size_t rounded = bytes ? round_size(pool->store, bytes) : pool->store->stack_bytes;
    if (rounded == pool->store->stack_bytes)
        return pool_acquire(pool, allow_unguarded, stack);
    return rounded ? odd_acquire(pool->store, rounded, allow_unguarded, stack) : ROUSE_TOO_LARGE;
}

void stack_release(struct stack_pool *pool, struct stack *stack)
{
    clean(pool->store, stack);
    if (stack->bytes == pool->store->stack_bytes)
        pool_release(pool, stack);
    else
        odd_release(pool->store, stack);
}

int stack_store_acquire(struct stack_store *store, size_t bytes, bool allow_unguarded, struct stack **stack)
{
    struct stack_pool pool;
    stack_pool_init(&pool, store);
    int status = stack_acquire(&pool, bytes, allow_unguarded, stack);
    stack_pool_fini(&pool);
    return status;
}

void stack_store_release(struct stack_store *store, struct stack *stack)
{
    struct stack_pool pool;
    stack_pool_init(&pool, store);
    stack_release(&pool, stack);
    stack_pool_fini(&pool);
}
