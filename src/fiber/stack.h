/* Stacks for fibers: reserved in slabs, guarded, committed on first touch, reused.
 *
 * A store, one for each runtime, owns all memory; pools, one for each worker, are caches over it without lock. A stack
 * may be acquired from one pool and released to another one of the same store.
 *
 *     slab: | guard | stack 0 | guard | stack 1 | ... | guard | stack 63 |     one mapping, low addresses to the left
 *
 * Guards are installed when a stack is handed out for the first time. Where the system has no guards left, a stack is
 * refused unless the caller allows one without.
 *
 * A guard is one page: it stops recursion, and large frames too if the code that has them was compiled with
 * -fstack-clash-protection, which touches each page on the way. Without that option a frame larger than a page may jump
 * over the guard and write into the stack below.
 *
 * Memory. A free stack keeps what its last user touched of its upper 8 KiB. What is below is given back when the stack
 * was used that deeply, except for some stacks a pool; a store with many free stacks gives back all of theirs. How deep
 * a stack was used is guessed from two marks, words at the low ends of the top page and of the kept 8 KiB that a deep
 * user overwrites, and from the stack pointers of its waits. What the guess misses (a frame that jumped over a mark
 * without writing to it, in a fiber that never waited below it) stays committed until the stack is used deeply again.
 * Marks cost no page: the first lies in a page every fiber touches, the second is written only once the first is gone.
 * Where the system grows stacks (os_stacks_grow) it tells how deep one was used, and there are no marks.
 *
 * Alternatives that lost: one mapping a stack (at most 65,530 in a process); asking mincore at each release (a system
 * call, and no answer to "since when"); giving memory back at every release (a system call and a page fault a fiber);
 * counting on lazy freeing by the kernel (memory that counts as used until others need it); starting stacks at different
 * offsets in their pages, so that their tops do not compete for the same lines of the cache (no faster from 4 to 10^5
 * stacks). */
#ifndef ROUSE_FIBER_STACK_H
#define ROUSE_FIBER_STACK_H

#include "core/alloc.h"
#include "core/lock.h"

struct stack_slab;

/* A stack. Lives in its slab; only whoever acquired it touches it. */
struct stack {
    void *low;        /* its lowest byte; the guard ends here */
    size_t bytes;     /* from there */
    void *guard;      /* the lowest byte of its guard */
    void *limit;      /* where stacks grow: how far down it is committed; its user says so at the end. Else not used */
    const char *name; /* of its user, for reports; the user's to set, reset to NULL by acquire */
    const char *site; /* where its user was made, likewise */
    const void *deepest;     /* the lowest stack pointer known of this use */
    struct stack *next;      /* below in the list of free stacks */
    struct stack_slab *slab; /* where it lies */
    bool guarded;            /* its guard is installed */
    bool watched;            /* its lowest word holds the canary; never where stacks grow */
    bool blank;              /* holds no marks: never used, or all memory given back */
    bool marked;             /* the second mark is written */
    bool deep;               /* memory below the kept part is probably committed */
};

/* Free stacks, the one released last on top. */
struct stack_list {
    struct stack *top;
    size_t count;
};

struct stack_store {
    const rouse_allocator *allocator; /* for slabs' records; the memory of stacks comes from the system */
    size_t stack_bytes;               /* of the stacks in pools, whole pages */
    size_t page;                      /* bytes */
    size_t guard;                     /* bytes of each guard */
    bool grows;                       /* stacks are committed while they grow */
    size_t keep;                      /* bytes at the upper end that a free stack keeps */
    bool valgrind;                    /* this process runs under valgrind */
    atomic_ptr slabs;                 /* all struct stack_slab, the newest first; only added to until fini */
    struct lock lock;                 /* of all that follows */
    struct stack_list free[2];        /* free stacks of stack_bytes: without guard [0], with guard [1] */
    struct stack_list odd;            /* some free stacks of other sizes */
    struct stack_slab *spare;         /* slabs whose memory was given back, for stacks of other sizes */
};

/* Owned by one thread. */
struct stack_pool {
    struct stack_store *store; /* where its stacks come from */
    struct stack_list free[2]; /* as in the store */
    size_t deep;               /* how many of them have `deep` set */
};

/* `stack_bytes` 0: 64 KiB. The allocator must outlive the store. TOO_LARGE. */
int stack_store_init(struct stack_store *store, size_t stack_bytes, const rouse_allocator *allocator);
/* Unmaps everything. All stacks must be back and all pools at their end. */
void stack_store_fini(struct stack_store *store);

void stack_pool_init(struct stack_pool *pool, struct stack_store *store);
/* Its free stacks go back to the store. */
void stack_pool_fini(struct stack_pool *pool);

/* A stack of at least `bytes` (0: the store's default, else rounded up to whole pages). Allocates at most here. Errors:
 * NO_MEMORY, LIMIT (guards have run out and `allow_unguarded` is false), TOO_LARGE. */
int stack_acquire(struct stack_pool *pool, size_t bytes, bool allow_unguarded, struct stack **stack);
/* Nothing runs on it any more. Reports and traps if the canary is gone. */
void stack_release(struct stack_pool *pool, struct stack *stack);

/* The same for threads without a pool. Any thread. */
int stack_store_acquire(struct stack_store *store, size_t bytes, bool allow_unguarded, struct stack **stack);
void stack_store_release(struct stack_store *store, struct stack *stack);

/* The stack whose guard holds this address, else NULL. Async-signal-safe. */
const struct stack *stack_store_find_guard(const struct stack_store *store, uintptr_t address);
/* Writes to standard error whose stack overflowed. Async-signal-safe. */
void stack_report_overflow(const struct stack *stack);

/* Is its low end untouched? True for a stack that is not watched: stacks without guard are always, others in debug
 * builds. */
bool stack_is_intact(const struct stack *stack);
void stack_die_overflowed(const struct stack *stack); /* reports and traps */

/* Its user waits, with this stack pointer. */
static inline void stack_note_wait(struct stack *stack, const void *sp)
{
    if ((uintptr_t)sp < (uintptr_t)stack->deepest)
        stack->deepest = sp;
#if !defined(NDEBUG)
    if (!stack_is_intact(stack))
        stack_die_overflowed(stack);
#endif
}

#endif
