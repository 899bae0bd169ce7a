/* Events that a signal handler may notify, the handlers themselves, and faults of memory access.
 *
 * Lost for signals: signalfd, which needs the signals blocked in every thread of the process, also those that the
 * application has started. */
#include "os/os_posix.h"

#include <rouse/signal.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "os/atomic.h"

#if defined(__linux__)
#include <sys/eventfd.h>
#endif

/* ---- events ---- */

int os_event_open(os_event *event)
{
#if defined(__linux__)
    int descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (descriptor < 0)
        return os_status(errno);
    event->readable = event->notify = descriptor;
    return ROUSE_OK;
#else
    int ends[2];
    if (pipe(ends) != 0)
        return os_status(errno);
    int status = os_prepare_descriptor(ends[0]);
    if (status == ROUSE_OK)
        status = os_prepare_descriptor(ends[1]);
    if (status != ROUSE_OK) {
        (void)close(ends[0]);
        (void)close(ends[1]);
        return status;
    }
    event->readable = ends[0];
    event->notify = ends[1];
    return ROUSE_OK;
#endif
}

void os_event_close(os_event *event)
{
    (void)os_close(event->readable);
    if (event->notify != event->readable)
        (void)os_close(event->notify);
    event->readable = event->notify = OS_NO_HANDLE;
}

void os_event_notify(const os_event *event)
{
    int before = errno;
    uint64_t one = 1; /* an eventfd takes eight bytes, and a pipe as well */
    while (write(os_descriptor(event->notify), &one, sizeof one) < 0 && errno == EINTR) {}
    /* EAGAIN: full, so it is readable already. */
    errno = before;
}

bool os_event_fills(void)
{
#if defined(__linux__)
    return false; /* eventfd: 2^64 - 2 notifications */
#else
    return true; /* a pipe */
#endif
}

bool os_event_clear(const os_event *event)
{
    char bytes[64];
    ssize_t count;
    bool took = false;
    do {
        count = read(os_descriptor(event->readable), bytes, sizeof bytes);
        took = took || count > 0;
    } while (count == (ssize_t)sizeof bytes || (count < 0 && errno == EINTR));
    return took;
}

/* ---- signals ---- */

static const struct {
    int name; /* enum rouse_signal */
    int number;
} signals[] = {{ROUSE_SIGNAL_INTERRUPT, SIGINT}, {ROUSE_SIGNAL_TERMINATE, SIGTERM}, {ROUSE_SIGNAL_HANG_UP, SIGHUP}};

#define SIGNALS (sizeof signals / sizeof signals[0])

static struct {
    atomic_ptr handler; /* a function; NULL while none is installed */
    struct sigaction before;
} installed[SIGNALS];

static void on_signal(int number)
{
    int before = errno;
    for (size_t i = 0; i < SIGNALS; i++) {
        if (signals[i].number != number)
            continue;
        void (*handler)(int) = (void (*)(int))(uintptr_t)atomic_ptr_load(&installed[i].handler, ACQUIRE);
        if (handler != NULL) /* NULL: a handler installed over ours calls what it found, after we have gone */
            handler(signals[i].name);
    }
    errno = before;
}

static size_t signal_index(int signal)
{
    size_t i = 0;
    while (i < SIGNALS && signals[i].name != signal)
        i++;
    return i;
}

int os_signal_install(int signal, void (*handler)(int signal))
{
    size_t i = signal_index(signal);
    if (i == SIGNALS)
        return ROUSE_INVALID;
    void *function = (void *)(uintptr_t)handler;
    if (atomic_ptr_exchange(&installed[i].handler, function, ACQ_REL) != NULL)
        return ROUSE_OK; /* ours is there; what was before it is remembered */
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART | SA_ONSTACK; /* the stack of a fiber may be short of room for a signal's frame */
    (void)sigemptyset(&action.sa_mask);
    if (sigaction(signals[i].number, &action, &installed[i].before) == 0)
        return ROUSE_OK;
    atomic_ptr_store(&installed[i].handler, NULL, RELEASE);
    return os_status(errno);
}

void os_signal_restore(int signal)
{
    size_t i = signal_index(signal);
    struct sigaction now;
    if (i == SIGNALS || atomic_ptr_load(&installed[i].handler, ACQUIRE) == NULL)
        return;
    /* A handler that came after ours belongs to somebody else and stays. */
    if (sigaction(signals[i].number, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == on_signal)
        (void)sigaction(signals[i].number, &installed[i].before, NULL);
    atomic_ptr_store(&installed[i].handler, NULL, RELEASE);
}

/* ---- faults ---- */

static const int faults[] = {SIGSEGV, SIGBUS};

#define FAULTS (sizeof faults / sizeof faults[0])

static atomic_ptr fault_hook; /* a function; NULL while none is installed */
static struct sigaction fault_before[FAULTS];

/* What was there before us, as if we were not. */
static void pass_fault_on(size_t index, int number, siginfo_t *info, void *context)
{
    const struct sigaction *before = &fault_before[index];
    bool by_kernel = info->si_code > 0; /* else kill() or the like sent it */
    if (before->sa_flags & SA_SIGINFO) {
        before->sa_sigaction(number, info, context);
    } else if (before->sa_handler == SIG_IGN && !by_kernel) {
        /* Ignored then, ignored now. A real fault cannot be ignored. */
    } else if (before->sa_handler == SIG_IGN || before->sa_handler == SIG_DFL) {
        /* Returning repeats the access, which then does what it always did: the core file shows the right place. */
        struct sigaction fallback;
        memset(&fallback, 0, sizeof fallback);
        fallback.sa_handler = SIG_DFL;
        (void)sigaction(number, &fallback, NULL);
        if (!by_kernel)
            (void)raise(number);
    } else {
        before->sa_handler(number);
    }
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    int before = errno;
    bool (*hook)(uintptr_t) = (bool (*)(uintptr_t))(uintptr_t)atomic_ptr_load(&fault_hook, ACQUIRE);
    bool handled = hook != NULL && info->si_code > 0 && hook((uintptr_t)info->si_addr);
    if (!handled)
        pass_fault_on(number == faults[0] ? 0 : 1, number, info, context);
    errno = before;
}

static int install_fault(size_t index)
{
    struct sigaction action;
    /* Remembered before ours is in place: a fault may come in between. */
    if (sigaction(faults[index], NULL, &fault_before[index]) != 0)
        return os_status(errno);
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_mask = fault_before[index].sa_mask;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | (fault_before[index].sa_flags & SA_NODEFER);
    return sigaction(faults[index], &action, NULL) == 0 ? ROUSE_OK : os_status(errno);
}

static void restore_fault(size_t index)
{
    struct sigaction now;
    if (sigaction(faults[index], NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault)
        (void)sigaction(faults[index], &fault_before[index], NULL);
}

int os_fault_hook_install(bool (*hook)(uintptr_t address))
{
    if (atomic_ptr_exchange(&fault_hook, (void *)(uintptr_t)hook, ACQ_REL) != NULL)
        return ROUSE_OK; /* the handlers are there; the new hook has replaced the old one */
    int status = ROUSE_OK;
    size_t count = 0;
    while (count < FAULTS && (status = install_fault(count)) == ROUSE_OK)
        count++;
    if (status != ROUSE_OK) {
        while (count > 0)
            restore_fault(--count);
        atomic_ptr_store(&fault_hook, NULL, RELEASE);
    }
    return status;
}

void os_fault_hook_remove(void)
{
    if (atomic_ptr_exchange(&fault_hook, NULL, ACQ_REL) == NULL)
        return;
    for (size_t i = 0; i < FAULTS; i++)
        restore_fault(i);
}

/* Room for the frame that the kernel makes, which has grown to several KiB, and for a hook that formats a line. */
#define FAULT_STACK_BYTES ((size_t)64 * 1024)

int os_fault_thread_enter(void **memory)
{
    *memory = NULL;
    stack_t now;
    if (sigaltstack(NULL, &now) != 0)
        return os_status(errno);
    if (!(now.ss_flags & SS_DISABLE))
        return ROUSE_OK; /* somebody has given this thread one: a sanitizer, or the application */
    void *stack = os_alloc(FAULT_STACK_BYTES, 16);
    if (stack == NULL)
        return ROUSE_NO_MEMORY;
    stack_t ours;
    memset(&ours, 0, sizeof ours);
    ours.ss_sp = stack;
    ours.ss_size = FAULT_STACK_BYTES;
    if (sigaltstack(&ours, NULL) != 0) {
        int status = os_status(errno);
        os_free(stack);
        return status;
    }
    *memory = stack;
    return ROUSE_OK;
}

void os_fault_thread_leave(void *memory)
{
    stack_t now;
    if (memory == NULL || sigaltstack(NULL, &now) != 0)
        return;
    if (now.ss_sp == memory) {
        stack_t none;
        memset(&none, 0, sizeof none);
        none.ss_flags = SS_DISABLE;
        none.ss_size = FAULT_STACK_BYTES; /* macOS looks at it even so */
        if (sigaltstack(&none, NULL) != 0)
            return; /* still in use: keeping the memory is the lesser evil */
    }
    os_free(memory);
}

void os_write_error(const char *text, size_t length)
{
    int before = errno;
    while (length > 0) {
        ptrdiff_t count = os_write(STDERR_FILENO, OS_KIND_OTHER, text, length);
        if (count <= 0)
            break;
        text += count;
        length -= (size_t)count;
    }
    errno = before;
}
