/* The default runtime: what plain threads use when they name none. Made on first use, ended by rouse_default_shutdown or when
 * the process ends.
 *
 * Nobody holds a pointer to it on behalf of those threads, so they borrow it: the count of borrowers and the mark that it is
 * ending are one word. A shutdown begins only when nobody borrows it, and nobody can while one is in progress. */
#include "core/fork_order.h"
#include "core/runtime.h"

#define ENDING (SIZE_MAX / 2 + 1)

static struct {
    struct lock lock;    /* making */
    atomic_ptr runtime;  /* the default runtime, or NULL; RELEASE after making, ACQUIRE in use */
    atomic_u32 process;  /* whose it is: known without looking at what may be ending */
    atomic_size borrows; /* threads inside a call that uses it; ENDING while it is shut down */
    bool ends_at_exit;   /* end_at_exit is registered with the system */
} the_default;

static void end_at_exit(void)
{
    rouse_default_shutdown(0);
}

static bool is_forked(void)
{
    /* ACQUIRE pairs with RELEASE in rouse_runtime_default. */
    return atomic_ptr_load(&the_default.runtime, ACQUIRE) &&
           atomic_u32_load(&the_default.process, RELAXED) != os_process();
}

static void rest(void)
{
    lock_acquire(&the_default.lock);
}

static void go_on(bool in_child)
{
    /* What the parent's other threads have borrowed, or were ending, is not in this process. With a runtime, the parent's,
     * that is settled when the child gives it up. */
    if (in_child && !atomic_ptr_load(&the_default.runtime, RELAXED))
        atomic_size_store(&the_default.borrows, 0, RELAXED);
    lock_release(&the_default.lock);
}

OS_WHEN_LOADED(watch_forks)
{
    static const struct os_fork_hook hook = {rest, go_on};
    os_at_fork(FORK_DEFAULT, &hook);
}

/* Answers why there is none. For a borrower, who keeps it from ending; or for one who is to keep the program from ending it,
 * and who gets none that ends already. */
static int find_or_make(rouse_runtime **found)
{
    int status = ROUSE_OK;
    *found = NULL;
    if (atomic_size_load(&the_default.borrows, ACQUIRE) & ENDING) /* set before the runtime is freed, in default_end */
        return ROUSE_SHUTTING_DOWN;
    rouse_runtime *runtime = atomic_ptr_load(&the_default.runtime, ACQUIRE);
    *found = runtime;
    if (runtime)
        return ROUSE_OK;
    lock_acquire(&the_default.lock);
    runtime = atomic_ptr_load(&the_default.runtime, RELAXED);
    if (!runtime && (status = rouse_runtime_new(&runtime, NULL)) == ROUSE_OK) {
        atomic_u32_store(&the_default.process, os_process(), RELAXED);
        atomic_ptr_store(&the_default.runtime, runtime, RELEASE);
        if (!the_default.ends_at_exit)
            the_default.ends_at_exit = os_at_exit(end_at_exit) == ROUSE_OK;
    }
    lock_release(&the_default.lock);
    *found = runtime;
    return status;
}

rouse_runtime *rouse_runtime_default(void)
{
    rouse_runtime *runtime;
    return find_or_make(&runtime) == ROUSE_OK ? runtime : NULL;
}

bool default_is(const rouse_runtime *runtime)
{
    return atomic_ptr_load(&the_default.runtime, RELAXED) == runtime; /* only compared */
}

int default_end(int64_t timeout_ns, rouse_report_function *report, void *context)
{
    size_t nobody = 0;
    int status = ROUSE_OK;
    rouse_runtime *runtime = atomic_ptr_load(&the_default.runtime, ACQUIRE);
    if (!runtime)
        return ROUSE_OK;
    if (is_forked()) {
        /* The parent's borrowers are not in this process. */
        rouse_runtime_abandon(runtime);
        atomic_size_store(&the_default.borrows, 0, RELEASE);
        atomic_ptr_store(&the_default.runtime, NULL, RELEASE);
        return ROUSE_OK;
    }
    /* ACQ_REL pairs with default_borrow: its users are done, and new ones see ENDING. */
    if (!atomic_size_cas(&the_default.borrows, &nobody, ENDING, ACQ_REL, RELAXED))
        return ROUSE_BUSY;
    runtime = atomic_ptr_load(&the_default.runtime, ACQUIRE);
    if (runtime)
        status = runtime_end(runtime, timeout_ns, report, context);
    if (status == ROUSE_OK)
        atomic_ptr_store(&the_default.runtime, NULL, RELEASE);
    atomic_size_sub(&the_default.borrows, ENDING, RELEASE);
    return status;
}

int rouse_default_shutdown(int64_t timeout_ns)
{
    return default_end(timeout_ns, NULL, NULL);
}

int default_borrow(void)
{
    if (is_forked())
        return ROUSE_FORKED;
    if (!(atomic_size_add(&the_default.borrows, 1, ACQ_REL) & ENDING)) /* with rouse_default_shutdown */
        return ROUSE_OK;
    atomic_size_sub(&the_default.borrows, 1, RELAXED);
    return ROUSE_SHUTTING_DOWN;
}

void default_return(void)
{
    size_t borrows = atomic_size_load(&the_default.borrows, RELAXED);
    do
        if (!(borrows & ~ENDING)) /* this thread has forked since, and the child does not count what was before */
            return;
    while (!atomic_size_cas_weak(&the_default.borrows, &borrows, borrows - 1, RELEASE, RELAXED)); /* with default_end */
}

int runtime_borrow(rouse_runtime **runtime)
{
    if (*runtime)
        return ROUSE_OK;
    *runtime = rouse_runtime_current();
    if (*runtime)
        return ROUSE_OK;
    int status = default_borrow();
    if (status != ROUSE_OK)
        return status;
    status = find_or_make(runtime);
    if (status != ROUSE_OK)
        default_return();
    return status;
}

void runtime_return(const rouse_runtime *given)
{
    if (!given && !os_current())
        default_return();
}

int local_reactor(struct reactor **reactor)
{
    struct local *local = local_current();
    rouse_runtime *runtime;
    *reactor = local ? local->reactor : NULL;
    if (local)
        return ROUSE_OK;
    int status = find_or_make(&runtime);
    if (status == ROUSE_OK)
        *reactor = &runtime->reactor[0];
    return status;
}
