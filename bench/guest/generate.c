/* generate LINES: lines of text as compressible as prose, the same ones every time. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t state = 12345;

static uint32_t next(void) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

int main(int argc, char **argv) {
  static const char *words[] = {
    "machine", "guest", "page", "table", "fault", "timer", "register", "memory", "cache", "block",
    "region", "interrupt", "vector", "kernel", "process", "signal",
  };
  for (long i = argc > 1 ? atol(argv[1]) : 1000; i > 0; i--) {
    printf("%08x", next());
    for (int w = 0; w < 5; w++) printf(" %s", words[next() & 15]);
    printf(" %u\n", next() % 1000000);
  }
  return 0;
}
