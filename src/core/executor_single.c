/* The single-threaded executor has no thread: whoever waits for it drives it. The *seat* is the right to drive. A thread that
 * finds it taken sleeps, and is told when it is free. */
#include "core/runtime.h"

/* Tasks polled in one turn before the caller gets control back. */
#define TURN_POLLS 256

/* A plain thread's sleep. Counted, because clones of its waker may outlive the wait. */
struct thread_waiter {
    atomic_size references; /* the sleeping thread, and each waker */
    atomic_u32 signal;      /* SIGNAL_* below; what the thread sleeps on */
    struct lock lock;       /* driving */
    struct parker *driving; /* the parker it sleeps in while it drives a runtime; NULL else */
    struct list_node link;  /* on a runtime's seat_waiters, under its seat_lock */
};

enum {
    SIGNAL_SEAT = 1,    /* the seat may be free */
    SIGNAL_WOKEN = 2,   /* the waker was called */
    SIGNAL_SLEEPING = 4 /* the thread sleeps on the word, or is about to: whoever raises a signal wakes it */
};

static void release(struct thread_waiter *waiter)
{
    /* ACQ_REL: the last one sees what the others did. */
    if (atomic_size_sub(&waiter->references, 1, ACQ_REL) == 1)
        os_free(waiter);
}

static void raise_signal(struct thread_waiter *waiter, uint32_t signal)
{
    /* ACQ_REL pairs with sleep_for and was_woken. */
    if (atomic_u32_or(&waiter->signal, signal, ACQ_REL) & SIGNAL_SLEEPING)
        os_wake_one(atomic_u32_word(&waiter->signal));
}

static rouse_waker waiter_clone(void *data);

static void waiter_wake_by_ref(void *data)
{
    struct thread_waiter *waiter = data;
    raise_signal(waiter, SIGNAL_WOKEN);
    /* Under the lock: the runtime that is driven may be freed once the thread has stopped driving. */
    lock_acquire(&waiter->lock);
    if (waiter->driving)
        parker_unpark(waiter->driving);
    lock_release(&waiter->lock);
}

static void waiter_wake(void *data)
{
    waiter_wake_by_ref(data);
    release(data);
}

static void waiter_drop(void *data)
{
    release(data);
}

static const rouse_waker_table waiter_table = {waiter_clone, waiter_wake, waiter_wake_by_ref, waiter_drop};

static rouse_waker waiter_clone(void *data)
{
    atomic_size_add(&((struct thread_waiter *)data)->references, 1, RELAXED); /* made from a reference that is held */
    return (rouse_waker){data, &waiter_table};
}

struct thread_waiter *thread_waiter_new(void)
{
    struct thread_waiter *waiter = os_alloc(sizeof *waiter, _Alignof(max_align_t));
    if (!waiter)
        return NULL;
    *waiter = (struct thread_waiter){.driving = NULL};
    atomic_size_init(&waiter->references, 1);
    return waiter;
}

rouse_waker thread_waiter_waker(struct thread_waiter *waiter)
{
    return (rouse_waker){waiter, &waiter_table};
}

void thread_waiter_free(struct thread_waiter *waiter)
{
    release(waiter);
}

static bool was_woken(struct thread_waiter *waiter)
{
    return (atomic_u32_load(&waiter->signal, ACQUIRE) & SIGNAL_WOKEN) != 0; /* pairs with raise_signal */
}

/* ---- the seat ---- */

bool executor_single_try_seat(struct rouse_runtime *runtime)
{
    if (!lock_try(&runtime->seat))
        return false;
    parker_leave_poll(&runtime->worker[0].parker);
    worker_enter(&runtime->worker[0]);
    runtime->fault_stack = overflow_thread_enter(runtime);
    return true;
}

/* While nobody drives, a wake from another thread must make the descriptor readable that a foreign loop waits for: as if
 * the worker slept in its reactor. A token is a wake that came before. */
static bool is_watched(struct rouse_runtime *runtime)
{
    if (!atomic_u32_load(&runtime->watched, RELAXED))
        return false;
    while (!parker_enter_poll(&runtime->worker[0].parker, &runtime->reactor[0])) {}
    return true;
}

/* Gives the seat up, and tells the first who waits for it. */
static void vacate(struct rouse_runtime *runtime, bool by_the_loop)
{
    if (runtime_is_forked(runtime)) { /* the others who want it are the parent's, and so may be the list's lock */
        overflow_thread_leave(runtime->fault_stack);
        worker_leave(&runtime->worker[0]);
        return;
    }
    bool watched = is_watched(runtime);
    overflow_thread_leave(runtime->fault_stack);
    worker_leave(&runtime->worker[0]);
    lock_release(&runtime->seat);
    atomic_fence(SEQ_CST); /* pairs with executor_single_watch: one of the two sees what the other did */
    if (!watched && atomic_u32_load(&runtime->watched, RELAXED) && executor_single_try_seat(runtime)) {
        vacate(runtime, by_the_loop);
        return;
    }
    /* Another thread drove meanwhile: tasks may be ready, and timers earlier, than the loop last heard of. */
    if (watched && !by_the_loop)
        reactor_wake(&runtime->reactor[0]);
    lock_acquire(&runtime->seat_lock);
    struct list_node *link = list_pop_front(&runtime->seat_waiters);
    if (link)
        raise_signal(CONTAINER_OF(link, struct thread_waiter, link), SIGNAL_SEAT);
    lock_release(&runtime->seat_lock);
}

void executor_single_leave_seat(struct rouse_runtime *runtime)
{
    vacate(runtime, false);
}

void executor_single_end_turn(struct rouse_runtime *runtime)
{
    vacate(runtime, true);
}

void executor_single_watch(struct rouse_runtime *runtime)
{
    if (atomic_u32_exchange(&runtime->watched, 1, SEQ_CST))
        return;
    atomic_fence(SEQ_CST); /* pairs with the fence in vacate */
    if (executor_single_try_seat(runtime))
        executor_single_leave_seat(runtime);
}

static void set_driving(struct thread_waiter *waiter, struct parker *parker)
{
    lock_acquire(&waiter->lock);
    waiter->driving = parker;
    lock_release(&waiter->lock);
}

/* With the seat: works until the waker is called. */
static void drive(struct thread_waiter *waiter, struct rouse_runtime *runtime)
{
    struct worker *worker = &runtime->worker[0];
    set_driving(waiter, &worker->parker);
    while (!was_woken(waiter) && !runtime_is_forked(runtime))
        if (worker_step(worker) == WORKER_IDLE && !was_woken(waiter))
            worker_park(worker, ROUSE_NEVER);
    set_driving(waiter, NULL);
}

/* Queued up, a thread is offered the seat when it is left. An offer is a signal and obliges: whoever was offered the seat
 * tries it, and whoever leaves for good passes an offer that came meanwhile on. Trying after queueing up, and finding the
 * seat taken, means that its holder has not looked at the queue yet. */
static void queue_up(struct thread_waiter *waiter, struct rouse_runtime *runtime)
{
    atomic_u32_and(&waiter->signal, ~(uint32_t)SIGNAL_SEAT, ACQ_REL);
    lock_acquire(&runtime->seat_lock);
    if (!list_is_linked(&waiter->link))
        list_push_back(&runtime->seat_waiters, &waiter->link);
    lock_release(&runtime->seat_lock);
}

static void leave_queue(struct thread_waiter *waiter, struct rouse_runtime *runtime)
{
    lock_acquire(&runtime->seat_lock);
    if (list_is_linked(&waiter->link))
        list_remove(&waiter->link);
    lock_release(&runtime->seat_lock);
}

static void leave_for_good(struct thread_waiter *waiter, struct rouse_runtime *runtime)
{
    if (runtime_is_forked(runtime))
        return;
    lock_acquire(&runtime->seat_lock);
    bool offered = !list_is_linked(&waiter->link) && atomic_u32_load(&waiter->signal, ACQUIRE) & SIGNAL_SEAT;
    if (list_is_linked(&waiter->link))
        list_remove(&waiter->link);
    struct list_node *next = offered ? list_pop_front(&runtime->seat_waiters) : NULL;
    if (next)
        raise_signal(CONTAINER_OF(next, struct thread_waiter, link), SIGNAL_SEAT);
    lock_release(&runtime->seat_lock);
}

static void sleep_for(struct thread_waiter *waiter, uint32_t signals)
{
    uint32_t signal;
    while (((signal = atomic_u32_or(&waiter->signal, SIGNAL_SLEEPING, ACQ_REL)) & signals) == 0)
        os_wait_on(atomic_u32_word(&waiter->signal), signal | SIGNAL_SLEEPING, ROUSE_NEVER);
    /* RELAXED: nobody sleeps, a wake too many is harmless. */
    atomic_u32_and(&waiter->signal, ~(uint32_t)SIGNAL_SLEEPING, RELAXED);
}

void thread_waiter_wait(struct thread_waiter *waiter, struct rouse_runtime *runtime)
{
    if (!runtime || !runtime_is_single(runtime)) {
        sleep_for(waiter, SIGNAL_WOKEN);
    } else {
        while (!was_woken(waiter) && !runtime_is_forked(runtime)) { /* a task may fork and return in the child */
            queue_up(waiter, runtime);
            if (executor_single_try_seat(runtime)) {
                leave_queue(waiter, runtime);
                drive(waiter, runtime);
                executor_single_leave_seat(runtime);
            } else {
                sleep_for(waiter, SIGNAL_WOKEN | SIGNAL_SEAT);
            }
        }
        leave_for_good(waiter, runtime);
    }
    atomic_u32_and(&waiter->signal, ~(uint32_t)SIGNAL_WOKEN, ACQ_REL);
}

/* ---- turns for foreign loops ---- */

size_t executor_single_turn(struct rouse_runtime *runtime, int64_t deadline_ns)
{
    struct worker *worker = &runtime->worker[0];
    size_t polls = 0;
    /* Events first: a caller that never waits must see them too. */
    worker_poll_kernel(worker);
    while (polls < TURN_POLLS && !runtime_is_forked(runtime) && worker_step(worker) == WORKER_RAN)
        polls++;
    if (polls > 0 || deadline_ns <= os_now())
        return polls;
    worker_park(worker, deadline_ns);
    while (polls < TURN_POLLS && !runtime_is_forked(runtime) && worker_step(worker) == WORKER_RAN)
        polls++;
    return polls;
}
