/* Shared helpers of the peer benchmarks: clocks and the result line.
 *
 * Every scheduler benchmark prints one tab separated line:
 *   runtime  bench  best  median  cpu-median  unit
 */
#ifndef PEER_BENCH_H
#define PEER_BENCH_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
static inline uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}
static inline uint64_t cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

#define MAX_REPEATS 64
typedef struct {
    double wall[MAX_REPEATS], cpu[MAX_REPEATS];
    int n;
    uint64_t w0, c0;
} meter;

static inline void meter_start(meter *m)
{
    m->c0 = cpu_ns();
    m->w0 = now_ns();
}
static inline void meter_stop(meter *m, double ops)
{
    uint64_t w = now_ns() - m->w0, c = cpu_ns() - m->c0;
    if (m->n < MAX_REPEATS) {
        m->wall[m->n] = (double)w / ops;
        m->cpu[m->n++] = (double)c / ops;
    }
}
static inline int cmp_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static inline void meter_report(meter *m, const char *rt, const char *bench)
{
    qsort(m->wall, (size_t)m->n, sizeof(double), cmp_double);
    qsort(m->cpu, (size_t)m->n, sizeof(double), cmp_double);
    printf("%s\t%s\t%.2f\t%.2f\t%.2f\tns\n", rt, bench, m->wall[0], m->wall[m->n / 2], m->cpu[m->n / 2]);
    fflush(stdout);
}
static inline void value_report(const char *rt, const char *bench, double best, double med, const char *unit)
{
    printf("%s\t%s\t%.2f\t%.2f\t\t%s\n", rt, bench, best, med, unit);
    fflush(stdout);
}
static inline long rss_bytes(void)
{
    long pages = 0, res = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%ld %ld", &pages, &res) != 2)
            res = 0;
        fclose(f);
    }
    return res * sysconf(_SC_PAGESIZE);
}
/* xorshift: the same cheap random source everywhere */
static inline uint64_t xorshift(uint64_t *s)
{
    uint64_t x = *s;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *s = x;
}
#endif
