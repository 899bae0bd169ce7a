/* The memory of a model: what model_alloc gives, what atomics have held and what threads know of it, plain accesses. */
#include "explorer_parts.h"

#include <stdio.h>
#include <string.h>

static int16_t table[TABLE]; /* of locations by address: location + 1; 0: free */
static struct place places[PLACES];
static int place_count;
static int16_t place_table[PLACE_TABLE]; /* of places by address: place + 1; 0: free */

static struct {
    const char *memory;
    size_t bytes;
} cells[16];
static int cell_count;

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

static void reset_blocks(void)
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
    const struct clock *known = &ex.threads[ex.self].now.clock;
    for (unsigned t = 0; t < ex.thread_count; t++) {
        if (t == ex.self)
            continue;
        for (int i = 0; i < ex.location_count; i++) {
            if (ex.locations[i].block == block && ex.locations[i].accessed.at[t] > known->at[t])
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
    if (ex.self != MAIN && is_in_use(number)) {
        model_fail("freed, but nothing orders an access by another thread before that");
        return;
    }
    block->freed = true;
    memset(block->memory, 0xDD, block->bytes);
    forbid(block->memory, block->bytes);
}

uint64_t explorer_get(const void *address, unsigned bytes)
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

void explorer_set(void *address, unsigned bytes, uint64_t value)
{
    uint32_t half = (uint32_t)value;
    if (bytes == 4)
        memcpy(address, &half, sizeof half);
    else
        memcpy(address, &value, sizeof value);
}

uint64_t explorer_truncate(uint64_t value, unsigned bytes)
{
    return bytes == 4 ? (uint32_t)value : value;
}

/* ---- locations and knowledge ---- */

void explorer_learn(struct knowledge *to, const struct knowledge *from, int count)
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

void explorer_copy_knowledge(struct knowledge *to, const struct knowledge *from)
{
    to->clock = from->clock;
    memcpy(to->view, from->view, (size_t)ex.location_count * sizeof *to->view);
}

/* Appends a value to a location; what reading it teaches is left empty. */
struct message *explorer_append(struct location *location, uint64_t value)
{
    if (ex.message_count == MESSAGES) {
        model_fail("too many writes in one execution");
        explorer_abandon();
    }
    struct message *message = &ex.messages[ex.message_count];
    message->value = value;
    message->previous = location->latest;
    message->time = location->latest < 0 ? 0 : (uint16_t)(ex.messages[location->latest].time + 1);
    message->locations = 0;
    memset(&message->released.clock, 0, sizeof message->released.clock);
    location->latest = ex.message_count++;
    return message;
}

static int new_location(const void *address)
{
    if (ex.location_count == LOCATIONS) {
        model_fail("too many locations in one execution");
        explorer_abandon();
    }
    int number = ex.location_count++;
    struct location *location = &ex.locations[number];
    memset(location, 0, sizeof *location);
    location->address = address;
    location->latest = -1;
    location->block = block_of(address);
    for (unsigned t = 0; t < ex.thread_count; t++) {
        ex.threads[t].now.view[number] = 0;
        ex.threads[t].fenced.view[number] = 0;
        ex.threads[t].seen.view[number] = 0;
        ex.threads[t].last_read[number] = -1;
        ex.threads[t].rereads[number] = 0;
    }
    ex.sequential.view[number] = 0;
    return number;
}

static size_t hash(const void *address)
{
    return (size_t)(((uintptr_t)address * UINT64_C(0x9E3779B97F4A7C15)) >> 40);
}

int explorer_find_location(const void *address)
{
    size_t slot = hash(address) % TABLE;
    while (table[slot]) {
        if (ex.locations[table[slot] - 1].address == address)
            return table[slot] - 1;
        slot = (slot + 1) % TABLE;
    }
    int number = new_location(address);
    table[slot] = (int16_t)(number + 1);
    return number;
}

void explorer_check_alive(int block)
{
    if (block >= 0 && blocks[block].freed) {
        model_fail("used after free");
        explorer_abandon();
    }
}

/* The location's number. What was written to the memory without the model's knowledge, initialised plainly that is,
 * becomes its value, and its past is cut off. */
int explorer_locate(const void *address, unsigned bytes)
{
    int number = explorer_find_location(address);
    struct location *location = &ex.locations[number];
    explorer_check_alive(location->block);
    location->bytes = bytes;
    uint64_t value = explorer_get(address, bytes);
    if (location->latest < 0)
        explorer_append(location, value);
    else if (ex.messages[location->latest].value != value)
        location->floor = explorer_append(location, value)->time;
    return number;
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
        explorer_abandon();
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
    describe(here, sizeof here, write, ex.self, spot);
    describe(there, sizeof there, other_wrote, other, other_wrote ? place->write_spot : place->read_spots[other]);
    snprintf(ex.reason, sizeof ex.reason, "data race: %s, %s", there, here);
    ex.outcome = FAILED;
    explorer_abandon();
}

/* An access to plain memory: everything that conflicts with it must be known to have happened. */
static void access_place(const void *address, bool write, struct spot spot)
{
    struct place *place = find_place(address);
    const struct clock *known = &ex.threads[ex.self].now.clock;
    explorer_check_alive(place->block);
    for (unsigned t = 0; t < ex.thread_count; t++) {
        bool after_write = place->writer == (int)t && place->written > known->at[t];
        bool after_read = write && place->read.at[t] > known->at[t];
        if (t != ex.self && (after_write || after_read))
            report_race(place, write, spot, t);
    }
    /* Later than all the thread has released so far, not later than what it releases next. */
    uint32_t now = known->at[ex.self] + 1;
    if (write) {
        place->writer = (int)ex.self;
        place->written = now;
        place->write_spot = spot;
    } else {
        place->read.at[ex.self] = now;
        place->read_spots[ex.self] = spot;
    }
}

void explorer_access_plain(const void *address, size_t bytes, bool write, const char *where, const void *code)
{
    if (ex.self == MAIN || !ex.running)
        return;
    access_place(address, write, (struct spot){where, code});
    for (size_t offset = 4; offset < bytes; offset += 4)
        access_place((const char *)address + offset, write, (struct spot){where, code});
}

void model_plain(const void *address, size_t bytes, bool write, const char *where)
{
    explorer_access_plain(address, bytes, write, where, NULL);
}

bool explorer_is_cell(const void *address)
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

/* ---- between executions ---- */

void explorer_reset_memory(void)
{
    ex.location_count = ex.message_count = cell_count = 0;
    memset(table, 0, sizeof table);
    reset_blocks();
    reset_places();
}

bool explorer_has_leak(void)
{
    for (int i = 0; i < block_count; i++) {
        if (!blocks[i].freed)
            return true;
    }
    return false;
}

/* ---- what compilers call for -fsanitize=thread ----
 *
 * The model's own file can be compiled with it, without linking the sanitizer: then the compiler announces each plain
 * access here. */
#if !defined(COROUTINE_THREAD_SANITIZER)

#define ACCESS(name, bytes, write)                                                       \
    void __tsan_##name(void *address);                                                   \
    void __tsan_##name(void *address)                                                    \
    {                                                                                    \
        explorer_access_plain(address, bytes, write, NULL, __builtin_return_address(0)); \
    }
#define ACCESS_RANGE(name, write)                                                        \
    void __tsan_##name(void *address, size_t bytes);                                     \
    void __tsan_##name(void *address, size_t bytes)                                      \
    {                                                                                    \
        explorer_access_plain(address, bytes, write, NULL, __builtin_return_address(0)); \
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
    explorer_access_plain(to, bytes, true, NULL, __builtin_return_address(0));
    return memset(to, byte, bytes);
}

void *__tsan_memcpy(void *to, const void *from, size_t bytes);
void *__tsan_memcpy(void *to, const void *from, size_t bytes)
{
    explorer_access_plain(from, bytes, false, NULL, __builtin_return_address(0));
    explorer_access_plain(to, bytes, true, NULL, __builtin_return_address(0));
    return memcpy(to, from, bytes);
}

void *__tsan_memmove(void *to, const void *from, size_t bytes);
void *__tsan_memmove(void *to, const void *from, size_t bytes)
{
    explorer_access_plain(from, bytes, false, NULL, __builtin_return_address(0));
    explorer_access_plain(to, bytes, true, NULL, __builtin_return_address(0));
    return memmove(to, from, bytes);
}

#endif
