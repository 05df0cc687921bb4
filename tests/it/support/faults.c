/* Preloaded into a server to make its system calls on chosen files fail, do half of their work, or hang.
 *
 * FAULTS names a file of rules, which is read again at each call. A rule is a line `CALL ACTION SUFFIX [FROM]`:
 *
 *   CALL    read, write, sync, list (of a directory), or recv: a read from a socket that contains the words below; time: the system clock;
 *           panic: all clocks, in the thread of the scheduler
 *   ACTION  eio    fail with EIO and do nothing
 *           torn   write the first half and fail with EIO
 *           short  write the first half and return its length
 *           slow   wait 100 ms first
 *           hang   wait until the rule is removed
 *           a number of seconds: the system clock is ahead by them
 *           once   fail once, which makes the thread panic, and again after 10 s if it did not
 *   SUFFIX  end of the file's path; `*` is every file
 *   FROM    offset from which the rule applies, to calls with an offset
 *
 * FAULTS with `.log` added is a log with a line `CALL ACTION PATH` for each applied rule except of `time`, and `synced PATH` for each
 * successful sync. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static const char WORDS[] = "let this thread hang";

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int ends_with(const char *path, const char *suffix) {
  size_t length = strlen(path), end = strlen(suffix);
  return strcmp(suffix, "*") == 0 || (length >= end && strcmp(path + length - end, suffix) == 0);
}

static void path_of(int file, char path[PATH_MAX]) {
  char link[64];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  path[length < 0 ? 0 : length] = 0;
}

static void record(const char *what, const char *path) {
  char name[PATH_MAX], line[PATH_MAX + 32];
  snprintf(name, sizeof(name), "%s.log", getenv("FAULTS"));
  int length = snprintf(line, sizeof(line), "%s %s\n", what, path);
  int log = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) return;
  if (syscall(SYS_write, log, line, length) != length) abort();
  syscall(SYS_close, log);
}

/* Copies the action of the first rule for this call to `action`, or returns 0. */
static int find_path(const char *call, const char *path, off64_t at, char action[16]) {
  const char *rules = getenv("FAULTS");
  if (rules == NULL) return 0;
  int open = (int)syscall(SYS_openat, AT_FDCWD, rules, O_RDONLY | O_CLOEXEC);
  if (open < 0) return 0;
  char text[4096];
  ssize_t length = syscall(SYS_read, open, text, sizeof(text) - 1);
  syscall(SYS_close, open);
  text[length < 0 ? 0 : length] = 0;
  char *rest = text, *line, of[16], suffix[256];
  long long from;
  while ((line = strsep(&rest, "\n")) != NULL) {
    int fields = sscanf(line, "%15s %15s %255s %lld", of, action, suffix, &from);
    if (fields < 3 || strcmp(of, call) != 0) continue;
    if (ends_with(path, suffix) && (fields == 3 || at >= from)) return 1;
  }
  return 0;
}

static int find(const char *call, int file, off64_t at, char action[16], char path[PATH_MAX]) {
  if (getenv("FAULTS") == NULL) return 0;
  path_of(file, path);
  return find_path(call, path, at, action);
}

/* Waits as long as the rules say. Returns what the call must do: `e`io, `t`orn, `s`hort, or 0 for its usual work. */
static char fault(const char *call, int file, off64_t at) {
  char action[16], path[PATH_MAX], what[40];
  int before = errno, logged = 0;
  char result = 0;
  while (find(call, file, at, action, path)) {
    snprintf(what, sizeof(what), "%s %s", call, action);
    if (!logged++) record(what, path);
    if (strcmp(action, "hang") == 0) {
      usleep(10 * 1000);
      continue;
    }
    if (strcmp(action, "slow") == 0) usleep(100 * 1000);
    else result = action[0];
    break;
  }
  errno = before;
  return result;
}

static int fails(char action) {
  if (action != 'e') return 0;
  errno = EIO;
  return 1;
}

static int sync_of(int file, int (*real)(int)) {
  if (fails(fault("sync", file, 0))) return -1;
  int result = real(file);
  if (result == 0 && getenv("FAULTS") != NULL) {
    char path[PATH_MAX];
    path_of(file, path);
    record("synced", path);
  }
  return result;
}

int fsync(int file) { return sync_of(file, NEXT(fsync)); }

int fdatasync(int file) { return sync_of(file, NEXT(fdatasync)); }

ssize_t read(int file, void *buffer, size_t length) {
  return fails(fault("read", file, 0)) ? -1 : NEXT(read)(file, buffer, length);
}

ssize_t pread64(int file, void *buffer, size_t length, off64_t at) {
  return fails(fault("read", file, at)) ? -1 : NEXT(pread64)(file, buffer, length, at);
}

ssize_t pread(int file, void *buffer, size_t length, off_t at) { return pread64(file, buffer, length, at); }

static size_t part(char action, size_t length) { return action == 't' || action == 's' ? (length + 1) / 2 : length; }

static ssize_t end_write(char action, ssize_t written) {
  if (action != 't' || written < 0) return written;
  errno = EIO;
  return -1;
}

ssize_t write(int file, const void *buffer, size_t length) {
  char action = fault("write", file, 0);
  return fails(action) ? -1 : end_write(action, NEXT(write)(file, buffer, part(action, length)));
}

ssize_t pwrite64(int file, const void *buffer, size_t length, off64_t at) {
  char action = fault("write", file, at);
  return fails(action) ? -1 : end_write(action, NEXT(pwrite64)(file, buffer, part(action, length), at));
}

ssize_t pwrite(int file, const void *buffer, size_t length, off_t at) { return pwrite64(file, buffer, length, at); }

DIR *opendir(const char *path) {
  char action[16];
  while (find_path("list", path, 0, action)) usleep(10 * 1000);
  return NEXT(opendir)(path);
}

ssize_t recv(int socket, void *buffer, size_t length, int flags) {
  ssize_t got = NEXT(recv)(socket, buffer, length, flags);
  if (got > 0 && memmem(buffer, (size_t)got, WORDS, sizeof(WORDS) - 1) != NULL) fault("recv", socket, 0);
  return got;
}

/* Whether this call must fail, so that the scheduler panics. The clock works again while the panic is reported. If there was
 * none, because it was the allocator that asked for the time, a later call fails. */
static int must_panic(void) {
  static time_t failed_at;
  struct timespec now;
  char name[16], action[16], path[PATH_MAX];
  if (prctl(PR_GET_NAME, name) != 0 || strcmp(name, "scheduler") != 0) return 0;
  if (!find("panic", -1, 0, action, path) || NEXT(clock_gettime)(CLOCK_MONOTONIC, &now) != 0) return 0;
  if (failed_at != 0 && now.tv_sec - failed_at < 10) return 0;
  failed_at = now.tv_sec;
  return 1;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (must_panic()) {
    errno = EINVAL;
    return -1;
  }
  int result = NEXT(clock_gettime)(clock, time), before = errno;
  char action[16], path[PATH_MAX];
  if (result == 0 && clock == CLOCK_REALTIME && find("time", -1, 0, action, path)) time->tv_sec += atoll(action);
  errno = before;
  return result;
}
