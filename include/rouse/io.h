/* rouse: streams of bytes.
 *
 * One type for everything that reads and writes: TCP connections now, other kinds later, and streams that you make.
 * A rouse_stream * is a name, not an address: using it after rouse_close answers CLOSED. Any thread may use any stream;
 * reading and writing at the same time is fine, and so is closing while others wait: they are woken with CLOSED (on a
 * stream that you make, by its close function). The events of a stream come to one runtime at a time, that of whoever
 * waited for it first: while several wait for the same stream, the single-threaded runtimes among theirs have to be
 * driven. */
#ifndef ROUSE_IO_H
#define ROUSE_IO_H

#include <rouse/op.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rouse_stream rouse_stream;

/* One piece of a vectored read or write. */
typedef struct rouse_buffer {
    void *data;    /* not written to by writes */
    size_t length; /* bytes */
} rouse_buffer;

/* Reads at most `length` bytes, at least one; answers how many, 0 at the end of the stream. length 0 answers 0 at once.
 * Errors: CLOSED, INVALID (NULL with a length), TOO_LARGE (over PTRDIFF_MAX), why a wait ends or cannot begin (op.h), and
 * what became of the connection, CONNECTION_RESET for example. TIMED_OUT is both a deadline that has passed and, from the
 * system, a peer that no longer answers: it was the deadline if rouse_deadline_current is past. A reset is told once as
 * CONNECTION_RESET, to whoever reads or writes first; what later calls on that connection say is the system's own. */
ROUSE_API ptrdiff_t rouse_read(rouse_stream *stream, void *data, size_t length);

/* Writes at least one byte; answers how many. Errors as rouse_read, and BROKEN_PIPE; never raises SIGPIPE. */
ROUSE_API ptrdiff_t rouse_write(rouse_stream *stream, const void *data, size_t length);

/* Writes all, or fails; *done (may be NULL) says how many bytes went out in either case. */
ROUSE_API int rouse_write_all(rouse_stream *stream, const void *data, size_t length, size_t *done);

/* Reads exactly `length` bytes, or fails: END_OF_STREAM if the stream ends before. *done as above; those bytes are in
 * `data`. */
ROUSE_API int rouse_read_exact(rouse_stream *stream, void *data, size_t length, size_t *done);

/* Vectored forms: count pieces, at most 1024 of them; the array itself is copied by no one and must stay. */
ROUSE_API ptrdiff_t rouse_readv(rouse_stream *stream, const rouse_buffer *pieces, size_t count);
ROUSE_API ptrdiff_t rouse_writev(rouse_stream *stream, const rouse_buffer *pieces, size_t count);

/* Like rouse_read, but leaves the bytes in the stream. NOT_SUPPORTED for streams that cannot. */
ROUSE_API ptrdiff_t rouse_peek(rouse_stream *stream, void *data, size_t length);

/* The operations of the calls above. Buffers and `done` must stay until they are finished or cancelled. */
ROUSE_API void rouse_read_init(rouse_op *op, rouse_stream *stream, void *data, size_t length);
ROUSE_API void rouse_write_init(rouse_op *op, rouse_stream *stream, const void *data, size_t length);
ROUSE_API void rouse_write_all_init(rouse_op *op, rouse_stream *stream, const void *data, size_t length, size_t *done);
ROUSE_API void rouse_read_exact_init(rouse_op *op, rouse_stream *stream, void *data, size_t length, size_t *done);
ROUSE_API void rouse_readv_init(rouse_op *op, rouse_stream *stream, const rouse_buffer *pieces, size_t count);
ROUSE_API void rouse_writev_init(rouse_op *op, rouse_stream *stream, const rouse_buffer *pieces, size_t count);
ROUSE_API void rouse_peek_init(rouse_op *op, rouse_stream *stream, void *data, size_t length);

/* Ends one direction. ROUSE_SHUTDOWN_WRITE sends the end of stream to the peer. On a connection that is gone already:
 * NOT_CONNECTED. Does not wait. */
enum rouse_shutdown_side { ROUSE_SHUTDOWN_READ = 1, ROUSE_SHUTDOWN_WRITE = 2, ROUSE_SHUTDOWN_BOTH = 3 };
ROUSE_API int rouse_shutdown(rouse_stream *stream, int side);

/* Closes. The handle is dead from now on; whoever waits on it is woken with CLOSED. Never waits, never cancelled.
 * CLOSED if it was closed before. */
ROUSE_API int rouse_close(rouse_stream *stream);

/* ---- other descriptors ---- */

enum rouse_direction { ROUSE_READABLE = 1, ROUSE_WRITABLE = 2 };

/* Adopts a descriptor that the kernel can wait for (socket, pipe, terminal ...) and makes it non-blocking; the library
 * closes it with the stream. It belongs to one stream: while another one has it too, a call on one of them that would have
 * to wait may answer ALREADY_EXISTS. A socket whose TLS the kernel does is set up before it is adopted. On failure the
 * descriptor stays the caller's, unchanged. Errors: INVALID, BAD_DESCRIPTOR, NOT_POLLABLE (a regular file, say), NO_MEMORY. */
#define rouse_adopt(stream, descriptor) rouse_adopt_at((stream), (descriptor), ROUSE_HERE)
ROUSE_API int rouse_adopt_at(rouse_stream **stream, intptr_t descriptor, const char *site);

/* Gives the descriptor back and ends the stream as rouse_close does, but does not close it. It is non-blocking still,
 * whatever it was when it was adopted. BUSY while another thread is inside a call on it; NOT_SUPPORTED for a stream that
 * you made. */
ROUSE_API int rouse_release(rouse_stream *stream, intptr_t *descriptor);

/* The descriptor, to set options or to look. It still belongs to the stream. Errors: INVALID, CLOSED, NOT_SUPPORTED (a
 * stream that you made). */
ROUSE_API int rouse_descriptor(rouse_stream *stream, intptr_t *descriptor);

/* Waits until the descriptor is readable (or at its end), or writable (or broken): level-triggered, for code that
 * does its own system calls. Errors: INVALID (a listener, or no direction), CLOSED, NOT_SUPPORTED (a stream that you made), and
 * why a wait ends or cannot begin (op.h). */
ROUSE_API int rouse_wait_ready(rouse_stream *stream, int direction);
ROUSE_API void rouse_wait_ready_init(rouse_op *op, rouse_stream *stream, int direction);

/* ---- streams that you make (TLS, memory, tests) ---- */

/* The functions never block; ROUSE_PENDING means that the context's waker was cloned and will be woken. */
typedef struct rouse_stream_type {
    const char *name;                                                                               /* for reports */
    ptrdiff_t (*poll_read)(void *object, void *data, size_t length, rouse_context *context);        /* as rouse_read */
    ptrdiff_t (*poll_write)(void *object, const void *data, size_t length, rouse_context *context); /* as rouse_write */
    int (*shutdown)(void *object, int side); /* as rouse_shutdown; NULL: NOT_SUPPORTED */
    void (*close)(void *object); /* called once, when the stream was closed and no call is inside it; wakes the
                                                wakers that the object keeps: nobody else knows them, and whoever waits
                                                learns only then that the stream was closed */
    void *reserved[4];           /* zero */
} rouse_stream_type;

/* Makes a stream of it. Errors: INVALID, NO_MEMORY; then the object is still the caller's. */
#define rouse_stream_new(stream, type, object) rouse_stream_new_at((stream), (type), (object), ROUSE_HERE)
ROUSE_API int rouse_stream_new_at(rouse_stream **stream, const rouse_stream_type *type, void *object, const char *site);

#ifdef __cplusplus
}
#endif
#endif
