/* Budgets: what is always ready must let others run, however its operations are nested. */
#include "support/io.h"
#include "support/runtimes.h"

/* A stream that always has a byte, and polls other operations, which are always done, to get it. */
struct nested {
    int inner;
};

static ptrdiff_t read_nested(void *object, void *data, size_t length, rouse_context *context)
{
    struct nested *nested = object;
    (void)length;
    for (int i = 0; i < nested->inner; i++) {
        rouse_op op;
        rouse_sleep_init(&op, 0);
        ptrdiff_t answer = rouse_op_poll(&op, context);
        if (answer == ROUSE_PENDING) {
            rouse_op_cancel(&op);
            return ROUSE_PENDING;
        }
        require_int(answer, ==, ROUSE_OK);
    }
    *(char *)data = 'n';
    return 1;
}

static ptrdiff_t write_nothing(void *object, const void *data, size_t length, rouse_context *context)
{
    (void)object;
    (void)data;
    (void)context;
    return (ptrdiff_t)length;
}

static const rouse_stream_type nested_type = {"nested", read_nested, write_nothing, NULL, NULL, {NULL}};

struct reading {
    rouse_stream *stream;
    atomic_bool over; /* set by the other task */
    int reads;
    rouse_op op;
    char bytes[4];
};

/* A budget is some hundred operations; the other one must run long before. */
enum { TOO_MANY = 100000 };

static int read_until_over(void *argument)
{
    struct reading *reading = argument;
    while (!atomic_load(&reading->over)) {
        require_int(++reading->reads, <, TOO_MANY);
        require_int(rouse_read(reading->stream, reading->bytes, 1), ==, 1);
    }
    return 0;
}

static int read_exactly_until_over(void *argument)
{
    struct reading *reading = argument;
    while (!atomic_load(&reading->over)) {
        require_int(++reading->reads, <, TOO_MANY);
        require_int(rouse_read_exact(reading->stream, reading->bytes, 4, NULL), ==, ROUSE_OK);
    }
    return 0;
}

static int poll_until_over(void *state, void *result, rouse_context *context)
{
    struct reading *reading = *(struct reading **)state;
    (void)result;
    while (!atomic_load(&reading->over)) {
        require_int(++reading->reads, <, TOO_MANY);
        rouse_read_init(&reading->op, reading->stream, reading->bytes, 1);
        if (rouse_op_poll(&reading->op, context) == ROUSE_PENDING) {
            rouse_op_cancel(&reading->op);
            return ROUSE_PENDING;
        }
    }
    return ROUSE_OK;
}

static const rouse_task_type polling_type = {
    .name = "polling", .poll = poll_until_over, .state_size = sizeof(struct reading *)};

struct saying {
    struct reading *reading;
    int rounds;
};

static int say_over(void *state, void *result, rouse_context *context)
{
    struct saying *saying = state;
    (void)result;
    if (--saying->rounds > 0) {
        rouse_waker_wake_by_ref(&context->waker);
        return ROUSE_PENDING;
    }
    atomic_store(&saying->reading->over, true);
    return ROUSE_OK;
}

static const rouse_task_type saying_type = {.name = "saying", .poll = say_over, .state_size = sizeof(struct saying)};

static void let_the_other_run(rouse_runtime *runtime, int inner, int style)
{
    struct nested nested = {inner};
    struct reading reading = {.over = false}, *state = &reading;
    struct saying saying = {&reading, 5};
    rouse_task reader, other;
    int status;
    require_int(rouse_stream_new(&reading.stream, &nested_type, &nested), ==, ROUSE_OK);
    if (style == 2) {
        status = rouse_spawn_on(runtime, &reader, &polling_type, &state);
    } else {
        status = rouse_spawn_fiber_at(&reader, runtime, style ? read_exactly_until_over : read_until_over, state, 0, 0,
                                      NULL, NULL);
    }
    require_int(status, ==, ROUSE_OK);
    require_int(rouse_spawn_on(runtime, &other, &saying_type, &saying), ==, ROUSE_OK);
    require_int(rouse_join(&reader, NULL), ==, 0);
    require_int(rouse_join(&other, NULL), ==, ROUSE_OK);
    require_int(rouse_close(reading.stream), ==, ROUSE_OK);
}

TEST(operations_inside_operations_spend_one_budget_and_never_more)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 1);
        for (int inner = 0; inner < 6; inner++) {
            for (int style = 0; style < 3; style++) {
                let_the_other_run(runtime, inner, style);
            }
        }
        test_runtime_end(runtime);
    }
}

/* ---- how often the kernel is asked ---- */

static uint64_t turns_of(rouse_runtime *runtime)
{
    rouse_runtime_info info = {.size = sizeof info};
    rouse_worker_stats stats = {0};
    require_int(rouse_runtime_stats(runtime, &info, &stats, 1), ==, ROUSE_OK);
    return stats.turns;
}

enum { ROUNDS = 31, YIELDS = 80 };

/* A busy worker asks after 61 polls, or fewer if they take long. What it slept is no part of that. */
static int sleep_and_be_busy(void *argument)
{
    rouse_runtime *runtime = argument;
    int few = 0;
    for (int round = 0; round < ROUNDS; round++) {
        require_int(rouse_sleep(ROUSE_MS(3)), ==, ROUSE_OK);
        uint64_t before = turns_of(runtime);
        for (int i = 0; i < YIELDS; i++)
            require_int(rouse_yield(), ==, ROUSE_OK);
        few += turns_of(runtime) - before <= 1;
    }
    return few;
}

TEST(a_sleep_is_not_taken_for_long_polls)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 1);
        int few = test_fiber(runtime, sleep_and_be_busy, runtime);
        if (!test_is_slow())
            require_int(few, >, ROUNDS / 2); /* on a busy machine polls may take long now and then */
        test_runtime_end(runtime);
    }
}
