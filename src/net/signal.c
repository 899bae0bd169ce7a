/* Waiting for signals: a handler that marks and notifies, and operations that look at the marks.
 *
 * One set of marks and one event descriptor for the process, because signals are the process's. The handler does two things
 * that are async-signal-safe: it sets a bit and notifies the descriptor, which is an ordinary stream to the registry.
 *
 * Alternatives that lost: signalfd (Linux only, and it needs the signal blocked in every thread, the application's
 * included); a thread in sigwait (a thread that nobody asked for). */
#include "core/fork_order.h"
#include "core/op.h"
#include "core/waker_map.h"
#include "net/stream.h"
#include <rouse/signal.h>

#define SIGNALS_ALL (ROUSE_SIGNAL_INTERRUPT | ROUSE_SIGNAL_TERMINATE | ROUSE_SIGNAL_HANG_UP)

static struct {
    struct lock lock;      /* installing and restoring */
    int installed;         /* signals whose handler is ours */
    os_event event;        /* notified by the handler; open while anything is installed */
    rouse_stream *stream;  /* owns event.readable */
    uint32_t process;      /* that opened the event; 0: none is open */
    atomic_u32 is_open;    /* 1: the handler may notify the event. SEQ_CST, as `inside` */
    atomic_u32 inside;     /* handlers that run now, on whatever threads */
    atomic_u32 marks;      /* signals that came and nobody took; SEQ_CST: written inside a handler */
    bool restores_at_exit; /* rouse_signal_restore is registered with the system: nothing is left when a process ends */
} signals;

static void on_signal(int signal)
{
    atomic_u32_add(&signals.inside, 1, SEQ_CST);
    atomic_u32_or(&signals.marks, (uint32_t)signal, SEQ_CST);
    if (atomic_u32_load(&signals.is_open, SEQ_CST))
        os_event_notify(&signals.event);
    atomic_u32_sub(&signals.inside, 1, SEQ_CST);
}

/* A child's other threads are gone, and with them the handlers that ran on them. */
static void forget_handlers_of_parent(void)
{
    if (signals.process != os_process())
        atomic_u32_store(&signals.inside, 0, SEQ_CST);
}

static int open_event(void)
{
    forget_handlers_of_parent();
    int status = os_event_open(&signals.event);
    if (status != ROUSE_OK)
        return status;
    status =
        stream_make(&signals.stream, signals.event.readable, OS_KIND_OTHER, SLOT_BROADCAST, SLOT_SHARED, ROUSE_HERE);
    if (status != ROUSE_OK) {
        os_event_close(&signals.event);
        return status;
    }
    signals.process = os_process();
    atomic_u32_store(&signals.is_open, 1, SEQ_CST);
    return ROUSE_OK;
}

/* What is for the caller of restore and close_event to close with no lock held, because that wakes waiters. */
struct ended {
    rouse_stream *stream; /* with the readable end; NULL: nothing */
    os_handle notify;     /* the other end, or OS_NO_HANDLE */
};

/* Handlers may still run on other threads, and waiters be inside a call: the descriptor must not be another's by then. In a
 * forked child those threads are gone, whatever their count says. */
static struct ended close_event(void)
{
    atomic_u32_store(&signals.is_open, 0, SEQ_CST);
    while (signals.process == os_process() && atomic_u32_load(&signals.inside, SEQ_CST) != 0)
        os_thread_yield();
    os_handle notify = signals.event.notify;
    struct ended ended = {signals.stream, notify != signals.event.readable ? notify : OS_NO_HANDLE};
    signals.stream = NULL;
    signals.process = 0; /* the next one begins as the first did */
    return ended;
}

static void close_ended(struct ended ended)
{
    if (ended.stream)
        rouse_close(ended.stream);
    if (ended.notify != OS_NO_HANDLE)
        exhaustion_close(ended.notify);
}

/* Under the lock. Puts back those of `which` that are installed. */
static struct ended restore(int which)
{
    for (int signal = 1; signal <= SIGNALS_ALL; signal *= 2)
        if (signals.installed & which & signal)
            os_signal_restore(signal);
    return signals.installed && !(signals.installed &= ~which) ? close_event() : (struct ended){NULL, OS_NO_HANDLE};
}

static void rest(void)
{
    lock_acquire(&signals.lock);
}

static void go_on(bool in_child)
{
    (void)in_child;
    lock_release(&signals.lock);
}

OS_WHEN_LOADED(watch_forks)
{
    static const struct os_fork_hook hook = {rest, go_on};
    os_at_fork(FORK_SIGNALS, &hook);
}

static int install(int wanted)
{
    int status = ROUSE_OK, added = 0;
    struct ended ended = {NULL, OS_NO_HANDLE};
    lock_acquire(&signals.lock);
    if (!signals.installed)
        status = open_event();
    if (!signals.restores_at_exit)
        signals.restores_at_exit = os_at_exit(rouse_signal_restore) == ROUSE_OK;
    for (int signal = 1; signal <= SIGNALS_ALL && status == ROUSE_OK; signal *= 2) {
        if (!(wanted & signal) || signals.installed & signal)
            continue;
        status = os_signal_install(signal, on_signal);
        if (status != ROUSE_OK)
            break;
        signals.installed |= signal;
        added |= signal;
    }
    if (status != ROUSE_OK && signals.stream && !signals.installed)
        ended = close_event();
    else if (status != ROUSE_OK)
        ended = restore(added);
    lock_release(&signals.lock);
    close_ended(ended);
    return status;
}

static bool is_valid(int wanted)
{
    return wanted > 0 && !(wanted & ~SIGNALS_ALL);
}

int rouse_signal_catch(int wanted)
{
    return is_valid(wanted) ? install(wanted) : ROUSE_INVALID;
}

void rouse_signal_restore(void)
{
    lock_acquire(&signals.lock);
    struct ended ended = restore(SIGNALS_ALL);
    lock_release(&signals.lock);
    close_ended(ended);
}

struct signal_op {
    struct op_head head;
    int wanted;            /* of enum rouse_signal, or-ed */
    bool installed;        /* the first poll has installed the handlers */
    uintptr_t handle;      /* the event's stream */
    struct wait_node node; /* on its list of readers */
};
_Static_assert(sizeof(struct signal_op) <= sizeof(rouse_op), "fits an operation");

/* One of the wanted signals that came, taken; 0: none. */
static int take_mark(int wanted)
{
    uint32_t marks = atomic_u32_load(&signals.marks, SEQ_CST);
    for (int signal = 1; signal <= SIGNALS_ALL; signal *= 2)
        if (wanted & signal && marks & (uint32_t)signal &&
            atomic_u32_and(&signals.marks, ~(uint32_t)signal, SEQ_CST) & (uint32_t)signal)
            return signal;
    return 0;
}

/* A notification that is cleared here may have been meant for another waiter, which the reactor has not told yet. */
static void clear_event(const struct signal_op *wait, os_handle readable)
{
    if (os_event_fills() && os_event_clear(&(os_event){readable, readable}))
        waker_map_rouse(wait->handle);
}

/* The event is cleared before the marks are looked at, so that a signal in between makes it readable again. Waiters for
 * different signals share it, so that it wakes all of them. */
static ptrdiff_t signal_poll(rouse_op *op, rouse_context *context)
{
    struct signal_op *wait = (struct signal_op *)(void *)op;
    struct slot_call call;
    if (!is_valid(wait->wanted))
        return ROUSE_INVALID;
    if (!wait->installed) {
        int status = install(wait->wanted);
        if (status != ROUSE_OK)
            return status;
        wait->installed = true;
        lock_acquire(&signals.lock);
        wait->handle = (uintptr_t)signals.stream;
        lock_release(&signals.lock);
    }
    for (;;) {
        int signal = take_mark(wait->wanted);
        if (signal) {
            waker_map_cancel(wait->handle, BACKEND_READ, &wait->node);
            return signal;
        }
        int status = waker_map_begin(&call, wait->handle, BACKEND_READ, &wait->node, &context->waker);
        if (status != ROUSE_OK)
            return status;
        os_handle readable = call.slot->source.handle; /* of this wait, whatever was opened since */
        clear_event(wait, readable);
        signal = take_mark(wait->wanted);
        status = waker_map_end(&call, signal ? CALL_PROGRESS : CALL_BLOCKED, &wait->node, &context->waker);
        if (signal)
            return signal;
        if (status != ROUSE_OK)
            return status;
    }
}

static int signal_cancel(rouse_op *op)
{
    struct signal_op *wait = (struct signal_op *)(void *)op;
    if (wait->installed)
        waker_map_cancel(wait->handle, BACKEND_READ, &wait->node);
    return ROUSE_OP_IDLE;
}

static const struct op_type signal_type = {"signal", signal_poll, signal_cancel, NULL};

void rouse_signal_wait_init(rouse_op *op, int wanted)
{
    if (op)
        *(struct signal_op *)(void *)op = (struct signal_op){.head = {&signal_type}, .wanted = wanted};
}

int rouse_signal_wait(int wanted)
{
    rouse_op op;
    rouse_signal_wait_init(&op, wanted);
    return op_await_status(&op);
}
