/* core/lock.h for models that do not ask about the lock: acquiring waits and takes in a single step. Include it before
 * anything that includes core/lock.h, which then stays out; core/lock.c is not needed. */
#ifndef MODEL_LOCK_H
#define MODEL_LOCK_H
#define ROUSE_CORE_LOCK_H

#include "os/atomic.h"

struct lock {
    atomic_u32 word; /* 1 while held */
};

enum { LOCK_FREE = 0 };

#define lock_acquire(lock) model_lock_acquire(&(lock)->word, MODEL_HERE)
#define lock_try(lock)     model_lock_try(&(lock)->word, MODEL_HERE)
#define lock_release(lock) model_lock_release(&(lock)->word, MODEL_HERE)

#endif
