/* What the other files of net need of streams. */
#ifndef ROUSE_NET_STREAM_H
#define ROUSE_NET_STREAM_H

#include "core/registry.h"

/* Makes a stream of a descriptor; on failure the descriptor is still the caller's. stream_open does it with a slot that
 * registry_take has given, and cannot fail. */
int stream_make(rouse_stream **stream, os_handle handle, enum os_kind kind, unsigned traits, unsigned flags,
                const char *site);
rouse_stream *stream_open(struct slot *slot, os_handle handle, enum os_kind kind, unsigned traits, unsigned flags,
                          const char *site);

/* For calls that use the descriptor without waiting: keeps a close from taking it away. OK or CLOSED. */
int stream_enter(struct slot **slot, rouse_stream *stream);
void stream_leave(struct slot *slot);

#endif
