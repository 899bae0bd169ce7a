/* What the tests use of POSIX and macOS lacks: unnamed semaphores, which it declares and refuses, and descriptors that are
 * born closed on exec. The build makes headers by the usual names (semaphore.h ...) that include this one. */
#ifndef TEST_SUPPORT_POSIX_DARWIN_H
#define TEST_SUPPORT_POSIX_DARWIN_H

#include <time.h>

/* ---- semaphores ---- */

/* Over those of libdispatch, which a signal's handler may post as well. */
struct posix_semaphore {
    void *dispatch;
};
#define sem_t         struct posix_semaphore
#define sem_init      posix_sem_init
#define sem_destroy   posix_sem_destroy
#define sem_post      posix_sem_post
#define sem_wait      posix_sem_wait
#define sem_trywait   posix_sem_trywait
#define sem_timedwait posix_sem_timedwait

int posix_sem_init(sem_t *semaphore, int shared, unsigned count);
int posix_sem_destroy(sem_t *semaphore);
int posix_sem_post(sem_t *semaphore);
int posix_sem_wait(sem_t *semaphore);
int posix_sem_trywait(sem_t *semaphore);
int posix_sem_timedwait(sem_t *semaphore, const struct timespec *end);

/* ---- descriptors ---- */

#define SOCK_CLOEXEC 0x10000000 /* socketpair's alone */
#define socketpair   posix_socketpair
#define pipe2        posix_pipe2
#define dup3         posix_dup3

int posix_socketpair(int family, int type, int protocol, int ends[2]);
int posix_pipe2(int ends[2], int flags);
int posix_dup3(int from, int to, int flags);

#endif
