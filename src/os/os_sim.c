/* The simulated world: its clock, its dice, its trace, and how it begins and ends. */
#include "os/os_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#define HOOKS_MAX 16

static struct {
    bool active;               /* a scenario runs */
    bool stuck;                /* one has got stuck: its strands lie where they lay */
    rouse_sim_options options; /* of the world, with every default filled in */
    uint64_t dice;             /* the state of sim_random */
    int64_t now_ns;            /* the world's time */
    int64_t began_ns;          /* now_ns at its beginning */
    uint64_t entries, hash;    /* as in rouse_sim_report */
} world;

bool sim_is_active(void)
{
    return world.active;
}

const rouse_sim_options *sim_options(void)
{
    return &world.options;
}

/* ---- dice: splitmix64 ---- */

uint64_t sim_random(void)
{
    uint64_t value = world.dice += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

uint64_t sim_below(uint64_t limit)
{
    return limit < 2 ? 0 : sim_random() % limit;
}

bool sim_chance(unsigned in_thousand)
{
    return in_thousand > 0 && sim_below(1000) < in_thousand;
}

int64_t sim_delay(void)
{
    const rouse_sim_options *options = &world.options;
    return options->delay_min_ns + (int64_t)sim_below((uint64_t)(options->delay_max_ns - options->delay_min_ns) + 1);
}

/* ---- trace: FNV-1a over whole words, mixed ---- */

static void mix(uint64_t value)
{
    world.hash = (world.hash ^ value) * UINT64_C(0x100000001b3);
    world.hash ^= world.hash >> 29;
}

void sim_trace(enum sim_entry entry, uint64_t first, uint64_t second)
{
    world.entries++;
    mix((uint64_t)entry);
    mix(first);
    mix(second);
}

/* ---- clock ---- */

int64_t sim_now(void)
{
    return world.now_ns;
}

void sim_spend(int64_t most_ns)
{
    world.now_ns += 1 + (int64_t)sim_below((uint64_t)most_ns);
}

/* Each look takes a little: a loop that waits for a moment must come to it. */
int64_t os_now(void)
{
    if (world.active)
        sim_spend(64);
    return world.now_ns;
}

void sim_advance(int64_t now_ns)
{
    if (now_ns > world.now_ns)
        world.now_ns = now_ns;
    sim_trace(SIM_TIME, (uint64_t)(world.now_ns - world.began_ns), 0);
}

uint64_t os_random(void)
{
    return sim_random();
}

unsigned os_processors(void)
{
    return world.options.processors > 0 ? world.options.processors : 1;
}

bool sim_memory_fails(void)
{
    return world.active && world.options.no_memory > 0 && sim_below(1000000) < world.options.no_memory;
}

/* ---- the end of a process is the end of a world ---- */

static struct {
    void (*hook[HOOKS_MAX])(void);
    unsigned count;
} at_end;

/* Kept for all later worlds: whoever gave one remembers that, and gives it once. */
int os_at_exit(void (*hook)(void))
{
    if (at_end.count == HOOKS_MAX)
        return ROUSE_NO_MEMORY;
    at_end.hook[at_end.count++] = hook;
    return ROUSE_OK;
}

uint32_t os_process(void)
{
    return 1;
}

uint32_t os_forks(void)
{
    return 0;
}

void os_at_fork(unsigned order, const struct os_fork_hook *hook)
{
    (void)order, (void)hook; /* nobody forks here */
}

void os_write_error(const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(STDERR_FILENO, text, length);
        if (written <= 0 && errno != EINTR)
            return;
        if (written > 0) {
            text += written;
            length -= (size_t)written;
        }
    }
}

/* ---- signals ---- */

static struct {
    int caught;                  /* of enum rouse_signal, or-ed */
    void (*handler)(int signal); /* of all of them */
} signals;

int os_signal_install(int signal, void (*handler)(int signal))
{
    signals.caught |= signal;
    signals.handler = handler;
    return ROUSE_OK;
}

void os_signal_restore(int signal)
{
    signals.caught &= ~signal;
}

int rouse_sim_raise(int signal)
{
    if (!world.active || !(signals.caught & signal))
        return 0;
    signals.handler(signal);
    sim_pause();
    return 1;
}

/* Accesses that fail are the program's, not the world's. */
int os_fault_hook_install(bool (*hook)(uintptr_t address))
{
    (void)hook;
    return ROUSE_NOT_SUPPORTED;
}

void os_fault_hook_remove(void) {}

int os_fault_thread_enter(void **memory)
{
    *memory = NULL;
    return ROUSE_OK;
}

void os_fault_thread_leave(void *memory)
{
    (void)memory;
}

/* ---- running ---- */

struct run {
    int (*scenario)(void *argument);
    void *argument;
    int answer;
};

static void first_strand(void *argument)
{
    struct run *run = argument;
    run->answer = run->scenario(run->argument);
    for (unsigned i = at_end.count; i-- > 0;)
        at_end.hook[i]();
}

static bool take_options(const rouse_sim_options *given)
{
    const rouse_sim_options defaults = ROUSE_SIM_OPTIONS_INIT;
    world.options = defaults;
    if (given && (given->size < offsetof(rouse_sim_options, processors) || given->size > sizeof defaults))
        return false;
    if (given)
        memcpy(&world.options, given, given->size);
    rouse_sim_options *options = &world.options;
    if (options->processors == 0)
        options->processors = 2;
    if (options->descriptors == 0)
        options->descriptors = 1024;
    if (options->delay_max_ns == 0) {
        options->delay_min_ns = ROUSE_US(5);
        options->delay_max_ns = ROUSE_US(500);
    }
    if (options->time_limit_ns == 0)
        options->time_limit_ns = ROUSE_S(86400);
    if (options->step_limit == 0)
        options->step_limit = 50000000;
    return options->delay_min_ns >= 0 && options->delay_max_ns >= options->delay_min_ns && options->time_limit_ns > 0;
}

int rouse_sim_run(int (*scenario)(void *argument), void *argument, const rouse_sim_options *options,
                  rouse_sim_report *report)
{
    struct run run = {scenario, argument, ROUSE_TIMED_OUT};
    unsigned left = 0;
    if (!scenario || (report && report->size < sizeof *report))
        return ROUSE_INVALID;
    if (world.active || world.stuck)
        return ROUSE_BUSY;
    if (!take_options(options))
        return ROUSE_INVALID;
    world.dice = world.options.seed * UINT64_C(0xd1342543de82ef95) + 1;
    world.now_ns = world.began_ns = ROUSE_S(1000); /* as on a machine that runs for a while */
    world.entries = 0;
    world.hash = UINT64_C(0xcbf29ce484222325);
    world.active = true;
    bool over = sim_run_strands(first_strand, &run, &left);
    world.active = false;
    world.stuck = !over;
    signals.caught = 0;
    if (over)
        sim_net_fini();
    if (report) {
        size_t size = report->size;
        *report = (rouse_sim_report){size, world.entries, world.hash, world.now_ns - world.began_ns, !over, left};
    }
    return over ? run.answer : ROUSE_TIMED_OUT;
}

/* ---- many seeds ---- */

static struct {
    const char *name;
    uint64_t seed;
} checked;

static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE};

static void say_seed(void)
{
    char text[256], *end = text;
    uint64_t seed = checked.seed;
    char digits[20];
    int count = 0;
    for (const char *c = checked.name; *c != '\0' && end < text + 150; c++)
        *end++ = *c;
    for (const char *c = " failed: ROUSE_SEED="; *c != '\0'; c++)
        *end++ = *c;
    do
        digits[count++] = (char)('0' + seed % 10);
    while ((seed /= 10) > 0);
    while (count > 0)
        *end++ = digits[--count];
    *end++ = '\n';
    os_write_error(text, (size_t)(end - text));
}

static void on_fatal(int signal)
{
    say_seed();
    raise(signal); /* the handler was for once */
}

static void catch_fatal(struct sigaction before[])
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_fatal;
    action.sa_flags = (int)(SA_RESETHAND | SA_NODEFER);
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        (void)sigaction(fatal[i], &action, &before[i]);
}

static void leave_fatal(const struct sigaction before[])
{
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        (void)sigaction(fatal[i], &before[i], NULL);
}

/* The one seed of the environment. */
static bool seed_is_given(uint64_t *seed)
{
    const char *text = getenv("ROUSE_SEED");
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    *seed = strtoull(text, &end, 10);
    return *end == '\0';
}

int rouse_sim_check(const char *name, int (*scenario)(void *argument), void *argument, const rouse_sim_options *options,
                    uint64_t count)
{
    rouse_sim_options each = ROUSE_SIM_OPTIONS_INIT;
    struct sigaction before[sizeof fatal / sizeof fatal[0]];
    int status = ROUSE_OK;
    if (options && options->size <= sizeof each)
        memcpy(&each, options, options->size);
    if (seed_is_given(&each.seed))
        count = 1;
    checked.name = name ? name : "scenario";
    catch_fatal(before);
    for (; count > 0 && status >= 0; count--, each.seed++) {
        rouse_sim_report report = {.size = sizeof report};
        checked.seed = each.seed;
        status = rouse_sim_run(scenario, argument, &each, &report);
        if (status >= 0 && report.threads > 0)
            status = ROUSE_UNBALANCED;
        if (status < 0) {
            say_seed();
            fprintf(stderr, "%s: %s%s; %llu entries, %lld ns\n", checked.name,
                    report.stuck ? "nothing can happen any more, or a limit was reached: " : "",
                    report.threads > 0 ? "threads are left" : rouse_status_text(status),
                    (unsigned long long)report.entries, (long long)report.time_ns);
        }
    }
    leave_fatal(before);
    return status < 0 ? status : ROUSE_OK;
}

/* ---- inside ---- */

uint64_t rouse_sim_random(void)
{
    return world.active ? sim_random() : 0;
}

void rouse_sim_note(uint64_t value)
{
    if (world.active)
        sim_trace(SIM_NOTE, value, 0);
}
