/* What the machine itself allows: the floors under the scheduler benchmarks.
 * usage: sched_raw REPEATS [filter...] */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <ucontext.h>
#include "../bench.h"

static int repeats;
static char **filters;
static bool wanted(const char *b)
{
    if (!*filters)
        return true;
    for (char **f = filters; *f; f++)
        if (strstr(b, *f))
            return true;
    return false;
}
/* BENCH(name, ops) { body } runs the body `repeats` times and reports ns per op */
#define BENCH(name, ops, ...)                  \
    if (wanted(name)) {                        \
        static meter m_;                       \
        for (int r_ = 0; r_ < repeats; r_++) { \
            meter_start(&m_);                  \
            __VA_ARGS__                        \
            meter_stop(&m_, (double)(ops));    \
        }                                      \
        meter_report(&m_, "raw", name);        \
    }
#define KEEP(p) __asm__ volatile("" : : "r"(p) : "memory")

/* ---- a bare intrusive FIFO of poll functions ---- */
typedef struct task {
    struct task *next;
    bool (*poll)(struct task *);
    uint64_t left;
    char pad[104];
} task;
static task *q_head, **q_tail = &q_head;
static void q_push(task *t)
{
    t->next = NULL;
    *q_tail = t;
    q_tail = &t->next;
}
static task *q_pop(void)
{
    task *t = q_head;
    if (t && !(q_head = t->next))
        q_tail = &q_head;
    return t;
}
static uint64_t counter;
static bool poll_again(task *t)
{
    counter++;
    return --t->left != 0;
}
static bool poll_once(task *t)
{
    (void)t;
    counter++;
    return false;
}
static void run_queue(bool release)
{
    for (task *t; (t = q_pop());) {
        if (t->poll(t))
            q_push(t);
        else if (release)
            free(t);
    }
}
static task *pool; /* the same with a free list instead of malloc */
static task *pool_get(void)
{
    task *t = pool;
    if (t)
        pool = t->next;
    else
        t = malloc(sizeof *t);
    return t;
}
static void run_queue_pooled(void)
{
    for (task *t; (t = q_pop());) {
        if (t->poll(t)) {
            q_push(t);
            continue;
        }
        t->next = pool;
        pool = t;
    }
}

/* ---- a bare coroutine switch: callee saved registers and the stack pointer ---- */
#if defined(__x86_64__)
void raw_switch(void **save, void *load);
__asm__(".text\n.p2align 4\nraw_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
/* the same, resumed by an indirect jump: a `ret` to another stack's address is always mispredicted */
void raw_switch_jmp(void **save, void *load);
__asm__(".text\n.p2align 4\nraw_switch_jmp:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\npop %rcx\njmp *%rcx\n");
static void *main_sp, *co_sp;
static void co_body(void)
{
    for (;;) {
        counter++;
        raw_switch(&co_sp, main_sp);
    }
}
static void co_body_jmp(void)
{
    for (;;) {
        counter++;
        raw_switch_jmp(&co_sp, main_sp);
    }
}
static void *co_make(void (*body)(void), char *stack, size_t size)
{
    void **sp = (void **)(stack + size);
    *--sp = NULL;
    *--sp = (void *)body;
    for (int i = 0; i < 6; i++)
        *--sp = NULL;
    return sp;
}
#endif
static ucontext_t uc_main, uc_co;
static void uc_body(void)
{
    for (;;)
        swapcontext(&uc_co, &uc_main);
}

/* ---- two threads ---- */
static _Atomic int turn;
static void futex_wait(_Atomic int *a, int v)
{
    syscall(SYS_futex, a, FUTEX_WAIT_PRIVATE, v, NULL, NULL, 0);
}
static void futex_wake(_Atomic int *a)
{
    syscall(SYS_futex, a, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
enum { PING_FUTEX, PING_SPIN, PING_EVENTFD };
static int ping_kind, ping_n, efd[2];
static void ping_side(int me)
{
    for (int i = 0; i < ping_n; i++) {
        if (ping_kind == PING_EVENTFD) {
            uint64_t v = 1;
            if (me == 0) {
                if (write(efd[0], &v, 8) != 8 || read(efd[1], &v, 8) != 8)
                    abort();
            } else if (read(efd[0], &v, 8) != 8 || write(efd[1], &(uint64_t){1}, 8) != 8)
                abort();
            continue;
        }
        while (atomic_load(&turn) != me)
            if (ping_kind == PING_FUTEX)
                futex_wait(&turn, !me);
        atomic_store(&turn, !me);
        if (ping_kind == PING_FUTEX)
            futex_wake(&turn);
    }
}
static void *ping_thread(void *a)
{
    (void)a;
    ping_side(1);
    return NULL;
}
static void ping(int kind, int n)
{
    pthread_t t;
    ping_kind = kind, ping_n = n, turn = 0;
    efd[0] = eventfd(0, 0), efd[1] = eventfd(0, 0);
    pthread_create(&t, NULL, ping_thread, NULL);
    ping_side(0);
    pthread_join(t, NULL);
    close(efd[0]);
    close(efd[1]);
}
static pthread_mutex_t mtx = PTHREAD_MUTEX_INITIALIZER;
static void *mutex_thread(void *a)
{
    for (long i = 0, n = (long)a; i < n; i++) {
        pthread_mutex_lock(&mtx);
        counter++;
        pthread_mutex_unlock(&mtx);
    }
    return NULL;
}

/* ---- timers: a hierarchical wheel (6 bits a level) and a 4-ary heap ---- */
typedef struct tm_node {
    struct tm_node *prev, *next;
    uint64_t when;
    uint32_t pos;
} tm_node;
enum { LEVELS = 6, WSLOTS = 64 };
static tm_node wheel[LEVELS][WSLOTS];
static uint64_t occupied[LEVELS];
static void wheel_init(void)
{
    for (int l = 0; l < LEVELS; l++)
        for (int s = 0; s < WSLOTS; s++)
            wheel[l][s].prev = wheel[l][s].next = &wheel[l][s];
}
static void wheel_add(tm_node *t, uint64_t now)
{
    uint64_t diff = (t->when ^ now) | (WSLOTS - 1);
    int level = (63 - __builtin_clzll(diff)) / 6;
    unsigned slot = (unsigned)(t->when >> (level * 6)) % WSLOTS;
    tm_node *h = &wheel[level][slot];
    t->prev = h->prev, t->next = h, h->prev->next = t, h->prev = t;
    occupied[level] |= 1ull << slot;
    t->pos = (uint32_t)level * WSLOTS + slot;
}
static void wheel_del(tm_node *t)
{
    t->prev->next = t->next;
    t->next->prev = t->prev;
    tm_node *h = &wheel[0][0] + t->pos;
    if (h->next == h)
        occupied[t->pos / WSLOTS] &= ~(1ull << t->pos % WSLOTS);
}
static tm_node **heap;
static uint32_t heap_n;
static void heap_set(uint32_t i, tm_node *t)
{
    heap[i] = t;
    t->pos = i;
}
static void heap_up(uint32_t i)
{
    tm_node *t = heap[i];
    for (; i && heap[(i - 1) / 4]->when > t->when; i = (i - 1) / 4)
        heap_set(i, heap[(i - 1) / 4]);
    heap_set(i, t);
}
static void heap_down(uint32_t i)
{
    tm_node *t = heap[i];
    for (;;) {
        uint32_t c = 4 * i + 1, best = c;
        if (c >= heap_n)
            break;
        for (uint32_t k = c + 1; k < c + 4 && k < heap_n; k++)
            if (heap[k]->when < heap[best]->when)
                best = k;
        if (heap[best]->when >= t->when)
            break;
        heap_set(i, heap[best]);
        i = best;
    }
    heap_set(i, t);
}
static void heap_del(tm_node *t)
{
    uint32_t i = t->pos;
    tm_node *last = heap[--heap_n];
    if (last == t)
        return;
    heap_set(i, last);
    heap_up(i);
    heap_down(last->pos);
}

/* ---- lateness of a 1 ms sleep ---- */
static void lateness(const char *name, int kind)
{
    if (!wanted(name))
        return;
    enum { N = 500 };
    static double late[N];
    int ep = epoll_create1(0), tfd = timerfd_create(CLOCK_MONOTONIC, 0);
    struct epoll_event ev = {.events = EPOLLIN};
    if (kind == 3)
        epoll_ctl(ep, EPOLL_CTL_ADD, tfd, &ev);
    for (int i = 0; i < N; i++) {
        uint64_t t0 = now_ns();
        struct timespec ts = {0, 1000000};
        if (kind == 0)
            nanosleep(&ts, NULL);
        else if (kind == 1)
            epoll_wait(ep, &ev, 1, 1);
        else if (kind == 2)
            epoll_pwait2(ep, &ev, 1, &ts, NULL);
        else {
            struct itimerspec it = {.it_value = ts};
            uint64_t v;
            timerfd_settime(tfd, 0, &it, NULL);
            epoll_wait(ep, &ev, 1, -1);
            if (read(tfd, &v, 8) != 8)
                abort();
        }
        late[i] = ((double)(now_ns() - t0) - 1e6) / 1000;
    }
    qsort(late, N, sizeof(double), cmp_double);
    char b[64];
    snprintf(b, sizeof b, "%s_p50", name);
    value_report("raw", b, late[N / 2], late[N / 2], "us");
    snprintf(b, sizeof b, "%s_p99", name);
    value_report("raw", b, late[N * 99 / 100], late[N * 99 / 100], "us");
    close(ep);
    close(tfd);
}
static void tcp_pair(int s[2])
{
    int l = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    if (bind(l, (void *)&a, n) || listen(l, 1) || getsockname(l, (void *)&a, &n))
        abort();
    s[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s[0], (void *)&a, n))
        abort();
    s[1] = accept(l, NULL, NULL);
    for (int i = 0; i < 2; i++)
        setsockopt(s[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(l);
}

int main(int argc, char **argv)
{
    repeats = argc > 1 ? atoi(argv[1]) : 5;
    filters = argv + (argc > 1 ? 2 : 1);
    enum { M = 1000000, K = 100000 };
    static void *ptr[M];

    BENCH(
        "malloc_free_64", M, for (int i = 0; i < M; i++) {
            void *p = malloc(64);
            KEEP(p);
            free(p);
        })
    BENCH(
        "malloc_free_192", M, for (int i = 0; i < M; i++) {
            void *p = malloc(192);
            KEEP(p);
            free(p);
        })
    BENCH(
        "malloc100k_free100k_128", K, for (int i = 0; i < K; i++) {
            ptr[i] = malloc(128);
            *(char *)ptr[i] = 1;
        } for (int i = 0; i < K; i++) free(ptr[i]);)
    BENCH(
        "malloc1m_free1m_128", M, for (int i = 0; i < M; i++) {
            ptr[i] = malloc(128);
            *(char *)ptr[i] = 1;
        } for (int i = 0; i < M; i++) free(ptr[i]);)
    _Atomic uint64_t at = 0;
    BENCH("atomic_add", 10 * M, for (int i = 0; i < 10 * M; i++) atomic_fetch_add(&at, 1);)
    BENCH("mutex_lock_unlock", M, mutex_thread((void *)(long)M);)
    BENCH("mutex_2threads", 2 * M, {
        pthread_t t;
        pthread_create(&t, NULL, mutex_thread, (void *)(long)M);
        mutex_thread((void *)(long)M);
        pthread_join(t, NULL);
    })
    static task ts[1000];
    BENCH("runq_poll_1", M, {
        ts[0] = (task){.poll = poll_again, .left = M};
        q_push(ts);
        run_queue(false);
    })
    BENCH("runq_poll_1000", M, {
        for (int i = 0; i < 1000; i++) {
            ts[i] = (task){.poll = poll_again, .left = 1000};
            q_push(&ts[i]);
        }
        run_queue(false);
    })
    BENCH("spawn_100k", K, {
        for (int i = 0; i < K; i++) {
            task *t = malloc(sizeof *t);
            t->poll = poll_once;
            q_push(t);
        }
        run_queue(true);
    })
    BENCH("spawn_1m", M, {
        for (int i = 0; i < M; i++) {
            task *t = malloc(sizeof *t);
            t->poll = poll_once;
            q_push(t);
        }
        run_queue(true);
    })
    BENCH("spawn_pooled_100k", K, {
        for (int i = 0; i < K; i++) {
            task *t = pool_get();
            t->poll = poll_once;
            q_push(t);
        }
        run_queue_pooled();
    })
    BENCH("spawn_pooled_1m", M, {
        for (int i = 0; i < M; i++) {
            task *t = pool_get();
            t->poll = poll_once;
            q_push(t);
        }
        run_queue_pooled();
    })
    BENCH("spawn_join_1", M, {
        for (int i = 0; i < M; i++) {
            task *t = malloc(sizeof *t);
            t->poll = poll_once;
            q_push(t);
            run_queue(true);
        }
    })
#if defined(__x86_64__)
    char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    co_sp = co_make(co_body, stack, 65536);
    BENCH("co_switch", 20 * M, for (int i = 0; i < 10 * M; i++) raw_switch(&main_sp, co_sp);)
    co_sp = co_make(co_body_jmp, stack, 65536);
    BENCH("co_switch_jmp", 20 * M, for (int i = 0; i < 10 * M; i++) raw_switch_jmp(&main_sp, co_sp);)
    BENCH(
        "co_create_pooled", M, for (int i = 0; i < M; i++) {
            co_sp = co_make(co_body, stack, 65536);
            raw_switch(&main_sp, co_sp);
        })
#endif
    static char ustack[65536];
    getcontext(&uc_co);
    uc_co.uc_stack.ss_sp = ustack, uc_co.uc_stack.ss_size = sizeof ustack;
    makecontext(&uc_co, uc_body, 0);
    BENCH("swapcontext", M, for (int i = 0; i < M / 2; i++) swapcontext(&uc_main, &uc_co);)
    BENCH(
        "mmap_stack_touch_munmap", K / 4, for (int i = 0; i < K / 4; i++) {
            char *s = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            s[65535] = 1;
            munmap(s, 65536);
        })
    BENCH(
        "clock_gettime", M, for (int i = 0; i < M; i++) {
            uint64_t t = now_ns();
            KEEP(t);
        })
    BENCH("syscall_getppid", M, for (int i = 0; i < M; i++) syscall(SYS_getppid);)
    int ep = epoll_create1(0), ev = eventfd(0, EFD_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN};
    BENCH("epoll_wait_0_empty", M, for (int i = 0; i < M; i++) epoll_wait(ep, &e, 1, 0);)
    epoll_ctl(ep, EPOLL_CTL_ADD, ev, &e);
    uint64_t v = 1;
    BENCH("eventfd_write_read", M,
          for (int i = 0; i < M; i++) if (write(ev, &v, 8) != 8 || read(ev, &v, 8) != 8) abort();)
    BENCH("eventfd_write_epoll_read", M,
          for (int i = 0; i < M;
               i++) if (write(ev, &v, 8) != 8 || epoll_wait(ep, &e, 1, 0) != 1 || read(ev, &v, 8) != 8) abort();)
    int sp[2];
    char buf[4096] = {0};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sp))
        return 1;
    BENCH("unix_write_read_64", K,
          for (int i = 0; i < K; i++) if (write(sp[0], buf, 64) != 64 || read(sp[1], buf, 4096) != 64) abort();)
    tcp_pair(sp);
    BENCH("tcp_write_read_64", K,
          for (int i = 0; i < K; i++) if (write(sp[0], buf, 64) != 64 || read(sp[1], buf, 4096) != 64) abort();)
    BENCH("ping_pong_futex", K, ping(PING_FUTEX, K);)
    BENCH("ping_pong_eventfd", K / 2, ping(PING_EVENTFD, K / 2);)
    BENCH("ping_pong_spin", K, ping(PING_SPIN, K);)

    tm_node *nodes = calloc(M, sizeof *nodes);
    heap = malloc(M * sizeof *heap);
    uint64_t seed = 88172645463325252ull;
    BENCH("timer_wheel_add_cancel_1m", M, {
        wheel_init();
        for (int i = 0; i < M; i++) {
            nodes[i].when = 10000 + xorshift(&seed) % 50000;
            wheel_add(&nodes[i], 1000);
        }
        for (int i = 0; i < M; i++)
            wheel_del(&nodes[i]);
    })
    BENCH("timer_heap_add_cancel_1m", M, {
        heap_n = 0;
        for (int i = 0; i < M; i++) {
            nodes[i].when = 10000000000ull + xorshift(&seed) % 50000000000ull;
            heap_set(heap_n, &nodes[i]);
            heap_up(heap_n++);
        }
        for (int i = 0; i < M; i++)
            heap_del(&nodes[i]);
    })
    BENCH("timer_heap_add_pop_1m", M, {
        heap_n = 0;
        for (int i = 0; i < M; i++) {
            nodes[i].when = 10000000000ull + xorshift(&seed) % 50000000000ull;
            heap_set(heap_n, &nodes[i]);
            heap_up(heap_n++);
        }
        while (heap_n)
            heap_del(heap[0]);
    })
    prctl(PR_SET_TIMERSLACK, 50000);
    lateness("sleep_1ms_late_nanosleep", 0);
    lateness("sleep_1ms_late_epoll_wait_ms", 1);
    lateness("sleep_1ms_late_epoll_pwait2", 2);
    lateness("sleep_1ms_late_timerfd", 3);
    prctl(PR_SET_TIMERSLACK, 1);
    lateness("sleep_1ms_late_epoll_pwait2_slack1", 2);
    return 0;
}
