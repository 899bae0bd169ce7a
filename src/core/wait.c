#include "core/wait.h"

struct list_node wait_fired_mark;

void wait_batch_wake(struct wait_batch *batch)
{
    for (unsigned i = 0; i < batch->count; i++)
        rouse_waker_wake(&batch->wakers[i]);
    batch->count = 0;
}
