/* Runs the scenarios with many seeds.
 *
 * usage: scenarios [NAME...] [--seeds N] [--first SEED] [--hash]
 *
 * Without a name: all. --hash prints how many entries a run of each seed has on average, and one number for the hashes of
 * all runs, and fails if two seeds have the same one or a run that is repeated has another one. With ROUSE_SEED in the
 * environment only that seed is run. */
#include "scenario.h"

static const struct {
    const char *name;
    int (*scenario)(void *argument);
} scenarios[] = {
    {"demo", demo_scenario},         {"readers", readers_scenario}, {"churn", churn_scenario},
    {"timers", timers_scenario},     {"threads", threads_scenario}, {"shutdown", shutdown_scenario},
    {"meetings", meetings_scenario},
};

enum { SCENARIOS = sizeof scenarios / sizeof scenarios[0] };

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static uint64_t run_once(size_t which, rouse_sim_options *options, uint64_t seed, uint64_t *entries)
{
    rouse_sim_report report = {.size = sizeof report};
    options->seed = seed;
    must(rouse_sim_run(scenarios[which].scenario, NULL, options, &report) == ROUSE_OK);
    *entries += report.entries;
    return report.hash;
}

static int print_hashes(size_t which, rouse_sim_options *options, uint64_t seeds)
{
    uint64_t first = options->seed, entries = 0, all = 0, different = 1, ignored = 0;
    uint64_t *hashes = calloc((size_t)seeds, sizeof *hashes);
    must(hashes != NULL && seeds > 0);
    for (uint64_t i = 0; i < seeds; i++) {
        hashes[i] = run_once(which, options, first + i, &entries);
        all = (all ^ hashes[i]) * UINT64_C(0x9e3779b97f4a7c15);
    }
    uint64_t again = run_once(which, options, first, &ignored);
    bool repeats = again == hashes[0];
    qsort(hashes, (size_t)seeds, sizeof *hashes, compare);
    for (uint64_t i = 1; i < seeds; i++)
        different += hashes[i] != hashes[i - 1];
    printf("%s seeds %llu entries %llu different %llu hash %016llx%s\n", scenarios[which].name,
           (unsigned long long)seeds, (unsigned long long)(entries / seeds), (unsigned long long)different,
           (unsigned long long)all, repeats ? "" : " NOT REPEATED");
    free(hashes);
    return repeats && different * 100 >= seeds * 99 ? 0 : 1;
}

static int run(size_t which, uint64_t first, uint64_t seeds, bool hash)
{
    rouse_sim_options options = ROUSE_SIM_OPTIONS_INIT;
    options.seed = first;
    options.processors = 3;
    options.interrupts = 300;
    if (hash)
        return print_hashes(which, &options, seeds);
    int status = rouse_sim_check(scenarios[which].name, scenarios[which].scenario, NULL, &options, seeds);
    if (status == ROUSE_OK)
        printf("%s: %llu seeds\n", scenarios[which].name, (unsigned long long)seeds);
    fflush(stdout);
    return status == ROUSE_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    uint64_t seeds = 100, first = 1;
    bool hash = false, chosen[SCENARIOS] = {false}, any = false;
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        if (strcmp(argv[i], "--hash") == 0) {
            hash = true;
        } else if (i + 1 < argc && strcmp(argv[i], "--seeds") == 0) {
            seeds = strtoull(argv[++i], NULL, 10);
        } else if (i + 1 < argc && strcmp(argv[i], "--first") == 0) {
            first = strtoull(argv[++i], NULL, 10);
        } else {
            while (k < SCENARIOS && strcmp(argv[i], scenarios[k].name) != 0)
                k++;
            if (k == SCENARIOS) {
                fprintf(stderr, "usage: %s [NAME...] [--seeds N] [--first SEED] [--hash]; there is no %s\n", argv[0],
                        argv[i]);
                return 2;
            }
            chosen[k] = any = true;
        }
    }
    for (size_t k = 0; k < SCENARIOS; k++)
        if (chosen[k] || !any)
            failed |= run(k, first, seeds, hash);
    return failed;
}
