/* Naming the fiber whose stack overflowed: an opt-in fault handler that knows the guards of all runtimes that asked for it.
 * Everything it touches is lock-free, for it runs inside a signal handler. */
#include "core/fork_order.h"
#include "core/runtime.h"

#define RUNTIMES_MAX 64

static struct {
    struct lock lock;                 /* enabling and disabling */
    atomic_ptr runtime[RUNTIMES_MAX]; /* those that asked for it; read by the handler */
    unsigned count;                   /* of them */
    atomic_u32 inside; /* handlers that look at them now, on whatever threads. SEQ_CST, as what they look at */
} overflow;

/* A runtime that it finds lives until it has been looked at: see overflow_report_disable. */
static bool on_fault(uintptr_t address)
{
    atomic_u32_add(&overflow.inside, 1, SEQ_CST);
    for (unsigned i = 0; i < RUNTIMES_MAX; i++) {
        struct rouse_runtime *runtime = atomic_ptr_load(&overflow.runtime[i], SEQ_CST);
        const struct stack *stack = runtime ? stack_store_find_guard(&runtime->stacks, address) : NULL;
        if (stack)
            stack_report_overflow(stack);
    }
    atomic_u32_sub(&overflow.inside, 1, SEQ_CST);
    return false; /* what was installed before gets the fault in any case, so that the process ends as it would have */
}

static void rest(void)
{
    lock_acquire(&overflow.lock);
}

static void go_on(bool in_child)
{
    if (in_child)
        atomic_u32_store(&overflow.inside, 0, SEQ_CST); /* the threads are gone */
    lock_release(&overflow.lock);
}

OS_WHEN_LOADED(watch_forks)
{
    static const struct os_fork_hook hook = {rest, go_on};
    os_at_fork(FORK_OVERFLOW, &hook);
}

int overflow_report_enable(struct rouse_runtime *runtime)
{
    int status = ROUSE_LIMIT;
    lock_acquire(&overflow.lock);
    for (unsigned i = 0; i < RUNTIMES_MAX && status == ROUSE_LIMIT; i++) {
        if (atomic_ptr_load(&overflow.runtime[i], RELAXED))
            continue;
        status = overflow.count == 0 ? os_fault_hook_install(on_fault) : ROUSE_OK;
        if (status != ROUSE_OK)
            break;
        overflow.count++;
        atomic_ptr_store(&overflow.runtime[i], runtime, RELEASE);
    }
    lock_release(&overflow.lock);
    return status;
}

void *overflow_thread_enter(const struct rouse_runtime *runtime)
{
    void *stack = NULL;
    return runtime->reports_overflow && os_fault_thread_enter(&stack) == ROUSE_OK ? stack : NULL;
}

void overflow_thread_leave(void *stack)
{
    os_fault_thread_leave(stack);
}

void overflow_report_disable(struct rouse_runtime *runtime)
{
    lock_acquire(&overflow.lock);
    for (unsigned i = 0; i < RUNTIMES_MAX; i++) {
        if (atomic_ptr_load(&overflow.runtime[i], RELAXED) != runtime)
            continue;
        atomic_ptr_store(&overflow.runtime[i], NULL, SEQ_CST);
        if (--overflow.count == 0)
            os_fault_hook_remove();
    }
    /* The runtime is going to be freed: handlers that found it on other threads may still be looking. */
    while (atomic_u32_load(&overflow.inside, SEQ_CST) != 0)
        os_thread_yield();
    lock_release(&overflow.lock);
}
