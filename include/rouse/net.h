/* rouse: TCP. */
#ifndef ROUSE_NET_H
#define ROUSE_NET_H

#include <rouse/io.h>
#include <rouse/scope.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- addresses ---- */

enum rouse_family { ROUSE_IPV4 = 4, ROUSE_IPV6 = 6 };

/* An address with its port. A plain value: copy it, compare its fields. */
typedef struct rouse_address {
    uint8_t family;    /* of enum rouse_family */
    uint8_t reserved;  /* zero */
    uint16_t port;     /* in this machine's byte order */
    uint32_t scope;    /* IPv6: interface index of a link-local address, else 0 */
    uint8_t bytes[16]; /* network byte order; IPv4 uses the first four */
} rouse_address;

/* Long enough for every text that rouse_address_format writes, its end included. */
#define ROUSE_ADDRESS_TEXT_MAX 72

/* Reads "127.0.0.1:80", "[::1]:80" or "[fe80::1%2]:80"; the port is 0 to 65535 in decimal without sign. Strict: no
 * spaces, no octal, no short forms of IPv4, no names. The scope is a number, or the name of an interface.
 * Errors: INVALID; NOT_FOUND for an interface that does not exist. Any thread. */
ROUSE_API int rouse_address_parse(rouse_address *address, const char *text);

/* Writes the form that rouse_address_parse reads. Answers the length without the final NUL, or TOO_LARGE (nothing but a
 * NUL is written, if there is room for it), or INVALID for an unknown family. */
ROUSE_API int rouse_address_format(const rouse_address *address, char *text, size_t size);

/* ---- listening ---- */

typedef struct rouse_listener rouse_listener;

/* Initialise with ROUSE_LISTEN_OPTIONS_INIT. */
typedef struct rouse_listen_options {
    size_t size;       /* sizeof this struct */
    int backlog;       /* connections the kernel keeps until they are accepted; 0: 4096 */
    int reuse_address; /* not 0 (default): bind while old connections linger. On Windows SO_REUSEADDR is never set, which
                        * would let others take the port: binding like this works there without. 0 there: nobody else can
                        * bind the port, whatever he sets (SO_EXCLUSIVEADDRUSE) */
    int reuse_port;    /* not 0: several listeners may share the port, the kernel spreads connections. NOT_SUPPORTED on
                        * Windows */
    int v6_only;       /* not 0: an IPv6 listener takes no IPv4 connections; 0: it does where the address is [::] */
    int no_delay;      /* not 0 (default): accepted connections send small writes at once */
} rouse_listen_options;
#define ROUSE_LISTEN_OPTIONS_INIT                   \
    {                                               \
        sizeof(rouse_listen_options), 0, 1, 0, 0, 1 \
    }

/* Listens on an address (port 0: the system picks one); NULL options: the defaults. Does not wait. Any thread.
 * Errors: INVALID, ADDRESS_IN_USE, ADDRESS_NOT_AVAILABLE, PERMISSION_DENIED, TOO_MANY_FILES, NO_MEMORY,
 * NOT_SUPPORTED. */
#define rouse_listen(listener, text, options) rouse_listen_at((listener), (text), (options), ROUSE_HERE)
ROUSE_API int rouse_listen_at(rouse_listener **listener, const char *text, const rouse_listen_options *options,
                              const char *site);

/* Waits for a connection. Errors that concern one connection, or pass by themselves, are hidden: it tries again, and
 * when descriptors or memory have run out it waits until a stream is closed or 100 ms have passed, at the longest. Fails
 * only when the listener is closed, or none, or with why a wait ends or cannot begin (op.h): a plain thread needs
 * descriptors and memory for the default runtime, once. `peer` may be NULL. */
#define rouse_accept(listener, stream, peer) rouse_accept_at((listener), (stream), (peer), ROUSE_HERE)
ROUSE_API int rouse_accept_at(rouse_listener *listener, rouse_stream **stream, rouse_address *peer, const char *site);

/* The operation: *stream, and *peer if not NULL, are set when it answers ROUSE_OK, and must stay until then. */
ROUSE_API void rouse_accept_init(rouse_op *op, rouse_listener *listener, rouse_stream **stream, rouse_address *peer);

/* The ordinary accept loop: accepts, starts `serve` with the rouse_stream * as its argument in the innermost scope of
 * the calling fiber, and closes the peer itself if that fails. Stops when cancelled, timed out or when the listener is
 * closed by another; closes the listener in every case. Answers why it stopped. */
ROUSE_API int rouse_serve(rouse_listener *listener, rouse_fiber_function *serve);

/* The address that is listened on, with the port that was picked. */
ROUSE_API int rouse_listener_address(rouse_listener *listener, rouse_address *address);

/* As rouse_close. Pending accepts are woken with CLOSED. */
ROUSE_API int rouse_listener_close(rouse_listener *listener);

/* ---- connecting ---- */

/* Connects to an address in text form. Errors: INVALID, CONNECTION_REFUSED, NETWORK_UNREACHABLE, HOST_UNREACHABLE,
 * CONNECTION_RESET, ADDRESS_NOT_AVAILABLE, PERMISSION_DENIED, TIMED_OUT (a deadline, or the peer does not answer),
 * TOO_MANY_FILES, NO_MEMORY, and why a wait ends or cannot begin (op.h). */
#define rouse_connect(stream, text) rouse_connect_at((stream), (text), ROUSE_HERE)
ROUSE_API int rouse_connect_at(rouse_stream **stream, const char *text, const char *site);

/* The operation, with a parsed address; it is copied by the first poll and must stay until then. */
ROUSE_API void rouse_connect_init(rouse_op *op, rouse_stream **stream, const rouse_address *address);

/* ---- connections ---- */

/* Where a connection begins and ends, as this side sees it; `stream` may be a listener cast to rouse_stream *, which has no
 * peer. Never waits. Errors: INVALID, CLOSED, NOT_CONNECTED, NOT_SUPPORTED (a stream that you made, or no internet address). */
ROUSE_API int rouse_local_address(rouse_stream *stream, rouse_address *address);
ROUSE_API int rouse_peer_address(rouse_stream *stream, rouse_address *address);

enum rouse_option {
    ROUSE_OPTION_NO_DELAY = 1,       /* 0 or 1; connections start with 1 */
    ROUSE_OPTION_KEEP_ALIVE = 2,     /* seconds of silence before the first probe; 0: off */
    ROUSE_OPTION_LINGER = 3,         /* seconds that close waits for unsent bytes; 0: close resets; -1: off */
    ROUSE_OPTION_SEND_BUFFER = 4,    /* bytes; the system may take another figure */
    ROUSE_OPTION_RECEIVE_BUFFER = 5, /* bytes; likewise */
    ROUSE_OPTION_REUSE_ADDRESS = 6,  /* get only */
    ROUSE_OPTION_REUSE_PORT = 7,     /* get only */
    ROUSE_OPTION_V6_ONLY = 8         /* get only */
};

/* Sets or gets an option of a socket; `stream` may be a listener cast to rouse_stream *.
 * Errors: INVALID, NOT_SUPPORTED, CLOSED. Setting one option never changes another. */
ROUSE_API int rouse_option_set(rouse_stream *stream, int option, int value);
ROUSE_API int rouse_option_get(rouse_stream *stream, int option, int *value);

#ifdef __cplusplus
}
#endif
#endif
