/* neco scheduler benchmarks; needs the library installed (neco.h, -lneco).
 * usage: sched_neco REPEATS [filter...] */
#define _GNU_SOURCE
#include <neco.h>
#include <stdbool.h>
#include <sys/resource.h>
#include "../bench.h"

static int repeats;
static char **filters;
static uint64_t counter, seed = 88172645463325252ull;
static bool wanted(const char *b)
{
    if (!*filters)
        return true;
    for (char **f = filters; *f; f++)
        if (strstr(b, *f))
            return true;
    return false;
}
#define BENCH(name, ops, ...)                  \
    if (wanted(name)) {                        \
        static meter m_;                       \
        for (int r_ = 0; r_ < repeats; r_++) { \
            meter_start(&m_);                  \
            __VA_ARGS__                        \
            meter_stop(&m_, (double)(ops));    \
        }                                      \
        meter_report(&m_, RT, name);           \
    }
#ifndef RT
#define RT "neco"
#endif
static neco_waitgroup wg;
static neco_mutex mu;
static neco_chan *c1, *c2;
static void nop(int argc, void **argv)
{
    (void)argc;
    (void)argv;
    counter++;
}
static void nop_wg(int argc, void **argv)
{
    (void)argc;
    (void)argv;
    counter++;
    neco_waitgroup_done(&wg);
}
static void chain(int argc, void **argv)
{
    (void)argc;
    long n = (long)argv[0];
    if (n)
        neco_start(chain, 1, (void *)(n - 1));
    else
        neco_waitgroup_done(&wg);
}
static void yielder(int argc, void **argv)
{
    (void)argc;
    for (long n = (long)argv[0]; n; n--)
        neco_yield();
    neco_waitgroup_done(&wg);
}
static void yields(long tasks, long k)
{
    neco_waitgroup_init(&wg);
    neco_waitgroup_add(&wg, (int)tasks);
    for (long i = 0; i < tasks; i++)
        neco_start(yielder, 1, (void *)k);
    neco_waitgroup_wait(&wg);
}
static void ponger(int argc, void **argv)
{
    (void)argc;
    (void)argv;
    uint64_t v;
    while (neco_chan_recv(c1, &v) == NECO_OK)
        neco_chan_send(c2, &v);
    neco_waitgroup_done(&wg);
}
static void producer(int argc, void **argv)
{
    (void)argc;
    long n = (long)argv[0];
    for (uint64_t i = 0; i < (uint64_t)n; i++)
        neco_chan_send(c1, &i);
    neco_waitgroup_done(&wg);
}
static void mpsc(long p, long n)
{
    neco_waitgroup_init(&wg);
    neco_waitgroup_add(&wg, (int)p);
    neco_chan_make(&c1, 8, 256);
    for (long i = 0; i < p; i++)
        neco_start(producer, 1, (void *)(n / p));
    uint64_t v;
    for (long i = 0; i < n / p * p; i++)
        neco_chan_recv(c1, &v);
    neco_waitgroup_wait(&wg);
    neco_chan_release(c1);
}
static void locker(int argc, void **argv)
{
    (void)argc;
    long k = (long)argv[0], hold = (long)argv[1];
    for (long i = 0; i < k; i++) {
        neco_mutex_lock(&mu);
        counter++;
        if (hold)
            neco_yield();
        neco_mutex_unlock(&mu);
    }
    neco_waitgroup_done(&wg);
}
static void mutexes(long tasks, long k, long hold)
{
    neco_mutex_init(&mu);
    neco_waitgroup_init(&wg);
    neco_waitgroup_add(&wg, (int)tasks);
    for (long i = 0; i < tasks; i++)
        neco_start(locker, 2, (void *)k, (void *)hold);
    neco_waitgroup_wait(&wg);
}
static void sleeper(int argc, void **argv)
{
    (void)argc;
    neco_sleep((int64_t)(intptr_t)argv[0]);
    neco_waitgroup_done(&wg);
}
static void all(int argc, void **argv)
{
    (void)argc;
    (void)argv;
    enum { K = 100000, M = 1000000 };
    BENCH("spawn_in_100k", K, {
        neco_waitgroup_init(&wg);
        neco_waitgroup_add(&wg, K);
        for (int i = 0; i < K; i++)
            neco_start(nop_wg, 0);
        neco_waitgroup_wait(&wg);
    })
    BENCH(
        "spawn_join_1", 2 * K, for (int i = 0; i < 2 * K; i++) {
            neco_start(nop, 0);
            neco_join(neco_lastid());
        })
    BENCH(
        "chained_spawn_1k", 2 * K, for (int i = 0; i < 200; i++) {
            neco_waitgroup_init(&wg);
            neco_waitgroup_add(&wg, 1);
            neco_start(chain, 1, (void *)1000L);
            neco_waitgroup_wait(&wg);
        })
    BENCH("yield_1", M, yields(1, M);)
    BENCH("yield_2", M, yields(2, M / 2);)
    BENCH("yield_1000", M, yields(1000, 1000);)
    BENCH("ping_pong", 2 * K, {
        neco_chan_make(&c1, 8, 1);
        neco_chan_make(&c2, 8, 1);
        neco_waitgroup_init(&wg);
        neco_waitgroup_add(&wg, 1);
        neco_start(ponger, 0);
        for (uint64_t i = 0, v; i < 2 * K; i++) {
            neco_chan_send(c1, &i);
            neco_chan_recv(c2, &v);
        }
        neco_chan_close(c1);
        neco_waitgroup_wait(&wg);
        neco_chan_release(c1);
        neco_chan_release(c2);
    })
    BENCH("mpsc_1_1", 8 * K, mpsc(1, 8 * K);)
    BENCH("mpsc_8_1", 8 * K, mpsc(8, 8 * K);)
    BENCH("mutex_uncontended", M, mutexes(1, M, 0);)
    BENCH("mutex_8", 8 * K, mutexes(8, K, 0);)
    BENCH("mutex_8_hold_yield", 160000, mutexes(8, 20000, 1);)
    if (wanted("sleep_1ms_late")) {
        static double late[500];
        for (int i = 0; i < 500; i++) {
            uint64_t t = now_ns();
            neco_sleep(NECO_MILLISECOND);
            late[i] = ((double)(now_ns() - t) - 1e6) / 1000;
        }
        qsort(late, 500, sizeof(double), cmp_double);
        value_report(RT, "sleep_1ms_late_p50", late[250], late[250], "us");
        value_report(RT, "sleep_1ms_late_p99", late[495], late[495], "us");
    }
    BENCH("timer_fire_100k_cpu", K, {
        neco_waitgroup_init(&wg);
        int n = 0;
        while (n < K && neco_start(sleeper, 1, (void *)(intptr_t)(100000000 + xorshift(&seed) % 200000000)) == NECO_OK)
            n++;
        if (n < K) {
            fprintf(stderr, "neco_start stopped at %d\n", n);
            _exit(0);
        } /* the default 8 MiB stacks run out */
        neco_waitgroup_add(&wg, K);
        neco_waitgroup_wait(&wg);
    })
    if (*filters && wanted("idle_10k")) {
        neco_waitgroup_init(&wg);
        for (int i = 0; i < 10000; i++)
            if (neco_start(sleeper, 1, (void *)(intptr_t)3600000000000) != NECO_OK)
                break;
        struct rusage a, b;
        getrusage(RUSAGE_SELF, &a);
        uint64_t c = cpu_ns();
        neco_sleep(5 * NECO_SECOND);
        double us = (double)(cpu_ns() - c) / 5000;
        getrusage(RUSAGE_SELF, &b);
        value_report(RT, "idle_10k_cpu", us, us, "us of CPU a second");
        double sw = (double)(b.ru_nvcsw + b.ru_nivcsw - a.ru_nvcsw - a.ru_nivcsw) / 5;
        value_report(RT, "idle_10k_switches", sw, sw, "context switches a second");
        fflush(stdout);
        _exit(0);
    }
    if (*filters && wanted("mem_task")) {
        long r0 = rss_bytes();
        neco_waitgroup_init(&wg);
        int n = 0, r = 0;
        while (n < K && (r = neco_start(sleeper, 1, (void *)(intptr_t)3600000000000)) == NECO_OK)
            n++;
        if (n < K)
            fprintf(stderr, "neco_start stopped at %d: %s\n", n, neco_strerror(r));
        char name[64];
        snprintf(name, sizeof name, "mem_task_sleeping_%d", n);
        value_report(RT, name, (double)(rss_bytes() - r0) / n, (double)(rss_bytes() - r0) / n, "bytes");
        fflush(stdout);
        _exit(0);
    }
}
int main(int argc, char **argv)
{
    repeats = argc > 1 ? atoi(argv[1]) : 5;
    filters = argv + (argc > 1 ? 2 : 1);
    neco_start(all, 0);
    return 0;
}
