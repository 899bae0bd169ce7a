/* What a model's threads do: each operation waits for its turn, and takes effect. */
#include "explorer_parts.h"

#include "os/os.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const op_names[] = {"start", "load",     "store",  "rmw",        "cas",
                                       "fence", "relax",    "wait",   "wake up",    "wake",
                                       "lock",  "try lock", "unlock", "read clock", "set clock"};

/* ---- steps ---- */

/* Gives up this execution in the middle of a thread. */
void explorer_abandon(void)
{
    if (ex.self == MAIN)
        return; /* there is nothing to give up; the caller returns */
    struct thread *me = &ex.threads[ex.self];
    ex.self = MAIN;
    coroutine_switch(&me->coroutine, &coroutine_main);
    abort();
}

void model_fail(const char *text)
{
    if (ex.outcome != FAILED && text != ex.reason)
        snprintf(ex.reason, sizeof ex.reason, "%s", text);
    ex.outcome = FAILED;
    explorer_abandon(); /* in a thread nothing that comes after it makes sense */
}

unsigned model_self(void)
{
    return ex.self;
}

/* Lets the chosen thread go on, which may be the caller. */
static void go_on(void)
{
    struct thread *me = &ex.threads[ex.self];
    unsigned next = ex.starting ? MAIN : explorer_choose_thread();
    if (next == ex.self)
        return;
    ex.self = next;
    coroutine_switch(&me->coroutine, next == MAIN ? &coroutine_main : &ex.threads[next].coroutine);
}

static void trace(const char *format, ...)
{
    va_list arguments;
    if (!ex.tracing || ex.event_count <= ex.trace_from)
        return;
    const struct op *op = &ex.threads[ex.self].op;
    printf("  %3d  thread %u  %-8s ", ex.event_count - 1, ex.self, op_names[op->kind]);
    if (op->location >= 0)
        printf("#%-2d ", op->location);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    const char *slash = strrchr(op->where, '/');
    printf("  %s\n", slash ? slash + 1 : op->where);
}

/* Waits until this thread may make its next operation. */
static struct thread *step_of(struct op op)
{
    struct thread *me = &ex.threads[ex.self];
    me->op = op;
    go_on();
    me->now.clock.at[ex.self]++;
    if (op.location >= 0 && op.kind != OP_WAKE) {
        explorer_check_alive(ex.locations[op.location].block);
        ex.locations[op.location].accessed.at[ex.self] = me->now.clock.at[ex.self];
    }
    return me;
}

static struct thread *step(enum op_kind kind, int location, enum model_order order, const char *where)
{
    return step_of((struct op){.kind = kind, .location = location, .order = order, .where = where});
}

void explorer_thread_main(void)
{
    ex.threads[ex.self].at_rest = false;
    ex.model->threads[ex.self]();
    ex.threads[ex.self].finished = true;
    ex.threads[ex.self].at_rest = true;
    go_on();
}

/* ---- operations ---- */

static bool acquires(enum model_order order)
{
    return order == ACQUIRE || order == ACQ_REL || order == SEQ_CST;
}

static bool releases(enum model_order order)
{
    return order == RELEASE || order == ACQ_REL || order == SEQ_CST;
}

/* The thread has read this, or written it. */
static void note_time(struct thread *me, int location, uint16_t time)
{
    explorer_watch(&me->watched, location);
    me->read_time[location] = time;
}

/* What reading a message does to its reader. */
static void take_in(struct thread *me, int location, int number, enum model_order order)
{
    const struct message *message = &ex.messages[number];
    if (me->last_read[location] == number && number != ex.locations[location].latest)
        me->rereads[location]++;
    else
        me->rereads[location] = 0;
    me->last_read[location] = number;
    note_time(me, location, message->time);
    if (message->time > me->now.view[location])
        me->now.view[location] = message->time;
    explorer_learn(acquires(order) ? &me->now : &me->seen, &message->released, message->locations);
}

/* The message that a load reads: the latest, or one before it that the thread cannot know to be out of date. The same
 * old one is read twice at most: memory does not hold values back for ever. */
static int choose_message(struct thread *me, int location, enum model_order order)
{
    int options[16];
    unsigned count = 0;
    const struct location *l = &ex.locations[location];
    uint16_t bound = me->now.view[location];
    if (l->floor > bound)
        bound = l->floor;
    if (explorer_is_sequential(order) && ex.sequential.view[location] > bound)
        bound = ex.sequential.view[location];
    for (int m = l->latest; m >= 0 && ex.messages[m].time >= bound && count <= ex.model->history && count < 16;
         m = ex.messages[m].previous) {
        bool worn_out = m == me->last_read[location] && m != l->latest && me->rereads[location] > 0;
        if (!worn_out)
            options[count++] = m;
    }
    return options[explorer_choose_value(count)];
}

/* Writes a value; `base` is the message that a read-modify-write has read, -1 for a store. */
static void write_value(struct thread *me, int location, uint64_t value, enum model_order order, int base)
{
    struct location *l = &ex.locations[location];
    struct message *message = explorer_append(l, explorer_truncate(value, l->bytes));
    me->now.view[location] = message->time;
    me->last_read[location] = l->latest;
    if (explorer_is_watched(&me->watched, location))
        me->read_time[location] = message->time;
    me->rereads[location] = 0;
    explorer_copy_knowledge(&message->released, releases(order) ? &me->now : &me->fenced);
    message->released.view[location] = message->time;
    message->locations = (uint16_t)ex.location_count;
    if (base >= 0) /* a release sequence goes on */
        explorer_learn(&message->released, &ex.messages[base].released, ex.messages[base].locations);
    if (explorer_is_sequential(order))
        ex.sequential.view[location] = message->time;
    explorer_set((void *)(uintptr_t)l->address, l->bytes, value);
}

void model_atomic_init(void *address, unsigned bytes, uint64_t value, const char *where)
{
    explorer_set(address, bytes, value);
    if (ex.self == MAIN)
        return;
    if (explorer_is_cell(address))
        explorer_access_plain(address, bytes, true, where, NULL);
    else
        explorer_locate(address, bytes); /* takes in what was just written */
}

uint64_t model_load(const void *address, unsigned bytes, enum model_order order, const char *where)
{
    if (ex.self == MAIN)
        return explorer_get(address, bytes);
    if (explorer_is_cell(address)) {
        explorer_access_plain(address, bytes, false, where, NULL);
        return explorer_get(address, bytes);
    }
    int location = explorer_locate(address, bytes);
    struct thread *me = step(OP_LOAD, location, order, where);
    int message = choose_message(me, location, order);
    take_in(me, location, message, order);
    uint64_t value = ex.messages[message].value;
    trace("%#llx%s", (unsigned long long)value, message == ex.locations[location].latest ? "" : " (out of date)");
    return value;
}

void model_store(void *address, unsigned bytes, uint64_t value, enum model_order order, const char *where)
{
    if (ex.self == MAIN) {
        explorer_set(address, bytes, value);
        return;
    }
    if (explorer_is_cell(address)) {
        explorer_access_plain(address, bytes, true, where, NULL);
        explorer_set(address, bytes, value);
        return;
    }
    int location = explorer_locate(address, bytes);
    struct thread *me = step(OP_STORE, location, order, where);
    write_value(me, location, value, order, -1);
    trace("%#llx", (unsigned long long)explorer_truncate(value, bytes));
}

static void refuse_cell(const void *address)
{
    if (explorer_is_cell(address))
        model_fail("a read-modify-write of what model_cells calls data");
}

static uint64_t combine(enum model_rmw kind, uint64_t old, uint64_t value)
{
    switch (kind) {
    case MODEL_ADD:
        return old + value;
    case MODEL_SUB:
        return old - value;
    case MODEL_OR:
        return old | value;
    case MODEL_AND:
        return old & value;
    default:
        return value;
    }
}

uint64_t model_rmw(void *address, unsigned bytes, enum model_rmw kind, uint64_t value, enum model_order order,
                   const char *where)
{
    if (ex.self == MAIN) {
        uint64_t old = explorer_get(address, bytes);
        explorer_set(address, bytes, combine(kind, old, value));
        return old;
    }
    refuse_cell(address);
    int location = explorer_locate(address, bytes);
    struct thread *me = step(OP_RMW, location, order, where);
    int base = ex.locations[location].latest;
    uint64_t old = ex.messages[base].value;
    take_in(me, location, base, order);
    write_value(me, location, combine(kind, old, value), order, base);
    trace("%#llx -> %#llx", (unsigned long long)old,
          (unsigned long long)ex.messages[ex.locations[location].latest].value);
    return old;
}

/* Whether something may go wrong for no reason here, and does. */
static bool fails_for_no_reason(struct thread *me)
{
    if (me->spurious >= ex.model->spurious || explorer_choose_value(2) == 0)
        return false;
    me->spurious++;
    return true;
}

bool model_cas(void *address, unsigned bytes, uint64_t *expected, uint64_t desired, enum model_order success,
               enum model_order failure, bool weak, const char *where)
{
    uint64_t wanted = explorer_truncate(*expected, bytes);
    if (ex.self == MAIN) {
        *expected = explorer_get(address, bytes);
        if (*expected == wanted)
            explorer_set(address, bytes, desired);
        return *expected == wanted;
    }
    refuse_cell(address);
    int location = explorer_locate(address, bytes);
    struct thread *me = step_of(
        (struct op){.kind = OP_CAS, .location = location, .order = success, .expected = wanted, .where = where});
    int base = ex.locations[location].latest;
    uint64_t old = ex.messages[base].value;
    bool done = old == wanted && !(weak && fails_for_no_reason(me));
    take_in(me, location, base, done ? success : failure);
    if (done)
        write_value(me, location, desired, success, base);
    trace(done ? "%#llx -> %#llx" : "%#llx, not %#llx: failed", (unsigned long long)old,
          (unsigned long long)(done ? explorer_truncate(desired, bytes) : wanted));
    *expected = old;
    return done;
}

void model_fence(enum model_order order, const char *where)
{
    if (ex.self == MAIN)
        return;
    /* Fences that are not SEQ_CST concern the thread alone. */
    struct thread *me = explorer_is_sequential(order) ? step(OP_FENCE, -1, order, where) : &ex.threads[ex.self];
    if (acquires(order))
        explorer_learn(&me->now, &me->seen, ex.location_count);
    if (explorer_is_sequential(order)) {
        struct clock clock = me->now.clock; /* agreeing on an order is not the same as having synchronised */
        explorer_learn(&me->now, &ex.sequential, ex.location_count);
        me->now.clock = clock;
        explorer_learn(&ex.sequential, &me->now, ex.location_count);
        trace("seq_cst");
    }
    if (releases(order))
        explorer_copy_knowledge(&me->fenced, &me->now);
}

void model_relax(const char *where)
{
    if (ex.self == MAIN)
        return;
    bool waits = !explorer_sees_change(&ex.threads[ex.self]);
    struct thread *me = step(OP_RELAX, -1, RELAXED, where);
    if (!waits || explorer_sees_change(me))
        me->idle_rounds = 0;
    /* Time has passed: what was written before can be read. That orders nothing else. */
    for (int i = 0; i < ex.location_count; i++) {
        if (explorer_is_watched(&me->watched, i))
            me->now.view[i] = ex.messages[ex.locations[i].latest].time;
    }
    memset(&me->watched, 0, sizeof me->watched);
    trace("");
}

/* ---- locks as one step ---- */

static void own_lock(struct thread *me, int location)
{
    int base = ex.locations[location].latest;
    take_in(me, location, base, ACQUIRE);
    write_value(me, location, 1, RELAXED, base);
}

void model_lock_acquire(void *word, const char *where)
{
    if (ex.self == MAIN) {
        if (explorer_get(word, 4))
            model_fail("setup, finish or quiet waits for a lock");
        explorer_set(word, 4, 1);
        return;
    }
    int location = explorer_locate(word, 4);
    struct thread *me = step(OP_LOCK, location, ACQUIRE, where);
    own_lock(me, location);
    trace("");
}

bool model_lock_try(void *word, const char *where)
{
    if (ex.self == MAIN) {
        bool is_free = explorer_get(word, 4) == 0;
        explorer_set(word, 4, 1);
        return is_free;
    }
    int location = explorer_locate(word, 4);
    struct thread *me = step(OP_TRY_LOCK, location, ACQUIRE, where);
    bool is_free = ex.messages[ex.locations[location].latest].value == 0;
    if (is_free)
        own_lock(me, location);
    trace(is_free ? "" : "failed");
    return is_free;
}

void model_lock_release(void *word, const char *where)
{
    if (ex.self == MAIN) {
        explorer_set(word, 4, 0);
        return;
    }
    int location = explorer_locate(word, 4);
    struct thread *me = step(OP_UNLOCK, location, RELEASE, where);
    if (ex.messages[ex.locations[location].latest].value == 0)
        model_fail("released a lock that is not held");
    write_value(me, location, 0, RELEASE, -1);
    trace("");
}

/* ---- the system ---- */

void os_wait_on(const uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
    if (ex.self == MAIN) {
        model_fail("setup, finish or quiet waits");
        return;
    }
    const char *where = "os_wait_on";
    int location = explorer_locate(word, 4);
    struct thread *me =
        step_of((struct op){.kind = OP_WAIT, .location = location, .deadline = deadline_ns, .where = where});
    /* The system looks at the word itself, and sees its latest value. */
    uint64_t value = ex.messages[ex.locations[location].latest].value;
    me->now.view[location] = ex.messages[ex.locations[location].latest].time;
    note_time(me, location, me->now.view[location]);
    bool sleeps = value == expected && deadline_ns > ex.clock_ns && !fails_for_no_reason(me);
    trace(sleeps ? "%#llx: sleeps" : "%#llx: does not sleep", (unsigned long long)value);
    if (!sleeps)
        return;
    me->waiting = true;
    me->woken = false;
    me->op = (struct op){.kind = OP_RESUME, .location = location, .deadline = deadline_ns, .where = where};
    go_on();
    me->now.clock.at[ex.self]++;
    me->waiting = false;
    if (!me->woken) {
        me->timeouts++;
        if (deadline_ns > ex.clock_ns)
            ex.clock_ns = deadline_ns;
    }
    trace(me->woken ? "woken" : "its time has come");
}

static void wake(const uint32_t *word, bool all)
{
    if (ex.self == MAIN)
        return;
    int location = explorer_find_location(word); /* the memory may be gone: only the address counts */
    step(OP_WAKE, location, RELAXED, all ? "os_wake_all" : "os_wake_one");
    unsigned sleepers[MODEL_THREADS], count = 0;
    for (unsigned t = 0; t < ex.thread_count; t++) {
        if (ex.threads[t].waiting && !ex.threads[t].woken && ex.threads[t].op.location == location)
            sleepers[count++] = t;
    }
    unsigned first = all ? 0 : explorer_choose_value(count), last = all ? count : first + 1;
    for (unsigned i = first; i < last && i < count; i++) {
        ex.threads[sleepers[i]].woken = true;
        ex.threads[sleepers[i]].woken_by = ex.event_count - 1;
        trace("thread %u", sleepers[i]);
    }
    if (count == 0)
        trace("nobody");
}

void os_wake_one(const uint32_t *word)
{
    wake(word, false);
}

void os_wake_all(const uint32_t *word)
{
    wake(word, true);
}

void os_thread_yield(void)
{
    model_relax("os_thread_yield");
}

int64_t os_now(void)
{
    if (ex.self == MAIN)
        return ex.clock_ns;
    step(OP_READ_CLOCK, -1, RELAXED, "os_now");
    trace("%lld", (long long)ex.clock_ns);
    return ex.clock_ns;
}

void model_clock_set(int64_t now_ns)
{
    if (ex.self != MAIN)
        step(OP_SET_CLOCK, -1, RELAXED, "model_clock_set");
    ex.clock_ns = now_ns;
    if (ex.self != MAIN)
        trace("%lld", (long long)ex.clock_ns);
}

void *os_alloc(size_t size, size_t alignment)
{
    if (alignment > 64)
        model_fail("alignment above 64");
    return model_alloc(size);
}

void os_free(void *memory)
{
    model_free(memory);
}

static void *main_current; /* os_current of setup, finish and quiet */

void *os_current(void)
{
    return ex.self == MAIN ? main_current : ex.threads[ex.self].current;
}

void os_current_set(void *current)
{
    if (ex.self == MAIN)
        main_current = current;
    else
        ex.threads[ex.self].current = current;
}

void explorer_reset_system(void)
{
    ex.clock_ns = 0;
    main_current = NULL;
}
