/* Listening and accepting. */
#include "core/exhaustion.h"
#include "core/op.h"
#include "core/options.h"
#include "core/waker_map.h"
#include "net/stream.h"

#define BACKLOG_DEFAULT 4096
/* Connections that fail while they are accepted, in a row, before others are let run. */
#define FAILURES_IN_A_ROW 16

static int complete_options(rouse_listen_options *full, const rouse_listen_options *given)
{
    *full = (rouse_listen_options)ROUSE_LISTEN_OPTIONS_INIT;
    int status = options_complete(full, sizeof *full, given, offsetof(rouse_listen_options, backlog) + sizeof(int));
    return status == ROUSE_OK && full->backlog < 0 ? ROUSE_INVALID : status;
}

int rouse_listen_at(rouse_listener **listener, const char *text, const rouse_listen_options *given, const char *site)
{
    rouse_listen_options options;
    rouse_address address;
    os_handle handle;
    rouse_stream *stream;
    if (!listener)
        return ROUSE_INVALID;
    *listener = NULL;
    int status = complete_options(&options, given);
    if (status == ROUSE_OK)
        status = rouse_address_parse(&address, text);
    if (status == ROUSE_OK)
        status = os_tcp_open(&handle, address.family);
    if (status != ROUSE_OK)
        return status;
    status = os_tcp_bind(handle, &address, options.reuse_address, options.reuse_port, options.v6_only);
    if (status == ROUSE_OK)
        status = os_tcp_listen(handle, options.backlog ? options.backlog : BACKLOG_DEFAULT);
    if (status == ROUSE_OK)
        status = stream_make(&stream, handle, OS_KIND_OTHER_SOCKET,
                             SLOT_LISTENER | (options.no_delay ? (unsigned)SLOT_NO_DELAY : 0u), 0, site);
    if (status == ROUSE_OK)
        *listener = (rouse_listener *)stream;
    else
        exhaustion_close(handle);
    return status;
}

int rouse_listener_close(rouse_listener *listener)
{
    return rouse_close((rouse_stream *)listener);
}

int rouse_listener_address(rouse_listener *listener, rouse_address *address)
{
    return rouse_local_address((rouse_stream *)listener, address);
}

/* ---- accepting ---- */

struct accept_op {
    struct op_head head;
    uintptr_t handle;               /* of the listener */
    rouse_stream **stream;          /* set on success */
    rouse_address *peer;            /* likewise; may be NULL */
    const char *site;               /* of the stream made; NULL: the listener's */
    struct exhaustion_place *place; /* where it waits for a descriptor; NULL: it does not */
    struct wait_node node;          /* on the listener's list, or in that place */
};
_Static_assert(sizeof(struct accept_op) <= sizeof(rouse_op), "fits an operation");

/* What one attempt came to, besides the statuses. */
enum { ACCEPT_AGAIN = 1 };

static rouse_stream *open_connection(struct accept_op *accept, const struct slot *listener, struct slot *slot,
                                     os_handle handle)
{
    const char *site = accept->site ? accept->site : listener->site;
    if (listener->traits & SLOT_NO_DELAY)
        os_option_set(handle, ROUSE_OPTION_NO_DELAY, 1); /* a wish: failing is no error */
    return stream_open(slot, handle, OS_KIND_STREAM_SOCKET, 0, 0, site);
}

/* Whatever a stream needs is there before the system is asked: a connection that was accepted cannot be put back. */
static ptrdiff_t attempt(struct accept_op *accept, const struct slot *listener)
{
    os_handle handle;
    if (!(listener->traits & SLOT_LISTENER))
        return ROUSE_INVALID;
    struct slot *slot = registry_take();
    if (!slot)
        return ROUSE_NO_MEMORY;
    int status = os_tcp_accept(listener->source.handle, &handle, accept->peer);
    if (status == ROUSE_OK) {
        *accept->stream = open_connection(accept, listener, slot, handle);
        return ROUSE_OK;
    }
    registry_give(slot);
    return status != ROUSE_PENDING && os_accept_error_passes(status) ? ACCEPT_AGAIN : status;
}

/* Is the system out of something that may be there later: descriptors, memory, or room to watch one more descriptor? */
static bool is_exhaustion(ptrdiff_t status)
{
    return status < 0 && (status == ROUSE_LIMIT || os_accept_error_is_exhaustion((int)status));
}

/* Attempts until a connection was accepted, accepting failed, or the operation waits for connections. *exhausted: the
 * system refused to accept, or to watch the listener, for want of something. */
static ptrdiff_t accept_some(struct accept_op *accept, rouse_context *context, bool *exhausted)
{
    struct slot_call call;
    for (int failures = 0; failures < FAILURES_IN_A_ROW; failures++) {
        ptrdiff_t answer = ROUSE_PENDING;
        while (answer == ROUSE_PENDING) { /* a connection came in between */
            int status = waker_map_begin(&call, accept->handle, BACKEND_READ, &accept->node, &context->waker);
            *exhausted = is_exhaustion(status);
            if (status != ROUSE_OK)
                return status;
            answer = attempt(accept, call.slot);
            enum call_outcome outcome = answer == ROUSE_PENDING ? CALL_BLOCKED : CALL_PROGRESS;
            status = waker_map_end(&call, outcome, &accept->node, &context->waker);
            *exhausted = is_exhaustion(status);
            if (outcome == CALL_BLOCKED && status != ROUSE_OK)
                return status;
        }
        *exhausted = is_exhaustion(answer);
        if (answer != ACCEPT_AGAIN)
            return answer;
    }
    rouse_waker_wake_by_ref(&context->waker); /* a storm of failing connections: let others run in between */
    return ROUSE_PENDING;
}

/* Does it wait for a descriptor no longer because one may be free? */
static bool leave_place(struct accept_op *accept)
{
    bool fired = accept->place && exhaustion_cancel(&accept->node, accept->place);
    accept->place = NULL;
    return fired;
}

static ptrdiff_t accept_poll(rouse_op *op, rouse_context *context)
{
    struct accept_op *accept = (struct accept_op *)(void *)op;
    if (!accept->stream)
        return ROUSE_INVALID;
    bool relieved = leave_place(accept), exhausted = false;
    ptrdiff_t answer = accept_some(accept, context, &exhausted);
    if (exhausted) { /* the connection waits in the kernel's queue, and this call for a descriptor */
        int status = exhaustion_wait(&accept->node, &context->waker, &accept->place);
        return status == ROUSE_OK ? ROUSE_PENDING : status;
    }
    if (relieved && answer != ROUSE_OK)
        exhaustion_relieve(); /* what this call was woken for is left to the next */
    return answer;
}

static int accept_cancel(rouse_op *op)
{
    struct accept_op *accept = (struct accept_op *)(void *)op;
    if (!accept->place)
        waker_map_cancel(accept->handle, BACKEND_READ, &accept->node);
    else if (leave_place(accept))
        exhaustion_relieve();
    return ROUSE_OP_IDLE;
}

static const struct op_type accept_type = {"accept", accept_poll, accept_cancel, NULL};

static void init(rouse_op *op, rouse_listener *listener, rouse_stream **stream, rouse_address *peer, const char *site)
{
    if (stream)
        *stream = NULL;
    if (!op)
        return;
    *(struct accept_op *)(void *)op = (struct accept_op){
        .head = {&accept_type}, .handle = (uintptr_t)listener, .stream = stream, .peer = peer, .site = site};
}

void rouse_accept_init(rouse_op *op, rouse_listener *listener, rouse_stream **stream, rouse_address *peer)
{
    init(op, listener, stream, peer, NULL);
}

int rouse_accept_at(rouse_listener *listener, rouse_stream **stream, rouse_address *peer, const char *site)
{
    rouse_op op;
    init(&op, listener, stream, peer, site);
    return op_await_status(&op);
}

int rouse_serve(rouse_listener *listener, rouse_fiber_function *serve)
{
    rouse_stream *peer;
    int status;
    rouse_fiber_options options = ROUSE_FIBER_OPTIONS_INIT;
    options.name = "connection";
    if (!serve) {
        rouse_listener_close(listener);
        return ROUSE_INVALID;
    }
    while ((status = rouse_accept_at(listener, &peer, NULL, NULL)) == ROUSE_OK) {
        status = rouse_go_at(serve, peer, &options, NULL);
        if (status == ROUSE_OK)
            continue;
        rouse_close(peer);
        /* Memory or stacks have run out: this peer is turned away, the next may do better. Anything else stays so. */
        if (status != ROUSE_NO_MEMORY && status != ROUSE_LIMIT)
            break;
    }
    rouse_listener_close(listener);
    return status;
}
