/* libdill scheduler benchmarks; needs the library installed (libdill.h, -ldill).
 * Its channels are unbuffered. usage: sched_dill REPEATS [filter...] */
#define _GNU_SOURCE
#include <libdill.h>
#include <stdbool.h>
#undef now
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
        meter_report(&m_, "libdill", name);    \
    }
static coroutine void nop(void)
{
    counter++;
}
static coroutine void yielder(long k)
{
    while (k--)
        yield();
}
static void yields(int tasks, long k)
{
    int b = bundle();
    for (int i = 0; i < tasks; i++)
        bundle_go(b, yielder(k));
    bundle_wait(b, -1);
    hclose(b);
}
static coroutine void ponger(int in, int out, long n)
{
    uint64_t v;
    while (n--) {
        chrecv(in, &v, sizeof v, -1);
        chsend(out, &v, sizeof v, -1);
    }
}
static coroutine void producer(int ch, long n)
{
    for (uint64_t i = 0; i < (uint64_t)n; i++)
        chsend(ch, &i, sizeof i, -1);
}
static void mpsc(long p, long n)
{
    int ch[2], b = bundle();
    chmake(ch);
    for (long i = 0; i < p; i++)
        bundle_go(b, producer(ch[0], n / p));
    uint64_t v;
    for (long i = 0; i < n / p * p; i++)
        chrecv(ch[1], &v, sizeof v, -1);
    bundle_wait(b, -1);
    hclose(b);
    hclose(ch[0]);
    hclose(ch[1]);
}
static coroutine void sleeper(int64_t when)
{
    msleep(when);
}
int main(int argc, char **argv)
{
    repeats = argc > 1 ? atoi(argv[1]) : 5;
    filters = argv + (argc > 1 ? 2 : 1);
    enum { K = 100000, M = 1000000, S = 10000 };
    BENCH("spawn_in_10k", S, {
        int b = bundle();
        for (int i = 0; i < S; i++)
            bundle_go(b, nop());
        bundle_wait(b, -1);
        hclose(b);
    })
    BENCH(
        "spawn_join_1", 2 * K, for (int i = 0; i < 2 * K; i++) {
            int h = go(nop());
            hclose(h);
        })
    BENCH("yield_1", M, yields(1, M);)
    BENCH("yield_2", M, yields(2, M / 2);)
    BENCH("yield_1000", M, yields(1000, 1000);)
    BENCH("ping_pong", 2 * K, {
        int a[2], c[2];
        uint64_t v;
        chmake(a);
        chmake(c);
        int h = go(ponger(a[1], c[0], 2 * K));
        for (uint64_t i = 0; i < 2 * K; i++) {
            chsend(a[0], &i, sizeof i, -1);
            chrecv(c[1], &v, sizeof v, -1);
        }
        hclose(h);
        for (int i = 0; i < 2; i++) {
            hclose(a[i]);
            hclose(c[i]);
        }
    })
    BENCH("mpsc_1_1", 8 * K, mpsc(1, 8 * K);)
    BENCH("mpsc_8_1", 8 * K, mpsc(8, 8 * K);)
    BENCH("timer_fire_10k_cpu", S, {
        int b = bundle();
        int64_t t = dill_now();
        for (int i = 0; i < S; i++)
            bundle_go(b, sleeper(t + 100 + (int64_t)(xorshift(&seed) % 200)));
        bundle_wait(b, -1);
        hclose(b);
    })
    if (wanted("sleep_1ms_late")) {
        static double late[500];
        for (int i = 0; i < 500; i++) {
            uint64_t t = now_ns();
            msleep(dill_now() + 1);
            late[i] = ((double)(now_ns() - t) - 1e6) / 1000;
        }
        qsort(late, 500, sizeof(double), cmp_double);
        value_report("libdill", "sleep_1ms_late_p50", late[250], late[250], "us");
        value_report("libdill", "sleep_1ms_late_p99", late[495], late[495], "us");
    }
    if (*filters && wanted("mem_task")) {
        int b = bundle();
        long r0 = rss_bytes();
        for (int i = 0; i < S; i++)
            if (bundle_go(b, sleeper(dill_now() + 3600000)) < 0) {
                perror("go");
                break;
            }
        yield();
        value_report("libdill", "mem_task_sleeping_10k", (double)(rss_bytes() - r0) / S, (double)(rss_bytes() - r0) / S,
                     "bytes");
        _exit(0);
    }
    return 0;
}
