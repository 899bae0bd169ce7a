/* What one switch of stacks costs: two contexts that hand the processor to each other. */
#include "fiber/switch.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 31, SWITCHES = 1000000 };

static struct switch_context here, there;
static char stack[64 * 1024];

static void answer(void *argument)
{
    (void)argument;
    for (;;)
        switch_to(&there, &here);
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

int main(void)
{
    double ns[ROUNDS];
    switch_prepare(&there, stack, sizeof stack, answer, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t start = os_now();
        for (int i = 0; i < SWITCHES / 2; i++)
            switch_to(&here, &there);
        ns[round] = (double)(os_now() - start) / SWITCHES;
    }
    qsort(ns, ROUNDS, sizeof ns[0], compare);
    printf("rouse\tswitch\t%.2f\t%.2f\n", ns[0], ns[ROUNDS / 2]);
    return 0;
}
