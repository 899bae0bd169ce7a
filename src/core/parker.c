#include "core/parker.h"
#include "core/reactor.h"

void parker_park(struct parker *parker, int64_t deadline_ns)
{
    uint32_t state = PARKER_EMPTY;
    if (atomic_u32_cas(&parker->state, &state, PARKER_PARKED, ACQ_REL, ACQUIRE))
        os_wait_on(atomic_u32_word(&parker->state), PARKER_PARKED, deadline_ns);
    atomic_u32_exchange(&parker->state, PARKER_EMPTY, ACQ_REL);
}

bool parker_enter_poll(struct parker *parker, struct reactor *reactor)
{
    uint32_t state = PARKER_EMPTY;
    /* A waker that saw an earlier poll may still be reading it: it is written the first time only, for a worker always
     * polls the same reactor. */
    if (parker->polling != reactor)
        parker->polling = reactor;
    if (atomic_u32_cas(&parker->state, &state, PARKER_POLLING, ACQ_REL, ACQUIRE))
        return true;
    atomic_u32_exchange(&parker->state, PARKER_EMPTY, ACQ_REL);
    return false;
}

void parker_leave_poll(struct parker *parker)
{
    atomic_u32_exchange(&parker->state, PARKER_EMPTY, ACQ_REL);
}

void parker_unpark(struct parker *parker)
{
    uint32_t state = atomic_u32_exchange(&parker->state, PARKER_TOKEN, ACQ_REL);
    if (state == PARKER_PARKED)
        os_wake_one(atomic_u32_word(&parker->state));
    else if (state == PARKER_POLLING)
        reactor_wake(parker->polling);
}
