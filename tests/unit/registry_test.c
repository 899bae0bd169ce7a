/* The registry: what a handle finds, when slots come back, and how far their generations reach. */
#include "core/registry.h"

#include "support/faults.h"
#include "support/harness.h"

enum { CHUNK = 256, MANY = 3 * CHUNK };

static uintptr_t open_slot(struct slot **slot)
{
    *slot = registry_take();
    require(*slot != NULL);
    return registry_publish(*slot);
}

/* What closing does once nobody is inside. */
static void close_slot(uintptr_t handle)
{
    struct slot *slot = registry_acquire(handle);
    require(slot != NULL);
    registry_retire(slot);
    lock_release(&slot->lock);
    registry_give(slot);
}

static bool is_open(uintptr_t handle)
{
    struct slot *slot = registry_acquire(handle);
    if (slot)
        lock_release(&slot->lock);
    return slot != NULL;
}

TEST(a_handle_finds_its_slot_until_it_is_retired)
{
    struct slot *slot;
    uintptr_t handle = open_slot(&slot);
    struct slot *found = registry_acquire(handle);
    assert_ptr_equal(found, slot);
    assert_true(registry_handle(found) == handle);
    registry_retire(found);
    lock_release(&found->lock);
    assert_false(is_open(handle)); /* though it was not given back yet */
    registry_give(slot);
    assert_false(is_open(handle));
}

TEST(a_slot_is_found_by_nobody_before_it_is_published)
{
    struct slot *slot = registry_take();
    assert_non_null(slot);
    uintptr_t handle = registry_handle(slot);
    assert_false(is_open(handle));
    assert_true(registry_publish(slot) == handle);
    assert_true(is_open(handle));
    close_slot(handle);
}

TEST(a_slot_that_is_taken_remembers_nothing_of_its_predecessor)
{
    for (int i = 0; i < 2 * CHUNK; i++) {
        struct slot *slot;
        uintptr_t handle = open_slot(&slot);
        assert_int_equal(slot->source.handle, OS_NO_HANDLE);
        assert_null(slot->source.record);
        assert_null(slot->reactor);
        assert_null(slot->site);
        assert_null(slot->u.user);
        assert_int_equal(slot->users, 0);
        assert_int_equal(slot->traits, 0);
        assert_int_equal(slot->flags, 0);
        assert_true(slot->read.ready && slot->write.ready);
        slot->source = (struct backend_source){7, slot};
        slot->site = "here";
        slot->traits = SLOT_LISTENER;
        slot->flags = SLOT_SHARED | SLOT_URGENT;
        slot->read.ready = slot->write.ready = false;
        close_slot(handle);
    }
}

TEST(what_never_was_a_handle_finds_nothing)
{
    struct slot *slot;
    uintptr_t handle = open_slot(&slot);
    const uintptr_t none[] = {0, 1, 2, CHUNK, handle + 1, handle - 1, ~handle, UINTPTR_MAX, UINTPTR_MAX - 1};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_false(is_open(none[i]));
    for (unsigned bit = 0; bit < sizeof handle * 8; bit++)
        assert_false(is_open(handle ^ ((uintptr_t)1 << bit)));
    assert_true(is_open(handle));
    close_slot(handle);
}

TEST(open_handles_are_all_different_and_never_null)
{
    static uintptr_t handles[MANY];
    struct slot *slot;
    for (int i = 0; i < MANY; i++) {
        handles[i] = open_slot(&slot);
        assert_true(handles[i] != 0);
        for (int k = 0; k < i; k++)
            require(handles[k] != handles[i]);
    }
    for (int i = 0; i < MANY; i++)
        close_slot(handles[i]);
    for (int i = 0; i < MANY; i++)
        assert_false(is_open(handles[i]));
}

TEST(the_slot_that_has_rested_longest_comes_back_first)
{
    static struct slot *given[CHUNK];
    uintptr_t handles[CHUNK];
    for (int i = 0; i < CHUNK; i++)
        handles[i] = open_slot(&given[i]);
    for (int i = 0; i < CHUNK; i++)
        close_slot(handles[(i * 7) % CHUNK]);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < CHUNK; i++) {
            struct slot *slot;
            uintptr_t handle = open_slot(&slot);
            assert_ptr_equal(slot, given[(i * 7) % CHUNK]);
            close_slot(handle);
        }
    }
}

TEST(a_handle_stays_dead_however_often_its_slot_is_used_again)
{
    struct slot *slot;
    uintptr_t first = open_slot(&slot);
    close_slot(first);
    for (uint64_t i = test_scale(100000, 20000000); i > 0; i--) {
        uintptr_t handle = open_slot(&slot);
        require(handle != first);
        require(!is_open(first));
        close_slot(handle);
    }
}

/* 2^31 reuses of one slot are too many to be done one by one; where the last of them stands is known. */
TEST(no_power_of_two_of_reuses_brings_a_handle_back)
{
    struct slot *slot;
    uintptr_t first = open_slot(&slot);
    lock_acquire(&slot->lock);
    registry_retire(slot);
    uintptr_t step = registry_handle(slot) - first;
    assert_true(step >> (sizeof step > 4 ? 22 : 19) == 0); /* the generation has all the bits above the index */
    for (uintptr_t reuses = 1; step * reuses / step == reuses; reuses *= 2) {
        slot->handle = first + step * (reuses - 1);
        registry_retire(slot);
        assert_true(registry_handle(slot) == first + step * reuses);
        assert_true(registry_handle(slot) != first);
        if (reuses > UINTPTR_MAX / 2)
            break;
    }
    /* The last generation of all: the one after it is the first again, and not 0. */
    slot->handle = first % step + (UINTPTR_MAX / step) * step;
    registry_retire(slot);
    assert_true(registry_handle(slot) == first % step + step);
    lock_release(&slot->lock);
    registry_give(slot);
}

static void count_visit(struct slot *slot, uintptr_t handle, void *context)
{
    require(registry_handle(slot) == handle);
    lock_release(&slot->lock);
    (*(int *)context)++;
}

TEST(a_walk_visits_what_is_open_and_nothing_else)
{
    uintptr_t handles[5];
    struct slot *slot;
    int visits = 0;
    for (int i = 0; i < 5; i++)
        handles[i] = open_slot(&slot);
    struct slot *unpublished = registry_take();
    close_slot(handles[1]);
    close_slot(handles[3]);
    registry_walk(count_visit, &visits);
    assert_int_equal(visits, 3);
    close_slot(registry_publish(unpublished));
    for (int i = 0; i < 5; i += 2)
        close_slot(handles[i]);
}

TEST(trimming_keeps_what_is_open_and_no_handle_survives_a_trim)
{
    static uintptr_t handles[MANY];
    struct slot *slot;
    for (int i = 0; i < MANY; i++)
        handles[i] = open_slot(&slot);
    registry_trim();
    assert_true(is_open(handles[0]));
    for (int i = 0; i < MANY; i++)
        close_slot(handles[i]);
    registry_trim();
    for (int i = 0; i < MANY; i++)
        assert_false(is_open(handles[i]));
    for (int i = 0; i < CHUNK; i++) {
        uintptr_t handle = open_slot(&slot);
        for (int k = 0; k < MANY; k++)
            require(handle != handles[k]);
        close_slot(handle);
    }
}

TEST(without_memory_for_more_slots_none_is_taken_and_the_others_stay)
{
    test_needs("faults");
    uintptr_t handles[CHUNK];
    struct slot *slot;
    if (test_is_sanitized())
        return;
    for (int i = 0; i < CHUNK; i++)
        handles[i] = open_slot(&slot);
    faults_fail_alloc(1, true);
    assert_null(registry_take());
    faults_reset();
    for (int i = 0; i < CHUNK; i++)
        close_slot(handles[i]);
    close_slot(open_slot(&slot));
}
