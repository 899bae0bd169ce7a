/* What a switch of stacks costs: two contexts that hand the processor to each other.
 *
 * switch: from the loop itself. switch_beneath_N: each side calls N functions down before it switches, and returns through
 * them after it was resumed, as every real fiber does (rouse_read, await, suspend). The processor predicts returns from
 * the calls it saw, which were the other stack's, so each of these returns is mispredicted: that, and not the switch, is
 * most of what a waiting call of a fiber costs beyond the same wait of a poll task. */
#include "fiber/switch.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 31, SWITCHES = 1000000 };

static struct switch_context here, there;
static char stack[64 * 1024];
static int calls; /* to go down on each side */

static __attribute__((noinline)) void descend(int left, struct switch_context *save, struct switch_context *load)
{
    if (left > 0)
        descend(left - 1, save, load);
    else
        switch_to(save, load);
    __asm__ volatile(""); /* something to return to */
}

static void answer(void *argument)
{
    (void)argument;
    for (;;)
        if (calls > 0)
            descend(calls - 1, &there, &here);
        else
            switch_to(&there, &here);
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void measure(const char *name)
{
    double ns[ROUNDS];
    switch_prepare(&there, stack, sizeof stack, answer, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t start = os_now();
        for (int i = 0; i < SWITCHES / 2; i++)
            if (calls > 0)
                descend(calls - 1, &here, &there);
            else
                switch_to(&here, &there);
        ns[round] = (double)(os_now() - start) / (double)SWITCHES;
    }
    qsort(ns, ROUNDS, sizeof ns[0], compare);
    printf("rouse\t%s\t%.2f\t%.2f\n", name, ns[0], ns[ROUNDS / 2]);
}

int main(void)
{
    measure("switch");
    calls = 1;
    measure("switch_beneath_1");
    calls = 3;
    measure("switch_beneath_3");
    return 0;
}
