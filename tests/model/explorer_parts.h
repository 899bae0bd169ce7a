/* What the files of the explorer share:
 *     explorer.c         executions one after the other, and reports
 *     explorer_search.c  decisions: which thread makes the next step, and which executions need not be run
 *     explorer_steps.c   operations: each waits for its turn and takes effect
 *     explorer_memory.c  what model_alloc gives, what atomics have held and who knows of it, plain accesses
 * Names with external linkage begin with explorer_, because models have all of src/core in the same program. */
#ifndef MODEL_EXPLORER_PARTS_H
#define MODEL_EXPLORER_PARTS_H

#include "explorer.h"

#include "os/atomic.h"

#include "coroutine.h"

enum {
    MAIN = MODEL_THREADS,  /* model_self() outside of threads */
    LOCATIONS = 128,       /* atomics of one execution */
    TABLE = 512,           /* of locations by address; a power of two */
    PLACES = 8192,         /* of plain memory in one execution */
    PLACE_TABLE = 16384,   /* of places by address; a power of two */
    MESSAGES = 8192,       /* values written in one execution */
    EVENTS = 4096,         /* steps of one execution */
    DECISIONS = 8192,      /* of one execution */
    ARENA_BYTES = 1 << 18, /* all of model_alloc in one execution */
    BLOCKS = 512,          /* allocations of one execution */
    TRACED = 200,          /* steps printed of a failing execution, the last ones */
    IDLE_ROUNDS = 100,     /* of cpu_relax with nobody else to run, before it counts as a livelock */
};

/* ---- what there is ---- */

/* Happens-before: for each thread, how many of its operations are known to have happened. */
struct clock {
    uint32_t at[MODEL_THREADS];
};

/* What can be learned from a message: happens-before, and the time that reads of each location cannot go behind. */
struct knowledge {
    struct clock clock;
    uint16_t view[LOCATIONS];
};

/* A value that a location had. */
struct message {
    uint64_t value;            /* as a number of the location's width */
    int previous;              /* the value before it; -1: none */
    uint16_t time;             /* its place in the location's order */
    uint16_t locations;        /* how many entries of released.view are set */
    struct knowledge released; /* what an ACQUIRE that reads it learns */
};

struct location {
    const void *address;
    unsigned bytes;        /* width; 0 while it has been named by a wake only */
    int latest;            /* message; -1 while there is none */
    uint16_t floor;        /* time of the last initialisation: nothing older can be read */
    int block;             /* of model_alloc in which it lies; -1: elsewhere */
    struct clock accessed; /* when each thread came here last */
};

/* Where an access stands. */
struct spot {
    const char *where; /* file:line; NULL: not known */
    const void *code;  /* if so, the address of the code */
};

/* Memory that is accessed plainly: four bytes, or what is accessed in one piece if that is less. */
struct place {
    const void *address;
    int block;         /* as above */
    int writer;        /* who wrote last; -1: nobody */
    uint32_t written;  /* and when, by the writer's clock */
    struct clock read; /* when each thread read last */
    struct spot write_spot;
    struct spot read_spots[MODEL_THREADS];
};

enum op_kind {
    OP_START,
    OP_LOAD,
    OP_STORE,
    OP_RMW,
    OP_CAS,
    OP_FENCE,
    OP_RELAX,
    OP_WAIT,   /* os_wait_on, when it looks at the word */
    OP_RESUME, /* os_wait_on, when it returns after having slept */
    OP_WAKE,
    OP_LOCK,
    OP_TRY_LOCK,
    OP_UNLOCK,
    OP_READ_CLOCK,
    OP_SET_CLOCK,
};

/* The next operation of a thread. */
struct op {
    enum op_kind kind;
    int location; /* -1: none */
    enum model_order order;
    uint64_t expected; /* of a compare-exchange */
    int64_t deadline;  /* of OP_WAIT and OP_RESUME */
    const char *where; /* file:line */
};

/* What a step did, as far as it matters for which steps can change places. */
enum flags {
    READS = 1,
    WRITES = 2,
    WAITS = 4,       /* enters or leaves the queue of sleepers of the location */
    WAKES = 8,       /* looks at that queue */
    SEQUENTIAL = 16, /* a SEQ_CST operation */
    SEQUENTIAL_FENCE = 32,
    RELAXES = 64, /* waits for a change of what the thread has read */
    READS_CLOCK = 128,
    WRITES_CLOCK = 256,
};

/* A set of locations. */
struct watched {
    uint64_t bits[LOCATIONS / 64];
};

/* What a step touches. */
struct footprint {
    unsigned flags;         /* enum flags */
    int location;           /* -1: none */
    struct watched watched; /* with RELAXES */
};

struct thread {
    struct coroutine coroutine;
    bool finished;                 /* its body has returned, in this execution */
    bool at_rest;                  /* the coroutine can run the body again without being restarted */
    struct op op;                  /* what it does when it is chosen next */
    bool waiting;                  /* asleep in os_wait_on; op is OP_RESUME */
    bool woken;                    /* by os_wake */
    int woken_by;                  /* event; -1: none */
    struct watched watched;        /* what it has read since it relaxed last */
    uint16_t read_time[LOCATIONS]; /* of these: the time of what it has read last */
    unsigned idle_rounds;          /* relaxed in vain this often, one after the other */
    unsigned timeouts;             /* used up */
    unsigned spurious;             /* used up */
    int last_event;                /* -1: none */
    struct knowledge now;          /* what it knows */
    struct knowledge fenced;       /* what it knew at its last RELEASE fence: goes with its RELAXED stores */
    struct knowledge seen;         /* what came with its RELAXED loads: an ACQUIRE fence learns it */
    int last_read[LOCATIONS];      /* message; -1: none */
    uint8_t rereads[LOCATIONS];    /* how often it read that one again although it was out of date */
    void *current;                 /* os_current */
};

struct event {
    unsigned thread;
    int node; /* the decision for this thread */
    enum op_kind kind;
    struct footprint footprint;
    uint16_t before[MODEL_THREADS]; /* of each thread, how many events come before or are this one: index + 1 of the
                                         last */
};

/* A point where executions part. */
struct decision {
    bool is_value;     /* between values or wakes, not between threads */
    uint8_t chosen;    /* the thread, or the number of the value */
    uint8_t count;     /* values */
    uint8_t enabled;   /* threads that could run: a bit each */
    uint8_t sleeping;  /* threads that need not be tried: done already, or another execution stands for it */
    uint8_t backtrack; /* threads that must be tried */
};

/* Everything but the memory's own tables. */
struct explorer {
    const struct model *model;
    unsigned thread_count;
    struct thread threads[MODEL_THREADS];
    unsigned self; /* the running thread, or MAIN */
    bool running;  /* an execution is under way */
    bool starting; /* threads run up to their first operation */

    struct location locations[LOCATIONS];
    int location_count;
    struct message messages[MESSAGES];
    int message_count;
    struct knowledge sequential; /* view only: what SEQ_CST operations agree on */
    int64_t clock_ns;            /* what os_now answers */

    struct event events[EVENTS];
    int event_count;
    struct decision decisions[DECISIONS];
    int decision_count;   /* of the path that is being run, as far as it is known */
    int position;         /* the next decision */
    int changed;          /* the first decision of this path that no execution before has taken */
    uint8_t asleep;       /* threads that need not be tried now */
    int last_thread;      /* that made a step; -1: none */
    unsigned preemptions; /* so far */

    enum { RUNNING, COMPLETE, REDUNDANT, FAILED } outcome;
    char reason[512]; /* of the failure */
    bool tracing;     /* steps are printed */
    int trace_from;   /* the first event that is printed */
    bool replaying;   /* decisions come from the outside */
    struct model_result result;
};
extern struct explorer ex;

/* ---- explorer_memory.c ---- */

/* The value of an atomic of 4 or 8 bytes, as a number. */
uint64_t explorer_get(const void *address, unsigned bytes);
void explorer_set(void *address, unsigned bytes, uint64_t value);
uint64_t explorer_truncate(uint64_t value, unsigned bytes);

/* Adds to what is known; the first `count` entries of from's view are set. */
void explorer_learn(struct knowledge *to, const struct knowledge *from, int count);
void explorer_copy_knowledge(struct knowledge *to, const struct knowledge *from);

/* The location of an address; explorer_locate also takes in its value, explorer_find_location does not touch it. */
int explorer_find_location(const void *address);
int explorer_locate(const void *address, unsigned bytes);

/* Appends a value to a location; what reading it teaches is left empty. */
struct message *explorer_append(struct location *location, uint64_t value);

/* Fails if the block (-1: none) has been freed. */
void explorer_check_alive(int block);

/* Enters a plain access and fails if it races. It stands at `where`, or at the address `code` if that is NULL. */
void explorer_access_plain(const void *address, size_t bytes, bool write, const char *where, const void *code);
bool explorer_is_cell(const void *address);

/* Forgets everything, for the next execution. */
void explorer_reset_memory(void);
/* Whether some block of model_alloc has not been freed. */
bool explorer_has_leak(void);

/* ---- explorer_search.c ---- */

/* Whether the order makes an operation part of the order that all SEQ_CST operations agree on. */
bool explorer_is_sequential(enum model_order order);

bool explorer_is_watched(const struct watched *watched, int location);
void explorer_watch(struct watched *watched, int location);
/* Whether what a thread has read since it last relaxed has changed, so that reading it again is of use. */
bool explorer_sees_change(const struct thread *thread);

/* Decides which thread makes the next step; MAIN if the execution ends here. */
unsigned explorer_choose_thread(void);
/* Decides between `count` possibilities of the running step, the first of which is the ordinary one. */
unsigned explorer_choose_value(unsigned count);
/* Turns the last decision that can be made otherwise; false when there is none. */
bool explorer_next_path(void);

/* ---- explorer_steps.c ---- */

/* Gives up this execution in the middle of a thread. Returns only in MAIN. */
void explorer_abandon(void);
/* The body of every coroutine: runs that of its thread. */
void explorer_thread_main(void);
void explorer_reset_system(void);

#endif
