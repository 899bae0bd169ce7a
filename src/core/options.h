/* Structs of options as callers hand them over: they begin with their size, and those of older callers are smaller. */
#ifndef ROUSE_CORE_OPTIONS_H
#define ROUSE_CORE_OPTIONS_H

#include <rouse/base.h>
#include <string.h>

/* `full` holds the defaults, `bytes` of them, and gets what was given (NULL: nothing). `least` is the size of the first
 * version of the struct: INVALID below. */
static inline int options_complete(void *full, size_t bytes, const void *given, size_t least)
{
    size_t size;
    if (!given)
        return ROUSE_OK;
    memcpy(&size, given, sizeof size);
    if (size < least)
        return ROUSE_INVALID;
    memcpy(full, given, size < bytes ? size : bytes);
    return ROUSE_OK;
}

#endif
