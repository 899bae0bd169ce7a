/* Events, signal handlers, faults. */
#include "os/os.h"

#include <rouse/signal.h>

#include "support/faults.h"
#include "support/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

TEST_FILE_NEEDS(system_layer)

/* ---- events ---- */

TEST(an_event_is_readable_from_notify_to_clear)
{
    os_event event;
    assert_int_equal(os_event_open(&event), ROUSE_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(os_is_ready(event.readable, ROUSE_READABLE), 0);
        os_event_notify(&event);
        os_event_notify(&event);
        assert_int_equal(os_is_ready(event.readable, ROUSE_READABLE), 1);
        os_event_clear(&event);
        os_event_clear(&event); /* of nothing */
    }
    assert_true(fcntl((int)event.readable, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl((int)event.notify, F_GETFD) & FD_CLOEXEC);
    os_event_close(&event);
    assert_true(event.readable == OS_NO_HANDLE);
    os_event_close(&event);
    os_event_notify(&event);
    os_event_clear(&event);
}

TEST(notifying_never_blocks_and_keeps_errno)
{
    os_event event;
    assert_int_equal(os_event_open(&event), ROUSE_OK);
#if defined(__linux__)
    uint64_t nearly_full = UINT64_MAX - 1;
    assert_int_equal(write((int)event.notify, &nearly_full, sizeof nearly_full), (ssize_t)sizeof nearly_full);
#endif
    errno = 77;
    for (size_t i = test_scale(100000, 100000); i > 0; i--)
        os_event_notify(&event);
    assert_int_equal(errno, 77);
    assert_int_equal(os_is_ready(event.readable, ROUSE_READABLE), 1);
    os_event_clear(&event);
    assert_int_equal(os_is_ready(event.readable, ROUSE_READABLE), 0);
    os_event_close(&event);
}

TEST(an_event_that_the_system_refuses_leaves_nothing)
{
    test_needs("faults");
    os_event event;
    faults_syscall("eventfd", 1, EMFILE, 1);
    assert_int_equal(os_event_open(&event), ROUSE_TOO_MANY_FILES);
}

TEST(an_interrupted_notification_is_repeated)
{
    test_needs("faults");
    os_event event;
    assert_int_equal(os_event_open(&event), ROUSE_OK);
    faults_syscall("write", 1, EINTR, 3);
    os_event_notify(&event);
    assert_int_equal(os_is_ready(event.readable, ROUSE_READABLE), 1);
    faults_syscall("read", 1, EINTR, 3);
    os_event_clear(&event);
    assert_int_equal(os_is_ready(event.readable, ROUSE_READABLE), 0);
    os_event_close(&event);
}

/* ---- signals ---- */

static volatile sig_atomic_t ours, theirs;

static void note_signal(int signal)
{
    ours = ours * 10 + signal;
    errno = EDOM;
}

static void note_other_signal(int signal)
{
    ours = ours * 10 + signal + 1;
}

static void note_their_signal(int signal)
{
    theirs = signal;
}

static const struct {
    int name, number;
} names[] = {{ROUSE_SIGNAL_INTERRUPT, SIGINT}, {ROUSE_SIGNAL_TERMINATE, SIGTERM}, {ROUSE_SIGNAL_HANG_UP, SIGHUP}};

TEST(a_handler_gets_the_name_of_its_signal_and_errno_is_kept)
{
    test_needs("signals");
    for (size_t i = 0; i < 3; i++) {
        ours = 0;
        assert_int_equal(os_signal_install(names[i].name, note_signal), ROUSE_OK);
        errno = 77;
        assert_int_equal(raise(names[i].number), 0);
        assert_int_equal(errno, 77);
        assert_int_equal(ours, names[i].name);
        os_signal_restore(names[i].name);
    }
}

TEST(a_signal_without_a_name_is_refused)
{
    static const int wrong[] = {0, 3, 5, 7, 8, -1};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(os_signal_install(wrong[i], note_signal), ROUSE_INVALID);
        os_signal_restore(wrong[i]);
    }
    os_signal_restore(ROUSE_SIGNAL_INTERRUPT); /* nothing was installed */
}

TEST(restoring_puts_back_what_a_signal_did_before)
{
    test_needs("signals");
    struct sigaction before, mine = {.sa_handler = note_their_signal, .sa_flags = SA_NODEFER}, now;
    sigaddset(&mine.sa_mask, SIGUSR1);
    assert_int_equal(sigaction(SIGTERM, &mine, &before), 0);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(os_signal_install(ROUSE_SIGNAL_TERMINATE, note_signal), ROUSE_OK);
        assert_int_equal(os_signal_install(ROUSE_SIGNAL_TERMINATE, note_other_signal), ROUSE_OK); /* takes its place */
        ours = theirs = 0;
        raise(SIGTERM);
        assert_int_equal(ours, ROUSE_SIGNAL_TERMINATE + 1);
        os_signal_restore(ROUSE_SIGNAL_TERMINATE);
        raise(SIGTERM);
        assert_int_equal(ours, ROUSE_SIGNAL_TERMINATE + 1);
        assert_int_equal(theirs, SIGTERM);
        assert_int_equal(sigaction(SIGTERM, NULL, &now), 0);
        assert_true(now.sa_flags & SA_NODEFER);
        assert_int_equal(sigismember(&now.sa_mask, SIGUSR1), 1);
    }
    assert_int_equal(sigaction(SIGTERM, &before, NULL), 0);
}

TEST(restoring_leaves_a_handler_that_came_later)
{
    test_needs("signals");
    struct sigaction before, later = {.sa_handler = note_their_signal}, found;
    assert_int_equal(sigaction(SIGHUP, NULL, &before), 0);
    assert_int_equal(os_signal_install(ROUSE_SIGNAL_HANG_UP, note_signal), ROUSE_OK);
    assert_int_equal(sigaction(SIGHUP, &later, &found), 0);
    os_signal_restore(ROUSE_SIGNAL_HANG_UP);
    raise(SIGHUP);
    assert_int_equal(theirs, SIGHUP);
    found.sa_handler(SIGHUP); /* as a chaining handler would: nobody is there any more */
    assert_int_equal(ours, 0);
    assert_int_equal(sigaction(SIGHUP, &before, NULL), 0);
}

TEST(a_blocking_call_goes_on_after_a_signal)
{
    test_needs("signals");
    int ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(os_signal_install(ROUSE_SIGNAL_INTERRUPT, note_signal), ROUSE_OK);
    pid_t parent = getpid();
    pid_t child = fork();
    if (child == 0) {
        test_sleep_ns(ROUSE_MS(20));
        kill(parent, SIGINT);
        test_sleep_ns(ROUSE_MS(20));
        _exit(write(ends[1], "x", 1) == 1 ? 0 : 1);
    }
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_int_equal(ours, ROUSE_SIGNAL_INTERRUPT);
    assert_int_equal(waitpid(child, NULL, 0), child);
    os_signal_restore(ROUSE_SIGNAL_INTERRUPT);
    close(ends[0]);
    close(ends[1]);
}

TEST(a_handler_that_the_system_refuses_is_not_half_installed)
{
    test_needs("faults");
    faults_syscall("sigaction", 1, EINVAL, 1);
    assert_int_equal(os_signal_install(ROUSE_SIGNAL_INTERRUPT, note_signal), ROUSE_INVALID);
    assert_int_equal(os_signal_install(ROUSE_SIGNAL_INTERRUPT, note_signal), ROUSE_OK);
    raise(SIGINT);
    assert_int_equal(ours, ROUSE_SIGNAL_INTERRUPT);
    os_signal_restore(ROUSE_SIGNAL_INTERRUPT);
}

/* ---- faults ---- */

static unsigned char *forbidden;
static uintptr_t hook_address, hook_stack;
static bool hook_answer;
static int hook_calls;

static bool hook(uintptr_t address)
{
    char here;
    hook_stack = (uintptr_t)&here;
    hook_address = address;
    hook_calls++;
    if (hook_answer)
        (void)mprotect(forbidden, os_page_bytes(), PROT_READ | PROT_WRITE);
    return hook_answer;
}

static void forbid(void)
{
    forbidden = os_pages_reserve(os_page_bytes());
    require(forbidden != NULL);
    require(mprotect(forbidden, os_page_bytes(), PROT_NONE) == 0);
}

static void allow(void)
{
    os_pages_release(forbidden, os_page_bytes());
}

/* What a fault at this address tells: s390x knows the page only. */
static uintptr_t told(const volatile void *address)
{
#if defined(__s390x__)
    return (uintptr_t)address & ~(uintptr_t)(os_page_bytes() - 1);
#else
    return (uintptr_t)address;
#endif
}

static void clear_fault_handlers(struct sigaction before[2])
{
    struct sigaction fatal = {.sa_handler = SIG_DFL};
    require(sigaction(SIGSEGV, &fatal, &before[0]) == 0);
    require(sigaction(SIGBUS, &fatal, &before[1]) == 0);
}

static void put_fault_handlers(const struct sigaction before[2])
{
    require(sigaction(SIGSEGV, &before[0], NULL) == 0);
    require(sigaction(SIGBUS, &before[1], NULL) == 0);
}

/* Where a fault is repaired and its instruction runs again, valgrind goes on with registers of some time before. */

TEST(a_fault_calls_the_hook_with_its_address_on_a_stack_of_its_own)
{
    test_needs("signals");
    if (test_is_valgrind())
        return;
    struct sigaction before[2];
    void *stack;
    char here;
    clear_fault_handlers(before);
    forbid();
    hook_answer = true;
    assert_int_equal(os_fault_hook_install(hook), ROUSE_OK);
    assert_int_equal(os_fault_thread_enter(&stack), ROUSE_OK);
    errno = 77;
    *(volatile unsigned char *)(forbidden + 10) = 5;
    assert_int_equal(errno, 77);
    assert_int_equal(forbidden[10], 5);
    assert_int_equal(hook_calls, 1);
    assert_int_equal(hook_address, told(&forbidden[10]));
    uintptr_t distance = hook_stack > (uintptr_t)&here ? hook_stack - (uintptr_t)&here : (uintptr_t)&here - hook_stack;
    assert_true(distance > 65536);
    os_fault_thread_leave(stack);
    os_fault_hook_remove();
    os_fault_hook_remove();
    allow();
    put_fault_handlers(before);
}

static void fault_unhandled(void *ignored)
{
    struct sigaction before[2];
    void *stack;
    (void)ignored;
    clear_fault_handlers(before);
    forbid();
    require(os_fault_hook_install(hook) == ROUSE_OK);
    require(os_fault_thread_enter(&stack) == ROUSE_OK);
    *(volatile unsigned char *)forbidden = 1;
}

TEST(a_fault_that_the_hook_does_not_take_kills_as_before)
{
    test_needs("signals");
    int status = test_in_child(fault_unhandled, NULL, ROUSE_S(10));
    assert_true(WIFSIGNALED(status));
    assert_true(WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
}

static volatile sig_atomic_t chained;

static void open_page(int signal, siginfo_t *info, void *context)
{
    (void)context;
    require((uintptr_t)info->si_addr == told(forbidden + 3));
    chained = signal;
    (void)mprotect(forbidden, os_page_bytes(), PROT_READ | PROT_WRITE);
}

static void open_page_simply(int signal)
{
    chained = signal + 100;
    (void)mprotect(forbidden, os_page_bytes(), PROT_READ | PROT_WRITE);
}

TEST(a_fault_that_the_hook_does_not_take_goes_to_the_handler_before)
{
    test_needs("signals");
    if (test_is_valgrind())
        return;
    struct sigaction before[2], first = {.sa_flags = SA_SIGINFO}, second = {.sa_handler = open_page_simply}, now;
    first.sa_sigaction = open_page;
    clear_fault_handlers(before);
    for (int i = 0; i < 2; i++) {
        const struct sigaction *mine = i == 0 ? &first : &second;
        chained = 0;
        forbid();
        assert_int_equal(sigaction(SIGSEGV, mine, NULL), 0);
        assert_int_equal(sigaction(SIGBUS, mine, NULL), 0);
        assert_int_equal(os_fault_hook_install(hook), ROUSE_OK);
        *(volatile unsigned char *)(forbidden + 3) = 1;
        assert_true(chained == SIGSEGV + 100 * i || chained == SIGBUS + 100 * i);
        os_fault_hook_remove();
        assert_int_equal(sigaction(SIGSEGV, NULL, &now), 0);
        assert_true(now.sa_handler == mine->sa_handler);
        allow();
    }
    assert_int_equal(hook_calls, 2);
    put_fault_handlers(before);
}

static void be_killed(void *ignored)
{
    struct sigaction before[2];
    (void)ignored;
    clear_fault_handlers(before);
    require(os_fault_hook_install(hook) == ROUSE_OK);
    raise(SIGSEGV);
    test_sleep_ns(ROUSE_S(1));
}

static void be_spared(void *ignored)
{
    struct sigaction before[2], ignoring = {.sa_handler = SIG_IGN};
    (void)ignored;
    clear_fault_handlers(before);
    require(sigaction(SIGSEGV, &ignoring, NULL) == 0);
    require(os_fault_hook_install(hook) == ROUSE_OK);
    raise(SIGSEGV);
    os_fault_hook_remove();
    put_fault_handlers(before);
}

TEST(a_signal_that_somebody_sends_is_no_fault_and_does_what_it_did)
{
    test_needs("signals");
    int status = test_in_child(be_killed, NULL, ROUSE_S(10));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_int_equal(test_in_child(be_spared, NULL, ROUSE_S(10)), 0);
}

/* Runs over the end of its stack, which only a handler on another stack can survive. */
static volatile bool endless = true;

static int overflow(volatile char *before)
{
    volatile char frame[4096];
    frame[0] = before != NULL ? (char)(before[0] + 1) : 0;
    frame[4095] = frame[0];
    return endless ? overflow(frame) + frame[4095] : 0;
}

static bool end_well(uintptr_t address)
{
    (void)address;
    _exit(44);
}

static void overflow_thread(void *ignored)
{
    void *stack;
    (void)ignored;
    require(os_fault_thread_enter(&stack) == ROUSE_OK);
    (void)overflow(NULL);
}

static void overflow_in_a_thread(void *ignored)
{
    struct sigaction before[2];
    os_thread thread;
    (void)ignored;
    clear_fault_handlers(before);
    require(os_fault_hook_install(end_well) == ROUSE_OK);
    require(os_thread_start(&thread, overflow_thread, NULL, "overflow") == ROUSE_OK);
    os_thread_join(&thread);
}

TEST(a_thread_that_overflows_its_stack_reaches_the_hook)
{
    test_needs("signals");
    int status = test_in_child(overflow_in_a_thread, NULL, ROUSE_S(20));
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 44);
}

TEST(a_thread_keeps_the_stack_for_signals_that_it_has)
{
    test_needs("signals");
    static char own[65536];
    stack_t mine = {.ss_sp = own, .ss_size = sizeof own}, before, now;
    void *stack = own;
    assert_int_equal(sigaltstack(&mine, &before), 0);
    assert_int_equal(os_fault_thread_enter(&stack), ROUSE_OK);
    assert_null(stack);
    assert_int_equal(sigaltstack(NULL, &now), 0);
    assert_ptr_equal(now.ss_sp, own);
    os_fault_thread_leave(stack);
    assert_int_equal(sigaltstack(NULL, &now), 0);
    assert_ptr_equal(now.ss_sp, own);
    if (before.ss_flags & SS_DISABLE)
        before.ss_size = sizeof own;
    assert_int_equal(sigaltstack(&before, NULL), 0);
}

TEST(a_hook_that_the_system_refuses_is_not_half_installed)
{
    test_needs("faults");
    struct sigaction first[2], now;
    assert_int_equal(sigaction(SIGSEGV, NULL, &first[0]), 0);
    assert_int_equal(sigaction(SIGBUS, NULL, &first[1]), 0);
    for (uint64_t nth = 1; nth <= 4; nth++) {
        faults_syscall("sigaction", nth, EINVAL, 1);
        assert_int_equal(os_fault_hook_install(hook), ROUSE_INVALID);
        assert_int_equal(sigaction(SIGSEGV, NULL, &now), 0);
        assert_true(now.sa_sigaction == first[0].sa_sigaction);
        assert_int_equal(sigaction(SIGBUS, NULL, &now), 0);
        assert_true(now.sa_sigaction == first[1].sa_sigaction);
    }
    if (!test_is_sanitized()) {
        void *stack;
        faults_fail_alloc(1, false);
        assert_int_equal(os_fault_thread_enter(&stack), ROUSE_NO_MEMORY);
        assert_null(stack);
        os_fault_thread_leave(stack);
    }
}

/* ---- standard error ---- */

static void write_to_closed_error(void *argument)
{
    const int *ends = argument;
    int before = dup(2);
    struct sigaction fatal = {.sa_handler = SIG_DFL}, old;
    require(sigaction(SIGPIPE, &fatal, &old) == 0);
    require(dup2(ends[1], 2) == 2);
    os_write_error("hello\n", 6);
    char text[8];
    require(read(ends[0], text, sizeof text) == 6);
    require(memcmp(text, "hello\n", 6) == 0);
    close(ends[0]);
    errno = 77;
    os_write_error("nobody\n", 7);
    require(errno == 77);
    require(dup2(before, 2) == 2);
    require(sigaction(SIGPIPE, &old, NULL) == 0);
    close(before);
    _exit(45); /* without the end of the pipe that was closed here */
}

TEST(standard_error_may_be_a_pipe_that_nobody_reads)
{
    test_needs("signals");
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int status = test_in_child(write_to_closed_error, ends, ROUSE_S(10));
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 45);
    close(ends[0]);
    close(ends[1]);
}
