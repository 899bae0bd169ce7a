/* The lock: mutual exclusion, no lost wake, and that whoever holds it last may free it. */
static int lock_spins;
#define LOCK_SPINS lock_spins
#include "core/lock.c"

#include "explorer.h"

#include "support/harness.h"

static struct lock lock;
static unsigned inside;
static unsigned entered;

static void setup(void)
{
    lock = (struct lock){0};
    inside = 0;
    entered = 0;
}

/* Reads and writes that race unless the lock orders them. */
static void critical_section(void)
{
    MODEL_WRITE(inside, inside + 1);
    model_check(inside == 1);
    MODEL_WRITE(entered, entered + 1);
    MODEL_WRITE(inside, inside - 1);
}

static void enter_once(void)
{
    lock_acquire(&lock);
    critical_section();
    lock_release(&lock);
}

static void enter_twice(void)
{
    enter_once();
    enter_once();
}

static void try_once(void)
{
    if (lock_try(&lock)) {
        critical_section();
        lock_release(&lock);
    }
}

static void all_entered(void)
{
    model_check(lock.word.value == LOCK_FREE);
    model_check(entered == 3);
}

static void most_entered(void)
{
    model_check(lock.word.value == LOCK_FREE);
    model_check(entered == 2 || entered == 3);
}

TEST(three_threads_enter_one_by_one_and_none_sleeps_for_ever)
{
    struct model model = {.name = "lock", .setup = setup, .finish = all_entered, .history = 2};
    model.threads[0] = model.threads[1] = model.threads[2] = enter_once;
    assert_true(model_run(&model).ok);
    lock_spins = 1;
    assert_true(model_run(&model).ok);
}

TEST(a_lock_is_taken_again_while_others_sleep_for_it)
{
    struct model model = {.name = "lock twice", .setup = setup, .finish = all_entered, .history = 2, .spurious = 1};
    model.threads[0] = enter_twice;
    model.threads[1] = enter_once;
    assert_true(model_run(&model).ok);
    lock_spins = 1;
    assert_true(model_run(&model).ok);
}

TEST(sleepers_that_wake_for_no_reason_sleep_again)
{
    struct model model = {.name = "lock spurious", .setup = setup, .finish = most_entered, .history = 1, .spurious = 1};
    model.threads[0] = model.threads[1] = enter_once;
    if (test_scale(2, 3) == 3)
        model.threads[2] = enter_once;
    assert_true(model_run(&model).ok);
}

TEST(trying_disturbs_nobody)
{
    struct model model = {.name = "lock try", .setup = setup, .finish = most_entered, .history = 2};
    model.threads[0] = model.threads[1] = enter_once;
    model.threads[2] = try_once;
    assert_true(model_run(&model).ok);
}

/* ---- the last holder frees it ---- */

struct shared {
    struct lock lock;
    unsigned references;
};
static struct shared *shared;

static void setup_shared(void)
{
    shared = model_alloc(sizeof *shared);
    *shared = (struct shared){.references = 3};
}

static void drop_reference(void)
{
    lock_acquire(&shared->lock);
    MODEL_WRITE(shared->references, shared->references - 1);
    bool last = shared->references == 0;
    lock_release(&shared->lock);
    if (last)
        model_free(shared);
}

TEST(the_last_holder_may_free_the_lock)
{
    struct model model = {.name = "lock freed", .setup = setup_shared, .history = 1};
    model.threads[0] = model.threads[1] = model.threads[2] = drop_reference;
    assert_true(model_run(&model).ok);
}
