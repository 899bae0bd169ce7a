/* The explorer itself: what it must find, what it must not report, and that leaving out redundant executions leaves out
 * no result. */
#include "explorer.h"

#include "os/atomic.h"
#include "os/os.h"

#include "support/harness.h"

static atomic_u32 x, y, z;
static uint32_t a, b, c, d; /* what threads have read */
static uint32_t plain;

/* Results that occurred, as decimal digits abcd. */
static bool seen[10000];
static unsigned seen_count;

static void setup(void)
{
    atomic_u32_init(&x, 0);
    atomic_u32_init(&y, 0);
    atomic_u32_init(&z, 0);
    a = b = c = d = 0;
    plain = 0;
}

static void note_result(void)
{
    unsigned number = a * 1000 + b * 100 + c * 10 + d;
    model_check(number < 10000);
    seen_count += !seen[number];
    seen[number] = true;
}

/* Runs a model once as usual and once without reduction, which must come to the same results. */
static struct model_result run(struct model model)
{
    bool naive[10000];
    model.setup = setup;
    if (!model.finish)
        model.finish = note_result;
    memset(seen, 0, sizeof seen);
    seen_count = 0;
    model.every_interleaving = true;
    struct model_result all = model_run(&model);
    memcpy(naive, seen, sizeof seen);
    memset(seen, 0, sizeof seen);
    seen_count = 0;
    model.every_interleaving = false;
    struct model_result result = model_run(&model);
    assert_int_equal(result.ok, all.ok);
    assert_true(result.executions <= all.executions);
    if (result.ok)
        assert_memory_equal(seen, naive, sizeof seen);
    return result;
}

static void assert_fails(struct model_result result, const char *because)
{
    assert_false(result.ok);
    assert_non_null(strstr(result.reason, because));
}

/* ---- store buffering: Dekker's pair ---- */

#define STORE_THEN_LOAD(name, mine, other, result, store_order, load_order, between) \
    static void name(void)                                                           \
    {                                                                                \
        atomic_u32_store(&mine, 1, store_order);                                     \
        between;                                                                     \
        result = atomic_u32_load(&other, load_order);                                \
    }

STORE_THEN_LOAD(dekker_relaxed_1, x, y, a, RELAXED, RELAXED, (void)0)
STORE_THEN_LOAD(dekker_relaxed_2, y, x, b, RELAXED, RELAXED, (void)0)
STORE_THEN_LOAD(dekker_release_1, x, y, a, RELEASE, ACQUIRE, (void)0)
STORE_THEN_LOAD(dekker_release_2, y, x, b, RELEASE, ACQUIRE, (void)0)
STORE_THEN_LOAD(dekker_seq_cst_1, x, y, a, SEQ_CST, SEQ_CST, (void)0)
STORE_THEN_LOAD(dekker_seq_cst_2, y, x, b, SEQ_CST, SEQ_CST, (void)0)
STORE_THEN_LOAD(dekker_fence_1, x, y, a, RELAXED, RELAXED, atomic_fence(SEQ_CST))
STORE_THEN_LOAD(dekker_fence_2, y, x, b, RELAXED, RELAXED, atomic_fence(SEQ_CST))
STORE_THEN_LOAD(dekker_weak_fence_2, y, x, b, RELAXED, RELAXED, atomic_fence(ACQ_REL))

TEST(both_sides_of_a_weak_store_and_load_pair_can_miss_the_other)
{
    assert_true(run((struct model){.name = "sb", .threads = {dekker_relaxed_1, dekker_relaxed_2}, .history = 1}).ok);
    assert_true(seen[0]);
    assert_int_equal(seen_count, 4);
    assert_true(run((struct model){.name = "sb+ra", .threads = {dekker_release_1, dekker_release_2}, .history = 1}).ok);
    assert_true(seen[0]);
    assert_true(run((struct model){.name = "sb+w", .threads = {dekker_fence_1, dekker_weak_fence_2}, .history = 1}).ok);
    assert_true(seen[0]);
}

TEST(one_side_of_a_sequentially_consistent_pair_sees_the_other)
{
    static void (*const pairs[][2])(void) = {
        {dekker_seq_cst_1, dekker_seq_cst_2},
        {dekker_fence_1, dekker_fence_2},
        {dekker_seq_cst_1, dekker_fence_2},
    };
    for (size_t i = 0; i < 3; i++) {
        assert_true(run((struct model){.name = "sb+sc", .threads = {pairs[i][0], pairs[i][1]}, .history = 3}).ok);
        assert_false(seen[0]);
        assert_int_equal(seen_count, 3);
    }
}

TEST(without_history_every_pair_is_sequentially_consistent)
{
    assert_true(run((struct model){.name = "sb", .threads = {dekker_relaxed_1, dekker_relaxed_2}}).ok);
    assert_false(seen[0]);
    assert_int_equal(seen_count, 3);
}

/* ---- message passing ---- */

#define PUBLISH(name, order, before)      \
    static void name(void)                \
    {                                     \
        atomic_u32_store(&x, 1, RELAXED); \
        before;                           \
        atomic_u32_store(&y, 1, order);   \
    }
#define OBSERVE(name, order, between)     \
    static void name(void)                \
    {                                     \
        a = atomic_u32_load(&y, order);   \
        between;                          \
        b = atomic_u32_load(&x, RELAXED); \
    }

PUBLISH(publish, RELEASE, (void)0)
PUBLISH(publish_relaxed, RELAXED, (void)0)
PUBLISH(publish_fence, RELAXED, atomic_fence(RELEASE))
OBSERVE(observe, ACQUIRE, (void)0)
OBSERVE(observe_relaxed, RELAXED, (void)0)
OBSERVE(observe_fence, RELAXED, atomic_fence(ACQUIRE))

TEST(a_message_is_seen_after_its_flag_only_with_release_and_acquire)
{
    static void (*const publishers[])(void) = {publish, publish_fence, publish_relaxed};
    static void (*const observers[])(void) = {observe, observe_fence, observe_relaxed};
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 3; j++) {
            assert_true(run((struct model){.name = "mp", .threads = {publishers[i], observers[j]}, .history = 2}).ok);
            assert_int_equal(seen[1000], i == 2 || j == 2); /* the flag, but not the message */
            assert_true(seen[0] && seen[100] && seen[1100]);
        }
    }
}

static void pass_on(void)
{
    atomic_u32_add(&y, 1, RELAXED); /* keeps up the release sequence of the store before it */
}

static void observe_second(void)
{
    a = atomic_u32_load(&y, ACQUIRE);
    b = atomic_u32_load(&x, RELAXED);
}

static void reset_flag(void)
{
    atomic_u32_store(&y, 2, RELAXED); /* begins a new one */
}

TEST(a_read_modify_write_keeps_a_release_sequence_and_a_store_ends_it)
{
    assert_true(run((struct model){.name = "rs", .threads = {publish, pass_on, observe_second}, .history = 3}).ok);
    assert_false(seen[2000]);
    assert_true(seen[2100]);
    assert_true(run((struct model){.name = "rs2", .threads = {publish, reset_flag, observe_second}, .history = 3}).ok);
    assert_true(seen[2000]);
}

/* ---- coherence and independent readers ---- */

static void write_1(void)
{
    atomic_u32_store(&x, 1, RELAXED);
}

static void write_2(void)
{
    atomic_u32_store(&x, 2, RELAXED);
}

static void read_a_b(void)
{
    a = atomic_u32_load(&x, RELAXED);
    b = atomic_u32_load(&x, RELAXED);
}

static void read_c_d(void)
{
    c = atomic_u32_load(&x, RELAXED);
    d = atomic_u32_load(&x, RELAXED);
}

TEST(all_threads_see_one_location_change_in_the_same_order)
{
    assert_true(
        run((struct model){.name = "corr", .threads = {write_1, write_2, read_a_b, read_c_d}, .history = 3}).ok);
    assert_false(seen[1221] || seen[2112] || seen[1021] || seen[2012]);
    assert_false(seen[1000] || seen[10]); /* nor does it go back */
    assert_true(seen[1212] && seen[121]);
}

static void write_y(void)
{
    atomic_u32_store(&y, 1, SEQ_CST);
}

static void write_x(void)
{
    atomic_u32_store(&x, 1, SEQ_CST);
}

static void read_x_y(void)
{
    a = atomic_u32_load(&x, SEQ_CST);
    b = atomic_u32_load(&y, SEQ_CST);
}

static void read_y_x(void)
{
    c = atomic_u32_load(&y, SEQ_CST);
    d = atomic_u32_load(&x, SEQ_CST);
}

static void read_x_y_acquire(void)
{
    a = atomic_u32_load(&x, ACQUIRE);
    b = atomic_u32_load(&y, ACQUIRE);
}

static void read_y_x_acquire(void)
{
    c = atomic_u32_load(&y, ACQUIRE);
    d = atomic_u32_load(&x, ACQUIRE);
}

TEST(independent_readers_agree_on_the_order_of_writes_only_with_seq_cst)
{
    assert_true(
        run((struct model){.name = "iriw", .threads = {write_x, write_y, read_x_y, read_y_x}, .history = 2}).ok);
    assert_false(seen[1010]);
    assert_true(run((struct model){.name = "iriw+ra",
                                   .threads = {write_x, write_y, read_x_y_acquire, read_y_x_acquire},
                                   .history = 2})
                    .ok);
    assert_true(seen[1010]);
}

/* ---- read-modify-writes and locks ---- */

static void add_weakly(void)
{
    uint32_t old = atomic_u32_load(&x, RELAXED);
    while (!atomic_u32_cas_weak(&x, &old, old + 1, RELAXED, RELAXED)) {}
}

static void add_badly(void)
{
    atomic_u32_store(&x, atomic_u32_load(&x, RELAXED) + 1, RELAXED);
}

static void note_x(void)
{
    a = x.value;
    note_result();
}

TEST(read_modify_writes_lose_no_update_and_a_load_with_a_store_does)
{
    struct model good = {
        .name = "add", .threads = {add_weakly, add_weakly, add_weakly}, .finish = note_x, .history = 2, .spurious = 1};
    assert_true(run(good).ok);
    assert_true(seen[3000]);
    assert_int_equal(seen_count, 1);
    struct model bad = {.name = "bad add", .threads = {add_badly, add_badly}, .finish = note_x};
    assert_true(run(bad).ok);
    assert_true(seen[1000] && seen[2000]);
}

static void locked_write(void)
{
    model_lock_acquire(&z, MODEL_HERE);
    MODEL_WRITE(plain, plain + 1);
    a = plain;
    model_lock_release(&z, MODEL_HERE);
}

static void tried_write(void)
{
    if (!model_lock_try(&z, MODEL_HERE))
        return;
    MODEL_WRITE(plain, plain + 5);
    b = plain;
    model_lock_release(&z, MODEL_HERE);
}

TEST(a_lock_lets_threads_in_one_by_one_in_every_order)
{
    assert_true(run((struct model){.name = "lock", .threads = {locked_write, locked_write, tried_write}}).ok);
    assert_true(seen[2000] && seen[2500] + seen[7500] + seen[7600] + seen[2700] > 1);
}

/* ---- what it must find ---- */

static void plain_write(void)
{
    MODEL_WRITE(plain, 1);
    atomic_u32_store(&x, 1, RELEASE);
}

static void plain_read_after_flag(void)
{
    if (atomic_u32_load(&x, ACQUIRE))
        a = MODEL_READ(plain);
}

static void plain_read_after_weak_flag(void)
{
    if (atomic_u32_load(&x, RELAXED))
        a = MODEL_READ(plain);
}

TEST(a_data_race_is_found_and_ordered_accesses_are_none)
{
    assert_true(run((struct model){.name = "data", .threads = {plain_write, plain_read_after_flag}}).ok);
    assert_fails(run((struct model){.name = "race", .threads = {plain_write, plain_read_after_weak_flag}}),
                 "data race");
}

static const uint32_t *word(atomic_u32 *atomic)
{
    return &atomic->value;
}

static void sleep_for_x(void)
{
    while (atomic_u32_load(&x, ACQUIRE) == 0)
        os_wait_on(word(&x), 0, ROUSE_NEVER);
}

static void set_and_wake(void)
{
    atomic_u32_store(&x, 1, RELEASE);
    os_wake_one(word(&x));
}

static void set_and_wake_all(void)
{
    atomic_u32_store(&x, 1, RELEASE);
    os_wake_all(word(&x));
}

static void wake_and_set(void)
{
    os_wake_one(word(&x));
    atomic_u32_store(&x, 1, RELEASE);
}

static void sleep_with_deadline(void)
{
    if (atomic_u32_load(&x, ACQUIRE) == 0)
        os_wait_on(word(&x), 0, 1000);
    a = atomic_u32_load(&x, ACQUIRE);
    b = os_now() == 1000;
}

TEST(a_lost_wake_is_found)
{
    assert_true(run((struct model){.name = "wake", .threads = {sleep_for_x, set_and_wake}, .history = 1}).ok);
    assert_fails(run((struct model){.name = "early wake", .threads = {sleep_for_x, wake_and_set}}), "lost wake");
    assert_fails(run((struct model){.name = "two sleepers", .threads = {sleep_for_x, sleep_for_x, set_and_wake}}),
                 "lost wake");
    assert_true(run((struct model){.name = "wake all", .threads = {sleep_for_x, sleep_for_x, set_and_wake_all}}).ok);
}

TEST(deadlines_pass_when_nobody_else_can_run_or_as_often_as_the_model_says)
{
    assert_true(run((struct model){.name = "rescued", .threads = {sleep_with_deadline, wake_and_set}}).ok);
    assert_true(seen[1100] && seen[1000]);
    assert_false(seen[100]);
    assert_true(run((struct model){.name = "late", .threads = {sleep_with_deadline, set_and_wake}, .timeouts = 1}).ok);
    assert_true(seen[1000] && seen[100] && seen[1100]);
    struct model strict = {
        .name = "strict", .threads = {sleep_with_deadline, wake_and_set}, .deadlines_never_pass = true};
    assert_fails(run(strict), "lost wake");
}

static bool x_is_set(void)
{
    return x.value == 5;
}

static void sleep_for_ever(void)
{
    atomic_u32_store(&x, 5, RELEASE);
    for (;;)
        os_wait_on(word(&x), 5, ROUSE_NEVER);
}

TEST(blocked_threads_may_be_the_right_end)
{
    assert_true(run((struct model){.name = "quiet", .threads = {sleep_for_ever}, .quiet = x_is_set}).ok);
    assert_fails(run((struct model){.name = "not quiet", .threads = {sleep_for_ever}}), "lost wake");
}

static void spin_for_x(void)
{
    while (atomic_u32_load(&x, ACQUIRE) == 0)
        cpu_relax();
    a = atomic_u32_load(&y, RELAXED);
}

static void let_spinners_go(void)
{
    atomic_u32_store(&y, 1, RELAXED);
    atomic_u32_store(&x, 1, RELEASE);
}

TEST(spinning_for_another_thread_ends_and_spinning_for_nobody_is_found)
{
    assert_true(run((struct model){.name = "spin", .threads = {spin_for_x, let_spinners_go}, .history = 2}).ok);
    assert_true(seen[1000] && !seen[0]);
    assert_fails(run((struct model){.name = "spin alone", .threads = {spin_for_x, write_y}}), "livelock");
}

static void spin_without_relaxing(void)
{
    while (atomic_u32_load(&x, ACQUIRE) == 0) {}
}

TEST(an_endless_execution_is_found)
{
    assert_fails(run((struct model){.name = "endless", .threads = {spin_without_relaxing}}), "without end");
}

TEST(too_many_executions_are_a_failure)
{
    struct model model = {.name = "bound", .threads = {read_a_b, read_c_d, write_1, write_2}, .max_executions = 3};
    assert_fails(model_run(&model), "not done");
}

struct box {
    atomic_u32 references;
    uint32_t content;
};
static struct box *box;

static void setup_box(void)
{
    setup();
    box = model_alloc(sizeof *box);
    atomic_u32_init(&box->references, 2);
    box->content = 0;
}

static void release_box(void)
{
    (void)MODEL_READ(box->content);
    if (atomic_u32_sub(&box->references, 1, ACQ_REL) == 1)
        model_free(box);
}

static void release_box_weakly(void)
{
    (void)MODEL_READ(box->content);
    if (atomic_u32_sub(&box->references, 1, RELAXED) == 1)
        model_free(box);
}

static void use_box_late(void)
{
    bool last = atomic_u32_sub(&box->references, 1, ACQ_REL) == 1;
    (void)MODEL_READ(box->content);
    if (last)
        model_free(box);
}

static void leak_box(void)
{
    atomic_u32_sub(&box->references, 1, ACQ_REL);
}

static void free_box(void)
{
    model_free(box);
}

static struct model_result run_box(void (*one)(void), void (*two)(void))
{
    return model_run(&(struct model){.name = "box", .setup = setup_box, .threads = {one, two}});
}

TEST(memory_that_is_used_after_free_freed_twice_or_left_is_found)
{
    assert_true(run_box(release_box, release_box).ok);
    assert_fails(run_box(release_box, release_box_weakly), "nothing orders");
    assert_fails(run_box(release_box, use_box_late), "free");
    assert_fails(run_box(leak_box, leak_box), "not freed");
    assert_fails(run_box(free_box, free_box), "freed twice");
}

static void check_x(void)
{
    model_check(atomic_u32_load(&x, RELAXED) == 0);
}

TEST(a_failing_check_tells_where)
{
    struct model_result result = run((struct model){.name = "check", .threads = {check_x, write_1}});
    assert_fails(result, "explorer_test.c:");
}

static atomic_u32 cell;

static void setup_cell(void)
{
    setup();
    atomic_u32_init(&cell, 0);
    model_cells(&cell, sizeof cell);
}

static void fill_cell(void)
{
    atomic_u32_store(&cell, 7, RELAXED);
    atomic_u32_store(&x, 1, RELEASE);
}

static void fill_cell_late(void)
{
    atomic_u32_store(&x, 1, RELEASE);
    atomic_u32_store(&cell, 7, RELAXED);
}

static void read_cell(void)
{
    if (atomic_u32_load(&x, ACQUIRE))
        model_check(atomic_u32_load(&cell, RELAXED) == 7);
}

TEST(cells_are_data)
{
    assert_true(model_run(&(struct model){.name = "cell", .setup = setup_cell, .threads = {fill_cell, read_cell}}).ok);
    struct model late = {.name = "late cell", .setup = setup_cell, .threads = {fill_cell_late, read_cell}};
    assert_false(model_run(&late).ok);
}

TEST(a_preemption_bound_finds_what_needs_no_more_switches)
{
    struct model model = {.name = "bounded", .threads = {add_badly, add_badly}, .preemption_bound = 1};
    model.setup = setup;
    model.finish = note_x;
    assert_true(model_run(&model).ok);
    assert_true(seen[1000] && seen[2000]);
}

TEST(a_failing_execution_can_be_run_again)
{
    struct model model = {.name = "again", .setup = setup, .threads = {check_x, write_1}};
    setenv("MODEL_REPLAY", "again:01", 1);
    assert_true(model_run(&model).ok);
    setenv("MODEL_REPLAY", "again:10", 1);
    assert_fails(model_run(&model), "explorer_test.c:");
    unsetenv("MODEL_REPLAY");
}

/* ---- random programs ---- */

enum { PROGRAM_THREADS = 3, PROGRAM_OPS = 4, RESULTS = 1 << 16 };

enum action { LOAD, STORE, ADD, CAS, FENCE, RELAX, SLEEP, SLEEP_SHORTLY, WAKE, WAKE_ALL, LOCK, UNLOCK };

static struct {
    enum action action;
    atomic_u32 *place;
    enum model_order order;
} program[PROGRAM_THREADS][PROGRAM_OPS];

static uint32_t results[PROGRAM_THREADS][PROGRAM_OPS]; /* what each operation has answered */
static bool occurred[RESULTS];                         /* hashes of all answers together */

static void run_program(void)
{
    unsigned me = model_self();
    for (unsigned i = 0; i < PROGRAM_OPS; i++) {
        atomic_u32 *place = program[me][i].place;
        enum model_order order = program[me][i].order;
        uint32_t answer = 1;
        switch (program[me][i].action) {
        case LOAD:
            answer = atomic_u32_load(place, order == RELEASE || order == ACQ_REL ? ACQUIRE : order);
            break;
        case STORE:
            atomic_u32_store(place, me * 4 + i, order == ACQUIRE || order == ACQ_REL ? RELEASE : order);
            break;
        case ADD:
            answer = atomic_u32_add(place, 16, order);
            break;
        case CAS:
            answer = 0;
            atomic_u32_cas(place, &answer, 32, order, RELAXED);
            break;
        case FENCE:
            atomic_fence(order);
            break;
        case RELAX:
            cpu_relax();
            break;
        case SLEEP:
            os_wait_on(word(place), 0, ROUSE_NEVER);
            break;
        case SLEEP_SHORTLY:
            os_wait_on(word(place), 0, 1000);
            break;
        case WAKE:
            os_wake_one(word(place));
            break;
        case WAKE_ALL:
            os_wake_all(word(place));
            break;
        case LOCK:
            model_lock_acquire(&z, MODEL_HERE);
            break;
        default:
            model_lock_release(&z, MODEL_HERE);
        }
        results[me][i] = answer + 1;
    }
}

static void setup_program(void)
{
    setup();
    memset(results, 0, sizeof results);
}

static void note_program(void)
{
    uint64_t hash = x.value * 64 + y.value;
    for (unsigned t = 0; t < PROGRAM_THREADS; t++) {
        for (unsigned i = 0; i < PROGRAM_OPS; i++)
            hash = (hash + results[t][i]) * UINT64_C(0x9E3779B97F4A7C15) + (hash >> 32);
    }
    occurred[hash >> 48] = true;
}

static bool any_end(void)
{
    return true;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Threads of two operations each, or of three in one of them; a lock is held by one of them between the two. */
static void write_program(uint64_t *random)
{
    bool locks = next_random(random) % 4 == 0;
    bool sleeps = next_random(random) % 2 == 0;
    for (unsigned t = 0; t < PROGRAM_THREADS; t++) {
        for (unsigned i = 0; i < PROGRAM_OPS; i++) {
            program[t][i].place = next_random(random) % 2 ? &x : &y;
            program[t][i].order = (enum model_order)(next_random(random) % 5);
            program[t][i].action = (enum action)(next_random(random) % (sleeps ? LOCK : SLEEP));
            if (i >= 2 + (t == 0)) { /* something that does nothing */
                program[t][i].action = FENCE;
                program[t][i].order = RELAXED;
            }
        }
        if (locks && t < 2) {
            program[t][2] = program[t][1];
            program[t][0].action = LOCK;
            program[t][t ? 1 : 3].action = UNLOCK;
        }
    }
}

TEST(leaving_out_redundant_executions_leaves_out_no_result)
{
    static bool expected[RESULTS];
    uint64_t count = test_scale(300, 20000), random = 12345;
    for (uint64_t i = 0; i < count; i++) {
        write_program(&random);
        struct model model = {.name = "random",
                              .setup = setup_program,
                              .threads = {run_program, run_program, run_program},
                              .finish = note_program,
                              .quiet = any_end,
                              .history = (unsigned)(i % 3),
                              .timeouts = (unsigned)(i / 3 % 2),
                              .spurious = (unsigned)(i / 6 % 2)};
        memset(occurred, 0, sizeof occurred);
        model.every_interleaving = true;
        assert_true(model_run(&model).ok);
        memcpy(expected, occurred, sizeof expected);
        memset(occurred, 0, sizeof occurred);
        model.every_interleaving = false;
        assert_true(model_run(&model).ok);
        assert_memory_equal(occurred, expected, sizeof expected);
    }
}
