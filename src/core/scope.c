#include "core/scope.h"

void scope_init(struct scope *scope, struct surroundings *owner)
{
    *scope = (struct scope){.owner = owner, .parent = owner->scope};
    list_init(&scope->list);
    list_init(&scope->closers);
    atomic_i64_init(&scope->limit_ns, ROUSE_NEVER);
}

int scope_add(struct scope *scope, struct origin *child)
{
    lock_acquire(&scope->lock);
    int status = scope->cancelled ? ROUSE_CANCELLED : ROUSE_OK;
    if (status == ROUSE_OK) {
        child->scope = scope;
        list_push_back(&scope->list, &child->sibling);
        scope->children++;
    }
    lock_release(&scope->lock);
    return status;
}

/* Under the lock: when nothing keeps the scope open any more, its owner hears of it. */
static void tell_owner_if_empty(struct scope *scope, struct wait_batch *batch)
{
    if (scope->children == 0 && scope->cancels == 0)
        wait_fire_first(&scope->closers, batch);
}

/* Takes a child off; the lock's release is the last touch of the scope, for its owner may then return. */
static void take_off(struct origin *child, int value)
{
    struct scope *scope = child->scope;
    struct wait_batch batch;
    wait_batch_init(&batch);
    lock_acquire(&scope->lock);
    list_remove(&child->sibling);
    if (value < 0 && scope->first_error == ROUSE_OK)
        scope->first_error = value;
    scope->children--;
    tell_owner_if_empty(scope, &batch);
    lock_release(&scope->lock);
    wait_batch_wake(&batch);
}

void scope_remove(struct origin *child)
{
    take_off(child, ROUSE_OK);
}

void scope_child_ended(struct origin *child, int value)
{
    take_off(child, value);
}

/* Each child is held while it is cancelled outside the lock; turning the list round as many times as there were children
 * reaches every one of them, for none is added any more. The caller may be any thread, and the children may end by this
 * very call: the scope stays open until it has left. */
int scope_cancel(struct scope *scope, int64_t limit_ns)
{
    struct wait_batch batch;
    wait_batch_init(&batch);
    lock_acquire(&scope->lock);
    if (!scope->owner) {
        lock_release(&scope->lock);
        return ROUSE_INVALID;
    }
    scope->cancels++;
    scope->cancelled = true;
    if (limit_ns < scope_limit(scope))
        atomic_i64_store(&scope->limit_ns, limit_ns, RELAXED);
    for (size_t left = scope->children; left && scope->children; left--) {
        struct list_node *node = list_pop_front(&scope->list);
        list_push_back(&scope->list, node);
        struct task_cell *cell = (struct task_cell *)(void *)CONTAINER_OF(node, struct origin, sibling) - 1;
        bool held = task_acquire_live(&cell->slot);
        lock_release(&scope->lock);
        if (held) {
            task_cancel_again(cell); /* the limit of its shields may be a new one */
            task_release(cell);
        }
        lock_acquire(&scope->lock);
    }
    scope->cancels--;
    tell_owner_if_empty(scope, &batch);
    lock_release(&scope->lock);
    wait_batch_wake(&batch);
    return ROUSE_OK;
}

ptrdiff_t scope_poll_empty(struct scope *scope, const rouse_waker *waker)
{
    rouse_waker kept = rouse_waker_clone(waker), old = {NULL, NULL};
    bool uncounted = !kept.table;
    ptrdiff_t answer = ROUSE_PENDING;
    lock_acquire(&scope->lock);
    if (wait_is_waiting(&scope->closer))
        old = wait_remove(&scope->closer);
    wait_forget(&scope->closer);
    if (scope->children == 0 && scope->cancels == 0) {
        answer = ROUSE_OK;
        scope->owner = NULL;
    } else if (!uncounted) {
        wait_add(&scope->closers, &scope->closer, kept);
        kept = (rouse_waker){NULL, NULL};
    }
    lock_release(&scope->lock);
    rouse_waker_drop(&old);
    rouse_waker_drop(&kept);
    /* A waker that could not be counted cannot wait, and closing cannot fail: looking again is all that is left. */
    if (answer == ROUSE_PENDING && uncounted)
        rouse_waker_wake_by_ref(waker);
    return answer;
}
