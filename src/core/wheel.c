#include "core/wheel.h"

#include "os/compiler.h"

#include <rouse/base.h>

/* Ticks are unsigned and start at the earliest int64_t, so that every deadline has one and they compare like times. */
static uint64_t tick_of(int64_t time_ns)
{
    return ((uint64_t)time_ns ^ (UINT64_C(1) << 63)) >> WHEEL_TICK_BITS;
}

static int64_t start_of_tick(uint64_t tick)
{
    return (int64_t)((tick << WHEEL_TICK_BITS) ^ (UINT64_C(1) << 63));
}

void wheel_init(struct wheel *wheel, int64_t now_ns)
{
    wheel->tick = tick_of(now_ns);
    list_init(&wheel->opened);
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        wheel->occupied[level] = 0;
        for (unsigned index = 0; index < WHEEL_SLOTS; index++)
            list_init(&wheel->slots[level][index].nodes);
    }
}

void wheel_add(struct wheel *wheel, struct wheel_node *node)
{
    uint64_t tick = tick_of(node->deadline_ns);
    if (tick < wheel->tick)
        tick = wheel->tick; /* slots of the past are never looked at again */
    unsigned level = os_highest_bit((tick ^ wheel->tick) | (WHEEL_SLOTS - 1)) / WHEEL_LEVEL_BITS;
    unsigned index = (unsigned)(tick >> (level * WHEEL_LEVEL_BITS)) % WHEEL_SLOTS;
    struct wheel_slot *slot = &wheel->slots[level][index];
    uint64_t bit = UINT64_C(1) << index;
    if (!(wheel->occupied[level] & bit)) {
        wheel->occupied[level] |= bit;
        slot->earliest_ns = node->deadline_ns;
    } else if (node->deadline_ns < slot->earliest_ns) {
        slot->earliest_ns = node->deadline_ns;
    }
    list_push_back(&slot->nodes, &node->link);
}

/* Clears the bit of a slot that has run empty. Other heads, the wheel's opened list or a caller's, have none. */
static void mark_empty(struct wheel *wheel, const struct list_node *head)
{
    uintptr_t offset = (uintptr_t)head - (uintptr_t)wheel->slots;
    if (offset >= sizeof wheel->slots)
        return;
    size_t number = offset / sizeof(struct wheel_slot);
    wheel->occupied[number / WHEEL_SLOTS] &= ~(UINT64_C(1) << (number % WHEEL_SLOTS));
}

void wheel_remove(struct wheel *wheel, struct wheel_node *node)
{
    struct list_node *next = node->link.next;
    list_remove(&node->link);
    /* A list that is empty now consists of its head: that is the neighbour. */
    if (list_is_empty(next))
        mark_empty(wheel, next);
}

/* The first level that holds anything; WHEEL_LEVELS if none does. Whatever lies on it comes before everything on higher
 * levels, because those differ from the wheel's tick in a higher digit. */
static unsigned first_level(const struct wheel *wheel)
{
    unsigned level = 0;
    while (level < WHEEL_LEVELS && !wheel->occupied[level])
        level++;
    return level;
}

bool wheel_is_empty(const struct wheel *wheel)
{
    return list_is_empty(&wheel->opened) && first_level(wheel) == WHEEL_LEVELS;
}

int64_t wheel_next(const struct wheel *wheel)
{
    if (!list_is_empty(&wheel->opened))
        return start_of_tick(wheel->tick);
    unsigned level = first_level(wheel);
    if (level == WHEEL_LEVELS)
        return ROUSE_NEVER;
    return wheel->slots[level][os_lowest_bit(wheel->occupied[level])].earliest_ns;
}

/* Advances the wheel to `tick` or to the first slot that is due before it, whichever comes first, and moves the nodes
 * of that slot to the opened list. False if none is due. Only when the opened list is empty: it holds nodes of the
 * tick that is left here. */
static bool open_next_slot(struct wheel *wheel, uint64_t tick, int64_t now_ns)
{
    unsigned level = first_level(wheel);
    if (level == WHEEL_LEVELS) {
        wheel->tick = tick;
        return false;
    }
    unsigned index = os_lowest_bit(wheel->occupied[level]);
    struct wheel_slot *slot = &wheel->slots[level][index];
    /* The slot's first tick: the wheel's digits above the level, the slot's index, zeros. */
    unsigned shift = level * WHEEL_LEVEL_BITS;
    uint64_t group = wheel->tick >> shift;
    uint64_t start = ((group - group % WHEEL_SLOTS) + index) << shift;
    if (start > tick) {
        wheel->tick = tick;
        return false;
    }
    wheel->tick = start;
    if (level == 0 && slot->earliest_ns > now_ns)
        return false; /* the present tick, with nothing due before the rest of it has passed */
    wheel->occupied[level] &= ~(UINT64_C(1) << index);
    list_splice_back(&wheel->opened, &slot->nodes);
    return true;
}

size_t wheel_expire(struct wheel *wheel, int64_t now_ns, struct list_node *expired, size_t limit)
{
    /* A caller that read the clock before another one expired the wheel may come after it. */
    uint64_t tick = tick_of(now_ns);
    if (tick < wheel->tick)
        tick = wheel->tick;
    size_t count = 0;
    while (limit > 0) {
        struct list_node *link = list_pop_front(&wheel->opened);
        if (!link) {
            if (!open_next_slot(wheel, tick, now_ns))
                break;
            continue;
        }
        limit--;
        struct wheel_node *node = CONTAINER_OF(link, struct wheel_node, link);
        /* A node that is due but not of this tick goes to its own slot first, so that those before it come first. */
        if (node->deadline_ns <= now_ns && tick_of(node->deadline_ns) <= wheel->tick) {
            list_push_back(expired, link);
            count++;
        } else {
            wheel_add(wheel, node);
        }
    }
    return count;
}
