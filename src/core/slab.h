/* Cells for tasks: memory of a few sizes that is allocated by one worker, freed from anywhere, and can be walked.
 *
 * A slab belongs to one worker, or, locked, to all threads that are none. Cells come from aligned chunks, so that a cell
 * finds its chunk by masking its address. A cell freed by another thread goes onto a lock-free stack that the owner
 * empties when its own free list is dry. Chunks are never given back while the slab lives: their memory is type-stable,
 * which is what lets a walk look at cells that come and go.
 *
 * Alternatives that lost: malloc a task (3 to 10 times slower in bursts, and it cannot be walked); lists of live tasks
 * (two lock pairs a task).
 *
 * A slab may outlive its runtime: cells that foreign wakers still hold keep it, and the last one freed frees it. */
#ifndef ROUSE_CORE_SLAB_H
#define ROUSE_CORE_SLAB_H

#include "core/alloc.h"
#include "core/list.h"
#include "core/lock.h"
#include "os/atomic.h"

#define SLAB_CHUNK_BYTES ((size_t)65536) /* also the alignment of chunks */
#define SLAB_CLASS_BYTES ((size_t)32)    /* sizes of cells are multiples of this */
#define SLAB_CLASSES     64              /* cells up to 2 KiB come from chunks, larger ones get a chunk alone */
#define SLAB_LINE_BYTES \
    ((size_t)64) /* chunks' headers are multiples of this, and so the alignment of cells whose
                                            size is one */

/* First bytes of every cell, whatever it holds. A freed cell keeps its word at zero references. */
struct slab_cell {
    atomic_size word;       /* the task word; the count in it tells whether the cell is live */
    struct queue_link link; /* free list, or the user's while live */
};

struct slab_chunk {
    struct slab *slab;       /* whose cells these are */
    struct slab_chunk *next; /* chunks of the same slab */
    struct list_node large;  /* a lone cell's chunk on the slab's list of them */
    size_t cell_bytes;       /* distance of cells */
    size_t cells;            /* how many */
    size_t bytes;            /* of the allocation; 0: part of the block of another chunk */
};

struct slab {
    rouse_allocator allocator; /* where memory comes from; a copy, because slabs outlive runtimes */
    void *scheduler;           /* the task_scheduler of every cell */
    atomic_ptr owner;          /* os_current() of the thread that may use the free lists; NULL: under the lock */
    struct lock lock;          /* for slabs without owner: everything; for all: the list of large cells */
    struct queue_link *free[SLAB_CLASSES]; /* owner: free cells by size */
    atomic_ptr returned;                   /* cells freed by others; pushed with RELEASE, taken whole with ACQUIRE */
    atomic_ptr chunks;                     /* all chunks; grows only, so that it can be walked at any time */
    struct list_node large;                /* chunks of large cells, under the lock */
    size_t live;                           /* owner: cells given out less cells freed by the owner */
    atomic_size debt;   /* SLAB_BIAS while the runtime lives, less cells freed by others; 0: nothing refers to it */
    atomic_size gate;   /* foreign threads now inside a wake of one of these cells, or a join */
    size_t next_chunks; /* chunks in the next block */
    uint32_t process;   /* os_process() of the maker */
};

#define SLAB_BIAS ((size_t)1 << (sizeof(size_t) * 8 - 2))

/* NULL without memory. */
struct slab *slab_new(const rouse_allocator *allocator, void *scheduler, void *owner);

/* A cell of at least `bytes`, or NULL. Its word is zero; *large tells that it has a chunk alone. Owner only; a slab without
 * owner locks. */
struct slab_cell *slab_take(struct slab *slab, size_t bytes, size_t alignment, bool *large);

/* From any thread. The word must have reached zero references. */
void slab_give(struct slab_cell *cell, bool large);

static inline struct slab_chunk *slab_chunk_of(const void *cell)
{
    return (struct slab_chunk *)((uintptr_t)cell & ~(uintptr_t)(SLAB_CHUNK_BYTES - 1));
}

/* Calls hold for each cell, live or not, and visit, with no lock held, for each that hold answered true for. hold must look
 * at the word, and keep the cell from being freed until visit lets go. Cells taken meanwhile may be missed. */
void slab_walk(struct slab *slab, bool (*hold)(struct slab_cell *cell),
               void (*visit)(struct slab_cell *cell, void *context), void *context);

/* Every task is complete: waits for foreign threads that are still inside a wake of one, which takes a few instructions, or
 * inside a join, which takes until they are scheduled once more. It yields only: both are on their way out. */
void slab_wait_for_gate(struct slab *slab);

/* The runtime is done with it: freed now, or by the last cell that others still hold. No owner may use it any more. */
void slab_retire(struct slab *slab);

#endif
