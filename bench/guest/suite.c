/* Runs the kernels one by one: "RESULT group name checksum microseconds" a line. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "kernels.h"

int main(int argc, char **argv) {
  for (int i = 0; i < kernel_count; i++) {
    const struct kernel *k = &kernels[i];
    if (argc > 1 && strcmp(argv[1], k->name) && strcmp(argv[1], k->group)) continue;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    uint64_t sum = k->run();
    clock_gettime(CLOCK_MONOTONIC, &b);
    long long us = (b.tv_sec - a.tv_sec) * 1000000ll + (b.tv_nsec - a.tv_nsec) / 1000;
    printf("RESULT %s %s %016llx %lld\n", k->group, k->name, (unsigned long long)sum, us);
    fflush(stdout);
  }
  return 0;
}
