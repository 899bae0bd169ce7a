/* Blocks, pages and guards. */
#include "os/os.h"

#include "support/faults.h"
#include "support/harness.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

TEST_FILE_NEEDS(system_layer)

static size_t page;

static unsigned char *reserve(size_t pages)
{
    page = os_page_bytes();
    unsigned char *memory = os_pages_reserve(pages * page);
    assert_non_null(memory);
    return memory;
}

/* ---- blocks ---- */

TEST(a_block_has_the_alignment_that_was_asked_for)
{
    for (size_t alignment = 1; alignment <= 65536; alignment *= 2) {
        static const size_t sizes[] = {0, 1, 24, 4095, 100000};
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            unsigned char *block = os_alloc(sizes[i], alignment);
            assert_non_null(block);
            assert_int_equal((uintptr_t)block % alignment, 0);
            memset(block, 0xff, sizes[i]);
            os_free(block);
        }
    }
    os_free(NULL);
}

TEST(a_block_larger_than_memory_is_refused)
{
    assert_null(os_alloc(SIZE_MAX, 16));
    assert_null(os_alloc((size_t)PTRDIFF_MAX + 1, 16));
    assert_null(os_alloc(SIZE_MAX, 4096));
}

/* ---- pages ---- */

TEST(pages_are_zero_and_writable_and_cost_memory_when_they_are_touched)
{
    test_needs("commit_on_touch");
    size_t bytes = (size_t)64 << 20;
    unsigned char *memory = reserve(1);
    os_pages_release(memory, page);
    size_t before = test_rss_bytes();
    memory = os_pages_reserve(bytes);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % page, 0);
    for (size_t i = 0; i < bytes; i += (size_t)1 << 20) {
        assert_int_equal(memory[i], 0);
        memory[i] = 1;
    }
    /* 64 touched pages; with huge pages they would be all of the 64 MiB. */
    if (before != 0 && !test_is_slow())
        assert_true(test_rss_bytes() < before + bytes / 4);
    os_pages_release(memory, bytes);
}

TEST(more_pages_than_there_are_addresses_are_refused)
{
    page = os_page_bytes();
    assert_null(os_pages_reserve(SIZE_MAX / page * page));
}

TEST(discarded_pages_stay_usable)
{
    test_needs("commit_on_touch");
    unsigned char *memory = reserve(16);
    memset(memory, 0xff, 16 * page);
    os_pages_discard(memory + page, 14 * page);
    assert_int_equal(memory[0], 0xff);
    assert_int_equal(memory[16 * page - 1], 0xff);
#if defined(__linux__)
    for (size_t i = page; i < 15 * page; i++)
        assert_int_equal(memory[i], 0);
#endif
    memset(memory, 1, 16 * page);
    os_pages_release(memory, 16 * page);
}

TEST(pages_that_cannot_be_unmapped_give_their_memory_back)
{
    test_needs("faults");
    unsigned char *memory = reserve(4);
    memset(memory, 0xff, 4 * page);
    faults_syscall("munmap", 1, ENOMEM, 1);
    os_pages_release(memory, 4 * page);
    for (size_t i = 0; i < 4 * page; i++)
        assert_int_equal(memory[i], 0);
    os_pages_release(memory, 4 * page);
}

TEST(pages_are_given_without_advice_too)
{
    test_needs("faults");
    faults_syscall("madvise", 1, EINVAL, 1);
    unsigned char *memory = reserve(4);
    memset(memory, 0xff, 4 * page);
    os_pages_release(memory, 4 * page);
    faults_syscall("mmap", 1, ENOMEM, 1);
    assert_null(os_pages_reserve(page));
}

/* ---- guards ---- */

static void touch(void *argument)
{
    struct sigaction fatal = {.sa_handler = SIG_DFL}, segv, bus;
    sigaction(SIGSEGV, &fatal, &segv);
    sigaction(SIGBUS, &fatal, &bus);
    *(volatile unsigned char *)argument = 1;
    sigaction(SIGSEGV, &segv, NULL);
    sigaction(SIGBUS, &bus, NULL);
}

static bool is_guarded(unsigned char *memory)
{
    int status = test_in_child(touch, memory, ROUSE_S(10));
    return WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
}

/* The second of four pages, and what lies around it. */
static void check_guard(void)
{
    unsigned char *memory = reserve(4);
    memset(memory, 0x5a, 4 * page);
    assert_int_equal(os_guard_install(memory + page, page), ROUSE_OK);
    assert_int_equal(memory[page - 1], 0x5a);
    assert_int_equal(memory[2 * page], 0x5a);
    memory[page - 1] = memory[2 * page] = 1;
    assert_false(is_guarded(memory + page - 1));
    assert_true(is_guarded(memory + page));
    assert_true(is_guarded(memory + 2 * page - 1));
    assert_false(is_guarded(memory + 2 * page));
    os_pages_discard(memory, 4 * page); /* which takes no guard away */
    assert_true(is_guarded(memory + page));
    os_guard_remove(memory + page, page);
    memset(memory, 1, 4 * page);
    os_pages_release(memory, 4 * page);
}

TEST(a_guarded_page_faults_until_the_guard_is_removed)
{
    test_needs("signals");
    check_guard();
}

TEST(a_guard_may_have_several_pages)
{
    test_needs("signals");
    unsigned char *memory = reserve(8);
    assert_int_equal(os_guard_install(memory + page, 3 * page), ROUSE_OK);
    assert_true(is_guarded(memory + page));
    assert_true(is_guarded(memory + 4 * page - 1));
    assert_false(is_guarded(memory + 4 * page));
    os_guard_remove(memory + page, 3 * page);
    memset(memory, 1, 8 * page);
    os_pages_release(memory, 8 * page);
}

TEST(whether_guards_are_light_is_always_answered_the_same_way)
{
    bool light = os_guard_is_light();
    for (int i = 0; i < 10; i++)
        assert_int_equal(os_guard_is_light(), light);
    assert_true(os_guard_limit() >= 1);
}

#if defined(__linux__)
TEST(locked_pages_are_guarded_too)
{
    unsigned char *memory = reserve(4);
    if (mlock(memory, 4 * page) == 0) { /* may be forbidden */
        assert_int_equal(os_guard_install(memory + page, page), ROUSE_OK);
        assert_true(is_guarded(memory + page));
        assert_false(is_guarded(memory + 2 * page));
        os_guard_remove(memory + page, page);
        memset(memory, 1, 4 * page);
    }
    os_pages_release(memory, 4 * page);
}

TEST(light_and_heavy_guards_live_beside_each_other)
{
    unsigned char *light = reserve(4), *heavy = reserve(4);
    assert_int_equal(os_guard_install(light + page, page), ROUSE_OK);
    faults_syscall("madvise", 1, EINVAL, 1); /* as for locked memory */
    assert_int_equal(os_guard_install(heavy + page, page), ROUSE_OK);
    assert_true(is_guarded(light + page));
    assert_true(is_guarded(heavy + page));
    os_guard_remove(light + page, page);
    assert_false(is_guarded(light + page));
    assert_true(is_guarded(heavy + page));
    os_guard_remove(heavy + page, page);
    memset(light, 1, 4 * page);
    memset(heavy, 1, 4 * page);
    os_pages_release(light, 4 * page);
    os_pages_release(heavy, 4 * page);
}

TEST(a_light_guard_without_memory_is_refused)
{
    test_needs("faults");
    if (!os_guard_is_light())
        return;
    unsigned char *memory = reserve(4);
    faults_syscall("madvise", 1, ENOMEM, 1);
    assert_int_equal(os_guard_install(memory + page, page), ROUSE_NO_MEMORY);
    memset(memory, 1, 4 * page);
    os_pages_release(memory, 4 * page);
}

/* ---- the same where the kernel has no light guards ---- */

static void without_light_guards(void)
{
    faults_syscall("madvise", 1, EINVAL, FAULTS_ALWAYS);
    assert_false(os_guard_is_light());
    faults_syscall("madvise", 1, EINVAL, 0);
    assert_false(os_guard_is_light());
}

TEST(without_light_guards_a_guarded_page_faults_until_the_guard_is_removed)
{
    test_needs("faults");
    without_light_guards();
    check_guard();
}

TEST(heavy_guards_are_counted_against_half_of_the_mappings)
{
    test_needs("faults");
    without_light_guards();
    size_t limit = os_guard_limit();
    if (limit > 40000 || test_is_slow())
        return; /* a machine with another limit */
    unsigned char *memory = reserve(2 * limit + 4);
    size_t count = 0;
    int status = ROUSE_OK;
    while (count < limit + 1 && (status = os_guard_install(memory + (2 * count + 1) * page, page)) == ROUSE_OK)
        count++;
    assert_int_equal(status, ROUSE_LIMIT);
    assert_true(count > limit / 2);
    assert_true(count <= limit);
    /* What was counted for the refused one is not lost, and neither is what is removed. */
    assert_int_equal(os_guard_install(memory + (2 * count + 1) * page, page), ROUSE_LIMIT);
    os_guard_remove(memory + page, page);
    assert_int_equal(os_guard_install(memory + page, page), ROUSE_OK);
    for (size_t i = 0; i < count; i++)
        os_guard_remove(memory + (2 * i + 1) * page, page);
    assert_int_equal(os_guard_install(memory + (2 * count + 1) * page, page), ROUSE_OK);
    os_guard_remove(memory + (2 * count + 1) * page, page);
    os_pages_release(memory, (2 * limit + 4) * page);
}

TEST(a_heavy_guard_that_the_system_refuses_is_not_counted)
{
    test_needs("faults");
    without_light_guards();
    unsigned char *memory = reserve(4);
    faults_syscall("mprotect", 1, ENOMEM, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(os_guard_install(memory + page, page), ROUSE_LIMIT);
    assert_int_equal(os_guard_install(memory + page, page), ROUSE_OK);
    os_guard_remove(memory + page, page);
    os_pages_release(memory, 4 * page);
}
#endif
