#if defined(_WIN32)

#include "support/posix_windows.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <psapi.h>
#include <tlhelp32.h>

/* Here the system's own are meant. */
#undef socket
#undef bind
#undef listen
#undef accept
#undef connect
#undef getsockname
#undef getpeername
#undef setsockopt
#undef getsockopt
#undef shutdown
#undef send
#undef recv
#undef close
#undef read
#undef write
#undef execv
#undef raise

static int refuse(void)
{
    errno = ENOSYS;
    return -1;
}

/* ---- errors ---- */

static const struct {
    int windows, posix;
} errors[] = {
    {WSAEWOULDBLOCK, EAGAIN},
    {WSAECONNRESET, ECONNRESET},
    {WSAECONNREFUSED, ECONNREFUSED},
    {WSAECONNABORTED, ECONNABORTED},
    {WSAETIMEDOUT, ETIMEDOUT},
    {WSAENOTCONN, ENOTCONN},
    {WSAESHUTDOWN, EPIPE},
    {WSAENOTSOCK, EBADF},
    {WSAEINVAL, EINVAL},
    {WSAEMFILE, EMFILE},
    {WSAENOBUFS, ENOBUFS},
    {WSAEADDRINUSE, EADDRINUSE},
    {WSAEADDRNOTAVAIL, EADDRNOTAVAIL},
    {WSAEAFNOSUPPORT, EAFNOSUPPORT},
    {WSAEACCES, EACCES},
    {WSAENETUNREACH, ENETUNREACH},
    {WSAEHOSTUNREACH, EHOSTUNREACH},
    {WSAENOPROTOOPT, ENOPROTOOPT},
};

static int to_errno(int error)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (errors[i].windows == error) {
            return errors[i].posix;
        }
    }
    return EIO;
}

static int answer(int result)
{
    if (result < 0) {
        errno = to_errno(WSAGetLastError());
    }
    return result;
}

/* ---- sockets ---- */

static SOCKET handle_of(int descriptor)
{
    return descriptor < 0 ? INVALID_SOCKET : (SOCKET)descriptor;
}

static bool is_socket(int descriptor)
{
    int type, length = sizeof type;
    return getsockopt(handle_of(descriptor), SOL_SOCKET, SO_TYPE, (char *)&type, &length) == 0;
}

__attribute__((constructor)) static void start_winsock(void)
{
    WSADATA data;
    WSAStartup(MAKEWORD(2, 2), &data);
}

static int made(SOCKET socket)
{
    return socket == INVALID_SOCKET ? answer(-1) : (int)socket;
}

int posix_socket(int family, int type, int protocol)
{
    return made(
        WSASocketW(family, type & ~SOCK_CLOEXEC, protocol, NULL, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT));
}

int posix_socketpair(int family, int type, int protocol, int ends[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int length = sizeof address, listener;
    (void)family;
    if ((type & ~SOCK_CLOEXEC) != SOCK_STREAM || protocol != 0) {
        return refuse();
    }
    listener = posix_socket(AF_INET, SOCK_STREAM, 0);
    ends[0] = posix_socket(AF_INET, SOCK_STREAM, 0);
    bool good = posix_bind(listener, &address, length) == 0 && posix_listen(listener, 1) == 0 &&
                posix_getsockname(listener, &address, &length) == 0 && posix_connect(ends[0], &address, length) == 0 &&
                (ends[1] = posix_accept(listener, NULL, NULL)) >= 0;
    closesocket(handle_of(listener));
    if (!good) {
        closesocket(handle_of(ends[0]));
    }
    return good ? 0 : -1;
}

int posix_bind(int socket, const void *address, int length)
{
    return answer(bind(handle_of(socket), address, length));
}

int posix_listen(int socket, int backlog)
{
    return answer(listen(handle_of(socket), backlog));
}

int posix_accept(int socket, void *address, int *length)
{
    return made(accept(handle_of(socket), address, length));
}

int posix_connect(int socket, const void *address, int length)
{
    int result = answer(connect(handle_of(socket), address, length));
    if (result < 0 && errno == EAGAIN) {
        errno = EINPROGRESS;
    }
    return result;
}

int posix_getsockname(int socket, void *address, int *length)
{
    return answer(getsockname(handle_of(socket), address, length));
}

int posix_getpeername(int socket, void *address, int *length)
{
    return answer(getpeername(handle_of(socket), address, length));
}

int posix_setsockopt(int socket, int level, int name, const void *value, int length)
{
    return answer(setsockopt(handle_of(socket), level, name, value, length));
}

int posix_getsockopt(int socket, int level, int name, void *value, int *length)
{
    int result = answer(getsockopt(handle_of(socket), level, name, value, length));
    if (result == 0 && level == SOL_SOCKET && name == SO_ERROR && *(int *)value != 0) {
        *(int *)value = to_errno(*(int *)value);
    }
    return result;
}

int posix_shutdown(int socket, int how)
{
    return answer(shutdown(handle_of(socket), how));
}

static bool is_ready(int socket, short events)
{
    WSAPOLLFD polled = {handle_of(socket), events, 0};
    return WSAPoll(&polled, 1, 0) != 0;
}

/* For one call of a socket of the test's own, which is blocking. */
static void stop_waiting(int socket, bool stop)
{
    u_long on = stop;
    ioctlsocket(handle_of(socket), (long)FIONBIO, &on);
}

ptrdiff_t posix_send(int socket, const void *data, size_t length, int flags)
{
    if (!(flags & MSG_DONTWAIT)) {
        return answer(send(handle_of(socket), data, (int)length, flags));
    }
    stop_waiting(socket, true);
    int count = answer(send(handle_of(socket), data, (int)length, flags & ~MSG_DONTWAIT));
    int error = errno;
    stop_waiting(socket, false);
    errno = error;
    return count;
}

ptrdiff_t posix_recv(int socket, void *data, size_t length, int flags)
{
    /* Nobody tells whether the socket is a blocking one. It is read from by one thread. */
    if (flags & MSG_DONTWAIT && !is_ready(socket, POLLIN)) {
        errno = EAGAIN;
        return -1;
    }
    int count = answer(recv(handle_of(socket), data, (int)length, flags & ~MSG_DONTWAIT));
    WSAPOLLFD polled = {.fd = handle_of(socket)};
    if (count == 0 && length > 0 && WSAPoll(&polled, 1, 0) > 0 && polled.revents & POLLERR) { /* Wine tells no reset */
        count = -1;
        errno = ECONNRESET;
    }
    return count;
}

static short ready_now(const struct posix_pollfd *file)
{
    if (is_socket(file->fd)) {
        WSAPOLLFD one = {handle_of(file->fd), file->events, 0};
        return WSAPoll(&one, 1, 0) > 0 ? one.revents : 0;
    }
    DWORD bytes;
    HANDLE handle = (HANDLE)_get_osfhandle(file->fd);
    if (handle == INVALID_HANDLE_VALUE) {
        return POLLNVAL;
    }
    if (!PeekNamedPipe(handle, NULL, 0, NULL, &bytes, NULL)) {
        return POLLHUP;
    }
    return file->events & POLLIN && bytes > 0 ? POLLIN : 0;
}

int posix_poll(struct posix_pollfd *files, nfds_t count, int milliseconds)
{
    uint64_t end = GetTickCount64() + (uint64_t)(milliseconds < 0 ? INT_MAX : milliseconds);
    for (;;) {
        int ready = 0;
        for (nfds_t i = 0; i < count; i++) {
            files[i].revents = files[i].fd < 0 ? 0 : ready_now(&files[i]);
            ready += files[i].revents != 0;
        }
        if (ready > 0 || GetTickCount64() >= end) {
            return ready;
        }
        Sleep(1);
    }
}

struct if_nameindex *posix_if_nameindex(void)
{
    errno = ENOSYS;
    return NULL;
}

void posix_if_freenameindex(struct if_nameindex *list)
{
    (void)list;
}

char *posix_if_indextoname(unsigned index, char *name)
{
    (void)index, (void)name;
    errno = ENOSYS;
    return NULL;
}

/* ---- descriptors ---- */

int posix_close(int descriptor)
{
    if (is_socket(descriptor)) {
        return answer(closesocket(handle_of(descriptor)));
    }
    return _close(descriptor);
}

ptrdiff_t posix_read(int descriptor, void *data, size_t length)
{
    return is_socket(descriptor) ? posix_recv(descriptor, data, length, 0) : _read(descriptor, data, (unsigned)length);
}

ptrdiff_t posix_write(int descriptor, const void *data, size_t length)
{
    return is_socket(descriptor) ? posix_send(descriptor, data, length, 0) : _write(descriptor, data, (unsigned)length);
}

int posix_fcntl(int descriptor, int command, ...)
{
    if (!is_socket(descriptor)) {
        errno = EBADF;
        return command == F_SETFD && descriptor >= 0 ? 0 : -1;
    }
    if (command == F_SETFL) {
        va_list arguments;
        va_start(arguments, command);
        u_long on = (va_arg(arguments, int) & O_NONBLOCK) != 0;
        va_end(arguments);
        return answer(ioctlsocket(handle_of(descriptor), (long)FIONBIO, &on));
    }
    if (command == F_GETFD) {
        DWORD flags = 0;
        return GetHandleInformation((HANDLE)handle_of(descriptor), &flags) && !(flags & HANDLE_FLAG_INHERIT);
    }
    if (command == F_SETFD) {
        SetHandleInformation((HANDLE)handle_of(descriptor), HANDLE_FLAG_INHERIT, 0);
    }
    return 0;
}

int posix_pipe(int ends[2])
{
    return _pipe(ends, 65536, _O_BINARY | _O_NOINHERIT);
}

int posix_pipe2(int ends[2], int flags)
{
    return flags & O_NONBLOCK ? refuse() : posix_pipe(ends);
}

int posix_openpt(int flags)
{
    (void)flags;
    return refuse();
}

int dup3(int descriptor, int wanted, int flags)
{
    (void)descriptor, (void)wanted, (void)flags;
    return refuse();
}

ptrdiff_t readlink(const char *path, char *text, size_t size)
{
    (void)path, (void)text, (void)size;
    return refuse();
}

ptrdiff_t readv(int descriptor, const struct iovec *pieces, int count)
{
    (void)descriptor, (void)pieces, (void)count;
    return refuse();
}

int dprintf(int descriptor, const char *format, ...)
{
    char text[2000];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return length < 0 ? length : _write(descriptor, text, (unsigned)strlen(text));
}

/* ---- processes ---- */

pid_t fork(void)
{
    return refuse();
}

pid_t waitpid(pid_t process, int *status, int options)
{
    (void)process, (void)status, (void)options;
    return refuse();
}

/* As the system does it: a thread that begins where the system's own do calls the handlers. What says that the console goes
 * away is not sent like this: the process ends after it. */
int posix_raise(int signal)
{
    if (signal != SIGINT && signal != SIGTERM) {
        return refuse();
    }
    union {
        FARPROC found;
        LPTHREAD_START_ROUTINE start;
    } routine = {GetProcAddress(GetModuleHandleW(L"kernelbase.dll"), "CtrlRoutine")};
    intptr_t event = signal == SIGINT ? CTRL_C_EVENT : CTRL_BREAK_EVENT;
    HANDLE thread = routine.found != NULL ? CreateThread(NULL, 0, routine.start, (void *)event, 0, NULL) : NULL;
    if (thread == NULL) {
        return refuse();
    }
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
    return 0;
}

int kill(pid_t process, int signal)
{
    return process == getpid() ? posix_raise(signal) : refuse();
}

int posix_execv(const char *path, char *const *arguments)
{
    (void)path, (void)arguments;
    return refuse();
}

int pause(void)
{
    Sleep(INFINITE);
    return refuse();
}

int setenv(const char *name, const char *value, int replace)
{
    return replace || getenv(name) == NULL ? _putenv_s(name, value) : 0;
}

int unsetenv(const char *name)
{
    return _putenv_s(name, "");
}

long sysconf(int name)
{
    (void)name;
    return 4096;
}

static struct sigaction alarm_action;
static HANDLE alarm_moved;
static volatile LONG alarm_seconds;

static DWORD WINAPI watch(void *ignored)
{
    (void)ignored;
    while (WaitForSingleObject(alarm_moved, (DWORD)alarm_seconds * 1000) == WAIT_OBJECT_0) {}
    alarm_action.sa_handler(SIGALRM);
    return 0;
}

unsigned alarm(unsigned seconds)
{
    InterlockedExchange(&alarm_seconds, (LONG)seconds);
    if (alarm_moved == NULL) {
        alarm_moved = CreateEventW(NULL, FALSE, FALSE, NULL);
        CloseHandle(CreateThread(NULL, 0, watch, NULL, 0, NULL));
    } else {
        SetEvent(alarm_moved);
    }
    return 0;
}

/* ---- signals ---- */

int sigaction(int signal, const struct sigaction *action, struct sigaction *before)
{
    if (signal != SIGALRM) {
        return refuse();
    }
    if (before != NULL) {
        *before = alarm_action;
    }
    if (action != NULL) {
        alarm_action = *action;
    }
    return 0;
}

int sigemptyset(sigset_t *set)
{
    *set = 0;
    return 0;
}

int sigfillset(sigset_t *set)
{
    *set = UINT64_MAX;
    return 0;
}

int sigaddset(sigset_t *set, int signal)
{
    *set |= UINT64_C(1) << (signal & 63);
    return 0;
}

int sigismember(const sigset_t *set, int signal)
{
    return *set >> (signal & 63) & 1;
}

int sigpending(sigset_t *set)
{
    return sigemptyset(set);
}

int sigaltstack(const stack_t *stack, stack_t *before)
{
    (void)stack, (void)before;
    return refuse();
}

/* No signal can be blocked, and none is. */
int posix_sigmask(int how, const sigset_t *set, sigset_t *before)
{
    (void)how, (void)set;
    if (before != NULL) {
        *before = 0;
    }
    return 0;
}

/* ---- memory and limits ---- */

static DWORD to_windows(int protection)
{
    return protection & PROT_WRITE ? PAGE_READWRITE : protection & PROT_READ ? PAGE_READONLY : PAGE_NOACCESS;
}

void *mmap(void *address, size_t bytes, int protection, int flags, int file, int64_t offset)
{
    (void)address, (void)file, (void)offset;
    void *memory =
        flags & MAP_ANONYMOUS ? VirtualAlloc(NULL, bytes, MEM_RESERVE | MEM_COMMIT, to_windows(protection)) : NULL;
    if (memory == NULL) {
        errno = ENOMEM;
    }
    return memory != NULL ? memory : MAP_FAILED;
}

int munmap(void *address, size_t bytes)
{
    (void)bytes;
    return VirtualFree(address, 0, MEM_RELEASE) ? 0 : -1;
}

int mprotect(void *address, size_t bytes, int protection)
{
    DWORD before;
    return VirtualProtect(address, bytes, to_windows(protection), &before) ? 0 : -1;
}

int mincore(void *address, size_t bytes, unsigned char *pages)
{
    for (size_t at = 0; at < bytes; at += 4096) {
        MEMORY_BASIC_INFORMATION info;
        if (VirtualQuery((char *)address + at, &info, sizeof info) == 0) {
            return -1;
        }
        pages[at / 4096] = info.State == MEM_COMMIT;
    }
    return 0;
}

int getrlimit(int resource, struct rlimit *limit)
{
    (void)resource, (void)limit;
    return refuse();
}

int setrlimit(int resource, const struct rlimit *limit)
{
    (void)resource, (void)limit;
    return refuse();
}

static struct timeval span_of(const FILETIME *time)
{
    uint64_t span = (uint64_t)time->dwHighDateTime << 32 | time->dwLowDateTime; /* of 100 ns */
    return (struct timeval){(long)(span / 10000000), (long)(span / 10 % 1000000)};
}

int getrusage(int who, struct rusage *usage)
{
    (void)who;
    FILETIME created, ended, kernel, user;
    memset(usage, 0, sizeof *usage);
    GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user);
    usage->ru_utime = span_of(&user);
    usage->ru_stime = span_of(&kernel);
    return 0;
}

/* ---- looking at this process ---- */

bool posix_is_wine(void)
{
    return GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "wine_get_version") != NULL;
}

/* Handles are dense multiples of four. Whoever could say how many there are cannot be asked in Wine: GetProcessHandleCount
 * answers 0, and its server may crash while it lists those of the whole system. */
int posix_socket_count(void)
{
    int sockets = 0;
    DWORD flags;
    for (intptr_t handle = 4, last = 0; handle < last + 400; handle += 4) {
        if (GetHandleInformation((HANDLE)handle, &flags)) {
            last = handle;
            sockets += is_socket((int)handle);
        }
    }
    return sockets;
}

int posix_thread_count(void)
{
    HANDLE all = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
    THREADENTRY32 thread = {.dwSize = sizeof thread};
    int count = 0;
    if (all == INVALID_HANDLE_VALUE) {
        return -1;
    }
    for (BOOL more = Thread32First(all, &thread); more; more = Thread32Next(all, &thread)) {
        count += thread.th32OwnerProcessID == GetCurrentProcessId();
    }
    CloseHandle(all);
    return count;
}

size_t posix_rss_bytes(void)
{
    PROCESS_MEMORY_COUNTERS counters = {.cb = sizeof counters};
    return K32GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters) ? counters.WorkingSetSize : 0;
}

#else
typedef int nothing; /* C has no empty files */
#endif
