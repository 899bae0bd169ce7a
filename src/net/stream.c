/* Reading and writing streams: one operation struct, one loop, for every kind of call. */
#include "core/op.h"
#include "core/waker_map.h"
#include "net/stream.h"
#include <limits.h>

struct io_op {
    struct op_head head;
    uintptr_t handle;      /* of the stream */
    void *data;            /* the buffer, or the array of pieces */
    size_t length;         /* bytes, or pieces */
    size_t *done;          /* where all-or-nothing calls report their count; may be NULL */
    size_t moved;          /* bytes so far, of those calls */
    struct wait_node node; /* while it waits */
};
_Static_assert(sizeof(struct io_op) <= sizeof(rouse_op), "fits an operation");

#define PIECES_MAX 1024

/* One attempt at moving bytes: the system call, or the user's function. */
typedef ptrdiff_t attempt_function(const struct io_op *io, const struct slot *slot, rouse_context *context);

static bool is_user(const struct slot *slot)
{
    return (slot->traits & SLOT_USER) != 0;
}

/* What a user's function answers: at most what it was asked for, or a status. Anything else would be taken for bytes that
 * were never moved. */
static ptrdiff_t checked(ptrdiff_t answer, size_t length)
{
    bool possible = answer < 0 ? answer >= ROUSE_PENDING : (size_t)answer <= length; /* no status is lower */
    return possible ? answer : ROUSE_INVALID;
}

static ptrdiff_t attempt_read(const struct io_op *io, const struct slot *slot, rouse_context *context)
{
    char *data = (char *)io->data + io->moved;
    size_t length = io->length - io->moved;
    if (is_user(slot))
        return checked(slot->u.user->poll_read(slot->source.record, data, length, context), length);
    return os_read(slot->source.handle, (enum os_kind)slot->kind, data, length);
}

static ptrdiff_t attempt_write(const struct io_op *io, const struct slot *slot, rouse_context *context)
{
    const char *data = (const char *)io->data + io->moved;
    size_t length = io->length - io->moved;
    if (is_user(slot))
        return checked(slot->u.user->poll_write(slot->source.record, data, length, context), length);
    return os_write(slot->source.handle, (enum os_kind)slot->kind, data, length);
}

static ptrdiff_t attempt_peek(const struct io_op *io, const struct slot *slot, rouse_context *context)
{
    (void)context;
    if (is_user(slot))
        return ROUSE_NOT_SUPPORTED;
    return os_peek(slot->source.handle, (enum os_kind)slot->kind, io->data, io->length);
}

/* A user's stream knows single buffers only: the first piece that is not empty. */
static const rouse_buffer *first_piece(const struct io_op *io)
{
    const rouse_buffer *piece = io->data;
    for (size_t left = io->length; left > 1 && piece->length == 0; left--)
        piece++;
    return piece;
}

static ptrdiff_t attempt_readv(const struct io_op *io, const struct slot *slot, rouse_context *context)
{
    const rouse_buffer *piece = first_piece(io);
    if (is_user(slot))
        return checked(slot->u.user->poll_read(slot->source.record, piece->data, piece->length, context),
                       piece->length);
    return os_readv(slot->source.handle, (enum os_kind)slot->kind, io->data, io->length);
}

static ptrdiff_t attempt_writev(const struct io_op *io, const struct slot *slot, rouse_context *context)
{
    const rouse_buffer *piece = first_piece(io);
    if (is_user(slot))
        return checked(slot->u.user->poll_write(slot->source.record, piece->data, piece->length, context),
                       piece->length);
    return os_writev(slot->source.handle, (enum os_kind)slot->kind, io->data, io->length);
}

/* Does a count below what was asked for prove that the kernel has no more? Only for a plain read or write of a TCP stream,
 * and not for the end: reading 0 stays possible for ever. */
static bool proves_drained(const struct slot *slot, ptrdiff_t count, size_t wanted)
{
    return slot->kind == OS_KIND_STREAM_SOCKET && !is_user(slot) && count > 0 && (size_t)count < wanted;
}

/* Attempts until something moved, failed, or the operation waits. `wanted` 0: short counts say nothing. */
static ptrdiff_t move_some(struct io_op *io, unsigned channel, attempt_function *attempt, size_t wanted,
                           rouse_context *context)
{
    struct slot_call call;
    ptrdiff_t count;
    int status;
    for (;;) {
        status = waker_map_begin(&call, io->handle, channel, &io->node, &context->waker);
        if (status != ROUSE_OK)
            return status;
        count = call.slot->traits & SLOT_LISTENER ? ROUSE_INVALID : attempt(io, call.slot, context);
        bool user = is_user(call.slot); /* keeps the waker itself */
        enum call_outcome outcome = count == ROUSE_PENDING && !user            ? CALL_BLOCKED
                                    : proves_drained(call.slot, count, wanted) ? CALL_DRAINED
                                                                               : CALL_PROGRESS;
        status = waker_map_end(&call, outcome, &io->node, &context->waker);
        if (outcome != CALL_BLOCKED)
            return count;
        if (status != ROUSE_OK)
            return status;
    }
}

/* ---- read and write once ---- */

static ptrdiff_t read_poll(rouse_op *op, rouse_context *context)
{
    struct io_op *io = (struct io_op *)(void *)op;
    return move_some(io, BACKEND_READ, attempt_read, io->length, context);
}

static ptrdiff_t write_poll(rouse_op *op, rouse_context *context)
{
    struct io_op *io = (struct io_op *)(void *)op;
    return move_some(io, BACKEND_WRITE, attempt_write, io->length, context);
}

static ptrdiff_t peek_poll(rouse_op *op, rouse_context *context)
{
    return move_some((struct io_op *)(void *)op, BACKEND_READ, attempt_peek, 0, context);
}

static ptrdiff_t readv_poll(rouse_op *op, rouse_context *context)
{
    return move_some((struct io_op *)(void *)op, BACKEND_READ, attempt_readv, 0, context);
}

static ptrdiff_t writev_poll(rouse_op *op, rouse_context *context)
{
    return move_some((struct io_op *)(void *)op, BACKEND_WRITE, attempt_writev, 0, context);
}

/* ---- all or nothing ---- */

static ptrdiff_t report_done(const struct io_op *io, ptrdiff_t status)
{
    if (io->done)
        *io->done = io->moved;
    return status;
}

static ptrdiff_t move_all(struct io_op *io, unsigned channel, attempt_function *attempt, int at_end,
                          rouse_context *context)
{
    struct surroundings *around = surroundings_of(context);
    while (io->moved < io->length) {
        ptrdiff_t count = move_some(io, channel, attempt, io->length - io->moved, context);
        if (count == ROUSE_PENDING)
            return count;
        if (count < 0)
            return report_done(io, count);
        if (count == 0)
            return report_done(io, at_end);
        io->moved += (size_t)count;
        /* Each piece is an operation's worth: a peer that is always ready must not hold the worker. */
        if (around && io->moved < io->length) {
            surroundings_spend(around);
            if (around->budget == 0)
                return surroundings_yield(around, &context->waker);
        }
    }
    return report_done(io, ROUSE_OK);
}

static ptrdiff_t read_exact_poll(rouse_op *op, rouse_context *context)
{
    return move_all((struct io_op *)(void *)op, BACKEND_READ, attempt_read, ROUSE_END_OF_STREAM, context);
}

static ptrdiff_t write_all_poll(rouse_op *op, rouse_context *context)
{
    return move_all((struct io_op *)(void *)op, BACKEND_WRITE, attempt_write, ROUSE_BROKEN_PIPE, context);
}

static ptrdiff_t all_stopped(rouse_op *op, int status)
{
    return report_done((struct io_op *)(void *)op, status);
}

/* ---- the rest of an operation ---- */

static int read_cancel(rouse_op *op)
{
    struct io_op *io = (struct io_op *)(void *)op;
    waker_map_cancel(io->handle, BACKEND_READ, &io->node);
    report_done(io, ROUSE_CANCELLED);
    return ROUSE_OP_IDLE;
}

static int write_cancel(rouse_op *op)
{
    struct io_op *io = (struct io_op *)(void *)op;
    waker_map_cancel(io->handle, BACKEND_WRITE, &io->node);
    report_done(io, ROUSE_CANCELLED);
    return ROUSE_OP_IDLE;
}

/* An operation whose arguments were wrong: the poll says so. The status is kept in `length`. */
static ptrdiff_t wrong_poll(rouse_op *op, rouse_context *context)
{
    struct io_op *io = (struct io_op *)(void *)op;
    (void)context;
    return report_done(io, (ptrdiff_t)io->length);
}

static int wrong_cancel(rouse_op *op)
{
    (void)op;
    return ROUSE_OP_IDLE;
}

static const struct op_type read_type = {"read", read_poll, read_cancel, NULL};
static const struct op_type write_type = {"write", write_poll, write_cancel, NULL};
static const struct op_type peek_type = {"peek", peek_poll, read_cancel, NULL};
static const struct op_type readv_type = {"readv", readv_poll, read_cancel, NULL};
static const struct op_type writev_type = {"writev", writev_poll, write_cancel, NULL};
static const struct op_type read_exact_type = {"read_exact", read_exact_poll, read_cancel, all_stopped};
static const struct op_type write_all_type = {"write_all", write_all_poll, write_cancel, all_stopped};
static const struct op_type wrong_type = {"wrong", wrong_poll, wrong_cancel, NULL};

static void init(rouse_op *op, const struct op_type *type, rouse_stream *stream, void *data, size_t length,
                 size_t *done)
{
    struct io_op *io = (struct io_op *)(void *)op;
    int wrong = length > PTRDIFF_MAX ? ROUSE_TOO_LARGE : !data && length ? ROUSE_INVALID : ROUSE_OK;
    if (done)
        *done = 0;
    if (!op)
        return;
    if (wrong != ROUSE_OK) {
        type = &wrong_type;
        length = (size_t)(ptrdiff_t)wrong;
    } else if (length == 0) {
        type = &wrong_type; /* nothing to move: answers 0 without looking at the stream */
    }
    *io = (struct io_op){{type}, (uintptr_t)stream, data, length, done, 0, {{NULL, NULL}, {NULL, NULL}}};
}

static void init_pieces(rouse_op *op, const struct op_type *type, rouse_stream *stream, const rouse_buffer *pieces,
                        size_t count)
{
    size_t total = 0;
    int wrong = count > PIECES_MAX || (count && !pieces) ? ROUSE_INVALID : ROUSE_OK;
    for (size_t i = 0; wrong == ROUSE_OK && i < count; i++) {
        if (!pieces[i].data && pieces[i].length)
            wrong = ROUSE_INVALID;
        else if (pieces[i].length > PTRDIFF_MAX - total)
            wrong = ROUSE_TOO_LARGE;
        else
            total += pieces[i].length;
    }
    init(op, type, stream, (void *)(uintptr_t)pieces, total == 0 ? 0 : count, NULL);
    if (op && wrong != ROUSE_OK) {
        op_set_type(op, &wrong_type);
        ((struct io_op *)(void *)op)->length = (size_t)(ptrdiff_t)wrong;
    }
}

void rouse_read_init(rouse_op *op, rouse_stream *stream, void *data, size_t length)
{
    init(op, &read_type, stream, data, length, NULL);
}

void rouse_write_init(rouse_op *op, rouse_stream *stream, const void *data, size_t length)
{
    init(op, &write_type, stream, (void *)(uintptr_t)data, length, NULL);
}

void rouse_peek_init(rouse_op *op, rouse_stream *stream, void *data, size_t length)
{
    init(op, &peek_type, stream, data, length, NULL);
}

void rouse_write_all_init(rouse_op *op, rouse_stream *stream, const void *data, size_t length, size_t *done)
{
    init(op, &write_all_type, stream, (void *)(uintptr_t)data, length, done);
}

void rouse_read_exact_init(rouse_op *op, rouse_stream *stream, void *data, size_t length, size_t *done)
{
    init(op, &read_exact_type, stream, data, length, done);
}

void rouse_readv_init(rouse_op *op, rouse_stream *stream, const rouse_buffer *pieces, size_t count)
{
    init_pieces(op, &readv_type, stream, pieces, count);
}

void rouse_writev_init(rouse_op *op, rouse_stream *stream, const rouse_buffer *pieces, size_t count)
{
    init_pieces(op, &writev_type, stream, pieces, count);
}

/* ---- the everyday calls ---- */

ptrdiff_t rouse_read(rouse_stream *stream, void *data, size_t length)
{
    rouse_op op;
    rouse_read_init(&op, stream, data, length);
    return rouse_op_await(&op);
}

ptrdiff_t rouse_write(rouse_stream *stream, const void *data, size_t length)
{
    rouse_op op;
    rouse_write_init(&op, stream, data, length);
    return rouse_op_await(&op);
}

ptrdiff_t rouse_peek(rouse_stream *stream, void *data, size_t length)
{
    rouse_op op;
    rouse_peek_init(&op, stream, data, length);
    return rouse_op_await(&op);
}

ptrdiff_t rouse_readv(rouse_stream *stream, const rouse_buffer *pieces, size_t count)
{
    rouse_op op;
    rouse_readv_init(&op, stream, pieces, count);
    return rouse_op_await(&op);
}

ptrdiff_t rouse_writev(rouse_stream *stream, const rouse_buffer *pieces, size_t count)
{
    rouse_op op;
    rouse_writev_init(&op, stream, pieces, count);
    return rouse_op_await(&op);
}

int rouse_write_all(rouse_stream *stream, const void *data, size_t length, size_t *done)
{
    rouse_op op;
    rouse_write_all_init(&op, stream, data, length, done);
    return op_await_status(&op);
}

int rouse_read_exact(rouse_stream *stream, void *data, size_t length, size_t *done)
{
    rouse_op op;
    rouse_read_exact_init(&op, stream, data, length, done);
    return op_await_status(&op);
}

/* ---- everything else about a stream ---- */

int rouse_close(rouse_stream *stream)
{
    return waker_map_close((uintptr_t)stream, NULL);
}

int rouse_release(rouse_stream *stream, intptr_t *descriptor)
{
    return descriptor ? waker_map_close((uintptr_t)stream, descriptor) : ROUSE_INVALID;
}

/* Calls that never wait use the descriptor between begin and end too, so that a close cannot take it away meanwhile. */
int stream_enter(struct slot **slot, rouse_stream *stream)
{
    *slot = registry_acquire((uintptr_t)stream);
    if (!*slot)
        return ROUSE_CLOSED;
    if ((*slot)->flags & SLOT_DOOMED) {
        lock_release(&(*slot)->lock);
        return ROUSE_CLOSED;
    }
    (*slot)->users++;
    lock_release(&(*slot)->lock);
    return ROUSE_OK;
}

void stream_leave(struct slot *slot)
{
    struct wait_node none = {{NULL, NULL}, {NULL, NULL}};
    rouse_waker nobody = {NULL, NULL};
    struct slot_call call = {slot, &slot->read, 0};
    waker_map_end(&call, CALL_PROGRESS, &none, &nobody);
}

int rouse_shutdown(rouse_stream *stream, int side)
{
    struct slot *slot;
    if (side < ROUSE_SHUTDOWN_READ || side > ROUSE_SHUTDOWN_BOTH)
        return ROUSE_INVALID;
    int status = stream_enter(&slot, stream);
    if (status != ROUSE_OK)
        return status;
    if (!is_user(slot))
        status = os_tcp_shutdown(slot->source.handle, side);
    else
        status = slot->u.user->shutdown ? slot->u.user->shutdown(slot->source.record, side) : ROUSE_NOT_SUPPORTED;
    stream_leave(slot);
    return status;
}

int rouse_descriptor(rouse_stream *stream, intptr_t *descriptor)
{
    if (!descriptor)
        return ROUSE_INVALID;
    struct slot *slot = registry_acquire((uintptr_t)stream);
    if (!slot)
        return ROUSE_CLOSED;
    int status = is_user(slot) ? ROUSE_NOT_SUPPORTED : ROUSE_OK;
    if (status == ROUSE_OK) {
        slot->flags |= SLOT_SHARED; /* whoever has it may duplicate it */
        *descriptor = slot->source.handle;
    }
    lock_release(&slot->lock);
    return status;
}

rouse_stream *stream_open(struct slot *slot, os_handle handle, enum os_kind kind, unsigned traits, unsigned flags,
                          const char *site)
{
    slot_lock(slot); /* old handles and walks of the registry look at it */
    slot->source.handle = handle;
    slot->kind = (uint8_t)kind;
    slot->traits = (uint8_t)traits;
    slot->flags |= (uint8_t)flags;
    slot->write.ready = !(flags & SLOT_CONNECTING);
    slot->site = site;
    lock_release(&slot->lock);
    return (rouse_stream *)registry_publish(slot);
}

int stream_make(rouse_stream **stream, os_handle handle, enum os_kind kind, unsigned traits, unsigned flags,
                const char *site)
{
    struct slot *slot = registry_take();
    if (!slot)
        return ROUSE_NO_MEMORY;
    *stream = stream_open(slot, handle, kind, traits, flags, site);
    return ROUSE_OK;
}

int rouse_stream_new_at(rouse_stream **stream, const rouse_stream_type *type, void *object, const char *site)
{
    if (!stream)
        return ROUSE_INVALID;
    *stream = NULL;
    if (!type || !type->poll_read || !type->poll_write)
        return ROUSE_INVALID;
    struct slot *slot = registry_take();
    if (!slot)
        return ROUSE_NO_MEMORY;
    slot_lock(slot);
    slot->u.user = type;
    slot->source.record = object;
    slot->traits = SLOT_USER;
    slot->site = site;
    lock_release(&slot->lock);
    *stream = (rouse_stream *)registry_publish(slot);
    return ROUSE_OK;
}

int rouse_adopt_at(rouse_stream **stream, intptr_t descriptor, const char *site)
{
    enum os_kind kind;
    bool before;
    if (!stream)
        return ROUSE_INVALID;
    *stream = NULL;
    int status = os_handle_kind(descriptor, &kind);
    if (status != ROUSE_OK)
        return status;
    status = os_set_nonblocking(descriptor, true, &before);
    if (status != ROUSE_OK)
        return status;
    status = stream_make(stream, descriptor, kind, 0, SLOT_SHARED, site);
    if (status != ROUSE_OK)
        os_set_nonblocking(descriptor, before, &before);
    return status;
}

/* ---- readiness of adopted descriptors ---- */

static ptrdiff_t attempt_ready(const struct io_op *io, const struct slot *slot, rouse_context *context)
{
    (void)context;
    if (is_user(slot))
        return ROUSE_NOT_SUPPORTED;
    int ready = os_is_ready(slot->source.handle, (int)io->length);
    return ready == 0 ? ROUSE_PENDING : ready > 0 ? ROUSE_OK : ready;
}

static unsigned ready_channel(const struct io_op *io)
{
    return io->length == ROUSE_READABLE ? BACKEND_READ : BACKEND_WRITE;
}

static ptrdiff_t ready_poll(rouse_op *op, rouse_context *context)
{
    struct io_op *io = (struct io_op *)(void *)op;
    ptrdiff_t status;
    /* The kernel is asked for its present state even if no event came since the last answer: what was ready then may have
     * been used up by the caller's own calls, or may not. */
    struct slot *slot = registry_acquire(io->handle);
    if (!slot)
        return ROUSE_CLOSED;
    struct channel *channel = ready_channel(io) == BACKEND_READ ? &slot->read : &slot->write;
    if (!wait_is_waiting(&io->node))
        channel->ready = true;
    lock_release(&slot->lock);
    status = move_some(io, ready_channel(io), attempt_ready, 0, context);
    return status;
}

static int ready_cancel(rouse_op *op)
{
    struct io_op *io = (struct io_op *)(void *)op;
    waker_map_cancel(io->handle, ready_channel(io), &io->node);
    return ROUSE_OP_IDLE;
}

static const struct op_type ready_type = {"wait_ready", ready_poll, ready_cancel, NULL};

void rouse_wait_ready_init(rouse_op *op, rouse_stream *stream, int direction)
{
    bool known = direction == ROUSE_READABLE || direction == ROUSE_WRITABLE;
    size_t length = known ? (size_t)direction : (size_t)(ptrdiff_t)ROUSE_INVALID;
    if (!op)
        return;
    *(struct io_op *)(void *)op =
        (struct io_op){.head = {known ? &ready_type : &wrong_type}, .handle = (uintptr_t)stream, .length = length};
}

int rouse_wait_ready(rouse_stream *stream, int direction)
{
    rouse_op op;
    rouse_wait_ready_init(&op, stream, direction);
    return op_await_status(&op);
}
