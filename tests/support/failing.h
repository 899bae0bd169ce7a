/* A test run once for each of its allocations, with that one failing: `program --failing-allocations NAME`.
 *
 * First the test runs as always, and its allocations are counted. Then it runs again in a forked child for each of them,
 * with that one failing, until a run has none left to fail. docs/testing.md says how a run is judged.
 *
 * The parts below are called by the harness; tests have nothing to do with this. */
#ifndef TEST_SUPPORT_FAILING_H
#define TEST_SUPPORT_FAILING_H

#include "support/harness.h"

/* Runs the test as described; `run` runs it once in this process and answers its exit status. `number` is 0 or the one
 * allocation to fail; `sticky`: together with all after it. Answers the exit status. */
int failing_allocations(test_case *test, int (*run)(test_case *test), unsigned long number, bool sticky);

/* The test runs again and again, for each of its allocations: what it repeats by itself it repeats less often then. */
bool failing_is_on(void);

/* Around the body of a test. */
void failing_begin(void);
void failing_end(void);

/* A requirement did not hold. `status` is what it looked at, 0 if that was no status. Ends the process if it must not
 * be blamed on the library. */
void failing_excuse(long long status);

#endif
