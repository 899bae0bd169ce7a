/* Runtimes that end while tasks sleep, read, spawn and clean up: everything ends, is dropped once, and nothing is left. */
#include "scenario.h"

enum { TASKS = 8 };

static struct {
    unsigned made, dropped;
    rouse_listener *listener;
} shared;

struct sleeper {
    rouse_op op;
    bool begun;
};

static int sleep_long(void *state, void *result, rouse_context *context)
{
    struct sleeper *sleeper = state;
    (void)result;
    if (!sleeper->begun)
        rouse_sleep_init(&sleeper->op, ROUSE_S(1000));
    sleeper->begun = true;
    return (int)rouse_op_poll(&sleeper->op, context);
}

static void drop_sleeper(void *state)
{
    rouse_op_cancel(&((struct sleeper *)state)->op);
    shared.dropped++;
}

static const rouse_task_type sleeper_type = {
    .name = "sleeper", .poll = sleep_long, .drop = drop_sleeper, .state_size = sizeof(struct sleeper)};

static int clean_up(void *argument)
{
    rouse_shield shield;
    (void)argument;
    shared.made++;
    (void)rouse_sleep(ROUSE_S(1000));
    must(rouse_shield_enter(&shield, rouse_after(ROUSE_MS(5))) == ROUSE_OK);
    (void)rouse_sleep((int64_t)below(ROUSE_MS(8)));
    must(rouse_shield_leave(&shield) == ROUSE_OK);
    shared.dropped++;
    return ROUSE_OK;
}

static int wait_for_clients(void *argument)
{
    rouse_stream *stream;
    (void)argument;
    shared.made++;
    int status = rouse_accept(shared.listener, &stream, NULL);
    must(status < 0);
    shared.dropped++;
    return ROUSE_OK;
}

static int spawn_on(void *argument)
{
    rouse_task task;
    (void)argument;
    while (rouse_sleep((int64_t)below(ROUSE_US(300))) == ROUSE_OK) {
        struct sleeper sleeper = {.begun = false};
        int status = rouse_spawn(&task, &sleeper_type, &sleeper);
        if (status != ROUSE_OK) {
            must(status == ROUSE_SHUTTING_DOWN);
            break;
        }
        shared.made++;
        rouse_detach(&task);
    }
    return ROUSE_OK;
}

static void end_it(void *runtime)
{
    int status;
    /* Some have slept so long that nothing but being told wakes them. */
    rouse_sim_sleep(below(4) == 0 ? ROUSE_S(1) : (int64_t)below(ROUSE_MS(2)));
    int64_t start_ns = rouse_now();
    while ((status = rouse_runtime_shutdown(runtime, ROUSE_S(1), NULL, NULL)) != ROUSE_OK)
        must(status == ROUSE_TIMED_OUT || status == ROUSE_BUSY);
    must(rouse_now() - start_ns < ROUSE_S(5) && "no worker waits for the end of a wait");
}

int shutdown_scenario(void *argument)
{
    rouse_options options = some_threads();
    rouse_runtime *runtime;
    rouse_sim_thread thread;
    rouse_task task;
    (void)argument;
    memset(&shared, 0, sizeof shared);
    must(rouse_listen(&shared.listener, "127.0.0.1:0", NULL) == ROUSE_OK);
    must(rouse_runtime_new(&runtime, &options) == ROUSE_OK);
    unsigned tasks = below(4) == 0 ? 0 : TASKS;
    for (unsigned i = 0; i < tasks; i++) {
        static rouse_fiber_function *const kinds[] = {clean_up, wait_for_clients, spawn_on};
        must(rouse_spawn_fiber_at(&task, runtime, kinds[i % 3], NULL, 0, 0, NULL, ROUSE_HERE) == ROUSE_OK);
        rouse_detach(&task);
    }
    must(rouse_sim_thread_start(&thread, end_it, runtime) == ROUSE_OK);
    rouse_sim_thread_join(&thread);
    must(shared.made == shared.dropped);
    must(rouse_listener_close(shared.listener) == ROUSE_OK);
    return ROUSE_OK;
}
