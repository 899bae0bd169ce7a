/* rouse: waiting for a request to stop. */
#ifndef ROUSE_SIGNAL_H
#define ROUSE_SIGNAL_H

#include <rouse/op.h>

#ifdef __cplusplus
extern "C" {
#endif

enum rouse_signal {
    ROUSE_SIGNAL_INTERRUPT = 1, /* SIGINT, Ctrl-C */
    ROUSE_SIGNAL_TERMINATE = 2, /* SIGTERM, Ctrl-Break */
    ROUSE_SIGNAL_HANG_UP = 4    /* SIGHUP; the console is closed: Windows ends the process some seconds later */
};

/* Waits for one of the signals in the set (or-ed together) and answers which came. The first wait for a signal installs
 * a handler, so that the signal no longer ends the process, from then until the process ends or rouse_signal_restore;
 * one that comes while nobody waits is kept for the next wait. Repeats of one signal may be merged.
 * A program that ends gracefully on the first Ctrl-C and at once on the second calls rouse_signal_restore after the first.
 * Errors: INVALID, TOO_MANY_FILES, CLOSED (rouse_signal_restore was called), and why a wait ends or cannot begin (op.h). */
ROUSE_API int rouse_signal_wait(int signals);
ROUSE_API void rouse_signal_wait_init(rouse_op *op, int signals);

/* Installs the handlers now instead of at the first wait: for a program that tells the world that it is ready before it
 * waits, so that no signal in between ends it. Any thread. Errors: INVALID, TOO_MANY_FILES, NO_MEMORY. */
ROUSE_API int rouse_signal_catch(int signals);

/* Puts back what the signals did before they were first caught. Any thread. */
ROUSE_API void rouse_signal_restore(void);

#ifdef __cplusplus
}
#endif
#endif
