/* The benchmark's kernels: each does a fixed amount of work and returns a checksum. */
#ifndef KERNELS_H
#define KERNELS_H
#include <stdint.h>

struct kernel {
  const char *group;
  const char *name;
  uint64_t (*run)(void);
};

extern const struct kernel kernels[];
extern const int kernel_count;
extern const struct kernel vector_kernels[];
extern const int vector_kernel_count;
#endif
