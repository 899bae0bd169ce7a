/* Many readers on one stream who take one byte each, some of whom give up: what arrives is read, whoever was told of it. */
#include "scenario.h"

enum { READERS = 24, QUITTERS = 4 };

static struct {
    rouse_stream *ends[2];
    rouse_listener *listener;
    char address[ROUSE_ADDRESS_TEXT_MAX];
    unsigned sent, done, taken; /* bytes; readers that have theirs; bytes that quitters took */
} shared;

static int read_one(void *argument)
{
    char data;
    (void)argument;
    rouse_sleep((int64_t)below(ROUSE_MS(1)));
    must(rouse_read(shared.ends[0], &data, 1) == 1);
    shared.done++;
    return ROUSE_OK;
}

/* Waits as the others do, for a short time each; what it is told of it may leave behind. */
static int give_up_often(void *argument)
{
    (void)argument;
    while (shared.done < READERS) {
        char data;
        rouse_deadline deadline;
        must(rouse_deadline_enter(&deadline, rouse_after((int64_t)below(ROUSE_US(300)))) == ROUSE_OK);
        ptrdiff_t count = rouse_read(shared.ends[0], &data, 1);
        must(rouse_deadline_leave(&deadline) == ROUSE_OK);
        must(count == 1 || count == ROUSE_TIMED_OUT);
        shared.taken += count == 1;
        rouse_sleep((int64_t)below(ROUSE_US(200)));
    }
    return ROUSE_OK;
}

/* As many as are wanted, in bursts, with pauses in which whoever was not told waits in vain. */
static int write_all_wanted(void *argument)
{
    int64_t limit_ns = rouse_after(ROUSE_S(20));
    (void)argument;
    while (shared.done < READERS) {
        unsigned wanted = READERS + shared.taken - shared.sent, burst = 1 + (unsigned)below(4);
        if (burst > wanted)
            burst = wanted;
        must(rouse_now() < limit_ns && "what was sent is read");
        if (burst > 0)
            must(rouse_write_all(shared.ends[1], "abcd", burst, NULL) == ROUSE_OK);
        shared.sent += burst;
        rouse_sleep(burst == 0 ? ROUSE_MS(100) : (int64_t)below(ROUSE_US(400)));
    }
    return ROUSE_OK;
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
        must(rouse_go(read_one, NULL) == ROUSE_OK);
    for (unsigned i = 0; i < quitters; i++)
        must(rouse_go(give_up_often, NULL) == ROUSE_OK);
    must(rouse_go(write_all_wanted, NULL) == ROUSE_OK);
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
