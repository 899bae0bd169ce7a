/* The demonstration server: what its two styles, fiber_style.c and poll_style.c, have in common.
 *
 * Every read takes at most READ_MAX bytes and is answered with "[Server]: Got <TEXT>" and a newline, where TEXT is the
 * bytes that were read less the NULs, CRs and LFs at their end. While a reply is unsent nothing is read, so that a client
 * that does not listen costs one buffer and no more. On a signal to stop, the listener closes first; connections that
 * owe no reply close at once, the others within STOP_GRACE. */
#ifndef SERVER_H
#define SERVER_H

#include <rouse/rouse.h>

#include <string.h>

#define READ_MAX     4096
#define REPLY_PREFIX "[Server]: Got "
#define PREFIX_BYTES (sizeof REPLY_PREFIX - 1)
#define STOP_GRACE   ROUSE_S(5)
#define PART_LIMIT   ROUSE_MS(500)
#define STOP_SIGNALS (ROUSE_SIGNAL_INTERRUPT | ROUSE_SIGNAL_TERMINATE)

/* A reply, built around the bytes that were read, which stand at text + PREFIX_BYTES. */
struct reply {
    char text[PREFIX_BYTES + READ_MAX + 1];
};

/* Makes the reply to the `length` bytes that were read; answers its length. */
static inline size_t reply_finish(struct reply *reply, size_t length)
{
    char *got = reply->text + PREFIX_BYTES;
    while (length > 0 && (got[length - 1] == '\0' || got[length - 1] == '\r' || got[length - 1] == '\n'))
        length--;
    memcpy(reply->text, REPLY_PREFIX, PREFIX_BYTES);
    got[length] = '\n';
    return PREFIX_BYTES + length + 1;
}

/* Both serve until a signal to stop has come and the connections have ended, and close the listener in any case. They
 * answer ROUSE_OK, or why they could not start. */
int serve_with_fibers(rouse_listener *listener, const rouse_options *options);
int serve_with_polls(rouse_listener *listener, const rouse_options *options);

/* From now on a signal to stop ends the process at once, with status 130. */
void exit_on_next_signal(void);

#endif
