/* The backend over epoll.
 *
 * A source is registered once, edge-triggered, for both directions: arming and disarming would cost a system call each
 * time, as much as a read that finds nothing. Level-triggered and one-shot registration lost for that reason.
 *
 * EPOLLPRI and EPOLLRDHUP are there because of what the kernel does not repeat: after urgent data, or when the end
 * comes together with data, a read that got less than it asked for is not the end, and no further edge follows.
 *
 * The wake-up descriptor is an eventfd that is never read: each write to it is an edge. Reading it costs a system call
 * for each wake-up, and a timerfd for the timeouts costs one for each wait; epoll_pwait2 takes them in nanoseconds. */
#include "backend/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/lock.h"
#include "os/os_epoll.h"
#include "os/os_posix.h"

#define WAKE_TOKEN  UINT64_MAX /* no source has it */
#define BATCH       256
#define WAIT_MAX_NS ROUSE_S(30 * 60) /* old kernels take more for infinite */

struct backend {
    int epoll;
    int wake;
    struct lock lock; /* renewing, and the making of `outer` */
    int outer;        /* a set that contains only the other one, for foreign loops; -1 until one asks */
    rouse_allocator allocator;
    /* Below: only the holder of the right to wait. */
    bool no_nanoseconds; /* epoll_pwait2 is missing */
    struct epoll_event events[BATCH];
};

/* ---- opening and closing ---- */

static int register_wake(int epoll, int wake)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data = {.u64 = WAKE_TOKEN}};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, wake, &event) == 0 ? ROUSE_OK : os_status(errno);
}

int backend_open(struct backend **opened, const rouse_allocator *allocator)
{
    struct backend *backend = allocator->alloc(allocator->context, sizeof *backend, _Alignof(struct backend));
    if (backend == NULL)
        return ROUSE_NO_MEMORY;
    *backend = (struct backend){.epoll = -1, .wake = -1, .outer = -1, .allocator = *allocator};
    int status = ROUSE_OK;
    if ((backend->epoll = epoll_create1(EPOLL_CLOEXEC)) < 0 ||
        (backend->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
        status = os_status(errno);
    if (status == ROUSE_OK)
        status = register_wake(backend->epoll, backend->wake);
    if (status != ROUSE_OK)
        backend_close(backend);
    else
        *opened = backend;
    return status;
}

static void close_if_open(int descriptor)
{
    if (descriptor >= 0)
        (void)os_close(descriptor);
}

void backend_close(struct backend *backend)
{
    rouse_allocator allocator = backend->allocator;
    close_if_open(backend->wake);
    close_if_open(backend->epoll);
    close_if_open(backend->outer);
    allocator.free(allocator.context, backend, sizeof *backend, _Alignof(struct backend));
}

/* ---- sources ---- */

static int attach_status(int error)
{
    switch (error) {
    case EPERM:
    case ELOOP:
        return ROUSE_NOT_POLLABLE;
    case ENOSPC:
        return ROUSE_LIMIT; /* of /proc/sys/fs/epoll/max_user_watches */
    default:
        return os_status(error); /* EEXIST among them: ALREADY_EXISTS */
    }
}

int backend_attach(struct backend *backend, struct backend_source *source, uint64_t token)
{
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
        .data = {.u64 = token},
    };
    int descriptor = os_descriptor(source->handle);
    return epoll_ctl(backend->epoll, EPOLL_CTL_ADD, descriptor, &event) == 0 ? ROUSE_OK : attach_status(errno);
}

int backend_arm(struct backend *backend, struct backend_source *source, unsigned channels)
{
    /* Every edge is reported, asked for or not. */
    (void)backend;
    (void)source;
    (void)channels;
    return ROUSE_OK;
}

int backend_detach(struct backend *backend, struct backend_source *source, bool closing)
{
    /* ENOENT, EBADF: somebody closed it behind our back, and the kernel has forgotten it already. */
    struct epoll_event ignored = {0}; /* before Linux 2.6.9 it had to be there */
    if (!closing)
        (void)epoll_ctl(backend->epoll, EPOLL_CTL_DEL, os_descriptor(source->handle), &ignored);
    return BACKEND_DONE;
}

/* ---- waiting ---- */

static uint32_t channels_of(uint32_t events)
{
    uint32_t channels = 0;
    if (events & (EPOLLIN | EPOLLRDHUP))
        channels |= BACKEND_READ;
    if (events & EPOLLOUT)
        channels |= BACKEND_WRITE;
    if (events & (EPOLLERR | EPOLLHUP)) /* these come alone on pipes whose other end is gone */
        channels |= BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP;
    if (events & (EPOLLPRI | EPOLLRDHUP))
        channels |= BACKEND_URGENT;
    return channels;
}

int backend_wait(struct backend *backend, struct backend_event *events, int limit, int64_t deadline_ns)
{
    int count = os_epoll_wait(backend->epoll, backend->events, limit < BATCH ? limit : BATCH,
                              os_span_until(deadline_ns, WAIT_MAX_NS), &backend->no_nanoseconds);
    if (count < 0)
        return errno == EINTR ? 0 : os_status(errno);
    int kept = 0;
    for (int i = 0; i < count; i++) {
        const struct epoll_event *event = &backend->events[i];
        if (event->data.u64 == WAKE_TOKEN)
            continue; /* whatever it says, it has done its work: wait returns */
        events[kept++] = (struct backend_event){event->data.u64, channels_of(event->events), BACKEND_READY};
    }
    return kept;
}

void backend_wake(struct backend *backend)
{
    static const uint64_t one = 1;
    while (write(backend->wake, &one, sizeof one) < 0) {
        uint64_t ignored;
        if (errno == EINTR)
            continue;
        /* The counter is full after 2^64 wake-ups: start again. Anything else cannot be helped here. */
        if (errno != EAGAIN || (read(backend->wake, &ignored, sizeof ignored) < 0 && errno != EAGAIN && errno != EINTR))
            return;
    }
}

/* ---- renewing, and foreign loops ---- */

static int add_inner(int outer, int inner)
{
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event) == 0 ? ROUSE_OK : os_status(errno);
}

static void remove_inner(int outer, int inner)
{
    struct epoll_event ignored = {0};
    (void)epoll_ctl(outer, EPOLL_CTL_DEL, inner, &ignored);
}

/* A new set takes the number of the old one in one step: other threads may be attaching meanwhile. A wake-up that comes
 * in between is not lost, because registering reports what is readable already. */
static int replace(struct backend *backend, int fresh)
{
    while (dup3(fresh, backend->epoll, O_CLOEXEC) < 0)
        if (errno != EINTR && errno != EBUSY)
            return os_status(errno);
    return ROUSE_OK;
}

/* The same inside the outer set, which knows a set by its file and its number. The old one is taken out by name, because a
 * forked child may keep it alive; the new one is in before that, because nothing may fail afterwards. */
static int replace_inside(struct backend *backend, int fresh)
{
    int status = add_inner(backend->outer, fresh);
    if (status != ROUSE_OK)
        return status;
    remove_inner(backend->outer, backend->epoll);
    status = replace(backend, fresh);
    if (add_inner(backend->outer, backend->epoll) == ROUSE_OK)
        remove_inner(backend->outer, fresh);
    return status;
}

int backend_renew(struct backend *backend)
{
    int fresh = epoll_create1(EPOLL_CLOEXEC);
    if (fresh < 0)
        return os_status(errno);
    int status = register_wake(fresh, backend->wake);
    lock_acquire(&backend->lock);
    if (status == ROUSE_OK)
        status = backend->outer < 0 ? replace(backend, fresh) : replace_inside(backend, fresh);
    lock_release(&backend->lock);
    (void)os_close(fresh);
    return status;
}

/* Whoever registers a descriptor registers its file: of the inner set it changes with each renewal. */
int backend_handle(struct backend *backend, os_handle *handle)
{
    int status = ROUSE_OK;
    lock_acquire(&backend->lock);
    if (backend->outer < 0) {
        int outer = epoll_create1(EPOLL_CLOEXEC);
        status = outer < 0 ? os_status(errno) : add_inner(outer, backend->epoll);
        if (status == ROUSE_OK)
            backend->outer = outer;
        else
            close_if_open(outer);
    }
    *handle = backend->outer;
    lock_release(&backend->lock);
    return status;
}
