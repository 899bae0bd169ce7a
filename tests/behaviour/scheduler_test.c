/* Schedulers: where tasks run, who takes over from whom, who has to wait, and what idleness costs. */
#include "support/net.h"
#include "support/runtimes.h"

#include <sched.h>

static const enum test_executor multis[] = {TEST_ROUND_ROBIN, TEST_STEALING};

static rouse_runtime *runtime_with(enum test_executor kind, unsigned workers, unsigned reactors, int poller)
{
    rouse_options options = test_options(kind, workers);
    options.reactors = reactors;
    options.dedicated_poller = poller;
    return test_runtime_make(&options);
}

/* ---- sharing ---- */

#define BURST 1000

struct burst {
    atomic_int left;
    atomic_int jobs[2];
    atomic_uintptr_t workers[2]; /* the threads that run jobs; 0: none yet */
    int64_t job_ns;
    sem_t done;
};

/* Which of the two the calling thread is. */
static int worker_of(struct burst *burst)
{
    uintptr_t me = (uintptr_t)pthread_self();
    int i = 0;
    for (; i < 2 && atomic_load(&burst->workers[i]) != me; i++) {
        uintptr_t none = 0;
        if (atomic_compare_exchange_strong(&burst->workers[i], &none, me)) {
            break;
        }
    }
    require_int(i, <, 2);
    return i;
}

static int run_job(void *state, void *result, rouse_context *context)
{
    struct burst *burst = *(struct burst **)state;
    (void)result;
    (void)context;
    test_burn(burst->job_ns);
    atomic_fetch_add(&burst->jobs[worker_of(burst)], 1);
    if (atomic_fetch_sub(&burst->left, 1) == 1) {
        test_post(&burst->done);
    }
    return ROUSE_OK;
}

static const rouse_task_type job_type = {.name = "job", .poll = run_job, .state_size = sizeof(struct burst *)};

static int spawn_jobs(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    for (int i = 0; i < BURST; i++) {
        require_int(rouse_spawn(NULL, &job_type, state), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

static const rouse_task_type burst_type = {.name = "burst", .poll = spawn_jobs, .state_size = sizeof(struct burst *)};

/* Answers how many jobs the worker with fewer of them ran; *steals: how many were taken. */
static int run_burst(enum test_executor kind, uint64_t *steals)
{
    rouse_runtime *runtime = test_runtime_new(kind, 2);
    struct burst burst = {.left = BURST, .job_ns = ROUSE_US(10)}, *state = &burst;
    rouse_runtime_info info = {.size = sizeof info};
    rouse_worker_stats stats[2];
    require(sem_init(&burst.done, 0, 0) == 0);
    require_int(rouse_spawn_on(runtime, NULL, &burst_type, &state), ==, ROUSE_OK);
    test_await(&burst.done);
    require_int(rouse_runtime_stats(runtime, &info, stats, 2), ==, ROUSE_OK);
    require_int(stats[0].polls + stats[1].polls, ==, BURST + 1);
    *steals = stats[0].steals + stats[1].steals;
    test_runtime_end(runtime);
    sem_destroy(&burst.done);
    int one = atomic_load(&burst.jobs[0]), two = atomic_load(&burst.jobs[1]);
    require_int(one + two, ==, BURST);
    return one < two ? one : two;
}

static int by_size(const void *left, const void *right)
{
    int a = *(const int *)left, b = *(const int *)right;
    return (a > b) - (a < b);
}

static int median_share(uint64_t *steals)
{
    enum { RUNS = 11 };
    int shares[RUNS];
    *steals = 0;
    for (int i = 0; i < RUNS; i++) {
        uint64_t stolen;
        shares[i] = run_burst(TEST_STEALING, &stolen);
        *steals += stolen;
    }
    qsort(shares, RUNS, sizeof shares[0], by_size);
    return shares[RUNS / 2];
}

TEST_SERIAL(an_idle_worker_steals_its_share_of_what_one_task_spawns)
{
    uint64_t steals;
    if (test_is_slow()) {
        run_burst(TEST_STEALING, &steals);
        return;
    }
    int share = 0;
    for (int attempt = 0; attempt < 5 && share < 300; attempt++) { /* the machine may have had other work */
        share = median_share(&steals);
        require_int(steals, >, 0);
    }
    assert_in_range(share, 300, 500);
}

TEST(round_robin_deals_evenly_and_nobody_steals)
{
    uint64_t steals;
    assert_int_equal(run_burst(TEST_ROUND_ROBIN, &steals), BURST / 2);
    assert_int_equal(steals, 0);
}

/* ---- a task that keeps its worker ---- */

/* A delay is told by what the hog has done meanwhile, in processor time: other work of the machine keeps everybody, the hog
 * too. Only a few rounds in which it kept the idle worker alone are late all the same; so medians are judged. */
enum { HOG_MS = 100, HOG_ROUNDS = 14, HOG_ATTEMPTS = 5, HOG_DELAY_MS = 15 };

/* A task whose operation is polled for the first time, with its waker, by the hog: so it waits in the hog's reactor. */
struct patient {
    rouse_op op;
    rouse_waker waker; /* of the task, until the hog has used it */
    sem_t *posted;
    atomic_int *served;
    int64_t done_cpu_ns; /* test_cpu_ns() when it was polled with the operation done */
    bool started;
};

static int be_patient(void *state, void *result, rouse_context *context)
{
    struct patient *patient = *(struct patient **)state;
    (void)result;
    if (!patient->started) {
        patient->started = true;
        patient->waker = rouse_waker_clone(&context->waker);
        test_post(patient->posted);
        return ROUSE_PENDING;
    }
    ptrdiff_t answer = rouse_op_poll(&patient->op, context);
    if (answer == ROUSE_PENDING) {
        return ROUSE_PENDING;
    }
    require_int(answer, >=, 0);
    patient->done_cpu_ns = test_cpu_ns();
    atomic_fetch_add(patient->served, 1);
    test_post(patient->posted);
    return ROUSE_OK;
}

static void give_up(void *state)
{
    rouse_op_cancel(&(*(struct patient **)state)->op);
}

static const rouse_task_type patient_type = {
    .name = "patient", .poll = be_patient, .drop = give_up, .state_size = sizeof(struct patient *)};

struct hog {
    struct patient *patients; /* one with a prepared operation, one that is to sleep */
    atomic_int served;        /* of them */
    int64_t deadline_cpu_ns;  /* test_cpu_ns() when the sleep was over */
    pthread_t thread;         /* that it hogs */
    sem_t started;
};

static ptrdiff_t poll_for(struct patient *patient, const rouse_context *context)
{
    rouse_context other = *context;
    other.waker = patient->waker;
    return rouse_op_poll(&patient->op, &other);
}

/* Keeps its worker until both are served, and no longer than a worker that serves nobody meanwhile has earned. */
static int hog_worker(void *state, void *result, rouse_context *context)
{
    struct hog *hog = *(struct hog **)state;
    int64_t deadline_ns;
    (void)result;
    require_int(poll_for(&hog->patients[0], context), ==, ROUSE_PENDING);
    do { /* on a busy machine it may be over before it is polled */
        deadline_ns = rouse_after(ROUSE_MS(10));
        rouse_sleep_init(&hog->patients[1].op, deadline_ns);
    } while (poll_for(&hog->patients[1], context) != ROUSE_PENDING);
    for (int i = 0; i < 2; i++) {
        rouse_waker_drop(&hog->patients[i].waker);
    }
    hog->thread = pthread_self();
    test_post(&hog->started);
    int64_t end = test_cpu_ns() + ROUSE_MS(HOG_MS), now;
    while ((now = test_cpu_ns()) < end && atomic_load(&hog->served) < 2) {
        if (hog->deadline_cpu_ns == 0 && rouse_now() >= deadline_ns) {
            hog->deadline_cpu_ns = now;
        }
    }
    return ROUSE_OK;
}

static const rouse_task_type hog_type = {.name = "hog", .poll = hog_worker, .state_size = sizeof(struct hog *)};

/* Answers by how much the slower of a socket and a timer was late, and which thread was hogged. Rested: everybody sleeps
 * for good when the hog comes, and nobody has an alarm set. */
static int64_t delay_beside_hog(rouse_runtime *runtime, bool rested, pthread_t *thread)
{
    sem_t posted;
    char byte;
    int ends[2];
    rouse_stream *stream;
    struct patient patients[2], *state;
    struct hog hog = {.patients = patients}, *hog_state = &hog;
    require(sem_init(&posted, 0, 0) == 0 && sem_init(&hog.started, 0, 0) == 0);
    test_tcp_pair(ends);
    require_int(rouse_adopt(&stream, ends[0]), ==, ROUSE_OK);
    for (int i = 0; i < 2; i++) {
        patients[i] = (struct patient){.posted = &posted, .served = &hog.served};
        state = &patients[i];
        require_int(rouse_spawn_on(runtime, NULL, &patient_type, &state), ==, ROUSE_OK);
        test_await(&posted);
    }
    if (rested) {
        test_sleep_ns(ROUSE_MS(20));
    }
    rouse_read_init(&patients[0].op, stream, &byte, 1);
    require_int(rouse_spawn_on(runtime, NULL, &hog_type, &hog_state), ==, ROUSE_OK);
    test_await(&hog.started);
    int64_t sent_cpu_ns = test_cpu_ns();
    test_send_all(ends[1], "x", 1);
    test_await(&posted);
    test_await(&posted);
    test_await_no_tasks(runtime);
    int64_t socket_ns = patients[0].done_cpu_ns - sent_cpu_ns;
    /* A hog that has not seen the end of the sleep did nothing after it. */
    int64_t timer_ns = hog.deadline_cpu_ns == 0 ? 0 : patients[1].done_cpu_ns - hog.deadline_cpu_ns;
    require_int(rouse_close(stream), ==, ROUSE_OK);
    test_close(ends[1]);
    sem_destroy(&posted);
    sem_destroy(&hog.started);
    *thread = hog.thread;
    return socket_ns > timer_ns ? socket_ns : timer_ns;
}

static int by_delay(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* The median for the worker where it is greater: it must not matter whose reactor it is. A worker that is hardly ever
 * hogged does not count. */
static int64_t median_delay_beside_hog(rouse_runtime *runtime, bool rested)
{
    pthread_t threads[2];
    int64_t delays[2][HOG_ROUNDS], worst = 0;
    int workers = 0, counts[2] = {0};
    int rounds = test_is_slow() ? 2 : HOG_ROUNDS;
    for (int round = 0; round < rounds; round++) {
        pthread_t thread;
        int64_t delay_ns = delay_beside_hog(runtime, rested, &thread);
        int worker = 0;
        while (worker < workers && !pthread_equal(threads[worker], thread)) {
            worker++;
        }
        require_int(worker, <, 2);
        workers = worker == workers ? workers + 1 : workers;
        threads[worker] = thread;
        delays[worker][counts[worker]++] = delay_ns;
    }
    for (int worker = 0; worker < workers; worker++) {
        qsort(delays[worker], (size_t)counts[worker], sizeof delays[worker][0], by_delay);
        int64_t median = delays[worker][counts[worker] / 2];
        worst = counts[worker] >= HOG_ROUNDS / 4 && median > worst ? median : worst;
    }
    return worst;
}

static void little_delay_beside_hog(unsigned reactors, int poller)
{
    for (int i = 0; i < 4; i++) {
        bool rested = i % 2 == 1;
        rouse_runtime *runtime = runtime_with(multis[i / 2], 2, reactors, poller);
        int64_t delay_ns = median_delay_beside_hog(runtime, rested);
        for (int attempt = 1; attempt < HOG_ATTEMPTS && delay_ns > ROUSE_MS(HOG_DELAY_MS); attempt++) {
            delay_ns = median_delay_beside_hog(runtime, rested);
        }
        if (!test_is_slow()) {
            require_int(delay_ns, <=, ROUSE_MS(HOG_DELAY_MS));
        }
        test_runtime_end(runtime);
    }
}

TEST_SERIAL(a_hog_delays_no_socket_or_timer_while_another_worker_is_idle)
{
    little_delay_beside_hog(0, 0);
}

TEST_SERIAL(a_hog_delays_no_socket_or_timer_where_workers_share_a_reactor)
{
    little_delay_beside_hog(1, 0);
}

TEST_SERIAL(a_hog_delays_no_socket_or_timer_beside_a_dedicated_poller)
{
    little_delay_beside_hog(0, 1);
}

/* ---- all at once ---- */

struct meeting {
    atomic_int here, left;
    int expected;
    sem_t done;
};

static void meet(struct meeting *meeting)
{
    atomic_fetch_add(&meeting->here, 1);
    while (atomic_load(&meeting->here) < meeting->expected) {
        sched_yield();
    }
    if (atomic_fetch_sub(&meeting->left, 1) == 1) {
        test_post(&meeting->done);
    }
}

static int meet_in_task(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    meet(*(struct meeting **)state);
    return ROUSE_OK;
}

static const rouse_task_type meet_type = {.name = "meet", .poll = meet_in_task, .state_size = sizeof(struct meeting *)};

static int invite_and_meet(void *state, void *result, rouse_context *context)
{
    struct meeting *meeting = *(struct meeting **)state;
    for (int i = 1; i < meeting->expected; i++) {
        require_int(rouse_spawn(NULL, &meet_type, state), ==, ROUSE_OK);
    }
    return meet_in_task(state, result, context);
}

static const rouse_task_type invite_type = {
    .name = "invite", .poll = invite_and_meet, .state_size = sizeof(struct meeting *)};

static void hold_meetings(rouse_runtime *runtime, int expected, bool from_inside)
{
    uint64_t rounds = test_scale(40, 2000);
    for (uint64_t round = 0; round < rounds; round++) {
        struct meeting meeting = {.left = expected, .expected = expected}, *state = &meeting;
        require(sem_init(&meeting.done, 0, 0) == 0);
        for (int i = 0; i < (from_inside ? 1 : expected); i++) {
            require_int(rouse_spawn_on(runtime, NULL, from_inside ? &invite_type : &meet_type, &state), ==, ROUSE_OK);
        }
        test_await(&meeting.done);
        test_await_no_tasks(runtime);
        sem_destroy(&meeting.done);
    }
}

TEST(as_many_tasks_as_workers_run_at_once)
{
    for (unsigned workers = 2; workers <= 4; workers++) {
        for (int kind = 0; kind < 2; kind++) {
            for (int poller = 0; poller < 2; poller++) {
                rouse_runtime *runtime = runtime_with(multis[kind], workers, 0, poller);
                hold_meetings(runtime, (int)workers, false);
                if (multis[kind] == TEST_STEALING) {
                    hold_meetings(runtime, (int)workers, true);
                }
                test_runtime_end(runtime);
            }
        }
    }
}

/* Dealt in turn, tasks reach all workers also when a task spawns them, and the one that spawns is done. */
static int invite(void *state, void *result, rouse_context *context)
{
    struct meeting *meeting = *(struct meeting **)state;
    (void)result;
    (void)context;
    for (int i = 0; i < meeting->expected; i++) {
        require_int(rouse_spawn(NULL, &meet_type, state), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

static const rouse_task_type only_invite_type = {
    .name = "invite", .poll = invite, .state_size = sizeof(struct meeting *)};

TEST(tasks_dealt_by_a_task_run_at_once)
{
    rouse_runtime *runtime = test_runtime_new(TEST_ROUND_ROBIN, 3);
    for (uint64_t round = 0; round < test_scale(50, 2000); round++) {
        struct meeting meeting = {.left = 3, .expected = 3}, *state = &meeting;
        assert_int_equal(sem_init(&meeting.done, 0, 0), 0);
        assert_int_equal(rouse_spawn_on(runtime, NULL, &only_invite_type, &state), ROUSE_OK);
        test_await(&meeting.done);
        sem_destroy(&meeting.done);
    }
    test_runtime_end(runtime);
}

/* ---- one after the other ---- */

#define ONE_BY_ONE 2000

static int do_nothing(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    return ROUSE_OK;
}

static const rouse_task_type nothing_type = {.name = "nothing", .poll = do_nothing};

static void spawn_one(rouse_task *task)
{
    require_int(rouse_spawn(task, &nothing_type, NULL), ==, ROUSE_OK);
}

struct series {
    int left;
    rouse_task task;
    rouse_op join;
};

static int spawn_and_join_in_task(void *state, void *result, rouse_context *context)
{
    struct series *series = *(struct series **)state;
    ptrdiff_t answer;
    (void)result;
    for (;;) {
        if (series->task.cell == NULL) {
            if (series->left-- == 0) {
                return ROUSE_OK;
            }
            spawn_one(&series->task);
            rouse_join_init(&series->join, &series->task, NULL);
        }
        if ((answer = rouse_op_poll(&series->join, context)) == ROUSE_PENDING) {
            return ROUSE_PENDING;
        }
        require_int(answer, ==, ROUSE_OK);
        series->task.cell = NULL;
    }
}

static const rouse_task_type series_type = {
    .name = "series", .poll = spawn_and_join_in_task, .state_size = sizeof(struct series *)};

static int spawn_and_join_in_fiber(void *unused)
{
    (void)unused;
    for (int i = 0; i < ONE_BY_ONE; i++) {
        rouse_task task;
        spawn_one(&task);
        require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

static int spawn_next(void *state, void *result, rouse_context *context);

static const rouse_task_type link_type = {.name = "link", .poll = spawn_next, .state_size = sizeof(struct meeting *)};

static int spawn_next(void *state, void *result, rouse_context *context)
{
    struct meeting *chain = *(struct meeting **)state;
    (void)result;
    (void)context;
    if (--chain->expected == 0) {
        test_post(&chain->done);
    } else {
        require_int(rouse_spawn(NULL, &link_type, state), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

/* Whoever spawns one task and then waits, or ends, has no need of a second worker: to wake one for each costs more than
 * the task, and the task is moved for nothing. The sentinel may take some over, when this worker is not let run. */
TEST(tasks_that_are_spawned_one_after_the_other_stay_on_their_worker)
{
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    rouse_runtime_info info = {.size = sizeof info};
    rouse_worker_stats stats[2];
    struct series series = {.left = ONE_BY_ONE}, *state = &series;
    rouse_task task;
    assert_int_equal(rouse_spawn_on(runtime, &task, &series_type, &state), ROUSE_OK);
    assert_int_equal(rouse_join(&task, NULL), ROUSE_OK);
    assert_int_equal(test_fiber(runtime, spawn_and_join_in_fiber, NULL), ROUSE_OK);
    struct meeting chain = {.expected = ONE_BY_ONE}, *first = &chain;
    assert_int_equal(sem_init(&chain.done, 0, 0), 0);
    assert_int_equal(rouse_spawn_on(runtime, NULL, &link_type, &first), ROUSE_OK);
    test_await(&chain.done);
    assert_int_equal(rouse_runtime_stats(runtime, &info, stats, 2), ROUSE_OK);
    require_int(stats[0].steals + stats[1].steals, <, ONE_BY_ONE / 40);
    test_runtime_end(runtime);
    sem_destroy(&chain.done);
}

/* A task that is woken by another one is kept close to it; not so close that it waits for it. */
struct guest {
    struct test_bell bell;
    struct meeting *meeting;
    sem_t *waiting;
};

static int wait_and_meet(void *state, void *result, rouse_context *context)
{
    struct guest *guest = *(struct guest **)state;
    (void)result;
    if (test_bell_poll(&guest->bell, context) == ROUSE_PENDING) {
        test_post(guest->waiting);
        return ROUSE_PENDING;
    }
    meet(guest->meeting);
    return ROUSE_OK;
}

static const rouse_task_type guest_type = {
    .name = "guest", .poll = wait_and_meet, .state_size = sizeof(struct guest *)};

static int call_guest(void *state, void *result, rouse_context *context)
{
    struct guest *guest = *(struct guest **)state;
    (void)result;
    (void)context;
    test_bell_ring(&guest->bell);
    meet(guest->meeting);
    return ROUSE_OK;
}

static const rouse_task_type call_type = {.name = "call", .poll = call_guest, .state_size = sizeof(struct guest *)};

TEST(a_task_that_waits_without_end_for_the_one_it_has_woken_gets_it)
{
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    for (uint64_t round = 0; round < test_scale(20, 1000); round++) {
        sem_t waiting;
        struct meeting meeting = {.left = 2, .expected = 2};
        struct guest guest = {TEST_BELL_INIT, &meeting, &waiting}, *state = &guest;
        assert_int_equal(sem_init(&meeting.done, 0, 0), 0);
        assert_int_equal(sem_init(&waiting, 0, 0), 0);
        assert_int_equal(rouse_spawn_on(runtime, NULL, &guest_type, &state), ROUSE_OK);
        test_await(&waiting);
        assert_int_equal(rouse_spawn_on(runtime, NULL, &call_type, &state), ROUSE_OK);
        test_await(&meeting.done);
        test_await_no_tasks(runtime);
        sem_destroy(&meeting.done);
        sem_destroy(&waiting);
    }
    test_runtime_end(runtime);
}

/* ---- nobody starves ---- */

/* Keeps a worker by blocking its thread. */
struct blocker {
    sem_t started, go;
};

static int block_worker(void *state, void *result, rouse_context *context)
{
    struct blocker *blocker = *(struct blocker **)state;
    (void)result;
    (void)context;
    test_post(&blocker->started);
    test_await(&blocker->go);
    return ROUSE_OK;
}

static const rouse_task_type blocker_type = {
    .name = "blocker", .poll = block_worker, .state_size = sizeof(struct blocker *)};

struct players {
    rouse_waker waker[2]; /* of the two tasks; the slot's owner writes before `ready` */
    atomic_int ready;
    atomic_bool over;
    atomic_long strokes;
};

struct player {
    struct players *players;
    int side;
    bool introduced;
};

static int play(void *state, void *result, rouse_context *context)
{
    struct player *player = state;
    struct players *players = player->players;
    (void)result;
    if (!player->introduced) {
        player->introduced = true;
        players->waker[player->side] = rouse_waker_clone(&context->waker);
        atomic_fetch_add(&players->ready, 1);
    }
    if (atomic_load(&players->ready) < 2) {
        rouse_waker_wake_by_ref(&context->waker);
        return ROUSE_PENDING;
    }
    atomic_fetch_add(&players->strokes, 1);
    rouse_waker_wake_by_ref(&players->waker[1 - player->side]);
    return atomic_load(&players->over) ? ROUSE_OK : ROUSE_PENDING;
}

static const rouse_task_type player_type = {.name = "player", .poll = play, .state_size = sizeof(struct player)};

enum { LOOKS = 200 };

struct onlooker {
    struct players *players;
    int looks;
    long last, worst;
    sem_t *done;
};

static int look_on(void *state, void *result, rouse_context *context)
{
    struct onlooker *onlooker = *(struct onlooker **)state;
    long strokes = atomic_load(&onlooker->players->strokes);
    (void)result;
    if (atomic_load(&onlooker->players->ready) == 2 && onlooker->looks++ > 0) {
        long missed = strokes - onlooker->last;
        onlooker->worst = missed > onlooker->worst ? missed : onlooker->worst;
    }
    onlooker->last = strokes;
    if (onlooker->looks == LOOKS) {
        atomic_store(&onlooker->players->over, true);
        test_post(onlooker->done);
        return ROUSE_OK;
    }
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}

static const rouse_task_type onlooker_type = {
    .name = "onlooker", .poll = look_on, .state_size = sizeof(struct onlooker *)};

static void play_before_onlooker(rouse_runtime *runtime)
{
    struct players players = {.ready = 0};
    sem_t done;
    struct onlooker onlooker = {.players = &players, .done = &done}, *state = &onlooker;
    rouse_task tasks[3];
    require(sem_init(&done, 0, 0) == 0);
    for (int i = 0; i < 2; i++) {
        struct player player = {&players, i, false};
        require_int(rouse_spawn_on(runtime, &tasks[i], &player_type, &player), ==, ROUSE_OK);
    }
    require_int(rouse_spawn_on(runtime, &tasks[2], &onlooker_type, &state), ==, ROUSE_OK);
    for (int i = 0; i < 3; i++) {
        require_int(rouse_join(&tasks[i], NULL), ==, ROUSE_OK);
    }
    test_await(&done);
    rouse_waker_drop(&players.waker[0]);
    rouse_waker_drop(&players.waker[1]);
    sem_destroy(&done);
    require_int(onlooker.worst, <=, 16);
}

TEST(two_tasks_that_wake_each_other_do_not_starve_a_third)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 1);
        play_before_onlooker(runtime);
        test_runtime_end(runtime);
    }
    /* The last task woken runs next only where others could steal. */
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    struct blocker blocker, *state = &blocker;
    assert_int_equal(sem_init(&blocker.started, 0, 0), 0);
    assert_int_equal(sem_init(&blocker.go, 0, 0), 0);
    assert_int_equal(rouse_spawn_on(runtime, NULL, &blocker_type, &state), ROUSE_OK);
    test_await(&blocker.started);
    play_before_onlooker(runtime);
    test_post(&blocker.go);
    test_runtime_end(runtime);
    sem_destroy(&blocker.started);
    sem_destroy(&blocker.go);
}

static int spin_until(void *state, void *result, rouse_context *context)
{
    (void)result;
    if (atomic_load(*(atomic_bool **)state)) {
        return ROUSE_OK;
    }
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}

static const rouse_task_type spinner_type = {
    .name = "spinner", .poll = spin_until, .state_size = sizeof(atomic_bool *)};

static int yield_until(void *argument)
{
    while (!atomic_load((atomic_bool *)argument)) {
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    return 0;
}

/* ---- what stuck workers leave lying ---- */

static int invite_one_and_meet(void *state, void *result, rouse_context *context)
{
    require_int(rouse_spawn(NULL, &meet_type, state), ==, ROUSE_OK);
    return meet_in_task(state, result, context);
}

static const rouse_task_type invite_one_type = {
    .name = "invite one", .poll = invite_one_and_meet, .state_size = sizeof(struct meeting *)};

static void hold_meeting_of(rouse_runtime *runtime, int hosts)
{
    struct meeting meeting = {.left = 2 * hosts, .expected = 2 * hosts}, *state = &meeting;
    require(sem_init(&meeting.done, 0, 0) == 0);
    for (int i = 0; i < hosts; i++) {
        require_int(rouse_spawn_on(runtime, NULL, &invite_one_type, &state), ==, ROUSE_OK);
    }
    test_await(&meeting.done);
    test_await_no_tasks(runtime);
    sem_destroy(&meeting.done);
}

TEST(tasks_that_several_stuck_workers_leave_behind_do_not_wait_for_each_other)
{
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 6);
    for (uint64_t round = 0; round < test_scale(20, 1000); round++) {
        hold_meeting_of(runtime, 3);
    }
    test_runtime_end(runtime);
}

TEST(a_stuck_worker_is_helped_also_when_the_others_never_sleep)
{
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    atomic_bool over = false, *state = &over;
    rouse_task spinner;
    assert_int_equal(rouse_spawn_on(runtime, &spinner, &spinner_type, &state), ROUSE_OK);
    for (uint64_t round = 0; round < test_scale(20, 1000); round++) {
        struct meeting meeting = {.left = 2, .expected = 2}, *host = &meeting;
        assert_int_equal(sem_init(&meeting.done, 0, 0), 0);
        assert_int_equal(rouse_spawn_on(runtime, NULL, &invite_one_type, &host), ROUSE_OK);
        test_await(&meeting.done);
        sem_destroy(&meeting.done);
    }
    atomic_store(&over, true);
    assert_int_equal(rouse_join(&spinner, NULL), ROUSE_OK);
    test_runtime_end(runtime);
}

static int tick_until(void *over)
{
    while (!atomic_load((atomic_bool *)over)) {
        require_int(rouse_sleep(ROUSE_US(200)), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

static int64_t used_by_this_thread_ns(void)
{
    struct timespec used;
    require(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0);
    return used.tv_sec * INT64_C(1000000000) + used.tv_nsec;
}

struct wait_for_child {
    atomic_bool begun;
    int64_t waited_ns;
};

static int begin_child(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    atomic_store(&(*(struct wait_for_child **)state)->begun, true);
    return ROUSE_OK;
}

static const rouse_task_type child_type = {
    .name = "child", .poll = begin_child, .state_size = sizeof(struct wait_for_child *)};

static int spawn_and_spin(void *state, void *result, rouse_context *context)
{
    struct wait_for_child *wait = *(struct wait_for_child **)state;
    int64_t start_ns = used_by_this_thread_ns();
    (void)result;
    (void)context;
    require_int(rouse_spawn(NULL, &child_type, state), ==, ROUSE_OK);
    while (!atomic_load(&wait->begun)) {
        test_take_turns();
    }
    wait->waited_ns = used_by_this_thread_ns() - start_ns;
    return ROUSE_OK;
}

static const rouse_task_type spinning_parent_type = {
    .name = "parent", .poll = spawn_and_spin, .state_size = sizeof(struct wait_for_child *)};

static int by_time(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* It never slept long enough for its alarm. */
TEST_SERIAL(a_worker_that_is_woken_again_and_again_helps_a_stuck_one_nevertheless)
{
    enum { RUNS = 21 };
    int64_t waited_ns[RUNS];
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    atomic_bool over = false;
    rouse_task ticker;
    assert_int_equal(rouse_spawn_fiber_at(&ticker, runtime, tick_until, &over, 0, 0, NULL, NULL), ROUSE_OK);
    for (int i = 0; i < RUNS; i++) {
        struct wait_for_child wait = {.begun = false}, *state = &wait;
        rouse_task parent;
        assert_int_equal(rouse_spawn_on(runtime, &parent, &spinning_parent_type, &state), ROUSE_OK);
        assert_int_equal(rouse_join(&parent, NULL), ROUSE_OK);
        waited_ns[i] = wait.waited_ns;
    }
    atomic_store(&over, true);
    assert_int_equal(rouse_join(&ticker, NULL), ROUSE_OK);
    qsort(waited_ns, RUNS, sizeof waited_ns[0], by_time);
    if (!test_is_slow()) {
        require_int(waited_ns[RUNS / 2], <, ROUSE_MS(10));
    }
    test_runtime_end(runtime);
}

struct companion {
    struct test_bell bell;
    atomic_long polls; /* of the task */
    atomic_bool over, waiting;
};

static int count_and_yield(void *state, void *result, rouse_context *context)
{
    struct companion *companion = *(struct companion **)state;
    (void)result;
    atomic_fetch_add(&companion->polls, 1);
    if (atomic_load(&companion->over)) {
        return ROUSE_OK;
    }
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}

static const rouse_task_type counter_type = {
    .name = "counter", .poll = count_and_yield, .state_size = sizeof(struct companion *)};

/* The fiber stays on its worker, and so does at first the task that it spawns there. */
static int compute_until_the_task_runs(void *argument)
{
    struct companion *companion = argument;
    rouse_task task;
    require_int(rouse_spawn(&task, &counter_type, &companion), ==, ROUSE_OK);
    atomic_store(&companion->waiting, true);
    require_int(test_bell_wait(&companion->bell), ==, ROUSE_OK);
    long polls = atomic_load(&companion->polls);
    while (atomic_load(&companion->polls) < polls + 100) {
        test_take_turns();
    }
    atomic_store(&companion->over, true);
    return rouse_join(&task, NULL);
}

TEST(a_task_that_yields_is_not_kept_by_a_fiber_that_computes)
{
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    for (uint64_t round = 0; round < test_scale(10, 500); round++) {
        struct companion companion = {.bell = TEST_BELL_INIT};
        rouse_task fiber;
        assert_int_equal(
            rouse_spawn_fiber_at(&fiber, runtime, compute_until_the_task_runs, &companion, 0, 0, NULL, NULL), ROUSE_OK);
        eventually(atomic_load(&companion.polls) > 1000, TEST_SOON);
        test_bell_ring(&companion.bell);
        assert_int_equal(rouse_join(&fiber, NULL), ROUSE_OK);
    }
    test_runtime_end(runtime);
}

/* ---- always ready ---- */

struct talk {
    rouse_stream *stream;
    atomic_bool over;
};

static int answer_and_sleep(void *argument)
{
    struct talk *talk = argument;
    char byte;
    for (int i = 0; i < 5; i++) {
        require_int(rouse_read(talk->stream, &byte, 1), ==, 1);
        require_int(rouse_sleep(ROUSE_US(100)), ==, ROUSE_OK);
        require_int(rouse_write(talk->stream, &byte, 1), ==, 1);
    }
    atomic_store(&talk->over, true);
    return 0;
}

static void ask(void *argument)
{
    for (int i = 0; i < 5; i++) {
        test_send_all(*(int *)argument, "a", 1);
        test_expect(*(int *)argument, "a");
    }
}

static void talk_beside_spinners(rouse_runtime *runtime)
{
    int ends[2];
    struct talk talk = {.over = false};
    atomic_bool *over = &talk.over;
    test_thread thread;
    rouse_task tasks[3];
    test_tcp_pair(ends);
    require_int(rouse_adopt(&talk.stream, ends[0]), ==, ROUSE_OK);
    require_int(rouse_spawn_on(runtime, &tasks[0], &spinner_type, &over), ==, ROUSE_OK);
    require_int(rouse_spawn_fiber_at(&tasks[1], runtime, yield_until, over, 0, 0, NULL, NULL), ==, ROUSE_OK);
    require_int(rouse_spawn_fiber_at(&tasks[2], runtime, answer_and_sleep, &talk, 0, 0, NULL, NULL), ==, ROUSE_OK);
    test_thread_start(&thread, ask, &ends[1]);
    for (int i = 2; i >= 0; i--) {
        require_int(rouse_join(&tasks[i], NULL), ==, ROUSE_OK);
    }
    test_thread_join(&thread, TEST_SOON);
    require_int(rouse_close(talk.stream), ==, ROUSE_OK);
    test_close(ends[1]);
}

struct turns {
    atomic_bool over;
    atomic_ulong polls;  /* of the task */
    atomic_ulong rounds; /* of the fibers together */
};

static int count_polls(void *state, void *result, rouse_context *context)
{
    struct turns *turns = *(struct turns **)state;
    (void)result;
    if (atomic_load(&turns->over)) {
        return ROUSE_OK;
    }
    atomic_fetch_add(&turns->polls, 1);
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}

static int count_rounds(void *argument)
{
    struct turns *turns = argument;
    while (!atomic_load(&turns->over)) {
        atomic_fetch_add(&turns->rounds, 1);
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    return 0;
}

enum { COUNTING_FIBERS = 200 };
static rouse_task counting_fibers[COUNTING_FIBERS];

/* Yields, so that each has a worker for good before the next is given to the one that has fewer: from outside, a machine
 * that is busy with other work may give nearly all of them to one. */
static int start_counting(void *turns)
{
    for (int i = 0; i < COUNTING_FIBERS; i++) {
        require_int(rouse_spawn_fiber_at(&counting_fibers[i], NULL, count_rounds, turns, 0, 0, NULL, NULL), ==,
                    ROUSE_OK);
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

/* Fibers are pinned, and lie in another queue than the task: both queues get turns in proportion to what lies in them. */
TEST(a_task_that_is_always_ready_gets_about_as_many_turns_as_each_of_many_fibers)
{
    test_needs("real_threads");
    static const rouse_task_type type = {.name = "counter", .poll = count_polls, .state_size = sizeof(struct turns *)};
    struct turns turns = {.over = false}, *state = &turns;
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    rouse_task task;
    assert_int_equal(test_fiber(runtime, start_counting, &turns), ROUSE_OK);
    eventually(atomic_load(&turns.rounds) > 50 * COUNTING_FIBERS, ROUSE_S(20));
    unsigned long before = atomic_load(&turns.rounds);
    assert_int_equal(rouse_spawn_on(runtime, &task, &type, &state), ROUSE_OK);
    eventually(atomic_load(&turns.rounds) > before + 500 * COUNTING_FIBERS, ROUSE_S(40));
    unsigned long of_each = (atomic_load(&turns.rounds) - before) / COUNTING_FIBERS, polls = atomic_load(&turns.polls);
    atomic_store(&turns.over, true);
    for (int i = 0; i < COUNTING_FIBERS; i++) {
        assert_int_equal(rouse_join(&counting_fibers[i], NULL), 0);
    }
    assert_int_equal(rouse_join(&task, NULL), ROUSE_OK);
    test_runtime_end(runtime);
    require_int(polls, <, of_each * 20);
    require_int(polls, >, of_each / 20);
}

TEST(tasks_that_yield_for_ever_starve_neither_others_nor_the_reactor)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 1);
        talk_beside_spinners(runtime);
        test_runtime_end(runtime);
    }
    test_on_each_executor(talk_beside_spinners);
}

/* ---- many ---- */

struct crowd {
    atomic_int runs;
    int size;
};

static int count_run(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    atomic_fetch_add(&(*(struct crowd **)state)->runs, 1);
    return ROUSE_OK;
}

static const rouse_task_type member_type = {.name = "member", .poll = count_run, .state_size = sizeof(struct crowd *)};

static int spawn_crowd(void *state, void *result, rouse_context *context)
{
    struct crowd *crowd = *(struct crowd **)state;
    (void)result;
    (void)context;
    for (int i = 0; i < crowd->size; i++) {
        require_int(rouse_spawn(NULL, &member_type, state), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

static const rouse_task_type crowd_type = {.name = "crowd", .poll = spawn_crowd, .state_size = sizeof(struct crowd *)};

static void run_crowds(rouse_runtime *runtime)
{
    static const int sizes[] = {1, 255, 256, 257, 258, 385, 512, 5000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct crowd crowd = {.size = sizes[i]}, *state = &crowd;
        require_int(rouse_block_on(runtime, &crowd_type, &state, NULL), ==, ROUSE_OK);
        while (test_tasks_alive(runtime) > 0) {
            if (rouse_runtime_turn(runtime, 0) < 0) {
                sched_yield();
            }
        }
        require_int(atomic_load(&crowd.runs), ==, crowd.size);
    }
}

TEST(more_tasks_than_a_ring_holds_run_all_and_once)
{
    test_on_each_executor(run_crowds);
    /* With nobody to steal, the ring overflows for certain. */
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    struct blocker blocker, *state = &blocker;
    assert_int_equal(sem_init(&blocker.started, 0, 0), 0);
    assert_int_equal(sem_init(&blocker.go, 0, 0), 0);
    assert_int_equal(rouse_spawn_on(runtime, NULL, &blocker_type, &state), ROUSE_OK);
    test_await(&blocker.started);
    struct crowd crowd = {.size = 3000}, *crowd_state = &crowd;
    assert_int_equal(rouse_block_on(runtime, &crowd_type, &crowd_state, NULL), ROUSE_OK);
    eventually(atomic_load(&crowd.runs) == 3000, ROUSE_S(10));
    test_post(&blocker.go);
    test_runtime_end(runtime);
    assert_int_equal(atomic_load(&crowd.runs), 3000);
    sem_destroy(&blocker.started);
    sem_destroy(&blocker.go);
}

/* ---- from outside ---- */

static int post_semaphore(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    test_post(*(sem_t **)state);
    return ROUSE_OK;
}

static const rouse_task_type post_type = {.name = "post", .poll = post_semaphore, .state_size = sizeof(sem_t *)};

struct bell_ringer {
    struct test_bell *bell;
    sem_t *posted;
};

static int post_when_rung(void *state, void *result, rouse_context *context)
{
    struct bell_ringer *ringer = state;
    (void)result;
    int status = test_bell_poll(ringer->bell, context);
    test_post(ringer->posted);
    return status;
}

static const rouse_task_type rung_type = {
    .name = "rung", .poll = post_when_rung, .state_size = sizeof(struct bell_ringer)};

TEST(work_from_outside_reaches_workers_that_sleep)
{
    sem_t posted, *state = &posted;
    assert_int_equal(sem_init(&posted, 0, 0), 0);
    for (unsigned workers = 1; workers <= 3; workers++) {
        for (int setup = 0; setup < 6; setup++) {
            rouse_runtime *runtime = runtime_with(multis[setup % 2], workers, setup / 2 == 1, setup / 2 == 2);
            for (uint64_t i = 0; i < test_scale(100, 10000); i++) {
                struct test_bell bell = TEST_BELL_INIT;
                struct bell_ringer ringer = {&bell, &posted};
                require_int(rouse_spawn_on(runtime, NULL, &post_type, &state), ==, ROUSE_OK);
                test_await(&posted);
                require_int(rouse_spawn_on(runtime, NULL, &rung_type, &ringer), ==, ROUSE_OK);
                test_await(&posted);
                test_bell_ring(&bell);
                test_await(&posted);
            }
            test_runtime_end(runtime);
        }
    }
    sem_destroy(&posted);
}

/* ---- wake storms ---- */

struct storm {
    rouse_waker target;
    atomic_long wakes, polls;
    atomic_int left;
    sem_t ready;
};

static int be_woken(void *state, void *result, rouse_context *context)
{
    struct storm *storm = *(struct storm **)state;
    (void)result;
    if (atomic_fetch_add(&storm->polls, 1) == 0) {
        storm->target = rouse_waker_clone(&context->waker);
        test_post(&storm->ready);
    }
    return atomic_load(&storm->left) == 0 ? ROUSE_OK : ROUSE_PENDING;
}

static const rouse_task_type target_type = {.name = "target", .poll = be_woken, .state_size = sizeof(struct storm *)};

struct waking {
    struct storm *storm;
    int left;
};

static int wake_often(void *state, void *result, rouse_context *context)
{
    struct waking *waking = state;
    (void)result;
    if (--waking->left == 0) {
        atomic_fetch_sub(&waking->storm->left, 1);
    }
    atomic_fetch_add(&waking->storm->wakes, 1);
    rouse_waker_wake_by_ref(&waking->storm->target);
    if (waking->left == 0) {
        return ROUSE_OK;
    }
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}

static const rouse_task_type waking_type = {.name = "waking", .poll = wake_often, .state_size = sizeof(struct waking)};

static void storm_of_tasks(rouse_runtime *runtime)
{
    enum { WAKERS = 8 };
    int each = (int)test_scale(500, 50000);
    struct storm storm = {.left = WAKERS}, *state = &storm;
    rouse_task target;
    require(sem_init(&storm.ready, 0, 0) == 0);
    require_int(rouse_spawn_on(runtime, &target, &target_type, &state), ==, ROUSE_OK);
    rouse_runtime_turn(runtime, 0);
    test_await(&storm.ready);
    for (int i = 0; i < WAKERS; i++) {
        struct waking waking = {&storm, each};
        require_int(rouse_spawn_on(runtime, NULL, &waking_type, &waking), ==, ROUSE_OK);
    }
    require_int(rouse_join(&target, NULL), ==, ROUSE_OK);
    require_int(atomic_load(&storm.wakes), >=, (long)WAKERS * each - WAKERS);
    require_int(atomic_load(&storm.polls), <=, (long)WAKERS * each + 1);
    while (test_tasks_alive(runtime) > 0) {
        if (rouse_runtime_turn(runtime, 0) < 0) {
            sched_yield();
        }
    }
    rouse_waker_drop(&storm.target);
    sem_destroy(&storm.ready);
}

TEST(a_storm_of_wakes_by_tasks_leads_to_at_most_as_many_polls)
{
    test_on_each_executor(storm_of_tasks);
}

/* ---- idleness ---- */

static int sleep_an_hour(void *argument)
{
    test_post(argument);
    return rouse_sleep(ROUSE_S(3600));
}

TEST_SERIAL(a_runtime_whose_tasks_all_sleep_uses_no_processor)
{
    rouse_runtime *runtimes[4];
    sem_t asleep;
    assert_int_equal(sem_init(&asleep, 0, 0), 0);
    for (int i = 0; i < 4; i++) {
        runtimes[i] = runtime_with(multis[i % 2], 3, 0, i / 2);
        for (int k = 0; k < 25; k++) {
            require_int(rouse_go_detached_at(runtimes[i], sleep_an_hour, &asleep, NULL, NULL), ==, ROUSE_OK);
        }
    }
    for (int i = 0; i < 100; i++) {
        test_await(&asleep);
    }
    rouse_worker_stats before[3], after[3];
    rouse_runtime_info info = {.size = sizeof info};
    test_sleep_ns(ROUSE_MS(100)); /* sentinels look round a few times more */
    assert_int_equal(rouse_runtime_stats(runtimes[1], &info, before, 3), ROUSE_OK);
    int64_t used_ns = test_cpu_ns();
    test_sleep_ns(ROUSE_MS(500));
    used_ns = test_cpu_ns() - used_ns;
    assert_int_equal(rouse_runtime_stats(runtimes[1], &info, after, 3), ROUSE_OK);
    if (!test_is_slow()) {
        assert_in_range(used_ns, 0, ROUSE_MS(2));
        for (int i = 0; i < 3; i++) {
            assert_int_equal(after[i].parks, before[i].parks);
            assert_int_equal(after[i].turns, before[i].turns);
        }
    }
    for (int i = 0; i < 4; i++) {
        test_runtime_end(runtimes[i]);
    }
    sem_destroy(&asleep);
}

/* ---- new fibers beside a hog ---- */

enum { NEWCOMERS = 40 };

static struct {
    atomic_bool hogging;
    atomic_int begun;
    atomic_bool over, in_time;
} n;

static int hog_until_all_have_begun(void *unused)
{
    int64_t end = test_now_ns() + ROUSE_S(8);
    (void)unused;
    atomic_store(&n.hogging, true);
    while (atomic_load(&n.begun) < NEWCOMERS && test_now_ns() < end) {}
    atomic_store(&n.in_time, atomic_load(&n.begun) == NEWCOMERS);
    atomic_store(&n.over, true);
    return ROUSE_OK;
}

/* Stays for a while, so that its worker has more fibers than the one that is hogged. */
static int begin(void *go_on)
{
    atomic_fetch_add(&n.begun, 1);
    while (!atomic_load((atomic_bool *)go_on))
        require_int(rouse_sleep(ROUSE_MS(5)), ==, ROUSE_OK);
    return ROUSE_OK;
}

static int start_newcomers(void *unused)
{
    (void)unused;
    require_int(rouse_go(hog_until_all_have_begun, NULL), ==, ROUSE_OK);
    while (!atomic_load(&n.hogging)) /* waiting here, so that it begins on another worker than this */
        sched_yield();
    for (int i = 0; i < NEWCOMERS; i++) {
        require_int(rouse_go(begin, &n.over), ==, ROUSE_OK);
        require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

/* It has few fibers because it does not get to run any: the spread of new ones would send it more. */
TEST_SERIAL(fibers_that_were_sent_to_a_hogged_worker_begin_on_others)
{
    test_needs_all_memory("with a thread less than asked for there is no other worker to be hogged");
    rouse_options options = test_options(TEST_STEALING, 3);
    assert_int_equal(rouse_run(start_newcomers, NULL, &options), ROUSE_OK);
    assert_true(atomic_load(&n.in_time));
}

/* ---- one who starts many ---- */

enum { STARTING_ROUNDS = 20, STARTED_EACH = 50 };

static struct {
    atomic_bool hogging, over;
    atomic_int begun;
} m;

static int hog_until_told(void *unused)
{
    int64_t end = test_now_ns() + ROUSE_S(8);
    (void)unused;
    atomic_store(&m.hogging, true);
    while (!atomic_load(&m.over) && test_now_ns() < end) {}
    return ROUSE_OK;
}

static int count_beginning(void *unused)
{
    (void)unused;
    atomic_fetch_add(&m.begun, 1);
    return ROUSE_OK;
}

/* Answers how many had begun when it had started the last. It is always ready, as an accept loop under a flood is. */
static int start_many(void *unused)
{
    (void)unused;
    require_int(rouse_go(hog_until_told, NULL), ==, ROUSE_OK);
    while (!atomic_load(&m.hogging)) /* on the other worker, which takes nothing from this one then */
        sched_yield();
    for (int round = 0; round < STARTING_ROUNDS; round++) {
        for (int i = 0; i < STARTED_EACH; i++)
            require_int(rouse_go(count_beginning, NULL), ==, ROUSE_OK);
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    int begun = atomic_load(&m.begun);
    atomic_store(&m.over, true);
    return begun;
}

TEST_SERIAL(a_fiber_that_starts_many_lets_them_run_before_it_starts_more)
{
    test_needs_all_memory("with a thread less than asked for there is no other worker to be hogged");
    rouse_options options = test_options(TEST_STEALING, 2);
    int begun = rouse_run(start_many, NULL, &options);
    assert_in_range(begun, STARTING_ROUNDS * STARTED_EACH / 3, STARTING_ROUNDS * STARTED_EACH);
    assert_int_equal(atomic_load(&m.begun), STARTING_ROUNDS * STARTED_EACH);
}
