/* Tells tools that watch memory about fibers: AddressSanitizer and ThreadSanitizer of each switch, LeakSanitizer and
 * valgrind of the stacks. Without sanitizer an annotation is one byte and its calls are nothing; without valgrind's
 * header at compile time valgrind is told nothing.
 *
 * LeakSanitizer sees only the stacks of threads, so each stack in use is a root: all of it, also the part below the
 * stack pointer, where an old pointer may hide a leak. Reporting the stack pointer at each switch would cost a search
 * through all stacks, each time. Stacks in use are in a list that unregistering searches: fine for some 10,000.
 *
 * GCC 12's ThreadSanitizer dies above 8,128 fibers. */
#ifndef ROUSE_FIBER_ANNOTATE_H
#define ROUSE_FIBER_ANNOTATE_H

#include <stdbool.h>
#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ANNOTATE_ADDRESS 1
#endif
#if __has_feature(thread_sanitizer)
#define ANNOTATE_THREAD 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(ANNOTATE_ADDRESS)
#define ANNOTATE_ADDRESS 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(ANNOTATE_THREAD)
#define ANNOTATE_THREAD 1
#endif

#if defined(ANNOTATE_ADDRESS)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#elif defined(ANNOTATE_THREAD)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(__has_include) && !defined(_WIN32)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define ANNOTATE_VALGRIND 1
#endif
#endif

/* ThreadSanitizer counts the calls that are on a stack; a function which returned on another stack than it was called
 * on would be counted on the wrong one. Hence no function of its own for these. */
#define ANNOTATE_INLINE static inline __attribute__((always_inline))

/* One for each fiber, and one for each thread's own stack that switches to fibers. */
struct annotation {
#if defined(ANNOTATE_ADDRESS)
    const void *low;  /* of the stack; for a thread's own filled in when a fiber is switched to */
    size_t bytes;     /* of the stack, likewise */
    void *fake_stack; /* where locals live while use after return is watched; NULL while running, or if it is not */
#elif defined(ANNOTATE_THREAD)
    void *fiber; /* the sanitizer's name for it */
#else
    char nothing; /* C has no empty structs */
#endif
};

/* ---- fibers ---- */

/* Before a fiber on this stack is first switched to. Pairs with annotation_fini. */
ANNOTATE_INLINE void annotation_init(struct annotation *a, void *low, size_t bytes)
{
#if defined(ANNOTATE_ADDRESS)
    a->low = low;
    a->bytes = bytes;
    a->fake_stack = NULL;
    __lsan_register_root_region(low, bytes);
#elif defined(ANNOTATE_THREAD)
    (void)low;
    (void)bytes;
    a->fiber = __tsan_create_fiber(0);
#else
    (void)low;
    (void)bytes;
    a->nothing = 0;
#endif
}

/* The fiber has ended; on another stack than its own. */
ANNOTATE_INLINE void annotation_fini(struct annotation *a)
{
#if defined(ANNOTATE_ADDRESS)
    __lsan_unregister_root_region(a->low, a->bytes);
#elif defined(ANNOTATE_THREAD)
    __tsan_destroy_fiber(a->fiber);
#else
    (void)a;
#endif
}

/* For the stack of the calling thread. Needs no end. */
ANNOTATE_INLINE void annotation_init_thread(struct annotation *a)
{
#if defined(ANNOTATE_ADDRESS)
    a->low = NULL;
    a->bytes = 0;
    a->fake_stack = NULL;
#elif defined(ANNOTATE_THREAD)
    a->fiber = __tsan_get_current_fiber();
#else
    a->nothing = 0;
#endif
}

/* Directly before switch_to. `finishing`: nobody will switch to `from` again. */
ANNOTATE_INLINE void annotation_before_switch(struct annotation *from, struct annotation *to, bool finishing)
{
#if defined(ANNOTATE_ADDRESS)
    __sanitizer_start_switch_fiber(finishing ? NULL : &from->fake_stack, to->low, to->bytes);
#elif defined(ANNOTATE_THREAD)
    (void)from;
    (void)finishing;
    /* 0: what ran before on this thread happens before what runs now. */
    __tsan_switch_to_fiber(to->fiber, 0);
#else
    (void)from;
    (void)to;
    (void)finishing;
#endif
}

/* Directly after switch_to has returned, and first of all in a context's entry. `from` is who switched to `self`; NULL
 * if it is gone. */
ANNOTATE_INLINE void annotation_after_switch(struct annotation *self, struct annotation *from)
{
#if defined(ANNOTATE_ADDRESS)
    const void *low;
    size_t bytes;
    __sanitizer_finish_switch_fiber(self->fake_stack, &low, &bytes);
    self->fake_stack = NULL;
    if (from) {
        from->low = low;
        from->bytes = bytes;
    }
#else
    (void)self;
    (void)from;
#endif
}

/* ---- stacks ---- */

/* Is valgrind watching? Asking costs some nanoseconds, so ask once. */
static inline bool annotation_valgrind(void)
{
#if defined(ANNOTATE_VALGRIND)
    return RUNNING_ON_VALGRIND != 0;
#else
    return false;
#endif
}

/* Memory that will be used as a stack. The answer is for annotation_stack_remove. */
static inline unsigned annotation_stack_add(bool valgrind, void *low, size_t bytes)
{
#if defined(ANNOTATE_VALGRIND)
    if (valgrind)
        return (unsigned)VALGRIND_STACK_REGISTER(low, (char *)low + bytes - 1);
#endif
    (void)valgrind;
    (void)low;
    (void)bytes;
    return 0;
}

static inline void annotation_stack_remove(bool valgrind, unsigned id)
{
#if defined(ANNOTATE_VALGRIND)
    if (valgrind)
        VALGRIND_STACK_DEREGISTER(id);
#endif
    (void)valgrind;
    (void)id;
}

/* Says that memory of a stack that is not in use holds something all the same. Never a call. */
ANNOTATE_INLINE void annotation_stack_keep(void *low, size_t bytes)
{
#if defined(ANNOTATE_VALGRIND)
    (void)VALGRIND_MAKE_MEM_DEFINED(low, bytes);
#endif
    (void)low;
    (void)bytes;
}

/* A fiber has ended on this stack: its frames, which never returned, are memory like any other again. */
static inline void annotation_stack_clean(bool valgrind, void *low, size_t bytes)
{
#if defined(ANNOTATE_ADDRESS)
    __asan_unpoison_memory_region(low, bytes);
#endif
#if defined(ANNOTATE_VALGRIND)
    if (valgrind)
        VALGRIND_MAKE_MEM_DEFINED(low, bytes);
#endif
    (void)valgrind;
    (void)low;
    (void)bytes;
}

#endif
