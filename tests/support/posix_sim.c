/* What the tests use of POSIX, in the simulated world: time, threads, signals and sockets. The linker sends these calls here
 * (wrapped_symbols_sim.txt). Outside of a world, and for descriptors and clocks that are none of its, they reach the
 * system.
 *
 * Alternatives that lost: a second net.c over os.h, with everything else in the tests that speaks POSIX written anew or
 * skipped; macros over the names, which struct members bear as well. */
#include "support/world.h"

#if ROUSE_TEST_SIM

#include "support/harness.h"

#include "backend/backend.h"
#include "os/os_sim.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <rouse/signal.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REAL_BEGAN_NS    INT64_C(1700000000000000000) /* what the time of day is when the world's clock stands at 0 */
#define FIRST_PAUSE_NS   INT64_C(2000)                /* between two looks at what is waited for */
#define TRAVEL_MAX_NS    INT64_C(20000)               /* from one end of a connection to the other */
#define LONGEST_PAUSE_NS INT64_C(500000)

/* ---- the world of a test ---- */

static bool left; /* this process ends, and has to do with the system only */

bool world_is_on(void)
{
    return sim_is_active() && !left;
}

void world_leave(void)
{
    left = true;
}

int world_descriptors(void)
{
    return (int)sim_descriptors();
}

int world_threads(void)
{
    return (int)sim_threads();
}

struct world_call {
    int (*scenario)(void *argument);
    void *argument;
};

/* cmocka has left a test that failed by longjmp: what it held, threads among it, lies where it lay, so the world cannot
 * come to its end. */
static int run_scenario(void *argument)
{
    const struct world_call *call = argument;
    if (call->scenario(call->argument) != 0) {
        fflush(NULL);
        dprintf(2, "%s failed: ROUSE_SEED=%llu\n", test_name(), (unsigned long long)sim_options()->seed);
        _exit(1);
    }
    return ROUSE_OK;
}

int world_run(const char *name, int (*scenario)(void *argument), void *argument)
{
    rouse_sim_options options = ROUSE_SIM_OPTIONS_INIT;
    struct world_call call = {scenario, argument};
    options.descriptors = 60000;
    options.delay_min_ns = 1;
    options.delay_max_ns = TRAVEL_MAX_NS;
    /* Tests count: five bytes that were sent are read as five, one event wakes one waiter. */
    options.short_counts = options.spurious = options.duplicates = 0;
    options.interrupts = 500;
    if (rouse_sim_check(name, run_scenario, &call, &options, 1) != ROUSE_OK) {
        fflush(NULL);
        _exit(1);
    }
    return 0;
}

/* ---- waiting ---- */

/* The pause doubles from look to look: what takes no time is seen at once, and waiting long costs little. */
struct pause {
    int64_t span_ns;
};

static void wait_a_little(struct pause *pause)
{
    pause->span_ns = pause->span_ns == 0                     ? FIRST_PAUSE_NS
                     : pause->span_ns < LONGEST_PAUSE_NS / 2 ? pause->span_ns * 2
                                                             : LONGEST_PAUSE_NS;
    rouse_sim_sleep(pause->span_ns);
}

/* As over the loopback of a real system: what this thread has sent has come when the call is over. */
static void settle(void)
{
    rouse_sim_sleep(TRAVEL_MAX_NS + 1);
}

static int fail_with(int error)
{
    errno = error;
    return -1;
}

/* ---- time ---- */

static struct timespec to_timespec(int64_t at_ns)
{
    return (struct timespec){(time_t)(at_ns / 1000000000), (long)(at_ns % 1000000000)};
}

static int64_t from_timespec(const struct timespec *at)
{
    return (int64_t)at->tv_sec * 1000000000 + at->tv_nsec;
}

static int64_t used_ns; /* what the looks at clocks have taken: the processor time of this world, of all its threads */

/* Others go on now and then, for whoever watches a clock waits. */
int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!world_is_on()) {
        return __real_clock_gettime(clock, now);
    }
    sim_pause();
    int64_t before_ns = sim_now(), at_ns = os_now();
    used_ns += at_ns - before_ns;
    *now = to_timespec(clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID ? used_ns
                       : clock == CLOCK_REALTIME                                             ? at_ns + REAL_BEGAN_NS
                                                                                             : at_ns);
    return 0;
}

int __real_nanosleep(const struct timespec *span, struct timespec *remaining);
int __wrap_nanosleep(const struct timespec *span, struct timespec *remaining);
int __wrap_nanosleep(const struct timespec *span, struct timespec *remaining)
{
    if (!world_is_on()) {
        return __real_nanosleep(span, remaining);
    }
    rouse_sim_sleep(from_timespec(span));
    return 0;
}

int __real_sched_yield(void);
int __wrap_sched_yield(void);
int __wrap_sched_yield(void)
{
    if (!world_is_on()) {
        return __real_sched_yield();
    }
    rouse_sim_yield();
    return 0;
}

/* ---- threads ----
 *
 * A pthread_t is what identifies the strand, in strands that the library has started too. */

struct thread {
    struct thread *next;
    rouse_sim_thread strand;
    void *(*body)(void *argument);
    void *argument, *result;
};

static struct thread *threads; /* not joined yet */

static void thread_main(void *argument)
{
    struct thread *thread = argument;
    thread->result = thread->body(thread->argument);
}

int __real_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*body)(void *), void *argument);
int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*body)(void *), void *argument);
int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*body)(void *), void *argument)
{
    if (!world_is_on()) {
        return __real_pthread_create(made, attributes, body, argument);
    }
    struct thread *thread = calloc(1, sizeof *thread);
    if (thread == NULL) {
        return EAGAIN;
    }
    thread->body = body;
    thread->argument = argument;
    if (rouse_sim_thread_start(&thread->strand, thread_main, thread) != ROUSE_OK) {
        free(thread);
        return EAGAIN;
    }
    thread->next = threads;
    threads = thread;
    *made = (pthread_t)thread->strand.id;
    return 0;
}

int __real_pthread_join(pthread_t wanted, void **result);
int __wrap_pthread_join(pthread_t wanted, void **result);
int __wrap_pthread_join(pthread_t wanted, void **result)
{
    struct thread **link = &threads;
    if (!world_is_on()) {
        return __real_pthread_join(wanted, result);
    }
    while (*link != NULL && (*link)->strand.id != (uintptr_t)wanted) {
        link = &(*link)->next;
    }
    struct thread *thread = *link;
    if (thread == NULL) {
        return ESRCH;
    }
    *link = thread->next;
    rouse_sim_thread_join(&thread->strand);
    if (result != NULL) {
        *result = thread->result;
    }
    free(thread);
    return 0;
}

pthread_t __real_pthread_self(void);
pthread_t __wrap_pthread_self(void);
pthread_t __wrap_pthread_self(void)
{
    return world_is_on() ? (pthread_t)sim_self() : __real_pthread_self();
}

/* ---- locks: the real ones, which nobody waits for in the system ---- */

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    struct pause pause = {0};
    int error;
    if (!world_is_on()) {
        return __real_pthread_mutex_lock(mutex);
    }
    while ((error = pthread_mutex_trylock(mutex)) == EBUSY) {
        wait_a_little(&pause);
    }
    return error;
}

/* Between the release and the sleep nobody else goes on. Spurious ends are allowed. */
static void wait_on_condition(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t deadline_ns)
{
    require_int(pthread_mutex_unlock(mutex), ==, 0);
    sim_sleep_at(condition, deadline_ns);
    require_int(pthread_mutex_lock(mutex), ==, 0);
}

int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    if (!world_is_on()) {
        return __real_pthread_cond_wait(condition, mutex);
    }
    wait_on_condition(condition, mutex, ROUSE_NEVER);
    return 0;
}

/* Deadlines are of CLOCK_REALTIME: no test sets another clock. */
int __real_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *end);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *end);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *end)
{
    if (!world_is_on()) {
        return __real_pthread_cond_timedwait(condition, mutex, end);
    }
    int64_t deadline_ns = from_timespec(end) - REAL_BEGAN_NS;
    if (sim_now() >= deadline_ns) {
        return ETIMEDOUT;
    }
    wait_on_condition(condition, mutex, deadline_ns);
    return 0;
}

#define WRAP_NOTIFYING(name, all)                 \
    int __real_##name(pthread_cond_t *condition); \
    int __wrap_##name(pthread_cond_t *condition); \
    int __wrap_##name(pthread_cond_t *condition)  \
    {                                             \
        if (!world_is_on()) {                     \
            return __real_##name(condition);      \
        }                                         \
        sim_wake_place(condition, (all));         \
        sim_pause();                              \
        return 0;                                 \
    }

WRAP_NOTIFYING(pthread_cond_signal, false)
WRAP_NOTIFYING(pthread_cond_broadcast, true)

static int wait_for_semaphore(sem_t *semaphore, int64_t deadline_ns)
{
    while (sem_trywait(semaphore) != 0) {
        if (sim_now() >= deadline_ns) {
            return fail_with(ETIMEDOUT);
        }
        sim_sleep_at(semaphore, deadline_ns);
    }
    return 0;
}

int __real_sem_wait(sem_t *semaphore);
int __wrap_sem_wait(sem_t *semaphore);
int __wrap_sem_wait(sem_t *semaphore)
{
    return world_is_on() ? wait_for_semaphore(semaphore, ROUSE_NEVER) : __real_sem_wait(semaphore);
}

int __real_sem_timedwait(sem_t *semaphore, const struct timespec *end);
int __wrap_sem_timedwait(sem_t *semaphore, const struct timespec *end);
int __wrap_sem_timedwait(sem_t *semaphore, const struct timespec *end)
{
    return world_is_on() ? wait_for_semaphore(semaphore, from_timespec(end) - REAL_BEGAN_NS)
                         : __real_sem_timedwait(semaphore, end);
}

int __real_sem_post(sem_t *semaphore);
int __wrap_sem_post(sem_t *semaphore);
int __wrap_sem_post(sem_t *semaphore)
{
    int status = __real_sem_post(semaphore);
    if (world_is_on()) {
        sim_wake_place(semaphore, false);
        sim_pause();
    }
    return status;
}

/* ---- signals: those that the library knows come from the world if it waits for them ---- */

static int sent_in_world(int signal)
{
    int known = signal == SIGINT    ? ROUSE_SIGNAL_INTERRUPT
                : signal == SIGTERM ? ROUSE_SIGNAL_TERMINATE
                : signal == SIGHUP  ? ROUSE_SIGNAL_HANG_UP
                                    : 0;
    return known != 0 && world_is_on() && rouse_sim_raise(known);
}

int __real_raise(int signal);
int __wrap_raise(int signal);
int __wrap_raise(int signal)
{
    return sent_in_world(signal) ? 0 : __real_raise(signal);
}

int __real_kill(pid_t process, int signal);
int __wrap_kill(pid_t process, int signal);
int __wrap_kill(pid_t process, int signal)
{
    return process == getpid() && sent_in_world(signal) ? 0 : __real_kill(process, signal);
}

/* ---- sockets ---- */

static bool is_of_world(int file)
{
    return world_is_on() && sim_readiness(file) >= 0;
}

static int error_of(ptrdiff_t status)
{
    switch (status) {
    case ROUSE_PENDING:
        return EAGAIN;
    case ROUSE_CONNECTION_RESET:
        return ECONNRESET;
    case ROUSE_BROKEN_PIPE:
        return EPIPE;
    case ROUSE_CONNECTION_REFUSED:
        return ECONNREFUSED;
    case ROUSE_NOT_CONNECTED:
        return ENOTCONN;
    case ROUSE_ADDRESS_IN_USE:
        return EADDRINUSE;
    case ROUSE_TOO_MANY_FILES:
        return EMFILE;
    case ROUSE_NO_BUFFERS:
        return ENOBUFS;
    case ROUSE_NO_MEMORY:
        return ENOMEM;
    case ROUSE_BAD_DESCRIPTOR:
        return EBADF;
    case ROUSE_NOT_SUPPORTED:
        return EOPNOTSUPP;
    default:
        return EINVAL;
    }
}

/* 0, or -1 with errno. */
static int posix(ptrdiff_t status)
{
    return status == ROUSE_OK ? 0 : fail_with(error_of(status));
}

static bool is_blocking(int file)
{
    bool nonblocking = true;
    require_int(os_set_nonblocking(file, true, &nonblocking), ==, ROUSE_OK);
    require_int(os_set_nonblocking(file, nonblocking, NULL), ==, ROUSE_OK);
    return !nonblocking;
}

static bool from_system(rouse_address *address, const struct sockaddr *system)
{
    memset(address, 0, sizeof *address);
    if (system->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)system;
        address->family = ROUSE_IPV4;
        address->port = ntohs(v4->sin_port);
        memcpy(address->bytes, &v4->sin_addr, 4);
    } else if (system->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)system;
        address->family = ROUSE_IPV6;
        address->port = ntohs(v6->sin6_port);
        address->scope = v6->sin6_scope_id;
        memcpy(address->bytes, &v6->sin6_addr, 16);
    } else {
        return false;
    }
    return true;
}

static void to_system(struct sockaddr *system, socklen_t *size, const rouse_address *address)
{
    struct sockaddr_storage made;
    memset(&made, 0, sizeof made);
    socklen_t length = sizeof(struct sockaddr_in);
    if (address->family == ROUSE_IPV6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&made;
        length = sizeof *v6;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(address->port);
        v6->sin6_scope_id = address->scope;
        memcpy(&v6->sin6_addr, address->bytes, 16);
    } else {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&made;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(address->port);
        memcpy(&v4->sin_addr, address->bytes, 4);
    }
    memcpy(system, &made, *size < length ? *size : length);
    *size = length;
}

static int made_blocking(os_handle handle, int type)
{
    require_int(os_set_nonblocking(handle, (type & SOCK_NONBLOCK) != 0, NULL), ==, ROUSE_OK);
    return (int)handle;
}

int __real_socket(int family, int type, int protocol);
int __wrap_socket(int family, int type, int protocol);
int __wrap_socket(int family, int type, int protocol)
{
    os_handle handle;
    if (!world_is_on()) {
        return __real_socket(family, type, protocol);
    }
    if ((family != AF_INET && family != AF_INET6) || (type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) != SOCK_STREAM) {
        return fail_with(EAFNOSUPPORT);
    }
    int status = os_tcp_open(&handle, family == AF_INET ? ROUSE_IPV4 : ROUSE_IPV6);
    return status == ROUSE_OK ? made_blocking(handle, type) : posix(status);
}

int __real_bind(int file, const struct sockaddr *address, socklen_t size);
int __wrap_bind(int file, const struct sockaddr *address, socklen_t size);
int __wrap_bind(int file, const struct sockaddr *address, socklen_t size)
{
    rouse_address to;
    if (!is_of_world(file)) {
        return __real_bind(file, address, size);
    }
    return from_system(&to, address) ? posix(os_tcp_bind(file, &to, false, false, false)) : fail_with(EAFNOSUPPORT);
}

int __real_listen(int file, int backlog);
int __wrap_listen(int file, int backlog);
int __wrap_listen(int file, int backlog)
{
    return is_of_world(file) ? posix(os_tcp_listen(file, backlog)) : __real_listen(file, backlog);
}

int __real_accept(int file, struct sockaddr *address, socklen_t *size);
int __wrap_accept(int file, struct sockaddr *address, socklen_t *size);
int __wrap_accept(int file, struct sockaddr *address, socklen_t *size)
{
    struct pause pause = {0};
    rouse_address peer;
    os_handle handle;
    int status;
    if (!is_of_world(file)) {
        return __real_accept(file, address, size);
    }
    while ((status = os_tcp_accept(file, &handle, &peer)) == ROUSE_PENDING && is_blocking(file)) {
        wait_a_little(&pause);
    }
    if (status != ROUSE_OK) {
        return posix(status);
    }
    if (address != NULL) {
        to_system(address, size, &peer);
    }
    return made_blocking(handle, 0);
}

int __real_connect(int file, const struct sockaddr *address, socklen_t size);
int __wrap_connect(int file, const struct sockaddr *address, socklen_t size);
int __wrap_connect(int file, const struct sockaddr *address, socklen_t size)
{
    struct pause pause = {0};
    rouse_address to;
    if (!is_of_world(file)) {
        return __real_connect(file, address, size);
    }
    if (!from_system(&to, address)) {
        return fail_with(EAFNOSUPPORT);
    }
    int status = os_tcp_connect(file, &to);
    if (status == ROUSE_PENDING && !is_blocking(file)) {
        return fail_with(EINPROGRESS);
    }
    while (status == ROUSE_PENDING) {
        wait_a_little(&pause);
        status = os_tcp_connect_result(file);
    }
    return posix(status);
}

int __real_shutdown(int file, int how);
int __wrap_shutdown(int file, int how);
int __wrap_shutdown(int file, int how)
{
    int side = how == SHUT_RD ? ROUSE_SHUTDOWN_READ : how == SHUT_WR ? ROUSE_SHUTDOWN_WRITE : ROUSE_SHUTDOWN_BOTH;
    if (!is_of_world(file)) {
        return __real_shutdown(file, how);
    }
    int status = os_tcp_shutdown(file, side);
    settle();
    return posix(status);
}

#define WRAP_NAME(name, asked)                                              \
    int __real_##name(int file, struct sockaddr *address, socklen_t *size); \
    int __wrap_##name(int file, struct sockaddr *address, socklen_t *size); \
    int __wrap_##name(int file, struct sockaddr *address, socklen_t *size)  \
    {                                                                       \
        rouse_address found;                                                \
        if (!is_of_world(file)) {                                           \
            return __real_##name(file, address, size);                      \
        }                                                                   \
        int status = asked(file, &found);                                   \
        if (status == ROUSE_OK) {                                           \
            to_system(address, size, &found);                               \
        }                                                                   \
        return posix(status);                                               \
    }

WRAP_NAME(getsockname, os_local_address)
WRAP_NAME(getpeername, os_peer_address)

static int option_of(int level, int name)
{
    return level == SOL_SOCKET && name == SO_SNDBUF       ? ROUSE_OPTION_SEND_BUFFER
           : level == SOL_SOCKET && name == SO_RCVBUF     ? ROUSE_OPTION_RECEIVE_BUFFER
           : level == SOL_SOCKET && name == SO_KEEPALIVE  ? ROUSE_OPTION_KEEP_ALIVE
           : level == IPPROTO_TCP && name == TCP_NODELAY  ? ROUSE_OPTION_NO_DELAY
           : level == SOL_SOCKET && name == SO_REUSEADDR  ? ROUSE_OPTION_REUSE_ADDRESS
           : level == SOL_SOCKET && name == SO_REUSEPORT  ? ROUSE_OPTION_REUSE_PORT
           : level == IPPROTO_IPV6 && name == IPV6_V6ONLY ? ROUSE_OPTION_V6_ONLY
                                                          : 0;
}

int __real_getsockopt(int file, int level, int name, void *value, socklen_t *size);
int __wrap_getsockopt(int file, int level, int name, void *value, socklen_t *size);
int __wrap_getsockopt(int file, int level, int name, void *value, socklen_t *size)
{
    int option = option_of(level, name), status;
    if (!is_of_world(file)) {
        return __real_getsockopt(file, level, name, value, size);
    }
    *size = sizeof(int);
    if (level == SOL_SOCKET && name == SO_ERROR) {
        status = os_tcp_connect_result(file);
        *(int *)value = status == ROUSE_OK || status == ROUSE_PENDING ? 0 : error_of(status);
        return 0;
    }
    return option != 0 ? posix(os_option_get(file, option, value)) : fail_with(ENOPROTOOPT);
}

int __real_setsockopt(int file, int level, int name, const void *value, socklen_t size);
int __wrap_setsockopt(int file, int level, int name, const void *value, socklen_t size);
int __wrap_setsockopt(int file, int level, int name, const void *value, socklen_t size)
{
    int option = option_of(level, name);
    if (!is_of_world(file)) {
        return __real_setsockopt(file, level, name, value, size);
    }
    if (level == SOL_SOCKET && name == SO_LINGER) {
        const struct linger *linger = value;
        return posix(os_option_set(file, ROUSE_OPTION_LINGER, linger->l_onoff ? linger->l_linger : -1));
    }
    return option != 0 ? posix(os_option_set(file, option, *(const int *)value)) : fail_with(ENOPROTOOPT);
}

int __real_fcntl(int file, int verb, ...);
int __wrap_fcntl(int file, int verb, ...);
int __wrap_fcntl(int file, int verb, ...)
{
    va_list list;
    va_start(list, verb);
    long argument = va_arg(list, long); /* one that was not given is whatever its place holds, and not looked at */
    va_end(list);
    if (!is_of_world(file)) {
        return __real_fcntl(file, verb, argument);
    }
    switch (verb) {
    case F_GETFD:
        return FD_CLOEXEC;
    case F_SETFD:
        return 0;
    case F_GETFL:
        return O_RDWR | (is_blocking(file) ? 0 : O_NONBLOCK);
    case F_SETFL:
        return posix(os_set_nonblocking(file, ((int)argument & O_NONBLOCK) != 0, NULL));
    default:
        return fail_with(EINVAL);
    }
}

/* A connection of the world: it has no other sockets. */
int __real_socketpair(int family, int type, int protocol, int ends[2]);
int __wrap_socketpair(int family, int type, int protocol, int ends[2]);
int __wrap_socketpair(int family, int type, int protocol, int ends[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *any = (struct sockaddr *)&address;
    socklen_t size = sizeof address;
    if (!world_is_on()) {
        return __real_socketpair(family, type, protocol, ends);
    }
    if ((type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) != SOCK_STREAM) {
        return fail_with(EPROTONOSUPPORT);
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    require(bind(listener, any, size) == 0 && listen(listener, 1) == 0 && getsockname(listener, any, &size) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    require(connect(ends[0], any, size) == 0);
    ends[1] = accept(listener, NULL, NULL);
    require(ends[1] >= 0);
    for (int i = 0; i < 2; i++) {
        require_int(os_set_nonblocking(ends[i], (type & SOCK_NONBLOCK) != 0, NULL), ==, ROUSE_OK);
    }
    return close(listener);
}

int __real_close(int file);
int __wrap_close(int file);
int __wrap_close(int file)
{
    if (!is_of_world(file)) {
        return __real_close(file);
    }
    int status = os_close(file);
    settle();
    return posix(status);
}

/* ---- bytes ---- */

static ssize_t receive(int file, void *data, size_t length, int flags)
{
    struct pause pause = {0};
    ptrdiff_t count;
    if (flags & MSG_OOB) {
        return fail_with(EINVAL);
    }
    while ((count = flags & MSG_PEEK ? os_peek(file, OS_KIND_STREAM_SOCKET, data, length)
                                     : os_read(file, OS_KIND_STREAM_SOCKET, data, length)) == ROUSE_PENDING &&
           !(flags & MSG_DONTWAIT) && is_blocking(file)) {
        wait_a_little(&pause);
    }
    return count >= 0 ? count : posix(count);
}

/* As much as there is room for, or all where that may be waited for, as Linux does; SIGPIPE never comes. */
static ssize_t transmit(int file, const void *data, size_t length, int flags)
{
    struct pause pause = {0};
    const char *next = data;
    ssize_t sent = 0;
    if (flags & MSG_OOB) {
        return fail_with(EOPNOTSUPP);
    }
    for (;;) {
        ptrdiff_t count = os_write(file, OS_KIND_STREAM_SOCKET, next + sent, length - (size_t)sent);
        sent += count > 0 ? count : 0;
        if ((size_t)sent == length || (count < 0 && count != ROUSE_PENDING)) {
            settle();
            return sent > 0 || count >= 0 ? sent : posix(count);
        }
        if (count == ROUSE_PENDING) {
            if (flags & MSG_DONTWAIT || !is_blocking(file)) {
                settle();
                return sent > 0 ? sent : fail_with(EAGAIN);
            }
            wait_a_little(&pause);
        }
    }
}

ssize_t __real_recv(int file, void *data, size_t length, int flags);
ssize_t __wrap_recv(int file, void *data, size_t length, int flags);
ssize_t __wrap_recv(int file, void *data, size_t length, int flags)
{
    return is_of_world(file) ? receive(file, data, length, flags) : __real_recv(file, data, length, flags);
}

ssize_t __real_read(int file, void *data, size_t length);
ssize_t __wrap_read(int file, void *data, size_t length);
ssize_t __wrap_read(int file, void *data, size_t length)
{
    return is_of_world(file) ? receive(file, data, length, 0) : __real_read(file, data, length);
}

ssize_t __real_send(int file, const void *data, size_t length, int flags);
ssize_t __wrap_send(int file, const void *data, size_t length, int flags);
ssize_t __wrap_send(int file, const void *data, size_t length, int flags)
{
    return is_of_world(file) ? transmit(file, data, length, flags) : __real_send(file, data, length, flags);
}

ssize_t __real_write(int file, const void *data, size_t length);
ssize_t __wrap_write(int file, const void *data, size_t length);
ssize_t __wrap_write(int file, const void *data, size_t length)
{
    return is_of_world(file) ? transmit(file, data, length, 0) : __real_write(file, data, length);
}

static short events_of(int file, short wanted)
{
    int ready = sim_readiness(file);
    if (ready < 0) {
        return POLLNVAL;
    }
    return (short)((ready & BACKEND_READ ? wanted & POLLIN : 0) | (ready & BACKEND_WRITE ? wanted & POLLOUT : 0) |
                   (ready & BACKEND_HANGUP ? POLLHUP : 0));
}

/* All files are the world's, or none is. */
int __real_poll(struct pollfd *files, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *files, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *files, nfds_t count, int timeout)
{
    if (!world_is_on() || (count > 0 && !is_of_world(files[0].fd))) {
        return __real_poll(files, count, timeout);
    }
    struct pause pause = {0};
    int64_t end_ns = timeout < 0 ? ROUSE_NEVER : sim_now() + ROUSE_MS(timeout);
    for (;;) {
        int found = 0;
        for (nfds_t i = 0; i < count; i++) {
            files[i].revents = events_of(files[i].fd, files[i].events);
            found += files[i].revents != 0;
        }
        if (found > 0 || sim_now() >= end_ns) {
            return found;
        }
        wait_a_little(&pause);
    }
}

#else
typedef int posix_sim_is_empty; /* ISO C wants something in each file */
#endif
