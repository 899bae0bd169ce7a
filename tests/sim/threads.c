/* Threads that are no workers spawn, join, block, wake and abort; tasks wake each other across runtimes. */
#include "scenario.h"

enum { THREADS = 3, JOBS = 12 };

/* Passed from hand to hand: whoever holds it wakes the next one. */
struct baton {
    unsigned turn, players;
    rouse_waker waiting[4];
};

struct player {
    struct baton *baton;
    unsigned number, rounds;
};

static int play(void *state, void *result, rouse_context *context)
{
    struct player *player = state;
    struct baton *baton = player->baton;
    rouse_waker *mine = &baton->waiting[player->number];
    (void)result;
    rouse_waker_drop(mine);
    *mine = rouse_waker_clone(&context->waker);
    if (baton->turn % baton->players != player->number)
        return ROUSE_PENDING;
    bool over = --player->rounds == 0;
    rouse_waker next = rouse_waker_clone(&baton->waiting[++baton->turn % baton->players]);
    if (next.table) /* else it has not begun yet */
        rouse_waker_wake(&next);
    return over ? (int)player->number : ROUSE_PENDING;
}

static const rouse_task_type player_type = {.name = "player", .poll = play, .state_size = sizeof(struct player)};

static int job(void *argument)
{
    unsigned number = *(unsigned *)argument;
    for (uint64_t i = below(4); i > 0; i--) {
        if (below(2))
            rouse_yield();
        else
            rouse_sleep((int64_t)below(ROUSE_US(50)));
    }
    *(unsigned *)rouse_result() = number * 2;
    return (int)number;
}

static void use_from_outside(void *argument)
{
    rouse_runtime *runtime = argument;
    for (unsigned i = 0; i < JOBS; i++) {
        rouse_task task;
        unsigned doubled = 0;
        must(rouse_spawn_fiber_at(&task, runtime, job, &i, sizeof i, sizeof i, NULL, ROUSE_HERE) == ROUSE_OK);
        unsigned kind = (unsigned)below(4);
        if (kind == 0)
            rouse_abort(&task);
        if (kind == 1) {
            rouse_detach(&task);
            continue;
        }
        int value = rouse_join(&task, &doubled);
        must(value == (int)i || (kind == 0 && value == ROUSE_CANCELLED));
        must(doubled == i * 2 || value == ROUSE_CANCELLED);
    }
}

int threads_scenario(void *argument)
{
    rouse_runtime *runtimes[2];
    rouse_sim_thread threads[THREADS];
    rouse_task tasks[3];
    struct baton baton = {.players = 3};
    (void)argument;
    for (int i = 0; i < 2; i++) {
        rouse_options options = some_threads();
        must(rouse_runtime_new(&runtimes[i], &options) == ROUSE_OK);
    }
    for (int i = 0; i < THREADS; i++)
        must(rouse_sim_thread_start(&threads[i], use_from_outside, runtimes[i % 2]) == ROUSE_OK);
    for (unsigned i = 0; i < 3; i++) {
        struct player player = {&baton, i, 20};
        must(rouse_spawn_on(runtimes[i % 2], &tasks[i], &player_type, &player) == ROUSE_OK);
    }
    for (unsigned i = 0; i < 3; i++)
        must(rouse_join(&tasks[i], NULL) == (int)i);
    for (int i = 0; i < THREADS; i++)
        rouse_sim_thread_join(&threads[i]);
    for (unsigned i = 0; i < 3; i++)
        rouse_waker_drop(&baton.waiting[i]);
    for (int i = 0; i < 2; i++)
        must(rouse_runtime_shutdown(runtimes[i], ROUSE_S(10), NULL, NULL) == ROUSE_OK);
    return ROUSE_OK;
}
