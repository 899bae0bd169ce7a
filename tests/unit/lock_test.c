#include "core/lock.h"
#include "os/os.h"

#include "support/harness.h"

enum { THREADS = 4 };

TEST(a_lock_is_four_bytes_and_zeroed_is_unlocked)
{
    struct lock lock = {0};
    assert_int_equal(sizeof lock, 4);
    assert_true(lock_try(&lock));
    lock_release(&lock);
}

TEST(a_held_lock_cannot_be_taken_until_it_is_released)
{
    struct lock lock = {0};
    lock_acquire(&lock);
    assert_false(lock_try(&lock));
    lock_release(&lock);
    assert_true(lock_try(&lock));
    assert_false(lock_try(&lock));
    lock_release(&lock);
    lock_acquire(&lock);
    lock_release(&lock);
}

struct shared {
    struct lock lock;     /* guards the two counters */
    uint64_t first;       /* counted up by everybody */
    uint64_t second;      /* likewise, a little later */
    uint64_t rounds;      /* of each thread */
    int64_t hold_ns;      /* sleep while holding the lock, so that others must sleep for it; 0: do not */
    atomic_u32 try_count; /* how often lock_try succeeded */
};

static void count(void *argument)
{
    struct shared *shared = argument;
    for (uint64_t i = 0; i < shared->rounds; i++) {
        if (i % 4 == 0 && lock_try(&shared->lock))
            atomic_u32_add(&shared->try_count, 1, RELAXED);
        else
            lock_acquire(&shared->lock);
        require_int(shared->first, ==, shared->second);
        shared->first++;
        if (shared->hold_ns)
            test_sleep_ns(shared->hold_ns);
        shared->second++;
        lock_release(&shared->lock);
    }
}

static void run_counters(struct shared *shared)
{
    os_thread threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        require_int(os_thread_start(&threads[i], count, shared, "counter"), ==, ROUSE_OK);
    for (int i = 0; i < THREADS; i++)
        os_thread_join(&threads[i]);
    assert_int_equal(shared->first, THREADS * shared->rounds);
    assert_int_equal(shared->second, THREADS * shared->rounds);
    assert_true(lock_try(&shared->lock));
}

TEST(only_one_thread_at_a_time_is_inside)
{
    static struct shared shared;
    shared.rounds = test_scale(100000, 20000000);
    run_counters(&shared);
}

TEST(threads_that_sleep_for_a_lock_are_woken)
{
    static struct shared shared;
    shared.rounds = test_scale(20, 2000);
    shared.hold_ns = ROUSE_US(200);
    run_counters(&shared);
}

struct held {
    struct lock lock; /* held by the test while others wait */
    atomic_u32 done;  /* threads that had it */
};

static void take_once(void *argument)
{
    struct held *held = argument;
    lock_acquire(&held->lock);
    lock_release(&held->lock);
    atomic_u32_add(&held->done, 1, RELAXED);
}

TEST(waiting_for_a_lock_takes_no_processor_time)
{
    static struct held held;
    os_thread threads[THREADS];
    lock_acquire(&held.lock);
    for (int i = 0; i < THREADS; i++)
        require_int(os_thread_start(&threads[i], take_once, &held, "waiter"), ==, ROUSE_OK);
    test_sleep_ns(ROUSE_MS(50));
    int64_t before = test_cpu_ns();
    test_sleep_ns(ROUSE_MS(100));
    assert_true(test_cpu_ns() - before < ROUSE_MS(20));
    assert_int_equal(atomic_u32_load(&held.done, RELAXED), 0);
    lock_release(&held.lock);
    for (int i = 0; i < THREADS; i++)
        os_thread_join(&threads[i]);
    assert_int_equal(atomic_u32_load(&held.done, RELAXED), THREADS);
}
