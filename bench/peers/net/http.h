/* The HTTP/1.1 plaintext exchange every server here speaks. */
#ifndef PEER_HTTP_H
#define PEER_HTTP_H
#include <stddef.h>
#include <string.h>
#define HTTP_REPLY     "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"
#define HTTP_REPLY_LEN (sizeof HTTP_REPLY - 1)
#define HTTP_MAX_BATCH 64 /* a 4096 byte read holds at most this many requests from wrk */

/* Counts the complete request heads in buf, at most max; *used = the bytes they take. */
static inline size_t http_count(const char *buf, size_t len, size_t max, size_t *used)
{
    size_t n = 0, at = 0;
    while (n < max) {
        const char *end = (const char *)memmem(buf + at, len - at, "\r\n\r\n", 4);
        if (!end)
            break;
        at = (size_t)(end - buf) + 4;
        n++;
    }
    *used = at;
    return n;
}
#endif
