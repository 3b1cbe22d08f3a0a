/* Preloaded into a daemon: calls on files whose path contains "ledger.db" fail as a control file says.
 *
 * AIMD_FAULTS names the control file; its content is an errno followed by the names of calls ("5 pwrite fdatasync").
 * Without the file, or with an empty one, nothing fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int concerned(const char *path)
{
    return path != NULL && strstr(path, "ledger.db") != NULL;
}

/* The errno that the call has to fail with, 0 for none. System calls are made directly: ours are not to be met again. */
static int fault(const char *call)
{
    const char *control = getenv("AIMD_FAULTS");
    char text[256], *name, *rest;
    long length;
    int fd, code;

    if (control == NULL)
        return 0;
    fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY, 0);
    if (fd < 0)
        return 0;
    length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    code = atoi(text);
    for (name = strtok_r(text, " \n", &rest); name != NULL; name = strtok_r(NULL, " \n", &rest))
        if (strcmp(name, call) == 0)
            return code;
    return 0;
}

static int fault_of(const char *call, int fd)
{
    char link[64], path[4096];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    return concerned(path) ? fault(call) : 0;
}

#define FAIL_IF(code) do { int failure_ = (code); if (failure_) { errno = failure_; return -1; } } while (0)
#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    FAIL_IF(fault_of("pwrite", fd));
    return REAL(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    FAIL_IF(fault_of("pwrite", fd));
    return REAL(pwrite64)(fd, data, size, at);
}

ssize_t write(int fd, const void *data, size_t size)
{
    FAIL_IF(fault_of("write", fd));
    return REAL(write)(fd, data, size);
}

ssize_t pread(int fd, void *data, size_t size, off_t at)
{
    FAIL_IF(fault_of("pread", fd));
    return REAL(pread)(fd, data, size, at);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t at)
{
    FAIL_IF(fault_of("pread", fd));
    return REAL(pread64)(fd, data, size, at);
}

int fsync(int fd)
{
    FAIL_IF(fault_of("fsync", fd));
    return REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    FAIL_IF(fault_of("fsync", fd));
    return REAL(fdatasync)(fd);
}

static int opened(const char *path, int flags)
{
    return concerned(path) && (flags & O_ACCMODE) != O_RDONLY ? fault("open") : 0;
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    mode_t mode;

    va_start(rest, flags);
    mode = va_arg(rest, mode_t);
    va_end(rest);
    FAIL_IF(opened(path, flags));
    return REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    mode_t mode;

    va_start(rest, flags);
    mode = va_arg(rest, mode_t);
    va_end(rest);
    FAIL_IF(opened(path, flags));
    return REAL(open64)(path, flags, mode);
}
