/* Stacks: their sizes, guards, canaries, reuse, and the memory they keep. */
#include "fiber/stack.h"

#include "fiber/annotate.h"
#include "fiber/switch.h"

#include "support/faults.h"
#include "support/harness.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

TEST_FILE_IS_OUTSIDE

#define KIB     ((size_t)1024)
#define MINUTES (INT64_C(60000000000))

/* One store with one pool. */
struct fixture {
    struct stack_store store; /* of the default size */
    struct stack_pool pool;   /* of the test's thread */
    size_t page;              /* bytes */
};

static void fixture_init(struct fixture *f)
{
    require_int(stack_store_init(&f->store, 0, &alloc_default), ==, ROUSE_OK);
    stack_pool_init(&f->pool, &f->store);
    f->page = os_page_bytes();
}

static void fixture_fini(struct fixture *f)
{
    stack_pool_fini(&f->pool);
    stack_store_fini(&f->store);
}

static struct stack *acquire(struct fixture *f, size_t bytes)
{
    struct stack *stack = NULL;
    require_int(stack_acquire(&f->pool, bytes, false, &stack), ==, ROUSE_OK);
    return stack;
}

static char *top_of(const struct stack *stack)
{
    return (char *)stack->low + stack->bytes;
}

/* As if a fiber had used `bytes` of it. */
static void use(struct stack *stack, size_t bytes)
{
    memset(top_of(stack) - bytes, 0x55, bytes);
}

static size_t resident_bytes(const struct stack *stack)
{
    static unsigned char pages[4096];
    size_t page = os_page_bytes(), count = stack->bytes / page, resident = 0;
    require(count <= sizeof pages);
#if defined(__OpenBSD__) /* has no such call */
    require(false);
#else
    require(mincore(stack->low, stack->bytes, (void *)pages) == 0);
#endif
    for (size_t i = 0; i < count; i++)
        resident += (pages[i] & 1U) ? page : 0;
    return resident;
}

/* The mappings without huge pages, which are those of stacks, and their bytes (0 if the system does not tell). Adjacent
 * ones count as one. */
struct mappings {
    size_t count, bytes; /* of all */
};

static struct mappings stack_mappings(void)
{
    struct mappings found = {0, 0};
    bool before = faults_exempt(true);
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[512];
    unsigned long kib = 0;
    while (maps && fgets(line, sizeof line, maps)) {
        (void)sscanf(line, "Size: %lu kB", &kib);
        if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " nh")) {
            found.count++;
            found.bytes += kib * KIB;
        }
    }
    if (maps)
        fclose(maps);
    faults_exempt(before);
    return found;
}

/* ---- sizes ---- */

TEST(a_stack_has_64_kib_unless_another_size_is_asked_for)
{
    test_needs("commit_on_touch");
    struct fixture f;
    fixture_init(&f);
    static const size_t asked[] = {0, 1, 64 * 1024, 64 * 1024 + 1, 20000, 1024 * 1024};
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        struct stack *stack = acquire(&f, asked[i]);
        assert_int_equal(stack->bytes % f.page, 0);
        assert_int_equal((uintptr_t)stack->low % f.page, 0);
        if (asked[i] == 0) {
            assert_int_equal(stack->bytes, 64 * KIB);
        } else {
            assert_true(stack->bytes >= asked[i] && stack->bytes < asked[i] + f.page);
        }
        use(stack, stack->bytes - 64);
        stack_release(&f.pool, stack);
    }
    fixture_fini(&f);
}

TEST(the_size_of_all_stacks_of_a_store_can_be_chosen)
{
    struct stack_store store;
    struct stack_pool pool;
    struct stack *stack;
    assert_int_equal(stack_store_init(&store, 10000, &alloc_default), ROUSE_OK);
    stack_pool_init(&pool, &store);
    assert_int_equal(stack_acquire(&pool, 0, false, &stack), ROUSE_OK);
    assert_int_equal(stack->bytes, size_align(10000, os_page_bytes()));
    stack_release(&pool, stack);
    stack_pool_fini(&pool);
    stack_store_fini(&store);
}

TEST(a_size_that_cannot_be_is_too_large)
{
    struct fixture f;
    struct stack_store store;
    struct stack *stack;
    assert_int_equal(stack_store_init(&store, SIZE_MAX, &alloc_default), ROUSE_TOO_LARGE);
    fixture_init(&f);
    assert_int_equal(stack_acquire(&f.pool, SIZE_MAX, false, &stack), ROUSE_TOO_LARGE);
    assert_int_equal(stack_acquire(&f.pool, SIZE_MAX / 2 + 1, false, &stack), ROUSE_TOO_LARGE);
    if (sizeof(size_t) > 4) /* else a gigabyte may be there */
        assert_int_equal(stack_acquire(&f.pool, SIZE_MAX / 4, false, &stack), ROUSE_NO_MEMORY);
    fixture_fini(&f);
}

/* ---- reuse ---- */

TEST(the_stack_released_last_is_acquired_first)
{
    struct fixture f;
    fixture_init(&f);
    struct stack *a = acquire(&f, 0), *b = acquire(&f, 0), *odd = acquire(&f, 100 * KIB);
    assert_ptr_not_equal(a, b);
    stack_release(&f.pool, a);
    stack_release(&f.pool, b);
    stack_release(&f.pool, odd);
    assert_ptr_equal(acquire(&f, 0), b);
    assert_ptr_equal(acquire(&f, 0), a);
    assert_ptr_equal(acquire(&f, 100 * KIB), odd);
    stack_release(&f.pool, a);
    stack_release(&f.pool, b);
    stack_release(&f.pool, odd);
    fixture_fini(&f);
}

TEST(reuse_asks_the_system_and_the_allocator_for_nothing)
{
    struct fixture f;
    fixture_init(&f);
    struct stack *stack = acquire(&f, 0);
    use(stack, 3 * KIB);
    stack_release(&f.pool, stack);
    faults_reset();
    faults_forbid_alloc(true);
    for (int i = 0; i < 1000; i++) {
        stack = acquire(&f, 0);
        use(stack, 3 * KIB);
        stack_release(&f.pool, stack);
    }
    faults_forbid_alloc(false);
    assert_int_equal(faults_syscall_count("madvise"), 0);
    assert_int_equal(faults_syscall_count("mprotect"), 0);
    assert_int_equal(faults_syscall_count("mmap"), 0);
    fixture_fini(&f);
}

TEST(a_release_allocates_nothing)
{
    enum { COUNT = 300 };
    static struct stack *stacks[COUNT];
    struct fixture f;
    fixture_init(&f);
    for (size_t i = 0; i < COUNT; i++)
        stacks[i] = acquire(&f, i % 3 == 0 ? 32 * KIB : 0);
    faults_forbid_alloc(true);
    for (size_t i = 0; i < COUNT; i++)
        stack_release(&f.pool, stacks[i]);
    faults_forbid_alloc(false);
    fixture_fini(&f);
}

TEST(a_stack_may_go_back_to_another_pool_and_from_there_to_a_third)
{
    enum { COUNT = 500 };
    static struct stack *stacks[COUNT];
    struct fixture f;
    struct stack_pool other, third;
    struct stack *stack;
    size_t before = stack_mappings().bytes;
    fixture_init(&f);
    stack_pool_init(&other, &f.store);
    stack_pool_init(&third, &f.store);
    for (size_t i = 0; i < COUNT; i++)
        stacks[i] = acquire(&f, 0);
    size_t reserved = stack_mappings().bytes;
    for (size_t i = 0; i < COUNT; i++)
        stack_release(&other, stacks[i]);
    stack_pool_fini(&other);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(stack_acquire(&third, 0, false, &stacks[i]), ROUSE_OK);
    assert_int_equal(stack_mappings().bytes, reserved); /* no stack was forgotten */
    for (size_t i = 0; i < COUNT; i++)
        stack_release(&f.pool, stacks[i]);
    assert_int_equal(stack_store_acquire(&f.store, 0, false, &stack), ROUSE_OK);
    stack_store_release(&f.store, stack);
    assert_int_equal(stack_store_acquire(&f.store, 32 * KIB, false, &stack), ROUSE_OK);
    stack_store_release(&f.store, stack);
    stack_pool_fini(&third);
    fixture_fini(&f);
    assert_int_equal(stack_mappings().bytes, before);
}

TEST(stacks_of_other_sizes_are_unmapped_when_many_are_free)
{
    enum { COUNT = 100 };
    static struct stack *stacks[COUNT];
    struct fixture f;
    fixture_init(&f);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT; i++)
            stacks[i] = acquire(&f, (4 * (1 + i % 3) + (size_t)round) * f.page);
        faults_reset();
        for (size_t i = 0; i < COUNT; i++)
            stack_release(&f.pool, stacks[i]);
        if (FAULTS_AVAILABLE)
            assert_true(faults_syscall_count("munmap") >= COUNT - 16);
    }
    fixture_fini(&f);
}

TEST(a_hundred_thousand_stacks_fit)
{
    test_needs("system_layer"); /* elsewhere each guard is a mapping */
    test_needs("commit_on_touch");
    test_time_limit(200); /* of the kernel's work; 20 s where nothing else runs */
    size_t count = test_is_slow() ? 2000 : 100000;
    struct fixture f;
    struct stack **stacks = calloc(count, sizeof(struct stack *));
    assert_non_null(stacks);
    size_t before = stack_mappings().bytes;
    fixture_init(&f);
    if (!os_guard_is_light())
        count = count < os_guard_limit() / 2 ? count : os_guard_limit() / 2;
    for (size_t i = 0; i < count; i++) {
        stacks[i] = acquire(&f, 0);
        memcpy(top_of(stacks[i]) - sizeof i, &i, sizeof i);
    }
    if (os_guard_is_light())
        assert_true(stack_mappings().count <= count / 64 + 100);
    for (size_t i = 0; i < count; i++) {
        assert_memory_equal(top_of(stacks[i]) - sizeof i, &i, sizeof i);
        stack_release(&f.pool, stacks[i]);
    }
    fixture_fini(&f);
    free(stacks);
    assert_int_equal(stack_mappings().bytes, before);
}

/* ---- memory ---- */

TEST(a_stack_that_was_used_a_little_commits_only_its_top_page)
{
    test_needs("commit_on_touch");
    test_needs("residence");
    struct fixture f;
    fixture_init(&f);
    if (f.page > 8 * KIB)
        test_skip("pages are larger");
    struct stack *stack = acquire(&f, 0);
    use(stack, 1 * KIB);
#if defined(NDEBUG)
    size_t expected = f.page;
#else
    size_t expected = 2 * f.page; /* and the canary's */
#endif
    if (!test_is_slow())
        assert_int_equal(resident_bytes(stack), expected);
    stack_release(&f.pool, stack);
    fixture_fini(&f);
}

/* Acquires many, uses them, releases them, and answers what those that are then free keep on average. */
static size_t kept_bytes_after(struct fixture *f, size_t depth, bool jump)
{
    enum { COUNT = 400 };
    static struct stack *stacks[COUNT];
    size_t kept = 0;
    for (size_t i = 0; i < COUNT; i++) {
        stacks[i] = acquire(f, 0);
        if (jump) { /* over all that lies above */
            char *frame = top_of(stacks[i]) - depth;
            memset(frame, 0x55, 64);
            stack_note_wait(stacks[i], frame);
        } else {
            use(stacks[i], depth);
        }
    }
    for (size_t i = 0; i < COUNT; i++)
        stack_release(&f->pool, stacks[i]);
    for (size_t i = 0; i < COUNT; i++)
        kept += resident_bytes(stacks[i]);
    return kept / COUNT;
}

TEST(free_stacks_give_back_what_lies_below_8_kib_but_for_some)
{
    test_needs("commit_on_touch");
    test_needs("residence");
    struct fixture f;
    fixture_init(&f);
    if (f.page > 8 * KIB)
        test_skip("pages are larger");
    size_t canary = f.page; /* its page, in debug builds */
    size_t some = 16 * 40 * KIB / 400;
    for (int round = 0; round < 3; round++) {
        assert_true(kept_bytes_after(&f, 40 * KIB, false) <= 8 * KIB + canary + some);
        assert_true(kept_bytes_after(&f, 40 * KIB, true) <= 8 * KIB + canary + some);
        assert_true(kept_bytes_after(&f, 7 * KIB, false) >= 8 * KIB);
        assert_true(kept_bytes_after(&f, 9 * KIB, false) <= 8 * KIB + canary + some);
    }
    fixture_fini(&f);
}

TEST(a_stack_that_is_always_used_up_to_8_kib_is_given_back_once_at_most)
{
    test_needs("commit_on_touch");
    struct fixture f;
    fixture_init(&f);
    if (f.page > 4 * KIB)
        test_skip("pages are larger");
    (void)kept_bytes_after(&f, 8 * KIB - 64, false);
    faults_reset();
    (void)kept_bytes_after(&f, 8 * KIB - 64, false);
    /* The pool's few deep ones, which move to the store or give their place to others, are all. */
    assert_true(faults_syscall_count("madvise") <= 32);
    fixture_fini(&f);
}

TEST(many_free_stacks_give_everything_back)
{
    test_needs("commit_on_touch");
    test_needs("residence");
    test_time_limit(200); /* of the kernel's work; 10 s where nothing else runs */
    size_t count = test_is_slow() ? 6000 : 20000, kept = 0;
    struct fixture f;
    struct stack **stacks = calloc(count, sizeof(struct stack *));
    assert_non_null(stacks);
    fixture_init(&f);
    for (size_t i = 0; i < count; i++) {
        stacks[i] = acquire(&f, 0);
        use(stacks[i], 1 * KIB);
    }
    for (size_t i = 0; i < count; i++)
        stack_release(&f.pool, stacks[i]);
    for (size_t i = 0; i < count; i++)
        kept += resident_bytes(stacks[i]) > 0;
    assert_true(kept <= 4096 + 200);
    for (size_t i = 0; i < count; i++) { /* and are as good as new */
        stacks[i] = acquire(&f, 0);
        use(stacks[i], 20 * KIB);
    }
    for (size_t i = 0; i < count; i++)
        stack_release(&f.pool, stacks[i]);
    fixture_fini(&f);
    free(stacks);
}

/* ---- overflow ---- */

/* A fiber that recurses until something stops it, in a child process. */
struct overflow {
    struct fixture f;
    struct stack *stack, *neighbour;              /* the neighbour's upper end lies directly below the guard */
    struct switch_context here, there;            /* the child's own stack, and the fiber's */
    struct annotation annotation, our_annotation; /* of both */
    int calls;                                    /* how deep it went */
};

static struct overflow overflow;

__attribute__((noinline)) static int recurse(volatile char *above)
{
    volatile char frame[200];
    frame[0] = above[0];
    overflow.calls++;
    int below = overflow.calls < 1000000 ? recurse(frame) : 0;
    return below + frame[0];
}

static void recurse_for_ever(void *argument)
{
    annotation_after_switch(&overflow.annotation, &overflow.our_annotation);
    volatile char frame[8] = {(char)(argument != NULL)};
    (void)recurse(frame);
    require(overflow.calls < 0); /* the recursion ended */
}

static void switch_to_recursion(void)
{
    annotation_init(&overflow.annotation, overflow.stack->low, overflow.stack->bytes);
    annotation_init_thread(&overflow.our_annotation);
    switch_prepare(&overflow.there, overflow.stack->low, overflow.stack->bytes, recurse_for_ever, NULL);
    annotation_before_switch(&overflow.our_annotation, &overflow.annotation, false);
    switch_to(&overflow.here, &overflow.there);
}

static void prepare_overflow(void)
{
    fixture_init(&overflow.f);
    struct stack *a = acquire(&overflow.f, 0), *b = acquire(&overflow.f, 0);
    overflow.stack = (uintptr_t)a->low > (uintptr_t)b->low ? a : b;
    overflow.neighbour = overflow.stack == a ? b : a;
    require(top_of(overflow.neighbour) + overflow.f.page == (char *)overflow.stack->low);
    overflow.stack->name = "deep one";
    overflow.stack->site = "here.c:7";
    memset(overflow.neighbour->low, 0x77, overflow.neighbour->bytes);
}

static bool *verdict; /* what the child found, in memory that its parent shares */

/* Ends the child. Its exit status says nothing: tools count what it still has allocated. */
static void on_overflow(int number, siginfo_t *info, void *context)
{
    (void)context;
    uintptr_t address = (uintptr_t)info->si_addr, low = (uintptr_t)overflow.stack->low;
    bool good = number == SIGSEGV && address < low && address >= low - overflow.f.page && overflow.calls > 50;
    good = good && stack_store_find_guard(&overflow.f.store, address) == overflow.stack;
    const char *memory = overflow.neighbour->low;
    for (size_t i = 0; i < overflow.neighbour->bytes; i++)
        good = good && memory[i] == 0x77;
    *verdict = good;
    _exit(0);
}

static void overflow_with_a_handler(void *argument)
{
    static char handler_stack[64 * 1024];
    stack_t alternate = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    struct sigaction action = {.sa_sigaction = on_overflow, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    (void)argument;
    prepare_overflow();
    require(sigaltstack(&alternate, NULL) == 0);
    require(sigaction(SIGSEGV, &action, NULL) == 0);
    switch_to_recursion();
}

TEST(deep_recursion_hits_the_guard_every_time_and_spares_the_neighbour)
{
    test_needs("fork");
    uint64_t runs = test_scale(20, 100);
    verdict = mmap(NULL, sizeof *verdict, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(verdict != MAP_FAILED);
    for (uint64_t i = 0; i < runs; i++) {
        *verdict = false;
        (void)test_in_child(overflow_with_a_handler, NULL, MINUTES);
        assert_true(*verdict);
    }
    munmap(verdict, sizeof *verdict);
}

/* What a child wrote to standard error, and how it ended. */
static int run_child(void (*body)(void *argument), char *text, size_t room)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    int saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    int status = test_in_child(body, NULL, MINUTES);
    dup2(saved, STDERR_FILENO);
    close(saved);
    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], text + length, room - 1 - length)) > 0)
        length += (size_t)got;
    text[length] = '\0';
    close(ends[0]);
    return status;
}

static void overflow_without_handler(void *argument)
{
    (void)argument;
    prepare_overflow();
    switch_to_recursion();
}

TEST(an_overflow_ends_the_process)
{
    test_needs("fork");
    static char text[64 * 1024]; /* which is a sanitizer's, and long */
    int status = run_child(overflow_without_handler, text, sizeof text);
    if (test_is_slow()) /* their handlers make it an exit */
        assert_true(status != 0);
    else
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static bool report_guard(uintptr_t address)
{
    const struct stack *stack = stack_store_find_guard(&overflow.f.store, address);
    if (stack)
        stack_report_overflow(stack);
    return false;
}

static void overflow_with_a_report(void *argument)
{
    void *memory;
    (void)argument;
    prepare_overflow();
    require_int(os_fault_hook_install(report_guard), ==, ROUSE_OK);
    require_int(os_fault_thread_enter(&memory), ==, ROUSE_OK);
    switch_to_recursion();
}

TEST(an_overflow_can_be_reported_with_the_name_of_who_used_the_stack)
{
    test_needs("fork");
    test_needs("system_layer");
    static char text[64 * 1024];
    int status = run_child(overflow_with_a_report, text, sizeof text);
    assert_true(status != 0);
    assert_non_null(strstr(text, "rouse: stack overflow in deep one started at here.c:7: its stack has 65536 bytes\n"));
}

TEST(only_an_address_in_a_guard_finds_a_stack)
{
    test_needs("commit_on_touch");
    enum { COUNT = 130 };
    static struct stack *stacks[COUNT];
    struct fixture f;
    fixture_init(&f);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < COUNT; i++)
            stacks[i] = acquire(&f, i % 4 == 3 ? (16 + i) * KIB : 0);
        for (size_t i = 0; i < COUNT; i++) {
            uintptr_t low = (uintptr_t)stacks[i]->low;
            assert_ptr_equal(stack_store_find_guard(&f.store, low - 1), stacks[i]);
            assert_ptr_equal(stack_store_find_guard(&f.store, low - f.page), stacks[i]);
            assert_null(stack_store_find_guard(&f.store, low));
            assert_null(stack_store_find_guard(&f.store, low + stacks[i]->bytes - 1));
        }
        for (size_t i = 0; i < COUNT; i++)
            stack_release(&f.pool, stacks[i]);
    }
    assert_null(stack_store_find_guard(&f.store, 0));
    assert_null(stack_store_find_guard(&f.store, UINTPTR_MAX));
    assert_null(stack_store_find_guard(&f.store, (uintptr_t)&f));
    fixture_fini(&f);
}

/* ---- without guards ---- */

/* Neither kind of guard can be installed. */
static void let_guards_run_out(void)
{
    require(os_guard_is_light() || true); /* asks the kernel now, while it answers */
    faults_syscall("madvise", 1, EINVAL, FAULTS_ALWAYS);
    faults_syscall("mprotect", 1, ENOMEM, FAULTS_ALWAYS);
}

TEST(when_guards_have_run_out_a_stack_is_refused_unless_it_may_be_without)
{
    test_needs("faults");
    struct fixture f;
    struct stack *first, *second, *odd, *none = NULL;
    fixture_init(&f);
    first = acquire(&f, 0);
    let_guards_run_out();
    assert_int_equal(stack_acquire(&f.pool, 0, false, &none), ROUSE_LIMIT);
    assert_int_equal(stack_acquire(&f.pool, 32 * KIB, false, &none), ROUSE_LIMIT);
    assert_int_equal(stack_store_acquire(&f.store, 0, false, &none), ROUSE_LIMIT);
    assert_null(none);
    assert_int_equal(stack_acquire(&f.pool, 0, true, &second), ROUSE_OK);
    assert_int_equal(stack_acquire(&f.pool, 32 * KIB, true, &odd), ROUSE_OK);
    assert_false(second->guarded || odd->guarded);
    assert_true(second->watched && odd->watched); /* in every build */

    /* A guarded one that somebody has released is as good as ever, wherever it lies. */
    stack_release(&f.pool, first);
    stack_release(&f.pool, second);
    struct stack *again = acquire(&f, 0);
    assert_ptr_equal(again, first);
    struct stack_pool other;
    stack_pool_init(&other, &f.store);
    assert_int_equal(stack_acquire(&other, 0, true, &none), ROUSE_OK);
    stack_release(&other, none);
    stack_store_release(&f.store, again);
    assert_int_equal(stack_acquire(&other, 0, false, &none), ROUSE_OK);
    assert_ptr_equal(none, first);
    stack_release(&other, none);
    stack_pool_fini(&other);

    /* And guards may come back. */
    faults_reset();
    struct stack *third = acquire(&f, 0), *fourth = acquire(&f, 0);
    assert_true(third->guarded && fourth->guarded);
    stack_release(&f.pool, third);
    stack_release(&f.pool, fourth);
    stack_release(&f.pool, odd);
    fixture_fini(&f);
}

static void overwrite_the_low_end(void *argument)
{
    struct fixture f;
    struct stack *stack;
    (void)argument;
    fixture_init(&f);
    let_guards_run_out();
    require_int(stack_acquire(&f.pool, 0, true, &stack), ==, ROUSE_OK);
    stack->name = "careless";
    memset(stack->low, 0, 8);
    stack_release(&f.pool, stack);
}

TEST(a_release_finds_that_a_stack_without_guard_has_overflowed)
{
    static char text[64 * 1024];
    test_needs("faults");
    assert_true(run_child(overwrite_the_low_end, text, sizeof text) != 0);
    assert_non_null(strstr(text, "rouse: stack overflow in careless: its stack has 65536 bytes\n"));
}

#if !defined(NDEBUG)
static void overwrite_the_low_end_and_wait(void *argument)
{
    struct fixture f;
    (void)argument;
    fixture_init(&f);
    struct stack *stack = acquire(&f, 0);
    stack_note_wait(stack, top_of(stack) - 100);
    memset(stack->low, 0, 8);
    stack_note_wait(stack, top_of(stack) - 100);
}

TEST(in_debug_builds_a_wait_finds_that_a_stack_has_overflowed)
{
    static char text[64 * 1024];
    test_needs("fork");
    assert_true(run_child(overwrite_the_low_end_and_wait, text, sizeof text) != 0);
    assert_non_null(strstr(text, "rouse: stack overflow in a fiber: its stack has 65536 bytes\n"));
}
#endif

/* ---- failures ---- */

/* What acquire_and_release_some does. */
struct some {
    size_t count;         /* of stacks */
    bool allow_unguarded; /* when guards have run out */
};

static void acquire_and_release_some(void *argument)
{
    enum { MOST = 70 };
    static struct stack *stacks[MOST];
    const struct some *some = argument;
    struct stack_store store;
    struct stack_pool pool;
    size_t before = stack_mappings().bytes;
    require_int(stack_store_init(&store, 0, &alloc_default), ==, ROUSE_OK);
    stack_pool_init(&pool, &store);
    for (size_t i = 0; i < some->count; i++) {
        size_t bytes = i % 10 == 0 ? 24 * KIB : 0;
        int status = stack_acquire(&pool, bytes, some->allow_unguarded, &stacks[i]);
        if (status != ROUSE_OK) {
            require(status == ROUSE_NO_MEMORY || status == ROUSE_LIMIT);
            stacks[i] = NULL;
        } else {
            use(stacks[i], 12 * KIB);
        }
    }
    for (size_t i = 0; i < some->count; i++) {
        if (stacks[i])
            stack_release(&pool, stacks[i]);
    }
    stack_pool_fini(&pool);
    stack_store_fini(&store);
    require_int(stack_mappings().bytes, ==, before);
}

TEST(when_memory_runs_out_at_any_point_nothing_is_left)
{
    test_needs("fork");
    test_needs("faults");
    struct some more_than_a_slab = {70, false};
    assert_true(test_each_failing_allocation(acquire_and_release_some, &more_than_a_slab) > 0);
}

TEST(when_the_system_refuses_memory_at_any_point_nothing_is_left)
{
    struct some more_than_a_slab = {70, false};
    test_needs("faults");
    (void)os_guard_is_light(); /* maps a page to find out */
    assert_true(test_each_failing_call("mmap", ENOMEM, acquire_and_release_some, &more_than_a_slab) > 0);
}

TEST(when_the_system_refuses_a_guard_at_any_point_nothing_is_left)
{
    struct some with = {11, false}, without = {11, true};
    test_needs("faults");
    const char *call = os_guard_is_light() ? "madvise" : "mprotect";
    assert_true(test_each_failing_call(call, ENOMEM, acquire_and_release_some, &with) > 0);
    assert_true(test_each_failing_call(call, EINVAL, acquire_and_release_some, &with) > 0);
    assert_true(test_each_failing_call(call, ENOMEM, acquire_and_release_some, &without) > 0);
}

TEST(a_small_slab_will_do_where_a_large_one_is_refused)
{
    test_needs("faults");
    struct fixture f;
    fixture_init(&f);
    (void)os_guard_is_light();
    faults_syscall("mmap", 1, ENOMEM, 2);
    struct stack *stack = acquire(&f, 0);
    assert_int_equal(faults_syscall_hit("mmap"), 2);
    faults_syscall("mmap", 1, ENOMEM, FAULTS_ALWAYS);
    struct stack *none = NULL;
    assert_int_equal(stack_acquire(&f.pool, 0, false, &none), ROUSE_NO_MEMORY);
    assert_int_equal(stack_acquire(&f.pool, 24 * KIB, false, &none), ROUSE_NO_MEMORY);
    faults_reset();
    stack_release(&f.pool, stack);
    fixture_fini(&f);
}

/* ---- threads ---- */

enum { EXCHANGE = 64 };

/* Where threads leave stacks for each other. */
struct exchange {
    struct stack_store *store;   /* of all stacks */
    atomic_ptr places[EXCHANGE]; /* a struct stack each, or NULL */
    uint64_t rounds;             /* of each thread */
};

static void *trade(void *argument)
{
    struct exchange *exchange = argument;
    struct stack_pool pool;
    uint64_t state = (uintptr_t)&pool;
    stack_pool_init(&pool, exchange->store);
    for (uint64_t i = 0; i < exchange->rounds; i++) {
        struct stack *stack;
        state = state * UINT64_C(6364136223846793005) + 1;
        require_int(stack_acquire(&pool, (state >> 60) == 0 ? 24 * KIB : 0, false, &stack), ==, ROUSE_OK);
        memcpy(top_of(stack) - 2000, &stack, sizeof stack);
        stack = atomic_ptr_exchange(&exchange->places[(state >> 33) % EXCHANGE], stack, ACQ_REL);
        if (stack) {
            require(memcmp(top_of(stack) - 2000, &stack, sizeof stack) == 0); /* had no second owner */
            stack_release(&pool, stack);
        }
    }
    stack_pool_fini(&pool);
    return NULL;
}

TEST(threads_acquire_from_their_pools_and_release_to_each_others)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    struct stack_store store;
    struct exchange exchange = {.store = &store, .rounds = test_scale(20000, 1000000)};
    require_int(stack_store_init(&store, 0, &alloc_default), ==, ROUSE_OK);
    for (int i = 0; i < THREADS; i++)
        require(pthread_create(&threads[i], NULL, trade, &exchange) == 0);
    for (int i = 0; i < THREADS; i++)
        require(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < EXCHANGE; i++) {
        struct stack *stack = atomic_ptr_load(&exchange.places[i], ACQUIRE);
        if (stack)
            stack_store_release(&store, stack);
    }
    stack_store_fini(&store);
}
