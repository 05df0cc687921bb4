// A guest in C. Its first argument says what it does.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int copy_in_upper_case(void) {
  char *text = NULL;
  size_t length = 0;
  for (;;) {
    char *grown = realloc(text, length + 4096);
    if (grown == NULL) return 1;
    text = grown;
    size_t got = fread(text + length, 1, 4096, stdin);
    if (got == 0) break;
    length += got;
  }
  for (size_t i = 0; i < length; i++) {
    if (text[i] >= 'a' && text[i] <= 'z') text[i] -= 32;
  }
  fwrite(text, 1, length, stdout);
  fprintf(stderr, "%zu bytes for %s\n", length, getenv("CUSTOMER"));
  free(text);
  return 0;
}

// Otherwise the compiler leaves out what is not used.
static char *volatile kept;

static int allocate(void) {
  while (1) {
    char *block = kept = malloc(1 << 20);
    if (block == NULL) {
      fputs("no memory\n", stderr);
      return 1;
    }
    memset(block, 1, 1 << 20);
  }
}

static volatile long calls;

__attribute__((noinline)) static long recurse(long depth) {
  if (calls++ < 0) return 0;
  return recurse(depth + 1) + calls;
}

// Succeeds if nothing outside can be reached.
static int escape(void) {
  const char *paths[] = {"/etc/passwd", ".", "/", "../../etc/passwd"};
  for (int i = 0; i < 4; i++) {
    int file = open(paths[i], O_RDONLY);
    if (file >= 0) return 1;
  }
  for (int file = 3; file < 1000; file++) {
    char byte;
    if (read(file, &byte, 1) >= 0 || errno != EBADF) return 2;
  }
  FILE *created = fopen("/tmp/escaped", "w");
  if (created != NULL) return 3;
  printf("nothing reached");
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 2) return 64;
  if (!strcmp(argv[1], "upper")) return copy_in_upper_case();
  if (!strcmp(argv[1], "allocate")) return allocate();
  if (!strcmp(argv[1], "recurse")) return (int)recurse(argc);
  if (!strcmp(argv[1], "abort")) abort();
  if (!strcmp(argv[1], "exit")) exit(75);
  if (!strcmp(argv[1], "escape")) return escape();
  if (!strcmp(argv[1], "time")) {
    printf("%d", time(NULL) > 1700000000);
    return 0;
  }
  return 64;
}
