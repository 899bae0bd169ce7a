/* The switch for targets without one in assembly, but for Windows: ucontext, which POSIX once had and most C libraries
 * still have. Each
 * switch costs a system call for the signal mask. Where shadow stacks are switched on, the C library gives each context
 * one. AddressSanitizer makes its own guess at swapcontext and wipes the red zones of what is resumed: it finds less. */
#include "fiber/switch.h"

#if defined(ROUSE_FIBER_PORTABLE) && !defined(_WIN32)

/* Arguments of makecontext are ints, so the pointer comes in two halves. */
static void start(unsigned high, unsigned low)
{
    struct switch_context *context = (void *)(((uintptr_t)high << 16 << 16) | low);
    context->entry(context->argument);
    __builtin_trap();
}

void switch_registers_prepare(struct switch_context *context, void *stack_low, size_t stack_bytes)
{
    uintptr_t address = (uintptr_t)context;
    getcontext(&context->registers); /* only fails for a signal mask that the kernel does not know */
    context->registers.uc_stack.ss_sp = stack_low;
    context->registers.uc_stack.ss_size = stack_bytes;
    context->registers.uc_link = NULL;
    makecontext(&context->registers, (void (*)(void))start, 2, (unsigned)(address >> 16 >> 16), (unsigned)address);
}

void switch_registers(struct switch_context *save, struct switch_context *load)
{
    save->sp = __builtin_frame_address(0);
    swapcontext(&save->registers, &load->registers); /* fails as little */
}

#else
typedef int nothing; /* C has no empty files */
#endif
