/* Connections that come and go at once, so that numbers and slots are used again while late events are on their way; and
 * handles that are used after their end. */
#include "scenario.h"

enum { CLIENTS = 12, TURNS = 16, OLD = CLIENTS * TURNS };

static struct {
    rouse_listener *listener;
    char address[ROUSE_ADDRESS_TEXT_MAX];
    unsigned answered;
    rouse_stream *old[OLD]; /* handles that were closed; their slots are others' by and by */
    unsigned olds;
} shared;

/* Answers one byte with the next one. */
static int serve(void *argument)
{
    rouse_stream *peer = argument;
    unsigned char byte;
    while (rouse_read(peer, &byte, 1) == 1) {
        byte++;
        if (rouse_write_all(peer, &byte, 1, NULL) != ROUSE_OK)
            break;
    }
    must(rouse_close(peer) == ROUSE_OK);
    must(rouse_close(peer) == ROUSE_CLOSED);
    return ROUSE_OK;
}

static int read_after_close(void *argument)
{
    char byte;
    ptrdiff_t count = rouse_read(argument, &byte, 1);
    must(count <= 1); /* the reply, if it came before the close */
    return ROUSE_OK;
}

static int be_client(void *argument)
{
    (void)argument;
    for (int turn = 0; turn < TURNS; turn++) {
        rouse_stream *server;
        unsigned char byte = (unsigned char)below(200), reply = 0;
        int status = rouse_connect(&server, shared.address);
        if (status != ROUSE_OK)
            return status;
        must(rouse_write_all(server, &byte, 1, NULL) == ROUSE_OK);
        if (below(4) == 0) { /* leaves without waiting, while another fiber still waits for the reply */
            must(rouse_go(read_after_close, server) == ROUSE_OK);
            if (below(2))
                rouse_yield();
        } else {
            must(rouse_read(server, &reply, 1) == 1);
            must(reply == byte + 1);
            shared.answered++;
        }
        must(rouse_close(server) == ROUSE_OK);
        shared.old[shared.olds++] = server;
        must(rouse_write(shared.old[below(shared.olds)], &byte, 1) == ROUSE_CLOSED);
    }
    return ROUSE_OK;
}

static int accept_all(void *argument)
{
    (void)argument;
    return rouse_serve(shared.listener, serve);
}

static int run(void *argument)
{
    rouse_scope servers, clients;
    (void)argument;
    must(rouse_scope_open(&servers) == ROUSE_OK);
    must(rouse_go(accept_all, NULL) == ROUSE_OK);
    must(rouse_scope_open(&clients) == ROUSE_OK);
    for (int i = 0; i < CLIENTS; i++)
        must(rouse_go(be_client, NULL) == ROUSE_OK);
    int status = rouse_scope_close(&clients);
    must(rouse_scope_cancel(&servers, ROUSE_S(1)) == ROUSE_OK);
    (void)rouse_scope_close(&servers);
    return status;
}

int churn_scenario(void *argument)
{
    rouse_options options = some_options();
    rouse_address address;
    (void)argument;
    memset(&shared, 0, sizeof shared);
    must(rouse_listen(&shared.listener, "[::1]:0", NULL) == ROUSE_OK);
    must(rouse_listener_address(shared.listener, &address) == ROUSE_OK);
    must(rouse_address_format(&address, shared.address, sizeof shared.address) > 0);
    int status = rouse_run(run, NULL, &options);
    must(shared.answered > 0);
    return status;
}
