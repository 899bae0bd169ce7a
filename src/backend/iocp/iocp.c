/* The backend of Windows: readiness of sockets through a completion port.
 *
 * Windows tells of operations that are complete, not of sockets that are ready, but the driver below all sockets, AFD, has an
 * operation "poll": it completes when one of its sockets is ready, at once if one is already. select() is made of it. Here
 * each socket has a record with a poll of its own, whose completion comes to the port.
 *
 * The poll of a record asks for all that is waited for; two polls of one socket through the same handle of AFD take each
 * other's events. Completing it idles the record until it is armed again. When more is waited for than the poll in flight
 * asks for, its cancelling is requested, and whoever takes its completion from the port polls again. Levels make urgent
 * data no concern of this file: what a short count has left behind is seen on arming. To ask for it would do harm: it stays
 * until it is read by a call of its own, and whoever waits for other data would be told of it again and again.
 *
 * A record belongs to the kernel while its poll is in flight. Detached then, it stays until the completion has come.
 *
 * Alternatives that lost: a read of no bytes in flight for each socket, as many do, which says nothing about writing or
 * accepting; operations that complete with their data, whose buffers the caller would have to leave alone after giving up;
 * WSAEventSelect, 64 sockets for a thread; registered I/O and WSAPoll, which cannot be waited for together with others.
 *
 * The port waits in milliseconds, which are rounded up to the system's clock tick of up to 15.6. Short waits end by a timer
 * of high resolution, where there is one whose end can come to the port. Lost: timeBeginPeriod, which makes the ticks of the
 * whole machine shorter. */
#include "backend/iocp/iocp.h"

#include "core/alloc.h"
#include "core/list.h"
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

#if !defined(CREATE_WAITABLE_TIMER_HIGH_RESOLUTION)
#define CREATE_WAITABLE_TIMER_HIGH_RESOLUTION 2
#endif

/* By number: ntstatus.h and windows.h define some of these names both. */
#define NT_PENDING   ((NTSTATUS)0x00000103)
#define NT_CANCELLED ((NTSTATUS)0xc0000120)

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
typedef NTSTATUS NTAPI create_file(HANDLE *made, ACCESS_MASK access, OBJECT_ATTRIBUTES *name, IO_STATUS_BLOCK *io,
                                   LARGE_INTEGER *size, ULONG attributes, ULONG share, ULONG disposition, ULONG options,
                                   void *extra, ULONG extra_bytes);
typedef NTSTATUS NTAPI create_packet(HANDLE *made, ACCESS_MASK access, OBJECT_ATTRIBUTES *name);
typedef NTSTATUS NTAPI associate_packet(HANDLE packet, HANDLE port, HANDLE object, void *key, void *overlapped,
                                        NTSTATUS status, ULONG_PTR information, BOOLEAN *signaled);
typedef NTSTATUS NTAPI cancel_packet(HANDLE packet, BOOLEAN even_if_queued);

/* Who the completions at the port are for. */
enum { KEY_POLL = 1, KEY_WAKE, KEY_TIMER, KEY_PACKET };

struct record {
    OVERLAPPED overlapped; /* of the poll; first, because its address is what comes back. The kernel's while `polled` */
    struct afd_poll poll;  /* likewise */
    struct group *group;   /* that it is a part of */
    struct record *child[2]; /* of the tree while `tracked`; [0]: the next free one of the group */
    uint64_t token;          /* as given to attach */
    os_handle handle;        /* likewise; the key of the tree */
    SOCKET base;             /* the same socket as the lowest provider knows it */
    ULONG wanted;            /* AFD_*: what is armed; 0 after an event */
    ULONG polled;            /* AFD_*: what the poll in flight asks for; 0: none is */
    bool tracked;            /* it is in the tree; else the socket is closed, or the record detached */
    bool detached;           /* its source is gone; the completion of the poll frees it */
};

struct group {
    HANDLE afd;            /* of the driver; its completions come to the port */
    struct list_node link; /* in `roomy` while not all records are used */
    struct record *free;   /* the first record that is not used */
    unsigned used;         /* how many records are */
    struct record records[GROUP_SIZE];
};

struct backend {
    HANDLE port;
    rouse_allocator allocator;
    struct lock lock;    /* a leaf; of the records and of what follows down to in_flight */
    struct record *tree; /* the tracked ones: at depth n, bit n of the scattered handle says which child comes next */
    struct list_node roomy; /* the groups with room; one may be empty */
    size_t in_flight;       /* how many polls are */
    /* Below: only the holder of the right to wait. */
    associate_packet *associate;
    cancel_packet *cancel;
    HANDLE timer;     /* of high resolution; NULL: the system lacks it, or the packets */
    HANDLE packet;    /* brings the timer's end to the port */
    int64_t timer_ns; /* the deadline that it will tell of, or NO_TIMER */
    OVERLAPPED_ENTRY entries[BATCH];
};

/* ---- the tree: nothing to allocate, nothing to balance, for scattered keys spread by themselves ---- */

/* Where the record of a handle is linked, or would be. */
static struct record **find(struct backend *backend, os_handle handle)
{
    struct record **place = &backend->tree;
    /* An odd factor: no two handles have the same product. */
    uint64_t bits = (uint64_t)handle * UINT64_C(0x9e3779b97f4a7c15);
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
    if (leaf != record) {
        leaf->child[0] = record->child[0];
        leaf->child[1] = record->child[1];
        *place = leaf;
    }
    record->tracked = false;
}

/* ---- groups ---- */

static void group_free(struct backend *backend, struct group *group)
{
    if (!group)
        return;
    (void)CloseHandle(group->afd);
    alloc_give(&backend->allocator, group, sizeof *group, _Alignof(struct group));
}

static int open_afd(struct backend *backend, HANDLE *afd)
{
    static wchar_t device[] = L"\\Device\\Afd\\Rouse"; /* the last part is free */
    static atomic_ptr known;
    UNICODE_STRING name = {sizeof device - sizeof *device, sizeof device, device};
    OBJECT_ATTRIBUTES attributes = {.Length = sizeof attributes, .ObjectName = &name};
    IO_STATUS_BLOCK io;
    create_file *create = (create_file *)(uintptr_t)os_system_function(&known, L"ntdll.dll", "NtCreateFile");
    if (!create)
        return ROUSE_NOT_SUPPORTED;
    NTSTATUS answer =
        create(afd, SYNCHRONIZE, &attributes, &io, NULL, 0, FILE_SHARE_READ | FILE_SHARE_WRITE, FILE_OPEN, 0, NULL, 0);
    if (answer < 0)
        return os_nt_status(answer);
    /* Nobody waits for the handle itself; without this each completion signals it. */
    (void)SetFileCompletionNotificationModes(*afd, FILE_SKIP_SET_EVENT_ON_HANDLE);
    if (CreateIoCompletionPort(*afd, backend->port, KEY_POLL, 0))
        return ROUSE_OK;
    int status = os_status(GetLastError());
    (void)CloseHandle(*afd);
    return status;
}

static int group_make(struct backend *backend, struct group **made)
{
    struct group *group = alloc_take(&backend->allocator, sizeof *group, _Alignof(struct group));
    if (!group)
        return ROUSE_NO_MEMORY;
    *group = (struct group){.free = NULL};
    int status = open_afd(backend, &group->afd);
    if (status != ROUSE_OK) {
        alloc_give(&backend->allocator, group, sizeof *group, _Alignof(struct group));
        return status;
    }
    for (size_t i = GROUP_SIZE; i-- > 0;) {
        group->records[i] = (struct record){.group = group, .child = {group->free}};
        group->free = &group->records[i];
    }
    *made = group;
    return ROUSE_OK;
}

/* Under the lock, with a group that has room. */
static struct record *take_record(struct backend *backend)
{
    struct group *group = CONTAINER_OF(backend->roomy.next, struct group, link);
    struct record *record = group->free;
    group->free = record->child[0];
    if (++group->used == GROUP_SIZE)
        list_remove(&group->link);
    return record;
}

/* Under the lock: the record is neither tracked nor in flight. Answers a group to be freed after it, or NULL. */
static struct group *give_record(struct backend *backend, struct record *record)
{
    struct group *group = record->group;
    record->child[0] = group->free;
    group->free = record;
    if (group->used-- == GROUP_SIZE)
        list_push_back(&backend->roomy, &group->link);
    if (group->used > 0 || backend->roomy.next == backend->roomy.prev)
        return NULL;
    list_remove(&group->link);
    return group;
}

/* ---- polls; under the lock ---- */

/* Polls for what is wanted. What fails at once has no completion; what succeeds at once has one. */
static int poll_record(struct backend *backend, struct record *record)
{
    record->overlapped = (OVERLAPPED){.hEvent = NULL};
    record->poll = (struct afd_poll){
        .until = {.QuadPart = INT64_MAX}, .count = 1, .socket = (HANDLE)record->base, .events = record->wanted};
    DWORD error = ERROR_IO_PENDING;
    if (!DeviceIoControl(record->group->afd, AFD_POLL, &record->poll, sizeof record->poll, &record->poll,
                         sizeof record->poll, NULL, &record->overlapped))
        error = GetLastError();
    if (error == ERROR_IO_PENDING) {
        record->polled = record->wanted;
        backend->in_flight++;
        return ROUSE_OK;
    }
    if (error == ERROR_INVALID_HANDLE)
        untrack(backend, record); /* closed without detaching: the number is free for another socket */
    return os_status(error);
}

/* If it is too late, the completion is at the port already. */
static void cancel_poll(struct record *record)
{
    (void)CancelIoEx(record->group->afd, &record->overlapped);
}

/* What a poll that is over has found; nothing if it was cancelled. */
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
    struct group *empty = NULL;
    lock_acquire(&backend->lock);
    *event = (struct backend_event){.token = record->token, .kind = BACKEND_READY};
    record->polled = 0;
    backend->in_flight--;
    if (record->detached) {
        event->kind = BACKEND_RETIRED;
        empty = give_record(backend, record);
    } else {
        ULONG events = events_of(record);
        if (events & AFD_CLOSE)
            untrack(backend, record);
        if (channels_of(events) == 0 && record->wanted && poll_record(backend, record) != ROUSE_OK)
            events = AFD_ABORT;
        event->channels = channels_of(events);
        if (events)
            record->wanted = 0;
    }
    lock_release(&backend->lock);
    group_free(backend, empty);
    return event->kind == BACKEND_RETIRED || event->channels != 0;
}

/* ---- opening and closing ---- */

/* Failing is no error: waits are rounded up to ticks then. */
static void open_timer(struct backend *backend)
{
    static atomic_ptr known[3];
    create_packet *create =
        (create_packet *)(uintptr_t)os_system_function(&known[0], L"ntdll.dll", "NtCreateWaitCompletionPacket");
    backend->associate =
        (associate_packet *)(uintptr_t)os_system_function(&known[1], L"ntdll.dll", "NtAssociateWaitCompletionPacket");
    backend->cancel =
        (cancel_packet *)(uintptr_t)os_system_function(&known[2], L"ntdll.dll", "NtCancelWaitCompletionPacket");
    backend->timer_ns = NO_TIMER;
    if (!create || !backend->associate || !backend->cancel)
        return;
    HANDLE timer = CreateWaitableTimerExW(NULL, NULL, CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, TIMER_ALL_ACCESS);
    if (timer && create(&backend->packet, GENERIC_ALL, NULL) >= 0)
        backend->timer = timer;
    else if (timer)
        (void)CloseHandle(timer);
}

int backend_open(struct backend **opened, const rouse_allocator *allocator)
{
    struct group *group;
    struct backend *backend = alloc_take(allocator, sizeof *backend, _Alignof(struct backend));
    if (!backend)
        return ROUSE_NO_MEMORY;
    *backend = (struct backend){.allocator = *allocator};
    list_init(&backend->roomy);
    int status = os_winsock_start();
    backend->port = status == ROUSE_OK ? CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 1) : NULL;
    if (status == ROUSE_OK && !backend->port)
        status = os_status(GetLastError());
    if (status == ROUSE_OK)
        status = group_make(backend, &group); /* at once, which shows that there is such a driver */
    if (status == ROUSE_OK) {
        list_push_back(&backend->roomy, &group->link);
        open_timer(backend);
        *opened = backend;
        return ROUSE_OK;
    }
    if (backend->port)
        (void)CloseHandle(backend->port);
    alloc_give(allocator, backend, sizeof *backend, _Alignof(struct backend));
    return status;
}

/* Nobody else uses the backend any more. What the kernel does not give back, because the program has closed the port's
 * handle for example, is left to it. */
void backend_close(struct backend *backend)
{
    rouse_allocator allocator = backend->allocator;
    struct backend_event ignored[16];
    while (backend->tree) {
        struct backend_source source = {backend->tree->handle, NULL};
        (void)backend_detach(backend, &source, false);
    }
    while (backend->in_flight > 0 && backend_wait(backend, ignored, 16, ROUSE_NEVER) >= 0) {}
    for (struct list_node *link; (link = list_pop_front(&backend->roomy)) != NULL;) {
        struct group *group = CONTAINER_OF(link, struct group, link);
        if (group->used == 0)
            group_free(backend, group);
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
    if (status != ROUSE_OK)
        return status;
    lock_acquire(&backend->lock);
    while (list_is_empty(&backend->roomy)) {
        struct group *made;
        lock_release(&backend->lock);
        status = group_make(backend, &made);
        if (status != ROUSE_OK)
            return status;
        lock_acquire(&backend->lock);
        list_push_back(&backend->roomy, &made->link);
    }
    struct record **place = find(backend, source->handle);
    if (*place) {
        status = ROUSE_ALREADY_EXISTS;
    } else {
        struct record *record = take_record(backend);
        *record = (struct record){
            .group = record->group, .token = token, .handle = source->handle, .base = base, .tracked = true};
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
            cancel_poll(record);
    } else if (wanted) {
        status = record->tracked ? poll_record(backend, record) : ROUSE_BAD_DESCRIPTOR;
    }
    lock_release(&backend->lock);
    return status;
}

int backend_detach(struct backend *backend, struct backend_source *source, bool closing)
{
    struct group *empty = NULL;
    int answer = BACKEND_DONE;
    (void)closing; /* to close the socket ends the poll too, but takes it no further from the kernel */
    lock_acquire(&backend->lock);
    /* Without a record: for another source that had the handle, and has forgotten to detach it. */
    struct record *record = source->record ? source->record : *find(backend, source->handle);
    source->record = NULL;
    if (record) {
        untrack(backend, record);
        if (record->polled) {
            record->detached = true;
            cancel_poll(record);
            answer = BACKEND_LATER;
        } else {
            empty = give_record(backend, record);
        }
    }
    lock_release(&backend->lock);
    group_free(backend, empty);
    return answer;
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

static DWORD milliseconds_until(struct backend *backend, int64_t deadline_ns)
{
    DWORD milliseconds = deadline_ns <= 0 ? 0 : os_milliseconds(deadline_ns);
    bool fine = backend->timer && milliseconds > 0 && milliseconds < FINE_WAIT_MS;
    if (fine && set_timer(backend, deadline_ns))
        return 0;
    return milliseconds < WAIT_MAX_MS ? milliseconds : WAIT_MAX_MS;
}

int backend_wait(struct backend *backend, struct backend_event *events, int limit, int64_t deadline_ns)
{
    ULONG count = 0;
    DWORD milliseconds = milliseconds_until(backend, deadline_ns);
    if (!GetQueuedCompletionStatusEx(backend->port, backend->entries, (ULONG)(limit < BATCH ? limit : BATCH), &count,
                                     milliseconds, FALSE)) {
        DWORD error = GetLastError(); /* the count says nothing now */
        return error == WAIT_TIMEOUT ? 0 : os_status(error);
    }
    int told = 0;
    for (ULONG i = 0; i < count; i++) {
        void *overlapped = backend->entries[i].lpOverlapped;
        switch (backend->entries[i].lpCompletionKey) {
        case KEY_POLL:
            told += finish_poll(backend, overlapped, &events[told]);
            break;
        case KEY_TIMER:
            backend->timer_ns = NO_TIMER;
            break;
        case KEY_PACKET:
            events[told++] = (struct backend_event){.token = (uintptr_t)overlapped, .kind = BACKEND_PACKET};
            break;
        default:
            break; /* a wake has done its work: wait returns */
        }
    }
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
