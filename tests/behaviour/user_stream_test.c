/* Streams that the user makes: the calls behave as on any stream, and the object is closed once, when nobody is in it. */
#include "support/io.h"

struct object {
    char data[256];
    size_t first, end;
    rouse_waker reader;
    bool ended, stalls;
    int closed, polls;
};

static ptrdiff_t object_read(void *data, void *to, size_t length, rouse_context *context)
{
    struct object *object = data;
    object->polls++;
    size_t there = object->end - object->first;
    if (there == 0 && object->ended)
        return 0;
    if (there == 0) {
        rouse_waker_drop(&object->reader);
        object->reader = rouse_waker_clone(&context->waker);
        return ROUSE_PENDING;
    }
    size_t count = length < there ? length : there;
    memcpy(to, object->data + object->first, count);
    object->first += count;
    return (ptrdiff_t)count;
}

static ptrdiff_t object_write(void *data, const void *from, size_t length, rouse_context *context)
{
    struct object *object = data;
    (void)context;
    size_t room = sizeof object->data - object->end;
    if (object->ended)
        return ROUSE_BROKEN_PIPE;
    size_t count = length < room ? length : room;
    if (count > 5)
        count = 5; /* in small steps */
    memcpy(object->data + object->end, from, count);
    object->end += count;
    rouse_waker_wake(&object->reader);
    return (ptrdiff_t)count;
}

static int object_shutdown(void *data, int side)
{
    struct object *object = data;
    if (side == ROUSE_SHUTDOWN_READ)
        return ROUSE_NOT_SUPPORTED;
    object->ended = true;
    rouse_waker_wake(&object->reader);
    return ROUSE_OK;
}

static void object_close(void *data)
{
    struct object *object = data;
    object->closed++;
    rouse_waker_wake(&object->reader);
}

static const rouse_stream_type object_type = {"object",        object_read,  object_write,
                                              object_shutdown, object_close, {NULL, NULL, NULL, NULL}};

static rouse_stream *stream_of(struct object *object)
{
    rouse_stream *stream = NULL;
    memset(object, 0, sizeof *object);
    require_int(rouse_stream_new(&stream, &object_type, object), ==, ROUSE_OK);
    return stream;
}

static int feed(void *stream)
{
    size_t done;
    for (int i = 0; i < 3; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    require_int(rouse_write_all(stream, "hello world", 11, &done), ==, ROUSE_OK);
    require_int(done, ==, 11);
    return rouse_shutdown(stream, ROUSE_SHUTDOWN_WRITE);
}

static int read_what_is_fed(void *unused)
{
    (void)unused;
    for (int style = 0; style < STYLES; style++) {
        struct object object;
        char data[32];
        size_t done;
        rouse_op op;
        rouse_scope scope;
        rouse_stream *stream = stream_of(&object);
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        require_int(rouse_go(feed, stream), ==, ROUSE_OK);
        rouse_read_exact_init(&op, stream, data, sizeof data, &done);
        require_int(answer_of(&op, style), ==, ROUSE_END_OF_STREAM);
        require_int(done, ==, 11);
        require(memcmp(data, "hello world", 11) == 0);
        require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
        require_int(rouse_write_all(stream, "x", 1, &done), ==, ROUSE_BROKEN_PIPE);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        require_int(object.closed, ==, 1);
        require_int(rouse_close(stream), ==, ROUSE_CLOSED);
        require_int(object.closed, ==, 1);
    }
    return ROUSE_OK;
}

TEST(a_reader_that_waits_is_polled_when_its_stored_waker_is_woken)
{
    rouse_options options = flavour(0); /* the object has no lock */
    assert_int_equal(rouse_run(read_what_is_fed, NULL, &options), ROUSE_OK);
}

static int close_later(void *stream)
{
    for (int i = 0; i < 3; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    return rouse_close(stream);
}

static int close_under_a_reader(void *unused)
{
    struct object object;
    char byte;
    rouse_scope scope;
    (void)unused;
    rouse_stream *stream = stream_of(&object);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(close_later, stream), ==, ROUSE_OK);
    require_int(rouse_read(stream, &byte, 1), ==, ROUSE_CLOSED);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    require_int(object.closed, ==, 1);
    return ROUSE_OK;
}

TEST(an_object_whose_close_wakes_its_reader_ends_the_read)
{
    rouse_options options = flavour(0);
    assert_int_equal(rouse_run(close_under_a_reader, NULL, &options), ROUSE_OK);
}

TEST(what_only_descriptors_can_do_is_not_supported)
{
    struct object object;
    char byte;
    int value;
    intptr_t descriptor;
    rouse_address address;
    rouse_stream *stream = stream_of(&object), *other;
    assert_int_equal(rouse_peek(stream, &byte, 1), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_descriptor(stream, &descriptor), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_release(stream, &descriptor), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_wait_ready(stream, ROUSE_READABLE), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_local_address(stream, &address), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_peer_address(stream, &address), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_option_set(stream, ROUSE_OPTION_NO_DELAY, 1), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_option_get(stream, ROUSE_OPTION_NO_DELAY, &value), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_shutdown(stream, ROUSE_SHUTDOWN_READ), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_accept((rouse_listener *)stream, &other, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    assert_int_equal(object.closed, 1);
    end_default_runtime();
}

TEST(a_type_without_its_functions_is_invalid)
{
    static const rouse_stream_type no_read = {"x", NULL, object_write, NULL, NULL, {NULL, NULL, NULL, NULL}};
    static const rouse_stream_type no_write = {"x", object_read, NULL, NULL, NULL, {NULL, NULL, NULL, NULL}};
    static const rouse_stream_type bare = {"x", object_read, object_write, NULL, NULL, {NULL, NULL, NULL, NULL}};
    struct object object;
    rouse_stream *stream = (rouse_stream *)1;
    assert_int_equal(rouse_stream_new(&stream, &no_read, &object), ROUSE_INVALID);
    assert_null(stream);
    assert_int_equal(rouse_stream_new(&stream, &no_write, &object), ROUSE_INVALID);
    assert_int_equal(rouse_stream_new(&stream, NULL, &object), ROUSE_INVALID);
    assert_int_equal(rouse_stream_new(NULL, &bare, &object), ROUSE_INVALID);
    memset(&object, 0, sizeof object);
    assert_int_equal(rouse_stream_new(&stream, &bare, &object), ROUSE_OK);
    assert_int_equal(rouse_shutdown(stream, ROUSE_SHUTDOWN_WRITE), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
}

TEST(pieces_of_a_vectored_call_are_given_one_at_a_time)
{
    struct object object;
    char first[3], second[20];
    rouse_stream *stream = stream_of(&object);
    rouse_buffer out[] = {{NULL, 0}, {(char[]){'a', 'b', 'c'}, 3}, {(char[]){'d'}, 1}};
    rouse_buffer in[] = {{first, 0}, {first, 3}, {second, sizeof second}};
    assert_int_equal(rouse_writev(stream, out, 3), 3);
    assert_int_equal(rouse_readv(stream, in, 3), 3);
    assert_memory_equal(first, "abc", 3);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    end_default_runtime();
}

/* A function that is called while another thread closes is not pulled out from under. */
static atomic_int inside, closing, was_closed_inside;

static ptrdiff_t slow_read(void *object, void *data, size_t length, rouse_context *context)
{
    (void)data;
    (void)length;
    (void)context;
    atomic_store(&inside, 1);
    while (atomic_load(&closing) == 0)
        test_sleep_ns(100000);
    int64_t end = test_now_ns() + INT64_C(20000000); /* long enough for a close that does not care */
    while (test_now_ns() < end && atomic_load((atomic_int *)object) == 0) {}
    atomic_store(&was_closed_inside, atomic_load((atomic_int *)object));
    return 1;
}

static ptrdiff_t no_write(void *object, const void *data, size_t length, rouse_context *context)
{
    (void)object;
    (void)data;
    (void)length;
    (void)context;
    return ROUSE_BROKEN_PIPE;
}

static void note_close(void *object)
{
    atomic_store((atomic_int *)object, 1);
}

static void close_when_inside(void *stream)
{
    while (atomic_load(&inside) == 0)
        test_sleep_ns(100000);
    atomic_store(&closing, 1);
    require_int(rouse_close(stream), ==, ROUSE_OK);
}

TEST(an_object_is_closed_when_the_last_call_has_left_it)
{
    static const rouse_stream_type slow = {"slow", slow_read, no_write, NULL, note_close, {NULL, NULL, NULL, NULL}};
    static atomic_int closed;
    char byte;
    rouse_stream *stream;
    test_thread thread;
    assert_int_equal(rouse_stream_new(&stream, &slow, &closed), ROUSE_OK);
    test_thread_start(&thread, close_when_inside, stream);
    assert_int_equal(rouse_read(stream, &byte, 1), 1);
    test_thread_join(&thread, TEST_SOON);
    assert_int_equal(atomic_load(&was_closed_inside), 0);
    assert_int_equal(atomic_load(&closed), 1);
    assert_int_equal(rouse_read(stream, &byte, 1), ROUSE_CLOSED);
}

/* ---- answers that cannot be ---- */

static ptrdiff_t lie(void *object, void *data, size_t length, rouse_context *context)
{
    (void)data, (void)length, (void)context;
    return *(ptrdiff_t *)object;
}

static ptrdiff_t lie_too(void *object, const void *data, size_t length, rouse_context *context)
{
    return lie(object, (void *)(uintptr_t)data, length, context);
}

static const rouse_stream_type lying_type = {"lying", lie, lie_too, NULL, NULL, {NULL}};

static int ask_a_liar(void *unused)
{
    static ptrdiff_t lies[] = {51, PTRDIFF_MAX, PTRDIFF_MIN, INT32_MIN, (ptrdiff_t)((size_t)INT32_MIN - 1)};
    char data[50] = {0};
    (void)unused;
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        rouse_stream *stream;
        rouse_buffer pieces[2] = {{data, 0}, {data, sizeof data}};
        size_t done = 99;
        require_int(rouse_stream_new(&stream, &lying_type, &lies[i]), ==, ROUSE_OK);
        require_int(rouse_read(stream, data, sizeof data), ==, ROUSE_INVALID);
        require_int(rouse_write(stream, data, sizeof data), ==, ROUSE_INVALID);
        require_int(rouse_readv(stream, pieces, 2), ==, ROUSE_INVALID);
        require_int(rouse_writev(stream, pieces, 2), ==, ROUSE_INVALID);
        require_int(rouse_read_exact(stream, data, sizeof data, &done), ==, ROUSE_INVALID);
        require_int(done, ==, 0);
        require_int(rouse_write_all(stream, data, sizeof data, &done), ==, ROUSE_INVALID);
        require_int(done, ==, 0);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(counts_that_were_not_asked_for_are_not_passed_on)
{
    on_each_executor(ask_a_liar, NULL);
}
