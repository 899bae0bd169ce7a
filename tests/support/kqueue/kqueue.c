/* A model of kqueue over epoll, so that the kqueue backend's tests run on Linux.
 *
 * A shared library: the tests' wrappers (faults.h), which replace what a program's own objects call, neither count its
 * system calls nor make them fail; only kqueue and kevent themselves they can.
 *
 * A queue is an epoll set, with its descriptor's number: poll and other queues can wait for it. Filters for reading are in
 * it directly, those for writing in a second set inside of it, because epoll knows a descriptor once only. EV_CLEAR is
 * EPOLLET. What the kernel knows nothing of (user events, signals) makes an eventfd readable that is in the set too.
 * Whoever waits does so in ppoll, which takes nothing out; what there is is collected under the lock.
 *
 * On the systems that have kqueue a filter belongs to a descriptor and ends when that is closed, whoever else holds the
 * same socket; and a forked child has no queues. So this library has its own close, dup2 and dup3, which the linker finds
 * before those of the C library. Lost: comparing what fstat says, which cannot tell a copy from the original.
 *
 * Where kernels differ, it does what is hardest to live with: it refuses the filter for writing on a pipe whose other end
 * is gone (macOS, FreeBSD), replaces the token with every change, refuses timeouts of more than a day, and ends waits early
 * if KQUEUE_EARLY_US in the environment says by how much (NetBSD: up to a tick).
 *
 * What it asks about descriptors of the program it asks by syscall where a thread sanitizer would be told of the call: to it
 * the program would use what another of its threads may be closing, and the kernel does no such thing.
 *
 * What differs from a kernel: of a socket's error it is known that there is one, and whether the connection was ever made,
 * but not which, because to ask takes it away: ECONNREFUSED or ECONNRESET it is. Files have no filters. A signal that is
 * neither ignored nor has a handler is ignored while there is a filter for it; whoever sets a handler later, takes it. */
#include <sys/event.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define PUBLIC  __attribute__((visibility("default")))
#define BUCKETS 1024
#define BATCH   256
#define SIGNALS 65

/* Some kernels refuse longer ones. */
#define LONGEST_S 86400

#if !defined(SYS_pidfd_open)
#define SYS_pidfd_open 434
#endif
#if !defined(P_PIDFD)
#define P_PIDFD 3
#endif

/* One filter of one queue: what the kernels call a knote. */
struct note {
    struct note *next; /* in its bucket */
    struct kevent event;
    bool enabled;
    bool fresh;       /* a TCP socket that was never connected: says nothing */
    bool triggered;   /* EVFILT_USER */
    unsigned counted; /* EVFILT_SIGNAL: how many of them have been reported */
    int helper;       /* EVFILT_TIMER, EVFILT_PROC: the descriptor that tells; else -1 */
};

struct queue {
    struct queue *next;
    int set;     /* its number, and the set with everything but: */
    int writes;  /* the set of filters for writing */
    int soft;    /* an eventfd: there may be user events or signals */
    int waiters; /* threads in ppoll; the last one out of a closed queue frees it */
    bool closed;
    struct note *buckets[BUCKETS];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* everything below, but for the atomics */
static struct queue *queues;
static atomic_uint queue_count; /* closing what cannot be in a queue needs no lock */

/* For the handler of signals. */
static atomic_uint signal_counts[SIGNALS];
static atomic_int signal_watchers[SIGNALS]; /* an eventfd plus one, for one queue at a time */
static struct sigaction signal_actions[SIGNALS];

static int close_really(int file)
{
    return (int)syscall(SYS_close, file);
}

static struct queue *find_queue(int number)
{
    struct queue *queue = queues;
    while (queue != NULL && queue->set != number) {
        queue = queue->next;
    }
    return queue;
}

static struct note **find_link(struct queue *queue, uintptr_t ident, int filter)
{
    struct note **link = &queue->buckets[(ident * 8 + (uintptr_t)-filter) % BUCKETS];
    while (*link != NULL && ((*link)->event.ident != ident || (*link)->event.filter != filter)) {
        link = &(*link)->next;
    }
    return link;
}

/* ---- what the descriptors say ---- */

static int tcp_state(int file, struct tcp_info *info)
{
    socklen_t length = sizeof *info;
    *info = (struct tcp_info){0};
    return getsockopt(file, IPPROTO_TCP, TCP_INFO, info, &length) == 0 ? info->tcpi_state : -1;
}

static bool was_connected(const struct tcp_info *info)
{
    return info->tcpi_options != 0 || info->tcpi_rtt != 0;
}

static int socket_option(int file, int option)
{
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(file, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

static unsigned error_of(int file)
{
    struct tcp_info info;
    if (tcp_state(file, &info) >= 0) {
        return was_connected(&info) ? ECONNRESET : ECONNREFUSED;
    }
    int type = socket_option(file, SO_TYPE);
    return type < 0 ? 0 : type == SOCK_DGRAM ? ECONNREFUSED : ECONNRESET;
}

/* Has this side, or for Unix sockets the other one, ended the direction of writing? */
static bool is_shut_for_writing(int file)
{
    struct tcp_info info;
    int state = tcp_state(file, &info);
    if (state >= 0) {
        return state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_CLOSING || state == TCP_LAST_ACK ||
               state == TCP_TIME_WAIT || state == TCP_CLOSE;
    }
    /* To send nothing finds out, and sends nothing. */
    return socket_option(file, SO_DOMAIN) == AF_UNIX && socket_option(file, SO_TYPE) == SOCK_STREAM &&
           syscall(SYS_sendto, file, "", (size_t)0, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, (size_t)0) < 0 && errno == EPIPE;
}

static bool is_fresh(int file)
{
    struct tcp_info info;
    struct pollfd poller = {.fd = file};
    return tcp_state(file, &info) == TCP_CLOSE && !was_connected(&info) && poll(&poller, 1, 0) == 1 &&
           !(poller.revents & POLLERR);
}

static int readable_bytes(int file)
{
    struct tcp_info info;
    int bytes = 0;
    if (tcp_state(file, &info) == TCP_LISTEN) {
        return (int)info.tcpi_unacked; /* connections that can be accepted */
    }
    return syscall(SYS_ioctl, file, FIONREAD, &bytes) == 0 ? bytes : 1;
}

static int writable_bytes(int file)
{
    int room = socket_option(file, SO_SNDBUF), used = 0;
    if (room < 0) {
        room = fcntl(file, F_GETPIPE_SZ);
    }
    if (room < 0 || syscall(SYS_ioctl, file, socket_option(file, SO_TYPE) < 0 ? FIONREAD : TIOCOUTQ, &used) != 0) {
        return 1;
    }
    return room > used ? room - used : 0;
}

/* Fills in what is reported of a filter; false if it is nothing. */
static bool evaluate_file(struct note *note, uint32_t told, struct kevent *event)
{
    int file = (int)note->event.ident;
    bool reads = note->event.filter == EVFILT_READ, failed = (told & EPOLLERR) != 0;
    bool datagrams = socket_option(file, SO_TYPE) == SOCK_DGRAM;
    note->fresh = note->fresh && is_fresh(file);
    if (note->fresh) {
        return false;
    }
    bool over = (told & EPOLLHUP) != 0 || (reads && (told & EPOLLRDHUP)) || (failed && !datagrams) ||
                (!reads && !datagrams && is_shut_for_writing(file));
    if (!over && !failed && !(told & (reads ? EPOLLIN : EPOLLOUT))) {
        return false;
    }
    event->data = reads ? readable_bytes(file) : over ? 0 : writable_bytes(file);
    event->flags = (unsigned short)(event->flags | (over ? EV_EOF : 0));
    event->fflags = over && failed ? error_of(file) : 0;
    return true;
}

static bool evaluate_timer(struct note *note, struct kevent *event)
{
    uint64_t times;
    if (read(note->helper, &times, sizeof times) != (ssize_t)sizeof times) {
        return false;
    }
    event->data = (intptr_t)times;
    return true;
}

static bool evaluate_process(struct note *note, struct kevent *event)
{
    siginfo_t info = {0};
    if (waitid((idtype_t)P_PIDFD, (id_t)note->helper, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid != 0) {
        event->data = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
    }
    event->fflags = NOTE_EXIT;
    event->flags |= EV_EOF | EV_ONESHOT;
    note->event.flags |= EV_ONESHOT;
    return true;
}

static bool evaluate_signal(struct note *note, struct kevent *event)
{
    unsigned count = atomic_load(&signal_counts[note->event.ident]);
    event->data = (intptr_t)(count - note->counted);
    note->counted = count;
    return event->data != 0;
}

/* ---- what is in the sets ---- */

static int set_of(const struct queue *queue, const struct note *note)
{
    return note->event.filter == EVFILT_WRITE ? queue->writes : queue->set;
}

static int file_of(const struct note *note)
{
    return note->helper >= 0 ? note->helper : (int)note->event.ident;
}

static bool is_soft(const struct note *note)
{
    return note->event.filter == EVFILT_USER || note->event.filter == EVFILT_SIGNAL;
}

static void make_soft_ready(const struct queue *queue)
{
    static const uint64_t one = 1;
    ssize_t ignored = write(queue->soft, &one, sizeof one);
    (void)ignored;
}

static void disarm(const struct queue *queue, const struct note *note)
{
    if (!is_soft(note)) {
        (void)epoll_ctl(set_of(queue, note), EPOLL_CTL_DEL, file_of(note), NULL);
    }
}

/* Also tells what is so already. 0 or an error. */
static int arm(const struct queue *queue, struct note *note)
{
    struct epoll_event event = {.data = {.ptr = note}};
    event.events = note->event.filter == EVFILT_WRITE ? EPOLLOUT : EPOLLIN | EPOLLRDHUP;
    if (note->event.flags & EV_CLEAR && note->helper < 0) {
        event.events |= EPOLLET;
    }
    if (is_soft(note)) {
        make_soft_ready(queue);
        return 0;
    }
    if (epoll_ctl(set_of(queue, note), EPOLL_CTL_ADD, file_of(note), &event) != 0 &&
        (errno != EEXIST || epoll_ctl(set_of(queue, note), EPOLL_CTL_MOD, file_of(note), &event) != 0)) {
        return errno == EPERM || errno == ELOOP ? EINVAL : errno;
    }
    return 0;
}

/* ---- notes ---- */

static void count_signal(int number)
{
    int before = errno, watcher = atomic_load(&signal_watchers[number]) - 1;
    static const uint64_t one = 1;
    atomic_fetch_add(&signal_counts[number], 1);
    if (watcher >= 0) {
        ssize_t ignored = write(watcher, &one, sizeof one);
        (void)ignored;
    }
    errno = before;
    if (!(signal_actions[number].sa_flags & SA_SIGINFO) && signal_actions[number].sa_handler != SIG_DFL &&
        signal_actions[number].sa_handler != SIG_IGN) {
        signal_actions[number].sa_handler(number);
    }
}

static int watch_signal(struct queue *queue, struct note *note)
{
    int number = (int)note->event.ident, none = 0;
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};
    if (!atomic_compare_exchange_strong(&signal_watchers[number], &none, queue->soft + 1)) {
        return EBUSY;
    }
    note->counted = atomic_load(&signal_counts[number]);
    return sigaction(number, &action, &signal_actions[number]) == 0 ? 0 : errno;
}

static void unwatch_signal(int number)
{
    (void)sigaction(number, &signal_actions[number], NULL);
    atomic_store(&signal_watchers[number], 0);
}

static int set_timer(struct note *note)
{
    int64_t unit = note->event.fflags & NOTE_SECONDS    ? 1000000000
                   : note->event.fflags & NOTE_USECONDS ? 1000
                   : note->event.fflags & NOTE_NSECONDS ? 1
                                                        : 1000000;
    int64_t span = note->event.data > 0 ? note->event.data * unit : 1;
    struct itimerspec time = {.it_value = {span / 1000000000, span % 1000000000}};
    if (!(note->event.flags & EV_ONESHOT)) {
        time.it_interval = time.it_value;
    }
    return timerfd_settime(note->helper, 0, &time, NULL) == 0 ? 0 : errno;
}

static void give_note(struct queue *queue, struct note **link)
{
    struct note *note = *link;
    if (note->event.filter == EVFILT_SIGNAL) {
        unwatch_signal((int)note->event.ident);
    }
    disarm(queue, note);
    if (note->helper >= 0) {
        close_really(note->helper);
    }
    *link = note->next;
    free(note);
}

/* What a new note needs. 0 or an error. */
static int prepare(struct queue *queue, struct note *note)
{
    uintptr_t ident = note->event.ident;
    struct stat info;
    struct pollfd poller;
    switch (note->event.filter) {
    case EVFILT_READ:
    case EVFILT_WRITE:
        if (ident > INT32_MAX || fstat((int)ident, &info) != 0) {
            return EBADF;
        }
        poller = (struct pollfd){.fd = (int)ident};
        if (note->event.filter == EVFILT_WRITE && S_ISFIFO(info.st_mode) && poll(&poller, 1, 0) == 1) {
            return EPIPE; /* the other end is gone */
        }
        note->fresh = is_fresh((int)ident);
        return note->event.filter == EVFILT_WRITE && find_queue((int)ident) != NULL ? EINVAL : 0;
    case EVFILT_TIMER:
        note->event.flags |= EV_CLEAR;
        note->helper = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        return note->helper < 0 ? errno : set_timer(note);
    case EVFILT_PROC:
        note->helper = note->event.fflags == NOTE_EXIT ? (int)syscall(SYS_pidfd_open, (pid_t)ident, 0) : -1;
        return note->helper >= 0 ? 0 : note->event.fflags == NOTE_EXIT ? errno : EINVAL;
    case EVFILT_SIGNAL:
        note->event.flags |= EV_CLEAR;
        return ident == 0 || ident >= SIGNALS ? EINVAL : watch_signal(queue, note);
    case EVFILT_USER:
        return 0;
    default:
        return EINVAL;
    }
}

static void touch_user(struct note *note, const struct kevent *change)
{
    unsigned operand = change->fflags & NOTE_FFLAGSMASK, *notes = &note->event.fflags;
    switch (change->fflags & NOTE_FFCTRLMASK) {
    case NOTE_FFAND:
        *notes &= operand;
        break;
    case NOTE_FFOR:
        *notes |= operand;
        break;
    case NOTE_FFCOPY:
        *notes = operand;
        break;
    default:
        break;
    }
    note->triggered = note->triggered || (change->fflags & NOTE_TRIGGER);
}

static int add_note(struct queue *queue, struct note **link, const struct kevent *change)
{
    struct note *note = calloc(1, sizeof *note);
    if (note == NULL) {
        return ENOMEM;
    }
    note->event = *change;
    note->event.flags = change->flags & (EV_CLEAR | EV_ONESHOT | EV_DISPATCH);
    note->enabled = !(change->flags & EV_DISABLE);
    note->helper = -1;
    if (change->filter == EVFILT_USER) {
        note->event.fflags &= NOTE_FFLAGSMASK;
        note->triggered = (change->fflags & NOTE_TRIGGER) != 0;
    }
    int error = prepare(queue, note);
    if (error == 0 && note->enabled && (error = arm(queue, note)) != 0 && note->event.filter == EVFILT_SIGNAL) {
        unwatch_signal((int)note->event.ident);
    }
    if (error != 0) {
        if (note->helper >= 0) {
            close_really(note->helper);
        }
        free(note);
        return error;
    }
    note->next = *link;
    *link = note;
    return 0;
}

static int change_note(struct queue *queue, struct note *note, const struct kevent *change)
{
    note->event.udata = change->udata;
    if (change->flags & EV_ADD) {
        note->event.flags &= (unsigned short)~(EV_CLEAR | EV_ONESHOT | EV_DISPATCH);
        note->event.flags |= change->flags & (EV_CLEAR | EV_ONESHOT | EV_DISPATCH);
    }
    if (note->event.filter == EVFILT_USER) {
        touch_user(note, change);
    } else if (note->event.filter == EVFILT_TIMER && change->flags & EV_ADD) {
        note->event.fflags = change->fflags;
        note->event.data = change->data;
        (void)set_timer(note);
    }
    if (change->flags & EV_DISABLE) {
        note->enabled = false;
        disarm(queue, note);
    } else if (change->flags & EV_ENABLE) {
        note->enabled = true;
    }
    return note->enabled ? arm(queue, note) : 0;
}

static int apply(struct queue *queue, const struct kevent *change)
{
    struct note **link = find_link(queue, change->ident, change->filter);
    if (change->filter == EVFILT_READ || change->filter == EVFILT_WRITE) {
        if (change->ident > INT32_MAX || fcntl((int)change->ident, F_GETFD) < 0) {
            return EBADF;
        }
    }
    if (*link == NULL) {
        return change->flags & EV_ADD ? add_note(queue, link, change) : ENOENT;
    }
    if (change->flags & EV_DELETE) {
        give_note(queue, link);
        return 0;
    }
    return change_note(queue, *link, change);
}

/* ---- collecting ---- */

/* After a note was reported. */
static void settle(struct queue *queue, struct note *note)
{
    note->triggered = note->triggered && !(note->event.flags & EV_CLEAR);
    if (note->event.flags & EV_ONESHOT) {
        give_note(queue, find_link(queue, note->event.ident, note->event.filter));
    } else if (note->event.flags & EV_DISPATCH) {
        note->enabled = false;
        disarm(queue, note);
    }
}

static bool evaluate(struct note *note, uint32_t told, struct kevent *event)
{
    *event = note->event;
    switch (note->event.filter) {
    case EVFILT_TIMER:
        return evaluate_timer(note, event);
    case EVFILT_PROC:
        return evaluate_process(note, event);
    case EVFILT_SIGNAL:
        return evaluate_signal(note, event);
    case EVFILT_USER:
        return note->triggered;
    default:
        return evaluate_file(note, told, event);
    }
}

/* User events and signals. The eventfd stays readable while there may be more than there was room for. */
static int collect_soft(struct queue *queue, struct kevent *events, int room)
{
    uint64_t ignored;
    ssize_t emptied = read(queue->soft, &ignored, sizeof ignored);
    int count = 0;
    (void)emptied;
    for (int i = 0; i < BUCKETS; i++) {
        for (struct note *note = queue->buckets[i], *next; note != NULL; note = next) {
            next = note->next;
            if (!is_soft(note) || !note->enabled) {
                continue;
            }
            if (count == room) {
                make_soft_ready(queue);
                return count;
            }
            if (evaluate(note, 0, &events[count])) {
                count++;
                if (note->triggered && !(note->event.flags & (EV_CLEAR | EV_ONESHOT | EV_DISPATCH))) {
                    make_soft_ready(queue);
                }
                settle(queue, note);
            }
        }
    }
    return count;
}

/* What one set has; a set takes no more out than there is room for, for an edge that is taken out comes once. */
static int collect_set(struct queue *queue, int set, struct kevent *events, int room)
{
    struct epoll_event told[BATCH];
    int count = 0, found = epoll_wait(set, told, room < BATCH ? room : BATCH, 0);
    bool writes = false, soft = false;
    for (int i = 0; i < found; i++) {
        struct note *note = told[i].data.ptr;
        if (told[i].data.ptr == &queue->writes) {
            writes = true;
        } else if (told[i].data.ptr == &queue->soft) {
            soft = true;
        } else if (evaluate(note, told[i].events, &events[count])) {
            count++;
            settle(queue, note);
        }
    }
    if (soft) {
        count += collect_soft(queue, events + count, room - count - (writes ? 1 : 0));
    }
    return writes ? count + collect_set(queue, queue->writes, events + count, room - count) : count;
}

/* ---- the interface ---- */

static void lock_all(void)
{
    pthread_mutex_lock(&mutex);
}

static void unlock_all(void)
{
    pthread_mutex_unlock(&mutex);
}

static void free_queue(struct queue *queue)
{
    close_really(queue->writes);
    close_really(queue->soft);
    free(queue);
}

/* Its number is closed next. Those who wait in it learn that it is. */
static void give_queue(struct queue **link)
{
    struct queue *queue = *link;
    for (int i = 0; i < BUCKETS; i++) {
        while (queue->buckets[i] != NULL) {
            give_note(queue, &queue->buckets[i]);
        }
    }
    *link = queue->next;
    atomic_fetch_sub(&queue_count, 1);
    queue->closed = true;
    if (queue->waiters > 0) {
        make_soft_ready(queue);
    } else {
        free_queue(queue);
    }
}

/* A child has the descriptors, which it should not, and shares the sets with its parent, from which it may take nothing. */
static void forget_in_child(void)
{
    for (struct queue *queue; (queue = queues) != NULL; queues = queue->next, free(queue)) {
        for (int i = 0; i < BUCKETS; i++) {
            for (struct note *note; (note = queue->buckets[i]) != NULL; queue->buckets[i] = note->next, free(note)) {
                if (note->helper >= 0) {
                    close_really(note->helper);
                }
                if (note->event.filter == EVFILT_SIGNAL) {
                    unwatch_signal((int)note->event.ident);
                }
            }
        }
        close_really(queue->set);
        close_really(queue->writes);
        close_really(queue->soft);
    }
    atomic_store(&queue_count, 0);
    unlock_all();
}

__attribute__((constructor)) static void prepare_for_fork(void)
{
    pthread_atfork(lock_all, unlock_all, forget_in_child);
}

PUBLIC int kqueue(void)
{
    struct queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL) {
        return -1;
    }
    queue->set = epoll_create1(EPOLL_CLOEXEC);
    queue->writes = epoll_create1(EPOLL_CLOEXEC);
    queue->soft = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event writes = {.events = EPOLLIN, .data = {.ptr = &queue->writes}};
    struct epoll_event soft = {.events = EPOLLIN, .data = {.ptr = &queue->soft}};
    if (queue->soft < 0 || epoll_ctl(queue->set, EPOLL_CTL_ADD, queue->writes, &writes) != 0 ||
        epoll_ctl(queue->set, EPOLL_CTL_ADD, queue->soft, &soft) != 0) {
        int error = errno;
        close_really(queue->set);
        close_really(queue->writes);
        close_really(queue->soft);
        free(queue);
        errno = error;
        return -1;
    }
    int number = queue->set;
    lock_all();
    queue->next = queues;
    queues = queue;
    atomic_fetch_add(&queue_count, 1);
    unlock_all();
    return number;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Answers how many receipts there are, or -1 with the error of a change for which there was no room. */
static int apply_all(struct queue *queue, const struct kevent *changes, int change_count, struct kevent *events,
                     int room)
{
    int count = 0;
    for (int i = 0; i < change_count; i++) {
        struct kevent change = changes[i]; /* the two lists may be one */
        int error = apply(queue, &change);
        if (error == 0 && !(change.flags & EV_RECEIPT)) {
            continue;
        }
        if (count < room) {
            events[count] = change;
            events[count].flags = EV_ERROR;
            events[count++].data = error;
        } else if (error != 0) {
            errno = error;
            return -1;
        }
    }
    return count;
}

/* Under the lock, which it releases: waits until there may be something in the queue; false with errno if there is no
 * sense in looking. */
static bool await(struct queue *queue, int64_t span_ns)
{
    struct pollfd poller = {.fd = queue->set, .events = POLLIN};
    struct timespec span = {span_ns / 1000000000, span_ns % 1000000000};
    queue->waiters++;
    unlock_all();
    bool ended = ppoll(&poller, 1, &span, NULL) >= 0;
    int error = errno;
    lock_all();
    queue->waiters--;
    if (queue->closed) {
        ended = false;
        error = EBADF;
        if (queue->waiters == 0) {
            free_queue(queue);
        }
    }
    unlock_all();
    errno = error;
    return ended;
}

PUBLIC int kevent(int number, const struct kevent *changes, int change_count, struct kevent *events, int event_count,
                  const struct timespec *timeout)
{
    int64_t end = INT64_MAX;
    if (timeout != NULL) {
        if (timeout->tv_sec < 0 || timeout->tv_sec > LONGEST_S || timeout->tv_nsec < 0 ||
            timeout->tv_nsec >= 1000000000) {
            errno = EINVAL;
            return -1;
        }
        const char *early = getenv("KQUEUE_EARLY_US");
        int64_t span = (int64_t)timeout->tv_sec * 1000000000 + timeout->tv_nsec;
        end = span == 0 ? 0 : now_ns() + span - (early != NULL ? atoll(early) * 1000 : 0);
    }
    for (;; change_count = 0) {
        lock_all();
        struct queue *queue = find_queue(number);
        int count = queue == NULL ? -1 : apply_all(queue, changes, change_count, events, event_count);
        if (queue == NULL) {
            errno = EBADF;
        } else if (count == 0 && event_count > 0) {
            count = collect_set(queue, queue->set, events, event_count);
        }
        int64_t left = end == 0 || end == INT64_MAX ? end : end - now_ns();
        if (count != 0 || event_count == 0 || left <= 0) {
            unlock_all();
            return count;
        }
        if (!await(queue, left)) {
            return -1;
        }
    }
}

/* ---- closing ---- */

static void forget(int file)
{
    if (atomic_load(&queue_count) == 0 || file < 0) {
        return;
    }
    lock_all();
    for (struct queue **link = &queues; *link != NULL;) {
        if ((*link)->set == file) {
            give_queue(link);
            continue;
        }
        static const int filters[] = {EVFILT_READ, EVFILT_WRITE};
        for (int i = 0; i < 2; i++) {
            struct note **note = find_link(*link, (uintptr_t)file, filters[i]);
            if (*note != NULL) {
                give_note(*link, note);
            }
        }
        link = &(*link)->next;
    }
    unlock_all();
}

PUBLIC int close(int file)
{
    int before = errno;
    forget(file);
    errno = before;
    return close_really(file);
}

PUBLIC int dup3(int file, int number, int flags)
{
    if (fcntl(file, F_GETFD) >= 0 && file != number) {
        forget(number);
    }
    return (int)syscall(SYS_dup3, file, number, flags);
}

PUBLIC int dup2(int file, int number)
{
    return file == number ? (fcntl(file, F_GETFD) < 0 ? -1 : number) : dup3(file, number, 0);
}
