/* A runtime from the inside: what its workers share. */
#ifndef ROUSE_CORE_RUNTIME_H
#define ROUSE_CORE_RUNTIME_H

#include "core/worker.h"
#include <rouse/op.h>
#include <rouse/runtime.h>

struct thread_waiter;

struct rouse_runtime {
    struct spawner spawner; /* first: the scheduler of every task */
    rouse_allocator allocator;
    int executor;                  /* enum rouse_executor */
    int scheduler;                 /* enum rouse_scheduler */
    unsigned workers;              /* that work; one in the single-threaded executor */
    unsigned reactors;             /* that are used */
    unsigned workers_made;         /* memory was laid out for so many; more than work if threads were refused */
    unsigned reactors_made;        /* likewise */
    unsigned threads;              /* that were started */
    bool dedicated_poller;         /* reactor 0 is waited in by a thread of its own, and by nobody else */
    bool unguarded_stacks;         /* fibers may do without guard */
    bool reports_overflow;         /* the fault hook is installed on behalf of this runtime */
    struct worker *worker;         /* all of them */
    struct reactor *reactor;       /* all of them */
    os_thread *thread;             /* one a worker */
    os_thread poller;              /* of the dedicated poller */
    struct stack_store stacks;     /* of all fibers */
    struct inject inject;          /* tasks for whoever comes first */
    struct idle idle;              /* sleepers and searchers */
    atomic_u32 started;            /* 1: the number of threads is settled, they may begin */
    atomic_u32 stopping;           /* 1: threads end as soon as they notice */
    atomic_u32 next_worker;        /* round robin: whose turn it is, for threads that are no workers */
    atomic_u32 ending;             /* 1: a shutdown is in progress */
    atomic_u32 watched;            /* single-threaded: 1 once the descriptor was asked for */
    struct lock seat;              /* single-threaded: the right to drive; only tried */
    void *fault_stack;             /* single-threaded: of overflow_thread_enter, of whoever has the seat */
    struct lock seat_lock;         /* of the list */
    struct list_node seat_waiters; /* threads that want to drive: struct thread_waiter */
};

static inline struct rouse_runtime *runtime_of_scheduler(struct task_scheduler *scheduler)
{
    return CONTAINER_OF(CONTAINER_OF(scheduler, struct spawner, scheduler), struct rouse_runtime, spawner);
}

/* The worker of this runtime that the current thread is, or NULL. */
static inline struct worker *runtime_worker(const struct rouse_runtime *runtime)
{
    struct worker *worker = os_current();
    return worker && worker->runtime == runtime ? worker : NULL;
}

static inline bool runtime_is_single(const struct rouse_runtime *runtime)
{
    return runtime->executor == ROUSE_EXECUTOR_SINGLE;
}

/* Does it belong to the parent of this process? */
static inline bool runtime_is_forked(const struct rouse_runtime *runtime)
{
    return runtime->spawner.process != os_process();
}

/* default.c: *runtime NULL becomes the current or the default runtime, which lives at least until runtime_return gets what
 * *runtime was before. Errors: SHUTTING_DOWN, FORKED, those of rouse_runtime_new. */
int runtime_borrow(rouse_runtime **runtime);
void runtime_return(const rouse_runtime *given);
/* runtime.c: rouse_runtime_shutdown of any runtime; default.c: of the default one, which other threads may be borrowing. */
int runtime_end(rouse_runtime *runtime, int64_t timeout_ns, rouse_report_function *report, void *context);
int default_end(int64_t timeout_ns, rouse_report_function *report, void *context);
bool default_is(const rouse_runtime *runtime);
/* For a plain thread that is going to wait, somewhere inside, on the default runtime. */
int default_borrow(void);
void default_return(void);

/* await.c: makes a task of a runtime, without a place yet; and gives it one. */
struct made_task {
    struct rouse_runtime *runtime; /* whose task it is */
    struct worker *worker;         /* of that runtime, that this thread is; NULL: none */
    struct task_cell *cell;        /* the task */
};
int runtime_make(struct made_task *made, rouse_runtime *runtime, const struct spawn_request *request);
void runtime_place(const struct made_task *made, rouse_task *task); /* `task` gets the handle; NULL: detached */
/* Both; the runtime may be NULL, as in runtime_borrow. */
int runtime_spawn(rouse_task *task, rouse_runtime *runtime, const struct spawn_request *request);

/* overflow.c: naming the fiber whose stack overflowed. */
int overflow_report_enable(struct rouse_runtime *runtime);
void overflow_report_disable(struct rouse_runtime *runtime);
/* Around a thread's work for a runtime: the handler needs a stack of its own. NULL: the report is not wanted, the thread
 * had such a stack, or there is none to be had. */
void *overflow_thread_enter(const struct rouse_runtime *runtime);
void overflow_thread_leave(void *stack);

/* placement.c: which worker a task goes to. A new task, spawned by `worker` (NULL: by no worker of the runtime); and what
 * struct task_scheduler asks for. */
void placement_spawned(struct rouse_runtime *runtime, struct worker *worker, struct task_cell *cell);
void placement_submit(struct task_scheduler *scheduler, struct task_cell *cell);
void placement_resubmit(struct local *local, struct task_cell *cell);
void placement_completed(struct local *local);

/* executor_multi.c */
int executor_multi_start(struct rouse_runtime *runtime);
void executor_multi_stop(struct rouse_runtime *runtime);

/* executor_single.c: a plain thread's sleep. */
struct thread_waiter *thread_waiter_new(void);
rouse_waker thread_waiter_waker(struct thread_waiter *waiter); /* borrowed */
/* Until the waker was called; drives the runtime meanwhile if it is single-threaded and nobody else does. */
void thread_waiter_wait(struct thread_waiter *waiter, struct rouse_runtime *runtime);
void thread_waiter_free(struct thread_waiter *waiter);
/* await.c: rouse_join; a plain thread that gives a waiter needs no more memory. */
int runtime_join(rouse_task *task, void *result, struct thread_waiter *waiter);
/* Runs everything ready, waits until the deadline for more. Holder of the seat. Answers polls. */
size_t executor_single_turn(struct rouse_runtime *runtime, int64_t deadline_ns);
void executor_single_watch(struct rouse_runtime *runtime); /* somebody waits for the descriptor from now on */
bool executor_single_try_seat(struct rouse_runtime *runtime);
void executor_single_leave_seat(struct rouse_runtime *runtime);
void executor_single_end_turn(struct rouse_runtime *runtime); /* the same, by the foreign loop itself */

#endif
