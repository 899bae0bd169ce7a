#include "os/os.h"
#include <stdlib.h>

int os_at_exit(void (*hook)(void))
{
    return atexit(hook) == 0 ? ROUSE_OK : ROUSE_NO_MEMORY;
}
