/* Connecting, addresses of connections, and socket options. */
#include "core/exhaustion.h"
#include "core/op.h"
#include "core/waker_map.h"
#include "net/stream.h"

struct connect_op {
    struct op_head head;
    rouse_stream **stream;        /* set on success */
    const rouse_address *address; /* until the first poll */
    rouse_stream *connecting;     /* the stream being connected; NULL before the first poll */
    const char *site;             /* of the stream */
    struct wait_node node;        /* on its list of writers */
};
_Static_assert(sizeof(struct connect_op) <= sizeof(rouse_op), "fits an operation");

/* Opens a socket and begins; *connecting is set unless it fails. */
static int begin(struct connect_op *connect)
{
    os_handle handle;
    if (!connect->stream || !connect->address)
        return ROUSE_INVALID;
    int status = os_tcp_open(&handle, connect->address->family);
    if (status != ROUSE_OK)
        return status;
    os_option_set(handle, ROUSE_OPTION_NO_DELAY, 1); /* a wish: failing is no error */
    status = os_tcp_connect(handle, connect->address);
    if (status != ROUSE_OK && status != ROUSE_PENDING) {
        exhaustion_close(handle);
        return status;
    }
    /* What is decided already when the stream is attached is an event, too: no look at it is needed before. */
    unsigned flags = status == ROUSE_PENDING ? (unsigned)SLOT_CONNECTING : 0u;
    int made = stream_make(&connect->connecting, handle, OS_KIND_STREAM_SOCKET, 0, flags, connect->site);
    if (made == ROUSE_OK)
        return status;
    exhaustion_close(handle);
    return made;
}

/* The stream is the caller's, or it never was one. */
static int finish(struct connect_op *connect, int status)
{
    if (status == ROUSE_OK)
        *connect->stream = connect->connecting;
    else if (connect->connecting)
        rouse_close(connect->connecting);
    connect->connecting = NULL;
    return status;
}

static ptrdiff_t connect_poll(rouse_op *op, rouse_context *context)
{
    struct connect_op *connect = (struct connect_op *)(void *)op;
    struct slot_call call;
    int status = connect->connecting ? ROUSE_PENDING : begin(connect);
    while (status == ROUSE_PENDING) {
        status = waker_map_begin(&call, (uintptr_t)connect->connecting, BACKEND_WRITE, &connect->node, &context->waker);
        if (status == ROUSE_PENDING)
            return status;
        if (status != ROUSE_OK)
            break;
        int result = os_tcp_connect_result(call.slot->source.handle);
        enum call_outcome outcome = result == ROUSE_PENDING ? CALL_BLOCKED : CALL_PROGRESS;
        status = waker_map_end(&call, outcome, &connect->node, &context->waker);
        if (outcome == CALL_BLOCKED && status == ROUSE_PENDING)
            return status;
        if (status == ROUSE_OK)
            status = result; /* PENDING here: an event came in between, look again */
    }
    return finish(connect, status);
}

static int connect_cancel(rouse_op *op)
{
    struct connect_op *connect = (struct connect_op *)(void *)op;
    if (!connect->connecting)
        return ROUSE_OP_IDLE;
    waker_map_cancel((uintptr_t)connect->connecting, BACKEND_WRITE, &connect->node);
    finish(connect, ROUSE_CANCELLED);
    return ROUSE_OP_IDLE;
}

static const struct op_type connect_type = {"connect", connect_poll, connect_cancel, NULL};

static void init(rouse_op *op, rouse_stream **stream, const rouse_address *address, const char *site)
{
    if (stream)
        *stream = NULL;
    if (!op)
        return;
    *(struct connect_op *)(void *)op =
        (struct connect_op){.head = {&connect_type}, .stream = stream, .address = address, .site = site};
}

void rouse_connect_init(rouse_op *op, rouse_stream **stream, const rouse_address *address)
{
    init(op, stream, address, NULL);
}

int rouse_connect_at(rouse_stream **stream, const char *text, const char *site)
{
    rouse_op op;
    rouse_address address;
    if (!stream)
        return ROUSE_INVALID;
    *stream = NULL;
    int status = rouse_address_parse(&address, text);
    if (status != ROUSE_OK)
        return status;
    init(&op, stream, &address, site);
    return op_await_status(&op);
}

/* ---- what a connection can be asked ---- */

static int with_descriptor(rouse_stream *stream, int (*ask)(os_handle handle, rouse_address *address),
                           rouse_address *address)
{
    struct slot *slot;
    if (!address)
        return ROUSE_INVALID;
    int status = stream_enter(&slot, stream);
    if (status != ROUSE_OK)
        return status;
    status = slot->traits & SLOT_USER ? ROUSE_NOT_SUPPORTED : ask(slot->source.handle, address);
    stream_leave(slot);
    return status;
}

int rouse_local_address(rouse_stream *stream, rouse_address *address)
{
    return with_descriptor(stream, os_local_address, address);
}

int rouse_peer_address(rouse_stream *stream, rouse_address *address)
{
    return with_descriptor(stream, os_peer_address, address);
}

int rouse_option_set(rouse_stream *stream, int option, int value)
{
    struct slot *slot;
    int status = stream_enter(&slot, stream);
    if (status != ROUSE_OK)
        return status;
    status = slot->traits & SLOT_USER ? ROUSE_NOT_SUPPORTED : os_option_set(slot->source.handle, option, value);
    stream_leave(slot);
    return status;
}

int rouse_option_get(rouse_stream *stream, int option, int *value)
{
    struct slot *slot;
    if (!value)
        return ROUSE_INVALID;
    int status = stream_enter(&slot, stream);
    if (status != ROUSE_OK)
        return status;
    status = slot->traits & SLOT_USER ? ROUSE_NOT_SUPPORTED : os_option_get(slot->source.handle, option, value);
    stream_leave(slot);
    return status;
}
