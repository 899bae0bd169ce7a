/* The part of tests/support/harness.h that models use, for check_faults: it builds models with planted faults, and needs
 * neither cmocka nor the checks around a test. The program runs all its tests and ends at the first that fails. */
#ifndef TEST_SUPPORT_HARNESS_H
#define TEST_SUPPORT_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test_case {
    const char *name;
    void (*body)(void);
    struct test_case *next;
};

static struct test_case *first_test;
static struct test_case **last_test = &first_test;

#define TEST(name)                                                      \
    static void test_body_##name(void);                                 \
    __attribute__((constructor)) static void test_enroll_##name(void)   \
    {                                                                   \
        static struct test_case test = {#name, test_body_##name, NULL}; \
        *last_test = &test;                                             \
        last_test = &test.next;                                         \
    }                                                                   \
    static void test_body_##name(void)

#define assert_true(condition)        ((condition) ? (void)0 : test_failed(#condition, __FILE__, __LINE__))
#define assert_false(condition)       assert_true(!(condition))
#define assert_int_equal(left, right) assert_true((left) == (right))

static inline void test_failed(const char *text, const char *file, int line)
{
    printf("%s:%d: %s\n", file, line, text);
    exit(1);
}

static inline uint64_t test_scale(uint64_t small, uint64_t full)
{
    (void)full;
    return small;
}

int main(void)
{
    for (struct test_case *test = first_test; test; test = test->next) {
        printf("%s\n", test->name);
        test->body();
    }
    return 0;
}

#endif
