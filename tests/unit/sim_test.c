/* What is particular to the backend of the simulated world: operations that the kernel has in its hands. Everything else
 * of it the contract, the behaviour tests and the scenarios show. */
#include "support/packets.h"

#include "backend/sim/sim.h"

static int kernel_start(struct packet_job *job, struct packet *packet)
{
    return sim_packet_start(job->reactor->backend, packet->record, job->data, sizeof job->data);
}

static void kernel_cancel(struct packet_job *job, struct packet *packet)
{
    sim_packet_cancel(job->reactor->backend, packet->record);
}

static ptrdiff_t kernel_answer(struct packet_job *job, struct packet *packet)
{
    (void)job;
    return (ptrdiff_t)packet->record[0];
}

TEST(an_operation_ends_with_its_packet)
{
    on_each_executor(await_result, NULL);
}

TEST(a_cancelled_fiber_comes_back_when_the_kernel_has_given_its_memory_back)
{
    on_each_executor(cancel_children, NULL);
}

TEST(a_deadline_ends_a_wait_when_the_kernel_has_given_the_memory_back)
{
    on_each_executor(let_the_time_pass, NULL);
}

TEST(who_takes_an_operation_back_by_hand_polls_it_to_its_end)
{
    on_each_executor(take_back_by_hand, NULL);
}

TEST(memory_of_a_dropped_task_is_kept_while_the_kernel_has_it)
{
    on_each_executor(drop_while_lent, NULL);
}

TEST(a_runtime_ends_when_the_kernel_has_given_its_tasks_memory_back)
{
    on_each_executor(leave_lent, NULL);
}
