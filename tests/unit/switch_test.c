/* The switch of stacks and what belongs to a context, with the annotations that the tools need. */
#include "fiber/annotate.h"
#include "fiber/switch.h"
#include "os/atomic.h"

#include "support/faults.h"
#include "support/harness.h"

#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

TEST_FILE_IS_OUTSIDE

enum { STACK_BYTES = 64 * 1024 };

/* A stack with a function on it, and whoever resumes it. */
struct fiber {
    struct switch_context context, resumer;           /* its own, and where it returns to when it waits */
    struct annotation annotation, resumer_annotation; /* of both */
    void (*body)(struct fiber *fiber);                /* runs on the stack */
    void *stack;                                      /* STACK_BYTES of memory */
    unsigned valgrind;                                /* its number for the stack */
    bool ended;                                       /* the body has returned */
    uint64_t number;                                  /* for the body */
    void *argument;                                   /* for the body */
};

static void fiber_wait(struct fiber *fiber)
{
    annotation_before_switch(&fiber->annotation, &fiber->resumer_annotation, fiber->ended);
    switch_to(&fiber->context, &fiber->resumer);
    annotation_after_switch(&fiber->annotation, &fiber->resumer_annotation);
}

static void run_body(void *argument)
{
    struct fiber *fiber = argument;
    annotation_after_switch(&fiber->annotation, &fiber->resumer_annotation);
    fiber->body(fiber);
    fiber->ended = true;
    fiber_wait(fiber);
}

static void *map_stack(void)
{
    void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(stack != MAP_FAILED);
    return stack;
}

static void fiber_init(struct fiber *fiber, void (*body)(struct fiber *fiber))
{
    memset(fiber, 0, sizeof *fiber);
    fiber->body = body;
    fiber->stack = map_stack();
    fiber->valgrind = annotation_stack_add(annotation_valgrind(), fiber->stack, STACK_BYTES);
    annotation_init(&fiber->annotation, fiber->stack, STACK_BYTES);
    switch_prepare(&fiber->context, fiber->stack, STACK_BYTES, run_body, fiber);
}

static void fiber_fini(struct fiber *fiber)
{
    annotation_fini(&fiber->annotation);
    annotation_stack_clean(annotation_valgrind(), fiber->stack, STACK_BYTES);
    annotation_stack_remove(annotation_valgrind(), fiber->valgrind);
    munmap(fiber->stack, STACK_BYTES);
}

static void resume(struct fiber *fiber)
{
    fiber->resumer = (struct switch_context){0};
    annotation_init_thread(&fiber->resumer_annotation);
    annotation_before_switch(&fiber->resumer_annotation, &fiber->annotation, false);
    switch_to(&fiber->resumer, &fiber->context);
    annotation_after_switch(&fiber->resumer_annotation, &fiber->annotation);
}

/* Resumes it until it has ended. Answers how often that was. */
static uint64_t run(struct fiber *fiber)
{
    uint64_t times = 0;
    for (; !fiber->ended; times++)
        resume(fiber);
    return times;
}

/* ---- control goes where it should ---- */

static void count_to_three(struct fiber *fiber)
{
    for (int i = 0; i < 3; i++) {
        fiber->number++;
        fiber_wait(fiber);
    }
}

TEST(an_entry_runs_when_its_context_is_first_resumed_and_goes_on_where_it_waited)
{
    struct fiber fiber;
    fiber_init(&fiber, count_to_three);
    assert_int_equal(fiber.number, 0);
    for (uint64_t i = 1; i <= 3; i++) {
        resume(&fiber);
        assert_int_equal(fiber.number, i);
        assert_false(fiber.ended);
    }
    resume(&fiber);
    assert_true(fiber.ended);
    fiber_fini(&fiber);
}

static void look_at_the_stack(struct fiber *fiber)
{
    _Alignas(64) volatile char line[64];
    _Alignas(16) volatile char word[16];
    uintptr_t address = (uintptr_t)word, low = (uintptr_t)fiber->stack;
    line[0] = word[0] = 1;
    require((uintptr_t)line % 64 == 0);
    require(address % 16 == 0);
    if (!test_is_sanitized()) /* which may keep locals elsewhere */
        require(address >= low + STACK_BYTES - 4096 && address < low + STACK_BYTES);
    char text[64]; /* variable arguments in vector registers: the callee saves them to aligned places */
    snprintf(text, sizeof text, "%.2f %.2Lf", (double)fiber->number + 0.25, (long double)1.5);
    require(strcmp(text, "0.25 1.50") == 0);
}

TEST(an_entry_starts_at_the_upper_end_of_its_stack_and_aligned)
{
    struct fiber fiber;
    fiber_init(&fiber, look_at_the_stack);
    assert_int_equal(run(&fiber), 1);
    fiber_fini(&fiber);
}

static void return_from_entry(void *argument)
{
    (void)argument;
}

static void run_an_entry_that_returns(void *argument)
{
    static struct switch_context here, there;
    (void)argument;
    switch_prepare(&there, map_stack(), STACK_BYTES, return_from_entry, NULL);
    switch_to(&here, &there);
}

TEST(an_entry_that_returns_is_a_trap)
{
    test_needs("fork");
    int status = test_in_child(run_an_entry_that_returns, NULL, INT64_C(10000000000));
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
    if (!test_is_slow())
        assert_true(WIFSIGNALED(status) && (WTERMSIG(status) == SIGILL || WTERMSIG(status) == SIGTRAP));
}

/* ---- what survives ---- */

static uint64_t random_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

/* Goes down some calls, waits at each, and finds its locals again. */
__attribute__((noinline)) static uint64_t descend(struct fiber *fiber, uint64_t depth)
{
    uint64_t a = fiber->number * 31 + depth, b = a * 7, c = b ^ depth, d = c + a, e = d * b, f = e ^ c;
    volatile uint64_t memory[8];
    for (uint64_t i = 0; i < 8; i++)
        memory[i] = f + i;
    fiber_wait(fiber);
    uint64_t below = depth > 0 ? descend(fiber, depth - 1) : 0;
    fiber_wait(fiber);
    for (uint64_t i = 0; i < 8; i++)
        require(memory[i] == f + i);
    require(a == fiber->number * 31 + depth && b == a * 7 && c == (b ^ depth) && d == c + a && e == d * b);
    return below + 1;
}

static void descend_some_calls(struct fiber *fiber)
{
    uint64_t depth = fiber->number % 40;
    require(descend(fiber, depth) == depth + 1);
}

TEST(many_contexts_in_any_order_find_their_locals_again)
{
    enum { FIBERS = 300 };
    struct fiber *fibers = calloc(FIBERS, sizeof *fibers);
    uint64_t state = 1, left = FIBERS;
    assert_non_null(fibers);
    for (uint64_t i = 0; i < FIBERS; i++) {
        fiber_init(&fibers[i], descend_some_calls);
        fibers[i].number = i;
    }
    while (left > 0) {
        struct fiber *fiber = &fibers[random_next(&state) % FIBERS];
        if (!fiber->ended) {
            resume(fiber);
            left -= fiber->ended;
        }
    }
    for (uint64_t i = 0; i < FIBERS; i++)
        fiber_fini(&fibers[i]);
    free(fibers);
}

#if !defined(ROUSE_FIBER_PORTABLE) && !defined(_WIN32) && (defined(__x86_64__) || defined(__aarch64__))
#define NAME_TEXT2(prefix, name) #prefix #name
#define NAME_TEXT(prefix, name)  NAME_TEXT2(prefix, name)
#define NAME(name)               NAME_TEXT(__USER_LABEL_PREFIX__, name) /* as the assembler knows it */

#if defined(__x86_64__)
enum { REGISTERS = 6 };

/* Switches with these values in the registers that a callee preserves, and puts what they hold afterwards there. */
__attribute__((noinline)) static void switch_with_registers(struct switch_context *save, struct switch_context *load,
                                                            uint64_t values[REGISTERS])
{
    void **save_sp = &save->sp;
    void *load_sp = load->sp;
    __asm__ volatile("subq $128, %%rsp\n\t" /* the red zone */
                     "pushq %%rbp\n\t"
                     "pushq %%rdx\n\t"
                     "movq (%%rdx), %%rbx\n\t"
                     "movq 8(%%rdx), %%rbp\n\t"
                     "movq 16(%%rdx), %%r12\n\t"
                     "movq 24(%%rdx), %%r13\n\t"
                     "movq 32(%%rdx), %%r14\n\t"
                     "movq 40(%%rdx), %%r15\n\t"
                     "call " NAME(switch_stacks) "\n\t"
                                                 "popq %%rdx\n\t"
                                                 "movq %%rbx, (%%rdx)\n\t"
                                                 "movq %%rbp, 8(%%rdx)\n\t"
                                                 "movq %%r12, 16(%%rdx)\n\t"
                                                 "movq %%r13, 24(%%rdx)\n\t"
                                                 "movq %%r14, 32(%%rdx)\n\t"
                                                 "movq %%r15, 40(%%rdx)\n\t"
                                                 "popq %%rbp\n\t"
                                                 "addq $128, %%rsp\n\t"
                     : "+D"(save_sp), "+S"(load_sp), "+d"(values)
                     :
                     : "rax", "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
}
#else
enum { REGISTERS = 19 }; /* x19 to x29, d8 to d15 */

/* The same. */
__attribute__((noinline)) static void switch_with_registers(struct switch_context *save, struct switch_context *load,
                                                            uint64_t values[REGISTERS])
{
    register void **save_sp __asm__("x0") = &save->sp;
    register void *load_sp __asm__("x1") = load->sp;
    register uint64_t *at __asm__("x2") = values;
    __asm__ volatile("stp x29, x2, [sp, #-16]!\n\t"
                     "ldp x19, x20, [x2]\n\t"
                     "ldp x21, x22, [x2, #16]\n\t"
                     "ldp x23, x24, [x2, #32]\n\t"
                     "ldp x25, x26, [x2, #48]\n\t"
                     "ldp x27, x28, [x2, #64]\n\t"
                     "ldp d8, d9, [x2, #80]\n\t"
                     "ldp d10, d11, [x2, #96]\n\t"
                     "ldp d12, d13, [x2, #112]\n\t"
                     "ldp d14, d15, [x2, #128]\n\t"
                     "ldr x29, [x2, #144]\n\t"
                     "bl " NAME(switch_stacks) "\n\t"
                                               "ldr x2, [sp, #8]\n\t"
                                               "stp x19, x20, [x2]\n\t"
                                               "stp x21, x22, [x2, #16]\n\t"
                                               "stp x23, x24, [x2, #32]\n\t"
                                               "stp x25, x26, [x2, #48]\n\t"
                                               "stp x27, x28, [x2, #64]\n\t"
                                               "stp d8, d9, [x2, #80]\n\t"
                                               "stp d10, d11, [x2, #96]\n\t"
                                               "stp d12, d13, [x2, #112]\n\t"
                                               "stp d14, d15, [x2, #128]\n\t"
                                               "str x29, [x2, #144]\n\t"
                                               "ldp x29, x2, [sp], #16\n\t"
                     : "+r"(save_sp), "+r"(load_sp), "+r"(at)
                     :
                     : "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17",
                       "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30", "v0", "v1", "v2",
                       "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17",
                       "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31",
                       "cc", "memory");
}
#endif

static struct switch_context register_contexts[2];

static void fill_registers(void *argument)
{
    uint64_t *values = argument;
    uint64_t before[REGISTERS];
    for (;;) {
        memcpy(before, values, sizeof before);
        switch_with_registers(&register_contexts[1], &register_contexts[0], values);
        require(memcmp(before, values, sizeof before) == 0);
    }
}

TEST(the_registers_that_a_callee_preserves_survive)
{
    uint64_t here[REGISTERS], expected[REGISTERS], there[REGISTERS];
    if (FAULTS_SANITIZED) /* no annotations here, so that nothing comes between the switches */
        test_skip("sanitizers come between");
    void *stack = map_stack();
    for (size_t i = 0; i < REGISTERS; i++) {
        expected[i] = here[i] = i + 1;
        there[i] = i + 101;
    }
    switch_prepare(&register_contexts[1], stack, STACK_BYTES, fill_registers, there);
    for (int i = 0; i < 3; i++) {
        switch_with_registers(&register_contexts[0], &register_contexts[1], here);
        assert_memory_equal(here, expected, sizeof here);
    }
    munmap(stack, STACK_BYTES);
}
#endif

/* ---- floating point ---- */

static double third(void)
{
    volatile double one = 1, three = 3;
    return one / three;
}

static long double long_third(void)
{
    volatile long double one = 1, three = 3;
    return one / three;
}

static void round_upwards(struct fiber *fiber)
{
    require(fegetround() == FE_TONEAREST);
    require(fesetround(FE_UPWARD) == 0);
    for (int i = 0; i < 3; i++) {
        fiber_wait(fiber);
        require(fegetround() == FE_UPWARD);
        if (!test_is_valgrind()) /* whose arithmetic rounds to nearest */
            require(third() > *(double *)fiber->argument);
    }
}

TEST(the_rounding_direction_belongs_to_the_context)
{
    double nearest = third();
    long double long_nearest = long_third();
    struct fiber fiber;
    fiber_init(&fiber, round_upwards);
    fiber.argument = &nearest;
    while (!fiber.ended) {
        resume(&fiber);
        assert_int_equal(fegetround(), FE_TONEAREST);
        assert_true(third() == nearest);
        assert_true(long_third() == long_nearest);
    }
    fiber_fini(&fiber);
}

static void expect_downwards(struct fiber *fiber)
{
    (void)fiber;
    require(fegetround() == FE_DOWNWARD);
}

TEST(a_new_context_inherits_the_rounding_direction_of_the_thread_that_prepares_it)
{
    struct fiber fiber;
    assert_int_equal(fesetround(FE_DOWNWARD), 0);
    fiber_init(&fiber, expect_downwards);
    assert_int_equal(fesetround(FE_TONEAREST), 0);
    assert_int_equal(run(&fiber), 1);
    assert_int_equal(fegetround(), FE_TONEAREST);
    fiber_fini(&fiber);
}

#if defined(__GLIBC__) && defined(__x86_64__)
static void enable_a_trap(struct fiber *fiber)
{
    feclearexcept(FE_ALL_EXCEPT);
    require(feenableexcept(FE_INEXACT) == 0);
    fiber_wait(fiber);
    require(fegetexcept() == FE_INEXACT);
    volatile long double one = 1, two = 2;
    require(one / two == 0.5L); /* exact: does not trap; neither for what others computed meanwhile */
}

TEST(enabled_floating_point_traps_belong_to_the_context)
{
    if (test_is_valgrind()) /* knows no traps */
        test_skip("valgrind knows no traps");
    struct fiber fiber;
    fiber_init(&fiber, enable_a_trap);
    resume(&fiber);
    assert_int_equal(fegetexcept(), 0);
    assert_true(third() > 0 && long_third() > 0);
    resume(&fiber);
    assert_true(fiber.ended);
    assert_int_equal(fegetexcept(), 0);
    assert_true(third() > 0 && long_third() > 0);
    fiber_fini(&fiber);
}
#endif

/* ---- errno, threads ---- */

static void change_errno(struct fiber *fiber)
{
    errno = ENOENT;
    fiber_wait(fiber);
    require(errno == EAGAIN);
}

TEST(errno_belongs_to_the_thread)
{
    struct fiber fiber;
    fiber_init(&fiber, change_errno);
    errno = 0;
    resume(&fiber);
    assert_int_equal(errno, ENOENT);
    errno = EAGAIN;
    resume(&fiber);
    assert_true(fiber.ended);
    fiber_fini(&fiber);
}

static void *resume_on_this_thread(void *fiber)
{
    resume(fiber);
    return NULL;
}

TEST(a_context_may_be_resumed_by_another_thread_each_time)
{
    struct fiber fiber;
    fiber_init(&fiber, descend_some_calls);
    fiber.number = 5;
    while (!fiber.ended) {
        pthread_t thread;
        require(pthread_create(&thread, NULL, resume_on_this_thread, &fiber) == 0);
        require(pthread_join(thread, NULL) == 0);
        if (!fiber.ended)
            resume(&fiber);
    }
    fiber_fini(&fiber);
}

static void *play_ping_pong(void *rounds)
{
    struct fiber fibers[2];
    fiber_init(&fibers[0], descend_some_calls);
    fiber_init(&fibers[1], descend_some_calls);
    for (uint64_t i = 0; i < *(uint64_t *)rounds; i++) {
        for (int k = 0; k < 2; k++) {
            if (fibers[k].ended) {
                fiber_fini(&fibers[k]);
                fiber_init(&fibers[k], descend_some_calls);
                fibers[k].number = i;
            }
            resume(&fibers[k]);
        }
    }
    for (int k = 0; k < 2; k++) {
        run(&fibers[k]);
        fiber_fini(&fibers[k]);
    }
    return NULL;
}

TEST(threads_switch_at_the_same_time)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    uint64_t rounds = test_scale(20000, 1000000);
    for (int i = 0; i < THREADS; i++)
        require(pthread_create(&threads[i], NULL, play_ping_pong, &rounds) == 0);
    for (int i = 0; i < THREADS; i++)
        require(pthread_join(threads[i], NULL) == 0);
}

/* ---- unwinding ---- */

#if defined(TEST_UNWINDING) /* the compiler's runtime can, with this C library */
#include <unwind.h>

static _Unwind_Reason_Code count_frame(struct _Unwind_Context *context, void *count)
{
    (void)context;
    return ++*(int *)count < 100 ? _URC_NO_REASON : _URC_HANDLER_FOUND; /* anything else stops it */
}

#if defined(__ARM_EABI_UNWINDER__)
#define UNWOUND _URC_FAILURE /* it knows no frame above that of makecontext, and no other word for that */
#else
#define UNWOUND _URC_END_OF_STACK
#endif

static void unwind(struct fiber *fiber)
{
    int frames = 0;
    fiber_wait(fiber);
    require_int(_Unwind_Backtrace(count_frame, &frames), ==, UNWOUND);
    require_int(frames, >=, 2);
    require_int(frames, <=, 6);
}

TEST(unwinding_ends_at_the_entry)
{
    struct fiber fiber;
    fiber_init(&fiber, unwind);
    run(&fiber);
    fiber_fini(&fiber);
}
#endif

/* ---- C++ exceptions ---- */

/* This program has no C++ runtime but this piece of one, which is all that the switch knows. */
void *__cxa_get_globals(void);
void *__cxa_get_globals(void)
{
    static _Thread_local struct switch_exceptions of_this_thread;
    return &of_this_thread;
}

static struct switch_exceptions *exceptions(void)
{
    return __cxa_get_globals();
}

/* As in: throw; in the handler, wait; end of the handler. */
static void handle_an_exception(struct fiber *fiber)
{
    require(exceptions()->caught == NULL && exceptions()->uncaught == 0);
    exceptions()->caught = fiber;
    exceptions()->uncaught = (unsigned)fiber->number;
    for (int i = 0; i < 3; i++) {
        fiber_wait(fiber);
        require(exceptions()->caught == fiber);
        require(exceptions()->uncaught == fiber->number);
    }
    exceptions()->caught = NULL;
    exceptions()->uncaught = 0;
    fiber_wait(fiber);
    require(exceptions()->caught == NULL && exceptions()->uncaught == 0);
}

static void expect_no_exception(struct fiber *fiber)
{
    while (fiber->number-- > 0) {
        require(exceptions()->caught == NULL && exceptions()->uncaught == 0);
        fiber_wait(fiber);
    }
}

TEST(the_exceptions_being_handled_belong_to_the_context)
{
    test_needs("fork");
    struct fiber fibers[3];
    pthread_t thread;
    fiber_init(&fibers[0], handle_an_exception);
    fiber_init(&fibers[1], handle_an_exception);
    fiber_init(&fibers[2], expect_no_exception);
    fibers[0].number = 0;
    fibers[1].number = 1;
    fibers[2].number = 4;
    exceptions()->uncaught = 7; /* the thread's own */
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 3; k++) {
            resume(&fibers[k]);
            assert_null(exceptions()->caught);
            assert_int_equal(exceptions()->uncaught, 7);
            if (i == 1) { /* and goes with it to another thread */
                require(pthread_create(&thread, NULL, resume_on_this_thread, &fibers[k]) == 0);
                require(pthread_join(thread, NULL) == 0);
            }
        }
        if (i == 3)
            break;
    }
    exceptions()->uncaught = 0;
    for (int k = 0; k < 3; k++) {
        assert_int_equal(fibers[k].ended, true);
        fiber_fini(&fibers[k]);
    }
}

/* ---- sanitizers ---- */

#if FAULTS_ADDRESS_SANITIZER
#include <sanitizer/lsan_interface.h>

#if !defined(ROUSE_FIBER_PORTABLE) /* with swapcontext the sanitizer forgets its red zones */
static void write_beyond_an_array(struct fiber *fiber)
{
    char array[16] = {0};
    char *volatile end = array + sizeof array; /* so that nobody else notices first */
    fiber_wait(fiber);
    *end = 1;
}

static void overflow_a_buffer(void *error)
{
    struct fiber fiber;
    dup2(*(int *)error, STDERR_FILENO);
    fiber_init(&fiber, write_beyond_an_array);
    run(&fiber);
}

TEST(address_sanitizer_reports_an_overflow_of_a_fibers_local_array)
{
    static char report[64 * 1024];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int status = test_in_child(overflow_a_buffer, &ends[1], INT64_C(20000000000));
    close(ends[1]);
    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], report + length, sizeof report - 1 - length)) > 0)
        length += (size_t)got;
    close(ends[0]);
    assert_true(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
    assert_non_null(strstr(report, "stack-buffer-overflow"));
    assert_non_null(strstr(report, "array"));
    assert_non_null(strstr(report, "write_beyond_an_array"));
}
#endif

/* Keeps the only pointer to a block on its stack. */
static void hold_a_block(struct fiber *fiber)
{
    void *volatile block = malloc(100);
    require(block != NULL);
    fiber_wait(fiber);
    free(block);
}

TEST(leak_sanitizer_finds_what_a_waiting_fiber_points_to)
{
    struct fiber *fiber = malloc(sizeof *fiber);
    assert_non_null(fiber);
    fiber_init(fiber, hold_a_block);
    resume(fiber);
    assert_int_equal(__lsan_do_recoverable_leak_check(), 0);
    resume(fiber);
    assert_true(fiber->ended);
    fiber_fini(fiber);
    free(fiber);
}
#endif
