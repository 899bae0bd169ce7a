#if defined(__APPLE__)

#include <sys/socket.h> /* the system's, and then posix_darwin.h */

#include <dispatch/dispatch.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#undef socketpair

/* ---- semaphores ---- */

int posix_sem_init(sem_t *semaphore, int shared, unsigned count)
{
    (void)shared;
    /* From 0, since libdispatch ends the process if one is destroyed with less than it began with. */
    dispatch_semaphore_t made = dispatch_semaphore_create(0);
    if (made == NULL) {
        errno = ENOMEM;
        return -1;
    }
    for (unsigned i = 0; i < count; i++) {
        dispatch_semaphore_signal(made);
    }
    semaphore->dispatch = made;
    return 0;
}

int posix_sem_destroy(sem_t *semaphore)
{
    dispatch_release((dispatch_semaphore_t)semaphore->dispatch);
    semaphore->dispatch = NULL;
    return 0;
}

int posix_sem_post(sem_t *semaphore)
{
    dispatch_semaphore_signal((dispatch_semaphore_t)semaphore->dispatch);
    return 0;
}

static int wait_until(sem_t *semaphore, dispatch_time_t end, int error)
{
    if (dispatch_semaphore_wait((dispatch_semaphore_t)semaphore->dispatch, end) == 0) {
        return 0;
    }
    errno = error;
    return -1;
}

int posix_sem_wait(sem_t *semaphore)
{
    return wait_until(semaphore, DISPATCH_TIME_FOREVER, EINTR);
}

int posix_sem_trywait(sem_t *semaphore)
{
    return wait_until(semaphore, DISPATCH_TIME_NOW, EAGAIN);
}

int posix_sem_timedwait(sem_t *semaphore, const struct timespec *end)
{
    return wait_until(semaphore, dispatch_walltime(end, 0), ETIMEDOUT);
}

/* ---- descriptors ---- */

static int close_both(int ends[2])
{
    int error = errno;
    (void)close(ends[0]);
    (void)close(ends[1]);
    errno = error;
    return -1;
}

/* Two descriptors that are closed on exec, which a program that another thread starts meanwhile may miss. */
static int prepare(int ends[2], int flags)
{
    for (int i = 0; i < 2; i++) {
        if (((flags & O_CLOEXEC) && fcntl(ends[i], F_SETFD, FD_CLOEXEC) != 0) ||
            ((flags & O_NONBLOCK) && fcntl(ends[i], F_SETFL, O_NONBLOCK) != 0)) {
            return close_both(ends);
        }
    }
    return 0;
}

int posix_socketpair(int family, int type, int protocol, int ends[2])
{
    if (socketpair(family, type & ~SOCK_CLOEXEC, protocol, ends) != 0) {
        return -1;
    }
    return prepare(ends, type & SOCK_CLOEXEC ? O_CLOEXEC : 0);
}

int posix_pipe2(int ends[2], int flags)
{
    return pipe(ends) == 0 ? prepare(ends, flags) : -1;
}

int posix_dup3(int from, int to, int flags)
{
    int made = from == to ? -1 : dup2(from, to);
    if (from == to) {
        errno = EINVAL;
    } else if (made >= 0 && (flags & O_CLOEXEC) && fcntl(made, F_SETFD, FD_CLOEXEC) != 0) {
        return -1;
    }
    return made;
}

#endif
