/* As many tasks as workers, each of which keeps its worker until all have come: none may be left lying while a worker
 * sleeps. */
#include "scenario.h"

enum { MEETINGS = 30 };

struct meeting {
    unsigned here, expected, left;
    int64_t limit_ns;
};

static int meet(void *state, void *result, rouse_context *context)
{
    struct meeting *meeting = *(struct meeting **)state;
    (void)result;
    (void)context;
    meeting->here++;
    while (meeting->here < meeting->expected) {
        must(rouse_now() < meeting->limit_ns && "a task does not wait while a worker sleeps");
        rouse_sim_sleep(ROUSE_US(1)); /* the worker, not the task */
    }
    meeting->left++;
    return ROUSE_OK;
}

static const rouse_task_type guest_type = {.name = "guest", .poll = meet, .state_size = sizeof(struct meeting *)};

/* Invites the others from inside. */
static int invite(void *state, void *result, rouse_context *context)
{
    struct meeting *meeting = *(struct meeting **)state;
    for (unsigned i = 1; i < meeting->expected; i++)
        must(rouse_spawn(NULL, &guest_type, state) == ROUSE_OK);
    return meet(state, result, context);
}

static const rouse_task_type host_type = {.name = "host", .poll = invite, .state_size = sizeof(struct meeting *)};

int meetings_scenario(void *argument)
{
    rouse_options options = some_threads();
    rouse_runtime *runtime;
    (void)argument;
    options.workers = 2 + (unsigned)below(3);
    options.dedicated_poller = below(2) == 0;
    must(rouse_runtime_new(&runtime, &options) == ROUSE_OK);
    bool steals = options.scheduler == ROUSE_SCHEDULER_WORK_STEALING;
    for (int i = 0; i < MEETINGS; i++) {
        struct meeting meeting = {.expected = options.workers, .limit_ns = rouse_after(ROUSE_MS(200))}, *it = &meeting;
        if (steals && below(2) == 0)
            must(rouse_spawn_on(runtime, NULL, &host_type, &it) == ROUSE_OK);
        else
            for (unsigned k = 0; k < options.workers; k++)
                must(rouse_spawn_on(runtime, NULL, &guest_type, &it) == ROUSE_OK);
        while (meeting.left < meeting.expected)
            rouse_sim_sleep((int64_t)below(ROUSE_US(3)) + 1);
        if (below(2) == 0)
            rouse_sim_sleep((int64_t)below(ROUSE_US(200)) + 1);
    }
    must(rouse_runtime_shutdown(runtime, ROUSE_S(1), NULL, NULL) == ROUSE_OK);
    return ROUSE_OK;
}
