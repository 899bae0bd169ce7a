/* Who waits for a descriptor to become free, in the whole process: accept loops that met the limit. */
#ifndef ROUSE_CORE_EXHAUSTION_H
#define ROUSE_CORE_EXHAUSTION_H

#include "core/wait.h"

/* Puts the node on the list; it is fired when the library closes a descriptor, or after 100 ms, because others close
 * some too. NO_MEMORY or LIMIT: nothing was put. */
int exhaustion_wait(struct wait_node *node, const rouse_waker *waker);
void exhaustion_cancel(struct wait_node *node);

/* A descriptor was closed. Costs one load when nobody waits. */
void exhaustion_relieve(void);

#endif
