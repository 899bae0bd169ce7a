/* Threads, the thread-local pointer, sleeping on a word, and what happens around forks.
 *
 * Sleeping is a futex on Linux. Elsewhere it is a table of mutexes and condition variables, chosen by the address:
 * system calls like futex exist on every system in question, but differ on each, and the parked state is not where the
 * time goes. glibc's condition variables lost for Linux: they have been known to lose a signal. */
#include "os/os_posix.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "os/atomic.h"

#if defined(__linux__) && !defined(ROUSE_OS_NO_FUTEX)
#define USE_FUTEX 1
#include <linux/futex.h>
#include <sys/syscall.h>
#else
#define USE_FUTEX 0
#endif
#if defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__DragonFly__)
#include <pthread_np.h>
#endif

#if defined(__SANITIZE_THREAD__)
#define OS_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define OS_THREAD_SANITIZER 1
#endif
#endif
#if !defined(OS_THREAD_SANITIZER)
#define OS_THREAD_SANITIZER 0
#endif

/* ---- threads ---- */

#define STACK_MIN_BYTES ((size_t)256 * 1024) /* musl gives 128 KiB, too little for what users run in a poll */
#define NAME_MAX_BYTES  16

struct start {
    void (*body)(void *);
    void *argument;
    char name[NAME_MAX_BYTES];
};

static void name_this_thread(const char *name)
{
    if (name[0] == '\0')
        return;
#if defined(__linux__)
    (void)pthread_setname_np(pthread_self(), name);
#elif defined(__APPLE__)
    (void)pthread_setname_np(name);
#elif defined(__NetBSD__)
    (void)pthread_setname_np(pthread_self(), "%s", (void *)(uintptr_t)name);
#elif defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__DragonFly__)
    pthread_set_name_np(pthread_self(), name);
#endif
}

static void *run(void *argument)
{
    struct start start = *(struct start *)argument;
    os_free(argument);
    name_this_thread(start.name);
    start.body(start.argument);
    return NULL;
}

/* All signals but those that a fault raises: while blocked, these kill without asking any handler. */
static void block_signals(sigset_t *before)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    sigset_t set;
    (void)sigfillset(&set);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        (void)sigdelset(&set, faults[i]);
    (void)pthread_sigmask(SIG_SETMASK, &set, before);
}

static int create(pthread_t *id, struct start *start)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return ROUSE_NO_THREAD;
    size_t bytes = 0;
    if (pthread_attr_getstacksize(&attributes, &bytes) != 0 || bytes < STACK_MIN_BYTES)
        (void)pthread_attr_setstacksize(&attributes, STACK_MIN_BYTES);
    sigset_t before;
    block_signals(&before); /* inherited by the thread: none can arrive before it runs */
    int error = pthread_create(id, &attributes, run, start);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attributes);
    return error == 0 ? ROUSE_OK : ROUSE_NO_THREAD;
}

int os_thread_start(os_thread *thread, void (*body)(void *), void *argument, const char *name)
{
    struct start *start = os_alloc(sizeof *start, sizeof(void *));
    if (start == NULL)
        return ROUSE_NO_MEMORY;
    start->body = body;
    start->argument = argument;
    size_t length = name != NULL ? strnlen(name, NAME_MAX_BYTES - 1) : 0;
    memcpy(start->name, name != NULL ? name : "", length);
    start->name[length] = '\0';
    pthread_t id;
    int status = create(&id, start);
    if (status != ROUSE_OK) {
        os_free(start);
        return status;
    }
    thread->id = (uintptr_t)id;
    return ROUSE_OK;
}

void os_thread_join(os_thread *thread)
{
    (void)pthread_join((pthread_t)thread->id, NULL);
}

void os_thread_yield(void)
{
    (void)sched_yield();
}

/* ---- the thread-local pointer ---- */

static _Thread_local void *current;

OS_NOINLINE void *os_current(void)
{
    __asm__ volatile(""); /* a function without effects may be called less often than it is written */
    return current;
}

OS_NOINLINE void os_current_set(void *value)
{
    __asm__ volatile("");
    current = value;
}

/* ---- sleeping on a word ---- */

#if USE_FUTEX

/* 32-bit systems: the old call takes a time of two longs, the new one of two 64-bit numbers, as 64-bit systems do. */
#if defined(SYS_futex_time64)
#define FUTEX_CALL SYS_futex_time64
#else
#define FUTEX_CALL SYS_futex
#endif

static long futex_wait(long call, const uint32_t *word, uint32_t expected, const void *time)
{
    return syscall(call, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, time, NULL, FUTEX_BITSET_MATCH_ANY);
}

/* ThreadSanitizer runs a signal's handler at the next call that it intercepts, which the futex is not, and the system
 * goes on sleeping after a signal. So threads that take signals look up now and then. */
static int64_t look_up_in_time(int64_t deadline_ns)
{
#if OS_THREAD_SANITIZER
    sigset_t blocked;
    int64_t soon_ns = os_now() + ROUSE_MS(20);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    if (!sigismember(&blocked, SIGTERM) && soon_ns < deadline_ns)
        return soon_ns;
#endif
    return deadline_ns;
}

/* What it answers is of no interest: woken, interrupted, too late and already different all look the same outside. */
void os_wait_on(const uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
    deadline_ns = look_up_in_time(deadline_ns);
    int64_t at = os_system_time(deadline_ns);
    struct {
        int64_t seconds, nanoseconds;
    } time = {at / 1000000000, at % 1000000000};
    long answer = futex_wait(FUTEX_CALL, word, expected, deadline_ns == ROUSE_NEVER ? NULL : (const void *)&time);
#if defined(SYS_futex_time64) && defined(SYS_futex)
    if (answer != 0 && errno == ENOSYS) { /* before Linux 5.1 */
        struct {
            long seconds, nanoseconds;
        } old = {time.seconds > LONG_MAX ? LONG_MAX : (long)time.seconds, (long)time.nanoseconds};
        (void)futex_wait(SYS_futex, word, expected, deadline_ns == ROUSE_NEVER ? NULL : (const void *)&old);
    }
#else
    (void)answer;
#endif
}

static void futex_wake(const uint32_t *word, int count)
{
    long answer = syscall(FUTEX_CALL, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL, 0);
#if defined(SYS_futex_time64) && defined(SYS_futex)
    if (answer < 0 && errno == ENOSYS)
        (void)syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL, 0);
#else
    (void)answer; /* EFAULT: the word is gone, and with it who slept on it */
#endif
}

void os_wake_one(const uint32_t *word)
{
    futex_wake(word, 1);
}

void os_wake_all(const uint32_t *word)
{
    futex_wake(word, INT_MAX);
}

static void forget_sleepers(void) {}

#else

#define BUCKETS 64

static struct bucket {
    pthread_mutex_t mutex;
    pthread_cond_t woken;
} buckets[BUCKETS];

static void make_buckets(void)
{
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
#if !defined(__APPLE__)
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    for (size_t i = 0; i < BUCKETS; i++) {
        (void)pthread_mutex_init(&buckets[i].mutex, NULL);
        (void)pthread_cond_init(&buckets[i].woken, &attributes);
    }
    (void)pthread_condattr_destroy(&attributes);
}

static struct bucket *bucket_of(const uint32_t *word)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, make_buckets);
    uint32_t address = (uint32_t)((uintptr_t)word >> 2);
    return &buckets[(address * UINT32_C(2654435769)) >> 26];
}

static void wait_until(struct bucket *bucket, int64_t deadline_ns)
{
#if defined(__APPLE__)
    int64_t at = deadline_ns - os_now(); /* a span: there is no choice of clocks */
    if (at <= 0)
        return;
#else
    int64_t at = os_system_time(deadline_ns);
#endif
    struct timespec time = {(time_t)(at / 1000000000), (long)(at % 1000000000)};
#if defined(__APPLE__)
    (void)pthread_cond_timedwait_relative_np(&bucket->woken, &bucket->mutex, &time);
#else
    (void)pthread_cond_timedwait(&bucket->woken, &bucket->mutex, &time);
#endif
}

void os_wait_on(const uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
    struct bucket *bucket = bucket_of(word);
    (void)pthread_mutex_lock(&bucket->mutex);
    if (atomic_u32_load((const atomic_u32 *)word, SEQ_CST) == expected) {
        if (deadline_ns == ROUSE_NEVER)
            (void)pthread_cond_wait(&bucket->woken, &bucket->mutex);
        else
            wait_until(bucket, deadline_ns);
    }
    (void)pthread_mutex_unlock(&bucket->mutex);
}

/* Everybody in the bucket, since others may sleep there on other words; and with the mutex held: without it a sleeper
 * between its look at the word and its sleep is missed, and macOS has lost more (dotnet/runtime#82709). */
void os_wake_all(const uint32_t *word)
{
    struct bucket *bucket = bucket_of(word);
    (void)pthread_mutex_lock(&bucket->mutex);
    (void)pthread_cond_broadcast(&bucket->woken);
    (void)pthread_mutex_unlock(&bucket->mutex);
}

void os_wake_one(const uint32_t *word)
{
    os_wake_all(word);
}

/* In a forked child: who held a mutex, or slept, is not there. */
static void forget_sleepers(void)
{
    make_buckets();
}

#endif

/* ---- fork ---- */

static atomic_u32 process; /* counts the generations of processes, from 1; 0: not known, ask_process finds out */
static atomic_u32 forks;
static bool counting;                    /* written once, before anybody can read it */
static atomic_ptr hooks[OS_FORK_ORDERS]; /* const struct os_fork_hook; RELEASE in os_at_fork, ACQUIRE before a fork */

/* A fork in progress; the system lets two threads begin one at a time. */
static pthread_mutex_t forking = PTHREAD_MUTEX_INITIALIZER;
static const struct os_fork_hook *called[OS_FORK_ORDERS]; /* by this fork: others may be added meanwhile */

static void count_fork(void)
{
    (void)atomic_u32_add(&forks, 1, RELAXED);
}

static void before_fork(void)
{
    count_fork();
    (void)pthread_mutex_lock(&forking);
    for (unsigned i = 0; i < OS_FORK_ORDERS; i++) {
        called[i] = atomic_ptr_load(&hooks[i], ACQUIRE);
        if (called[i] != NULL)
            called[i]->before();
    }
}

static void after_fork(bool in_child)
{
    for (unsigned i = OS_FORK_ORDERS; i-- > 0;)
        if (called[i] != NULL)
            called[i]->after(in_child);
    (void)pthread_mutex_unlock(&forking);
    count_fork(); /* in the child: what it holds, the parent holds too */
}

static void stay_parent(void)
{
    after_fork(false);
}

static void enter_child(void)
{
    (void)atomic_u32_add(&process, 1, RELAXED);
    forget_sleepers();
    after_fork(true);
}

/* Counted before the fork and after it: whoever opens or closes a descriptor meanwhile, in another thread, sees the
 * number move on the right side of the copy that the child gets. */
static void start_counting(void)
{
    counting = pthread_atfork(before_fork, stay_parent, enter_child) == 0;
    if (counting)
        atomic_u32_store(&process, 1, RELAXED);
}

static bool is_counting(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, start_counting);
    return counting;
}

INLINE_NEVER uint32_t ask_process(void)
{
    return is_counting() ? atomic_u32_load(&process, RELAXED) : (uint32_t)getpid();
}

/* Asked before each poll of a task. */
uint32_t os_process(void)
{
    uint32_t known = atomic_u32_load(&process, RELAXED);
    return known != 0 ? known : ask_process();
}

uint32_t os_forks(void)
{
    if (!is_counting())
        count_fork(); /* nobody tells us: never say twice that nothing happened */
    return atomic_u32_load(&forks, RELAXED);
}

void os_at_fork(unsigned order, const struct os_fork_hook *hook)
{
    atomic_ptr_store(&hooks[order], (void *)(uintptr_t)hook, RELEASE);
    (void)is_counting();
}
