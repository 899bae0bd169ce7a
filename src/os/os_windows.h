/* What the files os_windows*.c and the backends of Windows share; nobody else includes it. Windows 10 or later. */
#ifndef ROUSE_OS_WINDOWS_H
#define ROUSE_OS_WINDOWS_H

#include "os/atomic.h"
#include "os/os.h"

#if !defined(_WIN32_WINNT)
#define _WIN32_WINNT 0x0A00
#endif
#if !defined(WIN32_LEAN_AND_MEAN)
#define WIN32_LEAN_AND_MEAN
#endif
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
/* In this order: windows.h would bring the first winsock. */
#include <winsock2.h>
#include <ws2tcpip.h>

#include <windows.h>

/* The statuses for what GetLastError and WSAGetLastError answer, whose numbers do not overlap, and for an NTSTATUS. The
 * only such tables. */
int os_status(unsigned long error);
int os_nt_status(long error);

/* Winsock counts its users by process; the first call starts it, and nothing ends it before the process does. OK, or why it
 * cannot be used. Whatever makes or adopts a socket comes by here. */
int os_winsock_start(void);

/* From now to the deadline in the system's milliseconds, rounded up: 0 for the past, INFINITE for ROUSE_NEVER and for no
 * other deadline. */
DWORD os_milliseconds(int64_t deadline_ns);

/* A function of one of the system's own libraries, which is loaded if need be and stays; NULL if there is none. For what
 * not every Windows has, or what would make one more library a must. Remembered in *known. */
void *os_system_function(atomic_ptr *known, const wchar_t *library, const char *name);

/* Numbers that no handle can have become one that is never valid. Handles have 32 bits, and the system looks at no more;
 * negative ones, and the largest, mean "this process" and the like. */
static inline SOCKET os_socket(os_handle handle)
{
    return handle <= 0 || handle >= INT32_MAX ? INVALID_SOCKET : (SOCKET)handle;
}

/* What each thread has of its own; zeroed when the thread starts. The address is that of the calling thread and must not
 * be kept by a function that switches fibers. */
struct os_thread_local {
    void *current;  /* os_current */
    int64_t now_ns; /* the last answer of os_now */
};
struct os_thread_local *os_thread_local(void);

#endif
