/* rouse: an asynchronous runtime for C.
 *
 *     #include <rouse/rouse.h>
 *
 *     static int serve(void *arg)
 *     {
 *         rouse_stream *peer = arg;
 *         char buf[4096];
 *         ptrdiff_t n;
 *         while ((n = rouse_read(peer, buf, sizeof buf)) > 0 && rouse_write_all(peer, buf, (size_t)n, NULL) == ROUSE_OK) {}
 *         return rouse_close(peer);
 *     }
 *
 *     static int app(void *arg)
 *     {
 *         rouse_listener *listener;
 *         int status = rouse_listen(&listener, "127.0.0.1:9000", NULL);
 *         (void)arg;
 *         return status == ROUSE_OK ? rouse_serve(listener, serve) : status;
 *     }
 *
 *     int main(void) { return rouse_exit_code(rouse_run(app, NULL, NULL)); }
 *
 * Read the headers in this order: base.h (statuses, time), task.h (poll functions, wakers), op.h (operations),
 * fiber.h and scope.h (straight-line code and who owns it), time.h, io.h, net.h, signal.h, runtime.h.
 *
 * Which thread may call what: unless a call says otherwise, any thread, at any time, also a task of another runtime.
 * "Parks" means: the calling fiber, or the calling plain thread; inside a poll function such calls answer IN_POLL. */
#ifndef ROUSE_ROUSE_H
#define ROUSE_ROUSE_H

#include <rouse/base.h>
#include <rouse/task.h>
#include <rouse/op.h>
#include <rouse/time.h>
#include <rouse/fiber.h>
#include <rouse/scope.h>
#include <rouse/io.h>
#include <rouse/net.h>
#include <rouse/signal.h>
#include <rouse/runtime.h>

#endif
