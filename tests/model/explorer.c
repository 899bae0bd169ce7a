/* Runs a model again and again, and reports; explorer.h says what for. */
#include "explorer_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct explorer ex;

/* ---- executions ---- */

static void reset_thread(struct thread *thread)
{
    if (!thread->at_rest)
        coroutine_restart(&thread->coroutine);
    thread->at_rest = true;
    thread->finished = false;
    thread->op = (struct op){.kind = OP_START, .location = -1, .where = "its start"};
    thread->waiting = false;
    thread->woken = false;
    thread->woken_by = -1;
    thread->idle_rounds = 0;
    thread->timeouts = 0;
    thread->spurious = 0;
    thread->last_event = -1;
    memset(&thread->watched, 0, sizeof thread->watched);
    thread->current = NULL;
    memset(&thread->now.clock, 0, sizeof thread->now.clock);
    memset(&thread->fenced.clock, 0, sizeof thread->fenced.clock);
    memset(&thread->seen.clock, 0, sizeof thread->seen.clock);
}

static void reset_execution(void)
{
    explorer_reset_memory();
    explorer_reset_system();
    ex.event_count = 0;
    ex.position = 0;
    ex.asleep = 0;
    ex.last_thread = -1;
    ex.preemptions = 0;
    ex.outcome = RUNNING;
    ex.self = MAIN;
    for (unsigned t = 0; t < ex.thread_count; t++)
        reset_thread(&ex.threads[t]);
}

static void run_threads(void)
{
    ex.running = true;
    ex.starting = true;
    for (unsigned t = 0; t < ex.thread_count && ex.outcome == RUNNING; t++) {
        ex.self = t;
        coroutine_starting = &ex.threads[t].coroutine;
        coroutine_switch(&coroutine_main, &ex.threads[t].coroutine);
        ex.self = MAIN;
    }
    ex.starting = false;
    unsigned first = explorer_choose_thread();
    if (first == MAIN)
        return;
    ex.self = first;
    coroutine_switch(&coroutine_main, &ex.threads[first].coroutine);
    ex.self = MAIN;
}

static void run_execution(void)
{
    reset_execution();
    if (ex.model->setup)
        ex.model->setup();
    if (ex.outcome == RUNNING)
        run_threads();
    ex.running = false;
    if (ex.outcome == COMPLETE && ex.model->finish)
        ex.model->finish();
    if (ex.outcome == COMPLETE && explorer_has_leak())
        model_fail("memory from model_alloc was not freed");
}

/* ---- reports ---- */

/* A letter for each decision: digits are threads, letters the number of a value. */
static void print_decisions(void)
{
    printf("  MODEL_REPLAY='%s:", ex.model->name);
    for (int i = 0; i < ex.decision_count; i++)
        putchar(ex.decisions[i].is_value ? 'a' + ex.decisions[i].chosen : '0' + ex.decisions[i].chosen);
    puts("'");
}

static bool read_decisions(const char *text)
{
    size_t length = strlen(ex.model->name);
    if (!text || strncmp(text, ex.model->name, length) != 0 || text[length] != ':')
        return false;
    ex.decision_count = 0;
    for (text += length + 1; *text && ex.decision_count < DECISIONS; text++) {
        bool is_value = *text >= 'a';
        ex.decisions[ex.decision_count++] =
            (struct decision){.is_value = is_value, .chosen = (uint8_t)(*text - (is_value ? 'a' : '0'))};
    }
    return true;
}

/* Runs the decisions at hand once more and prints the steps. */
static void print_execution(void)
{
    int count = ex.decision_count;
    ex.changed = DECISIONS; /* nothing new is looked for */
    ex.tracing = true;
    ex.replaying = true;
    run_execution();
    ex.tracing = false;
    ex.replaying = false;
    ex.decision_count = count;
}

/* After a failure: how it came about. */
static void print_failure(void)
{
    char first_reason[sizeof ex.reason];
    uint64_t steps = ex.result.steps;
    memcpy(first_reason, ex.reason, sizeof ex.reason);
    ex.trace_from = ex.event_count - TRACED;
    print_execution();
    print_decisions();
    if (strcmp(first_reason, ex.reason) != 0)
        printf("  the second time it ended otherwise: %s\n", ex.reason);
    memcpy(ex.reason, first_reason, sizeof ex.reason);
    ex.result.steps = steps;
}

static void print_result(void)
{
    printf("model %s: %llu executions, %llu redundant, %llu steps, %.2f s%s\n", ex.model->name,
           (unsigned long long)ex.result.executions, (unsigned long long)ex.result.redundant,
           (unsigned long long)ex.result.steps, ex.result.seconds, ex.result.ok ? "" : ": FAILED");
    if (!ex.result.ok)
        printf("  %s\n", ex.reason);
    fflush(stdout);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void search(void)
{
    uint64_t limit = ex.model->max_executions ? ex.model->max_executions : MODEL_MAX_EXECUTIONS;
    ex.decision_count = 0;
    ex.changed = 0;
    do {
        run_execution();
        if (ex.outcome == REDUNDANT)
            ex.result.redundant++;
        else
            ex.result.executions++;
        /* decisions that a redundant or shorter execution did not come to belong to no path any more */
        ex.decision_count = ex.position;
        if (ex.outcome == FAILED)
            return;
        if (ex.result.executions + ex.result.redundant >= limit) {
            snprintf(ex.reason, sizeof ex.reason, "not done after %llu executions", (unsigned long long)limit);
            ex.result.ok = ex.model->preemption_bound != 0;
            return;
        }
    } while (explorer_next_path());
    ex.result.ok = true;
}

struct model_result model_run(const struct model *m)
{
    ex.model = m;
    ex.result = (struct model_result){.reason = ex.reason};
    ex.reason[0] = '\0';
    ex.thread_count = 0;
    while (ex.thread_count < MODEL_THREADS && ex.model->threads[ex.thread_count]) {
        ex.threads[ex.thread_count].at_rest = false;
        if (!coroutine_init(&ex.threads[ex.thread_count].coroutine, explorer_thread_main))
            abort();
        ex.thread_count++;
    }
    double start = seconds_now();
    if (read_decisions(getenv("MODEL_REPLAY"))) {
        ex.trace_from = 0;
        print_execution();
        ex.result.ok = ex.outcome == COMPLETE;
        ex.result.executions = 1;
    } else {
        search();
        if (ex.outcome == FAILED)
            print_failure();
    }
    ex.result.seconds = seconds_now() - start;
    print_result();
    for (unsigned t = 0; t < ex.thread_count; t++)
        coroutine_fini(&ex.threads[t].coroutine);
    explorer_reset_memory();
    return ex.result;
}
