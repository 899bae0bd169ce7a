/* The backend of Windows: readiness of sockets through a completion port.
 *
 * Windows tells of operations that are complete, not of sockets that are ready, but the driver below all sockets, AFD, has an
 * operation "poll", of which select() is made: it completes when a socket is ready, at once if it is already. Each socket
 * has a record with a poll of its own, whose completion comes to the port.
 *
 * That poll asks for all that is waited for; two polls of one socket through one handle of AFD take each other's events.
 * Its completion idles the record until it is armed again. When more is waited for than the poll in flight asks for, its
 * cancelling is requested, and whoever takes its completion from the port polls again. Levels make urgent data no concern
 * of this file: what a short count has left behind is seen on arming. To ask for it would do harm: it stays until it is
 * read by a call of its own, and whoever waits for other data would be told of it again and again.
 *
 * A record belongs to the kernel while its poll is in flight. Detached then, it stays until the completion has come. Records
 * are never given back before the backend is closed, as the slots of the registry are not.
 *
 * Alternatives that lost: a read of no bytes in flight for each socket, which says nothing about writing or accepting;
 * operations that complete with their data, whose buffers the caller must leave alone after giving up; WSAEventSelect, 64
 * sockets for a thread; WSAPoll, which nothing else ends.
 *
 * The port waits in milliseconds, which are rounded up to the system's clock tick of up to 15.6. Short waits end by a timer
 * of high resolution, where there is one whose end can come to the port. Lost: timeBeginPeriod, which makes the ticks of the
 * whole machine shorter. */
#include "backend/iocp/iocp.h"

#include "core/alloc.h"
#include "core/lock.h"
#include "os/os_windows.h"

/* These need windows.h before them. */
#include <mswsock.h>
#include <winternl.h>

#define BATCH        256
#define GROUP_SIZE   32 /* polls through one handle of AFD: to cancel one, the kernel looks through all of them */
#define LAYERS_MAX   16 /* of network providers above the system's own; even one is rare */
#define WAIT_MAX_MS  (30 * 60 * 1000)
#define FINE_WAIT_MS 1000 /* shorter ones end by the timer: to set it costs some calls */
#define NO_TIMER     INT64_MIN

/* By number: older headers lack the first, and ntstatus.h does not go together with windows.h. */
#define HIGH_RESOLUTION 2
#define NT_PENDING      ((NTSTATUS)0x00000103)
#define NT_CANCELLED    ((NTSTATUS)0xc0000120)

/* ---- what AFD understands ---- */

#define AFD_POLL       0x00012024 /* the control code */
#define AFD_RECEIVE    0x0001u
#define AFD_SEND       0x0004u
#define AFD_DISCONNECT 0x0008u /* the peer has ended its side */
#define AFD_ABORT      0x0010u
#define AFD_CLOSE      0x0020u /* the socket was closed here; told unasked, too */
#define AFD_ACCEPT     0x0080u
#define AFD_REFUSED    0x0100u /* connecting has failed */
#define AFD_ENDS       (AFD_ABORT | AFD_CLOSE | AFD_REFUSED)
#define AFD_READABLE   (AFD_RECEIVE | AFD_ACCEPT | AFD_DISCONNECT)

struct afd_poll {
    LARGE_INTEGER until; /* in the system's time; the largest number is never */
    ULONG count;         /* of sockets: 1, or 0 in an answer without one */
    ULONG exclusive;     /* other polls of the socket end with this one: no */
    HANDLE socket;       /* as the lowest provider knows it */
    ULONG events;        /* AFD_*: that are asked for, then those that are */
    NTSTATUS status;     /* of the socket; says nothing more */
};

/* What only ntdll has, for which not every compiler has an import library. The last three are missing in Wine 8. */
typedef NTSTATUS NTAPI open_file(HANDLE *made, ACCESS_MASK access, OBJECT_ATTRIBUTES *name, IO_STATUS_BLOCK *io,
                                 ULONG share, ULONG options);
typedef NTSTATUS NTAPI create_packet(HANDLE *made, ACCESS_MASK access, OBJECT_ATTRIBUTES *name);
typedef NTSTATUS NTAPI associate_packet(HANDLE packet, HANDLE port, HANDLE object, void *key, void *overlapped,
                                        NTSTATUS status, ULONG_PTR information, BOOLEAN *signaled);
typedef NTSTATUS NTAPI cancel_packet(HANDLE packet, BOOLEAN even_if_queued);

/* Who the completions at the port are for. */
enum { KEY_POLL = 1, KEY_WAKE, KEY_TIMER, KEY_PACKET };

struct record {
    OVERLAPPED overlapped; /* of the poll; first, for its address comes back. The kernel's while a poll is in flight */
    struct afd_poll poll;  /* likewise */
    HANDLE afd;            /* of the group */
    struct record *child[2]; /* of the tree while `tracked`; [0]: the next free one */
    uint64_t token;          /* as given to attach */
    os_handle handle;        /* likewise; the key of the tree */
    SOCKET base;             /* the same socket as the lowest provider knows it */
    ULONG wanted;            /* AFD_*: what is armed; 0 after an event */
    ULONG polled;            /* AFD_*: what the poll in flight asks for; 0: none is */
    bool tracked;            /* it is in the tree; else the socket is closed, or the record detached */
    bool detached;           /* its source is gone; the completion of the poll frees it */
};

struct group {
    HANDLE afd;         /* of the driver; its completions come to the port */
    struct group *next; /* made before it */
    struct record records[GROUP_SIZE];
};

struct backend {
    HANDLE port;               /* where completions come */
    rouse_allocator allocator; /* of all memory here */
    struct lock lock;          /* a leaf; of the records and of what follows down to in_flight */
    struct record *tree;       /* those tracked: at depth n, bit n of the scattered handle says which child is next */
    struct record *free;       /* those that are not used */
    struct group *groups;      /* all */
    size_t in_flight;          /* how many polls are */
    /* Below: only the holder of the right to wait. */
    associate_packet *associate; /* of ntdll */
    cancel_packet *cancel;       /* likewise */
    HANDLE timer;                /* of high resolution; NULL: the system lacks it, or the packets */
    HANDLE packet;               /* brings the timer's end to the port */
    int64_t timer_ns;            /* the deadline that it will tell of, or NO_TIMER */
    OVERLAPPED_ENTRY entries[BATCH];
};

/* ---- the tree: nothing to allocate, nothing to balance, for scattered keys spread by themselves ---- */

/* Where the record of a handle is linked, or would be. */
static struct record **find(struct backend *backend, os_handle handle)
{
    struct record **place = &backend->tree;
    uint64_t bits = (uint64_t)handle * UINT64_C(0x9e3779b97f4a7c15); /* odd: no two handles have the same product */
    for (; *place && (*place)->handle != handle; bits <<= 1)
        place = &(*place)->child[bits >> 63];
    return place;
}

static void untrack(struct backend *backend, struct record *record)
{
    if (!record->tracked)
        return;
    struct record **place = find(backend, record->handle), **last = place;
    /* Whatever is below a place may stand in it. */
    while ((*last)->child[0] || (*last)->child[1])
        last = &(*last)->child[(*last)->child[0] == NULL];
    struct record *leaf = *last;
    *last = NULL;
    leaf->child[0] = record->child[0];
    leaf->child[1] = record->child[1];
    if (leaf != record)
        *place = leaf;
    record->tracked = false;
}

static void free_record(struct backend *backend, struct record *record)
{
    record->child[0] = backend->free;
    backend->free = record;
}

/* ---- groups ---- */

static int open_afd(struct backend *backend, HANDLE *afd)
{
    static wchar_t device[] = L"\\Device\\Afd\\Rouse"; /* the last part is free */
    static atomic_ptr known;
    UNICODE_STRING name = {sizeof device - sizeof *device, sizeof device, device};
    OBJECT_ATTRIBUTES attributes = {.Length = sizeof attributes, .ObjectName = &name};
    IO_STATUS_BLOCK io;
    open_file *nt_open = (open_file *)(uintptr_t)os_system_function(&known, L"ntdll.dll", "NtOpenFile");
    if (!nt_open)
        return ROUSE_NOT_SUPPORTED;
    NTSTATUS answer = nt_open(afd, SYNCHRONIZE, &attributes, &io, FILE_SHARE_READ | FILE_SHARE_WRITE, 0);
    if (answer < 0)
        return os_nt_status(answer);
    if (CreateIoCompletionPort(*afd, backend->port, KEY_POLL, 0))
        return ROUSE_OK;
    int status = os_status(GetLastError());
    (void)CloseHandle(*afd);
    return status;
}

/* Takes the lock and has a free record then, or fails. */
static int lock_with_room(struct backend *backend)
{
    for (lock_acquire(&backend->lock); !backend->free;) {
        lock_release(&backend->lock);
        struct group *group = alloc_take(&backend->allocator, sizeof *group, _Alignof(struct group));
        if (!group)
            return ROUSE_NO_MEMORY;
        *group = (struct group){.afd = NULL};
        int status = open_afd(backend, &group->afd);
        if (status != ROUSE_OK) {
            alloc_give(&backend->allocator, group, sizeof *group, _Alignof(struct group));
            return status;
        }
        lock_acquire(&backend->lock);
        group->next = backend->groups;
        backend->groups = group;
        for (size_t i = GROUP_SIZE; i-- > 0;) {
            group->records[i].afd = group->afd;
            free_record(backend, &group->records[i]);
        }
    }
    return ROUSE_OK;
}

/* ---- polls; under the lock ---- */

/* Polls for what is wanted. What fails at once has no completion; what succeeds at once has one. */
static int poll_record(struct backend *backend, struct record *record)
{
    struct afd_poll *poll = &record->poll;
    *poll = (struct afd_poll){{.QuadPart = INT64_MAX}, 1, 0, (HANDLE)record->base, record->wanted, 0};
    record->overlapped = (OVERLAPPED){.hEvent = NULL};
    const DWORD bytes = sizeof *poll;
    bool done = DeviceIoControl(record->afd, AFD_POLL, poll, bytes, poll, bytes, NULL, &record->overlapped);
    DWORD error = done ? ERROR_IO_PENDING : GetLastError();
    if (error == ERROR_IO_PENDING) {
        record->polled = record->wanted;
        backend->in_flight++;
        return ROUSE_OK;
    }
    if (error == ERROR_INVALID_HANDLE)
        untrack(backend, record); /* closed without detaching: the number is free for another socket */
    return os_status(error);
}

/* What a poll that is over has found; nothing if it was cancelled, by us or with the thread that made it. */
static ULONG events_of(const struct record *record)
{
    NTSTATUS status = (NTSTATUS)record->overlapped.Internal;
    if (status < 0)
        return status == NT_CANCELLED ? 0 : AFD_ABORT;
    return record->poll.count > 0 ? record->poll.events : 0;
}

static uint32_t channels_of(ULONG events)
{
    if (events & AFD_ENDS)
        return BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP;
    return (events & AFD_READABLE ? BACKEND_READ : 0u) | (events & AFD_SEND ? BACKEND_WRITE : 0u);
}

/* The kernel has given the record back. Fills the event and answers 1, or 0 if there is nothing to tell. */
static int finish_poll(struct backend *backend, struct record *record, struct backend_event *event)
{
    lock_acquire(&backend->lock);
    *event = (struct backend_event){.token = record->token, .kind = BACKEND_READY};
    record->polled = 0;
    backend->in_flight--;
    if (record->detached) {
        event->kind = BACKEND_RETIRED;
        free_record(backend, record);
    } else {
        ULONG events = events_of(record);
        if (events & AFD_CLOSE)
            untrack(backend, record);
        if (channels_of(events) == 0 && record->wanted && poll_record(backend, record) != ROUSE_OK)
            events = AFD_ABORT;
        event->channels = channels_of(events);
        if (event->channels != 0)
            record->wanted = 0;
    }
    lock_release(&backend->lock);
    return event->kind == BACKEND_RETIRED || event->channels != 0;
}

/* ---- opening and closing ---- */

/* Failing is no error: waits are rounded up to ticks then. */
static void open_timer(struct backend *backend)
{
    static const char *const names[] = {"NtCreateWaitCompletionPacket", "NtAssociateWaitCompletionPacket",
                                        "NtCancelWaitCompletionPacket"};
    static atomic_ptr known[3];
    void *functions[3];
    backend->timer_ns = NO_TIMER;
    for (size_t i = 0; i < 3; i++)
        if (!(functions[i] = os_system_function(&known[i], L"ntdll.dll", names[i])))
            return;
    create_packet *create = (create_packet *)(uintptr_t)functions[0];
    backend->associate = (associate_packet *)(uintptr_t)functions[1];
    backend->cancel = (cancel_packet *)(uintptr_t)functions[2];
    HANDLE timer = CreateWaitableTimerExW(NULL, NULL, HIGH_RESOLUTION, TIMER_ALL_ACCESS);
    if (timer && create(&backend->packet, GENERIC_ALL, NULL) >= 0)
        backend->timer = timer;
    else if (timer)
        (void)CloseHandle(timer);
}

int backend_open(struct backend **opened, const rouse_allocator *allocator)
{
    struct backend *backend = alloc_take(allocator, sizeof *backend, _Alignof(struct backend));
    if (!backend)
        return ROUSE_NO_MEMORY;
    *backend = (struct backend){.allocator = *allocator};
    int status = os_winsock_start();
    /* Without limit: the port would give nothing to a thread while those that were given something before are running. */
    if (status == ROUSE_OK && !(backend->port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, MAXDWORD)))
        status = os_status(GetLastError());
    if (status == ROUSE_OK)
        status = lock_with_room(backend); /* shows that there is such a driver */
    if (status == ROUSE_OK) {
        lock_release(&backend->lock);
        open_timer(backend);
        *opened = backend;
        return ROUSE_OK;
    }
    if (backend->port)
        (void)CloseHandle(backend->port);
    alloc_give(allocator, backend, sizeof *backend, _Alignof(struct backend));
    return status;
}

/* Nobody else uses the backend any more. Should the kernel not give all records back, because the program has closed the
 * port's handle for example, they are left to it. */
void backend_close(struct backend *backend)
{
    rouse_allocator allocator = backend->allocator;
    struct backend_event ignored[16];
    while (backend->tree) {
        struct backend_source source = {backend->tree->handle, NULL};
        (void)backend_detach(backend, &source, false);
    }
    while (backend->in_flight > 0 && backend_wait(backend, ignored, 16, ROUSE_NEVER) >= 0) {}
    for (struct group *group; backend->in_flight == 0 && (group = backend->groups) != NULL;) {
        backend->groups = group->next;
        (void)CloseHandle(group->afd);
        alloc_give(&allocator, group, sizeof *group, _Alignof(struct group));
    }
    if (backend->timer) {
        (void)CloseHandle(backend->packet);
        (void)CloseHandle(backend->timer);
    }
    (void)CloseHandle(backend->port);
    alloc_give(&allocator, backend, sizeof *backend, _Alignof(struct backend));
}

/* ---- sources ---- */

/* Only the lowest provider's handle is the driver's. Some of those layered above it fail the question for that one, which
 * they should pass down, but not the questions for a handle to poll, which may lead through several layers. */
static int find_base(os_handle handle, SOCKET *base)
{
    static const DWORD questions[] = {SIO_BASE_HANDLE, SIO_BSP_HANDLE_SELECT, SIO_BSP_HANDLE_POLL};
    enum os_kind kind;
    SOCKET socket = os_socket(handle), answer;
    DWORD bytes;
    int status = os_handle_kind(handle, &kind); /* Wine answers the first question for what is not a socket, too */
    for (int i = 0; status == ROUSE_OK && i < 3 * LAYERS_MAX; i++) {
        if (WSAIoctl(socket, questions[i % 3], NULL, 0, &answer, sizeof answer, &bytes, NULL, NULL) != 0)
            continue;
        *base = socket = answer;
        if (i % 3 == 0)
            return ROUSE_OK;
    }
    return status == ROUSE_OK ? ROUSE_NOT_POLLABLE : status;
}

int backend_attach(struct backend *backend, struct backend_source *source, uint64_t token)
{
    SOCKET base;
    int status = find_base(source->handle, &base);
    if (status == ROUSE_OK)
        status = lock_with_room(backend);
    if (status != ROUSE_OK)
        return status;
    struct record *record = backend->free, **place = find(backend, source->handle);
    if (*place) {
        status = ROUSE_ALREADY_EXISTS;
    } else {
        backend->free = record->child[0];
        *record = (struct record){
            .afd = record->afd, .token = token, .handle = source->handle, .base = base, .tracked = true};
        *place = source->record = record;
    }
    lock_release(&backend->lock);
    return status;
}

int backend_arm(struct backend *backend, struct backend_source *source, unsigned channels)
{
    struct record *record = source->record;
    ULONG wanted =
        (channels & BACKEND_READ ? AFD_READABLE | AFD_ENDS : 0) | (channels & BACKEND_WRITE ? AFD_SEND | AFD_ENDS : 0);
    int status = ROUSE_OK;
    lock_acquire(&backend->lock);
    record->wanted = wanted;
    if (record->polled) {
        if (wanted & ~record->polled)
            (void)CancelIoEx(record->afd, &record->overlapped); /* too late: its completion is at the port already */
    } else if (wanted) {
        status = record->tracked ? poll_record(backend, record) : ROUSE_BAD_DESCRIPTOR;
    }
    lock_release(&backend->lock);
    return status;
}

int backend_detach(struct backend *backend, struct backend_source *source, bool closing)
{
    (void)closing; /* to close the socket ends the poll too, but takes it no further from the kernel */
    lock_acquire(&backend->lock);
    /* Without a record: for another source that had the handle, and has forgotten to detach it. */
    struct record *record = source->record ? source->record : *find(backend, source->handle);
    bool later = record && record->polled;
    if (record)
        untrack(backend, record);
    if (later) {
        record->detached = true;
        (void)CancelIoEx(record->afd, &record->overlapped);
    } else if (record) {
        free_record(backend, record);
    }
    source->record = NULL;
    lock_release(&backend->lock);
    return later ? BACKEND_LATER : BACKEND_DONE;
}

/* ---- waiting ---- */

/* Has the timer tell of the deadline; true if it has come already. Should that fail, the wait ends by its milliseconds. */
static bool set_timer(struct backend *backend, int64_t deadline_ns)
{
    BOOLEAN signaled = FALSE;
    if (backend->timer_ns == deadline_ns)
        return false;
    /* Pending: it fires at this moment, and its completion is about to come. */
    if (backend->timer_ns != NO_TIMER && backend->cancel(backend->packet, TRUE) == NT_PENDING)
        return false;
    backend->timer_ns = NO_TIMER;
    int64_t left_ns = deadline_ns - os_now();
    LARGE_INTEGER due = {.QuadPart = left_ns <= 0 ? -1 : -(left_ns / 100 + 1)}; /* negative: from now on */
    if (!SetWaitableTimer(backend->timer, &due, 0, NULL, NULL, FALSE))
        return false;
    void *key = (void *)(ULONG_PTR)KEY_TIMER;
    if (backend->associate(backend->packet, backend->port, backend->timer, key, NULL, 0, 0, &signaled) < 0)
        return false;
    backend->timer_ns = deadline_ns;
    return signaled;
}

int backend_wait(struct backend *backend, struct backend_event *events, int limit, int64_t deadline_ns)
{
    ULONG count = 0, most = (ULONG)(limit < BATCH ? limit : BATCH);
    DWORD milliseconds = deadline_ns <= 0 ? 0 : os_milliseconds(deadline_ns);
    if (backend->timer && milliseconds > 0 && milliseconds < FINE_WAIT_MS && set_timer(backend, deadline_ns))
        milliseconds = 0;
    if (milliseconds > WAIT_MAX_MS)
        milliseconds = WAIT_MAX_MS;
    if (!GetQueuedCompletionStatusEx(backend->port, backend->entries, most, &count, milliseconds, FALSE)) {
        DWORD error = GetLastError(); /* the count says nothing now */
        return error == WAIT_TIMEOUT ? 0 : os_status(error);
    }
    int told = 0;
    for (ULONG i = 0; i < count; i++) {
        void *overlapped = backend->entries[i].lpOverlapped;
        ULONG_PTR key = backend->entries[i].lpCompletionKey;
        if (key == KEY_POLL)
            told += finish_poll(backend, overlapped, &events[told]);
        else if (key == KEY_PACKET)
            events[told++] = (struct backend_event){.token = (uintptr_t)overlapped, .kind = BACKEND_PACKET};
        else if (key == KEY_TIMER)
            backend->timer_ns = NO_TIMER;
    } /* a wake has done its work: wait returns */
    return told;
}

/* It fails only if the kernel has no memory at this moment; a wake that gets lost may stop the program for good. */
void backend_wake(struct backend *backend)
{
    while (!PostQueuedCompletionStatus(backend->port, 0, KEY_WAKE, NULL)) {
        int status = os_status(GetLastError());
        if (status != ROUSE_NO_MEMORY && status != ROUSE_NO_BUFFERS)
            return;
        os_thread_yield();
    }
}

int backend_associate(struct backend *backend, os_handle handle)
{
    return CreateIoCompletionPort((HANDLE)handle, backend->port, KEY_PACKET, 0) ? ROUSE_OK : os_status(GetLastError());
}

/* A port can be waited for like an event, but nothing says what that tells. */
int backend_handle(struct backend *backend, os_handle *handle)
{
    (void)backend;
    (void)handle;
    return ROUSE_NOT_SUPPORTED;
}

/* What is told of a socket that nobody knows any more is told once. */
int backend_renew(struct backend *backend)
{
    (void)backend;
    return ROUSE_NOT_SUPPORTED;
}
