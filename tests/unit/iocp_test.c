/* The backend of Windows: what is particular to it. It is compiled in here, so that some of the system's calls can be
 * replaced. */
#include "os/os_windows.h"

#include <mswsock.h>
#include <winternl.h>

static int replaced_ioctl(SOCKET socket, DWORD code, void *in, DWORD in_bytes, void *out, DWORD out_bytes, DWORD *bytes,
                          void *overlapped, void *routine);
static BOOL replaced_post(HANDLE port, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped);
static void *replaced_function(atomic_ptr *known, const wchar_t *library, const char *name);

#define WSAIoctl                   replaced_ioctl
#define PostQueuedCompletionStatus replaced_post
#define os_system_function         replaced_function
#include "backend/iocp/iocp.c"
#undef WSAIoctl
#undef PostQueuedCompletionStatus
#undef os_system_function

#include "support/harness.h"
#include "support/net.h"
#include "support/packets.h"

#include <unistd.h>

enum { BOTH = BACKEND_READ | BACKEND_WRITE };

/* ---- memory that is counted, and may be missing ---- */

static size_t blocks, taken, taken_limit = SIZE_MAX;

static void *take(void *context, size_t size, size_t alignment)
{
    (void)context;
    if (taken == taken_limit)
        return NULL;
    void *memory = os_alloc(size, alignment);
    require(memory != NULL);
    blocks++;
    taken++;
    return memory;
}

static void give(void *context, void *memory, size_t size, size_t alignment)
{
    (void)context;
    (void)alignment;
    memset(memory, 0xa5, size);
    blocks--;
    os_free(memory);
}

static const rouse_allocator allocator = {take, give, NULL};

/* They are dense multiples of four. GetProcessHandleCount is 0 in Wine. */
static unsigned handle_count(void)
{
    unsigned count = 0;
    DWORD flags;
    for (intptr_t handle = 4, last = 0; handle < last + 400; handle += 4) {
        if (GetHandleInformation((HANDLE)handle, &flags)) {
            last = handle;
            count++;
        }
    }
    return count;
}

static struct backend *open_backend(void)
{
    struct backend *backend = NULL;
    require_int(backend_open(&backend, &allocator), ==, ROUSE_OK);
    return backend;
}

/* Everything is given back. */
static void close_backend(struct backend *backend)
{
    backend_close(backend);
    assert_int_equal(blocks, 0);
}

static struct backend_source attach(struct backend *backend, int descriptor, uint64_t token)
{
    struct backend_source source = {.handle = descriptor};
    require_int(os_set_nonblocking(descriptor, true, NULL), ==, ROUSE_OK);
    require_int(backend_attach(backend, &source, token), ==, ROUSE_OK);
    return source;
}

/* The next event. */
static struct backend_event next_event(struct backend *backend)
{
    struct backend_event event;
    int64_t end_ns = os_now() + TEST_SOON;
    while (os_now() < end_ns) {
        int count = backend_wait(backend, &event, 1, end_ns);
        require(count >= 0);
        if (count == 1)
            return event;
    }
    require(!"an event");
    return event;
}

/* Arms channels and answers the channels of the next event, which is this token's. */
static uint32_t armed(struct backend *backend, struct backend_source *source, uint64_t token, unsigned channels)
{
    require_int(backend_arm(backend, source, channels), ==, ROUSE_OK);
    struct backend_event event = next_event(backend);
    require(event.token == token && event.kind == BACKEND_READY);
    return event.channels;
}

static void expect_nothing(struct backend *backend, int64_t span_ns)
{
    struct backend_event event;
    int64_t end_ns = os_now() + span_ns;
    do
        require_int(backend_wait(backend, &event, 1, end_ns), ==, 0);
    while (os_now() < end_ns);
}

static void forget(struct backend *backend, struct backend_source *source, uint64_t token)
{
    if (backend_detach(backend, source, false) == BACKEND_DONE)
        return;
    struct backend_event event = next_event(backend);
    require(event.token == token && event.kind == BACKEND_RETIRED);
}

/* ---- replaced calls ---- */

/* Sockets of layered providers, which exist in the test alone: what is answered to the question `code` for a socket, 0: the
 * question fails. 1 stands for the socket `top`. */
static int (*layers)(int socket, DWORD code);
static int top;

static int replaced_ioctl(SOCKET socket, DWORD code, void *in, DWORD in_bytes, void *out, DWORD out_bytes, DWORD *bytes,
                          void *overlapped, void *routine)
{
    if (!layers)
        return WSAIoctl(socket, code, in, in_bytes, out, out_bytes, bytes, overlapped, routine);
    int answer = layers((int)socket == top ? 1 : (int)socket, code);
    if (answer == 0) {
        WSASetLastError(WSAEFAULT);
        return SOCKET_ERROR;
    }
    *(SOCKET *)out = (SOCKET)answer;
    return 0;
}

static unsigned failing_posts;
static DWORD post_error;

static BOOL replaced_post(HANDLE port, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped)
{
    if (failing_posts == 0)
        return PostQueuedCompletionStatus(port, bytes, key, overlapped);
    failing_posts--;
    SetLastError(post_error);
    return FALSE;
}

/* Packets for the ends of waits as the kernel has them, made of a thread for each wait; Wine has none. */
static bool has_packets;
static unsigned associations; /* how many were made */
static NTSTATUS cancel_answer;

static struct {
    HANDLE handle, port, object; /* `handle` ends the thread without a completion */
    ULONG_PTR key;
    OVERLAPPED *overlapped;
    test_thread thread;
    bool is_used;
} packet;

static void post_when_signaled(void *unused)
{
    (void)unused;
    HANDLE both[2] = {packet.handle, packet.object};
    if (WaitForMultipleObjects(2, both, FALSE, INFINITE) == WAIT_OBJECT_0 + 1)
        require(PostQueuedCompletionStatus(packet.port, 0, packet.key, packet.overlapped));
}

static NTSTATUS NTAPI make_packet(HANDLE *made, ACCESS_MASK access, OBJECT_ATTRIBUTES *name)
{
    require(access != 0 && !name);
    *made = packet.handle = CreateEventW(NULL, TRUE, FALSE, NULL);
    return packet.handle ? 0 : (NTSTATUS)0xc0000017;
}

static void end_packet(void)
{
    if (packet.is_used) {
        require(SetEvent(packet.handle));
        test_thread_join(&packet.thread, TEST_SOON);
        require(ResetEvent(packet.handle));
    }
    packet.is_used = false;
}

static NTSTATUS NTAPI bring_packet(HANDLE handle, HANDLE port, HANDLE object, void *key, void *overlapped,
                                   NTSTATUS status, ULONG_PTR information, BOOLEAN *signaled)
{
    require(handle == packet.handle && status == 0 && information == 0);
    end_packet(); /* the one before has fired: the backend has got its completion */
    associations++;
    packet.port = port;
    packet.object = object;
    packet.key = (ULONG_PTR)key;
    packet.overlapped = overlapped;
    packet.is_used = true;
    *signaled = FALSE;
    test_thread_start(&packet.thread, post_when_signaled, NULL);
    return 0;
}

static NTSTATUS NTAPI take_packet_back(HANDLE handle, BOOLEAN even_if_queued)
{
    require(handle == packet.handle && even_if_queued);
    if (cancel_answer == 0)
        end_packet();
    return cancel_answer;
}

static void *replaced_function(atomic_ptr *known, const wchar_t *library, const char *name)
{
    if (strcmp(name, "NtCreateWaitCompletionPacket") == 0)
        return has_packets ? (void *)(uintptr_t)make_packet : NULL;
    if (strcmp(name, "NtAssociateWaitCompletionPacket") == 0)
        return (void *)(uintptr_t)bring_packet;
    if (strcmp(name, "NtCancelWaitCompletionPacket") == 0)
        return (void *)(uintptr_t)take_packet_back;
    return os_system_function(known, library, name);
}

/* ---- the tree ---- */

TEST(the_tree_finds_what_is_in_it_and_nothing_else)
{
    enum { RECORDS = 200 };
    static struct record records[RECORDS];
    static struct backend backend;
    uint64_t random = 1;
    for (size_t i = 0; i < RECORDS; i++)
        records[i].handle = (os_handle)(4 * i + 4); /* as the system numbers them */
    for (int round = 0; round < 20000; round++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        struct record *record = &records[(random >> 33) % RECORDS], **place = find(&backend, record->handle);
        assert_true(*place == (record->tracked ? record : NULL));
        if (record->tracked) {
            untrack(&backend, record);
        } else {
            record->child[0] = record->child[1] = NULL;
            record->tracked = true;
            *place = record;
        }
    }
    for (size_t i = 0; i < RECORDS; i++)
        untrack(&backend, &records[i]);
    assert_null(backend.tree);
}

/* ---- memory ---- */

TEST(opening_and_closing_leave_nothing_even_without_memory)
{
    struct backend *backend;
    close_backend(open_backend()); /* the system's libraries open handles at their first use */
    unsigned before = handle_count();
    for (taken_limit = 0;; taken_limit++) {
        taken = 0;
        int status = backend_open(&backend, &allocator);
        if (status == ROUSE_OK)
            break;
        assert_int_equal(status, ROUSE_NO_MEMORY);
        assert_int_equal(blocks, 0);
    }
    assert_true(taken_limit > 0);
    close_backend(backend);
    assert_int_equal(handle_count(), before);
}

/* Arming, waiting, detaching: none of them may fail for want of memory. */
TEST(only_attaching_takes_memory_for_many_sockets_at_once_and_closing_waits_for_all_of_it)
{
    enum { PAIRS = GROUP_SIZE + 10 };
    struct backend *backend = open_backend();
    struct backend_source sources[2 * PAIRS];
    int ends[PAIRS][2];
    test_tcp_pair(ends[0]); /* the first sockets open more */
    test_close(ends[0][0]);
    test_close(ends[0][1]);
    unsigned before = handle_count();
    taken = 0;
    for (size_t i = 0; i < PAIRS; i++) {
        test_tcp_pair(ends[i]);
        for (size_t k = 0; k < 2; k++)
            sources[2 * i + k] = attach(backend, ends[i][k], 2 * i + k);
    }
    assert_int_equal(taken, 2); /* with the group of the opening three: 84 sockets */
    taken_limit = taken;
    for (size_t i = 0; i < 2 * PAIRS; i++) {
        assert_int_equal(backend_arm(backend, &sources[i], BACKEND_READ), ROUSE_OK);
        assert_true(armed(backend, &sources[i], i, BOTH) == BACKEND_WRITE);
        assert_int_equal(backend_arm(backend, &sources[i], BACKEND_READ), ROUSE_OK);
    }
    for (size_t i = 0; i < PAIRS; i++)
        assert_int_equal(backend_detach(backend, &sources[2 * i], false), BACKEND_LATER);
    for (size_t i = 0, seen = 0; i < PAIRS; i++) {
        struct backend_event event = next_event(backend);
        require(event.kind == BACKEND_RETIRED && event.token % 2 == 0);
        seen += (size_t)event.token;
        assert_true(i + 1 < PAIRS || seen == PAIRS * (PAIRS - 1));
    }
    for (size_t i = 0; i < PAIRS; i++) {
        forget(backend, &sources[2 * i + 1], 2 * i + 1);
        test_close(ends[i][0]);
        test_close(ends[i][1]);
    }
    assert_int_equal(handle_count(), before + 2); /* groups are kept */
    taken_limit = SIZE_MAX;
    close_backend(backend);
}

TEST(an_attach_without_memory_changes_nothing)
{
    struct backend *backend = open_backend();
    struct backend_source sources[GROUP_SIZE + 1];
    int ends[GROUP_SIZE + 1][2];
    for (size_t i = 0; i < GROUP_SIZE; i++) {
        test_tcp_pair(ends[i]);
        sources[i] = attach(backend, ends[i][0], i);
    }
    test_tcp_pair(ends[GROUP_SIZE]);
    struct backend_source *last = &sources[GROUP_SIZE];
    *last = (struct backend_source){.handle = ends[GROUP_SIZE][0]};
    taken_limit = taken;
    assert_int_equal(backend_attach(backend, last, 77), ROUSE_NO_MEMORY);
    assert_null(last->record);
    taken_limit = SIZE_MAX;
    assert_int_equal(backend_attach(backend, last, 77), ROUSE_OK);
    assert_true(armed(backend, last, 77, BACKEND_WRITE) == BACKEND_WRITE);
    close_backend(backend);
    for (size_t i = 0; i <= GROUP_SIZE; i++) {
        test_close(ends[i][0]);
        test_close(ends[i][1]);
    }
}

TEST(closing_waits_for_polls_in_flight_and_lets_wakes_and_packets_be)
{
    for (int round = 0; round < 20; round++) {
        struct backend *backend = open_backend();
        int ends[2];
        test_tcp_pair(ends);
        struct backend_source first = attach(backend, ends[0], 1), second = attach(backend, ends[1], 2);
        assert_int_equal(backend_arm(backend, &first, BACKEND_READ), ROUSE_OK);
        assert_int_equal(backend_arm(backend, &second, round % 2 ? BACKEND_READ : BOTH), ROUSE_OK);
        if (round % 3 == 0)
            assert_int_equal(backend_detach(backend, &first, true), BACKEND_LATER);
        backend_wake(backend);
        assert_true(PostQueuedCompletionStatus(backend->port, 0, KEY_PACKET, NULL));
        close_backend(backend);
        test_close(ends[0]);
        test_close(ends[1]);
    }
}

/* ---- polls ---- */

static void wait_for_write(void *context)
{
    struct backend *backend = context;
    struct backend_event event = next_event(backend);
    require(event.token == 1 && event.channels == BACKEND_WRITE);
}

TEST(more_channels_reach_the_wait_of_another_thread)
{
    struct backend *backend = open_backend();
    int ends[2];
    test_tcp_pair(ends);
    struct backend_source source = attach(backend, ends[0], 1);
    for (int i = 0; i < 50; i++) {
        test_thread thread;
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
        test_thread_start(&thread, wait_for_write, backend);
        if (i % 2)
            test_sleep_ns(ROUSE_MS(1));
        assert_int_equal(backend_arm(backend, &source, BOTH), ROUSE_OK);
        test_thread_join(&thread, TEST_SOON);
    }
    forget(backend, &source, 1);
    test_close(ends[0]);
    test_close(ends[1]);
    close_backend(backend);
}

TEST(an_event_ends_the_arming_of_all_channels)
{
    struct backend *backend = open_backend();
    int ends[2];
    test_tcp_pair(ends);
    struct backend_source source = attach(backend, ends[0], 1);
    assert_true(armed(backend, &source, 1, BOTH) == BACKEND_WRITE);
    test_send_all(ends[1], "x", 1);
    expect_nothing(backend, ROUSE_MS(20));
    assert_true(armed(backend, &source, 1, BACKEND_READ) == BACKEND_READ);
    expect_nothing(backend, ROUSE_MS(5));
    forget(backend, &source, 1);
    test_close(ends[0]);
    test_close(ends[1]);
    close_backend(backend);
}

/* piscisaureus/wepoll#35, python-trio/trio#52: one poll took the events of another. */
TEST(one_socket_is_polled_once_at_a_time_however_it_is_armed_and_attached)
{
    struct backend *backend = open_backend();
    char byte;
    int ends[2];
    test_tcp_pair(ends);
    uint64_t rounds = test_scale(200, 20000);
    for (uint64_t token = 1; token <= rounds; token++) {
        struct backend_source source = attach(backend, ends[0], token);
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
        assert_int_equal(backend_detach(backend, &source, false), BACKEND_LATER);
        source = attach(backend, ends[0], token + rounds);
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
        assert_int_equal(backend_arm(backend, &source, token % 2 ? BOTH : BACKEND_READ), ROUSE_OK);
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
        test_send_all(ends[1], "x", 1);
        for (bool retired = false, told = false; !retired || !told;) {
            struct backend_event event = next_event(backend);
            require(event.token == (event.kind == BACKEND_RETIRED ? token : token + rounds));
            retired = retired || event.kind == BACKEND_RETIRED;
            told = told || event.channels & BACKEND_READ;
            if (event.kind == BACKEND_READY && !told)
                assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
        }
        assert_int_equal(read(ends[0], &byte, 1), 1);
        forget(backend, &source, token + rounds);
    }
    test_close(ends[0]);
    test_close(ends[1]);
    close_backend(backend);
}

static struct {
    struct backend *backend;
    atomic_u32 stop;
    atomic_u32 retired;     /* events so far */
    atomic_u32 later;       /* detachings that promised one */
    atomic_u32 channels[2]; /* that each of those who attach was told of, about its source of this round */
    atomic_u32 round[2];    /* the lower half of the token of that */
    uint32_t rounds;
} crowd;

static void tell_crowd(void *unused)
{
    struct backend_event events[4];
    (void)unused;
    while (!atomic_u32_load(&crowd.stop, ACQUIRE)) {
        int count = backend_wait(crowd.backend, events, 4, ROUSE_NEVER);
        require(count >= 0);
        for (int i = 0; i < count; i++) {
            size_t who = (size_t)(events[i].token >> 32);
            if (events[i].kind == BACKEND_RETIRED)
                atomic_u32_add(&crowd.retired, 1, RELEASE);
            else if ((uint32_t)events[i].token == atomic_u32_load(&crowd.round[who], ACQUIRE))
                atomic_u32_or(&crowd.channels[who], events[i].channels, RELEASE);
        }
    }
}

static void attach_and_detach(void *argument)
{
    size_t who = *(size_t *)argument;
    char byte;
    int ends[2];
    test_tcp_pair(ends);
    for (uint32_t round = 1; round <= crowd.rounds; round++) {
        atomic_u32_store(&crowd.channels[who], 0, RELAXED);
        atomic_u32_store(&crowd.round[who], round, RELEASE);
        struct backend_source source = attach(crowd.backend, ends[0], (uint64_t)who << 32 | round);
        require_int(backend_arm(crowd.backend, &source, round % 2 ? BACKEND_READ : BACKEND_WRITE), ==, ROUSE_OK);
        test_send_all(ends[1], "x", 1);
        require_int(backend_arm(crowd.backend, &source, BOTH), ==, ROUSE_OK);
        eventually(atomic_u32_load(&crowd.channels[who], ACQUIRE) != 0, TEST_SOON);
        require_int(backend_arm(crowd.backend, &source, BACKEND_READ), ==, ROUSE_OK);
        eventually(atomic_u32_load(&crowd.channels[who], ACQUIRE) & BACKEND_READ, TEST_SOON);
        require_int(recv(ends[0], &byte, 1, 0), ==, 1);
        if (round % 3 == 0)
            require_int(backend_arm(crowd.backend, &source, BOTH), ==, ROUSE_OK);
        if (backend_detach(crowd.backend, &source, false) == BACKEND_LATER)
            atomic_u32_add(&crowd.later, 1, RELAXED);
    }
    test_close(ends[0]);
    test_close(ends[1]);
}

TEST(threads_that_attach_arm_and_detach_beside_a_wait_lose_nothing)
{
    static size_t numbers[2] = {0, 1};
    test_thread teller, threads[2];
    crowd.backend = open_backend();
    crowd.rounds = (uint32_t)test_scale(100, 10000);
    test_thread_start(&teller, tell_crowd, NULL);
    for (size_t i = 0; i < 2; i++)
        test_thread_start(&threads[i], attach_and_detach, &numbers[i]);
    for (size_t i = 0; i < 2; i++)
        test_thread_join(&threads[i], ROUSE_S(500));
    eventually(atomic_u32_load(&crowd.retired, ACQUIRE) == atomic_u32_load(&crowd.later, RELAXED), TEST_SOON);
    atomic_u32_store(&crowd.stop, 1, RELEASE);
    backend_wake(crowd.backend);
    test_thread_join(&teller, TEST_SOON);
    close_backend(crowd.backend);
}

/* piscisaureus/wepoll#34: the late end of a socket was taken for that of the next one with its number. */
TEST(a_number_is_attached_again_while_the_last_poll_of_its_predecessor_is_on_its_way)
{
    struct backend *backend = open_backend();
    unsigned same = 0;
    intptr_t before = 0;
    for (uint64_t token = 1; token <= 100; token++) {
        int ends[2];
        test_tcp_pair(ends);
        same += ends[0] == before;
        before = ends[0];
        struct backend_source source = attach(backend, ends[0], token);
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
        test_send_all(ends[1], "x", 1);
        struct backend_event event;
        do
            event = next_event(backend);
        while (event.kind == BACKEND_RETIRED);
        assert_true(event.token == token && event.channels == BACKEND_READ);
        assert_int_equal(read(ends[0], &(char){0}, 1), 1);
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
        assert_int_equal(backend_detach(backend, &source, true), BACKEND_LATER);
        test_close(ends[0]);
        test_close(ends[1]);
    }
    assert_true(same > 0);
    close_backend(backend);
}

/* ---- ends ---- */

TEST(a_half_close_fires_reading_only_and_again_as_long_as_it_is_armed)
{
    struct backend *backend = open_backend();
    int ends[2];
    test_tcp_pair(ends);
    struct backend_source source = attach(backend, ends[0], 1);
    (void)test_send_until_full(ends[0]);
    assert_int_equal(backend_arm(backend, &source, BOTH), ROUSE_OK);
    expect_nothing(backend, ROUSE_MS(5));
    test_half_close(ends[1]);
    assert_true(next_event(backend).channels == BACKEND_READ);
    assert_true(armed(backend, &source, 1, BOTH) == BACKEND_READ);
    assert_int_equal(backend_arm(backend, &source, BACKEND_WRITE), ROUSE_OK);
    expect_nothing(backend, ROUSE_MS(5));
    forget(backend, &source, 1);
    test_close(ends[0]);
    test_close(ends[1]);
    close_backend(backend);
}

TEST(a_reset_fires_both_channels_and_reading_says_what_it_was)
{
    static const unsigned waits[] = {BACKEND_READ, BACKEND_WRITE, BOTH};
    struct backend *backend = open_backend();
    for (size_t i = 0; i < 3; i++) {
        char data[8];
        int ends[2];
        test_tcp_pair(ends);
        struct backend_source source = attach(backend, ends[0], 1);
        (void)test_send_until_full(ends[0]);
        assert_int_equal(backend_arm(backend, &source, waits[i]), ROUSE_OK);
        test_close_with_reset(ends[1]);
        assert_true(next_event(backend).channels == (BOTH | BACKEND_HANGUP));
        expect_nothing(backend, ROUSE_MS(5));
        for (int k = 0; k < 2; k++) {
            rouse_buffer piece = {data, sizeof data};
            assert_int_equal(os_read(ends[0], OS_KIND_STREAM_SOCKET, data, sizeof data), ROUSE_CONNECTION_RESET);
            assert_int_equal(os_readv(ends[0], OS_KIND_STREAM_SOCKET, &piece, 1), ROUSE_CONNECTION_RESET);
            assert_int_equal(os_peek(ends[0], OS_KIND_STREAM_SOCKET, data, 1), ROUSE_CONNECTION_RESET);
            assert_int_equal(os_write(ends[0], OS_KIND_STREAM_SOCKET, data, 1), ROUSE_CONNECTION_RESET);
        }
        forget(backend, &source, 1);
        test_close(ends[0]);
    }
    close_backend(backend);
}

TEST(a_connection_that_is_refused_fires_both_channels)
{
    struct backend *backend = open_backend();
    os_handle handle;
    rouse_address address = test_address(test_free_port());
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_OK);
    struct backend_source source = attach(backend, (int)handle, 1);
    assert_int_equal(os_tcp_connect(handle, &address), ROUSE_PENDING);
    assert_true(armed(backend, &source, 1, BACKEND_WRITE) == (BOTH | BACKEND_HANGUP));
    expect_nothing(backend, ROUSE_MS(5));
    assert_int_equal(os_tcp_connect_result(handle), ROUSE_CONNECTION_REFUSED);
    forget(backend, &source, 1);
    (void)os_close(handle);
    close_backend(backend);
}

TEST(a_socket_that_is_closed_behind_our_back_ends_its_waits_and_leaves_its_number)
{
    struct backend *backend = open_backend();
    for (int is_armed = 0; is_armed < 2; is_armed++) {
        int ends[2];
        test_tcp_pair(ends);
        struct backend_source source = attach(backend, ends[0], 1);
        if (is_armed)
            assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_OK);
        test_close(ends[0]);
        if (is_armed)
            assert_true(next_event(backend).channels == (BOTH | BACKEND_HANGUP));
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_BAD_DESCRIPTOR);
        assert_null(*find(backend, ends[0]));
        assert_int_equal(backend_arm(backend, &source, BACKEND_READ), ROUSE_BAD_DESCRIPTOR);
        assert_int_equal(backend_detach(backend, &source, false), BACKEND_DONE);
        test_close(ends[1]);
    }
    close_backend(backend);
}

/* ---- attaching ---- */

TEST(what_is_not_a_socket_is_refused)
{
    struct backend *backend = open_backend();
    struct backend_source source;
    HANDLE event = CreateEventW(NULL, FALSE, FALSE, NULL);
    source = (struct backend_source){.handle = (os_handle)event};
    assert_int_equal(backend_attach(backend, &source, 1), ROUSE_NOT_POLLABLE);
    assert_true(CloseHandle(event));
    assert_int_equal(backend_attach(backend, &source, 1), ROUSE_BAD_DESCRIPTOR);
    source.handle = OS_NO_HANDLE;
    assert_int_equal(backend_attach(backend, &source, 1), ROUSE_BAD_DESCRIPTOR);
    assert_null(source.record);
    close_backend(backend);
}

TEST(a_source_that_was_forgotten_is_detached_by_its_handle)
{
    struct backend *backend = open_backend();
    int ends[2];
    test_tcp_pair(ends);
    struct backend_source first = attach(backend, ends[0], 1), second = {.handle = ends[0]};
    assert_int_equal(backend_arm(backend, &first, BACKEND_READ), ROUSE_OK);
    assert_int_equal(backend_attach(backend, &second, 2), ROUSE_ALREADY_EXISTS);
    assert_int_equal(backend_detach(backend, &second, false), BACKEND_LATER);
    assert_int_equal(backend_detach(backend, &second, false), BACKEND_DONE);
    assert_int_equal(backend_attach(backend, &second, 2), ROUSE_OK);
    struct backend_event event = next_event(backend);
    assert_true(event.token == 1 && event.kind == BACKEND_RETIRED);
    assert_true(armed(backend, &second, 2, BACKEND_WRITE) == BACKEND_WRITE);
    forget(backend, &second, 2);
    test_close(ends[0]);
    test_close(ends[1]);
    close_backend(backend);
}

static int passes_down(int socket, DWORD code)
{
    return code == SIO_BASE_HANDLE ? 7 : socket;
}
static int knows_select_alone(int socket, DWORD code)
{
    return code == SIO_BASE_HANDLE ? (socket < 4 ? 0 : 7) : code == SIO_BSP_HANDLE_SELECT ? socket + 1 : socket;
}
static int knows_poll_alone(int socket, DWORD code)
{
    return code == SIO_BASE_HANDLE ? (socket < 4 ? 0 : 7) : code == SIO_BSP_HANDLE_POLL ? socket + 1 : socket;
}
static int knows_nothing(int socket, DWORD code)
{
    (void)socket, (void)code;
    return 0;
}
static int answers_itself(int socket, DWORD code)
{
    return code == SIO_BASE_HANDLE ? 0 : socket;
}
static int never_ends(int socket, DWORD code)
{
    return code == SIO_BASE_HANDLE ? 0 : socket + 1;
}

/* tokio-rs/mio#1314: layered providers that fail what they are told to pass down. */
TEST(the_lowest_socket_is_found_through_layers)
{
    static const struct {
        int (*layers)(int socket, DWORD code);
        int status;
    } cases[] = {
        {passes_down, ROUSE_OK},
        {knows_select_alone, ROUSE_OK},
        {knows_poll_alone, ROUSE_OK},
        {knows_nothing, ROUSE_NOT_POLLABLE},
        {answers_itself, ROUSE_NOT_POLLABLE},
        {never_ends, ROUSE_NOT_POLLABLE},
    };
    os_handle handle;
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_OK);
    top = (int)handle;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        SOCKET base = 0;
        layers = cases[i].layers;
        assert_int_equal(find_base(handle, &base), cases[i].status);
        if (cases[i].status == ROUSE_OK)
            assert_int_equal(base, 7);
    }
    (void)os_close(handle);
}

/* ---- waiting ---- */

TEST(a_wake_that_finds_no_memory_is_tried_again)
{
    struct backend *backend = open_backend();
    struct backend_event event;
    post_error = ERROR_NO_SYSTEM_RESOURCES;
    failing_posts = 3;
    backend_wake(backend);
    assert_int_equal(failing_posts, 0);
    assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    post_error = ERROR_INVALID_HANDLE;
    failing_posts = 3;
    backend_wake(backend);
    assert_int_equal(failing_posts, 2);
    failing_posts = 0;
    close_backend(backend);
}

TEST(short_waits_end_by_the_timer_which_is_set_once_for_each_deadline)
{
    struct backend_event event;
    has_packets = true;
    struct backend *backend = open_backend();
    assert_non_null(backend->timer);
    int64_t deadline_ns = os_now() + ROUSE_MS(300);
    for (unsigned i = 0; i < 3; i++) {
        backend_wake(backend);
        assert_int_equal(backend_wait(backend, &event, 1, deadline_ns), 0);
    }
    assert_int_equal(associations, 1);
    assert_true(backend->timer_ns == deadline_ns);
    while (os_now() < deadline_ns)
        assert_int_equal(backend_wait(backend, &event, 1, deadline_ns), 0);
    /* An earlier one takes its place; those that are passed, far away, or none, leave it alone. */
    associations = 0;
    if (backend->timer_ns != NO_TIMER)
        end_packet();
    backend->timer_ns = NO_TIMER;
    int64_t far_ns = os_now() + ROUSE_S(100);
    int64_t deadlines[] = {ROUSE_NEVER, far_ns, os_now(), 0, os_now() + ROUSE_MS(700), os_now() + ROUSE_MS(600)};
    unsigned expected[] = {0, 0, 0, 0, 1, 2};
    for (size_t i = 0; i < sizeof deadlines / sizeof deadlines[0]; i++) {
        backend_wake(backend);
        assert_int_equal(backend_wait(backend, &event, 1, deadlines[i]), 0);
        assert_int_equal(associations, expected[i]);
    }
    /* Its end is about to come: this wait does without. */
    cancel_answer = NT_PENDING;
    backend_wake(backend);
    assert_int_equal(backend_wait(backend, &event, 1, os_now() + ROUSE_MS(500)), 0);
    assert_int_equal(associations, 2);
    assert_true(backend->timer_ns == deadlines[5]);
    cancel_answer = 0;
    /* The end that comes is no event. */
    while (backend->timer_ns != NO_TIMER)
        assert_int_equal(backend_wait(backend, &event, 1, ROUSE_NEVER), 0);
    assert_true(os_now() >= deadlines[5] - ROUSE_MS(1));
    end_packet();
    close_backend(backend);
}

/* With the timer and without it. */
TEST(a_wait_of_less_than_a_millisecond_neither_ends_early_nor_spins)
{
    struct backend_event event;
    for (int with = 0; with < 2; with++) {
        has_packets = with;
        struct backend *backend = open_backend();
        for (int i = 0; i < 20; i++) {
            int64_t deadline_ns = os_now() + 100000;
            unsigned waits = 0;
            for (; os_now() < deadline_ns; waits++)
                assert_int_equal(backend_wait(backend, &event, 1, deadline_ns), 0);
            assert_true(waits <= 4);
        }
        end_packet();
        close_backend(backend);
    }
}

TEST(a_port_that_was_closed_is_an_error_of_waiting)
{
    struct backend_event event;
    struct backend *backend = open_backend();
    HANDLE port = backend->port;
    backend->port = NULL;
    assert_int_equal(backend_wait(backend, &event, 1, os_now() + ROUSE_MS(1)), ROUSE_BAD_DESCRIPTOR);
    backend->port = port;
    close_backend(backend);
}

/* ---- completions of other handles ---- */

TEST(a_completion_of_an_associated_handle_is_an_event_with_its_address)
{
    static const char name[] = "\\\\.\\pipe\\rouse-iocp-test";
    struct backend *backend = open_backend();
    char data[8] = {0};
    DWORD count;
    HANDLE pipe = CreateNamedPipeA(name, PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED, PIPE_TYPE_BYTE | PIPE_WAIT, 1, 4096,
                                   4096, 0, NULL);
    HANDLE client = CreateFileA(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
    assert_true(pipe != INVALID_HANDLE_VALUE && client != INVALID_HANDLE_VALUE);
    assert_int_equal(backend_associate(backend, (os_handle)pipe), ROUSE_OK);
    OVERLAPPED reading = {0};
    assert_false(ReadFile(pipe, data, sizeof data, NULL, &reading));
    assert_int_equal(GetLastError(), ERROR_IO_PENDING);
    expect_nothing(backend, ROUSE_MS(5));
    assert_true(WriteFile(client, "hello", 5, &count, NULL));
    struct backend_event event = next_event(backend);
    assert_true(event.kind == BACKEND_PACKET && event.token == (uintptr_t)&reading);
    assert_true(GetOverlappedResult(pipe, &reading, &count, FALSE));
    assert_int_equal(count, 5);
    assert_memory_equal(data, "hello", 5);
    /* What completes at once is told as well, and so is an end. */
    assert_true(WriteFile(client, "world", 5, &count, NULL));
    OVERLAPPED again = {0};
    assert_true(ReadFile(pipe, data, sizeof data, NULL, &again) || GetLastError() == ERROR_IO_PENDING);
    event = next_event(backend);
    assert_true(event.kind == BACKEND_PACKET && event.token == (uintptr_t)&again);
    OVERLAPPED cancelled = {0};
    assert_false(ReadFile(pipe, data, sizeof data, NULL, &cancelled));
    assert_true(CancelIoEx(pipe, &cancelled));
    event = next_event(backend);
    assert_true(event.kind == BACKEND_PACKET && event.token == (uintptr_t)&cancelled);
    assert_int_equal(backend_associate(backend, 0x7ffffff0), ROUSE_BAD_DESCRIPTOR);
    CloseHandle(client);
    CloseHandle(pipe);
    close_backend(backend);
}

/* ---- operations that wait for such completions ---- */

/* Pipes of one test, each with one reader and its other end. They outlive the operations on them. */
static struct {
    HANDLE ends[1024];
    atomic_size count;
} pipes;

static void close_pipes(void)
{
    for (size_t i = atomic_size_load(&pipes.count, ACQUIRE); i-- > 0;)
        CloseHandle(pipes.ends[i]);
    atomic_size_store(&pipes.count, 0, RELEASE);
}

static int kernel_start(struct packet_job *job, struct packet *sent)
{
    char name[64];
    DWORD count;
    size_t number = atomic_size_add(&pipes.count, 2, RELAXED);
    require_int(number + 2, <=, sizeof pipes.ends / sizeof *pipes.ends);
    snprintf(name, sizeof name, "\\\\.\\pipe\\rouse-packet-test-%u-%u", (unsigned)GetCurrentProcessId(),
             (unsigned)number);
    HANDLE pipe = CreateNamedPipeA(name, PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED, PIPE_TYPE_BYTE | PIPE_WAIT, 1, 4096,
                                   4096, 0, NULL);
    HANDLE client = CreateFileA(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
    require(pipe != INVALID_HANDLE_VALUE && client != INVALID_HANDLE_VALUE);
    pipes.ends[number] = job->pipe = pipe;
    pipes.ends[number + 1] = client;
    require_int(backend_associate(job->reactor->backend, (os_handle)pipe), ==, ROUSE_OK);
    if (job->answered)
        require(WriteFile(client, "ppppp", 1 + (DWORD)(number / 2 % 5), &count, NULL));
    bool done = ReadFile(pipe, job->data, sizeof job->data, NULL, (OVERLAPPED *)(void *)sent->record);
    return done || GetLastError() == ERROR_IO_PENDING ? ROUSE_OK : os_status(GetLastError());
}

static void kernel_cancel(struct packet_job *job, struct packet *sent)
{
    (void)CancelIoEx(job->pipe, (OVERLAPPED *)(void *)sent->record);
}

static ptrdiff_t kernel_answer(struct packet_job *job, struct packet *sent)
{
    DWORD count;
    if (GetOverlappedResult(job->pipe, (OVERLAPPED *)(void *)sent->record, &count, FALSE))
        return (ptrdiff_t)count;
    return GetLastError() == ERROR_OPERATION_ABORTED ? ROUSE_CANCELLED : os_status(GetLastError());
}

static void on_each_executor_with_pipes(int (*body)(void *unused))
{
    on_each_executor(body, NULL);
    close_pipes();
}

TEST(an_operation_ends_with_its_packet)
{
    on_each_executor_with_pipes(await_result);
}

TEST(a_cancelled_fiber_comes_back_when_the_kernel_has_given_its_memory_back)
{
    on_each_executor_with_pipes(cancel_children);
}

TEST(a_deadline_ends_a_wait_when_the_kernel_has_given_the_memory_back)
{
    on_each_executor_with_pipes(let_the_time_pass);
}

TEST(who_takes_an_operation_back_by_hand_polls_it_to_its_end)
{
    on_each_executor_with_pipes(take_back_by_hand);
}

TEST(memory_of_a_dropped_task_is_kept_while_the_kernel_has_it)
{
    on_each_executor_with_pipes(drop_while_lent);
}

TEST(a_runtime_ends_when_the_kernel_has_given_its_tasks_memory_back)
{
    on_each_executor_with_pipes(leave_lent);
}
