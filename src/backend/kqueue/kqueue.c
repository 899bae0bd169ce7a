/* The backend over kqueue: macOS, FreeBSD, NetBSD, OpenBSD.
 *
 * A source is registered once, with a filter for each direction and EV_CLEAR, which makes edges of them: arming and
 * disarming (EV_DISPATCH, EV_ONESHOT) would cost a system call each time.
 *
 * The systems differ in what they say when the other end of a pipe is gone: some tell the filter for writing, some only
 * that for reading, and some refuse the former. So an end that the filter for reading is told of fires both channels. It
 * is a hang-up only with an error in fflags, for a half close looks the same; on the filter for writing it always is one.
 *
 * Urgent data in a TCP stream ends a read early, and most of these systems do not say that there is some: every event for
 * reading is said to come with it, so that short counts are not trusted. That costs a read for each wait, and no bytes.
 *
 * To change a filter replaces its token, and nothing says that there was one. So the tokens of what is tracked are kept
 * here, by descriptor: the kernel can be asked about an entry with the token that it has, and knows it no more if the
 * descriptor was closed behind our back. Lost: one bit for each descriptor; to ask would take the events from the source
 * that is there. */
#include "backend/backend.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "core/lock.h"
#include "os/os_kqueue.h"
#include "os/os_posix.h"

#define BATCH       256
#define WAIT_MAX_NS ROUSE_S(30 * 60) /* some kernels refuse or overflow what is much longer */
#define TRACKED_MIN 256              /* descriptors that need no more memory than opening took */

struct backend {
    int kqueue;
    uint32_t process;    /* the maker's: a forked child has no queue, and maybe something else at its number */
    bool wakes_by_event; /* there is no EVFILT_USER: `event` is in the queue instead */
    os_event event;      /* if wakes_by_event */
    rouse_allocator allocator;
    struct lock lock;            /* the table, and telling the kernel, so that both agree */
    uintptr_t *tracked;          /* by descriptor: its token plus one, or 0 */
    size_t tracked_count;        /* descriptors in the table */
    struct kevent events[BATCH]; /* of the holder of the right to wait */
};

/* ---- opening and closing ---- */

static int open_wake(struct backend *backend)
{
    int error = change_one(backend->kqueue, 0, EVFILT_USER, EV_ADD | EV_CLEAR, 0), status;
    if (!is_unsupported(error))
        return os_status(error);
    if ((status = os_event_open(&backend->event)) != ROUSE_OK)
        return status;
    backend->wakes_by_event = true;
    return os_status(
        change_one(backend->kqueue, (uintptr_t)backend->event.readable, EVFILT_READ, EV_ADD | EV_CLEAR, 0));
}

/* Under the lock, or before anybody else knows the backend. */
static int make_room(struct backend *backend, size_t descriptor)
{
    size_t before = backend->tracked_count, count = before > 0 ? before : TRACKED_MIN;
    while (count <= descriptor)
        count *= 2;
    if (count == before)
        return ROUSE_OK;
    uintptr_t *larger = alloc_take(&backend->allocator, count * sizeof *larger, _Alignof(uintptr_t));
    if (!larger)
        return ROUSE_NO_MEMORY;
    memset(larger, 0, count * sizeof *larger);
    if (before > 0)
        memcpy(larger, backend->tracked, before * sizeof *larger);
    alloc_give(&backend->allocator, backend->tracked, before * sizeof *larger, _Alignof(uintptr_t));
    backend->tracked = larger;
    backend->tracked_count = count;
    return ROUSE_OK;
}

int backend_open(struct backend **opened, const rouse_allocator *allocator)
{
    struct backend *backend = alloc_take(allocator, sizeof *backend, _Alignof(struct backend));
    if (!backend)
        return ROUSE_NO_MEMORY;
    *backend = (struct backend){.kqueue = -1, .process = os_process(), .allocator = *allocator};
    int status = make_room(backend, 0);
    if (status == ROUSE_OK && ((backend->kqueue = kqueue()) < 0 || fcntl(backend->kqueue, F_SETFD, FD_CLOEXEC) < 0))
        status = os_status(errno);
    if (status == ROUSE_OK)
        status = open_wake(backend);
    if (status != ROUSE_OK)
        backend_close(backend);
    else
        *opened = backend;
    return status;
}

void backend_close(struct backend *backend)
{
    rouse_allocator allocator = backend->allocator;
    if (backend->wakes_by_event)
        os_event_close(&backend->event);
    if (backend->kqueue >= 0 && backend->process == os_process())
        (void)os_close(backend->kqueue);
    alloc_give(&allocator, backend->tracked, backend->tracked_count * sizeof(uintptr_t), _Alignof(uintptr_t));
    alloc_give(&allocator, backend, sizeof *backend, _Alignof(struct backend));
}

/* ---- sources ---- */

/* Under the lock. One filter is enough if the other is refused because that end of a pipe is gone, which the first will
 * tell; or because the handle has no such direction: `missing`, for which nobody can wait. */
static int register_both(struct backend *backend, int descriptor, uintptr_t token, uintptr_t *missing)
{
    uintptr_t *entry = &backend->tracked[descriptor];
    int errors[2], status = ROUSE_OK;
    if (*entry != 0)
        change_both(backend->kqueue, descriptor, EV_ENABLE, *entry - 1, errors);
    if (*entry != 0 && (errors[0] != ENOENT || errors[1] != ENOENT))
        return ROUSE_ALREADY_EXISTS;
    change_both(backend->kqueue, descriptor, EV_ADD | EV_CLEAR, token, errors);
    for (int i = 0; i < 2 && status == ROUSE_OK; i++) {
        bool alone = errors[1 - i] != 0, unsupported = is_unsupported(errors[i]);
        if (unsupported)
            *missing |= i == 0 ? BACKEND_READ : BACKEND_WRITE;
        if (alone || (!unsupported && errors[i] != EPIPE && errors[i] != EBADF))
            status = unsupported ? ROUSE_NOT_POLLABLE : os_status(errors[i]);
    }
    if (status != ROUSE_OK)
        change_both(backend->kqueue, descriptor, EV_DELETE, token, errors);
    *entry = status == ROUSE_OK ? token + 1 : 0;
    return status;
}

int backend_attach(struct backend *backend, struct backend_source *source, uint64_t token)
{
    int descriptor = os_descriptor(source->handle), status = os_check_pollable(descriptor);
    uintptr_t missing = 0;
    if (status != ROUSE_OK)
        return status;
    lock_acquire(&backend->lock);
    status = make_room(backend, (size_t)descriptor);
    if (status == ROUSE_OK)
        status = register_both(backend, descriptor, (uintptr_t)token, &missing);
    lock_release(&backend->lock);
    source->record = (void *)missing;
    return status;
}

int backend_arm(struct backend *backend, struct backend_source *source, unsigned channels)
{
    (void)backend; /* every edge is reported, asked for or not */
    return (uintptr_t)source->record & channels ? ROUSE_NOT_POLLABLE : ROUSE_OK;
}

int backend_detach(struct backend *backend, struct backend_source *source, bool closing)
{
    int descriptor = os_descriptor(source->handle), ignored[2];
    lock_acquire(&backend->lock);
    if (!closing)
        change_both(backend->kqueue, descriptor, EV_DELETE, 0, ignored);
    if (descriptor >= 0 && (size_t)descriptor < backend->tracked_count)
        backend->tracked[descriptor] = 0;
    lock_release(&backend->lock);
    return BACKEND_DONE;
}

/* ---- waiting ---- */

/* Some kernels end a wait up to a tick early: what is left is waited for. */
static int wait_for_kernel(struct backend *backend, int limit, int64_t deadline_ns)
{
    for (;;) {
        int64_t span_ns = os_span_until(deadline_ns, WAIT_MAX_NS);
        struct timespec span = {(time_t)(span_ns / 1000000000), (long)(span_ns % 1000000000)};
        int count = kevent(backend->kqueue, NULL, 0, backend->events, (kevent_count)limit, &span);
        if (count != 0 || span_ns == 0 || span_ns == WAIT_MAX_NS || os_now() >= deadline_ns)
            return count;
    }
}

static uint32_t channels_of(const struct kevent *event)
{
    bool reads = event->filter == (FIELD(filter))EVFILT_READ;
    if (!(event->flags & EV_EOF))
        return reads ? BACKEND_READ | BACKEND_URGENT : BACKEND_WRITE;
    uint32_t hangup = !reads || event->fflags != 0 ? BACKEND_HANGUP : 0;
    return BACKEND_READ | BACKEND_WRITE | BACKEND_URGENT | hangup;
}

int backend_wait(struct backend *backend, struct backend_event *events, int limit, int64_t deadline_ns)
{
    int count = wait_for_kernel(backend, limit < BATCH ? limit : BATCH, deadline_ns), kept = 0;
    if (count < 0)
        return errno == EINTR ? 0 : os_status(errno);
    for (int i = 0; i < count; i++) {
        const struct kevent *event = &backend->events[i];
        bool by_event = backend->wakes_by_event && event->ident == (uintptr_t)backend->event.readable;
        if (by_event && os_event_fills())
            (void)os_event_clear(&backend->event);
        if (!by_event && event->filter != (FIELD(filter))EVFILT_USER)
            events[kept++] = (struct backend_event){(uintptr_t)event->udata, channels_of(event), BACKEND_READY};
    }
    return kept;
}

void backend_wake(struct backend *backend)
{
    if (backend->wakes_by_event)
        os_event_notify(&backend->event);
    else /* without EV_CLEAR, which would take the trigger back on some systems */
        (void)change_one(backend->kqueue, 0, EVFILT_USER, 0, NOTE_TRIGGER);
}

/* ---- foreign loops, renewing ---- */

int backend_handle(struct backend *backend, os_handle *handle)
{
    *handle = backend->kqueue;
    return ROUSE_OK;
}

int backend_renew(struct backend *backend)
{
    (void)backend; /* closing a descriptor ends its filters, whoever else holds what it stood for */
    return ROUSE_NOT_SUPPORTED;
}
