/* The interface of kqueue as macOS and the BSDs have it in common, for a model of it on Linux (../../kqueue.c). It lies in
 * front of the system's headers only when the kqueue backend is built for its tests on Linux, and is never installed. The
 * numbers are of no system; programs use the names. */
#ifndef TEST_SUPPORT_KQUEUE_SYS_EVENT_H
#define TEST_SUPPORT_KQUEUE_SYS_EVENT_H

#include <stdint.h>
#include <time.h>

#define EVFILT_READ   (-1) /* bytes, connections or an end to be read; data counts the bytes or connections */
#define EVFILT_WRITE  (-2) /* room, or an end; data counts the bytes */
#define EVFILT_PROC   (-3) /* NOTE_EXIT; data is the status as of waitpid */
#define EVFILT_SIGNAL (-4) /* ident: the signal; data counts */
#define EVFILT_TIMER  (-5) /* data: the span, then how often it passed */
#define EVFILT_USER   (-6) /* NOTE_TRIGGER */

/* What to do. */
#define EV_ADD     0x0001
#define EV_DELETE  0x0002
#define EV_ENABLE  0x0004
#define EV_DISABLE 0x0008
#define EV_RECEIPT 0x0040 /* an entry with EV_ERROR for this change, also if it succeeds */
/* How to report. */
#define EV_ONESHOT  0x0010 /* once, then forget */
#define EV_CLEAR    0x0020 /* at each change rather than as long as it lasts */
#define EV_DISPATCH 0x0080 /* once, then disable */
/* What is reported. */
#define EV_EOF   0x8000 /* fflags: an error of the socket, or 0 */
#define EV_ERROR 0x4000 /* data: an error, or 0 */

#define NOTE_TRIGGER    0x01000000
#define NOTE_FFNOP      0x00000000
#define NOTE_FFAND      0x40000000
#define NOTE_FFOR       0x80000000
#define NOTE_FFCOPY     0xc0000000
#define NOTE_FFCTRLMASK 0xc0000000
#define NOTE_FFLAGSMASK 0x00ffffff

#define NOTE_EXIT 0x80000000

#define NOTE_SECONDS  0x1
#define NOTE_MSECONDS 0x2
#define NOTE_USECONDS 0x4
#define NOTE_NSECONDS 0x8

struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags;
    intptr_t data;
    void *udata;
};

#define EV_SET(event, id, kind, verbs, notes, number, token) \
    do {                                                     \
        struct kevent *ev_set = (event);                     \
        ev_set->ident = (id), ev_set->filter = (kind);       \
        ev_set->flags = (verbs), ev_set->fflags = (notes);   \
        ev_set->data = (number), ev_set->udata = (token);    \
    } while (0)

int kqueue(void);
int kevent(int queue, const struct kevent *changes, int change_count, struct kevent *events, int event_count,
           const struct timespec *timeout);

#endif
