/* A fiber's stack overflows: who is named. */
#include "support/runtimes.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int recurse(volatile char *above, int depth)
{
    volatile char piece[512];
    piece[0] = (char)(above[0] + 1);
    return depth > 0 ? recurse(piece, depth - 1) + piece[0] : 0;
}

static int overflow(void *argument)
{
    volatile char piece[1] = {0};
    (void)argument;
    return recurse(piece, 1000000);
}

static int overflow_below_main(void *argument)
{
    rouse_fiber_options options = ROUSE_FIBER_OPTIONS_INIT;
    rouse_scope scope;
    (void)argument;
    options.name = "the deep one";
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go_with(overflow, NULL, &options), ==, ROUSE_OK);
    return rouse_scope_close(&scope);
}

static int turn_until_it_overflows(const rouse_options *options)
{
    rouse_runtime *runtime;
    require_int(rouse_runtime_new(&runtime, options), ==, ROUSE_OK);
    require_int(rouse_go_detached_at(runtime, overflow_below_main, NULL, NULL, NULL), ==, ROUSE_OK);
    for (;;) {
        require_int(rouse_runtime_turn(runtime, ROUSE_NEVER), >=, 0);
    }
}

/* Overflows in a child process; answers what it wrote to standard error and how it ended. */
static int overflow_in_child(enum test_executor kind, bool by_turns, char *text, size_t room)
{
    int ends[2], status = -1;
    size_t length = 0;
    ssize_t got;
    rouse_options options = test_options(kind, 2);
    options.report_overflow = 1;
    require(pipe(ends) == 0);
    fflush(NULL);
    pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        require(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
        close(ends[0]);
        if (by_turns) {
            turn_until_it_overflows(&options);
        }
        require_int(rouse_run(overflow_below_main, NULL, &options), ==, 0); /* it does not return */
        _exit(0);
    }
    close(ends[1]);
    while ((got = read(ends[0], text + length, room - 1 - length)) > 0) {
        length += (size_t)got;
    }
    text[length] = '\0';
    close(ends[0]);
    require(waitpid(child, &status, 0) == child);
    return status;
}

TEST(the_fiber_whose_stack_overflowed_is_named_with_each_executor)
{
    test_needs("fork");
    static char text[64 * 1024];
    for (int kind = 0; kind <= TEST_EXECUTORS; kind++) {
        bool by_turns = kind == TEST_EXECUTORS;
        int status = overflow_in_child(by_turns ? TEST_SINGLE : (enum test_executor)kind, by_turns, text, sizeof text);
        require(status != 0);
        require(strstr(text, "rouse: stack overflow in the deep one started at ") != NULL);
        if (!test_is_slow()) { /* a sanitizer's handler makes it an exit */
            require(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
        }
    }
}

static int nothing(void *argument)
{
    (void)argument;
    return 0;
}

TEST(a_thread_that_has_driven_a_runtime_with_reports_keeps_no_signal_stack)
{
    test_needs("fork");
    test_needs("signals");
    rouse_options options = test_options(TEST_SINGLE, 1);
    stack_t before, after;
    options.report_overflow = 1;
    require(sigaltstack(NULL, &before) == 0);
    require_int(rouse_run(nothing, NULL, &options), ==, 0);
    require(sigaltstack(NULL, &after) == 0);
    require_int(before.ss_flags, ==, after.ss_flags);
    require((before.ss_flags & SS_DISABLE) || before.ss_sp == after.ss_sp); /* a sanitizer's */
}
