/* What the switches for Windows share: the end of an exception that nobody on a fiber's stack has handled. */
#if defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

EXCEPTION_DISPOSITION switch_unhandled(EXCEPTION_RECORD *record, void *frame, CONTEXT *context, void *dispatcher);

/* The handler of the lowest function on each stack, called with what has happened. The filter asks the debugger and whoever
 * reports crashes; the process ends unless one of them says that it goes on. */
EXCEPTION_DISPOSITION switch_unhandled(EXCEPTION_RECORD *record, void *frame, CONTEXT *context, void *dispatcher)
{
    EXCEPTION_POINTERS what = {record, context};
    (void)frame;
    (void)dispatcher;
    if (record->ExceptionFlags & (EXCEPTION_UNWINDING | EXCEPTION_EXIT_UNWIND))
        return ExceptionContinueSearch;
    LONG answer = UnhandledExceptionFilter(&what);
    if (answer == EXCEPTION_CONTINUE_EXECUTION)
        return ExceptionContinueExecution;
    if (answer == EXCEPTION_EXECUTE_HANDLER)
        (void)TerminateProcess(GetCurrentProcess(), record->ExceptionCode);
    return ExceptionContinueSearch;
}

#else
typedef int nothing; /* C has no empty files */
#endif
