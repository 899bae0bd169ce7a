#include "support/process.h"

#include "support/faults.h"
#include "support/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif

#define READ_LIMIT INT64_C(15000000000)

static void open_pipe(int ends[2])
{
    require(pipe(ends) == 0);
    require(fcntl(ends[0], F_SETFD, FD_CLOEXEC) == 0 && fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0);
}

#if defined(_WIN32)
/* A handle for the program: `end` of a pipe, or none. */
static HANDLE inherited(int end)
{
    HANDLE handle = (HANDLE)_get_osfhandle(end);
    require(SetHandleInformation(handle, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT));
    return handle;
}

/* The program has a console of its own: what that tells it does not reach the test. The pid is the process's handle. */
void test_process_start(test_process *process, const char *path, const char *const *arguments, enum test_stdout kind)
{
    char command[2000]; /* whose first word tells what to start, without .exe too */
    int output[2], errors[2], length = snprintf(command, sizeof command, "\"%s\"", path);
    for (size_t i = 0; arguments[i] != NULL; i++) {
        length += snprintf(command + length, sizeof command - (size_t)length, " \"%s\"", arguments[i]);
        require(length < (int)sizeof command);
    }
    open_pipe(output);
    open_pipe(errors);
    STARTUPINFOA start = {.cb = sizeof start, .dwFlags = STARTF_USESTDHANDLES};
    start.hStdInput = kind == TEST_STDOUT_CLOSED ? NULL : GetStdHandle(STD_INPUT_HANDLE);
    start.hStdOutput = kind == TEST_STDOUT_CLOSED ? NULL : inherited(output[1]);
    start.hStdError = inherited(errors[1]);
    PROCESS_INFORMATION made;
    require(CreateProcessA(NULL, command, NULL, NULL, TRUE, CREATE_NO_WINDOW, NULL, NULL, &start, &made));
    CloseHandle(made.hThread);
    require(close(output[1]) == 0 && close(errors[1]) == 0);
    process->pid = (intptr_t)made.hProcess;
    process->output = output[0];
    process->errors = errors[0];
    if (kind != TEST_STDOUT_PIPE) {
        require(close(process->output) == 0);
        process->output = -1;
    }
}

static BOOL WINAPI stay(DWORD event)
{
    return event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT;
}

void test_process_signal(const test_process *process, int signal)
{
    if (signal != SIGINT && signal != SIGTERM) {
        require(TerminateProcess((HANDLE)process->pid, (UINT)(128 + signal)));
        return;
    }
    /* Only programs at the same console can be told something. */
    FreeConsole();
    require(SetConsoleCtrlHandler(stay, TRUE));
    require(AttachConsole(GetProcessId((HANDLE)process->pid)));
    require(GenerateConsoleCtrlEvent(signal == SIGINT ? CTRL_C_EVENT : CTRL_BREAK_EVENT, 0));
    FreeConsole();
}

int test_process_end(test_process *process, int64_t timeout_ns)
{
    HANDLE handle = (HANDLE)process->pid;
    DWORD status = 0;
    bool ended = WaitForSingleObject(handle, (DWORD)(timeout_ns / 1000000)) == WAIT_OBJECT_0;
    if (!ended) {
        TerminateProcess(handle, 1);
    }
    require(ended && "the program ends in time");
    require(GetExitCodeProcess(handle, &status));
    CloseHandle(handle);
    return (int)status;
}
#else
/* The words of a command, in `text` and found by `words`, how many there are. */
static size_t split(char *text, size_t size, const char *command, char **words, size_t most)
{
    size_t count = 0;
    if (command == NULL) {
        return 0;
    }
    require(snprintf(text, size, "%s", command) < (int)size);
    for (char *rest = NULL, *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        require(count < most);
        words[count++] = word;
    }
    return count;
}

void test_process_start(test_process *process, const char *path, const char *const *arguments, enum test_stdout kind)
{
    bool was_exempt = faults_exempt(true);
    char *argv[16], emulator[256];
    size_t count = split(emulator, sizeof emulator, getenv("ROUSE_TEST_EMULATOR"), argv, 8);
    int output[2], errors[2];
    argv[count++] = (char *)(uintptr_t)path;
    for (size_t i = 0; arguments[i] != NULL; i++) {
        require(count + 1 < sizeof argv / sizeof argv[0]);
        argv[count++] = (char *)(uintptr_t)arguments[i];
    }
    argv[count] = NULL;
    open_pipe(output);
    open_pipe(errors);
    pid_t child = fork();
    require(child >= 0);
    process->pid = child;
    if (child == 0) {
#if defined(__linux__)
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves no program behind */
#endif
        dup2(output[1], 1);
        dup2(errors[1], 2);
        if (kind == TEST_STDOUT_CLOSED) {
            close(0);
            close(1);
        }
        execvp(argv[0], argv);
        _exit(126);
    }
    require(close(output[1]) == 0 && close(errors[1]) == 0);
    process->output = output[0];
    process->errors = errors[0];
    if (kind != TEST_STDOUT_PIPE) {
        require(close(process->output) == 0);
        process->output = -1;
    }
    faults_exempt(was_exempt);
}

void test_process_signal(const test_process *process, int signal)
{
    require(kill((pid_t)process->pid, signal) == 0);
}

int test_process_end(test_process *process, int64_t timeout_ns)
{
    int status;
    int64_t pause = 100000, deadline = test_now_ns() + timeout_ns;
    while (waitpid((pid_t)process->pid, &status, WNOHANG) == 0) {
        if (test_now_ns() > deadline) {
            test_print_stacks((int)process->pid);
            kill((pid_t)process->pid, SIGKILL);
            require(test_now_ns() <= deadline && "the program ends in time");
        }
        test_sleep_ns(pause);
        pause = pause < 2000000 ? pause * 2 : pause;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
#endif

static size_t read_some(int pipe, char *text, size_t size, bool one_line)
{
    bool was_exempt = faults_exempt(true);
    size_t length = 0;
    int64_t deadline = test_now_ns() + READ_LIMIT;
    while (length < size - 1 && !(one_line && length > 0 && text[length - 1] == '\n')) {
        struct pollfd ready = {pipe, POLLIN, 0};
        require(test_now_ns() < deadline);
        if (poll(&ready, 1, 100) <= 0) {
            continue;
        }
        ssize_t count = read(pipe, text + length, one_line ? 1 : size - 1 - length);
        if (count <= 0) {
            break;
        }
        length += (size_t)count;
    }
    text[length] = '\0';
    faults_exempt(was_exempt);
    return length;
}

size_t test_read_text(int pipe, char *text, size_t size)
{
    return read_some(pipe, text, size, false);
}

size_t test_read_line(int pipe, char *text, size_t size)
{
    return read_some(pipe, text, size, true);
}

void test_process_forget(test_process *process)
{
    bool was_exempt = faults_exempt(true);
    if (process->output >= 0) {
        close(process->output);
    }
    close(process->errors);
    faults_exempt(was_exempt);
}
