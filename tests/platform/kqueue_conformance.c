/* Does this system's kqueue do what rouse's backend relies on? One line for each answer; the status says whether all are
 * as they must be. For those who have a Mac or a BSD; CTest runs it on whatever kqueue the library was built for.
 *
 *     cc -o kqueue_conformance kqueue_conformance.c -lpthread && ./kqueue_conformance
 *
 * "ok" and "FAIL" are answers that the backend depends on, "note" what differs between the systems and is allowed for. */
#include <sys/types.h> /* before the next ones */

#include <sys/event.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FIELD(name) __typeof__(((struct kevent *)NULL)->name)
#define SOON_MS     5000 /* what must come comes sooner */
#define SILENCE_MS  30   /* what must not come has had this long */

static int failures;

static void check(bool holds, const char *text)
{
    printf("%-4s %s\n", holds ? "ok" : "FAIL", text);
    fflush(stdout);
    failures += !holds;
}

static void note(const char *text, long long number)
{
    printf("note %s: %lld\n", text, number);
    fflush(stdout);
}

/* What must work for a check to mean anything. */
static void must(bool holds, const char *text)
{
    if (!holds) {
        printf("FAIL %s: %s\n", text, strerror(errno));
        exit(2);
    }
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static struct kevent change_of(int ident, int filter, unsigned flags, unsigned notes, int64_t data, uintptr_t token)
{
    struct kevent change;
    memset(&change, 0, sizeof change);
    change.ident = (uintptr_t)ident;
    change.filter = (FIELD(filter))filter;
    change.flags = (FIELD(flags))flags;
    change.fflags = (FIELD(fflags))notes;
    change.data = (FIELD(data))data;
    change.udata = (FIELD(udata))token;
    return change;
}

/* One change: 0 or an error. */
static int tell(int queue, int ident, int filter, unsigned flags, unsigned notes, int64_t data, uintptr_t token)
{
    struct kevent change = change_of(ident, filter, flags, notes, data, token);
    return kevent(queue, &change, 1, NULL, 0, NULL) == 0 ? 0 : errno;
}

/* The filters for reading and writing in one call with receipts, as the backend does it. */
static void tell_both(int queue, int descriptor, unsigned flags, uintptr_t token, int errors[2])
{
    struct kevent receipts[2];
    struct kevent changes[2] = {change_of(descriptor, EVFILT_READ, flags | EV_RECEIPT, 0, 0, token),
                                change_of(descriptor, EVFILT_WRITE, flags | EV_RECEIPT, 0, 0, token)};
    int count = kevent(queue, changes, 2, receipts, 2, NULL);
    must(count == 2, "two changes give two receipts");
    for (int i = 0; i < 2; i++) {
        errors[i] = receipts[i].flags & EV_ERROR ? (int)receipts[i].data : -1;
    }
}

static int watch(int queue, int descriptor, uintptr_t token)
{
    int errors[2];
    tell_both(queue, descriptor, EV_ADD | EV_CLEAR, token, errors);
    return errors[0] != 0 ? errors[0] : errors[1];
}

static bool next_event(int queue, struct kevent *event, int ms)
{
    struct timespec span = {ms / 1000, ms % 1000 * 1000000};
    memset(event, 0, sizeof *event);
    return kevent(queue, NULL, 0, event, 1, &span) == 1;
}

static bool is_silent(int queue)
{
    struct kevent event;
    return !next_event(queue, &event, SILENCE_MS);
}

static void drain(int queue)
{
    struct kevent event;
    while (next_event(queue, &event, SILENCE_MS)) {}
}

static bool is_about(const struct kevent *event, int filter, uintptr_t token)
{
    return event->filter == (FIELD(filter))filter && (uintptr_t)event->udata == token;
}

/* Takes events until one is about this filter. */
static bool await_filter(int queue, int filter, struct kevent *event)
{
    while (next_event(queue, event, SOON_MS)) {
        if (event->filter == (FIELD(filter))filter) {
            return true;
        }
    }
    return false;
}

static bool await_end(int queue, int filter, struct kevent *event)
{
    while (await_filter(queue, filter, event)) {
        if (event->flags & EV_EOF) {
            return true;
        }
    }
    return false;
}

/* ---- what is watched ---- */

static struct sockaddr_in local_address(int port)
{
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = (in_port_t)port;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int listen_somewhere(struct sockaddr_in *address)
{
    socklen_t length = sizeof *address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    *address = local_address(0);
    must(listener >= 0 && bind(listener, (struct sockaddr *)address, sizeof *address) == 0 &&
             listen(listener, 8) == 0 && getsockname(listener, (struct sockaddr *)address, &length) == 0,
         "a listener on 127.0.0.1");
    return listener;
}

static void make_tcp_pair(int ends[2])
{
    struct sockaddr_in address;
    int listener = listen_somewhere(&address);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(ends[0], (struct sockaddr *)&address, sizeof address) == 0, "a connection");
    ends[1] = accept(listener, NULL, NULL);
    must(ends[1] >= 0, "an accepted connection");
    close(listener);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
}

static void make_unix_pair(int ends[2])
{
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "a pair of Unix sockets");
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
}

static void make_pipe(int ends[2])
{
    must(pipe(ends) == 0, "a pipe");
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
}

static void put(int descriptor, const char *text)
{
    must(write(descriptor, text, strlen(text)) == (ssize_t)strlen(text), "a write");
}

static void close_both(const int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

/* ---- registering ---- */

static void check_registering(int queue)
{
    struct kevent event, receipts[3], changes[3];
    int ends[2], errors[2];
    make_tcp_pair(ends);

    tell_both(queue, ends[0], EV_ENABLE, 1, errors);
    check(errors[0] == ENOENT && errors[1] == ENOENT, "enabling what is not there says ENOENT");
    check(tell(queue, ends[0], EVFILT_READ, EV_DELETE, 0, 0, 0) == ENOENT, "so does deleting it");

    changes[0] = change_of(ends[0], EVFILT_READ, EV_ADD | EV_CLEAR | EV_RECEIPT, 0, 0, 7);
    changes[1] = change_of(9999, EVFILT_READ, EV_ADD | EV_CLEAR | EV_RECEIPT, 0, 0, 7);
    changes[2] = change_of(ends[0], EVFILT_WRITE, EV_ADD | EV_CLEAR | EV_RECEIPT, 0, 0, 7);
    int count = kevent(queue, changes, 3, receipts, 3, NULL);
    check(count == 3 && receipts[0].data == 0 && receipts[1].data == EBADF && receipts[2].data == 0,
          "each change has its receipt, and one that fails does not stop the others");
    check(next_event(queue, &event, SOON_MS) && is_about(&event, EVFILT_WRITE, 7) && !(event.flags & EV_EOF),
          "what is ready already is told, with the token");
    check(is_silent(queue), "and once");

    tell_both(queue, ends[0], EV_ENABLE, 7, errors);
    check(errors[0] == 0 && errors[1] == 0, "enabling what is there succeeds");
    drain(queue);
    put(ends[1], "x");
    check(await_filter(queue, EVFILT_READ, &event) && is_about(&event, EVFILT_READ, 7), "and changes nothing");
    drain(queue);

    (void)watch(queue, ends[0], 8);
    note("adding again replaces the token",
         await_filter(queue, EVFILT_READ, &event) && is_about(&event, EVFILT_READ, 8));
    drain(queue);

    tell_both(queue, ends[0], EV_DELETE, 0, errors);
    put(ends[1], "y");
    check(errors[0] == 0 && errors[1] == 0 && is_silent(queue), "what is deleted is silent");
    close_both(ends);
}

static void check_edges(int queue)
{
    static char block[65536];
    struct kevent event;
    int ends[2];
    make_tcp_pair(ends);
    must(watch(queue, ends[0], 1) == 0, "watching a socket");
    drain(queue);
    put(ends[1], "abc");
    check(await_filter(queue, EVFILT_READ, &event) && event.data == 3, "data are told, with their number");
    drain(queue);
    check(is_silent(queue), "they are not told again while they lie there");
    put(ends[1], "d");
    check(await_filter(queue, EVFILT_READ, &event) && event.data == 4, "more data are, and all of them are counted");
    while (write(ends[0], block, sizeof block) > 0) {}
    drain(queue);
    bool writable = false;
    for (int64_t end = now_us() + SOON_MS * 1000; !writable && now_us() < end;) {
        while (read(ends[1], block, sizeof block) > 0) {}
        while (next_event(queue, &event, 1)) {
            writable = writable || is_about(&event, EVFILT_WRITE, 1);
        }
    }
    check(writable, "a full socket that is read from becomes writable");
    check(tell(queue, ends[0], EVFILT_READ, EV_ADD | EV_DISPATCH, 0, 0, 1) == 0, "EV_DISPATCH is known");
    close_both(ends);
}

static void check_once(int queue)
{
    struct kevent event;
    int ends[2];
    make_unix_pair(ends);
    must(tell(queue, ends[0], EVFILT_READ, EV_ADD | EV_DISPATCH, 0, 0, 1) == 0, "EV_DISPATCH");
    put(ends[1], "1");
    bool told = next_event(queue, &event, SOON_MS);
    put(ends[1], "2");
    check(told && is_silent(queue), "EV_DISPATCH disables after one event");
    must(tell(queue, ends[0], EVFILT_READ, EV_ENABLE | EV_DISPATCH, 0, 0, 1) == 0, "EV_ENABLE");
    check(next_event(queue, &event, SOON_MS) && event.data == 2, "enabled again, it tells what is there");
    must(tell(queue, ends[0], EVFILT_READ, EV_DELETE, 0, 0, 0) == 0, "EV_DELETE");
    must(tell(queue, ends[0], EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, 0, 1) == 0, "EV_ONESHOT");
    told = next_event(queue, &event, SOON_MS);
    check(told && is_silent(queue) && tell(queue, ends[0], EVFILT_WRITE, EV_DELETE, 0, 0, 0) == ENOENT,
          "EV_ONESHOT deletes after one event");
    must(tell(queue, ends[0], EVFILT_READ, EV_ADD, 0, 0, 1) == 0, "without EV_CLEAR");
    told = next_event(queue, &event, SOON_MS) && next_event(queue, &event, SOON_MS);
    check(told, "without any of them it tells as long as it lasts");
    must(tell(queue, ends[0], EVFILT_READ, EV_DISABLE, 0, 0, 1) == 0, "EV_DISABLE");
    check(is_silent(queue), "EV_DISABLE silences it");
    close_both(ends);
}

static void check_listener(int queue)
{
    struct sockaddr_in address;
    struct kevent event;
    int listener = listen_somewhere(&address), clients[2];
    check(watch(queue, listener, 1) == 0, "a listener has both filters");
    drain(queue);
    for (int i = 0; i < 2; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM, 0);
        must(connect(clients[i], (struct sockaddr *)&address, sizeof address) == 0, "a connection");
        check(await_filter(queue, EVFILT_READ, &event) && event.data == i + 1, "each connection is told, and counted");
    }
    close_both(clients);
    close(listener);
}

/* ---- closing ---- */

static void check_closing(int queue)
{
    int ends[2], others[2], errors[2];
    make_unix_pair(ends);
    make_unix_pair(others);
    must(watch(queue, ends[0], 1) == 0, "watching a socket");
    drain(queue);
    int copy = dup(ends[0]), number = ends[0];
    close(ends[0]);
    put(ends[1], "x");
    check(is_silent(queue), "closing a descriptor ends its filters, though a copy lives on");
    must(dup2(others[0], number) == number, "another one with its number");
    tell_both(queue, number, EV_ENABLE, 1, errors);
    check(errors[0] == ENOENT && errors[1] == ENOENT, "the next one with its number has none");
    must(watch(queue, number, 2) == 0, "watching it");
    drain(queue);
    must(dup2(ends[1], number) == number, "a third one in its place");
    put(others[1], "x");
    check(is_silent(queue), "dup2 ends the filters of what it replaces");
    close(number);
    close(copy);
    close(ends[1]);
    close_both(others);
}

static void check_fork(int queue)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        struct timespec none = {0, 0};
        struct kevent event;
        _exit(kevent(queue, NULL, 0, &event, 1, &none) < 0 && errno == EBADF ? 0 : 1);
    }
    must(child > 0 && waitpid(child, &status, 0) == child, "a child");
    check(status == 0, "a forked child does not have the queue");
}

/* ---- ends ---- */

static void check_tcp_ends(int queue)
{
    struct linger linger = {1, 0};
    struct kevent event;
    int ends[2];
    make_tcp_pair(ends);
    must(watch(queue, ends[0], 1) == 0, "watching a socket");
    drain(queue);
    put(ends[1], "last");
    shutdown(ends[1], SHUT_WR);
    check(await_end(queue, EVFILT_READ, &event) && event.fflags == 0 && event.data == 4,
          "a half close is an end for reading, without an error, and counts what is left");
    bool hung = false;
    while (next_event(queue, &event, SILENCE_MS)) {
        hung = hung || (event.filter == (FIELD(filter))EVFILT_WRITE && event.flags & EV_EOF);
    }
    check(!hung, "and none for writing");
    close_both(ends);

    make_tcp_pair(ends);
    must(watch(queue, ends[0], 1) == 0, "watching a socket");
    drain(queue);
    setsockopt(ends[1], SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(ends[1]);
    bool told[2] = {false, false};
    for (int i = 0; i < 8 && !(told[0] && told[1]) && next_event(queue, &event, SOON_MS); i++) {
        if (event.flags & EV_EOF && event.fflags == ECONNRESET) {
            told[event.filter == (FIELD(filter))EVFILT_WRITE] = true;
        }
    }
    check(told[0] && told[1], "a reset is an end with ECONNRESET for both");
    close(ends[0]);
}

static void check_refusal(int queue)
{
    struct sockaddr_in address;
    struct kevent event;
    socklen_t length = sizeof(int);
    int error = 0;
    close(listen_somewhere(&address));
    int client = socket(AF_INET, SOCK_STREAM, 0);
    fcntl(client, F_SETFL, O_NONBLOCK);
    if (connect(client, (struct sockaddr *)&address, sizeof address) < 0 && errno == EINPROGRESS) {
        must(watch(queue, client, 1) == 0, "watching a socket that connects");
        check(await_end(queue, EVFILT_WRITE, &event) && event.fflags == ECONNREFUSED,
              "a refused connection is an end with ECONNREFUSED");
        getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length);
        check(error == ECONNREFUSED, "and the socket still has that error");
    } else {
        note("a refused connection is told at once", errno);
    }
    close(client);
}

static void check_unix_ends(int queue)
{
    struct kevent event;
    int ends[2];
    make_unix_pair(ends);
    must(watch(queue, ends[0], 1) == 0, "watching a socket");
    drain(queue);
    put(ends[1], "last");
    close(ends[1]);
    bool told[2] = {false, false};
    for (int i = 0; i < 8 && !(told[0] && told[1]) && next_event(queue, &event, SOON_MS); i++) {
        if (event.flags & EV_EOF) {
            told[event.filter == (FIELD(filter))EVFILT_WRITE] = true;
        }
    }
    check(told[0] && told[1], "a Unix socket whose peer is gone is at its end for both");
    close(ends[0]);
}

/* Either filter tells, which is what the backend takes for enough. */
static bool is_told_of_end(int queue)
{
    struct kevent event;
    while (next_event(queue, &event, SOON_MS)) {
        if (event.flags & EV_EOF) {
            return true;
        }
    }
    return false;
}

static void check_pipes(int queue)
{
    struct kevent event;
    int ends[2], errors[2];
    make_pipe(ends);
    must(tell(queue, ends[0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, 1) == 0, "watching a pipe");
    put(ends[1], "last");
    check(await_filter(queue, EVFILT_READ, &event) && event.data == 4, "a pipe counts its bytes");
    close(ends[1]);
    check(await_end(queue, EVFILT_READ, &event), "its reader is told that the writer is gone");
    close(ends[0]);

    make_pipe(ends);
    tell_both(queue, ends[1], EV_ADD | EV_CLEAR, 1, errors);
    check(errors[1] == 0, "the writing end of a pipe has a filter for writing");
    note("its filter for reading, error", errors[0]);
    drain(queue);
    close(ends[0]);
    check(is_told_of_end(queue), "its writer is told that the reader is gone");
    close(ends[1]);

    for (int gone = 0; gone < 2; gone++) {
        make_pipe(ends);
        close(ends[gone]);
        tell_both(queue, ends[1 - gone], EV_ADD | EV_CLEAR, 1, errors);
        note(gone == 0 ? "the writer of a pipe without a reader, reading, error"
                       : "the reader of a pipe without a writer, reading, error",
             errors[0]);
        note("writing, error", errors[1]);
        bool allowed = errors[0] == 0 && (errors[1] == 0 || errors[1] == EPIPE || errors[1] == EBADF);
        check((allowed && is_told_of_end(queue)) || (errors[1] == 0 && is_told_of_end(queue)),
              "it can be watched, and is told of the end");
        close(ends[1 - gone]);
    }
}

/* ---- waiting and waking ---- */

struct hand {
    int queue, descriptor;
    pthread_t thread;
};

static void pause_ms(int ms)
{
    struct timespec span = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&span, NULL);
}

static void *write_late(void *argument)
{
    struct hand *hand = argument;
    pause_ms(20);
    put(hand->descriptor, "w");
    return NULL;
}

static void *watch_late(void *argument)
{
    struct hand *hand = argument;
    pause_ms(20);
    must(watch(hand->queue, hand->descriptor, 5) == 0, "watching from another thread");
    return NULL;
}

static void *interrupt_late(void *argument)
{
    struct hand *hand = argument;
    pause_ms(20);
    pthread_kill(hand->thread, SIGUSR2);
    return NULL;
}

#if defined(EVFILT_USER)
static void *trigger_late(void *argument)
{
    struct hand *hand = argument;
    pause_ms(20);
    must(tell(hand->queue, 0, EVFILT_USER, 0, NOTE_TRIGGER, 0, 0) == 0, "a trigger from another thread");
    return NULL;
}

static void check_user_events(int queue)
{
    struct hand hand = {.queue = queue};
    struct kevent event;
    pthread_t thread;
    int error = tell(queue, 0, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, 0);
    if (error != 0) {
        note("no user events here, error", error);
        return;
    }
    check(is_silent(queue), "a user event that nobody triggers is silent");
    must(pthread_create(&thread, NULL, trigger_late, &hand) == 0, "a thread");
    check(next_event(queue, &event, SOON_MS) && event.filter == (FIELD(filter))EVFILT_USER,
          "a user event ends the wait of another thread");
    pthread_join(thread, NULL);
    check(is_silent(queue), "and no other");
    for (int i = 0; i < 3; i++) {
        must(tell(queue, 0, EVFILT_USER, 0, NOTE_TRIGGER, 0, 0) == 0, "a trigger");
    }
    check(next_event(queue, &event, SOON_MS), "triggered before the wait it ends that");
    check(is_silent(queue), "and several are one");
    must(tell(queue, 0, EVFILT_USER, EV_DELETE, 0, 0, 0) == 0, "deleting it");
}
#else
static void check_user_events(int queue)
{
    note("no user events in this system's headers", queue);
}
#endif

static void do_nothing(int number)
{
    (void)number;
}

static void check_waits(int queue)
{
    struct hand hand = {.queue = queue, .thread = pthread_self()};
    struct timespec half_an_hour = {1800, 0}, short_span = {0, 1500000};
    struct sigaction action, before;
    struct kevent event;
    pthread_t thread;
    int ends[2];
    make_pipe(ends);
    must(tell(queue, ends[0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, 3) == 0, "watching a pipe");
    hand.descriptor = ends[1];
    must(pthread_create(&thread, NULL, write_late, &hand) == 0, "a thread");
    check(kevent(queue, NULL, 0, &event, 1, &half_an_hour) == 1 && is_about(&event, EVFILT_READ, 3),
          "a wait of half an hour is accepted, and a pipe ends it");
    pthread_join(thread, NULL);
    close_both(ends);

    make_unix_pair(ends);
    hand.descriptor = ends[0];
    must(pthread_create(&thread, NULL, watch_late, &hand) == 0, "a thread");
    check(next_event(queue, &event, SOON_MS) && is_about(&event, EVFILT_WRITE, 5),
          "what another thread adds during a wait ends it");
    pthread_join(thread, NULL);
    close_both(ends);

    int64_t start = now_us();
    for (int i = 0; i < 1000; i++) {
        must(!next_event(queue, &event, 0), "a look finds nothing");
    }
    check(now_us() - start < SOON_MS * 1000, "a timeout of zero does not wait");
    start = now_us();
    must(kevent(queue, NULL, 0, &event, 1, &short_span) == 0, "a short wait");
    note("a wait of 1500 us takes us", now_us() - start);

    memset(&action, 0, sizeof action);
    action.sa_handler = do_nothing;
    sigaction(SIGUSR2, &action, &before);
    must(pthread_create(&thread, NULL, interrupt_late, &hand) == 0, "a thread");
    struct timespec soon = {SOON_MS / 1000, 0};
    check(kevent(queue, NULL, 0, &event, 1, &soon) < 0 && errno == EINTR, "a signal interrupts a wait");
    pthread_join(thread, NULL);
    sigaction(SIGUSR2, &before, NULL);
}

static void check_nesting(int queue)
{
    struct pollfd poller = {.fd = queue, .events = POLLIN};
    struct kevent event;
    int outer = kqueue(), ends[2];
    must(outer >= 0 && tell(outer, queue, EVFILT_READ, EV_ADD, 0, 0, 9) == 0, "a queue in a queue");
    make_unix_pair(ends);
    must(tell(queue, ends[0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, 1) == 0, "watching a socket");
    check(poll(&poller, 1, 0) == 0 && is_silent(outer), "a queue with no event is not readable");
    put(ends[1], "x");
    check(poll(&poller, 1, SOON_MS) == 1, "with one it is, for poll");
    check(next_event(outer, &event, SOON_MS) && is_about(&event, EVFILT_READ, 9), "and for another queue");
    drain(queue);
    check(poll(&poller, 1, 0) == 0 && is_silent(outer), "and no more when that was taken");
    close(outer);
    close_both(ends);
}

/* ---- what the library does not use yet ---- */

static void check_other_filters(int queue)
{
    struct kevent event;
    int64_t start = now_us();
    int status;
    must(tell(queue, 7, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 30, 1) == 0, "a timer of 30 ms");
    check(next_event(queue, &event, SOON_MS) && event.ident == 7, "a timer is told");
    note("a timer of 30000 us takes us", now_us() - start);
    signal(SIGUSR1, SIG_IGN);
    must(tell(queue, SIGUSR1, EVFILT_SIGNAL, EV_ADD, 0, 0, 1) == 0, "a filter for signals");
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR1);
    check(await_filter(queue, EVFILT_SIGNAL, &event) && event.data == 2, "signals are counted though they are ignored");
    must(tell(queue, SIGUSR1, EVFILT_SIGNAL, EV_DELETE, 0, 0, 1) == 0, "deleting it");
    pid_t child = fork();
    if (child == 0) {
        pause_ms(30);
        _exit(7);
    }
    must(tell(queue, child, EVFILT_PROC, EV_ADD | EV_ONESHOT, (unsigned)NOTE_EXIT, 0, 1) == 0, "a filter for a child");
    check(await_filter(queue, EVFILT_PROC, &event) && event.fflags & (unsigned)NOTE_EXIT, "the end of a child is told");
    waitpid(child, &status, 0);
    check(tell(queue, child, EVFILT_PROC, EV_ADD | EV_ONESHOT, (unsigned)NOTE_EXIT, 0, 1) == ESRCH,
          "after waitpid there is no such process");
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    int queue = kqueue();
    must(queue >= 0, "kqueue");
    check(fcntl(queue, F_SETFD, FD_CLOEXEC) == 0, "the queue can be closed on exec");
    check_registering(queue);
    check_edges(queue);
    check_once(queue);
    check_listener(queue);
    check_closing(queue);
    check_fork(queue);
    check_tcp_ends(queue);
    check_refusal(queue);
    check_unix_ends(queue);
    check_pipes(queue);
    check_user_events(queue);
    check_waits(queue);
    check_nesting(queue);
    check_other_filters(queue);
    close(queue);
    printf("%d failed\n", failures);
    return failures != 0;
}
