/* Statuses, clock, random numbers, processors, functions that not every Windows has, and forks, which none has.
 *
 * The clock is the performance counter: it is as exact as the system can, and since Windows 10 the same on all processors.
 * os_posix.c says how a clock that goes back is survived; here too, since virtual machines have had such counters. It goes
 * on while the machine sleeps, unlike the waits of the system, which then end late. Lost: QueryUnbiasedInterruptTime, which
 * does not, but ticks every 0.5 to 15.6 ms. */
#include "os/os_windows.h"

#include <stdlib.h>

/* ---- statuses ---- */

static const struct {
    unsigned long error;
    int status;
} statuses[] = {
    {WSAEWOULDBLOCK, ROUSE_PENDING},
    {WSA_IO_PENDING, ROUSE_PENDING}, /* ERROR_IO_PENDING as well */
    {WSAECONNRESET, ROUSE_CONNECTION_RESET},
    {WSAENETRESET, ROUSE_CONNECTION_RESET},
    {WSAEDISCON, ROUSE_CONNECTION_RESET},
    {ERROR_NETNAME_DELETED, ROUSE_CONNECTION_RESET},
    {ERROR_VC_DISCONNECTED, ROUSE_CONNECTION_RESET},
    {WSAESHUTDOWN, ROUSE_BROKEN_PIPE},
    {ERROR_BROKEN_PIPE, ROUSE_BROKEN_PIPE},
    {ERROR_NO_DATA, ROUSE_BROKEN_PIPE},
    {WSAECONNREFUSED, ROUSE_CONNECTION_REFUSED},
    {ERROR_CONNECTION_REFUSED, ROUSE_CONNECTION_REFUSED},
    {WSAECONNABORTED, ROUSE_CONNECTION_ABORTED},
    {ERROR_CONNECTION_ABORTED, ROUSE_CONNECTION_ABORTED},
    {WSAENOTCONN, ROUSE_NOT_CONNECTED},
    {ERROR_PIPE_NOT_CONNECTED, ROUSE_NOT_CONNECTED},
    {WSAEISCONN, ROUSE_ALREADY_CONNECTED},
    {WSAETIMEDOUT, ROUSE_TIMED_OUT},
    {ERROR_SEM_TIMEOUT, ROUSE_TIMED_OUT},
    {WAIT_TIMEOUT, ROUSE_TIMED_OUT},
    {ERROR_TIMEOUT, ROUSE_TIMED_OUT},
    {WSAEADDRINUSE, ROUSE_ADDRESS_IN_USE},
    {WSAEADDRNOTAVAIL, ROUSE_ADDRESS_NOT_AVAILABLE},
    {WSAEHOSTUNREACH, ROUSE_HOST_UNREACHABLE},
    {WSAEHOSTDOWN, ROUSE_HOST_UNREACHABLE},
    {ERROR_HOST_UNREACHABLE, ROUSE_HOST_UNREACHABLE},
    {WSAENETUNREACH, ROUSE_NETWORK_UNREACHABLE},
    {ERROR_NETWORK_UNREACHABLE, ROUSE_NETWORK_UNREACHABLE},
    {WSAENETDOWN, ROUSE_NETWORK_DOWN},
    {WSASYSNOTREADY, ROUSE_NETWORK_DOWN},
    {WSAEACCES, ROUSE_PERMISSION_DENIED},
    {ERROR_ACCESS_DENIED, ROUSE_PERMISSION_DENIED},
    {WSAEMFILE, ROUSE_TOO_MANY_FILES},
    {ERROR_TOO_MANY_OPEN_FILES, ROUSE_TOO_MANY_FILES},
    {WSAEPROCLIM, ROUSE_TOO_MANY_FILES_SYSTEM},
    {WSAENOBUFS, ROUSE_NO_BUFFERS},
    {ERROR_NO_SYSTEM_RESOURCES, ROUSE_NO_BUFFERS},
    {ERROR_WORKING_SET_QUOTA, ROUSE_NO_BUFFERS},
    {WSA_NOT_ENOUGH_MEMORY, ROUSE_NO_MEMORY}, /* ERROR_NOT_ENOUGH_MEMORY as well */
    {ERROR_OUTOFMEMORY, ROUSE_NO_MEMORY},
    {ERROR_COMMITMENT_LIMIT, ROUSE_NO_MEMORY},
    {ERROR_NOT_ENOUGH_QUOTA, ROUSE_NO_MEMORY},
    {ERROR_DISK_FULL, ROUSE_NO_SPACE},
    {ERROR_FILE_NOT_FOUND, ROUSE_NOT_FOUND},
    {ERROR_PATH_NOT_FOUND, ROUSE_NOT_FOUND},
    {ERROR_NOT_FOUND, ROUSE_NOT_FOUND},
    {ERROR_ALREADY_EXISTS, ROUSE_ALREADY_EXISTS},
    {ERROR_FILE_EXISTS, ROUSE_ALREADY_EXISTS},
    {ERROR_GEN_FAILURE, ROUSE_IO_ERROR},
    {ERROR_IO_DEVICE, ROUSE_IO_ERROR},
    {WSAEMSGSIZE, ROUSE_MESSAGE_TOO_LONG},
    {ERROR_MORE_DATA, ROUSE_MESSAGE_TOO_LONG},
    {WSAENAMETOOLONG, ROUSE_NAME_TOO_LONG},
    {WSAEBADF, ROUSE_BAD_DESCRIPTOR},
    {WSAENOTSOCK, ROUSE_BAD_DESCRIPTOR},        /* also for a handle that was closed; os_handle_kind tells them apart */
    {WSA_INVALID_HANDLE, ROUSE_BAD_DESCRIPTOR}, /* ERROR_INVALID_HANDLE as well */
    {ERROR_BUSY, ROUSE_BUSY},
    {WSA_OPERATION_ABORTED, ROUSE_CANCELLED}, /* ERROR_OPERATION_ABORTED as well */
    {WSAEINVAL, ROUSE_INVALID},
    {WSAEFAULT, ROUSE_INVALID},
    {WSAEDESTADDRREQ, ROUSE_INVALID},
    {WSA_INVALID_PARAMETER, ROUSE_INVALID}, /* ERROR_INVALID_PARAMETER as well */
    {ERROR_NOACCESS, ROUSE_INVALID},
    {WSAEOPNOTSUPP, ROUSE_NOT_SUPPORTED},
    {WSAEAFNOSUPPORT, ROUSE_NOT_SUPPORTED},
    {WSAEPFNOSUPPORT, ROUSE_NOT_SUPPORTED},
    {WSAEPROTONOSUPPORT, ROUSE_NOT_SUPPORTED},
    {WSAESOCKTNOSUPPORT, ROUSE_NOT_SUPPORTED},
    {WSAEPROTOTYPE, ROUSE_NOT_SUPPORTED},
    {WSAENOPROTOOPT, ROUSE_NOT_SUPPORTED},
    {WSAVERNOTSUPPORTED, ROUSE_NOT_SUPPORTED},
    {ERROR_NOT_SUPPORTED, ROUSE_NOT_SUPPORTED},
    {ERROR_CALL_NOT_IMPLEMENTED, ROUSE_NOT_SUPPORTED},
    {ERROR_INVALID_FUNCTION, ROUSE_NOT_SUPPORTED},
    {0, ROUSE_OK},
};

int os_status(unsigned long error)
{
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        if (statuses[i].error == error)
            return statuses[i].status;
    return ROUSE_UNKNOWN;
}

/* By number: ntstatus.h and windows.h define some of these names both. */
static const struct {
    uint32_t error;
    int status;
} nt_statuses[] = {
    {0x00000103, ROUSE_PENDING},               /* STATUS_PENDING */
    {0x00000102, ROUSE_TIMED_OUT},             /* TIMEOUT */
    {0xc000020d, ROUSE_CONNECTION_RESET},      /* CONNECTION_RESET */
    {0xc000020c, ROUSE_CONNECTION_RESET},      /* CONNECTION_DISCONNECTED */
    {0xc000013c, ROUSE_CONNECTION_RESET},      /* REMOTE_DISCONNECT */
    {0xc000013b, ROUSE_CONNECTION_ABORTED},    /* LOCAL_DISCONNECT */
    {0xc0000241, ROUSE_CONNECTION_ABORTED},    /* CONNECTION_ABORTED */
    {0xc0000236, ROUSE_CONNECTION_REFUSED},    /* CONNECTION_REFUSED */
    {0xc000023f, ROUSE_CONNECTION_REFUSED},    /* PORT_UNREACHABLE */
    {0xc00000b5, ROUSE_TIMED_OUT},             /* IO_TIMEOUT */
    {0xc000023c, ROUSE_NETWORK_UNREACHABLE},   /* NETWORK_UNREACHABLE */
    {0xc000023d, ROUSE_HOST_UNREACHABLE},      /* HOST_UNREACHABLE */
    {0xc000023e, ROUSE_HOST_UNREACHABLE},      /* PROTOCOL_UNREACHABLE */
    {0xc000023a, ROUSE_NOT_CONNECTED},         /* CONNECTION_INVALID */
    {0xc000020a, ROUSE_ADDRESS_IN_USE},        /* ADDRESS_ALREADY_EXISTS */
    {0xc0000043, ROUSE_ADDRESS_IN_USE},        /* SHARING_VIOLATION */
    {0xc0000141, ROUSE_ADDRESS_NOT_AVAILABLE}, /* INVALID_ADDRESS_COMPONENT */
    {0xc000014b, ROUSE_BROKEN_PIPE},           /* PIPE_BROKEN */
    {0xc0000120, ROUSE_CANCELLED},             /* CANCELLED */
    {0xc0000017, ROUSE_NO_MEMORY},             /* NO_MEMORY */
    {0xc000012d, ROUSE_NO_MEMORY},             /* COMMITMENT_LIMIT */
    {0xc0000044, ROUSE_NO_MEMORY},             /* QUOTA_EXCEEDED */
    {0xc000009a, ROUSE_NO_BUFFERS},            /* INSUFFICIENT_RESOURCES */
    {0xc00000a1, ROUSE_NO_BUFFERS},            /* WORKING_SET_QUOTA */
    {0xc000011f, ROUSE_TOO_MANY_FILES},        /* TOO_MANY_OPENED_FILES */
    {0xc0000022, ROUSE_PERMISSION_DENIED},     /* ACCESS_DENIED */
    {0xc0000008, ROUSE_BAD_DESCRIPTOR},        /* INVALID_HANDLE */
    {0xc0000024, ROUSE_BAD_DESCRIPTOR},        /* OBJECT_TYPE_MISMATCH */
    {0xc0000128, ROUSE_BAD_DESCRIPTOR},        /* FILE_CLOSED */
    {0x8000000a, ROUSE_BAD_DESCRIPTOR},        /* HANDLES_CLOSED */
    {0xc0000225, ROUSE_NOT_FOUND},             /* NOT_FOUND */
    {0xc0000034, ROUSE_NOT_FOUND},             /* OBJECT_NAME_NOT_FOUND */
    {0xc000000d, ROUSE_INVALID},               /* INVALID_PARAMETER */
    {0xc0000005, ROUSE_INVALID},               /* ACCESS_VIOLATION */
    {0xc0000002, ROUSE_NOT_SUPPORTED},         /* NOT_IMPLEMENTED */
    {0xc00000bb, ROUSE_NOT_SUPPORTED},         /* NOT_SUPPORTED */
    {0xc0000010, ROUSE_NOT_SUPPORTED},         /* INVALID_DEVICE_REQUEST */
    {0x00000000, ROUSE_OK},
};

int os_nt_status(long error)
{
    for (size_t i = 0; i < sizeof nt_statuses / sizeof nt_statuses[0]; i++)
        if (nt_statuses[i].error == (uint32_t)error)
            return nt_statuses[i].status;
    return ROUSE_UNKNOWN;
}

/* ---- functions that not every Windows has ---- */

void *os_system_function(atomic_ptr *known, const wchar_t *library, const char *name)
{
    void *function = atomic_ptr_load(known, RELAXED);
    if (function != NULL)
        return function;
    /* By its name alone a library would be looked for in the program's folder first. */
    HMODULE module = LoadLibraryExW(library, NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
    function = module != NULL ? (void *)(uintptr_t)GetProcAddress(module, name) : NULL;
    atomic_ptr_store(known, function, RELAXED);
    return function;
}

/* ---- clock ---- */

/* Smaller steps back are differences between processors, which pass: correcting them would make the clock run fast. */
#define SMALL_STEP_NS ROUSE_MS(1)

static atomic_i64 correction; /* only grows */

static int64_t counter_frequency(void)
{
    static atomic_i64 known; /* fixed when the system starts */
    int64_t frequency = atomic_i64_load(&known, RELAXED);
    if (frequency == 0) {
        LARGE_INTEGER answer;
        (void)QueryPerformanceFrequency(&answer);
        frequency = answer.QuadPart;
        atomic_i64_store(&known, frequency, RELAXED);
    }
    return frequency;
}

static int64_t counter_ns(void)
{
    int64_t frequency = counter_frequency();
    LARGE_INTEGER counter;
    (void)QueryPerformanceCounter(&counter); /* neither call can fail since Windows XP */
    int64_t seconds = counter.QuadPart / frequency, rest = counter.QuadPart % frequency;
    return seconds * 1000000000 + rest * 1000000000 / frequency;
}

OS_NOINLINE int64_t os_now(void)
{
    int64_t *last = &os_thread_local()->now_ns;
    for (;;) {
        /* Before the clock is read: a reading from before a step must not meet the correction made after it. */
        int64_t corrected = atomic_i64_load(&correction, ACQUIRE);
        int64_t now = counter_ns() + corrected;
        if (now >= *last) {
            *last = now;
            return now;
        }
        if (*last - now < SMALL_STEP_NS)
            return *last;
        /* The first thread to see the step moves the correction; the others find it moved and read again. */
        if (atomic_i64_cas(&correction, &corrected, corrected + (*last - now), ACQ_REL, RELAXED))
            return *last;
    }
}

DWORD os_milliseconds(int64_t deadline_ns)
{
    if (deadline_ns == ROUSE_NEVER)
        return INFINITE;
    int64_t now_ns = os_now();
    if (deadline_ns <= now_ns)
        return 0;
    int64_t left_ns = deadline_ns - now_ns;
    int64_t milliseconds = left_ns / 1000000 + (left_ns % 1000000 != 0);
    return milliseconds < INFINITE ? (DWORD)milliseconds : INFINITE - 1;
}

/* ---- random numbers ---- */

/* The finalizer of splitmix64. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* Should the system refuse: not secret, but different for each call, process and boot. */
static uint64_t weak_random(void)
{
    static atomic_u64 calls;
    FILETIME real;
    GetSystemTimePreciseAsFileTime(&real);
    uint64_t x = mix((uint64_t)os_now() ^ ((uint64_t)GetCurrentProcessId() << 40));
    x = mix(x ^ ((uint64_t)real.dwHighDateTime << 32 | real.dwLowDateTime));
    x = mix(x ^ (uint64_t)(uintptr_t)&real);
    return mix(x + atomic_u64_add(&calls, UINT64_C(0x9e3779b97f4a7c15), RELAXED));
}

/* RtlGenRandom by its real name: what is documented instead, BCryptGenRandom, needs a library for this one call. */
uint64_t os_random(void)
{
    typedef BOOLEAN WINAPI generator(void *, ULONG);
    static atomic_ptr known;
    uint64_t value;
    generator *generate = (generator *)(uintptr_t)os_system_function(&known, L"advapi32.dll", "SystemFunction036");
    return generate != NULL && generate(&value, sizeof value) ? value : weak_random();
}

/* ---- processors ---- */

static unsigned count_bits(uint64_t word)
{
    unsigned count = 0;
    for (; word != 0; word &= word - 1)
        count++;
    return count;
}

/* The mask is of the processor group that the process lives in; it is 0 where the process has threads in several. Since
 * Windows 11 threads spread over all groups by themselves, so that all count unless the process was confined to some. */
unsigned os_processors(void)
{
    DWORD_PTR allowed = 0, there = 0;
    USHORT groups[64], count = 64;
    bool known = GetProcessAffinityMask(GetCurrentProcess(), &allowed, &there) != 0 && allowed != 0;
    bool in_several = GetProcessGroupAffinity(GetCurrentProcess(), &count, groups) != 0 && count > 1;
    if (known && (!in_several || allowed != there))
        return count_bits(allowed);
    DWORD active = GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
    return active > 0 ? (unsigned)active : 1;
}

/* ---- the end of the process ---- */

/* In a DLL the hooks run when it is unloaded. */
int os_at_exit(void (*hook)(void))
{
    return atexit(hook) == 0 ? ROUSE_OK : ROUSE_NO_MEMORY;
}

/* ---- fork ---- */

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
    (void)order;
    (void)hook;
}
