/* Runs the kernels one by one: "RESULT group name checksum microseconds" a line. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "kernels.h"

static void run_all(const struct kernel *list, int count, const char *only) {
  for (int i = 0; i < count; i++) {
    const struct kernel *k = &list[i];
    if (only && strcmp(only, k->name) && strcmp(only, k->group)) continue;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    uint64_t sum = k->run();
    clock_gettime(CLOCK_MONOTONIC, &b);
    long long us = (b.tv_sec - a.tv_sec) * 1000000ll + (b.tv_nsec - a.tv_nsec) / 1000;
    printf("RESULT %s %s %016llx %lld\n", k->group, k->name, (unsigned long long)sum, us);
    fflush(stdout);
  }
}

int main(int argc, char **argv) {
  const char *only = argc > 1 ? argv[1] : 0;
  run_all(integer_kernels, integer_kernel_count, only);
  run_all(kernels, kernel_count, only);
  run_all(vector_kernels, vector_kernel_count, only);
  return 0;
}
