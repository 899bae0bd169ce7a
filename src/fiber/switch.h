/* Changing from one stack to another.
 *
 * A context is where a stack was left: its stack pointer, with everything else lying on that stack. switch_to leaves
 * one and resumes another on the same thread; a context may be resumed by another thread than the one that left it.
 *
 * What belongs to a context and survives a switch:
 *   - the registers which a called function must preserve;
 *   - the floating point control of <fenv.h>: rounding direction and enabled traps. A new context inherits those of the
 *     thread that prepares it. Not kept: the exception flags (fetestexcept), and control that exists only for SSE and
 *     is set past <fenv.h> (flush-to-zero, denormals-are-zero, _MM_SET_ROUNDING_MODE): these belong to the thread;
 *   - the C++ exceptions being handled, when the program has a C++ runtime from its start.
 * What belongs to the thread: errno and all other thread-local storage, and the signal mask (swapcontext, the
 * portable variant where POSIX is, keeps a mask for each context, at the price of a system call).
 *
 * Alternatives that lost, in nanoseconds for one switch on an AMD EPYC: swapcontext 250; resuming with ret 7.0, because
 * the processor predicts it from the calls of the other stack; saving MXCSR in each switch 5.2 (its store alone costs
 * 2.5). The x87 control word, which <fenv.h> always changes together with MXCSR, is read in 0.2 and tells when there is
 * something to do; 2.4 in all. On AArch64 the whole floating point control register is kept, flush-to-zero included. */
#ifndef ROUSE_FIBER_SWITCH_H
#define ROUSE_FIBER_SWITCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(ROUSE_FIBER_PORTABLE) && !defined(_WIN32)
#define SWITCH_BY_UCONTEXT 1
#include <ucontext.h>
#endif

/* What the C++ runtime keeps for each thread and must keep for each stack instead: without that, a fiber which waits
 * inside a catch block would find another fiber's exception there. The layout is the C++ ABI's. */
struct switch_exceptions {
    void *caught;      /* the stack of exceptions whose handlers have not ended */
    unsigned uncaught; /* how many were thrown and not yet caught */
#if defined(__ARM_EABI_UNWINDER__)
    void *propagating; /* those between throw and catch */
#endif
};

struct switch_context {
    void *sp;                            /* where the stack was left; only a hint with ucontext */
    struct switch_exceptions exceptions; /* of this stack, while it is left; empty while it runs */
    struct switch_exceptions *of_thread; /* the C++ runtime's, of the thread that runs it; NULL: not known */
#if defined(SWITCH_BY_UCONTEXT)
    ucontext_t registers;          /* what swapcontext saves */
    void (*entry)(void *argument); /* for the first resumption: makecontext passes no pointers */
    void *argument;                /* of entry */
#endif
};

/* Makes a context that, when it is resumed for the first time, calls entry(argument) at the upper end of the memory
 * [stack_low, stack_low + stack_bytes). entry never returns: that is a trap. */
static inline void switch_prepare(struct switch_context *context, void *stack_low, size_t stack_bytes,
                                  void (*entry)(void *argument), void *argument);

/* Leaves the running stack in *save and resumes *load; returns when somebody resumes *save. A context for the thread's
 * own stack starts zeroed, and is zeroed again before another thread leaves its stack in it. */
static inline void switch_to(struct switch_context *save, struct switch_context *load);

/* Where the system grows stacks (os_stacks_grow) it has to know how far down the memory of a stack is committed, its limit,
 * and where the memory begins in all. switch_set_limit says so after switch_prepare, which takes both for the lower end;
 * switch_limit answers how far it is now, of a context that was left, and `before` where nobody knows. */
static inline void switch_set_limit(struct switch_context *context, void *limit, void *end);
static inline void *switch_limit(const struct switch_context *context, void *before);

/* ---- implementation ---- */

#if defined(__ELF__)
/* NULL unless the program was linked with a C++ runtime; one that dlopen brings later is not seen. */
extern void *__cxa_get_globals(void) __attribute__((weak));
#define SWITCH_HAS_EXCEPTIONS (__cxa_get_globals != NULL)
#define SWITCH_EXCEPTIONS()   __cxa_get_globals()
#else
#define SWITCH_HAS_EXCEPTIONS false
#define SWITCH_EXCEPTIONS()   NULL
#endif

/* The address of the thread's goes from context to context, because asking for it costs as much as two switches. Almost
 * always both sides have none; then nothing is copied. */
static inline void switch_exceptions_exchange(struct switch_context *save, struct switch_context *load)
{
    if (!SWITCH_HAS_EXCEPTIONS)
        return;
    struct switch_exceptions *current = save->of_thread ? save->of_thread : SWITCH_EXCEPTIONS();
    load->of_thread = current;
    if (current->caught || current->uncaught || load->exceptions.caught || load->exceptions.uncaught) {
        save->exceptions = *current;
        *current = load->exceptions;
        load->exceptions = (struct switch_exceptions){0};
    }
}

#if defined(SWITCH_BY_UCONTEXT)

void switch_registers_prepare(struct switch_context *context, void *stack_low, size_t stack_bytes);
void switch_registers(struct switch_context *save, struct switch_context *load);

static inline void switch_prepare(struct switch_context *context, void *stack_low, size_t stack_bytes,
                                  void (*entry)(void *argument), void *argument)
{
    context->exceptions = (struct switch_exceptions){0};
    context->of_thread = NULL;
    context->sp = (char *)stack_low + stack_bytes;
    context->entry = entry;
    context->argument = argument;
    switch_registers_prepare(context, stack_low, stack_bytes);
}

static inline void switch_to(struct switch_context *save, struct switch_context *load)
{
    switch_exceptions_exchange(save, load);
    switch_registers(save, load);
}

#else

/* In the assembly file of the target, or switch_portable_windows.c. switch_frame writes below `top` what switch_stacks
 * expects on a stack that it
 * resumes, and answers the stack pointer. `low`, the lower end, is looked at where the system wants to know it. */
void *switch_frame(void *top, void (*entry)(void *argument), void *argument, void *low);
void switch_stacks(void **save_sp, void *load_sp);

static inline void switch_prepare(struct switch_context *context, void *stack_low, size_t stack_bytes,
                                  void (*entry)(void *argument), void *argument)
{
    context->exceptions = (struct switch_exceptions){0};
    context->of_thread = NULL;
    context->sp = switch_frame((char *)stack_low + stack_bytes, entry, argument, stack_low);
}

static inline void switch_to(struct switch_context *save, struct switch_context *load)
{
    switch_exceptions_exchange(save, load);
    switch_stacks(&save->sp, load->sp);
}

#endif

#if defined(_WIN32)
/* Where they are kept, from the stack pointer upwards. */
#if defined(ROUSE_FIBER_PORTABLE)
#define SWITCH_LIMIT_OFFSET 0
#define SWITCH_END_OFFSET   8
#else
#define SWITCH_LIMIT_OFFSET 0xb0
#define SWITCH_END_OFFSET   0xb8
#endif

static inline void switch_set_limit(struct switch_context *context, void *limit, void *end)
{
    *(void **)(void *)((char *)context->sp + SWITCH_LIMIT_OFFSET) = limit;
    *(void **)(void *)((char *)context->sp + SWITCH_END_OFFSET) = end;
}

static inline void *switch_limit(const struct switch_context *context, void *before)
{
    (void)before;
    return *(void **)(void *)((char *)context->sp + SWITCH_LIMIT_OFFSET);
}
#else
static inline void switch_set_limit(struct switch_context *context, void *limit, void *end)
{
    (void)context;
    (void)limit;
    (void)end;
}

static inline void *switch_limit(const struct switch_context *context, void *before)
{
    (void)context;
    return before;
}
#endif
#endif
