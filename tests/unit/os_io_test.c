/* Descriptors: kinds, reading, writing, and no SIGPIPE. */
#include "os/os.h"

#include "support/faults.h"
#include "support/harness.h"
#include "support/net.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

TEST_FILE_NEEDS(system_layer)

static void make_pipe(int ends[2])
{
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(os_set_nonblocking(ends[0], true, NULL), ROUSE_OK);
    assert_int_equal(os_set_nonblocking(ends[1], true, NULL), ROUSE_OK);
}

static void make_unix_pair(int ends[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(os_set_nonblocking(ends[0], true, NULL), ROUSE_OK);
    assert_int_equal(os_set_nonblocking(ends[1], true, NULL), ROUSE_OK);
}

static void make_tcp_pair(int ends[2])
{
    test_tcp_pair(ends);
    assert_int_equal(os_set_nonblocking(ends[0], true, NULL), ROUSE_OK);
    assert_int_equal(os_set_nonblocking(ends[1], true, NULL), ROUSE_OK);
}

/* What can be read and written; the writing end is ends[1] for all. */
static const struct medium {
    void (*make)(int ends[2]);
    enum os_kind kind;
} media[] = {
    {make_pipe, OS_KIND_OTHER},
    {make_unix_pair, OS_KIND_OTHER_SOCKET},
    {make_tcp_pair, OS_KIND_STREAM_SOCKET},
};

#define MEDIA (sizeof media / sizeof media[0])

/* The first of them that this system has. */
static size_t first_medium(void)
{
    return test_has("descriptors") && test_has("unix_sockets") ? 0 : MEDIA - 1;
}

static void close_both(const int ends[2])
{
    assert_int_equal(os_close(ends[0]), ROUSE_OK);
    assert_int_equal(os_close(ends[1]), ROUSE_OK);
}

/* ---- kinds ---- */

static void assert_kind(int descriptor, int expected)
{
    enum os_kind kind = (enum os_kind)77;
    assert_true(descriptor >= 0);
    assert_int_equal(os_handle_kind(descriptor, &kind), ROUSE_OK);
    assert_int_equal((int)kind, expected);
    close(descriptor);
}

TEST(tcp_sockets_are_streams_and_other_sockets_are_not)
{
    enum os_kind kind;
    int ends[2];
    assert_kind(socket(AF_INET, SOCK_STREAM, 0), OS_KIND_STREAM_SOCKET);
    int ipv6 = socket(AF_INET6, SOCK_STREAM, 0);
    if (ipv6 >= 0)
        assert_kind(ipv6, OS_KIND_STREAM_SOCKET);
    assert_kind(socket(AF_INET, SOCK_DGRAM, 0), OS_KIND_OTHER_SOCKET);
    if (test_has("unix_sockets")) {
        assert_kind(socket(AF_UNIX, SOCK_STREAM, 0), OS_KIND_OTHER_SOCKET);
        assert_kind(socket(AF_UNIX, SOCK_DGRAM, 0), OS_KIND_OTHER_SOCKET);
    }
#if defined(IPPROTO_MPTCP)
    int multipath = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    if (multipath >= 0)
        assert_kind(multipath, OS_KIND_OTHER_SOCKET);
#endif
    for (size_t i = first_medium(); i < MEDIA; i++) {
        media[i].make(ends);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(os_handle_kind(ends[k], &kind), ROUSE_OK);
            assert_int_equal(kind, media[i].kind);
        }
        close_both(ends);
    }
}

TEST(terminals_and_devices_are_neither_sockets_nor_files)
{
    test_needs("descriptors");
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal >= 0)
        assert_kind(terminal, OS_KIND_OTHER);
    assert_kind(open("/dev/null", O_RDWR), OS_KIND_OTHER);
}

TEST(files_and_folders_cannot_be_waited_for)
{
    test_needs("descriptors");
    enum os_kind kind;
    char path[] = "/tmp/rouse-test-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(os_handle_kind(file, &kind), ROUSE_NOT_POLLABLE);
    close(file);
    int folder = open("/", O_RDONLY);
    assert_true(folder >= 0);
    assert_int_equal(os_handle_kind(folder, &kind), ROUSE_NOT_POLLABLE);
    close(folder);
}

static const os_handle bad_handles[] = {OS_NO_HANDLE, -2,        1000000, INT_MAX, (os_handle)((uintptr_t)INT_MAX + 1),
                                        INTPTR_MAX,   INTPTR_MIN};

TEST(a_number_that_is_no_descriptor_is_an_error_everywhere)
{
    int last_kind = test_has("descriptors") ? OS_KIND_OTHER : OS_KIND_OTHER_SOCKET;
    for (size_t i = 0; i < sizeof bad_handles / sizeof bad_handles[0]; i++) {
        os_handle bad = bad_handles[i];
        enum os_kind kind;
        bool before;
        char byte = 0;
        rouse_buffer piece = {&byte, 1};
        rouse_address address;
        int value;
        assert_int_equal(os_handle_kind(bad, &kind), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(os_set_nonblocking(bad, true, &before), ROUSE_BAD_DESCRIPTOR);
        for (int k = OS_KIND_STREAM_SOCKET; k <= last_kind; k++) {
            assert_int_equal(os_read(bad, (enum os_kind)k, &byte, 1), ROUSE_BAD_DESCRIPTOR);
            assert_int_equal(os_write(bad, (enum os_kind)k, &byte, 1), ROUSE_BAD_DESCRIPTOR);
            assert_int_equal(os_readv(bad, (enum os_kind)k, &piece, 1), ROUSE_BAD_DESCRIPTOR);
            assert_int_equal(os_writev(bad, (enum os_kind)k, &piece, 1), ROUSE_BAD_DESCRIPTOR);
        }
        assert_int_equal(os_peek(bad, OS_KIND_STREAM_SOCKET, &byte, 1), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(os_is_ready(bad, ROUSE_READABLE), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(os_local_address(bad, &address), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(os_peer_address(bad, &address), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(os_tcp_listen(bad, 1), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(os_tcp_shutdown(bad, ROUSE_SHUTDOWN_BOTH), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(os_tcp_connect_result(bad), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(os_option_get(bad, ROUSE_OPTION_NO_DELAY, &value), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(os_close(bad), ROUSE_OK); /* it is gone, which is what was asked for */
    }
}

/* ---- flags and closing ---- */

TEST(non_blocking_is_switched_and_what_was_before_is_told)
{
    test_needs("descriptors");
    int ends[2];
    bool before = true;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(os_set_nonblocking(ends[0], true, &before), ROUSE_OK);
    assert_false(before);
    assert_true(fcntl(ends[0], F_GETFL) & O_NONBLOCK);
    assert_int_equal(os_set_nonblocking(ends[0], true, &before), ROUSE_OK);
    assert_true(before);
    assert_true(fcntl(ends[0], F_GETFL) & O_NONBLOCK);
    assert_int_equal(os_set_nonblocking(ends[0], false, &before), ROUSE_OK);
    assert_true(before);
    assert_false(fcntl(ends[0], F_GETFL) & O_NONBLOCK);
    assert_false(fcntl(ends[1], F_GETFL) & O_NONBLOCK);
    close_both(ends);
}

TEST(closing_is_never_repeated)
{
    test_needs("faults");
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    uint64_t before = faults_syscall_count("close");
    faults_syscall("close", 1, EINTR, 1);
    assert_int_equal(os_close(ends[0]), ROUSE_OK);
    assert_int_equal(faults_syscall_count("close"), before + 1);
    faults_syscall("close", 1, EIO, 1);
    assert_int_equal(os_close(ends[1]), ROUSE_IO_ERROR);
    assert_int_equal(faults_syscall_count("close"), before + 2);
}

/* ---- reading and writing ---- */

TEST(bytes_arrive_as_they_were_written)
{
    for (size_t i = first_medium(); i < MEDIA; i++) {
        int ends[2];
        char data[16] = "";
        enum os_kind kind = media[i].kind;
        media[i].make(ends);
        assert_int_equal(os_read(ends[0], kind, data, sizeof data), ROUSE_PENDING);
        assert_int_equal(os_write(ends[1], kind, "hello", 5), 5);
        assert_int_equal(os_read(ends[0], kind, data, 3), 3);
        assert_int_equal(os_read(ends[0], kind, data + 3, sizeof data - 3), 2);
        assert_memory_equal(data, "hello", 5);
        assert_int_equal(os_read(ends[0], kind, data, sizeof data), ROUSE_PENDING);
        assert_int_equal(os_close(ends[1]), ROUSE_OK);
        assert_int_equal(os_read(ends[0], kind, data, sizeof data), 0);
        assert_int_equal(os_close(ends[0]), ROUSE_OK);
    }
}

TEST(pieces_are_read_and_written_in_order)
{
    for (size_t i = first_medium(); i < MEDIA; i++) {
        int ends[2];
        enum os_kind kind = media[i].kind;
        char one[3], two[1], three[10];
        rouse_buffer out[] = {{(void *)(uintptr_t) "ab", 2}, {NULL, 0}, {(void *)(uintptr_t) "cdefg", 5}};
        rouse_buffer in[] = {{one, sizeof one}, {two, sizeof two}, {three, sizeof three}};
        media[i].make(ends);
        assert_int_equal(os_readv(ends[0], kind, in, 3), ROUSE_PENDING);
        assert_int_equal(os_writev(ends[1], kind, out, 3), 7);
        assert_int_equal(os_readv(ends[0], kind, in, 3), 7);
        assert_memory_equal(one, "abc", 3);
        assert_memory_equal(two, "d", 1);
        assert_memory_equal(three, "efg", 3);
        assert_int_equal(os_close(ends[1]), ROUSE_OK);
        assert_int_equal(os_readv(ends[0], kind, in, 3), 0);
        assert_int_equal(os_close(ends[0]), ROUSE_OK);
    }
}

TEST(of_more_than_1024_pieces_the_rest_is_left)
{
    static rouse_buffer pieces[1500];
    static char bytes[1500], got[2000];
    for (size_t i = 0; i < 1500; i++) {
        bytes[i] = (char)('a' + i % 26);
        pieces[i] = (rouse_buffer){&bytes[i], 1};
    }
    for (size_t i = first_medium(); i < MEDIA; i++) {
        int ends[2];
        media[i].make(ends);
        ptrdiff_t count = os_writev(ends[1], media[i].kind, pieces, 1500);
        assert_int_equal(count,
                         test_has("descriptors") ? 1024 : 64); /* "at most" for those who use the system's form */
        assert_int_equal(os_read(ends[0], media[i].kind, got, sizeof got), count);
        assert_memory_equal(got, bytes, (size_t)count);
        close_both(ends);
    }
}

TEST(lengths_that_a_count_cannot_hold_are_too_large)
{
    for (size_t i = first_medium(); i < MEDIA; i++) {
        int ends[2];
        char byte = 0;
        enum os_kind kind = media[i].kind;
        rouse_buffer pieces[] = {{&byte, (size_t)SSIZE_MAX}, {&byte, 1}};
        media[i].make(ends);
        assert_int_equal(os_read(ends[0], kind, &byte, (size_t)SSIZE_MAX + 1), ROUSE_TOO_LARGE);
        assert_int_equal(os_write(ends[1], kind, &byte, SIZE_MAX), ROUSE_TOO_LARGE);
        assert_int_equal(os_readv(ends[0], kind, pieces, 2), ROUSE_TOO_LARGE);
        assert_int_equal(os_writev(ends[1], kind, pieces, 2), ROUSE_TOO_LARGE);
        if (kind != OS_KIND_OTHER)
            assert_int_equal(os_peek(ends[0], kind, &byte, SIZE_MAX), ROUSE_TOO_LARGE);
        close_both(ends);
    }
}

TEST(peeking_leaves_the_bytes_and_works_on_sockets_only)
{
    for (size_t i = first_medium(); i < MEDIA; i++) {
        int ends[2];
        char data[8];
        enum os_kind kind = media[i].kind;
        media[i].make(ends);
        assert_int_equal(os_peek(ends[0], kind, data, 8), kind == OS_KIND_OTHER ? ROUSE_NOT_SUPPORTED : ROUSE_PENDING);
        assert_int_equal(os_write(ends[1], kind, "abc", 3), 3);
        for (int k = 0; kind != OS_KIND_OTHER && k < 3; k++) {
            assert_int_equal(os_peek(ends[0], kind, data, sizeof data), 3);
            assert_memory_equal(data, "abc", 3);
        }
        assert_int_equal(os_read(ends[0], kind, data, sizeof data), 3);
        close_both(ends);
    }
}

TEST(a_full_medium_is_pending_and_not_an_error)
{
    static char block[65536];
    for (size_t i = first_medium(); i < MEDIA; i++) {
        int ends[2];
        media[i].make(ends);
        ptrdiff_t count;
        while ((count = os_write(ends[1], media[i].kind, block, sizeof block)) > 0) {}
        assert_int_equal(count, ROUSE_PENDING);
        rouse_buffer piece = {block, sizeof block};
        assert_int_equal(os_writev(ends[1], media[i].kind, &piece, 1), ROUSE_PENDING);
        close_both(ends);
    }
}

TEST(a_reset_is_told_as_such)
{
    int ends[2];
    char byte;
    make_tcp_pair(ends);
    test_close_with_reset(ends[1]);
    eventually(os_is_ready(ends[0], ROUSE_READABLE) == 1, TEST_SOON);
    assert_int_equal(os_read(ends[0], OS_KIND_STREAM_SOCKET, &byte, 1), ROUSE_CONNECTION_RESET);
    assert_int_equal(os_close(ends[0]), ROUSE_OK);
}

TEST(interrupted_calls_are_repeated)
{
    test_needs("faults");
    static const char *const names[] = {"read", "write", "recv", "send", "readv", "writev", "recvmsg", "sendmsg"};
    for (size_t i = first_medium(); i < MEDIA; i++) {
        int ends[2];
        char data[8];
        enum os_kind kind = media[i].kind;
        rouse_buffer piece = {data, 4}, out = {(void *)(uintptr_t) "wxyz", 4};
        media[i].make(ends);
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
            faults_syscall(names[k], 1, EINTR, 3);
        assert_int_equal(os_write(ends[1], kind, "abcd", 4), 4);
        assert_int_equal(os_read(ends[0], kind, data, 4), 4);
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
            faults_syscall(names[k], 1, EINTR, 3);
        assert_int_equal(os_writev(ends[1], kind, &out, 1), 4);
        assert_int_equal(os_readv(ends[0], kind, &piece, 1), 4);
        assert_memory_equal(data, "wxyz", 4);
        faults_reset();
        close_both(ends);
    }
}

TEST(the_write_error_of_a_vanishing_macos_socket_is_a_reset_and_not_retried)
{
    test_needs("faults");
    int ends[2];
    make_tcp_pair(ends);
    faults_syscall("send", 1, EPROTOTYPE, FAULTS_ALWAYS);
    assert_int_equal(os_write(ends[1], OS_KIND_STREAM_SOCKET, "a", 1), ROUSE_CONNECTION_RESET);
    assert_int_equal(faults_syscall_hit("send"), 1);
    faults_reset();
    close_both(ends);
}

/* ---- SIGPIPE ---- */

static volatile sig_atomic_t pipes_seen;

static void count_pipe(int signal)
{
    (void)signal;
    pipes_seen = pipes_seen + 1;
}

static bool pipe_is_pending(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
}

/* Writes in every way to every medium whose other end is gone. */
static void write_to_nobody(void)
{
    for (size_t i = first_medium(); i < MEDIA; i++) {
        int ends[2];
        rouse_buffer piece = {(void *)(uintptr_t) "ab", 2};
        enum os_kind kind = media[i].kind;
        media[i].make(ends);
        if (kind == OS_KIND_STREAM_SOCKET)
            require(shutdown(ends[1], SHUT_WR) == 0);
        else
            require(os_close(ends[0]) == ROUSE_OK);
        require_int(os_write(ends[1], kind, "a", 1), ==, ROUSE_BROKEN_PIPE);
        require_int(os_writev(ends[1], kind, &piece, 1), ==, ROUSE_BROKEN_PIPE);
        if (kind == OS_KIND_STREAM_SOCKET)
            require(os_close(ends[0]) == ROUSE_OK);
        require(os_close(ends[1]) == ROUSE_OK);
    }
}

static sigset_t pipe_only(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    return set;
}

static void write_with_default(void *ignored)
{
    struct sigaction fatal = {.sa_handler = SIG_DFL}, before;
    (void)ignored;
    require(sigaction(SIGPIPE, &fatal, &before) == 0);
    write_to_nobody();
    require(sigaction(SIGPIPE, &before, NULL) == 0);
}

TEST(writing_to_nobody_does_not_kill)
{
    test_needs("signals");
    assert_int_equal(test_in_child(write_with_default, NULL, ROUSE_S(10)), 0);
}

TEST(writing_to_nobody_calls_no_handler)
{
    test_needs("signals");
    struct sigaction counting = {.sa_handler = count_pipe}, before;
    assert_int_equal(sigaction(SIGPIPE, &counting, &before), 0);
    write_to_nobody();
    assert_int_equal(pipes_seen, 0);
    assert_int_equal(sigaction(SIGPIPE, &before, NULL), 0);
}

TEST(writing_to_nobody_leaves_no_signal_pending)
{
    test_needs("signals");
    struct sigaction counting = {.sa_handler = count_pipe}, before;
    sigset_t set = pipe_only(), mask;
    assert_int_equal(sigaction(SIGPIPE, &counting, &before), 0);
    pthread_sigmask(SIG_BLOCK, &set, &mask);
    write_to_nobody();
    assert_false(pipe_is_pending());
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    assert_int_equal(pipes_seen, 0);
    assert_int_equal(sigaction(SIGPIPE, &before, NULL), 0);
}

TEST(a_signal_that_the_application_keeps_pending_is_not_taken_from_it)
{
    test_needs("signals");
    struct sigaction counting = {.sa_handler = count_pipe}, before;
    sigset_t set = pipe_only(), mask;
    assert_int_equal(sigaction(SIGPIPE, &counting, &before), 0);
    pthread_sigmask(SIG_BLOCK, &set, &mask);
    assert_int_equal(raise(SIGPIPE), 0);
    write_to_nobody();
    assert_true(pipe_is_pending());
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    assert_int_equal(pipes_seen, 1);
    assert_int_equal(sigaction(SIGPIPE, &before, NULL), 0);
}

TEST(writing_to_nobody_works_where_the_signal_is_ignored)
{
    test_needs("signals");
    struct sigaction ignoring = {.sa_handler = SIG_IGN}, before;
    assert_int_equal(sigaction(SIGPIPE, &ignoring, &before), 0);
    write_to_nobody();
    assert_int_equal(sigaction(SIGPIPE, &before, NULL), 0);
}

/* ---- readiness ---- */

TEST(readiness_is_answered_for_each_direction)
{
    test_needs("descriptors");
    for (size_t i = first_medium(); i < MEDIA; i++) {
        int ends[2];
        char data[4];
        enum os_kind kind = media[i].kind;
        media[i].make(ends);
        assert_int_equal(os_is_ready(ends[0], ROUSE_READABLE), 0);
        assert_int_equal(os_is_ready(ends[1], ROUSE_WRITABLE), 1);
        assert_int_equal(os_write(ends[1], kind, "ab", 2), 2);
        assert_int_equal(os_is_ready(ends[0], ROUSE_READABLE), 1);
        assert_int_equal(os_read(ends[0], kind, data, sizeof data), 2);
        assert_int_equal(os_is_ready(ends[0], ROUSE_READABLE), 0);
        assert_int_equal(os_close(ends[1]), ROUSE_OK);
        assert_int_equal(os_is_ready(ends[0], ROUSE_READABLE), 1); /* the end */
        assert_int_equal(os_close(ends[0]), ROUSE_OK);
    }
}

TEST(a_pipe_without_a_reader_is_ready_for_the_error)
{
    test_needs("descriptors");
    int ends[2];
    make_pipe(ends);
    static char block[65536];
    while (os_write(ends[1], OS_KIND_OTHER, block, sizeof block) > 0) {}
    assert_int_equal(os_is_ready(ends[1], ROUSE_WRITABLE), 0);
    assert_int_equal(os_close(ends[0]), ROUSE_OK);
    assert_int_equal(os_is_ready(ends[1], ROUSE_WRITABLE), 1);
    assert_int_equal(os_close(ends[1]), ROUSE_OK);
}
