#include "support/failing.h"

#include "support/faults.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rouse/base.h>

#if FAULTS_AVAILABLE && !FAULTS_THREAD_SANITIZER

#if FAULTS_ADDRESS_SANITIZER
#include <sanitizer/lsan_interface.h>
#endif

/* How a run ends that stopped at a requirement: numbers that nothing else ends with. */
enum { EXCUSED = 85, LEAKED = 86 };

#define RUN_LIMIT_NS INT64_C(150000000000) /* the child's own limit is shorter; it also prints stacks */
#define OUTPUT_BYTES 60000
#define REPEATS      8                   /* statuses in one run that one missing allocation may be to blame for */
#define TRIES        3                   /* how many allocations of a test fail, unless at full scale */
#define TRIES_NS     INT64_C(3000000000) /* after that no further one */

/* Shared with the children. */
struct shared {
    struct faults_sweep sweep;
    atomic_ulong repeats;
    atomic_bool excused; /* in this run, by a child of the test's own, perhaps */
    atomic_bool unmet;   /* a requirement did not hold */
    atomic_bool once;    /* nothing is repeated */
    char unsuited[200];  /* why the test cannot be run like this */
};

static struct shared *shared;
static unsigned long candidates[FAULTS_PLACES];
static pid_t runner; /* the process that runs the test, not one that it forked */
static void *stack_of_test;
static size_t stack_bytes;

void failing_begin(void)
{
    if (shared != NULL) {
        pthread_attr_t attributes;
        runner = getpid();
        require(pthread_getattr_np(pthread_self(), &attributes) == 0);
        require(pthread_attr_getstack(&attributes, &stack_of_test, &stack_bytes) == 0);
        pthread_attr_destroy(&attributes);
        faults_sweep_begin(&shared->sweep);
    }
}

void failing_end(void)
{
    faults_sweep_begin(NULL);
}

bool failing_is_on(void)
{
    return shared != NULL;
}

static bool memory_was_missing(void)
{
    return shared != NULL && atomic_load(&shared->sweep.hits) > 0;
}

static bool says_so(long long status)
{
    return status == ROUSE_NO_MEMORY || status == ROUSE_NO_THREAD;
}

/* Memory was missing only once: who goes on saying so is wrong. */
static bool says_so_too_often(void)
{
    return !shared->sweep.sticky && atomic_load(&shared->repeats) >= REPEATS;
}

bool test_may_repeat(long long status)
{
    if (!memory_was_missing() || !says_so(status) || shared->sweep.sticky || atomic_load(&shared->once) ||
        says_so_too_often()) {
        return false;
    }
    atomic_fetch_add(&shared->repeats, 1);
    return true;
}

/* Blocks that nothing refers to any more were lost by whoever answered the status: what the test holds is still referred
 * to, by its variables. Only AddressSanitizer can tell. */
#if FAULTS_ADDRESS_SANITIZER
/* The sanitizer knows of the stack that a thread is on, and src/fiber tells it of those of fibers. Of the thread that runs
 * the test it does not see its own stack while that thread drives fibers. Elsewhere what lies below the stack pointer
 * should stay unseen: old pointers would hide what is lost. */
static void show_stack_of_test(void)
{
    char here;
    uintptr_t low = (uintptr_t)stack_of_test, place = (uintptr_t)&here;
    if (place < low || place >= low + stack_bytes) {
        __lsan_register_root_region(stack_of_test, stack_bytes);
    }
}

static bool lost_blocks(void)
{
    if (getpid() != runner) {
        return false;
    }
    show_stack_of_test();
    return __lsan_do_recoverable_leak_check() != 0;
}
#else
static bool lost_blocks(void)
{
    return false;
}
#endif

void test_may_not_repeat(const char *reason)
{
    (void)reason;
    if (shared != NULL) {
        atomic_store(&shared->once, true);
    }
}

void test_needs_all_memory(const char *reason)
{
    if (shared != NULL) {
        snprintf(shared->unsuited, sizeof shared->unsuited, "%s", reason);
        _exit(EXCUSED);
    }
}

void failing_excuse(long long status)
{
    if (shared != NULL) {
        atomic_store(&shared->unmet, true);
    }
    bool follows = status == ROUSE_CANCELLED || status == ROUSE_SHUTTING_DOWN;
    if (!memory_was_missing() || says_so_too_often() ||
        !(says_so(status) || follows || atomic_load(&shared->excused))) {
        return;
    }
    atomic_store(&shared->excused, true);
    faults_exempt(true);
    _exit(lost_blocks() ? LEAKED : EXCUSED);
}

/* ---- the runs ---- */

struct outcome {
    int status; /* as of waitpid */
    char *output;
};

static void read_output(int file, struct outcome *outcome)
{
    ssize_t length = pread(file, outcome->output, OUTPUT_BYTES - 1, 0);
    outcome->output[length > 0 ? length : 0] = '\0';
    close(file);
}

static void run_once(test_case *test, int (*run)(test_case *test), unsigned long number, bool sticky,
                     struct outcome *outcome)
{
    atomic_store(&shared->sweep.count, 0);
    atomic_store(&shared->sweep.hits, 0);
    atomic_store(&shared->excused, false);
    atomic_store(&shared->repeats, 0);
    atomic_store(&shared->unmet, false);
    atomic_store(&shared->once, false);
    shared->sweep.failing = number;
    shared->sweep.sticky = sticky;
    shared->sweep.recording = number == 0;
    int output = memfd_create("output", 0);
    require(output >= 0);
    fflush(NULL);
    pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        dup2(output, 1);
        dup2(output, 2);
        close(output);
        faults_exempt(false);
        unsetenv("ROUSE_TEST_SCALE"); /* it says how many allocations fail, and not how much the test does */
        exit(run(test));
    }
    int64_t end = test_now_ns() + RUN_LIMIT_NS, pause = 100000;
    while (waitpid(child, &outcome->status, WNOHANG) == 0) {
        if (test_now_ns() > end) {
            kill(child, SIGKILL);
        }
        test_sleep_ns(pause);
        pause = pause < 2000000 ? pause * 2 : pause;
    }
    read_output(output, outcome);
}

static bool is_good(int status)
{
    return WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EXCUSED);
}

static void report(const test_case *test, unsigned long number, bool sticky, const struct outcome *outcome)
{
    bool signalled = WIFSIGNALED(outcome->status);
    int code = signalled ? WTERMSIG(outcome->status) : WEXITSTATUS(outcome->status);
    fprintf(stderr, "%s\n%s: with allocation %lu%s failing%s: %s %d%s\n", outcome->output, test->name, number,
            number == 0 ? " (none)" : "", sticky ? ", and all later ones" : "", signalled ? "signal" : "status", code,
            signalled        ? ""
            : code == 124    ? " (too long)"
            : code == LEAKED ? " (blocks were lost)"
                             : "");
}

/* One of each place that allocates, by the calls that lead to it: the first time, and the last. */
static unsigned long choose_places(unsigned long *numbers, unsigned long count)
{
    const uint64_t *places = shared->sweep.places;
    unsigned long chosen = 0;
    for (unsigned long i = 0; i < count; i++) {
        unsigned long earlier = 0, later = count - 1;
        while (places[earlier] != places[i]) {
            earlier++;
        }
        while (places[later] != places[i]) {
            later--;
        }
        if (earlier == i || later == i) {
            numbers[chosen++] = i + 1;
        }
    }
    return chosen;
}

/* Answers how many are to be tried, spread evenly over the places, and differently for each test: most tests make a
 * runtime first, and together they try all that this takes. */
static unsigned long choose(const test_case *test, unsigned long *numbers, unsigned long count, unsigned long wanted)
{
    unsigned long places = choose_places(candidates, count), offset = 0;
    for (const char *letter = test->name; *letter != '\0'; letter++) {
        offset = offset * 31 + (unsigned char)*letter;
    }
    wanted = wanted < places ? wanted : places;
    for (unsigned long i = 0; i < wanted; i++) {
        numbers[i] = candidates[(offset + i * places / wanted) % places];
    }
    return wanted;
}

/* What a test measures comes out wrong now and then on a busy machine. A requirement that memory is to blame for fails
 * each time. */
static void run_until_sure(test_case *test, int (*run)(test_case *test), unsigned long number, bool sticky,
                           struct outcome *outcome)
{
    for (int i = 0; i < 3; i++) {
        run_once(test, run, number, sticky, outcome);
        if (is_good(outcome->status) || !atomic_load(&shared->unmet)) {
            break;
        }
    }
}

struct tally {
    unsigned long tried, repeated, stopped, bad;
};

static void try_one(test_case *test, int (*run)(test_case *test), unsigned long number, bool sticky,
                    struct outcome *outcome, struct tally *tally)
{
    run_until_sure(test, run, number, sticky, outcome);
    tally->tried++;
    if (!is_good(outcome->status)) {
        report(test, number, sticky, outcome);
        tally->bad++;
    } else if (WEXITSTATUS(outcome->status) == EXCUSED) {
        tally->stopped++;
    } else {
        tally->repeated += atomic_load(&shared->repeats) > 0;
    }
}

static void try_all(test_case *test, int (*run)(test_case *test), unsigned long count, bool sticky,
                    struct outcome *outcome, struct tally *tally)
{
    unsigned long number = 1;
    do {
        try_one(test, run, number, sticky, outcome, tally);
    } while (number++ < count || memory_was_missing());
}

static void try_some(test_case *test, int (*run)(test_case *test), unsigned long count, struct outcome *outcome,
                     struct tally *tally)
{
    unsigned long numbers[TRIES];
    unsigned long chosen = choose(test, numbers, count < FAULTS_PLACES ? count : FAULTS_PLACES, TRIES);
    int64_t end = test_now_ns() + TRIES_NS;
    for (unsigned long i = 0; i < chosen && (i == 0 || test_now_ns() < end); i++) {
        try_one(test, run, numbers[i], false, outcome, tally);
    }
}

static int try_test(test_case *test, int (*run)(test_case *test), unsigned long number, bool sticky,
                    struct outcome *outcome)
{
    struct tally tally = {0, 0, 0, 0};
    run_until_sure(test, run, number, sticky, outcome);
    fputs(outcome->output, stdout);
    if (shared->unsuited[0] != '\0') {
        printf("[  SKIPPED ] %s: %s\n", test->name, shared->unsuited);
        return 0;
    }
    if (number != 0 || !is_good(outcome->status)) {
        report(test, number, sticky, outcome);
        return is_good(outcome->status) ? 0 : 1;
    }
    unsigned long count = atomic_load(&shared->sweep.count);
    if (test_scale(0, 2) == 2) {
        try_all(test, run, count, false, outcome, &tally);
        try_all(test, run, count, true, outcome, &tally);
    } else if (count > 0) {
        try_some(test, run, count, outcome, &tally);
    }
    printf("%s: %lu allocations; %lu runs: %lu wrong, %lu stopped at a status, %lu went on after a call was repeated\n",
           test->name, count, tally.tried, tally.bad, tally.stopped, tally.repeated);
    return tally.bad > 0;
}

int failing_allocations(test_case *test, int (*run)(test_case *test), unsigned long number, bool sticky)
{
    struct outcome outcome = {0, NULL};
    bool was_exempt = faults_exempt(true);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    outcome.output = mmap(NULL, OUTPUT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(shared != MAP_FAILED && outcome.output != MAP_FAILED);
    int status = try_test(test, run, number, sticky, &outcome);
    munmap(outcome.output, OUTPUT_BYTES);
    munmap(shared, sizeof *shared);
    shared = NULL;
    faults_exempt(was_exempt);
    return status;
}

#else

void test_may_not_repeat(const char *reason)
{
    (void)reason;
}

void test_needs_all_memory(const char *reason)
{
    (void)reason;
}

bool failing_is_on(void)
{
    return false;
}

void failing_begin(void) {}
void failing_end(void) {}

bool test_may_repeat(long long status)
{
    (void)status;
    return false;
}

void failing_excuse(long long status)
{
    (void)status;
}

int failing_allocations(test_case *test, int (*run)(test_case *test), unsigned long number, bool sticky)
{
    (void)run, (void)number, (void)sticky;
    printf("[  SKIPPED ] %s\n", test->name);
    return 0;
}

#endif
