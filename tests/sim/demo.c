/* The demonstration server, in both styles, on both executors, with fifty clients: most of them talk and check every byte;
 * some reset, some close one side, some say nothing. */
#include "../../examples/poll_server/server.h"
#include "scenario.h"

#include <rouse/signal.h>

enum { CLIENTS = 50, ROUNDS = 48, MESSAGE_MAX = 1000 };

struct talk {
    char address[ROUSE_ADDRESS_TEXT_MAX];
    int honest; /* clients that have been answered to the end */
};

/* The simulated world has no second signal. */
void exit_on_next_signal(void) {}

static int talk_rightly(rouse_stream *server, unsigned number)
{
    char message[MESSAGE_MAX + 1], reply[MESSAGE_MAX + 64], expected[MESSAGE_MAX + 64];
    for (int round = 0; round < ROUNDS; round++) {
        size_t length = 1 + (size_t)below(below(4) == 0 ? MESSAGE_MAX : 40);
        for (size_t i = 0; i < length; i++)
            message[i] = (char)('a' + (number + (unsigned)round + i) % 26);
        message[length] = '\0';
        int wanted = snprintf(expected, sizeof expected, "[Server]: Got %s\n", message);
        int status = rouse_write_all(server, message, length, NULL);
        if (status != ROUSE_OK)
            return status;
        /* What the server reads at once it answers at once: a message that came in pieces has several replies. */
        size_t told = 0, got = 0;
        while (told < length) {
            char *end = memchr(reply, '\n', got);
            if (!end) {
                must(got < sizeof reply);
                ptrdiff_t count = rouse_read(server, reply + got, sizeof reply - got);
                if (count <= 0)
                    return count == 0 ? ROUSE_END_OF_STREAM : (int)count;
                got += (size_t)count;
                continue;
            }
            size_t line = (size_t)(end - reply), prefix = strlen("[Server]: Got "), text = line - prefix;
            must(line > prefix && memcmp(reply, expected, prefix) == 0);
            must(told + text <= length && memcmp(reply + prefix, message + told, text) == 0);
            told += text;
            got -= line + 1;
            memmove(reply, end + 1, got);
        }
        must(got == 0);
        must(wanted > 0);
        rouse_sim_note(length);
    }
    return ROUSE_OK;
}

struct client {
    struct talk *talk;
    unsigned number;
};

static struct client clients[CLIENTS];

static int be_client(void *argument)
{
    struct client *client = argument;
    rouse_stream *server;
    unsigned kind = client->number % 10;
    rouse_sleep((int64_t)below(ROUSE_MS(2)));
    int status = rouse_connect(&server, client->talk->address);
    if (status != ROUSE_OK)
        return status;
    if (kind == 7) { /* resets, with or without a message on its way */
        if (below(2))
            (void)rouse_write(server, "never mind", 10);
        must(rouse_option_set(server, ROUSE_OPTION_LINGER, 0) == ROUSE_OK);
    } else if (kind == 8) { /* closes its side, and gets its reply all the same */
        char reply[512];
        size_t done = 0;
        must(rouse_write_all(server, "last words", 10, NULL) == ROUSE_OK);
        must(rouse_shutdown(server, ROUSE_SHUTDOWN_WRITE) == ROUSE_OK);
        for (ptrdiff_t count; (count = rouse_read(server, reply + done, sizeof reply - done)) != 0;
             done += (size_t)count)
            must(count > 0);
        must(done >= 25 && reply[done - 1] == '\n');
    } else if (kind == 9) { /* says nothing for a while */
        rouse_sleep(ROUSE_MS(20));
    } else {
        status = talk_rightly(server, client->number);
        client->talk->honest += status == ROUSE_OK;
    }
    must(rouse_close(server) == ROUSE_OK);
    return status;
}

static int be_clients(void *argument)
{
    rouse_scope scope;
    must(rouse_scope_open(&scope) == ROUSE_OK);
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){argument, i};
        must(rouse_go(be_client, &clients[i]) == ROUSE_OK);
    }
    return rouse_scope_close(&scope);
}

/* On a thread of its own, as in another process. */
static void run_clients(void *argument)
{
    rouse_options options = ROUSE_OPTIONS_INIT;
    options.executor = ROUSE_EXECUTOR_SINGLE;
    must(rouse_run(be_clients, argument, &options) == ROUSE_OK);
    must(rouse_sim_raise(ROUSE_SIGNAL_INTERRUPT) == 1);
}

static void serve_once(const rouse_options *options, bool fibers)
{
    struct talk talk = {.honest = 0};
    rouse_listener *listener;
    rouse_address address;
    rouse_sim_thread thread;
    must(rouse_listen(&listener, "127.0.0.1:0", NULL) == ROUSE_OK);
    must(rouse_signal_catch(STOP_SIGNALS) == ROUSE_OK);
    must(rouse_listener_address(listener, &address) == ROUSE_OK);
    must(rouse_address_format(&address, talk.address, sizeof talk.address) > 0);
    must(rouse_sim_thread_start(&thread, run_clients, &talk) == ROUSE_OK);
    must((fibers ? serve_with_fibers : serve_with_polls)(listener, options) == ROUSE_OK);
    rouse_sim_thread_join(&thread);
    rouse_signal_restore();
    must(talk.honest == CLIENTS * 7 / 10);
}

int demo_scenario(void *argument)
{
    rouse_options options = ROUSE_OPTIONS_INIT;
    (void)argument;
    options.executor = ROUSE_EXECUTOR_SINGLE;
    serve_once(&options, below(2));
    options.executor = ROUSE_EXECUTOR_MULTI;
    options.scheduler = below(2) ? ROUSE_SCHEDULER_WORK_STEALING : ROUSE_SCHEDULER_ROUND_ROBIN;
    options.workers = 2 + (unsigned)below(3);
    serve_once(&options, below(2));
    return ROUSE_OK;
}
