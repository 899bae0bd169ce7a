/* The explorer; explorer.h says what it does and how. Parts: memory, locations and what threads know of them, steps,
 * the operations, the search, reports. */
#include "explorer.h"

#include "os/atomic.h"
#include "os/os.h"

#include "coroutine.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum {
    MAIN = MODEL_THREADS,  /* model_self() outside of threads */
    LOCATIONS = 128,       /* atomics of one execution */
    TABLE = 512,           /* of locations by address; a power of two */
    PLACES = 8192,         /* of plain memory in one execution */
    PLACE_TABLE = 16384,   /* of places by address; a power of two */
    MESSAGES = 8192,       /* values written in one execution */
    EVENTS = 4096,         /* steps of one execution */
    DECISIONS = 8192,      /* of one execution */
    ARENA_BYTES = 1 << 18, /* all of model_alloc in one execution */
    BLOCKS = 512,          /* allocations of one execution */
    TRACED = 200,          /* steps printed of a failing execution, the last ones */
    IDLE_ROUNDS = 100,     /* of cpu_relax with nobody else to run, before it counts as a livelock */
};

/* ---- what there is ---- */

/* Happens-before: for each thread, how many of its operations are known to have happened. */
struct clock {
    uint32_t at[MODEL_THREADS];
};

/* What can be learned from a message: happens-before, and the time that reads of each location cannot go behind. */
struct knowledge {
    struct clock clock;
    uint16_t view[LOCATIONS];
};

/* A value that a location had. */
struct message {
    uint64_t value;            /* as a number of the location's width */
    int previous;              /* the value before it; -1: none */
    uint16_t time;             /* its place in the location's order */
    uint16_t locations;        /* how many entries of released.view are set */
    struct knowledge released; /* what an ACQUIRE that reads it learns */
};

struct location {
    const void *address;
    unsigned bytes;        /* width; 0 while it has been named by a wake only */
    int latest;            /* message; -1 while there is none */
    uint16_t floor;        /* time of the last initialisation: nothing older can be read */
    int block;             /* of model_alloc in which it lies; -1: elsewhere */
    struct clock accessed; /* when each thread came here last */
};

/* Where an access stands. */
struct spot {
    const char *where; /* file:line; NULL: not known */
    const void *code;  /* if so, the address of the code */
};

/* Memory that is accessed plainly: four bytes, or what is accessed in one piece if that is less. */
struct place {
    const void *address;
    int block;         /* as above */
    int writer;        /* who wrote last; -1: nobody */
    uint32_t written;  /* and when, by the writer's clock */
    struct clock read; /* when each thread read last */
    struct spot write_spot;
    struct spot read_spots[MODEL_THREADS];
};

enum op_kind {
    OP_START,
    OP_LOAD,
    OP_STORE,
    OP_RMW,
    OP_CAS,
    OP_FENCE,
    OP_RELAX,
    OP_WAIT,   /* os_wait_on, when it looks at the word */
    OP_RESUME, /* os_wait_on, when it returns after having slept */
    OP_WAKE,
    OP_LOCK,
    OP_TRY_LOCK,
    OP_UNLOCK,
    OP_READ_CLOCK,
    OP_SET_CLOCK,
};

static const char *const op_names[] = {"start", "load",     "store",  "rmw",        "cas",
                                       "fence", "relax",    "wait",   "wake up",    "wake",
                                       "lock",  "try lock", "unlock", "read clock", "set clock"};

/* The next operation of a thread. */
struct op {
    enum op_kind kind;
    int location; /* -1: none */
    enum model_order order;
    uint64_t expected; /* of a compare-exchange */
    int64_t deadline;  /* of OP_WAIT and OP_RESUME */
    const char *where; /* file:line */
};

/* What a step did, as far as it matters for which steps can change places. */
enum flags {
    READS = 1,
    WRITES = 2,
    WAITS = 4,       /* enters or leaves the queue of sleepers of the location */
    WAKES = 8,       /* looks at that queue */
    SEQUENTIAL = 16, /* a SEQ_CST operation */
    SEQUENTIAL_FENCE = 32,
    RELAXES = 64, /* waits for a change of what the thread has read */
    READS_CLOCK = 128,
    WRITES_CLOCK = 256,
};

/* A set of locations. */
struct watched {
    uint64_t bits[LOCATIONS / 64];
};

/* What a step touches. */
struct footprint {
    unsigned flags;         /* enum flags */
    int location;           /* -1: none */
    struct watched watched; /* with RELAXES */
};

struct thread {
    struct coroutine coroutine;
    bool finished;                 /* its body has returned, in this execution */
    bool at_rest;                  /* the coroutine can run the body again without being restarted */
    struct op op;                  /* what it does when it is chosen next */
    bool waiting;                  /* asleep in os_wait_on; op is OP_RESUME */
    bool woken;                    /* by os_wake */
    int woken_by;                  /* event; -1: none */
    struct watched watched;        /* what it has read since it relaxed last */
    uint16_t read_time[LOCATIONS]; /* of these: the time of what it has read last */
    unsigned idle_rounds;          /* relaxed in vain this often, one after the other */
    unsigned timeouts;             /* used up */
    unsigned spurious;             /* used up */
    int last_event;                /* -1: none */
    struct knowledge now;          /* what it knows */
    struct knowledge fenced;       /* what it knew at its last RELEASE fence: goes with its RELAXED stores */
    struct knowledge seen;         /* what came with its RELAXED loads: an ACQUIRE fence learns it */
    int last_read[LOCATIONS];      /* message; -1: none */
    uint8_t rereads[LOCATIONS];    /* how often it read that one again although it was out of date */
    void *current;                 /* os_current */
};

struct event {
    unsigned thread;
    int node; /* the decision for this thread */
    enum op_kind kind;
    struct footprint footprint;
    uint16_t before[MODEL_THREADS]; /* of each thread, how many events come before or are this one: index + 1 of the
                                         last */
};

/* A point where executions part. */
struct decision {
    bool is_value;     /* between values or wakes, not between threads */
    uint8_t chosen;    /* the thread, or the number of the value */
    uint8_t count;     /* values */
    uint8_t enabled;   /* threads that could run: a bit each */
    uint8_t sleeping;  /* threads that need not be tried: done already, or another execution stands for it */
    uint8_t backtrack; /* threads that must be tried */
};

static const struct model *model;
static unsigned thread_count;
static struct thread threads[MODEL_THREADS];
static unsigned self = MAIN;
static bool running;  /* an execution is under way */
static bool starting; /* threads run up to their first operation */

static struct location locations[LOCATIONS];
static int location_count;
static int16_t table[TABLE]; /* location + 1; 0: free */
static struct place places[PLACES];
static int place_count;
static int16_t place_table[PLACE_TABLE]; /* place + 1; 0: free */
static struct message messages[MESSAGES];
static int message_count;
static struct knowledge sequential; /* view only: what SEQ_CST operations agree on */

static struct {
    const char *memory;
    size_t bytes;
} cells[16];
static int cell_count;

static struct event events[EVENTS];
static int event_count;
static struct decision decisions[DECISIONS];
static int decision_count; /* of the path that is being run, as far as it is known */
static int position;       /* the next decision */
static int changed;        /* the first decision of this path that no execution before has taken */
static uint8_t asleep;     /* threads that need not be tried now */
static int last_thread;    /* that made a step; -1: none */
static unsigned preemptions;

static enum { RUNNING, COMPLETE, REDUNDANT, FAILED } outcome;
static char reason[512];
static bool tracing;
static int trace_from; /* the first event that is printed */
static bool replaying; /* decisions come from the outside */
static struct model_result result;
static int64_t clock_ns;

static void abandon(void);

/* ---- memory ---- */

static struct block {
    char *memory;
    size_t bytes;
    bool freed;
} blocks[BLOCKS];
static int block_count;
static _Alignas(64) char arena[ARENA_BYTES];
static size_t arena_used;
static int16_t arena_block[ARENA_BYTES / 64]; /* of each 64 bytes: block + 1; 0: none */

static bool in_arena(const void *address)
{
    return (uintptr_t)address - (uintptr_t)arena < sizeof arena;
}

static int block_of(const void *address)
{
    return in_arena(address) ? arena_block[((uintptr_t)address - (uintptr_t)arena) / 64] - 1 : -1;
}

/* Freed memory is poisoned where AddressSanitizer is there, so that plain accesses show, too. */
static void forbid(void *memory, size_t bytes)
{
#if defined(COROUTINE_ADDRESS_SANITIZER)
    __asan_poison_memory_region(memory, bytes);
#else
    (void)memory, (void)bytes;
#endif
}

static void allow(void *memory, size_t bytes)
{
#if defined(COROUTINE_ADDRESS_SANITIZER)
    __asan_unpoison_memory_region(memory, bytes);
#else
    (void)memory, (void)bytes;
#endif
}

static void reset_memory(void)
{
    allow(arena, arena_used);
    memset(arena_block, 0, arena_used / 64 * sizeof *arena_block);
    arena_used = 0;
    block_count = 0;
}

void *model_alloc(size_t bytes)
{
    /* 64 bytes between blocks, and 64 as alignment */
    size_t room = ((bytes + 63) & ~(size_t)63) + 64;
    if (block_count == BLOCKS || room > sizeof arena - arena_used) {
        model_fail("too much memory for one execution");
        return NULL;
    }
    struct block *block = &blocks[block_count++];
    *block = (struct block){.memory = arena + arena_used, .bytes = bytes};
    for (size_t i = arena_used / 64; i < (arena_used + room) / 64; i++)
        arena_block[i] = (int16_t)block_count;
    arena_used += room;
    forbid(block->memory + bytes, room - bytes);
    memset(block->memory, 0xA5, bytes);
    return block->memory;
}

/* Whether an access by another thread to the block is not known to have happened. */
static bool is_in_use(int block)
{
    const struct clock *known = &threads[self].now.clock;
    for (unsigned t = 0; t < thread_count; t++) {
        if (t == self)
            continue;
        for (int i = 0; i < location_count; i++) {
            if (locations[i].block == block && locations[i].accessed.at[t] > known->at[t])
                return true;
        }
        for (int i = 0; i < place_count; i++) {
            bool unknown_write = places[i].writer == (int)t && places[i].written > known->at[t];
            if (places[i].block == block && (unknown_write || places[i].read.at[t] > known->at[t]))
                return true;
        }
    }
    return false;
}

void model_free(void *memory)
{
    if (!memory)
        return;
    int number = block_of(memory);
    if (number < 0 || blocks[number].memory != memory) {
        model_fail("model_free of what model_alloc has not given");
        return;
    }
    struct block *block = &blocks[number];
    if (block->freed) {
        model_fail("freed twice");
        return;
    }
    if (self != MAIN && is_in_use(number)) {
        model_fail("freed, but nothing orders an access by another thread before that");
        return;
    }
    block->freed = true;
    memset(block->memory, 0xDD, block->bytes);
    forbid(block->memory, block->bytes);
}

static uint64_t get(const void *address, unsigned bytes)
{
    uint64_t value = 0;
    uint32_t half;
    switch (bytes) {
    case 4:
        memcpy(&half, address, sizeof half);
        return half;
    default:
        memcpy(&value, address, sizeof value);
        return value;
    }
}

static void set(void *address, unsigned bytes, uint64_t value)
{
    uint32_t half = (uint32_t)value;
    if (bytes == 4)
        memcpy(address, &half, sizeof half);
    else
        memcpy(address, &value, sizeof value);
}

static uint64_t truncate(uint64_t value, unsigned bytes)
{
    return bytes == 4 ? (uint32_t)value : value;
}

/* ---- locations and knowledge ---- */

static void learn(struct knowledge *to, const struct knowledge *from, int count)
{
    for (unsigned t = 0; t < MODEL_THREADS; t++) {
        if (from->clock.at[t] > to->clock.at[t])
            to->clock.at[t] = from->clock.at[t];
    }
    for (int i = 0; i < count; i++) {
        if (from->view[i] > to->view[i])
            to->view[i] = from->view[i];
    }
}

static void copy_knowledge(struct knowledge *to, const struct knowledge *from)
{
    to->clock = from->clock;
    memcpy(to->view, from->view, (size_t)location_count * sizeof *to->view);
}

/* Appends a value to a location; what reading it teaches is left empty. */
static struct message *append(struct location *location, uint64_t value)
{
    if (message_count == MESSAGES) {
        model_fail("too many writes in one execution");
        abandon();
    }
    struct message *message = &messages[message_count];
    message->value = value;
    message->previous = location->latest;
    message->time = location->latest < 0 ? 0 : (uint16_t)(messages[location->latest].time + 1);
    message->locations = 0;
    memset(&message->released.clock, 0, sizeof message->released.clock);
    location->latest = message_count++;
    return message;
}

static int new_location(const void *address)
{
    if (location_count == LOCATIONS) {
        model_fail("too many locations in one execution");
        abandon();
    }
    int number = location_count++;
    struct location *location = &locations[number];
    memset(location, 0, sizeof *location);
    location->address = address;
    location->latest = -1;
    location->block = block_of(address);
    for (unsigned t = 0; t < thread_count; t++) {
        threads[t].now.view[number] = 0;
        threads[t].fenced.view[number] = 0;
        threads[t].seen.view[number] = 0;
        threads[t].last_read[number] = -1;
        threads[t].rereads[number] = 0;
    }
    sequential.view[number] = 0;
    return number;
}

static size_t hash(const void *address)
{
    return (size_t)(((uintptr_t)address * UINT64_C(0x9E3779B97F4A7C15)) >> 40);
}

static int find_location(const void *address)
{
    size_t slot = hash(address) % TABLE;
    while (table[slot]) {
        if (locations[table[slot] - 1].address == address)
            return table[slot] - 1;
        slot = (slot + 1) % TABLE;
    }
    int number = new_location(address);
    table[slot] = (int16_t)(number + 1);
    return number;
}

static void check_alive(int block)
{
    if (block >= 0 && blocks[block].freed) {
        model_fail("used after free");
        abandon();
    }
}

/* The location's number. What was written to the memory without the model's knowledge, initialised plainly that is,
 * becomes its value, and its past is cut off. */
static int locate(const void *address, unsigned bytes)
{
    int number = find_location(address);
    struct location *location = &locations[number];
    check_alive(location->block);
    location->bytes = bytes;
    uint64_t value = get(address, bytes);
    if (location->latest < 0)
        append(location, value);
    else if (messages[location->latest].value != value)
        location->floor = append(location, value)->time;
    return number;
}

static void touch(struct location *location)
{
    location->accessed.at[self] = threads[self].now.clock.at[self];
}

/* ---- plain memory ---- */

static struct place *find_place(const void *address)
{
    size_t slot = hash(address) % PLACE_TABLE;
    while (place_table[slot]) {
        if (places[place_table[slot] - 1].address == address)
            return &places[place_table[slot] - 1];
        slot = (slot + 1) % PLACE_TABLE;
    }
    if (place_count == PLACES) {
        model_fail("too much plain memory in one execution");
        abandon();
    }
    struct place *place = &places[place_count++];
    *place = (struct place){.address = address, .block = block_of(address), .writer = -1};
    place_table[slot] = (int16_t)place_count;
    return place;
}

/* Forgets all places, at a cost in proportion to their number. */
static void reset_places(void)
{
    for (int i = 0; i < place_count; i++) {
        for (size_t slot = hash(places[i].address) % PLACE_TABLE; place_table[slot]; slot = (slot + 1) % PLACE_TABLE)
            place_table[slot] = 0;
    }
    place_count = 0;
}

/* Where the program was loaded, if it can be loaded anywhere. */
static uintptr_t load_address(void)
{
#if defined(__ELF__)
    extern const char __executable_start[] __attribute__((weak));
    uintptr_t start = (uintptr_t)__executable_start;
    return start > UINT32_MAX ? start : 0;
#else
    return 0;
#endif
}

static void describe(char *text, size_t bytes, bool write, unsigned thread, struct spot spot)
{
    const char *what = write ? "write" : "read";
    if (spot.where)
        snprintf(text, bytes, "%s by thread %u at %s", what, thread, spot.where);
    else
        snprintf(text, bytes, "%s by thread %u at `addr2line -e PROGRAM %#llx`", what, thread,
                 (unsigned long long)((uintptr_t)spot.code - load_address()));
}

static void report_race(const struct place *place, bool write, struct spot spot, unsigned other)
{
    char here[128], there[128];
    bool other_wrote = place->writer == (int)other;
    describe(here, sizeof here, write, self, spot);
    describe(there, sizeof there, other_wrote, other, other_wrote ? place->write_spot : place->read_spots[other]);
    snprintf(reason, sizeof reason, "data race: %s, %s", there, here);
    outcome = FAILED;
    abandon();
}

/* An access to plain memory: everything that conflicts with it must be known to have happened. */
static void access_place(const void *address, bool write, struct spot spot)
{
    struct place *place = find_place(address);
    const struct clock *known = &threads[self].now.clock;
    check_alive(place->block);
    for (unsigned t = 0; t < thread_count; t++) {
        bool after_write = place->writer == (int)t && place->written > known->at[t];
        bool after_read = write && place->read.at[t] > known->at[t];
        if (t != self && (after_write || after_read))
            report_race(place, write, spot, t);
    }
    /* Later than all the thread has released so far, not later than what it releases next. */
    uint32_t now = known->at[self] + 1;
    if (write) {
        place->writer = (int)self;
        place->written = now;
        place->write_spot = spot;
    } else {
        place->read.at[self] = now;
        place->read_spots[self] = spot;
    }
}

static void access_plain(const void *address, size_t bytes, bool write, const char *where, const void *code)
{
    if (self == MAIN || !running)
        return;
    access_place(address, write, (struct spot){where, code});
    for (size_t offset = 4; offset < bytes; offset += 4)
        access_place((const char *)address + offset, write, (struct spot){where, code});
}

void model_plain(const void *address, size_t bytes, bool write, const char *where)
{
    access_plain(address, bytes, write, where, NULL);
}

static bool is_cell(const void *address)
{
    for (int i = 0; i < cell_count; i++) {
        if ((uintptr_t)address - (uintptr_t)cells[i].memory < cells[i].bytes)
            return true;
    }
    return false;
}

void model_cells(const void *memory, size_t bytes)
{
    if (cell_count == sizeof cells / sizeof *cells) {
        model_fail("too many ranges of cells");
        return;
    }
    cells[cell_count].memory = memory;
    cells[cell_count++].bytes = bytes;
}

/* ---- which steps can change places ---- */

static bool is_sequential(enum model_order order)
{
    return order == SEQ_CST && model->history > 0;
}

static unsigned flags_of(const struct thread *thread)
{
    const struct op *op = &thread->op;
    unsigned sc = is_sequential(op->order) ? SEQUENTIAL : 0;
    const struct location *location = op->location >= 0 ? &locations[op->location] : NULL;
    switch (op->kind) {
    case OP_START:
        return 0;
    case OP_LOAD:
        return READS | sc;
    case OP_STORE:
    case OP_RMW:
        return READS | WRITES | sc;
    case OP_CAS: /* one that fails only reads; whether it does can be changed only by a write to the location */
        return READS | (messages[location->latest].value == op->expected ? WRITES : 0U) | sc;
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
        return READS | (messages[location->latest].value == 0 ? WRITES : 0U);
    }
    return 0;
}

static struct footprint footprint_of(const struct thread *thread)
{
    return (struct footprint){.flags = flags_of(thread), .location = thread->op.location, .watched = thread->watched};
}

static bool is_watched(const struct watched *watched, int location)
{
    return watched->bits[location / 64] >> (location % 64) & 1;
}

static void watch(struct watched *watched, int location)
{
    watched->bits[location / 64] |= UINT64_C(1) << (location % 64);
}

static bool relax_depends(const struct footprint *relax, const struct footprint *write)
{
    return (relax->flags & RELAXES) && (write->flags & WRITES) && is_watched(&relax->watched, write->location);
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
    return event < other->before[events[event].thread];
}

/* Two steps that depend on each other and that nothing else orders: the other order must be tried as well. It is
 * reached from the decision for the first one by any thread that can make a first step of what follows without it. */
static void note_race(int first, const struct event *second)
{
    struct decision *decision = &decisions[events[first].node];
    int first_of[MODEL_THREADS];
    uint8_t initials = 0;
    for (unsigned t = 0; t < thread_count; t++)
        first_of[t] = -1;
    for (int i = first + 1; i <= event_count; i++) {
        const struct event *event = i < event_count ? &events[i] : second;
        if (event != second && precedes(first, event))
            continue;
        if (first_of[event->thread] >= 0)
            continue;
        bool is_initial = true;
        for (unsigned t = 0; t < thread_count; t++)
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
    for (unsigned t = 0; t < thread_count; t++) {
        if (from[t] > to[t])
            to[t] = from[t];
    }
}

/* Writes down the step that `chosen` is about to make, behind the last one, and notes what it races with. */
static void describe_event(unsigned chosen, int node)
{
    struct thread *thread = &threads[chosen];
    struct event *event = &events[event_count];
    uint16_t own[MODEL_THREADS] = {0};
    *event = (struct event){.thread = chosen, .node = node, .kind = thread->op.kind, .footprint = footprint_of(thread)};
    if (thread->last_event >= 0)
        memcpy(own, events[thread->last_event].before, sizeof own);
    memcpy(event->before, own, sizeof own);
    bool analyse = node >= changed && !model->every_interleaving && !model->preemption_bound;
    if (event->kind == OP_RESUME && thread->woken) {
        /* not to be had in the other order, unless time could have woken the thread first */
        if (analyse && thread->op.deadline != ROUSE_NEVER)
            note_race(thread->woken_by, event);
        join_before(event->before, events[thread->woken_by].before);
    }
    for (int i = event_count - 1; i >= 0; i--) {
        const struct event *other = &events[i];
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
    event->before[chosen] = (uint16_t)(event_count + 1);
}

/* A step in need comes after all that happened so far: it was not to be had while anybody could run. */
static void record_event(unsigned chosen, int node, bool in_need)
{
    describe_event(chosen, node);
    for (unsigned t = 0; t < thread_count && in_need; t++) {
        if (threads[t].last_event >= 0)
            join_before(events[event_count].before, events[threads[t].last_event].before);
    }
    threads[chosen].last_event = event_count++;
}

/* At an end where threads wait for locks for ever: they would have made these steps, had they come first. */
static void note_races_of_blocked(void)
{
    for (unsigned t = 0; t < thread_count; t++) {
        if (!threads[t].finished && threads[t].op.kind == OP_LOCK)
            describe_event(t, position);
    }
}

/* Threads for which the step just recorded changes nothing go on sleeping. After a step in need all may have changed:
 * who else was in need then can only go on when others cannot. */
static void wake_dependent(uint8_t sleeping, bool in_need)
{
    const struct event *event = &events[event_count - 1];
    asleep = 0;
    for (unsigned t = 0; t < thread_count && !in_need; t++) {
        if (!(sleeping & bit(t)) || t == event->thread)
            continue;
        struct footprint footprint = footprint_of(&threads[t]);
        if (!depend(&event->footprint, &footprint))
            asleep |= bit(t);
    }
}

/* Whether what a thread has read since it last relaxed has changed, so that reading it again is of use. */
static bool sees_change(const struct thread *thread)
{
    bool watches = false;
    for (int i = 0; i < location_count; i++) {
        if (!is_watched(&thread->watched, i))
            continue;
        watches = true;
        if (messages[locations[i].latest].time != thread->read_time[i])
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
        return messages[locations[op->location].latest].value == 0;
    if (op->kind == OP_RELAX)
        return sees_change(thread);
    if (op->kind == OP_RESUME)
        return thread->woken ||
               (op->deadline != ROUSE_NEVER && !model->deadlines_never_pass && thread->timeouts < model->timeouts);
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
    return op->kind == OP_RESUME && op->deadline != ROUSE_NEVER && !model->deadlines_never_pass;
}

static void report_blocked(void)
{
    size_t length = (size_t)snprintf(reason, sizeof reason, "deadlock or lost wake:");
    for (unsigned t = 0; t < thread_count && length < sizeof reason; t++) {
        const struct op *op = &threads[t].op;
        if (!threads[t].finished)
            length +=
                (size_t)snprintf(reason + length, sizeof reason - length, " thread %u blocked at %s;", t, op->where);
    }
    outcome = FAILED;
}

/* The threads that can run; 0 with an outcome if the execution ends here. */
static uint8_t runnable(bool *in_need)
{
    uint8_t enabled = 0, unfinished = 0;
    *in_need = false;
    for (unsigned t = 0; t < thread_count; t++) {
        if (is_enabled(&threads[t]))
            enabled |= bit(t);
        if (!threads[t].finished)
            unfinished |= bit(t);
    }
    if (enabled)
        return enabled;
    if (!unfinished) {
        outcome = COMPLETE;
        return 0;
    }
    *in_need = true;
    for (unsigned t = 0; t < thread_count; t++) {
        if (is_enabled_in_need(&threads[t]))
            enabled |= bit(t);
    }
    if (outcome != RUNNING)
        return 0;
    if (!enabled) {
        unsigned caller = self;
        self = MAIN;
        if (model->quiet && model->quiet()) {
            note_races_of_blocked();
            outcome = COMPLETE;
        } else if (outcome == RUNNING)
            report_blocked();
        self = caller;
    }
    return enabled;
}

static struct decision *next_decision(void)
{
    if (position == DECISIONS || event_count == EVENTS) {
        model_fail("an execution without end? a loop that waits must call cpu_relax");
        return NULL;
    }
    struct decision *decision = &decisions[position];
    if (position == decision_count) {
        *decision = (struct decision){0};
        decision_count++;
    }
    return decision;
}

/* With a preemption bound: who may run, every order being enumerated. */
static uint8_t allowed_by_bound(uint8_t enabled)
{
    bool could_go_on =
        last_thread >= 0 && (enabled & bit((unsigned)last_thread)) && threads[last_thread].op.kind != OP_RELAX;
    if (model->preemption_bound && could_go_on && preemptions >= model->preemption_bound)
        return bit((unsigned)last_thread);
    return enabled;
}

static void choose_first_time(struct decision *decision, uint8_t enabled, bool in_need)
{
    bool reduce = !model->every_interleaving && !model->preemption_bound;
    decision->enabled = enabled;
    decision->sleeping = reduce ? asleep : 0;
    uint8_t candidates = allowed_by_bound(enabled) & (uint8_t)~decision->sleeping;
    if (!candidates) {
        outcome = REDUNDANT;
        return;
    }
    /* Going on with the same thread saves a switch, and makes reports that people can follow. */
    bool go_on =
        last_thread >= 0 && (candidates & bit((unsigned)last_thread)) && threads[last_thread].op.kind != OP_RELAX;
    decision->chosen = (uint8_t)(go_on ? (unsigned)last_thread : lowest(candidates));
    decision->backtrack = reduce && !in_need ? bit(decision->chosen) : candidates;
}

/* Decides which thread makes the next step; MAIN if the execution ends here. */
static unsigned choose_thread(void)
{
    if (outcome != RUNNING)
        return MAIN;
    bool in_need;
    uint8_t enabled = runnable(&in_need);
    if (!enabled || outcome != RUNNING)
        return MAIN;
    bool is_new = position == decision_count;
    struct decision *decision = next_decision();
    if (!decision)
        return MAIN;
    if (is_new)
        choose_first_time(decision, enabled, in_need);
    else if (replaying)
        decision->enabled = decision->backtrack = enabled;
    if (outcome != RUNNING)
        return MAIN;
    if (decision->is_value || !(enabled & bit(decision->chosen))) {
        model_fail("the model does not do the same each time (or MODEL_REPLAY is of another one)");
        return MAIN;
    }
    unsigned chosen = decision->chosen;
    bool preempts = last_thread >= 0 && chosen != (unsigned)last_thread && (enabled & bit((unsigned)last_thread)) &&
                    threads[last_thread].op.kind != OP_RELAX;
    preemptions += preempts;
    last_thread = (int)chosen;
    record_event(chosen, position, in_need);
    wake_dependent(decision->sleeping, in_need);
    position++;
    result.steps++;
    return chosen;
}

/* Decides between `count` possibilities of the running step, the first of which is the ordinary one. */
static unsigned choose_value(unsigned count)
{
    if (count < 2)
        return 0;
    bool is_new = position == decision_count;
    struct decision *decision = next_decision();
    if (!decision)
        abandon();
    if (is_new) {
        decision->is_value = true;
        decision->count = (uint8_t)count;
    } else if (!decision->is_value || decision->chosen >= count) {
        model_fail("the model does not do the same each time (or MODEL_REPLAY is of another one)");
        abandon();
    } else {
        decision->count = (uint8_t)count;
    }
    position++;
    return decision->chosen;
}

/* Turns the last decision that can be made otherwise; false when there is none. */
static bool next_path(void)
{
    while (decision_count > 0) {
        struct decision *decision = &decisions[decision_count - 1];
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
        decision_count--;
    }
    changed = decision_count - 1;
    return decision_count > 0;
}

/* ---- steps ---- */

/* Gives up this execution in the middle of a thread. */
static void abandon(void)
{
    if (self == MAIN)
        return; /* there is nothing to give up; the caller returns */
    struct thread *me = &threads[self];
    self = MAIN;
    coroutine_switch(&me->coroutine, &coroutine_main);
    abort();
}

void model_fail(const char *text)
{
    if (outcome != FAILED && text != reason)
        snprintf(reason, sizeof reason, "%s", text);
    outcome = FAILED;
    abandon(); /* in a thread nothing that comes after it makes sense */
}

unsigned model_self(void)
{
    return self;
}

/* Lets the chosen thread go on, which may be the caller. */
static void go_on(void)
{
    struct thread *me = &threads[self];
    unsigned next = starting ? MAIN : choose_thread();
    if (next == self)
        return;
    self = next;
    coroutine_switch(&me->coroutine, next == MAIN ? &coroutine_main : &threads[next].coroutine);
}

static void trace(const char *format, ...)
{
    va_list arguments;
    if (!tracing || event_count <= trace_from)
        return;
    const struct op *op = &threads[self].op;
    printf("  %3d  thread %u  %-8s ", event_count - 1, self, op_names[op->kind]);
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
    struct thread *me = &threads[self];
    me->op = op;
    go_on();
    me->now.clock.at[self]++;
    if (op.location >= 0 && op.kind != OP_WAKE) {
        check_alive(locations[op.location].block);
        touch(&locations[op.location]);
    }
    return me;
}

static struct thread *step(enum op_kind kind, int location, enum model_order order, const char *where)
{
    return step_of((struct op){.kind = kind, .location = location, .order = order, .where = where});
}

static void thread_main(void)
{
    threads[self].at_rest = false;
    model->threads[self]();
    threads[self].finished = true;
    threads[self].at_rest = true;
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
    watch(&me->watched, location);
    me->read_time[location] = time;
}

/* What reading a message does to its reader. */
static void take_in(struct thread *me, int location, int number, enum model_order order)
{
    const struct message *message = &messages[number];
    if (me->last_read[location] == number && number != locations[location].latest)
        me->rereads[location]++;
    else
        me->rereads[location] = 0;
    me->last_read[location] = number;
    note_time(me, location, message->time);
    if (message->time > me->now.view[location])
        me->now.view[location] = message->time;
    learn(acquires(order) ? &me->now : &me->seen, &message->released, message->locations);
}

/* The message that a load reads: the latest, or one before it that the thread cannot know to be out of date. The same
 * old one is read twice at most: memory does not hold values back for ever. */
static int choose_message(struct thread *me, int location, enum model_order order)
{
    int options[16];
    unsigned count = 0;
    const struct location *l = &locations[location];
    uint16_t bound = me->now.view[location];
    if (l->floor > bound)
        bound = l->floor;
    if (is_sequential(order) && sequential.view[location] > bound)
        bound = sequential.view[location];
    for (int m = l->latest; m >= 0 && messages[m].time >= bound && count <= model->history && count < 16;
         m = messages[m].previous) {
        bool worn_out = m == me->last_read[location] && m != l->latest && me->rereads[location] > 0;
        if (!worn_out)
            options[count++] = m;
    }
    return options[choose_value(count)];
}

/* Writes a value; `base` is the message that a read-modify-write has read, -1 for a store. */
static void write_value(struct thread *me, int location, uint64_t value, enum model_order order, int base)
{
    struct location *l = &locations[location];
    struct message *message = append(l, truncate(value, l->bytes));
    me->now.view[location] = message->time;
    me->last_read[location] = l->latest;
    if (is_watched(&me->watched, location))
        me->read_time[location] = message->time;
    me->rereads[location] = 0;
    copy_knowledge(&message->released, releases(order) ? &me->now : &me->fenced);
    message->released.view[location] = message->time;
    message->locations = (uint16_t)location_count;
    if (base >= 0) /* a release sequence goes on */
        learn(&message->released, &messages[base].released, messages[base].locations);
    if (is_sequential(order))
        sequential.view[location] = message->time;
    set((void *)(uintptr_t)l->address, l->bytes, value);
}

void model_atomic_init(void *address, unsigned bytes, uint64_t value, const char *where)
{
    set(address, bytes, value);
    if (self == MAIN)
        return;
    if (is_cell(address))
        access_plain(address, bytes, true, where, NULL);
    else
        locate(address, bytes); /* takes in what was just written */
}

uint64_t model_load(const void *address, unsigned bytes, enum model_order order, const char *where)
{
    if (self == MAIN)
        return get(address, bytes);
    if (is_cell(address)) {
        access_plain(address, bytes, false, where, NULL);
        return get(address, bytes);
    }
    int location = locate(address, bytes);
    struct thread *me = step(OP_LOAD, location, order, where);
    int message = choose_message(me, location, order);
    take_in(me, location, message, order);
    uint64_t value = messages[message].value;
    trace("%#llx%s", (unsigned long long)value, message == locations[location].latest ? "" : " (out of date)");
    return value;
}

void model_store(void *address, unsigned bytes, uint64_t value, enum model_order order, const char *where)
{
    if (self == MAIN) {
        set(address, bytes, value);
        return;
    }
    if (is_cell(address)) {
        access_plain(address, bytes, true, where, NULL);
        set(address, bytes, value);
        return;
    }
    int location = locate(address, bytes);
    struct thread *me = step(OP_STORE, location, order, where);
    write_value(me, location, value, order, -1);
    trace("%#llx", (unsigned long long)truncate(value, bytes));
}

static void refuse_cell(const void *address)
{
    if (is_cell(address))
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
    if (self == MAIN) {
        uint64_t old = get(address, bytes);
        set(address, bytes, combine(kind, old, value));
        return old;
    }
    refuse_cell(address);
    int location = locate(address, bytes);
    struct thread *me = step(OP_RMW, location, order, where);
    int base = locations[location].latest;
    uint64_t old = messages[base].value;
    take_in(me, location, base, order);
    write_value(me, location, combine(kind, old, value), order, base);
    trace("%#llx -> %#llx", (unsigned long long)old, (unsigned long long)messages[locations[location].latest].value);
    return old;
}

/* Whether something may go wrong for no reason here, and does. */
static bool fails_for_no_reason(struct thread *me)
{
    if (me->spurious >= model->spurious || choose_value(2) == 0)
        return false;
    me->spurious++;
    return true;
}

bool model_cas(void *address, unsigned bytes, uint64_t *expected, uint64_t desired, enum model_order success,
               enum model_order failure, bool weak, const char *where)
{
    uint64_t wanted = truncate(*expected, bytes);
    if (self == MAIN) {
        *expected = get(address, bytes);
        if (*expected == wanted)
            set(address, bytes, desired);
        return *expected == wanted;
    }
    refuse_cell(address);
    int location = locate(address, bytes);
    struct thread *me = step_of(
        (struct op){.kind = OP_CAS, .location = location, .order = success, .expected = wanted, .where = where});
    int base = locations[location].latest;
    uint64_t old = messages[base].value;
    bool done = old == wanted && !(weak && fails_for_no_reason(me));
    take_in(me, location, base, done ? success : failure);
    if (done)
        write_value(me, location, desired, success, base);
    trace(done ? "%#llx -> %#llx" : "%#llx, not %#llx: failed", (unsigned long long)old,
          (unsigned long long)(done ? truncate(desired, bytes) : wanted));
    *expected = old;
    return done;
}

void model_fence(enum model_order order, const char *where)
{
    if (self == MAIN)
        return;
    /* Fences that are not SEQ_CST concern the thread alone. */
    struct thread *me = is_sequential(order) ? step(OP_FENCE, -1, order, where) : &threads[self];
    if (acquires(order))
        learn(&me->now, &me->seen, location_count);
    if (is_sequential(order)) {
        struct clock clock = me->now.clock; /* agreeing on an order is not the same as having synchronised */
        learn(&me->now, &sequential, location_count);
        me->now.clock = clock;
        learn(&sequential, &me->now, location_count);
        trace("seq_cst");
    }
    if (releases(order))
        copy_knowledge(&me->fenced, &me->now);
}

void model_relax(const char *where)
{
    if (self == MAIN)
        return;
    bool waits = !sees_change(&threads[self]);
    struct thread *me = step(OP_RELAX, -1, RELAXED, where);
    if (!waits || sees_change(me))
        me->idle_rounds = 0;
    /* Time has passed: what was written before can be read. That orders nothing else. */
    for (int i = 0; i < location_count; i++) {
        if (is_watched(&me->watched, i))
            me->now.view[i] = messages[locations[i].latest].time;
    }
    memset(&me->watched, 0, sizeof me->watched);
    trace("");
}

/* ---- locks as one step ---- */

static void own_lock(struct thread *me, int location)
{
    int base = locations[location].latest;
    take_in(me, location, base, ACQUIRE);
    write_value(me, location, 1, RELAXED, base);
}

void model_lock_acquire(void *word, const char *where)
{
    if (self == MAIN) {
        if (get(word, 4))
            model_fail("setup, finish or quiet waits for a lock");
        set(word, 4, 1);
        return;
    }
    int location = locate(word, 4);
    struct thread *me = step(OP_LOCK, location, ACQUIRE, where);
    own_lock(me, location);
    trace("");
}

bool model_lock_try(void *word, const char *where)
{
    if (self == MAIN) {
        bool is_free = get(word, 4) == 0;
        set(word, 4, 1);
        return is_free;
    }
    int location = locate(word, 4);
    struct thread *me = step(OP_TRY_LOCK, location, ACQUIRE, where);
    bool is_free = messages[locations[location].latest].value == 0;
    if (is_free)
        own_lock(me, location);
    trace(is_free ? "" : "failed");
    return is_free;
}

void model_lock_release(void *word, const char *where)
{
    if (self == MAIN) {
        set(word, 4, 0);
        return;
    }
    int location = locate(word, 4);
    struct thread *me = step(OP_UNLOCK, location, RELEASE, where);
    if (messages[locations[location].latest].value == 0)
        model_fail("released a lock that is not held");
    write_value(me, location, 0, RELEASE, -1);
    trace("");
}

/* ---- the system ---- */

void os_wait_on(const uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
    if (self == MAIN) {
        model_fail("setup, finish or quiet waits");
        return;
    }
    const char *where = "os_wait_on";
    int location = locate(word, 4);
    struct thread *me =
        step_of((struct op){.kind = OP_WAIT, .location = location, .deadline = deadline_ns, .where = where});
    /* The system looks at the word itself, and sees its latest value. */
    uint64_t value = messages[locations[location].latest].value;
    me->now.view[location] = messages[locations[location].latest].time;
    note_time(me, location, me->now.view[location]);
    bool sleeps = value == expected && deadline_ns > clock_ns && !fails_for_no_reason(me);
    trace(sleeps ? "%#llx: sleeps" : "%#llx: does not sleep", (unsigned long long)value);
    if (!sleeps)
        return;
    me->waiting = true;
    me->woken = false;
    me->op = (struct op){.kind = OP_RESUME, .location = location, .deadline = deadline_ns, .where = where};
    go_on();
    me->now.clock.at[self]++;
    me->waiting = false;
    if (!me->woken) {
        me->timeouts++;
        if (deadline_ns > clock_ns)
            clock_ns = deadline_ns;
    }
    trace(me->woken ? "woken" : "its time has come");
}

static void wake(const uint32_t *word, bool all)
{
    if (self == MAIN)
        return;
    int location = find_location(word); /* the memory may be gone: only the address counts */
    step(OP_WAKE, location, RELAXED, all ? "os_wake_all" : "os_wake_one");
    unsigned sleepers[MODEL_THREADS], count = 0;
    for (unsigned t = 0; t < thread_count; t++) {
        if (threads[t].waiting && !threads[t].woken && threads[t].op.location == location)
            sleepers[count++] = t;
    }
    unsigned first = all ? 0 : choose_value(count), last = all ? count : first + 1;
    for (unsigned i = first; i < last && i < count; i++) {
        threads[sleepers[i]].woken = true;
        threads[sleepers[i]].woken_by = event_count - 1;
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
    if (self == MAIN)
        return clock_ns;
    step(OP_READ_CLOCK, -1, RELAXED, "os_now");
    trace("%lld", (long long)clock_ns);
    return clock_ns;
}

void model_clock_set(int64_t now_ns)
{
    if (self != MAIN)
        step(OP_SET_CLOCK, -1, RELAXED, "model_clock_set");
    clock_ns = now_ns;
    if (self != MAIN)
        trace("%lld", (long long)clock_ns);
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
    return self == MAIN ? main_current : threads[self].current;
}

void os_current_set(void *current)
{
    if (self == MAIN)
        main_current = current;
    else
        threads[self].current = current;
}

/* ---- what compilers call for -fsanitize=thread ----
 *
 * The model's own file can be compiled with it, without linking the sanitizer: then the compiler announces each plain
 * access here. */
#if !defined(COROUTINE_THREAD_SANITIZER)

#define ACCESS(name, bytes, write)                                              \
    void __tsan_##name(void *address);                                          \
    void __tsan_##name(void *address)                                           \
    {                                                                           \
        access_plain(address, bytes, write, NULL, __builtin_return_address(0)); \
    }
#define ACCESS_RANGE(name, write)                                               \
    void __tsan_##name(void *address, size_t bytes);                            \
    void __tsan_##name(void *address, size_t bytes)                             \
    {                                                                           \
        access_plain(address, bytes, write, NULL, __builtin_return_address(0)); \
    }

ACCESS(read1, 1, false)
ACCESS(read2, 2, false)
ACCESS(read4, 4, false)
ACCESS(read8, 8, false)
ACCESS(read16, 16, false)
ACCESS(write1, 1, true)
ACCESS(write2, 2, true)
ACCESS(write4, 4, true)
ACCESS(write8, 8, true)
ACCESS(write16, 16, true)
ACCESS(unaligned_read2, 2, false)
ACCESS(unaligned_read4, 4, false)
ACCESS(unaligned_read8, 8, false)
ACCESS(unaligned_read16, 16, false)
ACCESS(unaligned_write2, 2, true)
ACCESS(unaligned_write4, 4, true)
ACCESS(unaligned_write8, 8, true)
ACCESS(unaligned_write16, 16, true)
ACCESS_RANGE(read_range, false)
ACCESS_RANGE(write_range, true)

void __tsan_init(void);
void __tsan_init(void) {}

void __tsan_func_entry(void *caller);
void __tsan_func_entry(void *caller)
{
    (void)caller;
}

void __tsan_func_exit(void);
void __tsan_func_exit(void) {}

void *__tsan_memset(void *to, int byte, size_t bytes);
void *__tsan_memset(void *to, int byte, size_t bytes)
{
    access_plain(to, bytes, true, NULL, __builtin_return_address(0));
    return memset(to, byte, bytes);
}

void *__tsan_memcpy(void *to, const void *from, size_t bytes);
void *__tsan_memcpy(void *to, const void *from, size_t bytes)
{
    access_plain(from, bytes, false, NULL, __builtin_return_address(0));
    access_plain(to, bytes, true, NULL, __builtin_return_address(0));
    return memcpy(to, from, bytes);
}

void *__tsan_memmove(void *to, const void *from, size_t bytes);
void *__tsan_memmove(void *to, const void *from, size_t bytes)
{
    access_plain(from, bytes, false, NULL, __builtin_return_address(0));
    access_plain(to, bytes, true, NULL, __builtin_return_address(0));
    return memmove(to, from, bytes);
}

#endif

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
    location_count = message_count = event_count = cell_count = 0;
    memset(table, 0, sizeof table);
    position = 0;
    asleep = 0;
    last_thread = -1;
    preemptions = 0;
    outcome = RUNNING;
    clock_ns = 0;
    main_current = NULL;
    self = MAIN;
    reset_memory();
    reset_places();
    for (unsigned t = 0; t < thread_count; t++)
        reset_thread(&threads[t]);
}

static void run_threads(void)
{
    running = true;
    starting = true;
    for (unsigned t = 0; t < thread_count && outcome == RUNNING; t++) {
        self = t;
        coroutine_starting = &threads[t].coroutine;
        coroutine_switch(&coroutine_main, &threads[t].coroutine);
        self = MAIN;
    }
    starting = false;
    unsigned first = choose_thread();
    if (first == MAIN)
        return;
    self = first;
    coroutine_switch(&coroutine_main, &threads[first].coroutine);
    self = MAIN;
}

static void run_execution(void)
{
    reset_execution();
    if (model->setup)
        model->setup();
    if (outcome == RUNNING)
        run_threads();
    running = false;
    if (outcome == COMPLETE && model->finish)
        model->finish();
    for (int i = 0; i < block_count && outcome == COMPLETE; i++) {
        if (!blocks[i].freed)
            model_fail("memory from model_alloc was not freed");
    }
}

/* ---- reports ---- */

/* A letter for each decision: digits are threads, letters the number of a value. */
static void print_decisions(void)
{
    printf("  MODEL_REPLAY='%s:", model->name);
    for (int i = 0; i < decision_count; i++)
        putchar(decisions[i].is_value ? 'a' + decisions[i].chosen : '0' + decisions[i].chosen);
    puts("'");
}

static bool read_decisions(const char *text)
{
    size_t length = strlen(model->name);
    if (!text || strncmp(text, model->name, length) != 0 || text[length] != ':')
        return false;
    decision_count = 0;
    for (text += length + 1; *text && decision_count < DECISIONS; text++) {
        bool is_value = *text >= 'a';
        decisions[decision_count++] =
            (struct decision){.is_value = is_value, .chosen = (uint8_t)(*text - (is_value ? 'a' : '0'))};
    }
    return true;
}

/* Runs the decisions at hand once more and prints the steps. */
static void print_execution(void)
{
    int count = decision_count;
    changed = DECISIONS; /* nothing new is looked for */
    tracing = true;
    replaying = true;
    run_execution();
    tracing = false;
    replaying = false;
    decision_count = count;
}

/* After a failure: how it came about. */
static void print_failure(void)
{
    char first_reason[sizeof reason];
    uint64_t steps = result.steps;
    memcpy(first_reason, reason, sizeof reason);
    trace_from = event_count - TRACED;
    print_execution();
    print_decisions();
    if (strcmp(first_reason, reason) != 0)
        printf("  the second time it ended otherwise: %s\n", reason);
    memcpy(reason, first_reason, sizeof reason);
    result.steps = steps;
}

static void print_result(void)
{
    printf("model %s: %llu executions, %llu redundant, %llu steps, %.2f s%s\n", model->name,
           (unsigned long long)result.executions, (unsigned long long)result.redundant,
           (unsigned long long)result.steps, result.seconds, result.ok ? "" : ": FAILED");
    if (!result.ok)
        printf("  %s\n", reason);
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
    uint64_t limit = model->max_executions ? model->max_executions : MODEL_MAX_EXECUTIONS;
    decision_count = 0;
    changed = 0;
    do {
        run_execution();
        if (outcome == REDUNDANT)
            result.redundant++;
        else
            result.executions++;
        /* decisions that a redundant or shorter execution did not come to belong to no path any more */
        decision_count = position;
        if (outcome == FAILED)
            return;
        if (result.executions + result.redundant >= limit) {
            snprintf(reason, sizeof reason, "not done after %llu executions", (unsigned long long)limit);
            result.ok = model->preemption_bound != 0;
            return;
        }
    } while (next_path());
    result.ok = true;
}

struct model_result model_run(const struct model *m)
{
    model = m;
    result = (struct model_result){.reason = reason};
    reason[0] = '\0';
    thread_count = 0;
    while (thread_count < MODEL_THREADS && model->threads[thread_count]) {
        threads[thread_count].at_rest = false;
        if (!coroutine_init(&threads[thread_count].coroutine, thread_main))
            abort();
        thread_count++;
    }
    double start = seconds_now();
    if (read_decisions(getenv("MODEL_REPLAY"))) {
        trace_from = 0;
        print_execution();
        result.ok = outcome == COMPLETE;
        result.executions = 1;
    } else {
        search();
        if (outcome == FAILED)
            print_failure();
    }
    result.seconds = seconds_now() - start;
    print_result();
    for (unsigned t = 0; t < thread_count; t++)
        coroutine_fini(&threads[t].coroutine);
    reset_memory();
    return result;
}
