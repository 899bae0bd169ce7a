#include <rouse/base.h>

#include "support/harness.h"

static const struct {
    int value;
    const char *name;
    const char *text;
} all[] = {
#define ENTRY(name, value, text) {value, #name, text},
    ROUSE_STATUS_MAP(ENTRY)
#undef ENTRY
};

#define COUNT (sizeof all / sizeof all[0])

TEST(every_status_has_its_name_and_a_text)
{
    for (size_t i = 0; i < COUNT; i++) {
        assert_string_equal(rouse_status_name(all[i].value), all[i].name);
        assert_string_equal(rouse_status_text(all[i].value), all[i].text);
        assert_true(strlen(all[i].text) > 3);
    }
}

TEST(no_two_statuses_share_a_value_or_a_name_and_only_success_is_not_negative)
{
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(all[i].value < 0 || strcmp(all[i].name, "OK") == 0);
        for (size_t k = 0; k < i; k++) {
            assert_int_not_equal(all[i].value, all[k].value);
            assert_string_not_equal(all[i].name, all[k].name);
        }
    }
}

/* The values are part of the binary interface. */
TEST(the_values_of_statuses_are_those_that_programs_were_compiled_with)
{
    assert_int_equal(ROUSE_OK, 0);
    assert_int_equal(ROUSE_PENDING, -2147483647);
    assert_int_equal(ROUSE_FAILED, -1);
    assert_int_equal(ROUSE_CANCELLED, -2);
    assert_int_equal(ROUSE_NO_THREAD, -17);
    assert_int_equal(ROUSE_ADDRESS_IN_USE, -100);
    assert_int_equal(ROUSE_NOT_POLLABLE, -123);
    assert_int_equal(ROUSE_UNKNOWN, -199);
}

TEST(a_number_that_is_no_status_is_unknown)
{
    static const int others[] = {1, 2, 126, 4096, -18, -99, -124, -198, -200, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_string_equal(rouse_status_name(others[i]), "UNKNOWN");
        assert_string_equal(rouse_status_text(others[i]), rouse_status_text(ROUSE_UNKNOWN));
    }
}

TEST(the_exit_code_is_0_for_success_itself_up_to_125_and_else_1)
{
    assert_int_equal(rouse_exit_code(ROUSE_OK), 0);
    assert_int_equal(rouse_exit_code(1), 1);
    assert_int_equal(rouse_exit_code(125), 125);
    assert_int_equal(rouse_exit_code(126), 1);
    assert_int_equal(rouse_exit_code(INT32_MAX), 1);
    assert_int_equal(rouse_exit_code(INT32_MIN), 1);
    for (size_t i = 0; i < COUNT; i++)
        if (all[i].value != ROUSE_OK)
            assert_int_equal(rouse_exit_code(all[i].value), 1);
}

TEST(the_version_is_the_same_as_text_and_as_number)
{
    char text[32];
    int version = rouse_version();
    assert_int_equal(version, ROUSE_VERSION_HEX);
    assert_true(snprintf(text, sizeof text, "%d.%d.%d", version >> 16, version >> 8 & 255, version & 255) > 0);
    assert_string_equal(rouse_version_text(), text);
}

TEST(the_backend_is_the_one_that_the_build_chose)
{
    assert_string_equal(rouse_backend_name(), ROUSE_BACKEND_NAME);
}

TEST(a_deadline_is_now_plus_the_timeout)
{
    int64_t before = rouse_now();
    int64_t deadline = rouse_after(ROUSE_S(5));
    int64_t after = rouse_now();
    assert_true(deadline >= before + ROUSE_S(5));
    assert_true(deadline <= after + ROUSE_S(5));
}

TEST(a_deadline_without_a_timeout_left_is_now)
{
    static const int64_t spans[] = {0, -1, -ROUSE_S(3600), INT64_MIN};
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
        int64_t before = rouse_now();
        int64_t deadline = rouse_after(spans[i]);
        assert_true(deadline >= before);
        assert_true(deadline <= rouse_now());
    }
}

TEST(a_deadline_does_not_overflow)
{
    assert_true(rouse_after(ROUSE_NEVER) == ROUSE_NEVER);
    assert_true(rouse_after(ROUSE_NEVER - 1) == ROUSE_NEVER);
    assert_true(rouse_after(ROUSE_NEVER / 2) < ROUSE_NEVER);
    int64_t longest = ROUSE_NEVER - rouse_now();
    assert_true(rouse_after(longest) == ROUSE_NEVER);
    assert_true(rouse_after(longest - ROUSE_S(3600)) < ROUSE_NEVER);
}
