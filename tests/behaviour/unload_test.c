/* The shared library, loaded and unloaded again and again: nothing of it stays behind. */
#include <rouse/rouse.h>

#include "support/harness.h"

#include <dlfcn.h>

TEST_FILE_NEEDS(shared_library, proc_files)

#if !defined(ROUSE_SHARED_PATH)
#define ROUSE_SHARED_PATH ""
#endif

typedef int run_function(rouse_fiber_function *function, void *argument, const rouse_options *options);
typedef int span_function(int64_t span_ns);
typedef int mask_function(int signals);
typedef void restore_function(void);

static void *load(void)
{
    void *library = dlopen(ROUSE_SHARED_PATH, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fprintf(stderr, "%s\n", dlerror());
    require(library != NULL);
    return library;
}

/* ISO C has no cast from an object pointer to a function pointer; POSIX has. */
static void find(void *library, const char *name, void *function)
{
    void *found = dlsym(library, name);
    require(found != NULL);
    memcpy(function, &found, sizeof found);
}

static int count_mappings(void)
{
    char line[512];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    require(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, "librouse") != NULL;
    fclose(maps);
    return count;
}

static span_function *sleep_there;

static int sleep_in_fiber(void *unused)
{
    (void)unused;
    return sleep_there(ROUSE_US(50));
}

/* libuv#2625, libuv/help#52: a thread still ran, and descriptors were left, when the library was unloaded. */
TEST(unloading_the_library_leaves_no_thread_descriptor_or_mapping)
{
    test_needs("unloading");
    if (*ROUSE_SHARED_PATH == '\0' || test_is_valgrind()) /* the loader keeps a few bytes for each thread */
        test_skip("no shared library, or valgrind");
    int threads = test_thread_count(), descriptors = test_descriptor_count();
    uint64_t rounds = test_scale(40, 1000);
    size_t before = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        run_function *run;
        span_function *shutdown;
        mask_function *catch_signals;
        restore_function *restore;
        rouse_options options = ROUSE_OPTIONS_INIT;
        void *library = load();
        if (i == rounds / 2)
            before = test_rss_bytes();
        find(library, "rouse_run", &run);
        find(library, "rouse_sleep", &sleep_there);
        find(library, "rouse_default_shutdown", &shutdown);
        find(library, "rouse_signal_catch", &catch_signals);
        find(library, "rouse_signal_restore", &restore);
        options.executor = i % 2 == 0 ? ROUSE_EXECUTOR_SINGLE : ROUSE_EXECUTOR_MULTI;
        assert_true(count_mappings() > 0);
        assert_int_equal(run(sleep_in_fiber, NULL, &options), ROUSE_OK);
        if (i % 3 == 0) {
            assert_int_equal(sleep_there(ROUSE_US(50)), ROUSE_OK); /* on the default runtime */
            if (i % 2 == 0)                                        /* else unloading ends it */
                assert_int_equal(shutdown(ROUSE_S(10)), ROUSE_OK);
        }
        if (i % 5 == 0) {
            assert_int_equal(catch_signals(ROUSE_SIGNAL_HANG_UP), ROUSE_OK);
            restore();
        }
        assert_int_equal(dlclose(library), 0);
        assert_int_equal(count_mappings(), 0);
        eventually(test_thread_count() == threads, INT64_C(5000000000));
        assert_int_equal(test_descriptor_count(), descriptors);
    }
    if (!test_is_slow())
        assert_true(test_rss_bytes() < before + (1 << 20));
}
