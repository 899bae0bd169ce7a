/* What costs nothing: connections that nobody uses, whatever state they are in. */
#include "support/io.h"

#include <sys/resource.h>

enum { MOST = 1000 };
static rouse_stream *streams[MOST];
static int peers[MOST];

static int be_idle(void *unused)
{
    rouse_scope scope;
    char byte;
    int count = (int)test_scale(300, MOST);
    (void)unused;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < count; i++) {
        rouse_deadline deadline = {{0}};
        streams[i] = tcp_stream(&peers[i]);
        require_int(rouse_deadline_enter(&deadline, rouse_after(1)), ==, ROUSE_OK);
        require_int(rouse_read(streams[i], &byte, 1), ==, ROUSE_TIMED_OUT);
        require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
        /* Nothing, bytes that nobody reads, the end, a reset (seastar@157c7a376): all of them are known to the kernel. */
        if (i % 4 == 1)
            test_send_all(peers[i], "x", 1);
        if (i % 4 == 2)
            test_half_close(peers[i]);
        if (i % 4 == 3)
            test_close_with_reset(peers[i]);
    }
    require_int(rouse_sleep(ROUSE_MS(50)), ==, ROUSE_OK);
    int64_t cpu = test_cpu_ns();
    require_int(rouse_sleep(ROUSE_MS(200)), ==, ROUSE_OK);
    if (!test_is_slow())
        require_int(test_cpu_ns() - cpu, <, ROUSE_MS(4)); /* 2 % */
    for (int i = 0; i < count; i++) {
        if (i % 4 == 0)
            test_close(peers[i]);
        ptrdiff_t answer = rouse_read(streams[i], &byte, 1);
        require_int(answer, ==, i % 4 == 1 ? 1 : i % 4 == 3 ? ROUSE_CONNECTION_RESET : 0);
        require_int(rouse_close(streams[i]), ==, ROUSE_OK);
        if (i % 4 == 1 || i % 4 == 2)
            test_close(peers[i]);
    }
    return rouse_scope_close(&scope);
}

TEST_SERIAL(idle_connections_in_every_state_cost_no_processor_time)
{
    struct rlimit limit;
    /* There is no such limit everywhere. */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 2 * MOST + 100 && limit.rlim_max > limit.rlim_cur) {
        limit.rlim_cur = limit.rlim_max;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    on_each_executor(be_idle, NULL);
}
