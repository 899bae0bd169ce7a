/* Events that any thread may notify, requests to stop that come from the console, and faults of memory access. */
#include "os/os_windows.h"

#include <rouse/signal.h>

/* ---- events ----
 *
 * A datagram socket that is connected to itself: something that the backend can wait for like for any other. A pair of TCP
 * sockets lost: it needs a listener for a moment, whom somebody else may connect to. What cannot be sent because too much
 * is waiting is not missed: it is readable. */

static int connect_to_itself(SOCKET socket)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int length = sizeof address;
    if (bind(socket, (struct sockaddr *)&address, length) != 0 ||
        getsockname(socket, (struct sockaddr *)&address, &length) != 0 ||
        connect(socket, (struct sockaddr *)&address, length) != 0)
        return os_status((unsigned long)WSAGetLastError());
    return os_set_nonblocking((os_handle)socket, true, NULL);
}

int os_event_open(os_event *event)
{
    int status = os_winsock_start();
    if (status != ROUSE_OK)
        return status;
    SOCKET socket =
        WSASocketW(AF_INET, SOCK_DGRAM, IPPROTO_UDP, NULL, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    if (socket == INVALID_SOCKET)
        return os_status((unsigned long)WSAGetLastError());
    status = connect_to_itself(socket);
    if (status != ROUSE_OK) {
        (void)closesocket(socket);
        return status;
    }
    event->readable = event->notify = (os_handle)socket;
    return ROUSE_OK;
}

void os_event_close(os_event *event)
{
    (void)os_close(event->readable);
    event->readable = event->notify = OS_NO_HANDLE;
}

void os_event_notify(const os_event *event)
{
    (void)send(os_socket(event->notify), "", 1, 0);
}

bool os_event_fills(void)
{
    return true;
}

bool os_event_clear(const os_event *event)
{
    char byte;
    bool took = false;
    while (recv(os_socket(event->readable), &byte, 1, 0) >= 0)
        took = true;
    return took;
}

/* ---- signals ----
 *
 * The system calls a handler on a thread of its own. There is one of ours for all signals; while it is installed it takes
 * those that are caught, and leaves the others to whoever was there before. */

static const struct {
    DWORD event;
    int name; /* enum rouse_signal */
} signals[] = {{CTRL_C_EVENT, ROUSE_SIGNAL_INTERRUPT},
               {CTRL_BREAK_EVENT, ROUSE_SIGNAL_TERMINATE},
               {CTRL_CLOSE_EVENT, ROUSE_SIGNAL_HANG_UP},
               {CTRL_LOGOFF_EVENT, ROUSE_SIGNAL_HANG_UP},
               {CTRL_SHUTDOWN_EVENT, ROUSE_SIGNAL_TERMINATE}};

#define SIGNALS (sizeof signals / sizeof signals[0])

/* By the value of enum rouse_signal: a function; NULL while none is installed. */
static atomic_ptr handlers[ROUSE_SIGNAL_HANG_UP + 1];
static unsigned installed; /* how many of them are not NULL */

static BOOL WINAPI on_console_event(DWORD event)
{
    for (size_t i = 0; i < SIGNALS; i++) {
        if (signals[i].event != event)
            continue;
        void (*handler)(int) = (void (*)(int))(uintptr_t)atomic_ptr_load(&handlers[signals[i].name], ACQUIRE);
        if (handler == NULL)
            return FALSE;
        handler(signals[i].name);
        /* When we return from one of these the process ends. This way it has the seconds that the system grants. */
        if (event >= CTRL_CLOSE_EVENT)
            Sleep(INFINITE);
        return TRUE;
    }
    return FALSE;
}

static bool is_signal(int signal)
{
    return signal == ROUSE_SIGNAL_INTERRUPT || signal == ROUSE_SIGNAL_TERMINATE || signal == ROUSE_SIGNAL_HANG_UP;
}

int os_signal_install(int signal, void (*handler)(int signal))
{
    if (!is_signal(signal))
        return ROUSE_INVALID;
    if (atomic_ptr_exchange(&handlers[signal], (void *)(uintptr_t)handler, ACQ_REL) != NULL)
        return ROUSE_OK;
    if (installed == 0 && !SetConsoleCtrlHandler(on_console_event, TRUE)) {
        int status = os_status(GetLastError());
        atomic_ptr_store(&handlers[signal], NULL, RELEASE);
        return status;
    }
    installed++;
    return ROUSE_OK;
}

void os_signal_restore(int signal)
{
    if (!is_signal(signal) || atomic_ptr_exchange(&handlers[signal], NULL, ACQ_REL) == NULL)
        return;
    if (--installed == 0)
        (void)SetConsoleCtrlHandler(on_console_event, FALSE);
}

/* ---- faults ---- */

static atomic_ptr fault_hook; /* a function; NULL while none is installed */
static PVOID fault_handler;   /* what the system knows ours by */

/* The memory below the running stack that is never committed: what an overflow runs into in the end. The system reports it a
 * little before, while there is room for handlers. */
static uintptr_t end_of_stack(void)
{
    ULONG_PTR low, high;
    GetCurrentThreadStackLimits(&low, &high);
    return low;
}

static LONG CALLBACK on_fault(EXCEPTION_POINTERS *what)
{
    const EXCEPTION_RECORD *record = what->ExceptionRecord;
    bool (*hook)(uintptr_t) = (bool (*)(uintptr_t))(uintptr_t)atomic_ptr_load(&fault_hook, ACQUIRE);
    uintptr_t address;
    if (record->ExceptionCode == EXCEPTION_STACK_OVERFLOW)
        address = end_of_stack();
    else if ((record->ExceptionCode == EXCEPTION_ACCESS_VIOLATION ||
              record->ExceptionCode == EXCEPTION_IN_PAGE_ERROR) &&
             record->NumberParameters >= 2)
        address = record->ExceptionInformation[1];
    else
        return EXCEPTION_CONTINUE_SEARCH;
    return hook != NULL && hook(address) ? EXCEPTION_CONTINUE_EXECUTION : EXCEPTION_CONTINUE_SEARCH;
}

int os_fault_hook_install(bool (*hook)(uintptr_t address))
{
    if (atomic_ptr_exchange(&fault_hook, (void *)(uintptr_t)hook, ACQ_REL) != NULL)
        return ROUSE_OK; /* the handler is there; the new hook has replaced the old one */
    fault_handler = AddVectoredExceptionHandler(1, on_fault);
    if (fault_handler != NULL)
        return ROUSE_OK;
    atomic_ptr_store(&fault_hook, NULL, RELEASE);
    return ROUSE_NO_MEMORY;
}

void os_fault_hook_remove(void)
{
    if (atomic_ptr_exchange(&fault_hook, NULL, ACQ_REL) != NULL)
        (void)RemoveVectoredExceptionHandler(fault_handler);
}

/* Handlers run on the stack that has overflowed, of which the system keeps this much for them; for good, and for all stacks
 * that this thread runs on. */
#define FAULT_STACK_BYTES ((ULONG)12 * 1024)

int os_fault_thread_enter(void **memory)
{
    ULONG bytes = FAULT_STACK_BYTES;
    *memory = NULL;
    return SetThreadStackGuarantee(&bytes) ? ROUSE_OK : os_status(GetLastError());
}

void os_fault_thread_leave(void *memory)
{
    (void)memory;
}

void os_write_error(const char *text, size_t length)
{
    HANDLE error = GetStdHandle(STD_ERROR_HANDLE);
    DWORD before = GetLastError(), written = 0;
    while (length > 0 && error != NULL && error != INVALID_HANDLE_VALUE) {
        if (!WriteFile(error, text, length > MAXLONG ? MAXLONG : (DWORD)length, &written, NULL) || written == 0)
            break;
        text += written;
        length -= written;
    }
    SetLastError(before);
}
