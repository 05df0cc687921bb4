/* Preloaded into a server to make its system calls hang.
 *
 * While the file named by HANG_SYNCS exists, every sync of a file waits. While the file named by HANG_READS exists,
 * every thread waits that has read the words "let this thread hang" from a socket. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static const char WORDS[] = "let this thread hang";

static void wait_while_file_exists(const char *variable) {
  const char *path = getenv(variable);
  while (path != NULL && access(path, F_OK) == 0) usleep(10 * 1000);
}

int fsync(int file) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  wait_while_file_exists("HANG_SYNCS");
  return real(file);
}

int fdatasync(int file) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  wait_while_file_exists("HANG_SYNCS");
  return real(file);
}

ssize_t recv(int socket, void *buffer, size_t length, int flags) {
  ssize_t (*real)(int, void *, size_t, int) = (ssize_t(*)(int, void *, size_t, int))dlsym(RTLD_NEXT, "recv");
  ssize_t got = real(socket, buffer, length, flags);
  if (got > 0 && memmem(buffer, (size_t)got, WORDS, sizeof(WORDS) - 1) != NULL) wait_while_file_exists("HANG_READS");
  return got;
}
