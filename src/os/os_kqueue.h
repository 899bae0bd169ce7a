/* Telling a kqueue what to report, where the systems differ in the struct. */
#ifndef ROUSE_OS_KQUEUE_H
#define ROUSE_OS_KQUEUE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h> /* before the next one */

#include <sys/event.h>

#if !defined(EVFILT_USER) /* NetBSD before 10, OpenBSD before 7.8: a filter that the kernel does not know either */
#define EVFILT_USER  (-1000)
#define NOTE_TRIGGER 0
#endif

/* The types of these fields differ between the systems, and between versions of one. */
#define FIELD(name) __typeof__(((struct kevent *)NULL)->name)
_Static_assert(sizeof(FIELD(udata)) >= sizeof(uintptr_t), "tokens are handles of the registry, or smaller numbers");

/* How kevent takes the number of events. */
#if defined(__NetBSD__)
typedef size_t kevent_count;
#else
typedef int kevent_count;
#endif

static inline struct kevent change_of(uintptr_t ident, int filter, unsigned flags, unsigned notes, uintptr_t token)
{
    return (struct kevent){.ident = ident,
                           .filter = (FIELD(filter))filter,
                           .flags = (FIELD(flags))flags,
                           .fflags = (FIELD(fflags))notes,
                           .udata = (FIELD(udata))token};
}

/* One change, of what is no source; 0 or an error. */
static inline int change_one(int kqueue, uintptr_t ident, int filter, unsigned flags, unsigned notes)
{
    struct kevent change = change_of(ident, filter, flags, notes, 0);
    int result;
    while ((result = kevent(kqueue, &change, 1, NULL, 0, NULL)) < 0 && errno == EINTR) {}
    return result < 0 ? errno : 0;
}

/* The same change of the filters for reading and for writing; errors[] gets 0 or an error for each. In one call, with
 * receipts, without which the kernel stops at the first change that fails. */
static inline void change_both(int kqueue, int descriptor, unsigned flags, uintptr_t token, int errors[2])
{
    uintptr_t ident = (uintptr_t)descriptor;
    struct kevent receipts[2], changes[2] = {change_of(ident, EVFILT_READ, flags | EV_RECEIPT, 0, token),
                                             change_of(ident, EVFILT_WRITE, flags | EV_RECEIPT, 0, token)};
    int count;
    while ((count = kevent(kqueue, changes, 2, receipts, 2, NULL)) < 0 && errno == EINTR) {}
    int refused = count < 0 ? errno : EINVAL;
    for (int i = 0; i < 2; i++)
        errors[i] = i < count ? (int)receipts[i].data : refused;
}

/* There is no such filter, or not for this. */
static inline bool is_unsupported(int error)
{
    return error == EINVAL || error == ENODEV || error == ENOTSUP || error == EOPNOTSUPP || error == ENXIO ||
           error == ENOTTY || error == EPERM;
}

#endif
