/* The order in which the locks of the process are taken before a fork, so that the child finds none that is held by a thread
 * which it does not have, and nothing half changed. It is the order in which they are nested elsewhere: catching a signal
 * makes a stream. */
#ifndef ROUSE_CORE_FORK_ORDER_H
#define ROUSE_CORE_FORK_ORDER_H

#include "os/os.h"

enum fork_order {
    FORK_SIGNALS,
    FORK_EXHAUSTION,
    FORK_DEFAULT,
    FORK_OVERFLOW,
    FORK_REGISTRY, /* and the slots */
};
_Static_assert(FORK_REGISTRY < OS_FORK_ORDERS, "each has a place");

#endif
