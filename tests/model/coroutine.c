#include "coroutine.h"

#include <stdlib.h>
#include <string.h>

struct coroutine coroutine_main;
struct coroutine *coroutine_starting;

#if defined(COROUTINE_ASSEMBLY)
/* Resumed by a jump: a `ret` on another stack is predicted wrongly each time. */
__asm__(".text\n"
        ".p2align 4\n"
        ".hidden coroutine_switch_stacks\n"
        ".globl coroutine_switch_stacks\n"
        ".type coroutine_switch_stacks, @function\n"
        "coroutine_switch_stacks:\n"
        "pushq %rbp\n"
        "pushq %rbx\n"
        "pushq %r12\n"
        "pushq %r13\n"
        "pushq %r14\n"
        "pushq %r15\n"
        "movq %rsp, (%rdi)\n"
        "movq %rsi, %rsp\n"
        "popq %r15\n"
        "popq %r14\n"
        "popq %r13\n"
        "popq %r12\n"
        "popq %rbx\n"
        "popq %rbp\n"
        "popq %rcx\n"
        "jmp *%rcx\n"
        ".size coroutine_switch_stacks, .-coroutine_switch_stacks\n");
#endif

/* The bottom of each coroutine's stack; entered from coroutine_main only. */
static void boot(void)
{
    struct coroutine *self = coroutine_starting;
#if defined(COROUTINE_ADDRESS_SANITIZER)
    __sanitizer_finish_switch_fiber(NULL, &coroutine_main.low, &coroutine_main.bytes);
#endif
    for (;;)
        self->body(); /* which ends by a switch, not by returning, unless it is to run again */
}

void coroutine_restart(struct coroutine *coroutine)
{
#if defined(COROUTINE_ADDRESS_SANITIZER)
    __asan_unpoison_memory_region(coroutine->stack, COROUTINE_STACK_BYTES);
    coroutine->low = coroutine->stack;
    coroutine->bytes = COROUTINE_STACK_BYTES;
    coroutine->fake = NULL;
#elif defined(COROUTINE_THREAD_SANITIZER)
    if (coroutine->fiber)
        __tsan_destroy_fiber(coroutine->fiber);
    coroutine->fiber = __tsan_create_fiber(0);
#endif
#if defined(COROUTINE_ASSEMBLY)
    /* What coroutine_switch_stacks pops: six registers and where to go on; above them the alignment of a call. */
    void **top = (void **)(void *)(coroutine->stack + COROUTINE_STACK_BYTES) - 10;
    memset(top, 0, 10 * sizeof *top);
    top[6] = (void *)(uintptr_t)boot;
    coroutine->stack_pointer = top;
#else
    getcontext(&coroutine->context);
    coroutine->context.uc_stack.ss_sp = coroutine->stack;
    coroutine->context.uc_stack.ss_size = COROUTINE_STACK_BYTES;
    coroutine->context.uc_link = NULL;
    makecontext(&coroutine->context, boot, 0);
#endif
}

bool coroutine_init(struct coroutine *coroutine, void (*body)(void))
{
    memset(coroutine, 0, sizeof *coroutine);
    coroutine->body = body;
    coroutine->stack = malloc(COROUTINE_STACK_BYTES);
    if (!coroutine->stack)
        return false;
#if defined(COROUTINE_VALGRIND)
    coroutine->valgrind = VALGRIND_STACK_REGISTER(coroutine->stack, coroutine->stack + COROUTINE_STACK_BYTES);
#endif
    return true;
}

void coroutine_fini(struct coroutine *coroutine)
{
#if defined(COROUTINE_ADDRESS_SANITIZER)
    __asan_unpoison_memory_region(coroutine->stack, COROUTINE_STACK_BYTES);
#elif defined(COROUTINE_THREAD_SANITIZER)
    if (coroutine->fiber)
        __tsan_destroy_fiber(coroutine->fiber);
#endif
#if defined(COROUTINE_VALGRIND)
    VALGRIND_STACK_DEREGISTER(coroutine->valgrind);
#endif
    free(coroutine->stack);
}
