/* Which thread makes the next step, and which executions need not be run. */
#include "explorer_parts.h"

#include <rouse/base.h>

#include <stdio.h>
#include <string.h>

/* ---- which steps can change places ---- */

bool explorer_is_sequential(enum model_order order)
{
    return order == SEQ_CST && ex.model->history > 0;
}

static unsigned flags_of(const struct thread *thread)
{
    const struct op *op = &thread->op;
    unsigned sc = explorer_is_sequential(op->order) ? SEQUENTIAL : 0;
    const struct location *location = op->location >= 0 ? &ex.locations[op->location] : NULL;
    switch (op->kind) {
    case OP_START:
        return 0;
    case OP_LOAD:
        return READS | sc;
    case OP_STORE:
    case OP_RMW:
        return READS | WRITES | sc;
    case OP_CAS: /* one that fails only reads; whether it does can be changed only by a write to the location */
        return READS | (ex.messages[location->latest].value == op->expected ? WRITES : 0U) | sc;
    case OP_FENCE:
        return sc ? SEQUENTIAL | SEQUENTIAL_FENCE : 0;
    case OP_RELAX:
        return RELAXES;
    case OP_WAIT:
        return READS | WAITS | (op->deadline != ROUSE_NEVER ? READS_CLOCK : 0U);
    case OP_RESUME:
        return thread->woken ? 0 : WAITS | WRITES_CLOCK;
    case OP_READ_CLOCK:
        return READS_CLOCK;
    case OP_SET_CLOCK:
        return WRITES_CLOCK;
    case OP_WAKE:
        return WAKES;
    case OP_LOCK:
    case OP_UNLOCK:
        return READS | WRITES;
    case OP_TRY_LOCK:
        return READS | (ex.messages[location->latest].value == 0 ? WRITES : 0U);
    }
    return 0;
}

static struct footprint footprint_of(const struct thread *thread)
{
    return (struct footprint){.flags = flags_of(thread), .location = thread->op.location, .watched = thread->watched};
}

bool explorer_is_watched(const struct watched *watched, int location)
{
    return watched->bits[location / 64] >> (location % 64) & 1;
}

void explorer_watch(struct watched *watched, int location)
{
    watched->bits[location / 64] |= UINT64_C(1) << (location % 64);
}

static bool relax_depends(const struct footprint *relax, const struct footprint *write)
{
    return (relax->flags & RELAXES) && (write->flags & WRITES) && explorer_is_watched(&relax->watched, write->location);
}

static bool depend(const struct footprint *one, const struct footprint *two)
{
    unsigned a = one->flags, b = two->flags;
    if (((a & SEQUENTIAL_FENCE) && (b & SEQUENTIAL)) || ((b & SEQUENTIAL_FENCE) && (a & SEQUENTIAL)))
        return true;
    if (relax_depends(one, two) || relax_depends(two, one))
        return true;
    if (((a & WRITES_CLOCK) && (b & (READS_CLOCK | WRITES_CLOCK))) || ((b & WRITES_CLOCK) && (a & READS_CLOCK)))
        return true;
    if (one->location != two->location || one->location < 0)
        return false;
    if (((a & WRITES) && (b & (READS | WRITES))) || ((b & WRITES) && (a & (READS | WRITES))))
        return true;
    return ((a & WAKES) && (b & (WAITS | WAKES))) || ((b & WAKES) && (a & WAITS));
}

/* ---- the search ---- */

static uint8_t bit(unsigned thread)
{
    return (uint8_t)(1U << thread);
}

static unsigned lowest(uint8_t set_of_threads)
{
    unsigned thread = 0;
    while (!(set_of_threads & bit(thread)))
        thread++;
    return thread;
}

static bool precedes(int event, const struct event *other)
{
    return event < other->before[ex.events[event].thread];
}

/* Two steps that depend on each other and that nothing else orders: the other order must be tried as well. It is
 * reached from the decision for the first one by any thread that can make a first step of what follows without it. */
static void note_race(int first, const struct event *second)
{
    struct decision *decision = &ex.decisions[ex.events[first].node];
    int first_of[MODEL_THREADS];
    uint8_t initials = 0;
    for (unsigned t = 0; t < ex.thread_count; t++)
        first_of[t] = -1;
    for (int i = first + 1; i <= ex.event_count; i++) {
        const struct event *event = i < ex.event_count ? &ex.events[i] : second;
        if (event != second && precedes(first, event))
            continue;
        if (first_of[event->thread] >= 0)
            continue;
        bool is_initial = true;
        for (unsigned t = 0; t < ex.thread_count; t++)
            is_initial &= first_of[t] < 0 || !precedes(first_of[t], event);
        first_of[event->thread] = i;
        if (is_initial)
            initials |= bit(event->thread);
    }
    if (initials & decision->backtrack)
        return;
    if (initials & decision->enabled & bit(second->thread))
        decision->backtrack |= bit(second->thread);
    else if (initials & decision->enabled)
        decision->backtrack |= bit(lowest(initials & decision->enabled));
    else
        decision->backtrack |= decision->enabled;
}

static void join_before(uint16_t *to, const uint16_t *from)
{
    for (unsigned t = 0; t < ex.thread_count; t++) {
        if (from[t] > to[t])
            to[t] = from[t];
    }
}

/* Writes down the step that `chosen` is about to make, behind the last one, and notes what it races with. */
static void describe_event(unsigned chosen, int node)
{
    struct thread *thread = &ex.threads[chosen];
    struct event *event = &ex.events[ex.event_count];
    uint16_t own[MODEL_THREADS] = {0};
    *event = (struct event){.thread = chosen, .node = node, .kind = thread->op.kind, .footprint = footprint_of(thread)};
    if (thread->last_event >= 0)
        memcpy(own, ex.events[thread->last_event].before, sizeof own);
    memcpy(event->before, own, sizeof own);
    bool analyse = node >= ex.changed && !ex.model->every_interleaving && !ex.model->preemption_bound;
    if (event->kind == OP_RESUME && thread->woken) {
        /* not to be had in the other order, unless time could have woken the thread first */
        if (analyse && thread->op.deadline != ROUSE_NEVER)
            note_race(thread->woken_by, event);
        join_before(event->before, ex.events[thread->woken_by].before);
    }
    for (int i = ex.event_count - 1; i >= 0; i--) {
        const struct event *other = &ex.events[i];
        if (other->thread == chosen || !depend(&other->footprint, &event->footprint))
            continue;
        bool ordered = precedes(i, event);
        /* A lock is waited for until its release, so it is the acquisitions that could have come in another order. */
        if (event->kind == OP_LOCK ? other->kind != OP_UNLOCK && i >= own[other->thread] : !ordered) {
            if (analyse)
                note_race(i, event);
        }
        if (!ordered)
            join_before(event->before, other->before);
    }
    event->before[chosen] = (uint16_t)(ex.event_count + 1);
}

/* A step in need comes after all that happened so far: it was not to be had while anybody could run. */
static void record_event(unsigned chosen, int node, bool in_need)
{
    describe_event(chosen, node);
    for (unsigned t = 0; t < ex.thread_count && in_need; t++) {
        if (ex.threads[t].last_event >= 0)
            join_before(ex.events[ex.event_count].before, ex.events[ex.threads[t].last_event].before);
    }
    ex.threads[chosen].last_event = ex.event_count++;
}

/* At an end where threads wait for locks for ever: they would have made these steps, had they come first. */
static void note_races_of_blocked(void)
{
    for (unsigned t = 0; t < ex.thread_count; t++) {
        if (!ex.threads[t].finished && ex.threads[t].op.kind == OP_LOCK)
            describe_event(t, ex.position);
    }
}

/* Threads for which the step just recorded changes nothing go on sleeping. After a step in need all may have changed:
 * who else was in need then can only go on when others cannot. */
static void wake_dependent(uint8_t sleeping, bool in_need)
{
    const struct event *event = &ex.events[ex.event_count - 1];
    ex.asleep = 0;
    for (unsigned t = 0; t < ex.thread_count && !in_need; t++) {
        if (!(sleeping & bit(t)) || t == event->thread)
            continue;
        struct footprint footprint = footprint_of(&ex.threads[t]);
        if (!depend(&event->footprint, &footprint))
            ex.asleep |= bit(t);
    }
}

/* Whether what a thread has read since it last relaxed has changed, so that reading it again is of use. */
bool explorer_sees_change(const struct thread *thread)
{
    bool watches = false;
    for (int i = 0; i < ex.location_count; i++) {
        if (!explorer_is_watched(&thread->watched, i))
            continue;
        watches = true;
        if (ex.messages[ex.locations[i].latest].time != thread->read_time[i])
            return true;
    }
    return !watches;
}

static bool is_enabled(const struct thread *thread)
{
    const struct op *op = &thread->op;
    if (thread->finished)
        return false;
    if (op->kind == OP_LOCK)
        return ex.messages[ex.locations[op->location].latest].value == 0;
    if (op->kind == OP_RELAX)
        return explorer_sees_change(thread);
    if (op->kind == OP_RESUME)
        return thread->woken || (op->deadline != ROUSE_NEVER && !ex.model->deadlines_never_pass &&
                                 thread->timeouts < ex.model->timeouts);
    return true;
}

/* When nobody can run: those who may after all, because time passes or because spinning may have an end. */
static bool is_enabled_in_need(struct thread *thread)
{
    const struct op *op = &thread->op;
    if (thread->finished)
        return false;
    if (op->kind == OP_RELAX) {
        if (++thread->idle_rounds > IDLE_ROUNDS)
            model_fail("livelock: spins for what nobody is left to do");
        return true;
    }
    return op->kind == OP_RESUME && op->deadline != ROUSE_NEVER && !ex.model->deadlines_never_pass;
}

static void report_blocked(void)
{
    size_t length = (size_t)snprintf(ex.reason, sizeof ex.reason, "deadlock or lost wake:");
    for (unsigned t = 0; t < ex.thread_count && length < sizeof ex.reason; t++) {
        const struct op *op = &ex.threads[t].op;
        if (!ex.threads[t].finished)
            length += (size_t)snprintf(ex.reason + length, sizeof ex.reason - length, " thread %u blocked at %s;", t,
                                       op->where);
    }
    ex.outcome = FAILED;
}

/* The threads that can run; 0 with an outcome if the execution ends here. */
static uint8_t runnable(bool *in_need)
{
    uint8_t enabled = 0, unfinished = 0;
    *in_need = false;
    for (unsigned t = 0; t < ex.thread_count; t++) {
        if (is_enabled(&ex.threads[t]))
            enabled |= bit(t);
        if (!ex.threads[t].finished)
            unfinished |= bit(t);
    }
    if (enabled)
        return enabled;
    if (!unfinished) {
        ex.outcome = COMPLETE;
        return 0;
    }
    *in_need = true;
    for (unsigned t = 0; t < ex.thread_count; t++) {
        if (is_enabled_in_need(&ex.threads[t]))
            enabled |= bit(t);
    }
    if (ex.outcome != RUNNING)
        return 0;
    if (!enabled) {
        unsigned caller = ex.self;
        ex.self = MAIN;
        if (ex.model->quiet && ex.model->quiet()) {
            note_races_of_blocked();
            ex.outcome = COMPLETE;
        } else if (ex.outcome == RUNNING)
            report_blocked();
        ex.self = caller;
    }
    return enabled;
}

static struct decision *next_decision(void)
{
    if (ex.position == DECISIONS || ex.event_count == EVENTS) {
        model_fail("an execution without end? a loop that waits must call cpu_relax");
        return NULL;
    }
    struct decision *decision = &ex.decisions[ex.position];
    if (ex.position == ex.decision_count) {
        *decision = (struct decision){0};
        ex.decision_count++;
    }
    return decision;
}

/* With a preemption bound: who may run, every order being enumerated. */
static uint8_t allowed_by_bound(uint8_t enabled)
{
    bool could_go_on = ex.last_thread >= 0 && (enabled & bit((unsigned)ex.last_thread)) &&
                       ex.threads[ex.last_thread].op.kind != OP_RELAX;
    if (ex.model->preemption_bound && could_go_on && ex.preemptions >= ex.model->preemption_bound)
        return bit((unsigned)ex.last_thread);
    return enabled;
}

static void choose_first_time(struct decision *decision, uint8_t enabled, bool in_need)
{
    bool reduce = !ex.model->every_interleaving && !ex.model->preemption_bound;
    decision->enabled = enabled;
    decision->sleeping = reduce ? ex.asleep : 0;
    uint8_t candidates = allowed_by_bound(enabled) & (uint8_t)~decision->sleeping;
    if (!candidates) {
        ex.outcome = REDUNDANT;
        return;
    }
    /* Going on with the same thread saves a switch, and makes reports that people can follow. */
    bool go_on = ex.last_thread >= 0 && (candidates & bit((unsigned)ex.last_thread)) &&
                 ex.threads[ex.last_thread].op.kind != OP_RELAX;
    decision->chosen = (uint8_t)(go_on ? (unsigned)ex.last_thread : lowest(candidates));
    decision->backtrack = reduce && !in_need ? bit(decision->chosen) : candidates;
}

/* Decides which thread makes the next step; MAIN if the execution ends here. */
unsigned explorer_choose_thread(void)
{
    if (ex.outcome != RUNNING)
        return MAIN;
    bool in_need;
    uint8_t enabled = runnable(&in_need);
    if (!enabled || ex.outcome != RUNNING)
        return MAIN;
    bool is_new = ex.position == ex.decision_count;
    struct decision *decision = next_decision();
    if (!decision)
        return MAIN;
    if (is_new)
        choose_first_time(decision, enabled, in_need);
    else if (ex.replaying)
        decision->enabled = decision->backtrack = enabled;
    if (ex.outcome != RUNNING)
        return MAIN;
    if (decision->is_value || !(enabled & bit(decision->chosen))) {
        model_fail("the model does not do the same each time (or MODEL_REPLAY is of another one)");
        return MAIN;
    }
    unsigned chosen = decision->chosen;
    bool preempts = ex.last_thread >= 0 && chosen != (unsigned)ex.last_thread &&
                    (enabled & bit((unsigned)ex.last_thread)) && ex.threads[ex.last_thread].op.kind != OP_RELAX;
    ex.preemptions += preempts;
    ex.last_thread = (int)chosen;
    record_event(chosen, ex.position, in_need);
    wake_dependent(decision->sleeping, in_need);
    ex.position++;
    ex.result.steps++;
    return chosen;
}

/* Decides between `count` possibilities of the running step, the first of which is the ordinary one. */
unsigned explorer_choose_value(unsigned count)
{
    if (count < 2)
        return 0;
    bool is_new = ex.position == ex.decision_count;
    struct decision *decision = next_decision();
    if (!decision)
        explorer_abandon();
    if (is_new) {
        decision->is_value = true;
        decision->count = (uint8_t)count;
    } else if (!decision->is_value || decision->chosen >= count) {
        model_fail("the model does not do the same each time (or MODEL_REPLAY is of another one)");
        explorer_abandon();
    } else {
        decision->count = (uint8_t)count;
    }
    ex.position++;
    return decision->chosen;
}

/* Turns the last decision that can be made otherwise; false when there is none. */
bool explorer_next_path(void)
{
    while (ex.decision_count > 0) {
        struct decision *decision = &ex.decisions[ex.decision_count - 1];
        if (decision->is_value) {
            if (decision->chosen + 1 < decision->count) {
                decision->chosen++;
                break;
            }
        } else {
            decision->sleeping |= bit(decision->chosen);
            uint8_t rest = decision->backtrack & (uint8_t)~decision->sleeping;
            if (rest) {
                decision->chosen = (uint8_t)lowest(rest);
                break;
            }
        }
        ex.decision_count--;
    }
    ex.changed = ex.decision_count - 1;
    return ex.decision_count > 0;
}
