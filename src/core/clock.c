/* Time as users see it. */
#include <rouse/base.h>

#include "os/os.h"

int64_t rouse_now(void)
{
    return os_now();
}

int64_t rouse_after(int64_t timeout_ns)
{
    int64_t now = os_now();
    if (timeout_ns <= 0)
        return now;
    return timeout_ns > ROUSE_NEVER - now ? ROUSE_NEVER : now + timeout_ns;
}
