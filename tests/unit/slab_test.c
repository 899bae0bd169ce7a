/* Cells of tasks: taken and given back by their owner and by others, walked, and outliving their slab. */
#include "core/slab.h"
#include "os/os.h"
#include "support/faults.h"
#include "support/harness.h"
#include "support/net.h"

/* ---- an allocator that knows what it gave ---- */

enum { BLOCKS = 512 };

static struct block {
    void *memory;
    size_t bytes, alignment;
} blocks[BLOCKS];
static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;
static size_t blocks_taken, blocks_alive;

static void *take_block(void *context, size_t size, size_t alignment)
{
    require(context == blocks);
    require(alignment >= sizeof(void *) && (alignment & (alignment - 1)) == 0);
    void *memory = os_alloc(size, alignment);
    if (memory == NULL) {
        return NULL;
    }
    memset(memory, 0xa5, size);
    pthread_mutex_lock(&blocks_lock);
    size_t place = 0;
    while (place < BLOCKS && blocks[place].memory != NULL) {
        place++;
    }
    require(place < BLOCKS);
    blocks[place] = (struct block){memory, size, alignment};
    blocks_taken++;
    blocks_alive++;
    pthread_mutex_unlock(&blocks_lock);
    return memory;
}

static void give_block(void *context, void *memory, size_t size, size_t alignment)
{
    require(context == blocks);
    pthread_mutex_lock(&blocks_lock);
    size_t place = 0;
    while (place < BLOCKS && blocks[place].memory != memory) {
        place++;
    }
    require(place < BLOCKS);
    require(blocks[place].bytes == size && blocks[place].alignment == alignment);
    blocks[place].memory = NULL;
    blocks_alive--;
    pthread_mutex_unlock(&blocks_lock);
    os_free(memory);
}

static const rouse_allocator allocator = {take_block, give_block, blocks};
static int scheduler; /* its address is all that matters */

/* A slab of this thread, as if it were a worker. */
static struct slab *own_slab(void)
{
    struct slab *slab = slab_new(&allocator, &scheduler, blocks);
    require(slab != NULL);
    os_current_set(blocks);
    return slab;
}

static void retire(struct slab *slab)
{
    os_current_set(NULL);
    slab_retire(slab);
}

static struct slab_cell *take(struct slab *slab, size_t bytes, size_t alignment, bool *large)
{
    struct slab_cell *cell = slab_take(slab, bytes, alignment, large);
    require(cell != NULL);
    require(((uintptr_t)cell & (alignment - 1)) == 0);
    require(slab_chunk_of(cell)->slab == slab && slab->scheduler == &scheduler);
    require(atomic_size_load(&cell->word, RELAXED) == 0);
    return cell;
}

/* Everything behind the word is the user's. */
static void fill(struct slab_cell *cell, size_t bytes, int value)
{
    memset((char *)cell + sizeof *cell, value, bytes - sizeof *cell);
}

static void require_filled(struct slab_cell *cell, size_t bytes, int value)
{
    for (size_t i = sizeof *cell; i < bytes; i++) {
        require(((unsigned char *)cell)[i] == value);
    }
}

/* ---- taking and giving back ---- */

TEST(cells_of_every_size_do_not_overlap_and_come_back)
{
    struct slab *slab = own_slab();
    struct slab_cell *cells[300];
    bool large[300];
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 300; i++) {
            size_t bytes = 24 + i * 13;
            cells[i] = take(slab, bytes, 16, &large[i]);
            require(large[i] == (bytes > SLAB_CLASSES * SLAB_CLASS_BYTES));
            fill(cells[i], bytes, (int)(i & 0xff));
        }
        for (size_t i = 0; i < 300; i++) {
            require_filled(cells[i], 24 + i * 13, (int)(i & 0xff));
            slab_give(cells[i], large[i]);
        }
    }
    retire(slab);
    assert_int_equal(blocks_alive, 0);
}

TEST(the_cell_given_back_last_is_taken_first_and_nothing_is_asked_for)
{
    struct slab *slab = own_slab();
    bool large;
    struct slab_cell *one = take(slab, 100, 16, &large), *two = take(slab, 100, 16, &large);
    size_t taken = blocks_taken;
    for (int i = 0; i < 1000; i++) {
        slab_give(two, large);
        slab_give(one, large);
        assert_ptr_equal(take(slab, 97, 8, &large), one);
        assert_ptr_equal(take(slab, 128, 32, &large), two);
    }
    assert_int_equal(blocks_taken, taken);
    slab_give(one, large);
    slab_give(two, large);
    retire(slab);
    assert_int_equal(blocks_alive, 0);
}

TEST(alignments_up_to_a_page_are_kept)
{
    struct slab *slab = own_slab();
    for (size_t alignment = 1; alignment <= 4096; alignment *= 2) {
        bool large[2];
        struct slab_cell *small = take(slab, 24, alignment, &large[0]), *big = take(slab, 70000, alignment, &large[1]);
        assert_int_equal(large[0], alignment > SLAB_CLASS_BYTES);
        assert_true(large[1]);
        fill(small, 24, 1);
        fill(big, 70000, 2);
        slab_give(small, large[0]);
        slab_give(big, large[1]);
    }
    retire(slab);
    assert_int_equal(blocks_alive, 0);
}

TEST(a_slab_without_owner_uses_its_cells_again)
{
    struct slab *slab = slab_new(&allocator, &scheduler, NULL);
    bool large;
    struct slab_cell *cell = take(slab, 64, 16, &large);
    slab_give(cell, large);
    size_t taken = blocks_taken;
    for (int i = 0; i < 5000; i++) {
        cell = take(slab, 64, 16, &large);
        slab_give(cell, large);
    }
    assert_int_equal(blocks_taken, taken);
    slab_retire(slab);
    assert_int_equal(blocks_alive, 0);
}

TEST(a_size_that_cannot_be_had_is_refused)
{
    struct slab *slab = own_slab();
    bool large;
    assert_null(slab_take(slab, SIZE_MAX - 64, 4096, &large));
    retire(slab);
    assert_int_equal(blocks_alive, 0);
}

/* ---- other threads ---- */

enum { EXCHANGED = 64 };

struct exchange {
    atomic_uintptr_t place[EXCHANGED]; /* cells on their way from the owner to others */
    atomic_bool over;
};

static void give_back_what_comes(void *argument)
{
    struct exchange *exchange = argument;
    bool last = false, over = false;
    while (!last) {
        last = over;
        for (int i = 0; i < EXCHANGED; i++) {
            uintptr_t given = atomic_exchange(&exchange->place[i], 0);
            if (given != 0) {
                slab_give((struct slab_cell *)(given & ~(uintptr_t)1), given & 1);
            }
        }
        over = atomic_load(&exchange->over);
        test_take_turns();
    }
}

TEST(cells_given_back_by_other_threads_are_used_again)
{
    enum { THREADS = 2 };
    static struct exchange exchange;
    struct slab *slab = own_slab();
    test_thread threads[THREADS];
    size_t count = test_scale(100000, 3000000);
    for (int i = 0; i < THREADS; i++) {
        test_thread_start(&threads[i], give_back_what_comes, &exchange);
    }
    for (size_t i = 0; i < count; i++) {
        size_t bytes = i % 1000 == 0 ? 5000 : 32 + i % 7 * 64;
        bool large;
        struct slab_cell *cell = take(slab, bytes, 16, &large);
        fill(cell, bytes, (int)(i & 0xff));
        uintptr_t before = atomic_exchange(&exchange.place[i % EXCHANGED], (uintptr_t)cell | large);
        if (before != 0) { /* nobody came: the owner gives it back */
            slab_give((struct slab_cell *)(before & ~(uintptr_t)1), before & 1);
        }
        if (i % EXCHANGED == 0) {
            test_take_turns();
        }
    }
    atomic_store(&exchange.over, true);
    for (int i = 0; i < THREADS; i++) {
        test_thread_join(&threads[i], ROUSE_S(20));
    }
    /* At most what was on the way at once is there, not what was ever taken. */
    assert_true(blocks_alive < 100);
    retire(slab);
    assert_int_equal(blocks_alive, 0);
}

TEST(a_slab_that_is_retired_lives_until_the_last_cell_that_others_hold)
{
    for (int owned = 0; owned < 2; owned++) {
        for (int holders = 1; holders <= 4; holders++) {
            struct slab *slab = owned ? own_slab() : slab_new(&allocator, &scheduler, NULL);
            struct slab_cell *cells[4];
            bool large[4];
            for (int i = 0; i < holders; i++) {
                cells[i] = take(slab, i & 1 ? 5000 : 200, 16, &large[i]);
                fill(cells[i], 200, i);
            }
            retire(slab);
            for (int i = holders - 1; i >= 0; i--) {
                assert_true(blocks_alive > 0);
                require_filled(cells[i], 200, i);
                slab_give(cells[i], large[i]);
            }
            assert_int_equal(blocks_alive, 0);
        }
    }
}

/* ---- walks ---- */

static int visits;

static bool is_live(struct slab_cell *cell)
{
    return atomic_size_load(&cell->word, ACQUIRE) != 0;
}

static void mark_visited(struct slab_cell *cell, void *context)
{
    require(context == &visits);
    require(atomic_size_add(&cell->word, 1, RELAXED) == 1); /* once */
    visits++;
}

TEST(a_walk_visits_each_live_cell_once)
{
    struct slab *slab = own_slab();
    struct slab_cell *cells[3000];
    bool large[3000];
    int live = 0;
    for (int i = 0; i < 3000; i++) {
        bool is_large = i % 50 == 7;
        cells[i] = take(slab, is_large ? 3000 : 40 + (size_t)i % 4 * 100, 16, &large[i]);
        if (i % 3) {
            atomic_size_store(&cells[i]->word, 1, RELEASE);
            live++;
        }
    }
    slab_walk(slab, is_live, mark_visited, &visits);
    assert_int_equal(visits, live);
    for (int i = 0; i < 3000; i++) {
        require_int(atomic_size_load(&cells[i]->word, RELAXED), ==, i % 3 ? 2 : 0);
        atomic_size_store(&cells[i]->word, 0, RELAXED);
        slab_give(cells[i], large[i]);
    }
    visits = 0;
    slab_walk(slab, is_live, mark_visited, &visits);
    assert_int_equal(visits, 0);
    retire(slab);
}

static void give_back_when_visited(struct slab_cell *cell, void *context)
{
    atomic_size_store(&cell->word, 0, RELAXED);
    slab_give(cell, *(bool *)context);
    visits++;
}

TEST(a_visit_may_give_its_cell_back)
{
    for (int large_cells = 0; large_cells < 2; large_cells++) {
        struct slab *slab = own_slab();
        bool large = false;
        visits = 0;
        for (int i = 0; i < 100; i++) {
            atomic_size_store(&take(slab, large_cells ? 4000 : 64, 16, &large)->word, 1, RELEASE);
        }
        slab_walk(slab, is_live, give_back_when_visited, &large);
        assert_int_equal(visits, 100);
        retire(slab);
        assert_int_equal(blocks_alive, 0);
    }
}

/* ---- no memory ---- */

static void take_some(void *unused)
{
    struct slab *slab = slab_new(&allocator, &scheduler, blocks);
    (void)unused;
    if (slab == NULL) {
        return;
    }
    os_current_set(blocks);
    for (int i = 0; i < 5; i++) {
        bool large;
        struct slab_cell *cell = slab_take(slab, (size_t)100 << i, (size_t)16 << i, &large);
        if (cell != NULL) {
            slab_give(cell, large);
        }
    }
    retire(slab);
    require(blocks_alive == 0);
}

TEST(when_memory_runs_out_at_any_point_nothing_is_left)
{
    assert_true(test_each_failing_allocation(take_some, NULL) > 0 || !FAULTS_AVAILABLE);
}
