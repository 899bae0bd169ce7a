/* What the system layer for Windows does by its own means: requests of the console, stacks that grow, ports of one's own. */
#include "os/os.h"

#include <rouse/rouse.h>

#include "support/harness.h"
#include "support/net.h"
#include "support/process.h"

#include <windows.h>

TEST_FILE_NEEDS(completion_port)

/* ---- stacks ---- */

static size_t committed_bytes(const char *low, const char *high)
{
    size_t bytes = 0;
    while (low < high) {
        MEMORY_BASIC_INFORMATION info;
        require(VirtualQuery(low, &info, sizeof info) != 0);
        bytes += info.State == MEM_COMMIT && !(info.Protect & PAGE_GUARD) ? os_page_bytes() : 0;
        low += os_page_bytes();
    }
    return bytes;
}

TEST(a_stack_is_committed_at_its_upper_end_only)
{
    size_t page = os_page_bytes(), bytes = 16 * page;
    char *low = os_pages_reserve(bytes);
    assert_non_null(low);
    assert_true(os_stacks_grow());
    assert_int_equal(committed_bytes(low, low + bytes), 0);
    assert_int_equal(os_stack_commit(low + bytes, 2 * page), ROUSE_OK);
    assert_int_equal(committed_bytes(low, low + bytes), 2 * page);
    low[bytes - 2 * page] = 1;
    os_pages_discard(low, bytes);
    assert_int_equal(committed_bytes(low, low + bytes), 0);
    assert_int_equal(os_stack_commit(low + bytes, page), ROUSE_OK);
    assert_int_equal(low[bytes - 1], 0);
    os_pages_release(low, bytes);
}

/* Uses so many KiB of stack. */
static int descend(int kib)
{
    volatile char frame[1024];
    frame[0] = 1;
    frame[1023] = 1;
    return kib > 0 ? descend(kib - 1) + frame[0] : frame[1023];
}

static int use_much_stack(void *kib)
{
    ULONG_PTR low, high;
    int answer = descend(*(int *)kib);
    GetCurrentThreadStackLimits(&low, &high);
    require_int(high - low, >=, 64 * 1024);
    require((char *)&answer > (char *)low && (char *)&answer < (char *)high);
    require_int(rouse_sleep(0), ==, ROUSE_OK);
    require_int(committed_bytes((char *)low, (char *)high), >=, *(int *)kib * 1024);
    return descend(2) > 0 ? answer : 0;
}

static int use_deep_and_shallow(void *unused)
{
    (void)unused;
    for (int round = 0; round < 5; round++) {
        int deep = 50, shallow = 1;
        rouse_task tasks[40];
        for (int i = 0; i < 40; i++)
            require_int(
                rouse_spawn_fiber_at(&tasks[i], NULL, use_much_stack, i % 2 ? &deep : &shallow, 0, 0, NULL, ROUSE_HERE),
                ==, ROUSE_OK);
        for (int i = 0; i < 40; i++)
            require_int(rouse_join(&tasks[i], NULL), >, 0);
    }
    return ROUSE_OK;
}

TEST(fibers_grow_into_their_stacks_again_and_again)
{
    assert_int_equal(rouse_run(use_deep_and_shallow, NULL, NULL), ROUSE_OK);
}

static int overflow(void *unused)
{
    (void)unused;
    return descend(1000);
}

TEST(child_that_overflows)
{
    if (getenv("ROUSE_TEST_CHILD") == NULL)
        test_skip("only as a child of another test");
    rouse_options options = ROUSE_OPTIONS_INIT;
    options.report_overflow = 1;
    assert_int_equal(rouse_run(overflow, NULL, &options), ROUSE_OK);
}

static int run_child(const char *name, char *text, size_t size)
{
    char path[MAX_PATH];
    test_process child;
    const char *arguments[] = {name, NULL};
    require(GetModuleFileNameA(NULL, path, sizeof path) != 0);
    require(SetEnvironmentVariableA("ROUSE_TEST_CHILD", "1"));
    test_process_start(&child, path, arguments, TEST_STDOUT_PIPE);
    test_read_text(child.errors, text, size);
    int status = test_process_end(&child, TEST_SOON);
    test_process_forget(&child);
    return status;
}

TEST(an_overflow_is_reported_with_the_fibers_name_and_ends_the_process)
{
    char text[4000];
    assert_int_not_equal(run_child("child_that_overflows", text, sizeof text), 0);
    assert_non_null(strstr(text, "rouse: stack overflow in main"));
}

/* ---- ports ---- */

TEST(a_port_is_kept_from_others_and_free_at_once_when_it_is_closed)
{
    for (int reuse = 0; reuse < 2; reuse++) {
        rouse_address address = test_address(0);
        os_handle first, second;
        int value = -1;
        assert_int_equal(os_tcp_open(&first, ROUSE_IPV4), ROUSE_OK);
        assert_int_equal(os_tcp_bind(first, &address, reuse, false, false), ROUSE_OK);
        assert_int_equal(os_tcp_listen(first, 4), ROUSE_OK);
        assert_int_equal(os_local_address(first, &address), ROUSE_OK);
        assert_int_equal(os_option_get(first, ROUSE_OPTION_REUSE_ADDRESS, &value), ROUSE_OK);
        assert_int_equal(value, reuse);
        assert_int_equal(os_tcp_open(&second, ROUSE_IPV4), ROUSE_OK);
        assert_int_equal(os_tcp_bind(second, &address, reuse, false, false), ROUSE_ADDRESS_IN_USE);
        os_close(first);
        assert_int_equal(os_tcp_bind(second, &address, true, false, false), ROUSE_OK);
        os_close(second);
    }
}

TEST(a_port_cannot_be_shared)
{
    rouse_address address = test_address(0);
    os_handle handle;
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_OK);
    assert_int_equal(os_tcp_bind(handle, &address, true, true, false), ROUSE_NOT_SUPPORTED);
    os_close(handle);
}

TEST(what_is_no_socket_cannot_be_waited_for)
{
    enum os_kind kind;
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    assert_non_null(event);
    assert_int_equal(os_handle_kind((os_handle)event, &kind), ROUSE_NOT_POLLABLE);
    CloseHandle(event);
    assert_int_equal(os_handle_kind((os_handle)event, &kind), ROUSE_BAD_DESCRIPTOR);
}

/* ---- the console ---- */

static atomic_int seen;

static void see(int signal)
{
    atomic_fetch_or(&seen, signal);
}

TEST(child_that_waits_for_the_console)
{
    if (getenv("ROUSE_TEST_CHILD") == NULL)
        test_skip("only as a child of another test");
    int wanted = atoi(getenv("ROUSE_TEST_CHILD"));
    assert_int_equal(os_signal_install(ROUSE_SIGNAL_INTERRUPT, see), ROUSE_OK);
    assert_int_equal(os_signal_install(ROUSE_SIGNAL_TERMINATE, see), ROUSE_OK);
    os_write_error("ready\n", 6);
    eventually(atomic_load(&seen) == wanted, TEST_SOON);
    os_signal_restore(ROUSE_SIGNAL_INTERRUPT);
    os_signal_restore(ROUSE_SIGNAL_TERMINATE);
}

static void tell_a_child(int signal, const char *wanted)
{
    char path[MAX_PATH], line[64];
    test_process child;
    const char *arguments[] = {"child_that_waits_for_the_console", NULL};
    require(GetModuleFileNameA(NULL, path, sizeof path) != 0);
    require(SetEnvironmentVariableA("ROUSE_TEST_CHILD", wanted));
    test_process_start(&child, path, arguments, TEST_STDOUT_PIPE);
    do
        assert_true(test_read_line(child.errors, line, sizeof line) > 0);
    while (strncmp(line, "ready", 5) != 0);
    test_process_signal(&child, signal);
    assert_int_equal(test_process_end(&child, TEST_SOON), 0);
    test_process_forget(&child);
}

TEST(ctrl_c_interrupts)
{
    tell_a_child(SIGINT, "1");
}

TEST(ctrl_break_is_a_request_to_terminate)
{
    test_needs("terminate");
    tell_a_child(SIGTERM, "2");
}
