/* POSIX as far as the tests use it, over Win32 and Winsock. The build makes headers by the usual names (sys/socket.h ...)
 * that include this one. What Windows lacks is declared too and fails with ENOSYS: tests that need it ask for a capability
 * and are skipped, but they compile.
 *
 * A descriptor is an int: a socket's handle, or what the C library opened; the numbers do not meet in practice. */
#ifndef TEST_SUPPORT_POSIX_WINDOWS_H
#define TEST_SUPPORT_POSIX_WINDOWS_H

#if !defined(WIN32_LEAN_AND_MEAN)
#define WIN32_LEAN_AND_MEAN
#endif
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <winsock2.h>
#include <ws2tcpip.h>

#include <windows.h>
#undef near
#undef far

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <limits.h>
#include <process.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if !defined(EHOSTDOWN)
#define EHOSTDOWN 200
#endif
#if !defined(ENONET)
#define ENONET 201
#endif

/* ---- sockets ---- */

#define MSG_NOSIGNAL  0
#define MSG_DONTWAIT  0x40000000
#define SOCK_CLOEXEC  0x80000
#define SOCK_NONBLOCK 0x800
#define SHUT_RD       SD_RECEIVE
#define SHUT_WR       SD_SEND
#define SHUT_RDWR     SD_BOTH
#if !defined(AF_UNIX)
#define AF_UNIX 1
#endif

struct sockaddr_un {
    short sun_family;
    char sun_path[108];
};

int posix_socket(int family, int type, int protocol);
/* Of streams; whatever the family, they are those of a TCP connection. */
int posix_socketpair(int family, int type, int protocol, int ends[2]);
int posix_bind(int socket, const void *address, int length);
int posix_listen(int socket, int backlog);
int posix_accept(int socket, void *address, int *length);
int posix_connect(int socket, const void *address, int length);
int posix_getsockname(int socket, void *address, int *length);
int posix_getpeername(int socket, void *address, int *length);
int posix_setsockopt(int socket, int level, int name, const void *value, int length);
int posix_getsockopt(int socket, int level, int name, void *value, int *length);
int posix_shutdown(int socket, int how);
ptrdiff_t posix_send(int socket, const void *data, size_t length, int flags);
ptrdiff_t posix_recv(int socket, void *data, size_t length, int flags);

#define socket(family, type, protocol)                 posix_socket((family), (type), (protocol))
#define socketpair(family, type, protocol, ends)       posix_socketpair((family), (type), (protocol), (ends))
#define bind(socket, address, length)                  posix_bind((socket), (address), (length))
#define listen(socket, backlog)                        posix_listen((socket), (backlog))
#define accept(socket, address, length)                posix_accept((socket), (address), (length))
#define connect(socket, address, length)               posix_connect((socket), (address), (length))
#define getsockname(socket, address, length)           posix_getsockname((socket), (address), (length))
#define getpeername(socket, address, length)           posix_getpeername((socket), (address), (length))
#define setsockopt(socket, level, name, value, length) posix_setsockopt((socket), (level), (name), (value), (length))
#define getsockopt(socket, level, name, value, length) posix_getsockopt((socket), (level), (name), (value), (length))
#define shutdown(socket, how)                          posix_shutdown((socket), (how))
#define send(socket, data, length, flags)              posix_send((socket), (data), (length), (flags))
#define recv(socket, data, length, flags)              posix_recv((socket), (data), (length), (flags))

struct posix_pollfd {
    int fd;
    short events, revents;
};
typedef unsigned long nfds_t;
int posix_poll(struct posix_pollfd *files, nfds_t count, int milliseconds);
#define pollfd                           posix_pollfd
#define poll(files, count, milliseconds) posix_poll((files), (count), (milliseconds))

struct if_nameindex {
    unsigned if_index;
    char *if_name;
};
struct if_nameindex *posix_if_nameindex(void);
void posix_if_freenameindex(struct if_nameindex *list);
char *posix_if_indextoname(unsigned index, char *name);
#define if_nameindex()              posix_if_nameindex()
#define if_freenameindex(list)      posix_if_freenameindex(list)
#define if_indextoname(index, name) posix_if_indextoname((index), (name))
#if !defined(IF_NAMESIZE)
#define IF_NAMESIZE 256
#endif

/* ---- descriptors ---- */

#define O_CLOEXEC   O_NOINHERIT
#define O_NONBLOCK  0x40000000
#define O_NOCTTY    0
#define O_DIRECTORY 0
#define F_GETFD     1
#define F_SETFD     2
#define F_GETFL     3
#define F_SETFL     4
#define FD_CLOEXEC  1

struct iovec {
    void *iov_base;
    size_t iov_len;
};

int posix_close(int descriptor);
ptrdiff_t posix_read(int descriptor, void *data, size_t length);
ptrdiff_t posix_write(int descriptor, const void *data, size_t length);
int posix_fcntl(int descriptor, int command, ...); /* F_GETFL: never says O_NONBLOCK, which the system does not tell */
int posix_pipe(int ends[2]);
int posix_pipe2(int ends[2], int flags);
int posix_openpt(int flags);
int dup3(int descriptor, int wanted, int flags);
ptrdiff_t readlink(const char *path, char *text, size_t size);
ptrdiff_t readv(int descriptor, const struct iovec *pieces, int count);
int dprintf(int descriptor, const char *format, ...) __attribute__((format(gnu_printf, 2, 3)));

#define close(descriptor)               posix_close(descriptor)
#define read(descriptor, data, length)  posix_read((descriptor), (data), (length))
#define write(descriptor, data, length) posix_write((descriptor), (data), (length))
#define fcntl(...)                      posix_fcntl(__VA_ARGS__)
#define pipe(ends)                      posix_pipe(ends)
#define pipe2(ends, flags)              posix_pipe2((ends), (flags))

/* ---- processes ---- */

#define WIFEXITED(status)   ((void)(status), true)
#define WEXITSTATUS(status) (status)
#define WIFSIGNALED(status) ((void)(status), false)
#define WTERMSIG(status)    ((void)(status), 0)
#define WNOHANG             1

pid_t fork(void);
pid_t waitpid(pid_t process, int *status, int options);
int kill(pid_t process, int signal); /* this one, as raise */
#define raise(signal) posix_raise(signal)
int posix_raise(int signal); /* SIGINT and SIGTERM: Ctrl-C and Ctrl-Break, whose handlers have run when it returns */
int pause(void);
int setenv(const char *name, const char *value, int replace);
int unsetenv(const char *name);
long sysconf(int name);
unsigned alarm(unsigned seconds); /* with a handler that sigaction was given: it runs in a thread */
#define execv(path, arguments) posix_execv((path), (arguments))
int posix_execv(const char *path, char *const *arguments);
#define _SC_PAGESIZE 1

/* ---- signals ---- */

#if !defined(SIGHUP)
#define SIGHUP  1
#define SIGQUIT 3
#define SIGTRAP 5
#define SIGBUS  7
#define SIGKILL 9
#define SIGUSR1 10
#define SIGUSR2 12
#define SIGPIPE 13
#define SIGALRM 14
#define SIGCHLD 17
#define SIGPROF 27
#define SIGSYS  31
#endif
#define SIG_BLOCK   0
#define SIG_UNBLOCK 1
#define SIG_SETMASK 2
#define SA_RESTART  1
#define SA_SIGINFO  2
#define SA_NODEFER  4
#define SA_ONSTACK  8
#define SS_DISABLE  2
#define SI_USER     0

typedef uint64_t posix_sigset;
#define sigset_t posix_sigset
typedef struct siginfo_t {
    int si_signo, si_code;
    void *si_addr;
} siginfo_t;
struct sigaction {
    union {
        void (*sa_handler)(int signal);
        void (*sa_sigaction)(int signal, siginfo_t *info, void *context);
    };
    int sa_flags;
    sigset_t sa_mask;
};
typedef struct stack_t {
    void *ss_sp;
    int ss_flags;
    size_t ss_size;
} stack_t;

int sigaction(int signal, const struct sigaction *action, struct sigaction *before);
int sigemptyset(sigset_t *set);
int sigfillset(sigset_t *set);
int sigaddset(sigset_t *set, int signal);
int sigismember(const sigset_t *set, int signal);
int sigpending(sigset_t *set);
int sigaltstack(const stack_t *stack, stack_t *before);
int posix_sigmask(int how, const sigset_t *set, sigset_t *before);
#undef pthread_sigmask
#define pthread_sigmask(how, set, before) posix_sigmask((how), (set), (before))
#define sigprocmask(how, set, before)     posix_sigmask((how), (set), (before))

/* ---- memory and limits ---- */

#define PROT_NONE     0
#define PROT_READ     1
#define PROT_WRITE    2
#define MAP_SHARED    1
#define MAP_PRIVATE   2
#define MAP_ANONYMOUS 0x20
#define MAP_ANON      MAP_ANONYMOUS
#define MAP_FAILED    ((void *)-1)
void *mmap(void *address, size_t bytes, int protection, int flags, int file, int64_t offset);
int munmap(void *address, size_t bytes);
int mprotect(void *address, size_t bytes, int protection);
int mincore(void *address, size_t bytes, unsigned char *pages); /* those that are committed, which is as good */

#define RLIMIT_NOFILE 7
#define RLIMIT_CORE   4
#define RLIMIT_AS     9
#define RLIM_INFINITY UINT64_MAX
#define RUSAGE_SELF   0
typedef uint64_t rlim_t;
struct rlimit {
    rlim_t rlim_cur, rlim_max;
};
struct rusage {
    struct timeval ru_utime, ru_stime;
    long ru_maxrss, ru_nvcsw, ru_nivcsw;
};
int getrlimit(int resource, struct rlimit *limit);
int setrlimit(int resource, const struct rlimit *limit);
int getrusage(int who, struct rusage *usage);

/* ---- looking at this process, for the harness ---- */

bool posix_is_wine(void);
int posix_socket_count(void);
int posix_thread_count(void);
size_t posix_rss_bytes(void);

#endif
