/* A library for LD_PRELOAD: it refuses the calls that REFUSED names, with the error of number REFUSAL.

REFUSED is a list with commas of: fchmod, fsync, link, lock, rename-over, rename, semaphore, room. Preloaded into a process, it
makes any folder one of exFAT, of FUSE, or of NFS without its lock daemon, and needs no privileges. `semaphore` is a
/dev/shm that is missing or read-only, `room` one of 1 MB into which no tensor fits. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int refused(const char *call) {
    const char *list = getenv("REFUSED");
    size_t length = strlen(call);
    while (list && *list) {
        size_t end = strcspn(list, ",");
        if (end == length && !strncmp(list, call, length)) {
            errno = atoi(getenv("REFUSAL"));
            return 1;
        }
        list += end + (list[end] == ',');
    }
    return 0;
}

#define NEXT(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

int fchmod(int file, mode_t mode) { return refused("fchmod") ? -1 : NEXT(fchmod)(file, mode); }
int chmod(const char *path, mode_t mode) { return refused("fchmod") ? -1 : NEXT(chmod)(path, mode); }
int fsync(int file) { return refused("fsync") ? -1 : NEXT(fsync)(file); }
int fdatasync(int file) { return refused("fsync") ? -1 : NEXT(fdatasync)(file); }
int flock(int file, int operation) { return refused("lock") ? -1 : NEXT(flock)(file, operation); }

int link(const char *from, const char *to) { return refused("link") ? -1 : NEXT(link)(from, to); }
int linkat(int folder, const char *from, int other, const char *to, int flags) {
    return refused("link") ? -1 : NEXT(linkat)(folder, from, other, to, flags);
}

static int locks(int command) {
    switch (command) {
    case F_SETLK: case F_SETLKW: case F_OFD_SETLK: case F_OFD_SETLKW: return 1;
    default: return 0;
    }
}

#define CONTROL(name)                                                  \
    int name(int file, int command, ...) {                             \
        va_list arguments;                                             \
        va_start(arguments, command);                                  \
        void *argument = va_arg(arguments, void *);                    \
        va_end(arguments);                                             \
        if (locks(command) && refused("lock")) return -1;              \
        return NEXT(name)(file, command, argument);                    \
    }
CONTROL(fcntl)
CONTROL(fcntl64)

int rename(const char *from, const char *to) {
    if (refused("rename") || (!access(to, F_OK) && refused("rename-over"))) return -1;
    return NEXT(rename)(from, to);
}

sem_t *sem_open(const char *name, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = va_arg(arguments, mode_t);
    unsigned value = va_arg(arguments, unsigned);
    va_end(arguments);
    return refused("semaphore") ? SEM_FAILED : NEXT(sem_open)(name, flags, mode, value);
}

int shm_open(const char *name, int flags, mode_t mode) {
    return refused("room") ? -1 : NEXT(shm_open)(name, flags, mode);
}

#define STATISTICS(name, type)                                         \
    int name(const char *path, struct type *found) {                   \
        int status = NEXT(name)(path, found);                          \
        if (!strcmp(path, "/dev/shm") && refused("room"))              \
            found->f_bavail = (1 << 20) / found->f_frsize;             \
        return status;                                                 \
    }
STATISTICS(statvfs, statvfs)
STATISTICS(statvfs64, statvfs64)
