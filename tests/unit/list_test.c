#include "core/list.h"

#include "support/harness.h"

struct item {
    int number;
    struct list_node node;
    struct queue_link link;
};

/* The numbers in a list, front to back, checked against its backward links. */
static void assert_list(struct list_node *head, size_t count, const int *numbers)
{
    struct list_node *node = head;
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(node->next->prev, node);
        node = node->next;
        assert_ptr_not_equal(node, head);
        assert_int_equal(CONTAINER_OF(node, struct item, node)->number, numbers[i]);
    }
    assert_ptr_equal(node->next, head);
    assert_ptr_equal(head->prev, node);
}

static void assert_queue(struct queue *queue, size_t count, const int *numbers)
{
    assert_int_equal(queue->count, count);
    for (size_t i = 0; i < count; i++) {
        struct queue_link *link = queue_pop(queue);
        assert_non_null(link);
        assert_int_equal(CONTAINER_OF(link, struct item, link)->number, numbers[i]);
    }
    assert_null(queue_pop(queue));
    assert_int_equal(queue->count, 0);
}

static void number_items(struct item *items, int count)
{
    for (int i = 0; i < count; i++)
        items[i] = (struct item){.number = i};
}

TEST(a_new_list_is_empty)
{
    struct list_node head;
    list_init(&head);
    assert_true(list_is_empty(&head));
    assert_null(list_pop_front(&head));
    assert_true(list_is_empty(&head));
}

TEST(a_zeroed_node_is_not_linked)
{
    struct item item = {0};
    assert_false(list_is_linked(&item.node));
}

TEST(a_list_keeps_the_order_of_pushes_at_both_ends)
{
    struct list_node head;
    struct item items[4];
    list_init(&head);
    number_items(items, 4);
    list_push_back(&head, &items[2].node);
    list_push_back(&head, &items[3].node);
    list_push_front(&head, &items[1].node);
    list_push_front(&head, &items[0].node);
    assert_false(list_is_empty(&head));
    assert_list(&head, 4, (int[]){0, 1, 2, 3});
}

TEST(popping_takes_from_the_front_and_unlinks)
{
    struct list_node head;
    struct item items[2];
    list_init(&head);
    number_items(items, 2);
    list_push_back(&head, &items[0].node);
    list_push_back(&head, &items[1].node);
    assert_ptr_equal(list_pop_front(&head), &items[0].node);
    assert_false(list_is_linked(&items[0].node));
    assert_true(list_is_linked(&items[1].node));
    assert_ptr_equal(list_pop_front(&head), &items[1].node);
    assert_null(list_pop_front(&head));
}

TEST(a_node_can_be_removed_from_any_place_and_added_again)
{
    struct list_node head;
    struct item items[3];
    for (int removed = 0; removed < 3; removed++) {
        list_init(&head);
        number_items(items, 3);
        for (int i = 0; i < 3; i++)
            list_push_back(&head, &items[i].node);
        list_remove(&items[removed].node);
        assert_false(list_is_linked(&items[removed].node));
        assert_null(items[removed].node.prev);
        assert_list(&head, 2, (int[][2]){{1, 2}, {0, 2}, {0, 1}}[removed]);
        list_push_back(&head, &items[removed].node);
        assert_list(&head, 3, (int[][3]){{1, 2, 0}, {0, 2, 1}, {0, 1, 2}}[removed]);
    }
}

TEST(splicing_moves_all_nodes_behind_those_that_are_there)
{
    for (int here = 0; here < 3; here++) {
        for (int there = 0; there < 3; there++) {
            struct list_node head, other;
            struct item items[4];
            list_init(&head);
            list_init(&other);
            number_items(items, 4);
            for (int i = 0; i < here + there; i++)
                list_push_back(i < here ? &head : &other, &items[i].node);
            list_splice_back(&head, &other);
            assert_true(list_is_empty(&other));
            assert_list(&head, (size_t)(here + there), (int[]){0, 1, 2, 3});
        }
    }
}

TEST(a_zeroed_queue_is_empty)
{
    struct queue queue = {0};
    assert_true(queue_is_empty(&queue));
    assert_null(queue_pop(&queue));
}

TEST(a_queue_is_first_in_first_out)
{
    struct queue queue;
    struct item items[3];
    queue_init(&queue);
    number_items(items, 3);
    for (int i = 0; i < 3; i++)
        queue_push(&queue, &items[i].link);
    assert_false(queue_is_empty(&queue));
    assert_queue(&queue, 3, (int[]){0, 1, 2});
}

TEST(a_queue_that_ran_empty_can_be_filled_again)
{
    struct queue queue = {0};
    struct item items[2];
    number_items(items, 2);
    for (int round = 0; round < 3; round++) {
        queue_push(&queue, &items[0].link);
        assert_queue(&queue, 1, (int[]){0});
        assert_true(queue_is_empty(&queue));
    }
    queue_push(&queue, &items[0].link);
    queue_push(&queue, &items[1].link);
    assert_queue(&queue, 2, (int[]){0, 1});
}

TEST(appending_moves_all_links_behind_those_that_are_there)
{
    for (int here = 0; here < 3; here++) {
        for (int there = 0; there < 3; there++) {
            struct queue queue = {0}, other = {0};
            struct item items[5];
            number_items(items, 5);
            for (int i = 0; i < here + there; i++)
                queue_push(i < here ? &queue : &other, &items[i].link);
            queue_append(&queue, &other);
            assert_true(queue_is_empty(&other));
            assert_int_equal(other.count, 0);
            items[here + there].number = here + there;
            queue_push(&queue, &items[here + there].link);
            assert_queue(&queue, (size_t)(here + there + 1), (int[]){0, 1, 2, 3, 4});
        }
    }
}
