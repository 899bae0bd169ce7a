/* The simulated network: sockets, listeners and connections in memory.
 *
 * Everything that one end does to another travels: it is put on the list of arrivals with a moment, and happens then. What
 * is on its way to one socket arrives in order. Every address belongs to this world, so that a scenario may have as many
 * machines as it likes, but for 192.0.2.0/24, which documents may name and nobody has. As TCP does: a close with unread bytes resets; bytes sent to an end that is gone bring a reset
 * back; the window is as large as the receiver's buffer; connections wait in the listener's queue, and those for which it
 * has no room knock again a second later. */
#include "backend/backend.h"
#include "os/os_sim.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_NUMBER   1000 /* so that a descriptor of the world is none of the process: a mistake between them is seen */
#define BUFFER_BYTES   65536
#define FIRST_PORT     32768 /* of those that the system picks */
#define KNOCK_AGAIN_NS ROUSE_S(1)

enum socket_state { FRESH, LISTENING, CONNECTING, OPEN, EVENT };

struct socket {
    unsigned refs;    /* its descriptor, its place in a listener's queue, arrivals on their way, the other end */
    uint64_t id;      /* in the order of their making, for the trace */
    os_handle number; /* its descriptor; OS_NO_HANDLE: none (any more) */
    enum socket_state state;
    rouse_address local, peer;
    bool blocking; /* as os_set_nonblocking said */
    bool bound, reuse_port, v6_only, reuse_address;
    int no_delay, keep_alive, linger, send_buffer, receive_buffer; /* as set */
    void *watcher;                                                 /* the backend's record */
    /* ---- of a listener ---- */
    struct socket **queue; /* connections that nobody has accepted */
    int queued, backlog;
    /* ---- of a connection ---- */
    struct socket *other; /* the other end; NULL: gone */
    uint8_t *data;        /* receive_buffer bytes at most: arrived and not read */
    size_t start, count, capacity;
    size_t in_flight; /* bytes on their way here */
    int64_t last_ns;  /* when the last thing that is on its way arrives */
    int error;        /* to be told once: a reset, why no connection was made */
    bool broken;      /* it has been told */
    bool ended;       /* the other end's end has arrived */
    bool end_sent;    /* nothing is sent any more */
    bool read_shut;   /* nothing is read any more */
    bool readable;    /* an event: it was notified */
};

enum arrival_kind { BYTES, END, RESET, KNOCK, ACCEPTED, ROOM, NUDGE, NOTIFY };

struct arrival {
    struct list_node link; /* on the list, ordered by moment */
    int64_t at_ns;
    enum arrival_kind kind;
    struct socket *socket; /* to whom */
    unsigned channels;     /* of a nudge */
    size_t length;         /* of the bytes */
    uint8_t data[];
};

static struct {
    struct socket **table; /* by number - FIRST_NUMBER */
    size_t capacity;
    struct list_node arrivals;
    bool started; /* `arrivals` is a list */
    uint64_t made;
    unsigned open;  /* descriptors */
    uint16_t ports; /* picked so far */
} net;

/* ---- sockets and numbers ---- */

static struct socket *find(os_handle handle)
{
    return handle >= FIRST_NUMBER && (size_t)(handle - FIRST_NUMBER) < net.capacity ? net.table[handle - FIRST_NUMBER]
                                                                                    : NULL;
}

static struct socket *new_socket(enum socket_state state)
{
    struct socket *made = calloc(1, sizeof *made);
    if (made)
        *made = (struct socket){.refs = 1,
                                .id = ++net.made,
                                .number = OS_NO_HANDLE,
                                .state = state,
                                .linger = -1,
                                .send_buffer = BUFFER_BYTES,
                                .receive_buffer = BUFFER_BYTES};
    return made;
}

static void release(struct socket *socket)
{
    if (--socket->refs > 0)
        return;
    free(socket->queue);
    free(socket->data);
    free(socket);
}

/* The lowest free number, as everywhere: numbers are used again at once. */
static int give_number(struct socket *socket)
{
    size_t at = 0;
    if (net.open >= sim_options()->descriptors)
        return ROUSE_TOO_MANY_FILES;
    while (at < net.capacity && net.table[at])
        at++;
    if (at == net.capacity) {
        size_t capacity = net.capacity * 2 + 16;
        struct socket **table = realloc(net.table, capacity * sizeof *table);
        if (!table)
            return ROUSE_NO_MEMORY;
        memset(table + net.capacity, 0, (capacity - net.capacity) * sizeof *table);
        net.table = table;
        net.capacity = capacity;
    }
    net.table[at] = socket;
    net.open++;
    socket->number = (os_handle)at + FIRST_NUMBER;
    return ROUSE_OK;
}

static int open_numbered(enum socket_state state, struct socket **opened)
{
    struct socket *socket = new_socket(state);
    int status = socket ? give_number(socket) : ROUSE_NO_MEMORY;
    if (status != ROUSE_OK && socket)
        release(socket);
    *opened = status == ROUSE_OK ? socket : NULL;
    return status;
}

/* After a call the world goes on, perhaps, before its caller does. */
static ptrdiff_t told(const struct socket *socket, enum sim_entry entry, ptrdiff_t answer)
{
    sim_trace(entry, socket->id, (uint64_t)answer);
    sim_pause();
    return answer;
}

/* ---- readiness ---- */

static size_t room_for(const struct socket *socket)
{
    const struct socket *other = socket->other;
    if (!other)
        return SIZE_MAX; /* into the void */
    size_t taken = other->count + other->in_flight, whole = (size_t)other->receive_buffer;
    return taken < whole ? whole - taken : 0;
}

static unsigned ready_channels(const struct socket *socket)
{
    switch (socket->state) {
    case EVENT:
        return socket->readable ? BACKEND_READ : 0;
    case LISTENING:
        return socket->queued > 0 ? BACKEND_READ : 0;
    case CONNECTING:
        return 0;
    case FRESH:
        return BACKEND_WRITE | BACKEND_HANGUP;
    case OPEN:
        break;
    }
    if (socket->error || socket->broken || (socket->ended && socket->end_sent))
        return BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP | BACKEND_URGENT;
    return (socket->count > 0 || socket->ended || socket->read_shut ? (unsigned)BACKEND_READ : 0) |
           (socket->end_sent || room_for(socket) > 0 ? (unsigned)BACKEND_WRITE : 0) |
           (socket->ended ? (unsigned)BACKEND_URGENT : 0);
}

int sim_readiness(os_handle handle)
{
    const struct socket *socket = find(handle);
    return socket ? (int)ready_channels(socket) : ROUSE_BAD_DESCRIPTOR;
}

int sim_watch(os_handle handle, void *watcher, void **before)
{
    struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    *before = socket->watcher;
    socket->watcher = watcher;
    return ROUSE_OK;
}

/* Something has become possible. */
static void changed(struct socket *socket, unsigned channels)
{
    unsigned ready = ready_channels(socket);
    channels = (channels & ready) | (ready & (BACKEND_HANGUP | BACKEND_URGENT));
    if (channels & BACKEND_HANGUP)
        channels |= BACKEND_READ | BACKEND_WRITE;
    if (socket->watcher && channels)
        sim_changed(socket->watcher, channels);
}

/* ---- what is on its way ---- */

static struct list_node *arrivals(void)
{
    if (!net.started)
        list_init(&net.arrivals);
    net.started = true;
    return &net.arrivals;
}

/* Without memory the world loses it; only bytes are asked for before anything depends on them. */
static struct arrival *new_arrival(enum arrival_kind kind, struct socket *to, size_t length)
{
    struct arrival *made = malloc(sizeof *made + length);
    if (made) {
        *made = (struct arrival){.kind = kind, .socket = to, .length = length};
        to->refs++;
    }
    return made;
}

static void dispatch_at(struct arrival *arrival, int64_t at_ns)
{
    struct list_node *head = arrivals(), *before = head->prev;
    arrival->at_ns = at_ns;
    while (before != head && CONTAINER_OF(before, struct arrival, link)->at_ns > at_ns)
        before = before->prev;
    list_insert_between(before, &arrival->link, before->next);
}

/* Behind everything that is on its way there already. */
static void dispatch_in_order(struct arrival *arrival)
{
    struct socket *to = arrival->socket;
    int64_t at_ns = sim_now() + sim_delay();
    if (at_ns < to->last_ns)
        at_ns = to->last_ns;
    to->last_ns = at_ns;
    dispatch_at(arrival, at_ns);
}

static void send_to(struct socket *to, enum arrival_kind kind)
{
    struct arrival *arrival = new_arrival(kind, to, 0);
    if (arrival)
        dispatch_in_order(arrival);
}

static void send_soon(struct socket *to, enum arrival_kind kind, unsigned channels)
{
    struct arrival *arrival = new_arrival(kind, to, 0);
    if (!arrival)
        return;
    arrival->channels = channels;
    dispatch_at(arrival, sim_now() + sim_delay());
}

int64_t sim_net_next(void)
{
    struct list_node *head = arrivals();
    return list_is_empty(head) ? ROUSE_NEVER : CONTAINER_OF(head->next, struct arrival, link)->at_ns;
}

/* ---- arriving ---- */

static bool take_bytes(struct socket *to, const struct arrival *arrival)
{
    to->in_flight -= arrival->length;
    if (to->number == OS_NO_HANDLE && !to->other)
        return false; /* closed meanwhile */
    if (to->start + to->count + arrival->length > to->capacity) {
        size_t capacity = to->count + arrival->length > to->capacity ? (to->count + arrival->length) * 2 : to->capacity;
        uint8_t *data = malloc(capacity);
        if (!data)
            return false;
        memcpy(data, to->data ? to->data + to->start : data, to->count);
        free(to->data);
        to->data = data;
        to->capacity = capacity;
        to->start = 0;
    }
    memcpy(to->data + to->start + to->count, arrival->data, arrival->length);
    to->count += arrival->length;
    return true;
}

static void be_reset(struct socket *socket, int status)
{
    if (socket->other) {
        struct socket *other = socket->other;
        socket->other = NULL;
        release(other);
    }
    socket->count = 0;
    if (!socket->error && !socket->broken)
        socket->error = status;
    socket->state = OPEN;
    changed(socket, BACKEND_READ | BACKEND_WRITE);
}

static bool is_any(const rouse_address *address)
{
    static const uint8_t zeros[16];
    return memcmp(address->bytes, zeros, sizeof zeros) == 0;
}

static bool is_same_host(const rouse_address *one, const rouse_address *two)
{
    return one->family == two->family && memcmp(one->bytes, two->bytes, sizeof one->bytes) == 0;
}

static bool takes(const struct socket *listener, const rouse_address *address)
{
    if (listener->state != LISTENING || listener->local.port != address->port)
        return false;
    if (is_same_host(&listener->local, address))
        return true;
    return is_any(&listener->local) &&
           (listener->local.family == address->family || (listener->local.family == ROUSE_IPV6 && !listener->v6_only));
}

/* Of several that share the port, one. */
static struct socket *listener_for(const rouse_address *address)
{
    struct socket *chosen = NULL;
    uint64_t found = 0;
    for (size_t i = 0; i < net.capacity; i++)
        if (net.table[i] && takes(net.table[i], address) && sim_below(++found) == 0)
            chosen = net.table[i];
    return chosen;
}

/* A client's request has come to where it wanted to. */
static void knock(struct socket *client)
{
    if (client->state != CONNECTING || client->number == OS_NO_HANDLE)
        return; /* given up */
    struct socket *listener = listener_for(&client->peer);
    if (!listener || sim_chance(sim_options()->refusals)) {
        client->error = ROUSE_CONNECTION_REFUSED;
        send_to(client, ACCEPTED);
        return;
    }
    struct socket *server = listener->queued < listener->backlog ? new_socket(OPEN) : NULL;
    if (!server) { /* no room: the client knocks again */
        struct arrival *again = new_arrival(KNOCK, client, 0);
        if (again)
            dispatch_at(again, sim_now() + KNOCK_AGAIN_NS);
        return;
    }
    server->local = client->peer;
    server->peer = client->local;
    server->receive_buffer = listener->receive_buffer;
    server->other = client;
    client->other = server;
    client->refs++;
    server->refs++;
    listener->queue[listener->queued++] = server;
    send_to(client, ACCEPTED);
    changed(listener, BACKEND_READ);
}

static void happen(struct arrival *arrival)
{
    struct socket *to = arrival->socket;
    sim_trace(SIM_ARRIVES, to->id, (uint64_t)arrival->kind << 32 | arrival->length);
    switch (arrival->kind) {
    case BYTES:
        if (take_bytes(to, arrival))
            changed(to, BACKEND_READ);
        break;
    case END:
        to->ended = true;
        changed(to, BACKEND_READ);
        break;
    case RESET:
        be_reset(to, ROUSE_CONNECTION_RESET);
        break;
    case KNOCK:
        knock(to);
        break;
    case ACCEPTED:
        if (to->state == CONNECTING) {
            to->state = OPEN;
            changed(to, BACKEND_READ | BACKEND_WRITE);
        }
        break;
    case ROOM:
        changed(to, BACKEND_WRITE);
        break;
    case NUDGE:
        changed(to, arrival->channels);
        break;
    case NOTIFY:
        to->readable = true;
        changed(to, BACKEND_READ);
        break;
    }
}

static void forget(struct arrival *arrival)
{
    list_remove(&arrival->link);
    release(arrival->socket);
    free(arrival);
}

void sim_net_deliver(void)
{
    while (sim_net_next() <= sim_now()) {
        struct arrival *arrival = CONTAINER_OF(arrivals()->next, struct arrival, link);
        happen(arrival);
        forget(arrival);
    }
}

unsigned sim_descriptors(void)
{
    return net.open;
}

/* What a program has left open goes with the world. */
void sim_net_fini(void)
{
    for (size_t i = 0; i < net.capacity; i++)
        if (net.table[i])
            (void)os_close((os_handle)i + FIRST_NUMBER);
    while (!list_is_empty(arrivals()))
        forget(CONTAINER_OF(arrivals()->next, struct arrival, link));
    free(net.table);
    net.table = NULL;
    net.capacity = 0;
    net.made = 0;
    net.ports = 0;
}

/* ---- descriptors ---- */

int os_handle_kind(os_handle handle, enum os_kind *kind)
{
    const struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    *kind = socket->state == EVENT ? OS_KIND_OTHER : OS_KIND_STREAM_SOCKET;
    return ROUSE_OK;
}

/* It is kept and told; the calls below never block. */
int os_set_nonblocking(os_handle handle, bool on, bool *before)
{
    struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (before)
        *before = !socket->blocking;
    socket->blocking = !on;
    return ROUSE_OK;
}

/* The connection of an end that goes: the other one hears of it. */
static void leave_other(struct socket *socket, bool reset)
{
    struct socket *other = socket->other;
    if (!other)
        return;
    socket->other = NULL;
    if (other->other == socket) {
        if (reset || !socket->end_sent)
            send_to(other, reset ? RESET : END);
        other->other = NULL;
        release(socket);
    }
    release(other);
}

int os_close(os_handle handle)
{
    struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_OK;
    net.table[handle - FIRST_NUMBER] = NULL;
    net.open--;
    socket->number = OS_NO_HANDLE;
    socket->watcher = NULL;
    for (; socket->queued > 0; socket->queued--) {
        leave_other(socket->queue[socket->queued - 1], true);
        release(socket->queue[socket->queued - 1]);
    }
    if (sim_is_active())
        told(socket, SIM_CALL, 0);
    leave_other(socket, socket->linger == 0 || socket->count > 0 || socket->in_flight > 0);
    release(socket);
    return ROUSE_OK;
}

/* ---- reading and writing ---- */

/* As many of `most` bytes as this call moves. The rest is announced later, as if it had not been possible yet. */
static size_t shorten(struct socket *socket, size_t most, unsigned channel)
{
    if (most < 2 || !sim_chance(sim_options()->short_counts))
        return most;
    send_soon(socket, NUDGE, channel);
    return 1 + (size_t)sim_below(most - 1);
}

/* What stands in the way of every call on a connection: 1 nothing, else its answer. */
static ptrdiff_t obstacle(struct socket *socket, ptrdiff_t when_broken, ptrdiff_t when_unconnected)
{
    if (socket->state == CONNECTING)
        return ROUSE_PENDING;
    if (socket->state != OPEN)
        return when_unconnected;
    if (socket->other && sim_chance(sim_options()->resets)) {
        send_to(socket->other, RESET);
        be_reset(socket, ROUSE_CONNECTION_RESET);
    }
    if (socket->error) {
        int error = socket->error;
        socket->error = 0;
        socket->broken = true;
        return error;
    }
    return socket->broken ? when_broken : 1;
}

static ptrdiff_t read_some(struct socket *socket, void *data, size_t length, bool peek)
{
    ptrdiff_t answer = obstacle(socket, 0, ROUSE_NOT_CONNECTED);
    if (answer != 1)
        return answer;
    if (socket->read_shut || length == 0)
        return 0;
    if (socket->count == 0)
        return socket->ended ? 0 : ROUSE_PENDING;
    size_t count = socket->count < length ? socket->count : length;
    if (!peek)
        count = shorten(socket, count, BACKEND_READ);
    memcpy(data, socket->data + socket->start, count);
    if (peek)
        return (ptrdiff_t)count;
    socket->start += count;
    socket->count -= count;
    if (socket->other)
        send_soon(socket->other, ROOM, 0);
    return (ptrdiff_t)count;
}

static ptrdiff_t write_some(struct socket *socket, const void *data, size_t length)
{
    ptrdiff_t answer = obstacle(socket, ROUSE_BROKEN_PIPE, ROUSE_BROKEN_PIPE);
    if (answer != 1)
        return answer;
    if (socket->end_sent)
        return ROUSE_BROKEN_PIPE;
    size_t room = room_for(socket), count = length < room ? length : room;
    if (length > 0 && count == 0)
        return ROUSE_PENDING;
    count = shorten(socket, count, BACKEND_WRITE);
    if (!socket->other) { /* the other end is gone, and says so */
        send_soon(socket, RESET, 0);
        return (ptrdiff_t)count;
    }
    struct arrival *bytes = count > 0 ? new_arrival(BYTES, socket->other, count) : NULL;
    if (!bytes)
        return count > 0 ? ROUSE_NO_BUFFERS : 0;
    memcpy(bytes->data, data, count);
    socket->other->in_flight += count;
    dispatch_in_order(bytes);
    return (ptrdiff_t)count;
}

ptrdiff_t os_read(os_handle handle, enum os_kind kind, void *data, size_t length)
{
    struct socket *socket = find(handle);
    (void)kind;
    sim_pause();
    return socket == find(handle) && socket ? told(socket, SIM_MOVED, read_some(socket, data, length, false))
                                            : ROUSE_BAD_DESCRIPTOR;
}

ptrdiff_t os_peek(os_handle handle, enum os_kind kind, void *data, size_t length)
{
    struct socket *socket = find(handle);
    (void)kind;
    sim_pause();
    return socket == find(handle) && socket ? told(socket, SIM_MOVED, read_some(socket, data, length, true))
                                            : ROUSE_BAD_DESCRIPTOR;
}

ptrdiff_t os_write(os_handle handle, enum os_kind kind, const void *data, size_t length)
{
    struct socket *socket = find(handle);
    (void)kind;
    sim_pause();
    return socket == find(handle) && socket ? told(socket, SIM_MOVED, write_some(socket, data, length))
                                            : ROUSE_BAD_DESCRIPTOR;
}

/* Piece after piece, until one moves less than all of it. */
ptrdiff_t os_readv(os_handle handle, enum os_kind kind, const rouse_buffer *pieces, size_t count)
{
    ptrdiff_t total = 0;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].length == 0)
            continue;
        ptrdiff_t got = os_read(handle, kind, pieces[i].data, pieces[i].length);
        if (got < 0)
            return total > 0 ? total : got;
        total += got;
        if ((size_t)got < pieces[i].length)
            break;
    }
    return total;
}

ptrdiff_t os_writev(os_handle handle, enum os_kind kind, const rouse_buffer *pieces, size_t count)
{
    ptrdiff_t total = 0;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].length == 0)
            continue;
        ptrdiff_t written = os_write(handle, kind, pieces[i].data, pieces[i].length);
        if (written < 0)
            return total > 0 ? total : written;
        total += written;
        if ((size_t)written < pieces[i].length)
            break;
    }
    return total;
}

int os_is_ready(os_handle handle, int direction)
{
    sim_pause();
    int ready = sim_readiness(handle);
    if (ready < 0)
        return ready;
    return (direction & ROUSE_READABLE && ready & BACKEND_READ) ||
           (direction & ROUSE_WRITABLE && ready & BACKEND_WRITE);
}

/* ---- sockets ---- */

int os_tcp_open(os_handle *handle, int family)
{
    struct socket *socket;
    if (family != ROUSE_IPV4 && family != ROUSE_IPV6)
        return ROUSE_INVALID;
    int status = open_numbered(FRESH, &socket);
    if (status == ROUSE_OK) {
        socket->local.family = (uint8_t)family;
        *handle = socket->number;
    }
    return status;
}

static bool port_is_taken(const struct socket *by, const rouse_address *address)
{
    for (size_t i = 0; i < net.capacity; i++) {
        const struct socket *other = net.table[i];
        if (!other || other == by || !other->bound || other->state == OPEN || other->local.port != address->port)
            continue;
        bool meets = is_same_host(&other->local, address) || is_any(&other->local) || is_any(address);
        if (meets && !(other->reuse_port && by->reuse_port))
            return true;
    }
    return false;
}

static bool is_nobodys(const rouse_address *address)
{
    static const uint8_t documentation[] = {192, 0, 2};
    return address->family == ROUSE_IPV4 && memcmp(address->bytes, documentation, sizeof documentation) == 0;
}

static void pick_port(struct socket *socket, rouse_address *address)
{
    do
        address->port = (uint16_t)(FIRST_PORT + net.ports++ % (UINT16_MAX - FIRST_PORT));
    while (port_is_taken(socket, address));
}

int os_tcp_bind(os_handle handle, const rouse_address *address, bool reuse_address, bool reuse_port, bool v6_only)
{
    struct socket *socket = find(handle);
    rouse_address to = *address;
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (socket->bound || socket->state != FRESH || to.family != socket->local.family)
        return ROUSE_INVALID;
    if (is_nobodys(&to))
        return ROUSE_ADDRESS_NOT_AVAILABLE;
    socket->reuse_address = reuse_address;
    socket->reuse_port = reuse_port;
    socket->v6_only = v6_only;
    if (to.port == 0)
        pick_port(socket, &to);
    else if (port_is_taken(socket, &to))
        return ROUSE_ADDRESS_IN_USE;
    socket->local = to;
    socket->bound = true;
    return ROUSE_OK;
}

int os_tcp_listen(os_handle handle, int backlog)
{
    struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (!socket->bound || socket->state != FRESH)
        return ROUSE_INVALID;
    socket->backlog = backlog < 1 ? 1 : backlog > 4096 ? 4096 : backlog;
    socket->queue = calloc((size_t)socket->backlog, sizeof(struct socket *));
    if (!socket->queue)
        return ROUSE_NO_MEMORY;
    socket->state = LISTENING;
    return (int)told(socket, SIM_CALL, ROUSE_OK);
}

int os_tcp_accept(os_handle listener, os_handle *handle, rouse_address *peer)
{
    struct socket *socket = find(listener);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (socket->state != LISTENING)
        return ROUSE_INVALID;
    if (socket->queued == 0)
        return (int)told(socket, SIM_CALL, ROUSE_PENDING);
    struct socket *taken = socket->queue[0];
    int status = give_number(taken);
    if (status != ROUSE_OK)
        return (int)told(socket, SIM_CALL, status);
    memmove(socket->queue, socket->queue + 1, (size_t)--socket->queued * sizeof *socket->queue);
    *handle = taken->number;
    if (peer)
        *peer = taken->peer;
    return (int)told(taken, SIM_CALL, ROUSE_OK);
}

bool os_accept_error_passes(int status)
{
    return status == ROUSE_CONNECTION_ABORTED || status == ROUSE_CONNECTION_RESET;
}

bool os_accept_error_is_exhaustion(int status)
{
    return status == ROUSE_TOO_MANY_FILES || status == ROUSE_NO_MEMORY;
}

int os_tcp_connect(os_handle handle, const rouse_address *address)
{
    struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (socket->state == CONNECTING)
        return ROUSE_PENDING;
    if (socket->state == OPEN)
        return socket->error ? socket->error : ROUSE_OK;
    if (socket->state != FRESH || address->family != socket->local.family)
        return ROUSE_INVALID;
    if (!socket->bound) {
        rouse_address local = *address;
        pick_port(socket, &local);
        socket->local = local;
    }
    socket->peer = *address;
    socket->state = CONNECTING;
    send_to(socket, KNOCK);
    return (int)told(socket, SIM_CALL, ROUSE_PENDING);
}

int os_tcp_connect_result(os_handle handle)
{
    struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (socket->state == CONNECTING)
        return ROUSE_PENDING;
    if (socket->state != OPEN)
        return ROUSE_NOT_CONNECTED;
    int error = socket->error;
    if (error) {
        socket->error = 0;
        socket->broken = true;
    }
    return (int)told(socket, SIM_CALL, error);
}

int os_tcp_shutdown(os_handle handle, int side)
{
    struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (side != ROUSE_SHUTDOWN_READ && side != ROUSE_SHUTDOWN_WRITE && side != ROUSE_SHUTDOWN_BOTH)
        return ROUSE_INVALID;
    if (socket->state != OPEN || socket->broken)
        return ROUSE_NOT_CONNECTED;
    if (side != ROUSE_SHUTDOWN_WRITE)
        socket->read_shut = true;
    if (side != ROUSE_SHUTDOWN_READ && !socket->end_sent) {
        socket->end_sent = true;
        if (socket->other)
            send_to(socket->other, END);
    }
    send_soon(socket, NUDGE, BACKEND_READ | BACKEND_WRITE);
    return (int)told(socket, SIM_CALL, ROUSE_OK);
}

int os_local_address(os_handle handle, rouse_address *address)
{
    const struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (socket->state == EVENT)
        return ROUSE_NOT_SUPPORTED;
    *address = socket->local;
    return ROUSE_OK;
}

int os_peer_address(os_handle handle, rouse_address *address)
{
    const struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (socket->state == EVENT)
        return ROUSE_NOT_SUPPORTED;
    if (socket->state != OPEN || socket->error || socket->broken)
        return ROUSE_NOT_CONNECTED;
    *address = socket->peer;
    return ROUSE_OK;
}

uint32_t os_interface_index(const char *name)
{
    return strcmp(name, "lo") == 0;
}

/* ---- options ---- */

static int *option_of(struct socket *socket, int option)
{
    switch (option) {
    case ROUSE_OPTION_NO_DELAY:
        return &socket->no_delay;
    case ROUSE_OPTION_KEEP_ALIVE:
        return &socket->keep_alive;
    case ROUSE_OPTION_LINGER:
        return &socket->linger;
    case ROUSE_OPTION_SEND_BUFFER:
        return &socket->send_buffer;
    case ROUSE_OPTION_RECEIVE_BUFFER:
        return &socket->receive_buffer;
    default:
        return NULL;
    }
}

static bool option_takes(int option, int value)
{
    switch (option) {
    case ROUSE_OPTION_NO_DELAY:
        return value == 0 || value == 1;
    case ROUSE_OPTION_KEEP_ALIVE:
        return value >= 0;
    case ROUSE_OPTION_LINGER:
        return value >= -1;
    default:
        return value > 0;
    }
}

static bool is_fixed(int option)
{
    return option == ROUSE_OPTION_REUSE_ADDRESS || option == ROUSE_OPTION_REUSE_PORT || option == ROUSE_OPTION_V6_ONLY;
}

int os_option_set(os_handle handle, int option, int value)
{
    struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (is_fixed(option) || socket->state == EVENT)
        return ROUSE_NOT_SUPPORTED;
    int *place = option_of(socket, option);
    if (!place || !option_takes(option, value))
        return ROUSE_INVALID;
    *place = value;
    return ROUSE_OK;
}

int os_option_get(os_handle handle, int option, int *value)
{
    struct socket *socket = find(handle);
    if (!socket)
        return ROUSE_BAD_DESCRIPTOR;
    if (socket->state == EVENT)
        return ROUSE_NOT_SUPPORTED;
    if (is_fixed(option)) {
        *value = option == ROUSE_OPTION_REUSE_ADDRESS ? socket->reuse_address
                 : option == ROUSE_OPTION_REUSE_PORT  ? socket->reuse_port
                                                      : socket->v6_only;
        return ROUSE_OK;
    }
    const int *place = option_of(socket, option);
    if (!place)
        return ROUSE_INVALID;
    *value = *place;
    return ROUSE_OK;
}

/* ---- events ---- */

int os_event_open(os_event *event)
{
    struct socket *socket;
    int status = open_numbered(EVENT, &socket);
    if (status == ROUSE_OK)
        event->readable = event->notify = socket->number;
    return status;
}

void os_event_close(os_event *event)
{
    (void)os_close(event->readable);
}

void os_event_notify(const os_event *event)
{
    struct socket *socket = find(event->notify);
    if (!socket)
        return;
    socket->readable = true;
    changed(socket, BACKEND_READ);
}

void sim_notify_at(const os_event *event, int64_t at_ns)
{
    struct socket *socket = find(event->notify);
    struct arrival *arrival = socket ? new_arrival(NOTIFY, socket, 0) : NULL;
    if (arrival)
        dispatch_at(arrival, at_ns);
}

bool os_event_fills(void)
{
    return true;
}

bool os_event_clear(const os_event *event)
{
    struct socket *socket = find(event->readable);
    bool was = socket && socket->readable;
    if (socket)
        socket->readable = false;
    return was;
}
