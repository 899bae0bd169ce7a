/* A conversation of twenty clients with a server, compared byte for byte with one expected text, which is the same for every
 * system, backend and executor: what each side wrote and read, in its own order, and the status with which each call ended.
 *
 * Events of different connections come in any order, so each side of each connection has a transcript of its own, and they
 * are put one behind the other by the number of the client. The server takes lines, not whatever one read gives, so how the
 * bytes are cut on their way does not show. What systems decide for themselves is left out: how much fits into the buffers on
 * the way, whether bytes that nobody has read outlive a reset, and what a connection says after it has told of its reset. */
#include "support/io.h"

#include <stdarg.h>

enum { CLIENTS = 20, SIDE_BYTES = 1500, LINE_BYTES = 200, ECHO_BYTES = 100000, FLOOD_BYTES = 64 * 1024 };

/* One end of a connection: its transcript, and what it has read but not looked at yet. */
struct side {
    const char *name;
    int number;
    rouse_stream *stream;
    size_t said;            /* of the transcript */
    char text[SIDE_BYTES];  /* the transcript */
    size_t held;            /* of what was read */
    char lines[LINE_BYTES]; /* what was read */
};

static struct side clients[CLIENTS], servers[CLIENTS];

/* ---- transcripts ---- */

static void say(struct side *side, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int head = snprintf(side->text + side->said, SIDE_BYTES - side->said, "%s %02d ", side->name, side->number);
    require(head > 0 && side->said + (size_t)head < SIDE_BYTES);
    side->said += (size_t)head;
    int length = vsnprintf(side->text + side->said, SIDE_BYTES - side->said, format, arguments);
    require(length > 0 && side->said + (size_t)length < SIDE_BYTES);
    side->said += (size_t)length;
    va_end(arguments);
}

static void say_status(struct side *side, const char *call, ptrdiff_t status)
{
    say(side, "%s: %s\n", call, status == 0 ? "OK" : rouse_status_name((int)status));
}

/* ---- what both sides do ---- */

/* In quotes, with the ends of lines and tabs as C writes them. */
static void say_text(struct side *side, const char *call, const char *text, const char *outcome)
{
    char quoted[2 * LINE_BYTES];
    size_t length = 0;
    for (; *text != '\0'; text++) {
        require(length < sizeof quoted - 3);
        bool is_escaped = *text == '\n' || *text == '\t' || *text == '"';
        if (is_escaped)
            quoted[length++] = '\\';
        quoted[length++] = (char)(*text == '\n' ? 'n' : *text == '\t' ? 't' : *text);
    }
    quoted[length] = '\0';
    say(side, "%s \"%s\"%s%s\n", call, quoted, *outcome == '\0' ? "" : ": ", outcome);
}

static void write_text(struct side *side, const char *text)
{
    int status = rouse_write_all(side->stream, text, strlen(text), NULL);
    say_text(side, "writes", text, rouse_status_name(status));
}

/* Takes the next line, without its end, or what is left at the end of the stream; answers its length, or -1 when there is
 * nothing more, whose reason is in the transcript. */
static int read_line(struct side *side, char line[LINE_BYTES])
{
    for (;;) {
        char *end = memchr(side->lines, '\n', side->held);
        if (end != NULL) {
            size_t length = (size_t)(end - side->lines);
            memcpy(line, side->lines, length);
            line[length] = '\0';
            side->held -= length + 1;
            memmove(side->lines, end + 1, side->held);
            say_text(side, "reads the line", line, "");
            return (int)length;
        }
        require(side->held < LINE_BYTES - 1);
        ptrdiff_t count = rouse_read(side->stream, side->lines + side->held, LINE_BYTES - 1 - side->held);
        if (count > 0) {
            side->held += (size_t)count;
            continue;
        }
        if (count == 0 && side->held > 0) {
            size_t length = side->held;
            memcpy(line, side->lines, length);
            line[length] = '\0';
            side->held = 0;
            say_text(side, "reads before the end", line, "");
            return (int)length;
        }
        say(side, "reads: %s\n", count == 0 ? "the end" : rouse_status_name((int)count));
        return -1;
    }
}

static void close_side(struct side *side)
{
    say_status(side, "closes", rouse_close(side->stream));
}

static void reset(struct side *side)
{
    say_status(side, "will reset", rouse_option_set(side->stream, ROUSE_OPTION_LINGER, 0));
    close_side(side);
}

static void end_writing(struct side *side)
{
    say_status(side, "ends writing", rouse_shutdown(side->stream, ROUSE_SHUTDOWN_WRITE));
}

/* ---- the server ---- */

static void answer(struct side *side, const char *line)
{
    char reply[LINE_BYTES + 20];
    snprintf(reply, sizeof reply, "[Server]: Got %s\n", line);
    write_text(side, reply);
}

static void give_back(struct side *side)
{
    size_t done = 0;
    char *bytes = test_memory(ECHO_BYTES);
    require(side->held == 0); /* the client waits for the answer before it sends them */
    int status = rouse_read_exact(side->stream, bytes, ECHO_BYTES, &done);
    say(side, "reads %u bytes: %s\n", (unsigned)done, rouse_status_name(status));
    status = rouse_write_all(side->stream, bytes, ECHO_BYTES, &done);
    say(side, "writes %u bytes: %s\n", (unsigned)done, rouse_status_name(status));
    free(bytes);
}

static void flood(struct side *side)
{
    int status;
    char *bytes = test_memory(FLOOD_BYTES);
    while ((status = rouse_write_all(side->stream, bytes, FLOOD_BYTES, NULL)) == ROUSE_OK) {}
    say_status(side, "writes without end", status);
    free(bytes);
}

/* What a line asks for beside an answer; false if the conversation is over. */
static bool do_as_told(struct side *side, const char *line)
{
    if (strcmp(line, "hush") == 0) {
        return true;
    }
    if (strcmp(line, "reset me") == 0) {
        reset(side);
        return true; /* what a closed stream says is worth a line */
    }
    answer(side, line);
    if (strcmp(line, "bye") == 0) {
        end_writing(side);
    } else if (strcmp(line, "give back") == 0) {
        give_back(side);
    } else if (strcmp(line, "flood") == 0) {
        flood(side);
        return false;
    }
    return true;
}

static int serve(void *stream)
{
    char line[LINE_BYTES] = "";
    int number = -1;
    /* The first line says whose transcript this is. */
    require_int(rouse_read_exact(stream, line, strlen("client 00\n"), NULL), ==, ROUSE_OK);
    require(sscanf(line, "client %d", &number) == 1 && number >= 0 && number < CLIENTS);
    struct side *side = &servers[number];
    side->stream = stream;
    answer(side, "you");
    while (read_line(side, line) >= 0 && do_as_told(side, line)) {}
    close_side(side);
    return ROUSE_OK;
}

/* ---- the clients ---- */

static void ask(struct side *side, const char *text)
{
    char line[LINE_BYTES];
    write_text(side, text);
    require(read_line(side, line) >= 0);
}

static void read_to_the_end(struct side *side)
{
    char line[LINE_BYTES];
    while (read_line(side, line) >= 0) {}
}

static void talk(struct side *side)
{
    ask(side, "one\n");
    ask(side, "two, with a tab\tand \"quotes\"\n");
    ask(side, "\n");
    close_side(side);
    close_side(side);
    write_text(side, "too late");
    read_to_the_end(side);
}

static void send_several_at_once(struct side *side)
{
    char line[LINE_BYTES];
    write_text(side, "one\n");
    write_text(side, "two\nthree\nfo");
    write_text(side, "ur\n");
    for (int i = 0; i < 4; i++)
        require(read_line(side, line) >= 0);
    close_side(side);
}

static void end_writing_first(struct side *side)
{
    write_text(side, "a line\n");
    write_text(side, "and what is no line");
    end_writing(side);
    write_text(side, "more");
    read_to_the_end(side);
    close_side(side);
}

static void reset_after_an_answer(struct side *side)
{
    ask(side, "I shall reset\n");
    reset(side);
}

static void be_reset(struct side *side)
{
    write_text(side, "reset me\n");
    read_to_the_end(side);
    close_side(side);
}

static void let_the_server_end_first(struct side *side)
{
    ask(side, "bye\n");
    read_to_the_end(side);
    write_text(side, "still here\n");
    write_text(side, "and again");
    close_side(side);
}

static void reset_a_writer(struct side *side)
{
    char some[1000];
    size_t done = 0;
    ask(side, "flood\n");
    int status = rouse_read_exact(side->stream, some, sizeof some, &done);
    say(side, "reads %u bytes: %s\n", (unsigned)done, rouse_status_name(status));
    reset(side);
}

static int be_cancelled(void *side)
{
    read_to_the_end(side);
    write_text(side, "in vain");
    return ROUSE_OK;
}

static void wait_in_vain(struct side *side)
{
    rouse_scope scope;
    rouse_deadline deadline;
    write_text(side, "hush\n");
    rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(5)));
    read_to_the_end(side);
    rouse_deadline_leave(&deadline);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(be_cancelled, side), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    ask(side, "hello again\n");
    close_side(side);
}

static void get_much_back(struct side *side)
{
    size_t done = 0;
    unsigned char *sent = test_memory(ECHO_BYTES), *got = test_memory(ECHO_BYTES);
    for (size_t i = 0; i < ECHO_BYTES; i++)
        sent[i] = (unsigned char)(i * 7 + i / 251 + (size_t)side->number);
    ask(side, "give back\n");
    int status = rouse_write_all(side->stream, sent, ECHO_BYTES, &done);
    say(side, "writes %u bytes: %s\n", (unsigned)done, rouse_status_name(status));
    status = rouse_read_exact(side->stream, got, ECHO_BYTES, &done);
    say(side, "reads %u bytes: %s: %s\n", (unsigned)done, rouse_status_name(status),
        memcmp(sent, got, ECHO_BYTES) == 0 ? "the same" : "others");
    end_writing(side);
    status = rouse_read_exact(side->stream, got, ECHO_BYTES, &done);
    say(side, "reads %u bytes: %s\n", (unsigned)done, rouse_status_name(status));
    free(sent);
    free(got);
    close_side(side);
}

static void find_nobody(struct side *side)
{
    say_status(side, "connects to a port of nobody", rouse_connect(&side->stream, "127.0.0.1:1"));
    read_to_the_end(side);
    write_text(side, "hello?");
    close_side(side);
}

static void (*const kinds[])(struct side *side) = {talk,
                                                   send_several_at_once,
                                                   end_writing_first,
                                                   reset_after_an_answer,
                                                   be_reset,
                                                   let_the_server_end_first,
                                                   reset_a_writer,
                                                   wait_in_vain,
                                                   get_much_back,
                                                   find_nobody};

enum { KINDS = sizeof kinds / sizeof kinds[0] };

static char address_text[ROUSE_ADDRESS_TEXT_MAX];

static int be_client(void *argument)
{
    struct side *side = argument;
    char name[20];
    if (kinds[side->number % KINDS] != find_nobody) {
        say_status(side, "connects", rouse_connect(&side->stream, address_text));
        snprintf(name, sizeof name, "client %02d\n", side->number);
        ask(side, name);
    }
    kinds[side->number % KINDS](side);
    return ROUSE_OK;
}

/* ---- the conversation ---- */

static int run_server(void *listener)
{
    int status = rouse_serve(listener, serve);
    require_int(status, ==, ROUSE_CLOSED);
    return ROUSE_OK;
}

static int converse(void *unused)
{
    rouse_scope all, talks;
    rouse_listener *listener;
    rouse_address address;
    (void)unused;
    require_int(rouse_listen(&listener, "127.0.0.1:0", NULL), ==, ROUSE_OK);
    require_int(rouse_listener_address(listener, &address), ==, ROUSE_OK);
    require(rouse_address_format(&address, address_text, sizeof address_text) > 0);
    require_int(rouse_scope_open(&all), ==, ROUSE_OK);
    require_int(rouse_go(run_server, listener), ==, ROUSE_OK);
    require_int(rouse_scope_open(&talks), ==, ROUSE_OK);
    for (int i = 0; i < CLIENTS; i++)
        require_int(rouse_go(be_client, &clients[i]), ==, ROUSE_OK);
    require_int(rouse_scope_close(&talks), ==, ROUSE_OK);
    require_int(rouse_listener_close(listener), ==, ROUSE_OK);
    return rouse_scope_close(&all);
}

/* What the file of the expected transcript contains. */
static size_t read_expected(char *text, size_t size)
{
    FILE *file = fopen(TRANSCRIPTS_PATH "/conversation.txt", "rb");
    require(file != NULL && "tests/expected_transcripts/conversation.txt can be read");
    size_t length = fread(text, 1, size - 1, file);
    require(length < size - 1 && !ferror(file));
    fclose(file);
    text[length] = '\0';
    return length;
}

static void compare_with_expected(int flavour_number)
{
    size_t size = 2 * CLIENTS * SIDE_BYTES, length = 0;
    char *got = test_memory(size), *expected = test_memory(size);
    size_t expected_length = read_expected(expected, size);
    for (int i = 0; i < CLIENTS; i++) {
        const struct side *ends[] = {&clients[i], &servers[i]};
        for (int k = 0; k < 2; k++) {
            memcpy(got + length, ends[k]->text, ends[k]->said);
            length += ends[k]->said;
        }
    }
    if (length != expected_length || memcmp(got, expected, length) != 0) {
        size_t line = 1, i = 0;
        for (; got[i] == expected[i]; i++)
            line += got[i] == '\n';
        fprintf(stderr, "executor %d, backend %s: line %u differs\n---- got\n%s---- expected\n%s----\n", flavour_number,
                rouse_backend_name(), (unsigned)line, got, expected);
        test_require_failed("the transcript is the expected one", __FILE__, __LINE__);
    }
    free(got);
    free(expected);
}

TEST(a_conversation_has_the_same_transcript_everywhere)
{
    test_needs_all_memory("each status of the conversation is compared");
    for (int i = 0; i < FLAVOURS; i++) {
        rouse_options options = flavour(i);
        for (int k = 0; k < CLIENTS; k++) {
            clients[k] = (struct side){.name = "client", .number = k};
            servers[k] = (struct side){.name = "server", .number = k};
        }
        require_int(rouse_run(converse, NULL, &options), ==, ROUSE_OK);
        compare_with_expected(i);
    }
}
