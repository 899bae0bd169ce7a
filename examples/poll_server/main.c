/* The demonstration server: its command line. The server itself is in fiber_style.c and again in poll_style.c. */
#include "server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_CANNOT_RUN = 1, EXIT_WRONG_ARGUMENTS = 2, EXIT_SECOND_SIGNAL = 130 };

static const char usage[] =
    "usage: poll_server [OPTION VALUE]...\n"
    "\n"
    "Answers whatever its clients send with \"[Server]: Got <TEXT>\". Ctrl-C stops it.\n"
    "\n"
    "  --listen HOST:PORT     numeric address to listen on, [HOST]:PORT for IPv6; port 0 picks a free one\n"
    "                         (127.0.0.1:9000)\n"
    "  --executor NAME        single or multi: on this thread alone, or on threads of its own (multi)\n"
    "  --scheduler NAME       round-robin or work-stealing: how tasks get to the threads of a multi (work-stealing)\n"
    "  --workers N            how many threads a multi has (one for each processor)\n"
    "  --style NAME           fiber or poll: how the server is written (fiber)\n"
    "  --help                 prints this\n";

struct settings {
    const char *listen;
    rouse_options options;
    int (*serve)(rouse_listener *listener, const rouse_options *options);
};

static int refuse(const char *text, const char *value)
{
    fprintf(stderr, "poll_server: %s: %s (--help lists the options)\n", text, value);
    return EXIT_WRONG_ARGUMENTS;
}

/* Reads one option with its value; answers 0 or an exit status. */
static int read_option(struct settings *settings, const char *option, const char *value)
{
    rouse_options *options = &settings->options;
    if (strcmp(option, "--listen") == 0) {
        rouse_address address;
        if (rouse_address_parse(&address, value) != ROUSE_OK)
            return refuse("--listen needs a numeric address with a port, not", value);
        settings->listen = value;
    } else if (strcmp(option, "--executor") == 0) {
        if (strcmp(value, "single") == 0)
            options->executor = ROUSE_EXECUTOR_SINGLE;
        else if (strcmp(value, "multi") == 0)
            options->executor = ROUSE_EXECUTOR_MULTI;
        else
            return refuse("--executor is single or multi, not", value);
    } else if (strcmp(option, "--scheduler") == 0) {
        if (strcmp(value, "round-robin") == 0)
            options->scheduler = ROUSE_SCHEDULER_ROUND_ROBIN;
        else if (strcmp(value, "work-stealing") == 0)
            options->scheduler = ROUSE_SCHEDULER_WORK_STEALING;
        else
            return refuse("--scheduler is round-robin or work-stealing, not", value);
    } else if (strcmp(option, "--workers") == 0) {
        char *end;
        long workers = strtol(value, &end, 10);
        if (value[0] < '0' || value[0] > '9' || *end != '\0' || workers < 1 || workers > 1024)
            return refuse("--workers is a number from 1 to 1024, not", value);
        options->workers = (unsigned)workers;
    } else if (strcmp(option, "--style") == 0) {
        if (strcmp(value, "fiber") == 0)
            settings->serve = serve_with_fibers;
        else if (strcmp(value, "poll") == 0)
            settings->serve = serve_with_polls;
        else
            return refuse("--style is fiber or poll, not", value);
    }
    return 0;
}

static int read_arguments(struct settings *settings, int argc, char **argv)
{
    static const char *const known[] = {"--listen", "--executor", "--scheduler", "--workers", "--style"};
    int scheduler_given = 0;
    for (int i = 1; i < argc; i += 2) {
        size_t k = 0;
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
        while (k < sizeof known / sizeof known[0] && strcmp(argv[i], known[k]) != 0)
            k++;
        if (k == sizeof known / sizeof known[0])
            return refuse("unknown argument", argv[i]);
        if (i + 1 == argc)
            return refuse("this option needs a value", argv[i]);
        int status = read_option(settings, argv[i], argv[i + 1]);
        if (status != 0)
            return status;
        scheduler_given |= strcmp(argv[i], "--scheduler") == 0;
    }
    if (settings->options.executor == ROUSE_EXECUTOR_SINGLE && scheduler_given)
        return refuse("a single executor has no scheduler to choose", "--scheduler");
    if (settings->options.executor == ROUSE_EXECUTOR_SINGLE && settings->options.workers > 1)
        return refuse("a single executor has one thread only", "--workers");
    return 0;
}

/* Async-signal-safe, and does not depend on the runtime still working. */
static void exit_at_once(int signal_number)
{
    (void)signal_number;
    _Exit(EXIT_SECOND_SIGNAL);
}

void exit_on_next_signal(void)
{
    rouse_signal_restore();
    signal(SIGINT, exit_at_once);
    signal(SIGTERM, exit_at_once);
}

int main(int argc, char **argv)
{
    struct settings settings = {"127.0.0.1:9000", ROUSE_OPTIONS_INIT, serve_with_fibers};
    rouse_listener *listener;
    rouse_address address;
    char text[ROUSE_ADDRESS_TEXT_MAX];
    int status = read_arguments(&settings, argc, argv);
    if (status != 0)
        return status;

#ifdef SIGPIPE
    signal(SIGPIPE, SIG_IGN); /* whoever reads our output may go away */
#endif
    status = rouse_listen(&listener, settings.listen, NULL);
    if (status != ROUSE_OK) {
        fprintf(stderr, "poll_server: cannot listen on %s: %s\n", settings.listen, rouse_status_text(status));
        return EXIT_CANNOT_RUN;
    }
    /* Whoever reads the first line may stop the server at once: from here on a signal is kept for the style's wait. */
    status = rouse_signal_catch(STOP_SIGNALS);
    if (status != ROUSE_OK) {
        fprintf(stderr, "poll_server: cannot wait for signals: %s\n", rouse_status_text(status));
        rouse_listener_close(listener);
        return EXIT_CANNOT_RUN;
    }
    rouse_listener_address(listener, &address);
    rouse_address_format(&address, text, sizeof text);
    printf("listening on %s\n", text);
    fflush(stdout);

    status = settings.serve(listener, &settings.options);
    if (status != ROUSE_OK) {
        fprintf(stderr, "poll_server: %s\n", rouse_status_text(status));
        return EXIT_CANNOT_RUN;
    }
    return 0;
}
