#include "support/harness.h"

#include "support/failing.h"
#include "support/faults.h"
#include "support/world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif

#define MAX_DESCRIPTORS 4096
#define SIGNALS         65
#define SETTLE_NS       INT64_C(3000000000) /* how long threads that were told to end may take */

static test_case *first_test, **last_test = &first_test;
static const test_case *running;

void test_enroll(test_case *test)
{
    *last_test = test;
    last_test = &test->next;
}

const char *test_name(void)
{
    return running != NULL ? running->name : "(no test)";
}

/* ---- what not every target can do ---- */

/* Whole words of a list that spaces separate. */
static bool is_listed(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)) != NULL; at += length) {
        bool begins = at == list || at[-1] == ' ', ends = at[length] == ' ' || at[length] == '\0';
        if (begins && ends) {
            return true;
        }
    }
    return false;
}

static bool stays_outside;

void test_stay_outside(void)
{
    stays_outside = true;
}

bool test_has(const char *capability)
{
    if (!is_listed(ROUSE_TEST_CAPABILITIES, capability)) {
        test_require_failed("a capability that tests/capabilities.cmake names", capability, 0);
    }
    return is_listed(stays_outside ? ROUSE_TEST_OUTSIDE : ROUSE_TEST_AVAILABLE, capability);
}

void test_skip(const char *reason)
{
    printf("[  REASON  ] %s\n", reason);
    fflush(stdout);
    skip();
}

void test_needs(const char *capability)
{
    char reason[64];
    if (!test_has(capability)) {
        snprintf(reason, sizeof reason, "needs %s", capability);
        test_skip(reason);
    }
}

/* ---- how much ---- */

bool test_is_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");
    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

bool test_is_sanitized(void)
{
    return FAULTS_SANITIZED != 0;
}

bool test_is_emulated(void)
{
#if defined(_WIN32)
    return posix_is_wine();
#else
    return getenv("ROUSE_TEST_EMULATOR") != NULL;
#endif
}

bool test_is_slow(void)
{
    return test_is_sanitized() || test_is_valgrind() || test_is_emulated();
}

size_t test_scale(size_t small, size_t full)
{
    const char *scale = getenv("ROUSE_TEST_SCALE");
    size_t count = small;
    if (scale != NULL && strcmp(scale, "full") == 0) {
        return full;
    }
    if (scale != NULL && *scale != '\0') {
        count = (size_t)((double)full * strtod(scale, NULL) / 100);
    } else if (test_is_valgrind() || test_is_emulated() || FAULTS_THREAD_SANITIZER || failing_is_on()) {
        count = small / 20;
    }
    return count > 0 ? count : 1;
}

void *test_memory(size_t bytes)
{
    bool was_exempt = faults_exempt(true);
    void *memory = calloc(1, bytes);
    faults_exempt(was_exempt);
    require(memory != NULL);
    return memory;
}

/* ---- looking at this process ---- */

int64_t test_now_ns(void)
{
    struct timespec now;
    bool was_exempt = faults_exempt(true);
    clock_gettime(CLOCK_MONOTONIC, &now);
    faults_exempt(was_exempt);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t test_cpu_ns(void)
{
    struct timespec used;
    bool was_exempt = faults_exempt(true);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    faults_exempt(was_exempt);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

void test_sleep_ns(int64_t span)
{
    struct timespec left = {(time_t)(span / 1000000000), (long)(span % 1000000000)};
    while (span > 0 && nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

size_t test_rss_bytes(void)
{
#if defined(_WIN32)
    return posix_rss_bytes();
#else
    char text[128];
    unsigned long long pages = 0;
    bool was_exempt = faults_exempt(true);
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) {
        close(file);
    }
    faults_exempt(was_exempt);
    if (length <= 0) {
        return 0;
    }
    text[length] = '\0';
    if (sscanf(text, "%*u %llu", &pages) != 1) {
        return 0;
    }
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
#endif
}

void test_relax(void)
{
    sched_yield();
}

void test_take_turns(void)
{
    if (world_is_on()) {
        sched_yield();
    }
}

#if defined(_WIN32)
int test_descriptor_count(void)
{
    return posix_socket_count();
}

int test_thread_count(void)
{
    return posix_thread_count();
}
#else
static int count_entries(const char *folder)
{
    DIR *list = opendir(folder);
    int count = 0;
    if (list == NULL) {
        return -1;
    }
    for (struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list)) {
        count += entry->d_name[0] != '.';
    }
    closedir(list);
    return count;
}

int test_descriptor_count(void)
{
    if (world_is_on()) {
        return world_descriptors();
    }
    int count = count_entries("/proc/self/fd");
    return count < 0 ? -1 : count - 1; /* less the one that reads the folder */
}

int test_thread_count(void)
{
    if (world_is_on()) {
        return world_threads();
    }
    return count_entries("/proc/self/task");
}
#endif

/* ---- the state before a test, and what is different after it ---- */

struct descriptor {
    int number;
    char what[96]; /* "socket:[12345]", "/dev/null" ... */
};

struct state {
    int handles;  /* how many descriptors there are, where the system does not tell which; else 0 */
    int in_world; /* open descriptors of a simulated world, which has no names for them; -1: there is none */
    size_t count;
    struct descriptor descriptors[MAX_DESCRIPTORS];
    int threads;
    sigset_t mask;
    bool handled[SIGNALS];
    struct sigaction actions[SIGNALS];
};

static struct state before, after;

/* A flag that the C library adds to every action it sets, so also to one that is put back. */
#if defined(__linux__)
#define RESTORER 0x04000000
#else
#define RESTORER 0
#endif

#if defined(_WIN32)
static void look_at_descriptors(struct state *state)
{
    state->handles = test_descriptor_count();
}
#else
static void look_at_descriptors(struct state *state)
{
    DIR *list = opendir("/proc/self/fd");
    state->count = 0;
    if (list == NULL) {
        return;
    }
    for (struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list)) {
        int number = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || number == dirfd(list) || state->count == MAX_DESCRIPTORS) {
            continue;
        }
        struct descriptor *descriptor = &state->descriptors[state->count++];
        ssize_t length = readlinkat(dirfd(list), entry->d_name, descriptor->what, sizeof descriptor->what - 1);
        descriptor->what[length > 0 ? length : 0] = '\0';
        descriptor->number = number;
    }
    closedir(list);
}
#endif

static void look(struct state *state)
{
    look_at_descriptors(state);
    state->in_world = world_descriptors();
    state->threads = test_thread_count();
    pthread_sigmask(SIG_SETMASK, NULL, &state->mask);
    for (int i = 1; i < SIGNALS; i++) {
        state->handled[i] = sigaction(i, NULL, &state->actions[i]) == 0;
    }
}

static bool has(const struct state *state, const struct descriptor *wanted)
{
    for (size_t i = 0; i < state->count; i++) {
        if (state->descriptors[i].number == wanted->number && strcmp(state->descriptors[i].what, wanted->what) == 0) {
            return true;
        }
    }
    return false;
}

/* Reports what the test changed; answers how many things. */
static int differences(void)
{
    int count = 0;
    int64_t end = test_now_ns() + SETTLE_NS;
    while (test_thread_count() > before.threads && test_now_ns() < end) {
        test_sleep_ns(200000);
    }
    look(&after);
    for (size_t i = 0; i < after.count; i++) {
        if (!has(&before, &after.descriptors[i])) {
            dprintf(2, "%s: descriptor %d was left open: %s\n", test_name(), after.descriptors[i].number,
                    after.descriptors[i].what);
            count++;
        }
    }
    for (size_t i = 0; i < before.count; i++) {
        if (!has(&after, &before.descriptors[i])) {
            dprintf(2, "%s: descriptor %d was not the test's, but is closed: %s\n", test_name(),
                    before.descriptors[i].number, before.descriptors[i].what);
            count++;
        }
    }
    if (after.handles != before.handles) {
        dprintf(2, "%s: %d descriptors before, %d after\n", test_name(), before.handles, after.handles);
        count++;
    }
    if (after.in_world != before.in_world) {
        dprintf(2, "%s: %d descriptors of the world before, %d after\n", test_name(), before.in_world, after.in_world);
        count++;
    }
    if (after.threads != before.threads) {
        dprintf(2, "%s: %d threads before, %d after\n", test_name(), before.threads, after.threads);
        count++;
    }
    for (int i = 1; i < SIGNALS; i++) {
        if (before.handled[i] && (before.actions[i].sa_handler != after.actions[i].sa_handler ||
                                  ((before.actions[i].sa_flags ^ after.actions[i].sa_flags) & ~RESTORER) != 0)) {
            dprintf(2, "%s: what signal %d does has changed\n", test_name(), i);
            count++;
        }
        if (sigismember(&before.mask, i) != sigismember(&after.mask, i)) {
            dprintf(2, "%s: signal %d is blocked now and was not, or the reverse\n", test_name(), i);
            count++;
        }
    }
    return count;
}

/* ---- the time limit ---- */

#if defined(SIGRTMAX)
#define ALARM_SIGNAL (SIGRTMIN + 6) /* qemu cannot deliver the last ones */
static timer_t alarm_timer;
static pid_t alarm_owner; /* timers are not inherited by children */
#else
#define ALARM_SIGNAL SIGALRM
#endif

/* Both run in a signal handler of a process that is about to end. ThreadSanitizer minds memory being allocated there,
 * which the plain way to print does. */
static void say(const char *text)
{
    if (write(2, text, strlen(text)) < 0) {
        return;
    }
}

/* A debugger shows where every thread stands; without one, what the system tells of each. */
void test_print_stacks(int process)
{
    char pid[16];
    snprintf(pid, sizeof pid, "%d", process);
#if defined(PR_SET_PTRACER)
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
#endif
    pid_t debugger = fork();
    if (debugger == 0) {
        dup2(2, 1);
        unsetenv("LD_PRELOAD");
        execlp("gdb", "gdb", "-nx", "-batch", "-p", pid, "-ex", "thread apply all bt 24", (char *)NULL);
        _exit(127);
    }
    int status = -1;
    int64_t end = test_now_ns() + INT64_C(20000000000);
    while (debugger > 0 && waitpid(debugger, &status, WNOHANG) == 0) {
        if (test_now_ns() > end) {
            kill(debugger, SIGKILL);
        }
        test_sleep_ns(10000000);
    }
    if ((debugger > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0) || FAULTS_THREAD_SANITIZER) {
        return;
    }
    char folder[64];
    snprintf(folder, sizeof folder, "/proc/%s/task", pid);
    DIR *list = opendir(folder);
    for (struct dirent *entry = list != NULL ? readdir(list) : NULL; entry != NULL; entry = readdir(list)) {
        static const char *const files[] = {"comm", "wchan", "syscall"};
        for (size_t i = 0; entry->d_name[0] != '.' && i < sizeof files / sizeof files[0]; i++) {
            char path[400], text[256];
            snprintf(path, sizeof path, "%s/%s/%s", folder, entry->d_name, files[i]);
            int file = open(path, O_RDONLY | O_CLOEXEC);
            ssize_t length = file < 0 ? 0 : read(file, text, sizeof text);
            if (file >= 0) {
                close(file);
            }
            dprintf(2, "thread %s %s: %.*s\n", entry->d_name, files[i], length > 0 ? (int)length : 0, text);
        }
    }
    if (list != NULL) {
        closedir(list);
    }
}

static void on_alarm(int signal)
{
    (void)signal;
    world_leave();
    faults_reset();
    say(test_name());
    say(": TOOK TOO LONG\n");
    if (!test_is_valgrind() && !test_is_emulated()) { /* a debugger would show where those stand */
        test_print_stacks((int)getpid());
    }
    /* Not abort: what the test made of SIGABRT does not matter now. */
    _exit(124);
}

void test_time_limit(unsigned seconds)
{
#if defined(SIGRTMAX)
    struct itimerspec spec = {{0, 0}, {(time_t)seconds, 0}};
    if (alarm_owner != getpid()) {
        struct sigevent event;
        memset(&event, 0, sizeof event);
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = ALARM_SIGNAL;
        if (timer_create(CLOCK_MONOTONIC, &event, &alarm_timer) != 0) {
            return;
        }
        alarm_owner = getpid();
    }
    timer_settime(alarm_timer, 0, &spec, NULL);
#else
    alarm(seconds);
#endif
}

static void start_watchdog(void)
{
    struct sigaction action;
    const char *seconds = getenv("ROUSE_TEST_SECONDS");
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(ALARM_SIGNAL, &action, NULL);
    if (seconds != NULL) {
        test_time_limit((unsigned)atoi(seconds));
    } else {
        test_time_limit(test_is_valgrind() ? 250 : test_is_emulated() || FAULTS_THREAD_SANITIZER ? 100 : 50);
    }
}

/* ---- requirements ---- */

void test_require_failed(const char *text, const char *file, int line)
{
    failing_excuse(0);
    fflush(stdout);
    dprintf(2, "%s:%d: %s: required: %s\n", file, line, test_name(), text);
    abort();
}

void test_require_int_failed(const char *text, long long first, long long left, long long right, const char *file,
                             int line)
{
    failing_excuse(first);
    fflush(stdout);
    dprintf(2, "%s:%d: %s: required: %s; left is %lld, right is %lld\n", file, line, test_name(), text, left, right);
    abort();
}

void test_assert_int_equal(long long first, long long left, long long right, const char *file, int line)
{
    if (left != right) {
        failing_excuse(first);
    }
    _assert_int_equal(cast_to_largest_integral_type(left), cast_to_largest_integral_type(right), file, line);
}

void test_assert_true(int holds, const char *text, const char *file, int line)
{
    if (!holds) {
        failing_excuse(0);
    }
    _assert_true((unsigned long)holds, text, file, line);
}

/* ---- running ---- */

/* Blocks are looked at when everything that runs at the end of a process has run, the library's clean-up included:
 * destructors with a low number run last. */
static pid_t blocks_owner;

/* Set by a child that found nothing wrong, in memory that it shares with its parent: under valgrind its exit status
 * does not tell, for valgrind counts what belongs to the parent as left by the child. */
static volatile bool *child_is_clean;

#if defined(__GNUC__)
__attribute__((destructor(101))) static void check_blocks(void)
{
    if (blocks_owner == getpid() && faults_blocks_alive() > 0) {
        faults_blocks_report();
        dprintf(2, "%s: %zu heap blocks were left\n", test_name(), faults_blocks_alive());
        _exit(1);
    }
    if (child_is_clean != NULL && blocks_owner == getpid()) {
        *child_is_clean = true;
    }
}
#endif

static struct sigaction first_actions[SIGNALS];

static void remember_actions(void)
{
    for (int i = 1; i < SIGNALS; i++) {
        sigaction(i, NULL, &first_actions[i]);
    }
}

/* cmocka catches faults to go on with the next test. There is none in this process, and its handlers would hide the
 * sanitizers' reports and the library's own handler. */
static void undo_cmocka_handlers(void)
{
    static const int faults[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        sigaction(faults[i], &first_actions[faults[i]], NULL);
    }
}

static void *do_nothing(void *argument)
{
    return argument;
}

/* ThreadSanitizer starts a thread of its own with the program's first one: let it be there before we count. */
static void settle_sanitizer(void)
{
    pthread_t thread;
    if (FAULTS_THREAD_SANITIZER && pthread_create(&thread, NULL, do_nothing, NULL) == 0) {
        pthread_join(thread, NULL);
    }
}

static void run_checked(void **state)
{
    running = *state;
    settle_sanitizer();
    undo_cmocka_handlers();
    start_watchdog();
    look(&before);
    faults_reset();
    faults_blocks_begin();
    blocks_owner = getpid();
    failing_begin();
    running->body();
    failing_end();
    faults_reset();
    if (differences() > 0) {
        blocks_owner = 0; /* one report is enough */
        fail_msg("something was left");
    }
}

static int run_by_cmocka(void *argument)
{
    test_case *test = argument;
    struct CMUnitTest unit = {test->name, run_checked, NULL, NULL, test};
    struct CMUnitTest units[] = {unit};
    return cmocka_run_group_tests_name(test->name, units, NULL, NULL);
}

static int run_here(test_case *test)
{
    int status = stays_outside ? run_by_cmocka(test) : world_run(test->name, run_by_cmocka, test);
    faults_reset();
    if (status != 0) {
        blocks_owner = 0; /* a failed test has left by longjmp and lost what it held */
    }
    return status == 0 ? 0 : 1;
}

int test_in_child(void (*body)(void *argument), void *argument, int64_t timeout_ns)
{
    bool was_exempt = faults_exempt(true);
    volatile bool *verdict = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
    require(verdict != MAP_FAILED);
    fflush(NULL);
    pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        faults_exempt(was_exempt);
        child_is_clean = verdict;
        test_time_limit((unsigned)(timeout_ns / 1000000000 + 1));
        look(&before);
        faults_blocks_begin();
        blocks_owner = getpid();
        body(argument);
        faults_reset();
        if (differences() > 0) {
            blocks_owner = 0;
            exit(1);
        }
        exit(0);
    }
    int status;
    int64_t pause = 50000, end = test_now_ns() + timeout_ns + INT64_C(30000000000);
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (test_now_ns() > end) {
            kill(child, SIGKILL);
        }
        test_sleep_ns(pause);
        pause = pause < 2000000 ? pause * 2 : pause;
    }
    if (test_is_valgrind() && WIFEXITED(status) && *verdict) {
        status = 0;
    }
    require(munmap((void *)verdict, 1) == 0);
    faults_exempt(was_exempt);
    return status;
}

#if defined(_WIN32)
static int run_all(const char *program)
{
    int failed = 0, count = 0;
    for (test_case *test = first_test; test != NULL; test = test->next, count++) {
        fflush(NULL);
        intptr_t status = _spawnl(_P_WAIT, program, program, test->name, (char *)NULL);
        if (status != 0) {
            fprintf(stderr, "FAILED: %s (status %d)\n", test->name, (int)status);
            failed++;
        }
    }
    fprintf(stderr, "%d of %d tests passed\n", count - failed, count);
    return failed > 0;
}
#else
static int run_all(const char *program)
{
    (void)program;
    int failed = 0, count = 0;
    for (test_case *test = first_test; test != NULL; test = test->next, count++) {
        int status = 0;
        fflush(NULL);
        pid_t child = fork();
        if (child < 0) {
            perror("fork");
            return 1;
        }
        if (child == 0) {
            exit(run_here(test));
        }
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        if (status != 0) {
            fprintf(stderr, "FAILED: %s (%s %d)\n", test->name, WIFSIGNALED(status) ? "signal" : "status",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
            failed++;
        }
    }
    fprintf(stderr, "%d of %d tests passed\n", count - failed, count);
    return failed > 0;
}
#endif

int main(int argc, char **argv)
{
    remember_actions();
    if (argc < 2) {
        return run_all(argv[0]);
    }
    if (strcmp(argv[1], "--list") == 0) {
        for (test_case *test = first_test; test != NULL; test = test->next) {
            puts(test->name);
        }
        return 0;
    }
    bool each = strcmp(argv[1], "--failing-allocations") == 0;
    const char *name = argv[each && argc > 2 ? 2 : 1];
    for (test_case *test = first_test; test != NULL; test = test->next) {
        if (strcmp(name, test->name) != 0) {
            continue;
        }
        if (each) {
            return failing_allocations(test, run_here, argc > 3 ? strtoul(argv[3], NULL, 10) : 0, argc > 4);
        }
        return run_here(test);
    }
    fprintf(stderr,
            "usage: %s [NAME | --list | --failing-allocations NAME [NUMBER [sticky]]]; there is no test named %s\n",
            argv[0], name);
    return 2;
}
