/* Many readers on one stream, some of whom give up: what arrives is read, whoever was told of it. After each burst nobody
 * does anything but read it: a reader that was not told of what another one left behind is found waiting. */
#include "scenario.h"

#include <limits.h>

enum { BURSTS = 40, READERS = 3, QUITTERS = 3 };

static struct {
    rouse_stream *ends[2];
    rouse_listener *listener;
    char address[ROUSE_ADDRESS_TEXT_MAX];
    unsigned sent, taken; /* bytes */
    unsigned burst;       /* how many there were */
    unsigned resting;     /* readers that wait for nothing */
    bool over;
} shared;

/* Leaves the stream to the others until a later burst was read without it. */
static void rest(void)
{
    unsigned burst = shared.burst + 1;
    if (shared.resting == READERS - 1 || shared.over)
        return;
    shared.resting++;
    while (!shared.over && (shared.burst < burst || shared.taken < shared.sent))
        rouse_sleep(ROUSE_US(100));
    shared.resting--;
}

/* Into a buffer that may be larger than what there is. */
static int read_on(void *argument)
{
    (void)argument;
    for (;;) {
        char data[3];
        size_t room = 1 + below(sizeof data);
        ptrdiff_t count = rouse_read(shared.ends[0], data, room);
        must(count >= 0 && count <= (ptrdiff_t)room);
        if (count == 0)
            return ROUSE_OK;
        shared.taken += (unsigned)count;
        if (below(4) == 0)
            rest();
    }
}

/* Waits as the others do, for a short time, and looks at the time first: what it was told of meanwhile it leaves behind. It
 * comes again after the next burst. */
struct quitter {
    rouse_op pause, read;
    unsigned burst; /* the last one for which it has tried */
    bool reads;
    char data;
};

static int give_up_often(void *state, void *result, rouse_context *context)
{
    struct quitter *quitter = state;
    (void)result;
    while (!shared.over) {
        if (quitter->burst != shared.burst && !quitter->reads) {
            quitter->burst = shared.burst;
            quitter->reads = true;
            rouse_read_init(&quitter->read, shared.ends[0], &quitter->data, 1);
            rouse_op_cancel(&quitter->pause);
            rouse_sleep_init(&quitter->pause, rouse_after((int64_t)below(ROUSE_MS(2))));
        }
        if (rouse_op_poll(&quitter->pause, context) == ROUSE_PENDING) {
            ptrdiff_t count = quitter->reads ? rouse_op_poll(&quitter->read, context) : ROUSE_PENDING;
            if (count == ROUSE_PENDING)
                return ROUSE_PENDING;
            must(count == 1 || (count == 0 && shared.over));
            shared.taken += (unsigned)count;
            rouse_op_cancel(&quitter->pause);
        } else if (quitter->reads) {
            rouse_op_cancel(&quitter->read);
        }
        quitter->reads = false;
        rouse_sleep_init(&quitter->pause, rouse_after(ROUSE_US(100)));
    }
    return ROUSE_OK;
}

static void drop_quitter(void *state)
{
    struct quitter *quitter = state;
    rouse_op_cancel(&quitter->pause);
    rouse_op_cancel(&quitter->read);
}

static const rouse_task_type quitter_type = {
    .name = "quitter", .poll = give_up_often, .drop = drop_quitter, .state_size = sizeof(struct quitter)};

static int write_bursts(void *argument)
{
    (void)argument;
    for (int i = 0; i < BURSTS; i++) {
        shared.burst++;
        for (uint64_t parts = 1 + below(2); parts > 0; parts--) {
            unsigned size = 1 + (unsigned)below(3);
            shared.sent += size;
            must(rouse_write_all(shared.ends[1], "abc", size, NULL) == ROUSE_OK);
            rouse_sleep((int64_t)below(ROUSE_US(40)));
        }
        int64_t limit_ns = rouse_after(ROUSE_S(1));
        while (shared.taken < shared.sent) {
            must(rouse_now() < limit_ns && "what was sent is read");
            rouse_sleep(ROUSE_US(50));
        }
        rouse_sleep((int64_t)below(ROUSE_US(300)));
    }
    shared.over = true;
    return rouse_shutdown(shared.ends[1], ROUSE_SHUTDOWN_WRITE);
}

static int connect_it(void *argument)
{
    (void)argument;
    return rouse_connect(&shared.ends[1], shared.address);
}

static int run(void *argument)
{
    rouse_scope scope;
    (void)argument;
    must(rouse_scope_open(&scope) == ROUSE_OK);
    must(rouse_go(connect_it, NULL) == ROUSE_OK);
    must(rouse_accept(shared.listener, &shared.ends[0], NULL) == ROUSE_OK);
    must(rouse_scope_close(&scope) == ROUSE_OK);
    must(rouse_scope_open(&scope) == ROUSE_OK);
    unsigned quitters = (unsigned)below(QUITTERS + 1);
    for (int i = 0; i < READERS; i++)
        must(rouse_go(read_on, NULL) == ROUSE_OK);
    for (unsigned i = 0; i < quitters; i++)
        must(rouse_scope_spawn(&scope, NULL, &quitter_type, &(struct quitter){.burst = UINT_MAX}) == ROUSE_OK);
    must(rouse_go(write_bursts, NULL) == ROUSE_OK);
    must(rouse_scope_close(&scope) == ROUSE_OK);
    rouse_close(shared.ends[0]);
    rouse_close(shared.ends[1]);
    return ROUSE_OK;
}

int readers_scenario(void *argument)
{
    rouse_options options = some_options();
    rouse_address address;
    (void)argument;
    memset(&shared, 0, sizeof shared);
    must(rouse_listen(&shared.listener, "127.0.0.1:0", NULL) == ROUSE_OK);
    must(rouse_listener_address(shared.listener, &address) == ROUSE_OK);
    must(rouse_address_format(&address, shared.address, sizeof shared.address) > 0);
    int status = rouse_run(run, NULL, &options);
    rouse_listener_close(shared.listener);
    return status;
}
