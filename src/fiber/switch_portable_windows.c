/* The switch for Windows without assembly, on any processor with 64 bits: the registers of a thread as the system itself
 * captures and restores them, RtlCaptureContext and RtlRestoreContext.
 *
 * Lost: the system's fibers (CreateFiberEx, SwitchToFiber). Each comes with a stack that the system makes for it, so ours
 * would be there twice, and what is said about ours (which overflow is whose, how deep one was used, what memory is given
 * back) would not be true of the one that runs. To make one can fail, and a fiber begins where nothing can. And a thread has to
 * be turned into a fiber before it can leave for another one, which is not ours to do with a thread of the program's.
 *
 * A stack that was left holds a struct left at its stack pointer. Like the assembly this keeps four words of the thread
 * block for each stack: the reasons stand in switch_x86_64_win64.S. Unlike there, the floating point's exception flags
 * belong to the stack as well. */
#include "fiber/switch.h"

#if defined(_WIN32) && defined(ROUSE_FIBER_PORTABLE)

#include "os/compiler.h"

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Warray-bounds" /* of the headers: GCC takes the offset in the thread block for an address */
#endif

#if !defined(_WIN64)
#error "There is no RtlRestoreContext for this target."
#endif

/* The thread block's word for the lowest end of the stack, reserved memory included, which headers do not name. */
#define DEALLOCATION_STACK 0x1478

struct left {
    void *limit;              /* how far down the stack is committed; at SWITCH_LIMIT_OFFSET */
    void *end;                /* its lower end; at SWITCH_END_OFFSET */
    void *base;               /* its upper end */
    void *frames;             /* of exception handlers, which these processors do not use, but Wine does */
    CONTEXT registers;        /* to go on with */
    volatile bool is_resumed; /* RtlCaptureContext has returned for the second time */
};

_Static_assert(offsetof(struct left, limit) == SWITCH_LIMIT_OFFSET, "switch.h says where");
_Static_assert(offsetof(struct left, end) == SWITCH_END_OFFSET, "likewise");

static void **end_of_stack(NT_TIB *block)
{
    return (void **)(void *)((char *)block + DEALLOCATION_STACK);
}

/* The thread block tells of the other stack a moment before it runs: this one must not have to grow in between. */
static OS_NOINLINE void make_room(void)
{
    *(volatile char *)OS_ALLOCA(2048) = 0;
}

OS_NOINLINE void switch_stacks(void **save_sp, void *load_sp)
{
    struct left here, *there = load_sp;
    NT_TIB *block = (NT_TIB *)NtCurrentTeb();
    here.is_resumed = false;
    make_room();
    RtlCaptureContext(&here.registers);
    if (here.is_resumed)
        return;
    here.is_resumed = true;
    here.registers.ContextFlags = CONTEXT_FULL;
    here.limit = block->StackLimit;
    here.end = *end_of_stack(block);
    here.base = block->StackBase;
    here.frames = block->ExceptionList;
    *save_sp = &here;
    block->StackBase = there->base;
    block->StackLimit = there->limit;
    *end_of_stack(block) = there->end;
    block->ExceptionList = there->frames;
    RtlRestoreContext(&there->registers, NULL);
    OS_TRAP();
}

/* ---- the first thing on a new stack ---- */

/* What no handler takes ends here, as it does where the system starts a thread. */
#if defined(_MSC_VER) && !defined(__clang__)
static LONG filter(EXCEPTION_POINTERS *what)
{
    LONG answer = UnhandledExceptionFilter(what);
    if (answer == EXCEPTION_EXECUTE_HANDLER)
        (void)TerminateProcess(GetCurrentProcess(), what->ExceptionRecord->ExceptionCode);
    return answer;
}

static void start(void (*entry)(void *argument), void *argument)
{
    __try {
        entry(argument);
        OS_TRAP();
    } __except (filter(GetExceptionInformation())) {
    }
}
#else
static OS_NOINLINE void start(void (*entry)(void *argument), void *argument)
{
    __asm__ volatile(".seh_handler switch_unhandled, @except");
    entry(argument);
    OS_TRAP();
}
#endif

/* The rest of the registers, the control of floating point among them, are those of the thread that prepares the stack. */
void *switch_frame(void *top, void (*entry)(void *argument), void *argument, void *low)
{
    uintptr_t address = ((uintptr_t)top - sizeof(struct left)) & ~(uintptr_t)63;
    struct left *left = (struct left *)address;
    left->limit = left->end = low;
    left->base = top;
    left->frames = (void *)UINTPTR_MAX; /* none */
    left->is_resumed = true;
    RtlCaptureContext(&left->registers);
    left->registers.ContextFlags = CONTEXT_FULL;
#if defined(_M_ARM64) || defined(__aarch64__)
    left->registers.Pc = (uintptr_t)start;
    left->registers.X0 = (uintptr_t)entry;
    left->registers.X1 = (uintptr_t)argument;
    left->registers.Sp = address;
    left->registers.Fp = left->registers.Lr = 0; /* nobody called */
#else
    void **called_from = (void **)(void *)left - 5; /* above it, the room that each function may use of its caller's */
    *called_from = NULL;                            /* nobody called */
    left->registers.Rip = (uintptr_t)start;
    left->registers.Rcx = (uintptr_t)entry;
    left->registers.Rdx = (uintptr_t)argument;
    left->registers.Rsp = (uintptr_t)called_from;
    left->registers.Rbp = 0;
#endif
    return left;
}

#else
typedef int nothing; /* C has no empty files */
#endif
