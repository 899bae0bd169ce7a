/* Strands: the threads of a simulated world. They take turns on one thread of the system; who goes on is the dice's choice
 * each time one sleeps, ends, or is made to pause. When nobody can go on, the clock moves to the next thing that is to
 * happen; when there is none, the world is stuck. */
#include "os/os_sim.h"

#include <stdlib.h>

#include "fiber/annotate.h"
#include "fiber/switch.h"
#include "os/atomic.h"

#define STACK_BYTES ((size_t)512 * 1024)
#define GUARD_BYTES ((size_t)64 * 1024)
#define AWAY_MAX_NS ROUSE_US(100) /* how long a strand may be kept from going on although it could */
#define CALL_MAX_NS ROUSE_US(1)   /* what a call of the system takes: time passes for who is always busy, too */

struct strand {
    struct list_node link;         /* on the list of all, in the order of their making */
    struct switch_context context; /* while another one runs */
    struct annotation annotation;  /* for sanitizers */
    void *stack;                   /* STACK_BYTES; NULL: the host's, who is no strand */
    void (*body)(void *argument);
    void *argument;
    void *current;       /* os_current of it */
    const void *place;   /* where it sleeps; NULL: it can go on */
    int64_t deadline_ns; /* when it goes on by itself */
    uint64_t number;     /* in the order of their making, for the trace */
    bool ended;          /* and waits to be joined */
};

static struct {
    struct list_node all;     /* strands that are not joined yet */
    struct strand *running;   /* NULL: the host */
    struct strand host;       /* who called sim_run_strands */
    struct strand *first;     /* whose end is the end of the world */
    struct strand *left_from; /* whom the strand that goes on has been switched to from */
    uint64_t made;            /* strands so far */
    uint64_t steps;           /* decisions who goes on */
    uint64_t until_interrupt; /* steps of the library until another strand goes on */
    bool deciding;            /* the world itself is at work: no steps of the library's count */
    bool stuck;               /* nothing can happen any more */
    void *host_current;       /* os_current outside of worlds */
} strands;

/* ---- switching ---- */

static void arrive(struct strand *self)
{
    annotation_after_switch(&self->annotation, &strands.left_from->annotation);
}

static void go_to(struct strand *next)
{
    struct strand *self = strands.running;
    if (next == self)
        return;
    strands.left_from = self;
    strands.running = next;
    annotation_before_switch(&self->annotation, &next->annotation, self->ended);
    switch_to(&self->context, &next->context);
    arrive(self);
}

/* ---- who goes on ---- */

static bool can_go_on(const struct strand *strand)
{
    return !strand->ended && (!strand->place || strand->deadline_ns <= sim_now());
}

static struct strand *strand_of(struct list_node *link)
{
    return CONTAINER_OF(link, struct strand, link);
}

static uint64_t count_ready(void)
{
    uint64_t count = 0;
    for (struct list_node *link = strands.all.next; link != &strands.all; link = link->next)
        count += can_go_on(strand_of(link));
    return count;
}

static struct strand *ready_number(uint64_t number)
{
    struct list_node *link = strands.all.next;
    while (!can_go_on(strand_of(link)) || number-- > 0)
        link = link->next;
    return strand_of(link);
}

/* When the next strand wakes by itself or the next thing arrives. */
static int64_t next_moment(void)
{
    int64_t next_ns = sim_net_next();
    for (struct list_node *link = strands.all.next; link != &strands.all; link = link->next) {
        const struct strand *strand = strand_of(link);
        if (!strand->ended && strand->deadline_ns < next_ns)
            next_ns = strand->deadline_ns;
    }
    return next_ns;
}

/* NULL: nobody ever will. */
static struct strand *choose(void)
{
    const rouse_sim_options *options = sim_options();
    for (;;) {
        sim_net_deliver();
        uint64_t ready = count_ready();
        if (ready > 0) {
            struct strand *next = ready_number(sim_below(ready));
            next->place = NULL;
            sim_trace(SIM_RUNS, next->number, 0);
            return next;
        }
        int64_t next_ns = next_moment();
        if (next_ns == ROUSE_NEVER || next_ns > options->time_limit_ns)
            return NULL;
        sim_advance(next_ns);
    }
}

static void switch_to_next(void)
{
    strands.deciding = true;
    struct strand *next = ++strands.steps > sim_options()->step_limit ? NULL : choose();
    strands.deciding = false;
    if (next) {
        go_to(next);
        return;
    }
    strands.stuck = true;
    go_to(&strands.host); /* for good */
}

/* ---- sleeping ---- */

void sim_sleep_at(const void *place, int64_t deadline_ns)
{
    struct strand *self = strands.running;
    self->place = place;
    self->deadline_ns = sim_chance(sim_options()->spurious) ? sim_now() : deadline_ns;
    switch_to_next();
}

void sim_rouse_at(const void *place, int64_t deadline_ns)
{
    for (struct list_node *link = strands.all.next; link != &strands.all; link = link->next) {
        struct strand *strand = strand_of(link);
        if (strand->place == place && deadline_ns < strand->deadline_ns)
            strand->deadline_ns = deadline_ns;
    }
}

void sim_wake_place(const void *place, bool all)
{
    uint64_t sleepers = 0;
    for (struct list_node *link = strands.all.next; link != &strands.all; link = link->next)
        sleepers += strand_of(link)->place == place;
    if (sleepers == 0)
        return;
    uint64_t chosen = sim_below(sleepers), at = 0;
    for (struct list_node *link = strands.all.next; link != &strands.all; link = link->next)
        if (strand_of(link)->place == place && (at++ == chosen || all))
            strand_of(link)->place = NULL;
}

/* Others go on, sometimes for so long that what is under way arrives meanwhile. */
static void be_preempted(void)
{
    struct strand *self = strands.running;
    self->place = self; /* where nobody is woken */
    self->deadline_ns = sim_now() + (sim_below(4) == 0 ? (int64_t)sim_below(AWAY_MAX_NS) : 0);
    switch_to_next();
}

void sim_pause(void)
{
    if (!sim_is_active() || strands.running == &strands.host)
        return;
    sim_spend(CALL_MAX_NS);
    if (sim_chance(sim_options()->preempt))
        be_preempted();
}

/* One more step of the library on shared memory. */
void os_sim_step(void)
{
    unsigned mean = sim_options()->interrupts;
    if (mean == 0 || !sim_is_active() || strands.running == &strands.host || strands.deciding)
        return;
    if (strands.until_interrupt-- > 0)
        return;
    strands.until_interrupt = sim_below(2 * (uint64_t)mean);
    be_preempted();
}

void os_wait_on(const uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
    if (!sim_is_active())
        return;
    if (*word == expected && deadline_ns > sim_now())
        sim_sleep_at(word, deadline_ns);
    else
        sim_pause();
}

void os_wake_one(const uint32_t *word)
{
    sim_wake_place(word, false);
    sim_pause();
}

void os_wake_all(const uint32_t *word)
{
    sim_wake_place(word, true);
    sim_pause();
}

/* ---- beginning and ending ---- */

static void begin(void *argument)
{
    struct strand *self = argument;
    arrive(self);
    self->body(self->argument);
    self->ended = true;
    if (self == strands.first)
        go_to(&strands.host);
    sim_wake_place(self, true); /* who joins it */
    switch_to_next();           /* for good */
}

static struct strand *make(void (*body)(void *argument), void *argument)
{
    struct strand *strand = calloc(1, sizeof *strand);
    void *stack = strand ? os_pages_reserve(STACK_BYTES) : NULL;
    if (!stack || os_guard_install(stack, GUARD_BYTES) != ROUSE_OK) {
        if (stack)
            os_pages_release(stack, STACK_BYTES);
        free(strand);
        return NULL;
    }
    strand->stack = stack;
    strand->body = body;
    strand->argument = argument;
    strand->deadline_ns = ROUSE_NEVER;
    strand->number = ++strands.made;
    annotation_init(&strand->annotation, (char *)stack + GUARD_BYTES, STACK_BYTES - GUARD_BYTES);
    switch_prepare(&strand->context, (char *)stack + GUARD_BYTES, STACK_BYTES - GUARD_BYTES, begin, strand);
    list_push_back(&strands.all, &strand->link);
    return strand;
}

static void unmake(struct strand *strand)
{
    list_remove(&strand->link);
    annotation_fini(&strand->annotation);
    annotation_stack_clean(false, strand->stack, STACK_BYTES);
    os_guard_remove(strand->stack, GUARD_BYTES);
    os_pages_release(strand->stack, STACK_BYTES);
    free(strand);
}

bool sim_run_strands(void (*body)(void *argument), void *argument, unsigned *left)
{
    list_init(&strands.all);
    strands.made = strands.steps = strands.until_interrupt = 0;
    strands.stuck = false;
    strands.host = (struct strand){.deadline_ns = ROUSE_NEVER};
    annotation_init_thread(&strands.host.annotation);
    strands.running = &strands.host;
    strands.first = make(body, argument);
    if (!strands.first)
        return false;
    go_to(strands.first);
    if (!strands.stuck) {
        unmake(strands.first);
        for (struct list_node *link; (link = strands.all.next) != &strands.all; (*left)++)
            unmake(strand_of(link));
    }
    return !strands.stuck;
}

/* ---- threads ---- */

uintptr_t sim_self(void)
{
    return sim_is_active() && strands.running != &strands.host ? (uintptr_t)strands.running : 0;
}

unsigned sim_threads(void)
{
    unsigned count = 0;
    if (sim_is_active())
        for (struct list_node *link = strands.all.next; link != &strands.all; link = link->next)
            count += !strand_of(link)->ended;
    return count;
}

void *os_current(void)
{
    return sim_is_active() ? strands.running->current : strands.host_current;
}

void os_current_set(void *current)
{
    if (sim_is_active())
        strands.running->current = current;
    else
        strands.host_current = current;
}

int os_thread_start(os_thread *thread, void (*body)(void *), void *argument, const char *name)
{
    (void)name;
    if (!sim_is_active())
        return ROUSE_NO_THREAD;
    struct strand *strand = make(body, argument);
    if (!strand)
        return ROUSE_NO_MEMORY;
    thread->id = (uintptr_t)strand;
    sim_pause();
    return ROUSE_OK;
}

void os_thread_join(os_thread *thread)
{
    struct strand *strand = (struct strand *)thread->id;
    while (!strand->ended)
        sim_sleep_at(strand, ROUSE_NEVER);
    unmake(strand);
}

/* Whoever spins for another one must come to let it go on, and one that sleeps until a moment must come to it. */
void os_thread_yield(void)
{
    if (!sim_is_active())
        return;
    sim_spend(CALL_MAX_NS);
    switch_to_next();
}

/* ---- for scenarios ---- */

int rouse_sim_thread_start(rouse_sim_thread *thread, void (*body)(void *argument), void *argument)
{
    os_thread started;
    if (!thread || !body || !sim_is_active())
        return ROUSE_INVALID;
    int status = os_thread_start(&started, body, argument, "scenario");
    thread->id = status == ROUSE_OK ? started.id : 0;
    return status;
}

void rouse_sim_thread_join(rouse_sim_thread *thread)
{
    os_thread joined = {thread->id};
    if (sim_is_active() && thread->id)
        os_thread_join(&joined);
    thread->id = 0;
}

void rouse_sim_yield(void)
{
    os_thread_yield();
}

void rouse_sim_sleep(int64_t span_ns)
{
    int64_t end_ns = rouse_after(span_ns);
    char place;
    while (sim_is_active() && sim_now() < end_ns)
        sim_sleep_at(&place, end_ns);
}
