#include "support/faults.h"

#include "support/harness.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#if FAULTS_BLOCKS_COUNTED

#include <sys/epoll.h>
#include <sys/eventfd.h>
#if FAULTS_KQUEUE
#include <sys/event.h>
#endif
#if defined(__GLIBC__)
#include <execinfo.h>
#else /* musl tells no stacks */
static int backtrace(void **frames, int count)
{
    (void)frames, (void)count;
    return 0;
}

static void backtrace_symbols_fd(void *const *frames, int count, int file)
{
    (void)frames, (void)count, (void)file;
}
#endif

/* All counters are relaxed: an order between threads that the wrappers made would hide races from ThreadSanitizer. */
#define LOAD(variable)         atomic_load_explicit(&(variable), memory_order_relaxed)
#define STORE(variable, value) atomic_store_explicit(&(variable), (value), memory_order_relaxed)
#define ADD(variable, value)   atomic_fetch_add_explicit(&(variable), (value), memory_order_relaxed)

static _Thread_local bool exempt;

bool faults_exempt(bool on)
{
    bool before = exempt;
    exempt = on;
    return before;
}

/* ---- live blocks -----------------------------------------------------------------------------------------------------
 *
 * A table of the blocks that are alive, by address: what libc allocated for the program (strdup ...) may be freed
 * through the wrapper too and is simply not in it. Its own memory comes from mmap, and addresses are kept inverted, so
 * that a leak checker neither sees the table as a leak nor takes its entries for references. */

#define SHARDS      64
#define BUCKETS     1024
#define FRAMES      10
#define CHUNK_BYTES 65536

struct block {
    struct block *next;
    uintptr_t hidden_address;
    size_t size;
    unsigned epoch;
    int depth;
    void *frames[FRAMES];
};

struct shard {
    atomic_flag busy;
    struct block *spare;
    struct block *buckets[BUCKETS];
};

#define TRACKING (!FAULTS_SANITIZED)

static struct shard shards[SHARDS];
static atomic_long blocks_alive;
static unsigned epoch; /* changes while one thread runs */
static int trace = -1;

#if !FAULTS_AVAILABLE
#define __real_mmap mmap
#else
void *__real_mmap(void *address, size_t length, int protection, int flags, int file, off_t offset);
#endif

static struct shard *lock_shard(size_t index)
{
    while (atomic_flag_test_and_set_explicit(&shards[index].busy, memory_order_acquire)) {
        sched_yield();
    }
    return &shards[index];
}

static void unlock_shard(struct shard *shard)
{
    atomic_flag_clear_explicit(&shard->busy, memory_order_release);
}

static void lock_all(void)
{
    for (size_t i = 0; i < SHARDS; i++) {
        lock_shard(i);
    }
}

static void unlock_all(void)
{
    for (size_t i = 0; i < SHARDS; i++) {
        unlock_shard(&shards[i]);
    }
}

/* A child that is forked while another thread holds a lock would wait for it for ever. */
__attribute__((constructor)) static void prepare_for_fork(void)
{
    pthread_atfork(lock_all, unlock_all, unlock_all);
}

static size_t hash(const void *memory)
{
    return (size_t)(((uint64_t)(uintptr_t)memory >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 40);
}

static void remember(void *memory, size_t size)
{
    if (!TRACKING || memory == NULL) {
        return;
    }
    size_t place = hash(memory);
    void *frames[FRAMES + 2];
    int depth = 0;
    if (trace > 0) {
        depth = backtrace(frames, FRAMES + 2) - 2;
    }
    struct shard *shard = lock_shard(place % SHARDS);
    if (shard->spare == NULL) {
        struct block *chunk =
            __real_mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        require(chunk != MAP_FAILED);
        for (size_t i = 0; i < CHUNK_BYTES / sizeof *chunk; i++) {
            chunk[i].next = shard->spare;
            shard->spare = &chunk[i];
        }
    }
    struct block *block = shard->spare;
    struct block **bucket = &shard->buckets[place / SHARDS % BUCKETS];
    shard->spare = block->next;
    block->next = *bucket;
    *bucket = block;
    block->hidden_address = ~(uintptr_t)memory;
    block->size = size;
    block->epoch = epoch;
    block->depth = depth > 0 ? depth : 0;
    for (int i = 0; i < block->depth; i++) {
        block->frames[i] = frames[i + 2];
    }
    unlock_shard(shard);
    ADD(blocks_alive, 1);
}

static void forget(const void *memory)
{
    if (!TRACKING || memory == NULL) {
        return;
    }
    size_t place = hash(memory);
    struct shard *shard = lock_shard(place % SHARDS);
    struct block **link = &shard->buckets[place / SHARDS % BUCKETS];
    while (*link != NULL && (*link)->hidden_address != ~(uintptr_t)memory) {
        link = &(*link)->next;
    }
    struct block *block = *link;
    bool counts = false;
    if (block != NULL) {
        *link = block->next;
        counts = block->epoch == epoch;
        block->next = shard->spare;
        shard->spare = block;
    }
    unlock_shard(shard);
    if (counts) {
        ADD(blocks_alive, -1);
    }
}

void faults_blocks_begin(void)
{
    if (trace < 0) {
        const char *wish = getenv("ROUSE_TEST_TRACE");
        trace = wish != NULL && strcmp(wish, "1") == 0;
    }
    epoch++;
    STORE(blocks_alive, 0);
}

size_t faults_blocks_alive(void)
{
    long alive = LOAD(blocks_alive);
    return alive > 0 ? (size_t)alive : 0;
}

void faults_blocks_report(void)
{
    int shown = 0;
    for (size_t i = 0; i < SHARDS * BUCKETS; i++) {
        for (struct block *block = shards[i % SHARDS].buckets[i / SHARDS]; block != NULL; block = block->next) {
            if (block->epoch != epoch || shown++ >= 20) {
                continue;
            }
            dprintf(2, "%s: a block of %zu bytes at %p was left%s\n", test_name(), block->size,
                    (void *)~block->hidden_address, trace > 0 ? ", allocated at" : "");
            backtrace_symbols_fd(block->frames, block->depth, 2);
        }
    }
    if (trace <= 0) {
        dprintf(2, "ROUSE_TEST_TRACE=1 shows where they were allocated\n");
    }
}

/* ---- allocations ---- */

static atomic_ulong alloc_count, alloc_hits, alloc_failing;
static atomic_bool alloc_sticky;
static _Thread_local bool alloc_forbidden;

void faults_fail_alloc(unsigned long n, bool sticky)
{
    STORE(alloc_failing, 0);
    STORE(alloc_count, 0);
    STORE(alloc_hits, 0);
    STORE(alloc_sticky, sticky);
    STORE(alloc_failing, n);
}

unsigned long faults_alloc_count(void)
{
    return LOAD(alloc_count);
}

unsigned long faults_alloc_hit(void)
{
    return LOAD(alloc_hits);
}

void faults_forbid_alloc(bool forbid)
{
    alloc_forbidden = forbid;
}

static struct faults_sweep *swept;

void faults_sweep_begin(struct faults_sweep *sweep)
{
    swept = sweep;
}

static uint64_t place_of_call(void)
{
    enum { DEPTH = 10, OWN = 3 };
    void *frames[DEPTH + OWN];
    uint64_t place = 0;
    int depth = backtrace(frames, DEPTH + OWN);
    for (int i = OWN; i < depth; i++) {
        place = (place ^ (uintptr_t)frames[i]) * UINT64_C(0x9e3779b97f4a7c15);
    }
    return place;
}

static bool sweep_hits(void)
{
    struct faults_sweep *sweep = swept;
    if (sweep == NULL) {
        return false;
    }
    unsigned long number = ADD(sweep->count, 1) + 1;
    if (sweep->recording && number <= FAULTS_PLACES) {
        exempt = true;
        uint64_t place = place_of_call();
        sweep->places[number - 1] = place != 0 ? place : number; /* where stacks are not told each is a place */
        exempt = false;
    }
    if (sweep->failing == 0 || number < sweep->failing || (number > sweep->failing && !sweep->sticky)) {
        return false;
    }
    ADD(sweep->hits, 1);
    errno = ENOMEM;
    return true;
}

static bool allocation_fails(void)
{
    if (!FAULTS_AVAILABLE || exempt) {
        return false;
    }
    if (alloc_forbidden) {
        void *frames[24];
        alloc_forbidden = false;
        exempt = true;
        backtrace_symbols_fd(frames, backtrace(frames, 24), 2);
        require(alloc_forbidden && "an allocation where none is allowed");
    }
    unsigned long failing = LOAD(alloc_failing), number = ADD(alloc_count, 1) + 1;
    if (failing == 0 || number < failing || (number > failing && !LOAD(alloc_sticky))) {
        return sweep_hits();
    }
    ADD(alloc_hits, 1);
    errno = ENOMEM;
    return true;
}

#define WRAP_ALLOC(name, parameters, arguments, size)                       \
    void *__real_##name parameters;                                         \
    void *__wrap_##name parameters;                                         \
    void *__wrap_##name parameters                                          \
    {                                                                       \
        void *memory = allocation_fails() ? NULL : __real_##name arguments; \
        remember(memory, (size));                                           \
        return memory;                                                      \
    }

WRAP_ALLOC(malloc, (size_t size), (size), size)
WRAP_ALLOC(calloc, (size_t count, size_t size), (count, size), count *size)
WRAP_ALLOC(aligned_alloc, (size_t alignment, size_t size), (alignment, size), size)

int __real_posix_memalign(void **memory, size_t alignment, size_t size);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size)
{
    int error = allocation_fails() ? ENOMEM : __real_posix_memalign(memory, alignment, size);
    if (error == 0) {
        remember(*memory, size);
    }
    return error;
}

void __real_free(void *memory);
void __wrap_free(void *memory);
void __wrap_free(void *memory)
{
    /* Before it is freed: another thread may get the address at once. */
    forget(memory);
    __real_free(memory);
}

void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size)
{
    if (allocation_fails()) {
        return NULL;
    }
    forget(memory);
    void *larger = __real_realloc(memory, size);
    remember(larger == NULL && size > 0 ? memory : larger, size);
    return larger;
}

void *__wrap_reallocarray(void *memory, size_t count, size_t size);
void *__wrap_reallocarray(void *memory, size_t count, size_t size)
{
    if (size > 0 && count > SIZE_MAX / size) {
        errno = ENOMEM;
        return NULL;
    }
    return __wrap_realloc(memory, count * size);
}

#endif

#if FAULTS_AVAILABLE

/* ---- system calls ----------------------------------------------------------------------------------------------------
 *
 * CALL(type, name, parameters, arguments) answers -1 with errno when it is made to fail; MOVES also shortens `length`
 * when it is clamped. Those that differ are written out further down and only named here. */

#define LENGTH_CALLS(MOVES)                                                                             \
    MOVES(ssize_t, read, (int file, void *data, size_t length), (file, data, length))                   \
    MOVES(ssize_t, write, (int file, const void *data, size_t length), (file, data, length))            \
    MOVES(ssize_t, recv, (int file, void *data, size_t length, int flags), (file, data, length, flags)) \
    MOVES(ssize_t, send, (int file, const void *data, size_t length, int flags), (file, data, length, flags))

#define PLAIN_CALLS(CALL)                                                                                              \
    CALL(int, socket, (int family, int type, int protocol), (family, type, protocol))                                  \
    CALL(int, bind, (int file, const struct sockaddr *address, socklen_t size), (file, address, size))                 \
    CALL(int, listen, (int file, int backlog), (file, backlog))                                                        \
    CALL(int, accept, (int file, struct sockaddr *address, socklen_t *size), (file, address, size))                    \
    CALL(int, accept4, (int file, struct sockaddr *address, socklen_t *size, int flags), (file, address, size, flags)) \
    CALL(int, shutdown, (int file, int how), (file, how))                                                              \
    CALL(int, epoll_create1, (int flags), (flags))                                                                     \
    CALL(int, epoll_ctl, (int set, int verb, int file, struct epoll_event *event), (set, verb, file, event))           \
    CALL(int, epoll_wait, (int set, struct epoll_event *events, int count, int timeout),                               \
         (set, events, count, timeout))                                                                                \
    CALL(int, eventfd, (unsigned count, int flags), (count, flags))                                                    \
    CALL(int, pipe2, (int files[2], int flags), (files, flags))                                                        \
    CALL(int, getsockopt, (int file, int level, int name, void *value, socklen_t *size),                               \
         (file, level, name, value, size))                                                                             \
    CALL(int, setsockopt, (int file, int level, int name, const void *value, socklen_t size),                          \
         (file, level, name, value, size))                                                                             \
    CALL(int, getsockname, (int file, struct sockaddr *address, socklen_t *size), (file, address, size))               \
    CALL(int, getpeername, (int file, struct sockaddr *address, socklen_t *size), (file, address, size))               \
    CALL(void *, mmap, (void *address, size_t length, int protection, int flags, int file, off_t offset),              \
         (address, length, protection, flags, file, offset))                                                           \
    CALL(int, munmap, (void *address, size_t length), (address, length))                                               \
    CALL(int, mprotect, (void *address, size_t length, int protection), (address, length, protection))                 \
    CALL(int, madvise, (void *address, size_t length, int advice), (address, length, advice))                          \
    CALL(int, sigaction, (int signal, const struct sigaction *action, struct sigaction *before),                       \
         (signal, action, before))                                                                                     \
    CALL(int, poll, (struct pollfd * files, nfds_t count, int timeout), (files, count, timeout))                       \
    CALL(int, ppoll, (struct pollfd * files, nfds_t count, const struct timespec *timeout, const sigset_t *mask),      \
         (files, count, timeout, mask))

#define OTHER_CALLS(CALL)      \
    CALL(, close, , )          \
    CALL(, connect, , )        \
    CALL(, readv, , )          \
    CALL(, writev, , )         \
    CALL(, recvmsg, , )        \
    CALL(, sendmsg, , )        \
    CALL(, epoll_pwait2, , )   \
    CALL(, kqueue, , )         \
    CALL(, kevent_change, , )  \
    CALL(, kevent_wake, , )    \
    CALL(, kevent_wait, , )    \
    CALL(, fcntl, , )          \
    CALL(, ioctl, , )          \
    CALL(, syscall, , )        \
    CALL(, pthread_create, , ) \
    CALL(, clock_gettime, , )

enum call_index {
#define ENUM_CALL(type, name, parameters, arguments) CALL_##name,
    LENGTH_CALLS(ENUM_CALL) PLAIN_CALLS(ENUM_CALL) OTHER_CALLS(ENUM_CALL) CALLS
#undef ENUM_CALL
};

static struct call {
    const char *name;
    atomic_uint_fast64_t count, hits;
    atomic_uint_fast64_t first, last; /* numbers of the calls that fail; first 0: none */
    atomic_int error;
    atomic_size_t clamp;
} calls[CALLS] = {
#define NAME_CALL(type, call, parameters, arguments) {.name = #call},
    LENGTH_CALLS(NAME_CALL) PLAIN_CALLS(NAME_CALL) OTHER_CALLS(NAME_CALL)
#undef NAME_CALL
};

static atomic_int_fast64_t clock_offset;

/* What backends call differently. */
static const char *real_name(const char *name)
{
    static const char *const names[][3] = {
        {"set_open", "epoll_create1", "kqueue"},
        {"set_change", "epoll_ctl", "kevent_change"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i][0], name) == 0) {
            return names[i][FAULTS_KQUEUE ? 2 : 1];
        }
    }
    return name;
}

static struct call *call_named(const char *name)
{
    name = real_name(name);
    for (size_t i = 0; i < CALLS; i++) {
        if (strcmp(calls[i].name, name) == 0) {
            return &calls[i];
        }
    }
    dprintf(2, "there is no wrapped call named %s\n", name);
    abort();
}

/* Counts the call. Answers the error that it must fail with, or 0. */
static int injected(enum call_index index)
{
    struct call *call = &calls[index];
    if (exempt) {
        return 0;
    }
    uint64_t number = ADD(call->count, 1) + 1, first = LOAD(call->first);
    if (first == 0 || number < first || number > LOAD(call->last)) {
        return 0;
    }
    ADD(call->hits, 1);
    return LOAD(call->error);
}

static size_t clamped(enum call_index index, size_t length)
{
    struct call *call = &calls[index];
    size_t most = exempt ? 0 : LOAD(call->clamp);
    if (most == 0 || length == 0) {
        return length;
    }
    uint64_t random = (LOAD(call->count) * UINT64_C(0x9e3779b97f4a7c15)) >> 33;
    size_t allowed = 1 + (size_t)(random % most);
    return allowed < length ? allowed : length;
}

#define WRAP_PLAIN(type, name, parameters, arguments) \
    type __real_##name parameters;                    \
    type __wrap_##name parameters;                    \
    type __wrap_##name parameters                     \
    {                                                 \
        int error = injected(CALL_##name);            \
        if (error != 0) {                             \
            errno = error;                            \
            return (type)(intptr_t)-1;                \
        }                                             \
        return __real_##name arguments;               \
    }

#define WRAP_LENGTH(type, name, parameters, arguments) \
    type __real_##name parameters;                     \
    type __wrap_##name parameters;                     \
    type __wrap_##name parameters                      \
    {                                                  \
        int error = injected(CALL_##name);             \
        if (error != 0) {                              \
            errno = error;                             \
            return -1;                                 \
        }                                              \
        length = clamped(CALL_##name, length);         \
        return __real_##name arguments;                \
    }

LENGTH_CALLS(WRAP_LENGTH)
PLAIN_CALLS(WRAP_PLAIN)

int __real_close(int file);
int __wrap_close(int file);
int __wrap_close(int file)
{
    int error = injected(CALL_close), result = __real_close(file);
    if (error != 0) {
        errno = error;
        return -1;
    }
    return result;
}

int __real_connect(int file, const struct sockaddr *address, socklen_t size);
int __wrap_connect(int file, const struct sockaddr *address, socklen_t size);
int __wrap_connect(int file, const struct sockaddr *address, socklen_t size)
{
    int error = injected(CALL_connect);
    if (error == 0 || error == EINTR || error == EINPROGRESS) {
        int result = __real_connect(file, address, size);
        if (error == 0) {
            return result;
        }
    }
    errno = error;
    return -1;
}

#define MAX_PIECES 1024

/* Copies the pieces that make up the clamped length; answers how many. */
static int clamp_pieces(enum call_index index, struct iovec *copy, const struct iovec *pieces, int count)
{
    size_t total = 0, left;
    int used = 0;
    for (int i = 0; i < count; i++) {
        total += pieces[i].iov_len;
    }
    left = clamped(index, total);
    for (; used < count && left > 0; used++) {
        copy[used] = pieces[used];
        if (copy[used].iov_len > left) {
            copy[used].iov_len = left;
        }
        left -= copy[used].iov_len;
    }
    return used;
}

#define WRAP_PIECES(name)                                                                        \
    ssize_t __real_##name(int file, const struct iovec *pieces, int count);                      \
    ssize_t __wrap_##name(int file, const struct iovec *pieces, int count);                      \
    ssize_t __wrap_##name(int file, const struct iovec *pieces, int count)                       \
    {                                                                                            \
        struct iovec copy[MAX_PIECES];                                                           \
        int error = injected(CALL_##name);                                                       \
        if (error != 0) {                                                                        \
            errno = error;                                                                       \
            return -1;                                                                           \
        }                                                                                        \
        if (exempt || LOAD(calls[CALL_##name].clamp) == 0 || count <= 0 || count > MAX_PIECES) { \
            return __real_##name(file, pieces, count);                                           \
        }                                                                                        \
        return __real_##name(file, copy, clamp_pieces(CALL_##name, copy, pieces, count));        \
    }

WRAP_PIECES(readv)
WRAP_PIECES(writev)

#define WRAP_MESSAGE(name, constant)                                                                              \
    ssize_t __real_##name(int file, constant struct msghdr *message, int flags);                                  \
    ssize_t __wrap_##name(int file, constant struct msghdr *message, int flags);                                  \
    ssize_t __wrap_##name(int file, constant struct msghdr *message, int flags)                                   \
    {                                                                                                             \
        struct iovec copy[MAX_PIECES];                                                                            \
        struct msghdr shorter = *message;                                                                         \
        int error = injected(CALL_##name);                                                                        \
        if (error != 0) {                                                                                         \
            errno = error;                                                                                        \
            return -1;                                                                                            \
        }                                                                                                         \
        if (exempt || LOAD(calls[CALL_##name].clamp) == 0 || message->msg_iovlen > MAX_PIECES) {                  \
            return __real_##name(file, message, flags);                                                           \
        }                                                                                                         \
        shorter.msg_iov = copy;                                                                                   \
        shorter.msg_iovlen = (size_t)clamp_pieces(CALL_##name, copy, message->msg_iov, (int)message->msg_iovlen); \
        return __real_##name(file, &shorter, flags);                                                              \
    }

WRAP_MESSAGE(recvmsg, )
WRAP_MESSAGE(sendmsg, const)

/* Weak: C libraries before glibc 2.35 have none. */
__attribute__((weak)) int __real_epoll_pwait2(int set, struct epoll_event *events, int count,
                                              const struct timespec *timeout, const sigset_t *mask);
int __wrap_epoll_pwait2(int set, struct epoll_event *events, int count, const struct timespec *timeout,
                        const sigset_t *mask);
int __wrap_epoll_pwait2(int set, struct epoll_event *events, int count, const struct timespec *timeout,
                        const sigset_t *mask)
{
    int error = injected(CALL_epoll_pwait2);
    if (error == 0 && __real_epoll_pwait2 == NULL) {
        error = ENOSYS;
    }
    if (error != 0) {
        errno = error;
        return -1;
    }
    return __real_epoll_pwait2(set, events, count, timeout, mask);
}

#if FAULTS_KQUEUE

int __real_kqueue(void);
int __wrap_kqueue(void);
int __wrap_kqueue(void)
{
    int error = injected(CALL_kqueue);
    if (error != 0) {
        errno = error;
        return -1;
    }
    return __real_kqueue();
}

/* Three in one. */
int __real_kevent(int queue, const struct kevent *changes, int change_count, struct kevent *events, int event_count,
                  const struct timespec *timeout);
int __wrap_kevent(int queue, const struct kevent *changes, int change_count, struct kevent *events, int event_count,
                  const struct timespec *timeout);
int __wrap_kevent(int queue, const struct kevent *changes, int change_count, struct kevent *events, int event_count,
                  const struct timespec *timeout)
{
    int error = injected(change_count == 0                ? CALL_kevent_wait
                         : changes->filter == EVFILT_USER ? CALL_kevent_wake
                                                          : CALL_kevent_change);
    if (error != 0) {
        errno = error;
        return -1;
    }
    return __real_kevent(queue, changes, change_count, events, event_count, timeout);
}

#endif

/* Variadic calls: an argument that was not given is passed on as whatever its place holds and not looked at. */
#define WRAP_VARIADIC(name, second)                 \
    int __real_##name(int file, second verb, ...);  \
    int __wrap_##name(int file, second verb, ...);  \
    int __wrap_##name(int file, second verb, ...)   \
    {                                               \
        va_list list;                               \
        int error = injected(CALL_##name);          \
        va_start(list, verb);                       \
        void *argument = va_arg(list, void *);      \
        va_end(list);                               \
        if (error != 0) {                           \
            errno = error;                          \
            return -1;                              \
        }                                           \
        return __real_##name(file, verb, argument); \
    }

WRAP_VARIADIC(fcntl, int)
WRAP_VARIADIC(ioctl, unsigned long)

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list list;
    long arguments[6];
    int error = injected(CALL_syscall);
    va_start(list, number);
    for (int i = 0; i < 6; i++) {
        arguments[i] = va_arg(list, long);
    }
    va_end(list);
    if (error != 0) {
        errno = error;
        return -1;
    }
    return __real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument)
{
    int error = injected(CALL_pthread_create);
    return error != 0 ? error : __real_pthread_create(thread, attributes, body, argument);
}

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    int error = injected(CALL_clock_gettime);
    if (error != 0) {
        errno = error;
        return -1;
    }
    int result = __real_clock_gettime(clock, now);
    int64_t offset = exempt ? 0 : LOAD(clock_offset);
    if (result == 0 && offset != 0 &&
        (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_MONOTONIC_RAW ||
         clock == CLOCK_BOOTTIME)) {
        int64_t moved = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + offset;
        now->tv_sec = (time_t)(moved / 1000000000);
        now->tv_nsec = (long)(moved % 1000000000);
    }
    return result;
}

void faults_syscall(const char *name, uint64_t nth, int error, uint64_t times)
{
    struct call *call = call_named(name);
    STORE(call->first, 0);
    if (nth == 0 || times == 0) {
        return;
    }
    uint64_t first = LOAD(call->count) + nth;
    STORE(call->error, error);
    STORE(call->last, times > UINT64_MAX - first ? UINT64_MAX : first + times - 1);
    STORE(call->first, first);
}

uint64_t faults_syscall_count(const char *name)
{
    return LOAD(call_named(name)->count);
}

uint64_t faults_syscall_hit(const char *name)
{
    return LOAD(call_named(name)->hits);
}

void faults_clamp(const char *name, size_t most)
{
    STORE(call_named(name)->clamp, most);
}

void faults_clock_step(int64_t span_ns)
{
    ADD(clock_offset, span_ns);
}

void faults_reset(void)
{
    faults_fail_alloc(0, false);
    faults_forbid_alloc(false);
    for (size_t i = 0; i < CALLS; i++) {
        STORE(calls[i].first, 0);
        STORE(calls[i].count, 0);
        STORE(calls[i].hits, 0);
        STORE(calls[i].clamp, 0);
    }
    STORE(clock_offset, 0);
}

/* ---- each failure in turn ---- */

#define RUN_LIMIT_NS (INT64_C(10000000000) * (test_is_slow() ? 6 : 1))
#define RUNS_MAX     100000

struct run {
    void (*scenario)(void *argument);
    void *argument;
    const char *call; /* NULL: allocations fail */
    int error;
    bool sticky;
    unsigned long number;
    volatile unsigned long *hits; /* in memory that the child shares */
};

static void run_with_failure(void *argument)
{
    const struct run *run = argument;
    if (run->call == NULL) {
        faults_fail_alloc(run->number, run->sticky);
    } else {
        faults_syscall(run->call, run->number, run->error, run->sticky ? FAULTS_ALWAYS : 1);
    }
    run->scenario(run->argument);
    *run->hits = run->call == NULL ? faults_alloc_hit() : (unsigned long)faults_syscall_hit(run->call);
}

static unsigned long run_each(struct run *run)
{
    test_needs_all_memory("makes calls fail itself, one after the other");
    const char *what = run->call == NULL ? "allocation" : run->call;
    run->hits = __real_mmap(NULL, sizeof *run->hits, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(run->hits != MAP_FAILED);
    /* Under valgrind and emulators a run takes so long that after the first ones every seventh place must do; the
     * sanitizers see them all. */
    unsigned long step = test_is_valgrind() || test_is_emulated() ? 7 : 1;
    for (run->number = 1; run->number < RUNS_MAX; run->number += run->number < 16 ? 1 : step) {
        *run->hits = 0;
        int status = test_in_child(run_with_failure, run, RUN_LIMIT_NS);
        if (status != 0) {
            dprintf(2, "%s: with %s %lu failing%s: %s %d\n", test_name(), what, run->number,
                    run->sticky ? ", and all later ones" : "", WIFSIGNALED(status) ? "signal" : "status",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
            abort();
        }
        if (*run->hits == 0) {
            break;
        }
    }
    __real_munmap((void *)run->hits, sizeof *run->hits);
    return run->number - 1; /* with a greater step, up to six more than there are */
}

unsigned long test_each_failing_allocation(void (*scenario)(void *argument), void *argument)
{
    struct run run = {scenario, argument, NULL, 0, true, 0, NULL};
    run_each(&run);
    run.sticky = false;
    return run_each(&run);
}

unsigned long test_each_failing_call(const char *name, int error, void (*scenario)(void *argument), void *argument)
{
    struct run run = {scenario, argument, name, error, false, 0, NULL};
    return run_each(&run);
}

#else

void faults_reset(void) {}

unsigned long test_each_failing_allocation(void (*scenario)(void *argument), void *argument)
{
    (void)scenario, (void)argument;
    return 0;
}

unsigned long test_each_failing_call(const char *name, int error, void (*scenario)(void *argument), void *argument)
{
    (void)name, (void)error, (void)scenario, (void)argument;
    return 0;
}

void faults_syscall(const char *name, uint64_t nth, int error, uint64_t times)
{
    (void)name, (void)nth, (void)error, (void)times;
}

uint64_t faults_syscall_count(const char *name)
{
    return (uint64_t)(name == NULL);
}

uint64_t faults_syscall_hit(const char *name)
{
    return (uint64_t)(name == NULL);
}

void faults_clamp(const char *name, size_t most)
{
    (void)name, (void)most;
}

void faults_clock_step(int64_t span_ns)
{
    (void)span_ns;
}

#endif

#if !FAULTS_BLOCKS_COUNTED

bool faults_exempt(bool on)
{
    return on;
}

void faults_fail_alloc(unsigned long n, bool sticky)
{
    (void)n, (void)sticky;
}

unsigned long faults_alloc_count(void)
{
    return 0;
}

unsigned long faults_alloc_hit(void)
{
    return 0;
}

void faults_forbid_alloc(bool forbid)
{
    (void)forbid;
}

void faults_blocks_begin(void) {}

size_t faults_blocks_alive(void)
{
    return 0;
}

void faults_blocks_report(void) {}

#endif
