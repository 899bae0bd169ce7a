/* Descriptors of others: what can be adopted, what is refused, readiness on its own, and giving back. */
#include "support/io.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#if defined(__has_include)
#if __has_include(<sys/eventfd.h>)
#include <sys/eventfd.h>
#endif
#endif

TEST_FILE_NEEDS(descriptors, unix_sockets)

static void make_pipe(int ends[2])
{
    require(pipe2(ends, O_CLOEXEC) == 0);
}

static void make_unix(int ends[2])
{
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
}

/* Where there are no packets, a stream. */
static void make_packets(int ends[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        require_int(errno, ==, EPROTONOSUPPORT);
        make_unix(ends);
    }
}

static void make_terminal(int ends[2])
{
    struct termios raw;
    ends[1] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    require(ends[1] >= 0 && grantpt(ends[1]) == 0 && unlockpt(ends[1]) == 0);
    ends[0] = open(ptsname(ends[1]), O_RDWR | O_NOCTTY | O_CLOEXEC);
    require(ends[0] >= 0 && tcgetattr(ends[0], &raw) == 0);
    cfmakeraw(&raw);
    require(tcsetattr(ends[0], TCSANOW, &raw) == 0);
}

/* A container may have none. */
static bool has_terminals(void)
{
    int end = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    bool usable = end >= 0 && grantpt(end) == 0 && unlockpt(end) == 0;
    if (end >= 0)
        close(end);
    return usable;
}

static void (*const media[])(int ends[2]) = {make_pipe, make_unix, make_packets, make_terminal, test_tcp_pair};
enum { MEDIA = 5 };

static int write_soon(void *descriptor)
{
    for (int i = 0; i < 5; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    require(write(*(int *)descriptor, "abc", 3) == 3);
    return ROUSE_OK;
}

/* libevent@9f9e259f: each medium is woken in its own way. */
static int wait_on_each_medium(void *unused)
{
    (void)unused;
    for (int i = 0; i < MEDIA * STYLES; i++) {
        int ends[2];
        char data[3];
        rouse_op op;
        rouse_scope scope;
        if (i % MEDIA == 3 && !has_terminals())
            continue;
        media[i % MEDIA](ends);
        rouse_stream *stream = adopted(ends[0]);
        for (int round = 0; round < 3; round++) {
            require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
            require_int(rouse_go(write_soon, &ends[1]), ==, ROUSE_OK);
            rouse_read_exact_init(&op, stream, data, 3, NULL);
            require_int(answer_of(&op, i / MEDIA), ==, ROUSE_OK);
            require(memcmp(data, "abc", 3) == 0);
            require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
        }
        test_close(ends[1]);
        ptrdiff_t count = rouse_read(stream, data, 3);
        require(count == 0 || (i % MEDIA == 3 && count == ROUSE_IO_ERROR)); /* a terminal whose line was cut */
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(pipes_sockets_and_terminals_are_read_in_the_same_way)
{
    test_needs("descriptors");
    on_each_executor(wait_on_each_medium, NULL);
}

static int wait_until_ready(void *unused)
{
    (void)unused;
    for (int i = 0; i < MEDIA * STYLES; i++) {
        int ends[2];
        char data[3];
        intptr_t descriptor;
        rouse_op op;
        rouse_scope scope;
        if (i % MEDIA == 3 && !has_terminals())
            continue;
        media[i % MEDIA](ends);
        rouse_stream *stream = adopted(ends[0]);
        for (int round = 0; round < 3; round++) {
            require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
            require_int(rouse_go(write_soon, &ends[1]), ==, ROUSE_OK);
            rouse_wait_ready_init(&op, stream, ROUSE_READABLE);
            require_int(answer_of(&op, i / MEDIA), ==, ROUSE_OK);
            require_int(rouse_wait_ready(stream, ROUSE_READABLE), ==, ROUSE_OK); /* as long as it is */
            require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
            require_int(rouse_descriptor(stream, &descriptor), ==, ROUSE_OK);
            size_t total = 0;
            while (total < 3) {
                require_int(rouse_wait_ready(stream, ROUSE_READABLE), ==, ROUSE_OK);
                ssize_t count = read((int)descriptor, data + total, 3 - total);
                require(count > 0);
                total += (size_t)count;
            }
        }
        test_close(ends[1]);
        require_int(rouse_wait_ready(stream, ROUSE_READABLE), ==, ROUSE_OK);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(readiness_is_told_as_long_as_it_lasts_for_those_who_read_themselves)
{
    test_needs("descriptors");
    on_each_executor(wait_until_ready, NULL);
}

static int wait_until_writable(void *unused)
{
    int peer;
    rouse_deadline deadline = {{0}};
    (void)unused;
    rouse_stream *stream = full_stream(&peer);
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(2))), ==, ROUSE_OK);
    require_int(rouse_wait_ready(stream, ROUSE_WRITABLE), ==, ROUSE_TIMED_OUT);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    test_close(peer);
    require_int(rouse_wait_ready(stream, ROUSE_WRITABLE), ==, ROUSE_OK); /* broken */
    require_int(rouse_wait_ready(stream, 0), ==, ROUSE_INVALID);
    require_int(rouse_wait_ready(stream, 3), ==, ROUSE_INVALID);
    return rouse_close(stream);
}

TEST(a_full_descriptor_is_not_writable_and_a_broken_one_is)
{
    on_each_executor(wait_until_writable, NULL);
}

#if defined(EFD_CLOEXEC)
TEST(an_eventfd_is_waited_for)
{
    test_needs("descriptors");
    uint64_t value = 0, one = 1;
    int descriptor = eventfd(0, EFD_CLOEXEC);
    struct hand waiting;
    hand_init(&waiting);
    rouse_stream *stream = adopted(descriptor);
    rouse_read_init(&waiting.op, stream, &value, sizeof value);
    assert_int_equal(hand_poll(&waiting), ROUSE_PENDING);
    assert_int_equal(write(descriptor, &one, sizeof one), sizeof one);
    assert_int_equal(hand_finish(&waiting), sizeof value);
    assert_int_equal(value, 1);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    hand_fini(&waiting);
    end_default_runtime();
}
#endif

TEST(what_cannot_be_waited_for_is_refused_and_left_as_it_was)
{
    test_needs("descriptors");
    char path[] = "/tmp/rouse-adopt-XXXXXX";
    int file = mkstemp(path), folder = open("/", O_RDONLY | O_DIRECTORY);
    rouse_stream *stream = (rouse_stream *)1;
    assert_true(file >= 0 && folder >= 0);
    int flags = fcntl(file, F_GETFL);
    assert_int_equal(rouse_adopt(&stream, file), ROUSE_NOT_POLLABLE);
    assert_null(stream);
    assert_int_equal(rouse_adopt(&stream, folder), ROUSE_NOT_POLLABLE);
    assert_int_equal(fcntl(file, F_GETFL), flags);
    assert_int_equal(rouse_adopt(&stream, -1), ROUSE_BAD_DESCRIPTOR);
    assert_int_equal(rouse_adopt(&stream, 9999), ROUSE_BAD_DESCRIPTOR);
    assert_int_equal(rouse_adopt(&stream, (intptr_t)((uintptr_t)INT32_MAX + 1 + (uintptr_t)file)),
                     ROUSE_BAD_DESCRIPTOR);
    assert_int_equal(rouse_adopt(NULL, file), ROUSE_INVALID);
    close(file);
    close(folder);
    unlink(path);
}

TEST(an_adoption_without_memory_leaves_the_descriptor_as_it_was)
{
    test_needs("faults");
    int ends[2];
    rouse_stream *stream;
    if (test_is_sanitized())
        return;
    make_pipe(ends);
    faults_fail_alloc(1, true);
    assert_int_equal(rouse_adopt(&stream, ends[0]), ROUSE_NO_MEMORY);
    faults_reset();
    assert_false(fcntl(ends[0], F_GETFL) & O_NONBLOCK);
    test_close(ends[0]);
    test_close(ends[1]);
}

TEST(a_released_descriptor_is_the_callers_again)
{
    test_needs("descriptors");
    int ends[2];
    intptr_t descriptor = -1;
    struct hand waiting;
    char byte;
    make_pipe(ends);
    hand_init(&waiting);
    rouse_stream *stream = adopted(ends[0]);
    assert_int_equal(rouse_release(stream, NULL), ROUSE_INVALID);
    rouse_read_init(&waiting.op, stream, &byte, 1);
    assert_int_equal(hand_poll(&waiting), ROUSE_PENDING);
    assert_int_equal(rouse_release(stream, &descriptor), ROUSE_OK);
    assert_int_equal(descriptor, ends[0]);
    assert_int_equal(hand_finish(&waiting), ROUSE_CLOSED);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    test_close(ends[0]);
    test_close(ends[1]);
    hand_fini(&waiting);
    end_default_runtime();
}

static int adopt_twice(void *unused)
{
    int peer;
    intptr_t descriptor;
    char byte;
    rouse_op op;
    rouse_task task;
    ptrdiff_t answer = 0;
    (void)unused;
    rouse_stream *first = unix_stream(&peer);
    require_int(rouse_descriptor(first, &descriptor), ==, ROUSE_OK);
    rouse_stream *second = adopted((int)descriptor);
    rouse_deadline deadline = {{0}};
    struct hand hand;
    hand_init(&hand);
    rouse_read_init(&hand.op, first, &byte, 1);
    require_int(hand_poll(&hand), ==, ROUSE_PENDING); /* by now it is the first, whenever the task below runs */
    require_int(rouse_op_cancel(&hand.op), ==, ROUSE_OP_IDLE);
    hand_fini(&hand);
    rouse_read_init(&op, first, &byte, 1);
    require_int(rouse_spawn(&task, &op_task, &op), ==, ROUSE_OK);
    require_int(rouse_yield(), ==, ROUSE_OK);
    for (int i = 0; i < 2; i++)
        require_int(rouse_read(second, &byte, 1), ==, ROUSE_ALREADY_EXISTS);
    test_send_all(peer, "x", 1);
    require_int(rouse_join(&task, &answer), ==, ROUSE_OK);
    require_int(answer, ==, 1);
    require_int(rouse_release(first, &descriptor), ==, ROUSE_OK);
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(1))), ==, ROUSE_OK);
    require_int(rouse_read(second, &byte, 1), ==, ROUSE_TIMED_OUT); /* now it is the only one */
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    test_send_all(peer, "y", 1);
    require_int(rouse_read(second, &byte, 1), ==, 1);
    test_close(peer);
    return rouse_close(second);
}

TEST(a_descriptor_that_was_adopted_twice_keeps_its_first_reader)
{
    for (int i = 0; i < FLAVOURS; i++) {
        rouse_options options = flavour(i);
        options.reactors = 1;
        assert_int_equal(rouse_run(adopt_twice, NULL, &options), ROUSE_OK);
    }
}

/* libuv#4992: what a child wrote to its terminal before it ended was cut off by the hang-up. */
static int read_a_terminal(void *ends)
{
    char data[1000];
    size_t total = 0;
    ptrdiff_t count;
    rouse_stream *stream = adopted(((int *)ends)[1]);
    while ((count = rouse_read(stream, data, sizeof data)) > 0) {
        for (ptrdiff_t i = 0; i < count; i++)
            require_int(data[i], ==, (char)('a' + (total + (size_t)i) % 26));
        total += (size_t)count;
    }
    require(count == 0 || count == ROUSE_IO_ERROR);
    require_int(total, ==, 65536);
    return rouse_close(stream);
}

TEST(all_that_a_child_wrote_to_its_terminal_is_read)
{
    test_needs("descriptors");
    if (!has_terminals())
        test_skip("there are no terminals");
    for (int i = 0; i < FLAVOURS; i++) {
        int ends[2];
        rouse_options options = flavour(i);
        make_terminal(ends);
        pid_t child = fork();
        require(child >= 0);
        if (child == 0) {
            char text[777];
            size_t total = 0;
            close(ends[1]);
            while (total < 65536) {
                size_t length = 1 + total * 7 % sizeof text;
                length = length < 65536 - total ? length : 65536 - total;
                for (size_t k = 0; k < length; k++)
                    text[k] = (char)('a' + (total + k) % 26);
                ssize_t count = write(ends[0], text, length);
                if (count <= 0)
                    _exit(1);
                total += (size_t)count;
            }
            _exit(0);
        }
        close(ends[0]);
        assert_int_equal(rouse_run(read_a_terminal, ends, &options), ROUSE_OK);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

#if defined(TCP_ULP)
#define TLS_LEVEL 282 /* SOL_TLS */
#define TLS_SEND  1
#define TLS_READ  2

/* A key of zeros for AES-128-GCM under TLS 1.2: struct tls12_crypto_info_aes_gcm_128. */
static bool start_tls(int descriptor, int side)
{
    const struct {
        uint16_t version, cipher;
        unsigned char secrets[8 + 16 + 4 + 8];
    } keys = {.version = 0x0303, .cipher = 51};
    return setsockopt(descriptor, TLS_LEVEL, side, &keys, sizeof keys) == 0;
}

/* Reads end with each record: two that came together are not one short count and nothing after it. */
static int read_records(void *ends)
{
    char data[64];
    rouse_stream *stream = adopted(((int *)ends)[0]);
    rouse_deadline deadline = {{0}};
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(1))), ==, ROUSE_OK);
    require_int(rouse_read(stream, data, sizeof data), ==, ROUSE_TIMED_OUT);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    test_send_all(((int *)ends)[1], "one", 3);
    test_send_all(((int *)ends)[1], "two", 3);
    for (size_t total = 0; total < 6;) {
        ptrdiff_t count = rouse_read(stream, data, sizeof data);
        require(count > 0);
        total += (size_t)count;
    }
    return rouse_close(stream);
}

TEST(records_of_the_kernels_tls_are_all_read)
{
    int ends[2];
    rouse_options options = flavour(0);
    test_tcp_pair(ends);
    for (int i = 0; i < 2; i++)
        if (setsockopt(ends[i], IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") != 0 ||
            !start_tls(ends[i], i == 0 ? TLS_READ : TLS_SEND)) {
            test_close(ends[0]);
            test_close(ends[1]);
            test_skip("the kernel does no TLS");
        }
    assert_int_equal(rouse_run(read_records, ends, &options), ROUSE_OK);
    test_close(ends[1]);
}
#endif
