/* Threads, what each has of its own, and sleeping on a word. */
#include "os/os_windows.h"

#include <process.h>
#include <string.h>

/* ---- threads ---- */

#define NAME_MAX_BYTES 16

struct start {
    void (*body)(void *);
    void *argument;
    char name[NAME_MAX_BYTES];
};

static void name_this_thread(const char *name)
{
    typedef HRESULT WINAPI describer(HANDLE, PCWSTR);
    static atomic_ptr known;
    wchar_t wide[NAME_MAX_BYTES];
    if (name[0] == '\0' || MultiByteToWideChar(CP_UTF8, 0, name, -1, wide, NAME_MAX_BYTES) == 0)
        return;
    /* Since Windows 10 1607. */
    describer *describe = (describer *)(uintptr_t)os_system_function(&known, L"kernel32.dll", "SetThreadDescription");
    if (describe != NULL)
        (void)describe(GetCurrentThread(), wide);
}

static unsigned __stdcall run(void *argument)
{
    struct start start = *(struct start *)argument;
    os_free(argument);
    name_this_thread(start.name);
    start.body(start.argument);
    return 0;
}

/* Not CreateThread: what users run in tasks needs the C library, which prepares its threads. */
int os_thread_start(os_thread *thread, void (*body)(void *), void *argument, const char *name)
{
    struct start *start = os_alloc(sizeof *start, sizeof(void *));
    if (start == NULL)
        return ROUSE_NO_MEMORY;
    start->body = body;
    start->argument = argument;
    size_t length = name != NULL ? strnlen(name, NAME_MAX_BYTES - 1) : 0;
    memcpy(start->name, name != NULL ? name : "", length);
    start->name[length] = '\0';
    uintptr_t handle = _beginthreadex(NULL, 0, run, start, 0, NULL);
    if (handle == 0) {
        os_free(start);
        return ROUSE_NO_THREAD;
    }
    thread->id = handle;
    return ROUSE_OK;
}

void os_thread_join(os_thread *thread)
{
    HANDLE handle = (HANDLE)thread->id;
    (void)WaitForSingleObject(handle, INFINITE);
    (void)CloseHandle(handle);
}

void os_thread_yield(void)
{
    (void)SwitchToThread();
}

/* ---- what each thread has of its own ----
 *
 * The system's thread-local storage, which comes with each thread and cannot be missing. GCC does not know it for this
 * target: its own is emulated with an allocation at the first use, and ends the process if that fails. So there the two
 * things that a compiler does are written out: a variable in the section whose contents each thread gets a copy of, and the
 * way to the copy: the thread block's array of copies, one for each module. */

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)

/* In capitals: sorted by name, it must come before ".tls$ZZZ", where the copy ends. */
__attribute__((section(".tls$ROUSE"), used)) struct os_thread_local os_thread_local_first;
extern unsigned long _tls_index; /* of this module; the C library's, filled in by the loader */

OS_NOINLINE struct os_thread_local *os_thread_local(void)
{
    char *copy;
    __asm__ volatile("movq %%gs:0x58, %0\n\t"
                     "movq (%0, %1, 8), %0\n\t"
                     "leaq os_thread_local_first@SECREL32(%0), %0"
                     : "=&r"(copy)
                     : "r"((uint64_t)_tls_index));
    return (struct os_thread_local *)(void *)copy;
}

#else

#if defined(_MSC_VER)
static __declspec(thread) struct os_thread_local local;
#else
static _Thread_local struct os_thread_local local;
#endif

OS_NOINLINE struct os_thread_local *os_thread_local(void)
{
    return &local;
}

#endif

OS_NOINLINE void *os_current(void)
{
    return os_thread_local()->current;
}

OS_NOINLINE void os_current_set(void *value)
{
    os_thread_local()->current = value;
}

/* ---- sleeping on a word ---- */

/* What it answers is of no interest: woken, too late and already different all look the same outside. */
void os_wait_on(const uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
    DWORD milliseconds = os_milliseconds(deadline_ns);
    if (milliseconds > 0)
        (void)WaitOnAddress((volatile VOID *)(uintptr_t)word, &expected, sizeof expected, milliseconds);
}

void os_wake_one(const uint32_t *word)
{
    WakeByAddressSingle((PVOID)(uintptr_t)word);
}

void os_wake_all(const uint32_t *word)
{
    WakeByAddressAll((PVOID)(uintptr_t)word);
}
