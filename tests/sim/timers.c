/* Sleeps, deadlines and intervals: never early, and late by no more than what this world's scheduler explains. */
#include "scenario.h"

enum { SLEEPERS = 10, NAPS = 8 };

static int64_t latest_ns;

static void note_lateness(int64_t due_ns)
{
    int64_t late_ns = rouse_now() - due_ns;
    must(late_ns >= 0);
    if (late_ns > latest_ns)
        latest_ns = late_ns;
}

static int nap(void *argument)
{
    (void)argument;
    for (int i = 0; i < NAPS; i++) {
        int64_t span_ns = (int64_t)below(below(5) == 0 ? (uint64_t)ROUSE_S(5) : (uint64_t)ROUSE_MS(3));
        int64_t due_ns = rouse_after(span_ns);
        must(rouse_sleep(span_ns) == ROUSE_OK);
        note_lateness(due_ns);
    }
    return ROUSE_OK;
}

static int sleep_under_deadline(void *argument)
{
    (void)argument;
    for (int i = 0; i < NAPS; i++) {
        rouse_deadline outer, inner;
        int64_t outer_ns = rouse_after((int64_t)below(ROUSE_MS(4))),
                inner_ns = rouse_after((int64_t)below(ROUSE_MS(4)));
        must(rouse_deadline_enter(&outer, outer_ns) == ROUSE_OK);
        must(rouse_deadline_enter(&inner, inner_ns) == ROUSE_OK);
        must(rouse_sleep(ROUSE_NEVER) == ROUSE_TIMED_OUT);
        note_lateness(outer_ns < inner_ns ? outer_ns : inner_ns);
        must(rouse_deadline_leave(&inner) == ROUSE_OK);
        if (rouse_now() < outer_ns) {
            must(rouse_sleep(ROUSE_NEVER) == ROUSE_TIMED_OUT);
            note_lateness(outer_ns);
        }
        must(rouse_deadline_leave(&outer) == ROUSE_OK);
    }
    return ROUSE_OK;
}

/* A timer from a thread that is no worker: it may be the first of all, while everybody sleeps. */
static void sleep_outside(void *argument)
{
    (void)argument;
    for (int i = 0; i < 3; i++) {
        int64_t due_ns = rouse_after(ROUSE_US(700));
        must(rouse_sleep(ROUSE_US(700)) == ROUSE_OK);
        note_lateness(due_ns);
        rouse_sim_sleep(ROUSE_MS(1));
    }
}

static int run(void *argument)
{
    rouse_scope scope;
    (void)argument;
    must(rouse_scope_open(&scope) == ROUSE_OK);
    for (int i = 0; i < SLEEPERS; i++)
        must(rouse_go(i % 2 == 0 ? nap : sleep_under_deadline, NULL) == ROUSE_OK);
    return rouse_scope_close(&scope);
}

int timers_scenario(void *argument)
{
    rouse_options options = some_options();
    rouse_sim_thread thread;
    (void)argument;
    latest_ns = 0;
    must(rouse_sim_thread_start(&thread, sleep_outside, NULL) == ROUSE_OK);
    int status = rouse_run(run, NULL, &options);
    rouse_sim_thread_join(&thread);
    must(latest_ns < ROUSE_MS(1));
    return status;
}
