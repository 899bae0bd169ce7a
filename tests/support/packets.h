/* Operations whose memory the kernel has until their packet comes (core/packet.h), tested the same way on each backend that
 * has such. The file that includes this says how the kernel begins one, is asked to end it, and what it has answered. */
#ifndef TEST_SUPPORT_PACKETS_H
#define TEST_SUPPORT_PACKETS_H

#include "core/op.h"
#include "core/packet.h"

#include "support/io.h"

enum { PACKET_BYTES = 64 };

/* What the kernel is to do, and where it has been begun. */
struct packet_job {
    struct reactor *reactor;
    bool answered; /* there is something to be read; else it may be in vain */
    bool begun;
    void *pipe;              /* what is read from, where the kernel wants to know */
    char data[PACKET_BYTES]; /* the kernel's while it is at work */
};

struct packet_op {
    struct op_head head;
    struct packet packet;
    struct packet_job *job;
};
_Static_assert(sizeof(struct packet_op) <= sizeof(rouse_op), "fits an operation");

static int kernel_start(struct packet_job *job, struct packet *packet);
static void kernel_cancel(struct packet_job *job, struct packet *packet);
static ptrdiff_t kernel_answer(struct packet_job *job, struct packet *packet); /* the count, or a status */

static ptrdiff_t packet_op_poll(rouse_op *op, rouse_context *context)
{
    struct packet_op *self = (struct packet_op *)(void *)op;
    struct packet_job *job = self->job;
    if (job->begun) {
        int status = packet_poll(&self->packet, &context->waker);
        return status == ROUSE_OK ? kernel_answer(job, &self->packet) : status;
    }
    job->reactor = local_current()->reactor;
    int status = packet_begin(&self->packet, job->reactor, &context->waker);
    if (status != ROUSE_OK) {
        return status;
    }
    status = kernel_start(job, &self->packet);
    if (status != ROUSE_OK) {
        packet_refused(&self->packet, job->reactor);
        return status;
    }
    job->begun = true;
    return ROUSE_PENDING;
}

static int packet_op_cancel(rouse_op *op)
{
    struct packet_op *self = (struct packet_op *)(void *)op;
    if (!self->job->begun || packet_state(&self->packet) == ROUSE_OP_IDLE) {
        return ROUSE_OP_IDLE;
    }
    kernel_cancel(self->job, &self->packet);
    return packet_state(&self->packet);
}

static const struct op_type packet_op_type = {"packet", packet_op_poll, packet_op_cancel, NULL};

static void packet_op_init(rouse_op *op, struct packet_job *job)
{
    *(struct packet_op *)(void *)op = (struct packet_op){.head = {&packet_op_type}, .job = job};
}

/* ---- the cases ---- */

static int await_result(void *unused)
{
    (void)unused;
    for (int i = 0; i < 8; i++) {
        rouse_op op;
        struct packet_job job = {.answered = true};
        packet_op_init(&op, &job);
        ptrdiff_t count = rouse_op_await(&op);
        require(count >= 1 && count <= PACKET_BYTES);
        for (int k = 0; k < PACKET_BYTES; k++) {
            require(job.data[k] == (k < count ? 'p' : 0));
        }
    }
    return ROUSE_OK;
}

/* Ends by a cancel or by its deadline, and finds that the kernel is done with its memory then. */
static int await_in_vain(void *unused)
{
    rouse_op op;
    struct packet_job job = {.answered = false};
    (void)unused;
    packet_op_init(&op, &job);
    ptrdiff_t answer = rouse_op_await(&op);
    require(answer == ROUSE_CANCELLED || answer == ROUSE_TIMED_OUT || answer >= 1);
    require_int(packet_state(&((struct packet_op *)(void *)&op)->packet), ==, ROUSE_OP_IDLE);
    return ROUSE_OK;
}

static int cancel_children(void *unused)
{
    (void)unused;
    for (int round = 0; round < 8; round++) {
        rouse_scope scope;
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        for (int i = 0; i < 4; i++) {
            require_int(rouse_go(await_in_vain, NULL), ==, ROUSE_OK);
        }
        require_int(rouse_yield(), ==, ROUSE_OK);
        require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
        require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

static int let_the_time_pass(void *unused)
{
    (void)unused;
    for (int round = 0; round < 8; round++) {
        rouse_deadline deadline = {{0}};
        require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_US(20))), ==, ROUSE_OK);
        await_in_vain(NULL);
        require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

/* A poll task that takes its operation back and polls on until the kernel has. */
struct taker {
    rouse_op op;
    struct packet_job job;
    bool cancelled;
};

static int take_back(void *state, void *result, rouse_context *context)
{
    struct taker *taker = state;
    (void)result;
    if (!taker->job.begun) {
        packet_op_init(&taker->op, &taker->job);
        require_int(rouse_op_poll(&taker->op, context), ==, ROUSE_PENDING);
        taker->cancelled = rouse_op_cancel(&taker->op) == ROUSE_OP_LATER;
        return taker->cancelled ? ROUSE_PENDING : ROUSE_OK;
    }
    ptrdiff_t answer = rouse_op_poll(&taker->op, context);
    if (answer == ROUSE_PENDING) {
        return ROUSE_PENDING;
    }
    require(answer == ROUSE_CANCELLED || answer >= 1);
    require_int(rouse_op_cancel(&taker->op), ==, ROUSE_OP_IDLE);
    return ROUSE_OK;
}

static const rouse_task_type taker_type = {.name = "taker", .poll = take_back, .state_size = sizeof(struct taker)};

static int take_back_by_hand(void *unused)
{
    rouse_task task;
    struct taker taker = {.job = {.answered = false}};
    (void)unused;
    require_int(rouse_spawn(&task, &taker_type, &taker), ==, ROUSE_OK);
    return rouse_join(&task, NULL);
}

/* A poll task that is dropped while the kernel has its memory. */
struct lender {
    rouse_op op;
    struct packet_job job;
};

static int lend(void *state, void *result, rouse_context *context)
{
    struct lender *lender = state;
    (void)result;
    if (!lender->job.begun) {
        packet_op_init(&lender->op, &lender->job);
    }
    ptrdiff_t answer = rouse_op_poll(&lender->op, context);
    return answer > 0 ? ROUSE_OK : (int)answer;
}

static void drop_lender(void *state)
{
    struct lender *lender = state;
    rouse_op_cancel(&lender->op);
}

static const rouse_task_type lender_type = {
    .name = "lender", .poll = lend, .drop = drop_lender, .state_size = sizeof(struct lender)};

/* A task of the same size, which finds out whether somebody writes into its memory. */
static int stay_clean(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    for (size_t i = 0; i < sizeof(struct lender); i++) {
        require(((const char *)state)[i] == 0);
    }
    return ROUSE_PENDING;
}

static const rouse_task_type clean_type = {.name = "clean", .poll = stay_clean, .state_size = sizeof(struct lender)};

static int drop_while_lent(void *unused)
{
    enum { COUNT = 32 };
    rouse_task lenders[COUNT], clean[COUNT];
    static const struct lender nothing;
    (void)unused;
    for (int i = 0; i < COUNT; i++) {
        struct lender lender = {.job = {.answered = false}};
        require_int(rouse_spawn(&lenders[i], &lender_type, &lender), ==, ROUSE_OK);
    }
    require_int(rouse_yield(), ==, ROUSE_OK);
    for (int i = 0; i < COUNT; i++) {
        rouse_abort(&lenders[i]);
        int status = rouse_join(&lenders[i], NULL);
        require(status == ROUSE_CANCELLED || status == ROUSE_OK);
        require_int(rouse_spawn(&clean[i], &clean_type, &nothing), ==, ROUSE_OK);
    }
    require_int(rouse_sleep(ROUSE_MS(5)), ==, ROUSE_OK); /* events come, and the kernel writes */
    for (int i = 0; i < COUNT; i++) {
        rouse_abort(&clean[i]);
        require_int(rouse_join(&clean[i], NULL), ==, ROUSE_CANCELLED);
    }
    return ROUSE_OK;
}

/* The runtime ends while the kernel has memory of its tasks. */
static int leave_lent(void *unused)
{
    rouse_task task;
    (void)unused;
    for (int i = 0; i < 8; i++) {
        struct lender lender = {.job = {.answered = false}};
        require_int(rouse_spawn(&task, &lender_type, &lender), ==, ROUSE_OK);
        rouse_detach(&task);
    }
    return rouse_yield();
}

#endif
