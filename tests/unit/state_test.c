/* The task word: every transition of state.h from every word, against a task written down as plain fields. */
#include "core/state.h"
#include "support/harness.h"

struct plain {
    bool running, notified, complete, cancelled, joinable, joiner, pinned, large, surrounded, valueless;
    size_t count;
};

#define FIELDS(X)                   \
    X(running, STATE_RUNNING)       \
    X(notified, STATE_NOTIFIED)     \
    X(complete, STATE_COMPLETE)     \
    X(cancelled, STATE_CANCELLED)   \
    X(joinable, STATE_JOINABLE)     \
    X(joiner, STATE_JOINER)         \
    X(pinned, STATE_PINNED)         \
    X(large, STATE_LARGE)           \
    X(surrounded, STATE_SURROUNDED) \
    X(valueless, STATE_VALUELESS)

static size_t to_word(struct plain plain)
{
    size_t word = plain.count * STATE_REFERENCE;
#define ADD(field, flag) word |= plain.field ? (size_t)(flag) : 0;
    FIELDS(ADD)
    return word;
}

static struct plain to_plain(size_t word)
{
    struct plain plain = {.count = STATE_COUNT(word)};
#define TAKE(field, flag) plain.field = (word & (size_t)(flag)) != 0;
    FIELDS(TAKE)
    return plain;
}

static const size_t counts[] = {1, 2, 3, 4, 1000, STATE_COUNT_MAX};

/* Calls a function for every word; it looks only at those that its transition may find. */
static void for_each_word(void (*check)(struct plain before))
{
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (size_t flags = 0; flags < STATE_REFERENCE; flags++) {
            struct plain plain = to_plain(flags | counts[i] * STATE_REFERENCE);
            require(to_word(plain) == (flags | counts[i] * STATE_REFERENCE));
            /* A completed task neither runs nor is queued, and only it can be without a value. */
            if ((plain.complete && (plain.running || plain.notified)) || (plain.valueless && !plain.complete)) {
                continue;
            }
            check(plain);
        }
    }
}

static void expect(struct state_step step, struct plain after, enum state_action action)
{
    require(step.next == to_word(after));
    require(step.action == action);
}

static enum state_action action_of_release(struct plain after)
{
    return after.count == 0 ? STATE_FREE : STATE_NOTHING;
}

static void check_release(struct plain plain)
{
    struct plain after = plain;
    after.count--;
    expect(state_release(to_word(plain)), after, action_of_release(after));
}

static void check_wakes(struct plain plain)
{
    struct plain by_ref = plain, by_value = plain;
    enum state_action ref_action = STATE_NOTHING, value_action = STATE_NOTHING;
    bool idle = !plain.complete && !plain.running && !plain.notified;
    if (!plain.complete) {
        by_ref.notified = by_value.notified = true;
    }
    if (idle) { /* a queue entry is made: with a new reference, or with the waker's */
        by_ref.count++;
        ref_action = value_action = STATE_SUBMIT;
    } else {
        by_value.count--;
        if (plain.complete || plain.notified) {
            value_action = action_of_release(by_value);
        }
    }
    if (plain.count < STATE_COUNT_MAX) {
        expect(state_wake_by_ref(to_word(plain)), by_ref, ref_action);
    }
    if (plain.count > 1 || !plain.running) { /* the runner has a reference besides the waker's */
        expect(state_wake(to_word(plain)), by_value, value_action);
    }
}

static void check_cancel(struct plain plain)
{
    struct plain after = plain;
    enum state_action action = STATE_NOTHING;
    if (plain.count == STATE_COUNT_MAX) {
        return;
    }
    if (!plain.complete && !plain.cancelled) {
        after.cancelled = after.notified = true;
        if (!plain.running && !plain.notified) {
            after.count++;
            action = STATE_SUBMIT;
        }
    }
    expect(state_cancel(to_word(plain)), after, action);
    /* Again: who was cancelled before is woken, to look at what has changed. */
    if (!plain.complete && plain.cancelled && !plain.notified) {
        after.notified = true;
        if (!plain.running) {
            after.count++;
            action = STATE_SUBMIT;
        }
    }
    expect(state_cancel_again(to_word(plain)), after, action);
}

static void check_start(struct plain plain)
{
    struct plain after = plain;
    if (!plain.notified || plain.running || plain.complete) {
        return;
    }
    after.notified = false;
    after.running = true;
    require(state_start(to_word(plain)) == to_word(after));
}

static void check_stop(struct plain plain)
{
    struct plain after = plain;
    if (!plain.running) {
        return;
    }
    after.running = false;
    if (!plain.notified) {
        after.count--;
    }
    expect(state_stop(to_word(plain)), after, plain.notified ? STATE_SUBMIT : action_of_release(after));
}

static void check_complete(struct plain plain)
{
    if (!plain.running) {
        return;
    }
    for (int has_result = 0; has_result < 2; has_result++) {
        struct plain after = plain;
        after.running = after.notified = false;
        after.complete = true;
        after.valueless = !has_result;
        require(state_complete(to_word(plain), has_result) == to_word(after));
    }
}

static void check_joiner(struct plain plain)
{
    struct plain set = plain, clear = plain;
    bool set_done = !plain.complete, clear_done = !plain.complete; /* wrong, so that it must be written */
    if (!plain.joinable) {
        return;
    }
    if (!plain.complete) {
        set.joiner = true;
        clear.joiner = false;
    }
    require(state_joiner_set(to_word(plain), &set_done) == to_word(set));
    require(state_joiner_clear(to_word(plain), &clear_done) == to_word(clear));
    require(set_done == plain.complete && clear_done == plain.complete);
}

static void check_detach(struct plain plain)
{
    struct plain after = plain;
    bool drop_result = !plain.complete;
    if (!plain.joinable) {
        return;
    }
    if (!plain.complete) {
        after.joinable = false;
        after.count--;
    }
    expect(state_detach(to_word(plain), &drop_result), after,
           plain.complete ? STATE_NOTHING : action_of_release(after));
    require(drop_result == plain.complete);
}

TEST(each_transition_does_what_a_plain_task_would)
{
    void (*const checks[])(struct plain before) = {check_release, check_wakes,    check_cancel, check_start,
                                                   check_stop,    check_complete, check_joiner, check_detach};
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        for_each_word(checks[i]);
    }
}

TEST(a_new_task_is_queued_and_has_a_reference_for_each_who_holds_it)
{
    const size_t fixed[] = {0, STATE_LARGE, STATE_SURROUNDED, STATE_LARGE | STATE_SURROUNDED};
    for (size_t i = 0; i < 4; i++) {
        struct plain detached = {.notified = true, .count = 2}, joinable = {.notified = true, .joinable = true};
        joinable.count = 3;
        assert_int_equal(state_new(false, fixed[i]), to_word(detached) | fixed[i]);
        assert_int_equal(state_new(true, fixed[i]), to_word(joinable) | fixed[i]);
    }
}

/* Whole lives, at random: every reference is given back exactly once, and the last one frees. */
struct life {
    size_t word;
    int queued, wakers;
    bool handle, running, ended, freed;
};

static void apply(struct life *life, struct state_step step)
{
    require(!life->freed);
    life->word = step.next;
    life->queued += step.action == STATE_SUBMIT;
    life->freed = step.action == STATE_FREE;
    require(life->queued <= 1);
}

static void live_on(struct life *life, uint32_t random)
{
    bool done;
    switch (random % 8) {
    case 0: /* a waker is cloned */
        if (life->wakers > 0 || life->running) {
            life->word += STATE_REFERENCE;
            life->wakers++;
        }
        break;
    case 1:
        if (life->wakers > 0) {
            apply(life, state_wake_by_ref(life->word));
        }
        break;
    case 2:
        if (life->wakers > 0) {
            life->wakers--;
            apply(life, state_wake(life->word));
        }
        break;
    case 3:
        if (life->wakers > 0) {
            life->wakers--;
            apply(life, state_release(life->word));
        }
        break;
    case 4:
        if (life->handle) {
            apply(life, random & 256 ? state_cancel(life->word) : state_cancel_again(life->word));
        }
        break;
    case 5:
        if (life->queued > 0 && !life->running) {
            life->queued = 0;
            life->running = true;
            life->word = state_start(life->word);
        }
        break;
    case 6:
        if (life->running && random & 64) {
            life->running = false;
            apply(life, state_stop(life->word));
        } else if (life->running && random & 128) { /* the runner's and the life's reference */
            life->running = false;
            life->ended = true;
            life->word = state_complete(life->word, true);
            apply(life, state_release(life->word));
            apply(life, state_release(life->word));
        }
        break;
    default:
        if (life->handle && random & 64) {
            life->handle = false;
            apply(life, state_detach(life->word, &done));
            if (done) {
                apply(life, state_release(life->word));
            }
        }
    }
}

static void require_count(const struct life *life)
{
    size_t held = (size_t)life->wakers + life->handle;
    held += life->ended ? 0 : 1;
    held += (life->queued > 0 || life->running) ? 1 : 0;
    require(STATE_COUNT(life->word) == held);
    require(life->freed == (held == 0));
}

TEST(references_add_up_at_each_moment_of_random_lives)
{
    uint32_t random = 12345;
    uint64_t freed = 0, count = test_scale(20000, 2000000);
    for (uint64_t i = 0; i < count; i++) {
        struct life life = {.word = state_new(true, 0), .queued = 1, .handle = true};
        for (int step = 0; step < 200 && !life.freed; step++) {
            random = random * 1664525u + 1013904223u;
            live_on(&life, random >> 12);
            require_count(&life);
        }
        freed += life.freed;
    }
    assert_true(freed > 0);
}
