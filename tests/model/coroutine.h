/* Coroutines for the explorer, which switches far more often than it does anything else.
 *
 * Of its own and not the library's fibers, which are among the things that models should be able to ask about. A switch
 * saves the registers that a function must keep; where there is no assembly for the processor, <ucontext.h> does it,
 * slower. A coroutine can be abandoned anywhere and started anew. */
#ifndef MODEL_COROUTINE_H
#define MODEL_COROUTINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define COROUTINE_ADDRESS_SANITIZER 1
#endif
#if __has_feature(thread_sanitizer)
#define COROUTINE_THREAD_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(COROUTINE_ADDRESS_SANITIZER)
#define COROUTINE_ADDRESS_SANITIZER 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(COROUTINE_THREAD_SANITIZER)
#define COROUTINE_THREAD_SANITIZER 1
#endif

#if defined(COROUTINE_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(COROUTINE_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#define COROUTINE_VALGRIND 1
#endif
#endif

#if defined(__x86_64__) && defined(__ELF__) && !defined(COROUTINE_PORTABLE)
#define COROUTINE_ASSEMBLY 1
#else
#include <ucontext.h>
#endif

enum { COROUTINE_STACK_BYTES = 256 * 1024 };

struct coroutine {
#if defined(COROUTINE_ASSEMBLY)
    void *stack_pointer; /* while not running; its registers lie on top of its stack */
#else
    ucontext_t context; /* while not running */
#endif
    char *stack;        /* COROUTINE_STACK_BYTES; NULL for the thread's own */
    void (*body)(void); /* called again each time it has returned and the coroutine is switched to */
#if defined(COROUTINE_ADDRESS_SANITIZER)
    const void *low; /* of the stack */
    size_t bytes;    /* of the stack */
    void *fake;      /* the sanitizer's own stack for locals, while not running */
#elif defined(COROUTINE_THREAD_SANITIZER)
    void *fiber;        /* the sanitizer's name for it */
#endif
#if defined(COROUTINE_VALGRIND)
    unsigned valgrind; /* its name for the stack */
#endif
};

extern struct coroutine coroutine_main;      /* the thread's own stack */
extern struct coroutine *coroutine_starting; /* whose first switch this is */

#if defined(COROUTINE_ASSEMBLY)
void coroutine_switch_stacks(void **save, void *load);
#endif

/* Leaves `from` where it stands and goes on with `to`. */
static inline __attribute__((always_inline)) void coroutine_switch(struct coroutine *from, struct coroutine *to)
{
#if defined(COROUTINE_ADDRESS_SANITIZER)
    __sanitizer_start_switch_fiber(&from->fake, to->low, to->bytes);
#elif defined(COROUTINE_THREAD_SANITIZER)
    if (!from->fiber)
        from->fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
#if defined(COROUTINE_ASSEMBLY)
    coroutine_switch_stacks(&from->stack_pointer, to->stack_pointer);
#else
    swapcontext(&from->context, &to->context);
#endif
#if defined(COROUTINE_ADDRESS_SANITIZER)
    __sanitizer_finish_switch_fiber(from->fake, NULL, NULL);
#endif
}

bool coroutine_init(struct coroutine *coroutine, void (*body)(void));
void coroutine_fini(struct coroutine *coroutine);

/* Puts the coroutine back to its start, wherever it was. The next switch to it must come from coroutine_main, with
 * coroutine_starting set. */
void coroutine_restart(struct coroutine *coroutine);

#endif
