/* Another program, started by a test, with its output and its end. What cannot happen unless the test is wrong ends the
 * process; everything is exempt from faults.h. */
#ifndef TEST_SUPPORT_PROCESS_H
#define TEST_SUPPORT_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum test_stdout {
    TEST_STDOUT_PIPE,        /* to be read */
    TEST_STDOUT_BROKEN_PIPE, /* whose reader is gone */
    TEST_STDOUT_CLOSED       /* standard input is closed too */
};

typedef struct test_process {
    intptr_t pid;       /* what the system calls the process */
    int output, errors; /* reading ends of pipes; -1: none */
} test_process;

/* Starts a program; the arguments end with NULL and do not contain its name. At most 14. */
void test_process_start(test_process *process, const char *path, const char *const *arguments, enum test_stdout kind);

/* Reads from a pipe until the writer has closed it, or until a line has ended; answers the length. The text is cut off
 * at size - 1 bytes and ends with a NUL. */
size_t test_read_text(int pipe, char *text, size_t size);
size_t test_read_line(int pipe, char *text, size_t size);

void test_process_signal(const test_process *process, int signal);

/* Waits for the end; kills the program and ends the test if that takes longer. Answers the exit status, or 128 + the
 * number of the signal that ended it. */
int test_process_end(test_process *process, int64_t timeout_ns);

/* Closes the pipes. */
void test_process_forget(test_process *process);

#endif
