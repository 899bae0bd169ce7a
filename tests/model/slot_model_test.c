/* Slots: no readiness is lost, whoever reads, skips a read or gives up; an event never reaches the next owner of a slot;
 * a descriptor is closed once and under nobody's feet; closing wakes all who wait; a waiter's frame is left alone once
 * it was woken. */
#include "model_lock.h"

#include "model_task.h"

#include "core/registry.c"
#include "core/wait.c"
#include "core/waker.c"
#include "core/waker_map.c"

#include "support/harness.h"

enum { DESCRIPTORS = 2, CHANNELS = 3 /* by enum backend_channel */ };

/* What the kernel knows of a descriptor. */
static struct descriptor {
    struct lock lock;         /* a system call is one step */
    unsigned items[CHANNELS]; /* that can be read; room for writing */
    unsigned events;          /* channels to be reported */
    unsigned armed;           /* channels, when events come once */
    bool attached;
    uint64_t token; /* as given to attach */
    bool closed;
    atomic_u32 bell; /* 1: an event was caused by somebody else than the kernel's thread; what that sleeps on */
} descriptors[DESCRIPTORS];

static bool one_shot; /* events come once and only if armed, as level triggered; else as edges */
static struct reactor reactor;
static struct slot *first;
static uintptr_t handle;
static unsigned arrivals[CHANNELS];   /* that the kernel's thread brings */
static unsigned wanted_items;         /* of each reader */
static unsigned taken[MODEL_THREADS]; /* items, by reader */
static unsigned done[MODEL_THREADS];  /* 1: that thread has ended */
static unsigned at_once;              /* items in one arrival */
static bool takes_all;                /* what there is, and knows from the short count that it is all */
static bool knows_the_last;           /* takes one, and knows if that was all */
static unsigned workers;              /* threads that must end, the first ones */

/* ---- what stands below ---- */

void slab_give(struct slab_cell *slot, bool large)
{
    (void)slot, (void)large;
}

int local_reactor(struct reactor **local)
{
    *local = &reactor;
    return ROUSE_OK;
}

uint32_t os_forks(void)
{
    return 0;
}

uint32_t os_process(void)
{
    return 0;
}

void os_at_fork(unsigned order, const struct os_fork_hook *hook)
{
    (void)order, (void)hook;
}

int os_at_exit(void (*hook)(void))
{
    (void)hook;
    return ROUSE_OK;
}

/* A race with a read of the descriptor is reported. */
int os_close(os_handle number)
{
    model_check(!descriptors[number].closed);
    MODEL_WRITE(descriptors[number].closed, true);
    return ROUSE_OK;
}

void exhaustion_close(os_handle number)
{
    os_close(number);
}

/* Which of these channels are ready. */
static unsigned ready_of(const struct descriptor *descriptor, unsigned channels)
{
    unsigned ready = 0;
    for (unsigned channel = BACKEND_READ; channel < CHANNELS; channel++)
        if (channels & channel && descriptor->items[channel])
            ready |= channel;
    return ready;
}

/* Somebody's call makes events. */
static void cause_events(struct descriptor *descriptor, unsigned channels)
{
    descriptor->events |= channels;
    if (!channels)
        return;
    atomic_u32_store(&descriptor->bell, 1, RELAXED);
    os_wake_one(&descriptor->bell.value);
}

int backend_attach(struct backend *backend, struct backend_source *source, uint64_t token)
{
    struct descriptor *descriptor = &descriptors[source->handle];
    (void)backend;
    lock_acquire(&descriptor->lock);
    descriptor->token = token;
    descriptor->attached = true;
    if (!one_shot)
        cause_events(descriptor, ready_of(descriptor, BACKEND_READ | BACKEND_WRITE));
    lock_release(&descriptor->lock);
    return ROUSE_OK;
}

int backend_arm(struct backend *backend, struct backend_source *source, unsigned channels)
{
    struct descriptor *descriptor = &descriptors[source->handle];
    (void)backend;
    if (!one_shot)
        return ROUSE_OK;
    lock_acquire(&descriptor->lock);
    unsigned ready = ready_of(descriptor, channels);
    descriptor->armed = ready ? 0 : channels;
    cause_events(descriptor, ready);
    lock_release(&descriptor->lock);
    return ROUSE_OK;
}

int backend_detach(struct backend *backend, struct backend_source *source, bool closing)
{
    struct descriptor *descriptor = &descriptors[source->handle];
    (void)backend, (void)closing;
    lock_acquire(&descriptor->lock);
    descriptor->attached = false;
    descriptor->armed = descriptor->events = 0;
    lock_release(&descriptor->lock);
    return BACKEND_DONE;
}

/* ---- the kernel's thread, which is the reactor's too ---- */

/* Takes what is to be reported; before that items arrive in one channel, or in none. */
static void deliver(struct descriptor *descriptor, unsigned arriving)
{
    lock_acquire(&descriptor->lock);
    descriptor->items[arriving] += arriving ? at_once : 0;
    if (descriptor->attached && (!one_shot || descriptor->armed & arriving)) {
        descriptor->events |= arriving;
        descriptor->armed = 0;
    }
    unsigned events = descriptor->events;
    uint64_t token = descriptor->token;
    descriptor->events = 0;
    lock_release(&descriptor->lock);
    if (events)
        waker_map_dispatch(&reactor, token, events);
}

static void bring_and_deliver(void)
{
    struct descriptor *descriptor = &descriptors[0];
    for (unsigned channel = BACKEND_READ; channel < CHANNELS; channel++)
        for (unsigned i = 0; i < arrivals[channel]; i++)
            deliver(descriptor, channel);
    for (;;) {
        while (atomic_u32_exchange(&descriptor->bell, 0, RELAXED) == 0)
            os_wait_on(&descriptor->bell.value, 0, ROUSE_NEVER);
        deliver(descriptor, 0);
    }
}

/* Everybody but that thread has ended. */
static bool only_the_kernel_waits(void)
{
    for (unsigned i = 0; i < workers; i++)
        if (!done[i])
            return false;
    return true;
}

/* ---- readers ---- */

/* The system call. */
static enum call_outcome take_some(struct slot_call *call, unsigned channel)
{
    os_handle number = call->slot->source.handle;
    struct descriptor *descriptor = &descriptors[number];
    unsigned *items = &descriptor->items[channel], got;
    model_check(number == 0 && !MODEL_READ(descriptor->closed));
    lock_acquire(&descriptor->lock);
    got = takes_all ? *items : *items > 0;
    *items -= got;
    bool was_all = takes_all || (knows_the_last && *items == 0);
    lock_release(&descriptor->lock);
    taken[model_self()] += got;
    return !got ? CALL_BLOCKED : was_all ? CALL_DRAINED : CALL_PROGRESS;
}

/* One attempt, as the operations of streams make it. */
static int attempt(unsigned channel, struct wait_node *node)
{
    rouse_waker waker = signal_waker(model_self());
    struct slot_call call;
    int status = waker_map_begin(&call, handle, channel, node, &waker);
    return status == ROUSE_OK ? waker_map_end(&call, take_some(&call, channel), node, &waker) : status;
}

/* The waiter's frame: freed by it as soon as the operation is over. */
static struct wait_node *new_node(void)
{
    struct wait_node *node = model_alloc(sizeof *node);
    *node = (struct wait_node){.waker = {NULL, NULL}};
    return node;
}

/* Until it has what it wants, or the slot is closed. */
static int take_from(unsigned channel)
{
    struct wait_node *node = new_node();
    int status = ROUSE_OK;
    while (status != ROUSE_CLOSED && taken[model_self()] < wanted_items)
        if ((status = attempt(channel, node)) == ROUSE_PENDING)
            signal_wait(model_self());
    model_check(!wait_is_waiting(node));
    model_free(node);
    done[model_self()] = 1;
    return status;
}

static void reader(void)
{
    model_check(take_from(BACKEND_READ) == ROUSE_OK);
}

static void writer(void)
{
    model_check(take_from(BACKEND_WRITE) == ROUSE_OK);
}

static void reader_until_closed(void)
{
    model_check(take_from(BACKEND_READ) == ROUSE_CLOSED);
}

static struct wait_node idle_node;

/* Waits for what never comes. */
static void idle_writer(void)
{
    model_check(attempt(BACKEND_WRITE, &idle_node) == ROUSE_PENDING);
    done[model_self()] = 1;
}

/* Waits, if there is something to wait for, and gives up at any time. */
static void canceller(void)
{
    struct wait_node *node = new_node();
    rouse_waker waker = signal_waker(model_self());
    struct slot_call call;
    int status = waker_map_begin(&call, handle, BACKEND_READ, node, &waker);
    if (status == ROUSE_OK)
        waker_map_end(&call, CALL_PROGRESS, node, &waker); /* failed before it read anything */
    else
        waker_map_cancel(handle, BACKEND_READ, node);
    model_free(node);
    done[model_self()] = 1;
}

static void closer(void)
{
    model_check(waker_map_close(handle, NULL) == ROUSE_OK);
    done[model_self()] = 1;
}

/* ---- setup ---- */

static struct slot chunk[CHUNK_SLOTS];

static uintptr_t open_slot(os_handle number, struct slot **made)
{
    struct slot *slot = registry_take();
    slot->source.handle = number;
    *made = slot;
    return registry_publish(slot);
}

static void setup(void)
{
    model_task_setup();
    memset(descriptors, 0, sizeof descriptors);
    memset(taken, 0, sizeof taken);
    idle_node = (struct wait_node){.waker = {NULL, NULL}};
    memset(done, 0, sizeof done);
    registry.lock = (struct lock){{0}};
    atomic_ptr_init(&registry.chunks[0], chunk);
    atomic_u32_init(&registry.count, 1);
    registry.free = NULL;
    chunk[0] = (struct slot){.handle = (uintptr_t)1 << INDEX_BITS, .flags = SLOT_CLOSING};
    put_last(&chunk[0]); /* the only one, so that it is used again at once */
    registry.taken = 0;
    handle = open_slot(0, &first);
}

/* Attached already, and known to be drained. */
static void setup_attached(void)
{
    setup();
    first->reactor = &reactor;
    first->read.ready = first->write.ready = false;
    descriptors[0].token = handle;
    descriptors[0].attached = true;
}

static void check_all_taken(void)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < workers; i++)
        sum += taken[i];
    for (unsigned channel = 0; channel < CHANNELS; channel++)
        sum += descriptors[0].items[channel];
    model_check(sum == (arrivals[BACKEND_READ] + arrivals[BACKEND_WRITE]) * at_once);
    signals_check();
}

static void check_idle_writer(void)
{
    model_check(wait_is_waiting(&idle_node));
    rouse_waker waker = wait_remove(&idle_node);
    rouse_waker_drop(&waker);
    check_all_taken();
}

/* With edges, and with events that come once. */
static void run(struct model *model, unsigned worker_count)
{
    workers = worker_count;
    for (int i = 0; i < 2; i++) {
        one_shot = i;
        assert_true(model_run(model).ok);
    }
}

static void bring(unsigned to_read, unsigned to_write, unsigned of_each)
{
    arrivals[BACKEND_READ] = to_read;
    arrivals[BACKEND_WRITE] = to_write;
    wanted_items = of_each;
    at_once = 1;
    takes_all = knows_the_last = false;
}

/* ---- readiness ---- */

TEST(what_arrives_is_read_whenever_it_arrives)
{
    struct model model = {.name = "slot reader",
                          .setup = setup,
                          .threads = {reader, bring_and_deliver},
                          .finish = check_all_taken,
                          .quiet = only_the_kernel_waits};
    bring(2, 0, 2);
    run(&model, 1);
    model.setup = setup_attached;
    model.name = "slot reader, attached";
    run(&model, 1);
}

TEST(what_arrives_while_all_is_taken_is_read_too)
{
    struct model model = {.name = "slot drained",
                          .setup = setup,
                          .threads = {reader, bring_and_deliver},
                          .finish = check_all_taken,
                          .quiet = only_the_kernel_waits};
    bring(3, 0, 3);
    takes_all = true;
    run(&model, 1);
    model.setup = setup_attached;
    model.name = "slot drained, attached";
    run(&model, 1);
}

TEST(of_two_readers_the_one_that_takes_something_hands_on)
{
    struct model model = {.name = "slot readers",
                          .setup = setup_attached,
                          .threads = {reader, reader, bring_and_deliver},
                          .finish = check_all_taken,
                          .preemption_bound = (unsigned)test_scale(2, 0), /* all of them: minutes */
                          .quiet = only_the_kernel_waits};
    bring(2, 0, 1);
    run(&model, 2);
    bring(1, 0, 1);
    at_once = 2;
    run(&model, 2);
    model.name = "slot readers, drained";
    bring(2, 0, 1);
    knows_the_last = true;
    run(&model, 2);
}

TEST(who_gives_up_after_it_was_woken_hands_on)
{
    struct model model = {.name = "slot cancel",
                          .setup = setup_attached,
                          .threads = {reader, canceller, bring_and_deliver},
                          .finish = check_all_taken,
                          .preemption_bound = (unsigned)test_scale(2, 0), /* all of them: minutes */
                          .quiet = only_the_kernel_waits};
    bring(1, 0, 1);
    run(&model, 2);
    if (test_scale(1, 2) > 1) {
        model.name = "slot cancel, two readers";
        model.preemption_bound = 2;
        model.threads[2] = reader;
        model.threads[3] = bring_and_deliver;
        bring(2, 0, 1);
        run(&model, 3);
    }
}

TEST(an_event_for_one_direction_leaves_the_other_armed)
{
    struct model model = {.name = "slot directions",
                          .setup = setup_attached,
                          .threads = {reader, writer, bring_and_deliver},
                          .finish = check_all_taken,
                          .preemption_bound = (unsigned)test_scale(2, 0), /* all of them: minutes */
                          .quiet = only_the_kernel_waits};
    bring(1, 1, 1);
    run(&model, 2);
    model.name = "slot directions, one idle";
    model.threads[1] = idle_writer;
    model.finish = check_idle_writer;
    bring(1, 0, 1);
    run(&model, 2);
}

/* ---- closing ---- */

static void check_closed(void)
{
    model_check(descriptors[0].closed && registry.taken == 0);
    signals_check();
}

TEST(a_close_wakes_those_who_wait_and_waits_for_those_inside)
{
    struct model model = {.name = "slot close",
                          .setup = setup,
                          .threads = {reader_until_closed, closer, bring_and_deliver},
                          .finish = check_closed,
                          .quiet = only_the_kernel_waits};
    bring(1, 0, 2);
    run(&model, 2);
    model.name = "slot close, two readers";
    model.threads[2] = reader_until_closed;
    run(&model, 3);
    model.setup = setup_attached;
    run(&model, 3);
    model.name = "slot close, canceller";
    model.threads[2] = canceller;
    run(&model, 3);
}

/* ---- the next owner ---- */

static struct wait_node later_node;
static bool reopened;

/* Closes the slot, takes it for the other descriptor, and waits for that without ever being woken. */
static void close_and_open(void)
{
    struct slot *slot;
    struct slot_call call;
    rouse_waker waker = signal_waker(model_self());
    later_node = (struct wait_node){.waker = {NULL, NULL}};
    model_check(waker_map_close(handle, NULL) == ROUSE_OK);
    lock_acquire(&registry.lock);
    reopened = registry.free == first; /* not while somebody is inside */
    lock_release(&registry.lock);
    if (reopened) {
        uintptr_t later = open_slot(1, &slot);
        model_check(slot == first && later != handle);
        model_check(waker_map_begin(&call, later, BACKEND_READ, &later_node, &waker) == ROUSE_OK);
        model_check(waker_map_end(&call, CALL_BLOCKED, &later_node, &waker) == ROUSE_PENDING);
    }
    done[model_self()] = 1;
}

static void check_not_woken(void)
{
    model_check(descriptors[0].closed && !descriptors[1].closed && registry.taken == reopened);
    model_check(wait_is_waiting(&later_node) == reopened && !model_signals[0].raised.value);
    if (reopened)
        signal_drop(later_node.waker.data);
    signals_check();
}

TEST(what_happens_to_a_slots_last_owner_never_reaches_the_next)
{
    struct model model = {.name = "slot generations",
                          .setup = setup_attached,
                          .threads = {close_and_open, reader_until_closed, bring_and_deliver},
                          .finish = check_not_woken,
                          .quiet = only_the_kernel_waits};
    bring(1, 0, 2);
    run(&model, 2);
    model.name = "slot generations, canceller";
    model.threads[1] = canceller;
    run(&model, 2);
}
