/* Options: each is read back as it was set, in whatever order, and changes no other. */
#include "support/io.h"

static const struct {
    int option, value;
} settings[] = {{ROUSE_OPTION_NO_DELAY, 0}, {ROUSE_OPTION_KEEP_ALIVE, 17}, {ROUSE_OPTION_LINGER, 5}};
enum { SETTINGS = 3 };

/* RUSTSEC-2023-0001: one option was put back by the setting of another. */
TEST(options_may_be_set_in_any_order)
{
    static const int orders[6][SETTINGS] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int i = 0; i < 6; i++) {
        int peer;
        rouse_stream *stream = tcp_stream(&peer);
        for (int k = 0; k < SETTINGS; k++)
            assert_int_equal(rouse_option_set(stream, settings[orders[i][k]].option, settings[orders[i][k]].value),
                             ROUSE_OK);
        for (int k = 0; k < SETTINGS; k++) {
            int value = -2;
            if (settings[k].option == ROUSE_OPTION_KEEP_ALIVE && !test_has("keep_alive_read"))
                continue;
            assert_int_equal(rouse_option_get(stream, settings[k].option, &value), ROUSE_OK);
            assert_int_equal(value, settings[k].value);
        }
        assert_int_equal(rouse_option_set(stream, ROUSE_OPTION_LINGER, -1), ROUSE_OK);
        assert_int_equal(rouse_close(stream), ROUSE_OK);
        test_close(peer);
    }
}

TEST(options_that_do_not_exist_or_cannot_be_set_are_refused_and_change_nothing)
{
    int peer, value;
    rouse_stream *stream = tcp_stream(&peer);
    for (int option = ROUSE_OPTION_REUSE_ADDRESS; option <= ROUSE_OPTION_V6_ONLY; option++)
        assert_int_equal(rouse_option_set(stream, option, 1), ROUSE_NOT_SUPPORTED);
    assert_int_equal(rouse_option_set(stream, 0, 1), ROUSE_INVALID);
    assert_int_equal(rouse_option_set(stream, 9, 1), ROUSE_INVALID);
    assert_int_equal(rouse_option_set(stream, ROUSE_OPTION_NO_DELAY, 2), ROUSE_INVALID);
    assert_int_equal(rouse_option_set(stream, ROUSE_OPTION_LINGER, -2), ROUSE_INVALID);
    assert_int_equal(rouse_option_set(stream, ROUSE_OPTION_KEEP_ALIVE, -1), ROUSE_INVALID);
    assert_int_equal(rouse_option_set(stream, ROUSE_OPTION_SEND_BUFFER, 0), ROUSE_INVALID);
    assert_int_equal(rouse_option_get(stream, 0, &value), ROUSE_INVALID);
    assert_int_equal(rouse_option_get(stream, ROUSE_OPTION_LINGER, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_option_get(stream, ROUSE_OPTION_LINGER, &value), ROUSE_OK);
    assert_int_equal(value, -1);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    test_close(peer);
}

TEST(a_close_without_lingering_resets)
{
    int peer;
    char byte;
    rouse_stream *stream = tcp_stream(&peer);
    assert_int_equal(rouse_option_set(stream, ROUSE_OPTION_LINGER, 0), ROUSE_OK);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    assert_int_equal(test_receive(peer, &byte, 1, TEST_SOON), -ECONNRESET);
    test_close(peer);
}
