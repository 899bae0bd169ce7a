/* Runs a few threads of real C code through every order in which they can meet, and through every value that the memory
 * model lets them read, and reports the first order in which something is wrong.
 *
 * The code under test is compiled unchanged: with ROUSE_ATOMIC_MODEL, src/os/atomic.h takes its operations from
 * model_atomic.h, and each of them becomes a step of the explorer. Model threads are coroutines; between two steps a
 * thread runs alone. After each execution the explorer goes back to the last decision that can still be made otherwise
 * and runs everything again from the start.
 *
 * A model, whole:
 *
 *     #include "core/inbox.c"                      // the file under test; the library is not linked
 *     #include "explorer.h"
 *     #include "support/harness.h"
 *
 *     static struct inbox inbox;
 *     static struct queue_link link;
 *     static atomic_u32 asleep;
 *     static bool seen[2];                         // by each thread
 *
 *     static void setup(void)                      // before each execution: everything as new
 *     {
 *         inbox_init(&inbox);
 *         atomic_u32_init(&asleep, 0);
 *         seen[0] = seen[1] = false;
 *     }
 *
 *     static void pusher(void)
 *     {
 *         inbox_push(&inbox, &link);
 *         seen[0] = atomic_u32_load(&asleep, SEQ_CST) == 1;
 *     }
 *
 *     static void owner(void)
 *     {
 *         atomic_u32_store(&asleep, 1, SEQ_CST);
 *         struct queue out = {0};
 *         seen[1] = inbox_take(&inbox, &out);
 *     }
 *
 *     static void finish(void)                     // after each execution in which all threads ended
 *     {
 *         model_check(seen[0] || seen[1]);
 *     }
 *
 *     TEST(a_push_and_a_sleep_cannot_miss_each_other)
 *     {
 *         static const struct model model = {
 *             .name = "inbox", .setup = setup, .threads = {pusher, owner}, .finish = finish, .history = 2};
 *         assert_true(model_run(&model).ok);
 *     }
 *
 * What counts as wrong:
 *   - model_check with a false condition, in a thread or in finish;
 *   - all threads that have not ended are blocked (a lost wake, a deadlock), unless `quiet` says that this is how it
 *     should end; or they only spin, with nobody left to change what they spin for;
 *   - an access to memory after model_free, or one that nothing orders before it; freeing twice; memory from
 *     model_alloc that is left at the end;
 *   - a data race, on plain memory or on atomics that model_cells calls plain;
 *   - an execution without end, too many executions.
 * The report names the reason, each step, and the decisions as a text; with that text in the environment as
 * MODEL_REPLAY the test runs this one execution and prints its steps.
 *
 * Memory: with history == 0 every load reads the latest value (sequential consistency). With history == N a load may
 * read one of the N values before it, too, as far as C11 allows: what a thread has seen, what it has acquired, and
 * SEQ_CST operations and fences bound how old a value may be. What store buffers and loads out of order can do shows as
 * old values, so missing fences and too weak orders are found. Not contained: read-modify-writes always read the latest
 * value, also when a compare-exchange fails; stores enter a location in the order of execution; no load takes place
 * after a later store of its thread. A model that passes is evidence, not proof.
 *
 * What to watch in writing one:
 *   - The code between two atomic operations is one step, so no order of plain accesses is tried. None is needed: every
 *     two that nothing orders are reported. The compiler announces them where the model's file is compiled with
 *     -fsanitize=thread (model.cmake does, unless a sanitizer is linked); elsewhere only MODEL_READ and MODEL_WRITE are
 *     seen. That holds for the model's own variables, too: one for each thread, or ordered.
 *   - setup must put everything the threads use into the same state each time; nothing else may differ between two
 *     executions (no clock, no random number, no address as a number).
 *   - No cmocka assertions in threads, setup and finish, and no heap other than model_alloc: a failing execution and a
 *     redundant one are abandoned where they stand. os_alloc and os_free are model_alloc and model_free.
 *   - A loop that waits for another thread calls cpu_relax or os_thread_yield. The thread then rests until something
 *     has changed that it has read since it last rested. Spinning a number of times before sleeping hides the sleep:
 *     set the number to 0.
 *   - Keep it small: two or three threads, each with about ten atomic operations. Steps on different memory, and loads,
 *     commute, and of executions that differ in this only one is run, so what threads do alone costs little.
 *   - core/lock.h runs as it is. Where the lock is not what is in question, include model_lock.h before everything
 *     else: acquiring then is a single step.
 *
 * How: depth first, with dynamic partial order reduction (source sets and sleep sets, Abdulla and others 2014) for the
 * order of steps, plain enumeration for the values read. A preemption bound turns the reduction off: bounded search and
 * reduction do not combine. The memory model is a view machine: each location keeps its history, each thread and each
 * message a view of how far they know it.
 *
 * Alternatives that lost: relacy (C++ only, and the code would be a translation); GenMC and Nidhugg (the best of all,
 * but a build of LLVM away from most machines); SPIN and TLA+ (models of the design, not the code); random schedules
 * alone (what needs three particular switches comes up by luck or not at all). */
#ifndef MODEL_EXPLORER_H
#define MODEL_EXPLORER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_THREADS 6

/* More executions than this fail the model, unless it has a preemption bound and so promises nothing complete. */
#ifndef MODEL_MAX_EXECUTIONS
#define MODEL_MAX_EXECUTIONS 20000000
#endif

struct model {
    const char *name;                     /* for reports */
    void (*setup)(void);                  /* runs before each execution, alone */
    void (*threads[MODEL_THREADS])(void); /* the bodies; the first NULL ends them */
    void (*finish)(void);                 /* runs after each execution, alone; NULL: nothing to check */
    bool (*quiet)(void);                  /* asked when all threads that have not ended are blocked: true if that is
                                              well, finish runs then; NULL: it never is */
    unsigned history;                     /* superseded values that a load may still read; 0: sequential consistency */
    unsigned preemption_bound;            /* switches away from a thread that could go on, at most; 0: no bound */
    unsigned timeouts;                    /* how often each thread's os_wait_on may reach its deadline while others
                                              could run; when nobody else can, deadlines always pass */
    bool deadlines_never_pass;            /* os_wait_on with a deadline waits for ever: nothing is rescued by time */
    unsigned spurious;                    /* how often in each thread a weak compare-exchange may fail and an
                                              os_wait_on return for no reason */
    uint64_t max_executions;              /* instead of MODEL_MAX_EXECUTIONS; 0: that one */
    bool every_interleaving;              /* no reduction: to test the explorer itself */
};

struct model_result {
    bool ok;             /* nothing was wrong in any execution, and all were run */
    const char *reason;  /* what was wrong; static memory, valid until the next model_run */
    uint64_t executions; /* that ran to their end */
    uint64_t redundant;  /* that were given up because another execution stands for them */
    uint64_t steps;      /* of all executions */
    double seconds;      /* of wall time */
};

/* Runs a model and prints one line on what was done, or the report of what is wrong. */
struct model_result model_run(const struct model *model);

/* ---- for threads, setup, finish and quiet ---- */

#define MODEL_LINE_TEXT2(line) #line
#define MODEL_LINE_TEXT(line)  MODEL_LINE_TEXT2(line)
#define MODEL_HERE             __FILE__ ":" MODEL_LINE_TEXT(__LINE__)

#define model_check(condition) ((condition) ? (void)0 : model_fail(MODEL_HERE ": " #condition))
void model_fail(const char *reason);

/* The index of the running thread; MODEL_THREADS in setup, finish and quiet. */
unsigned model_self(void);

/* Plain accesses to what threads share: checked for races in every build. */
#define MODEL_READ(place)         (model_plain(&(place), sizeof(place), false, MODEL_HERE), (place))
#define MODEL_WRITE(place, value) (model_plain(&(place), sizeof(place), true, MODEL_HERE), (void)((place) = (value)))
void model_plain(const void *address, size_t bytes, bool write, const char *where);

/* In setup: the atomics that start in this memory are data, not synchronisation. They are no steps; each access must be
 * ordered against all others by something else, as if they were plain. */
void model_cells(const void *memory, size_t bytes);

/* Memory whose use after free, double free and loss is noticed. Not cleared. */
void *model_alloc(size_t bytes);
void model_free(void *memory);

/* os_now answers this; it moves when a deadline passes, and by hand. */
void model_clock_set(int64_t now_ns);

/* ---- for model_atomic.h and model_lock.h ---- */

/* Weakest first, as in <stdatomic.h>. */
enum model_order { RELAXED, ACQUIRE, RELEASE, ACQ_REL, SEQ_CST };
enum model_rmw { MODEL_EXCHANGE, MODEL_ADD, MODEL_SUB, MODEL_OR, MODEL_AND };

void model_atomic_init(void *address, unsigned bytes, uint64_t value, const char *where);
uint64_t model_load(const void *address, unsigned bytes, enum model_order order, const char *where);
void model_store(void *address, unsigned bytes, uint64_t value, enum model_order order, const char *where);
uint64_t model_rmw(void *address, unsigned bytes, enum model_rmw kind, uint64_t value, enum model_order order,
                   const char *where);
bool model_cas(void *address, unsigned bytes, uint64_t *expected, uint64_t desired, enum model_order success,
               enum model_order failure, bool weak, const char *where);
void model_fence(enum model_order order, const char *where);
void model_relax(const char *where);
void model_lock_acquire(void *word, const char *where);
bool model_lock_try(void *word, const char *where);
void model_lock_release(void *word, const char *where);

#endif
