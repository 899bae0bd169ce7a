/* Pieces: their order, their limits, and what of them is moved. */
#include "support/io.h"

static int move_pieces(void *unused)
{
    (void)unused;
    for (int style = 0; style < STYLES; style++) {
        int peer;
        char a[2], b[3], c[10];
        rouse_op op;
        rouse_stream *stream = tcp_stream(&peer);
        rouse_buffer out[] = {{(char[]){'h', 'e'}, 2}, {NULL, 0}, {(char[]){'l', 'l', 'o'}, 3}};
        rouse_buffer in[] = {{a, 2}, {b, 3}, {NULL, 0}, {c, 10}};
        rouse_writev_init(&op, stream, out, 3);
        require_int(answer_of(&op, style), ==, 5);
        test_expect(peer, "hello");
        test_send_all(peer, "1234567", 7);
        rouse_readv_init(&op, stream, in, 4);
        require_int(answer_of(&op, style), ==, 7);
        require(memcmp(a, "12", 2) == 0 && memcmp(b, "345", 3) == 0 && memcmp(c, "67", 2) == 0);
        test_close(peer);
        rouse_readv_init(&op, stream, in, 4);
        require_int(answer_of(&op, style), ==, 0);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(pieces_are_moved_in_order)
{
    on_each_executor(move_pieces, NULL);
}

TEST(pieces_have_limits)
{
    static rouse_buffer pieces[1025];
    static char bytes[1025];
    int peer;
    rouse_stream *stream = tcp_stream(&peer);
    for (int i = 0; i < 1025; i++)
        pieces[i] = (rouse_buffer){&bytes[i], 1};
    ptrdiff_t moved;
    test_call(moved, rouse_writev(stream, pieces, 1024));
    assert_true(moved >= 64 && moved <= 1024); /* as many as the system takes at once */
    assert_int_equal(rouse_writev(stream, pieces, 1025), ROUSE_INVALID);
    assert_int_equal(rouse_readv(stream, pieces, SIZE_MAX), ROUSE_INVALID);
    assert_int_equal(rouse_writev(stream, NULL, 1), ROUSE_INVALID);
    assert_int_equal(rouse_writev(stream, NULL, 0), 0);
    assert_int_equal(rouse_readv(stream, (rouse_buffer[]){{NULL, 0}, {NULL, 0}}, 2), 0);
    assert_int_equal(rouse_readv(stream, (rouse_buffer[]){{NULL, 1}}, 1), ROUSE_INVALID);
    assert_int_equal(rouse_readv(stream, (rouse_buffer[]){{bytes, PTRDIFF_MAX}, {bytes, 1}}, 2), ROUSE_TOO_LARGE);
    assert_int_equal(rouse_readv(stream, (rouse_buffer[]){{bytes, SIZE_MAX}, {bytes, 1}}, 2), ROUSE_TOO_LARGE);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    test_close(peer);
    end_default_runtime();
}
