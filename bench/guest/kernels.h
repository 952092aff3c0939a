/* The benchmark's kernels: each does a fixed amount of work and returns a checksum. */
#ifndef KERNELS_H
#define KERNELS_H
#include <stdint.h>

struct kernel {
  const char *group;
  const char *name;
  uint64_t (*run)(void);
};

#define BUFFER_SIZE (8 << 20)
#define MIX(h, v) ((h) = ((h) ^ (uint64_t)(v)) * 0x9e3779b97f4a7c15ull, (h) ^= (h) >> 29)

/* Room that the kernels share, and their source of numbers. */
extern uint8_t buffer[BUFFER_SIZE];
extern uint32_t random_state;

static inline uint32_t next_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

extern const struct kernel integer_kernels[];
extern const int integer_kernel_count;
extern const struct kernel kernels[];
extern const int kernel_count;
extern const struct kernel vector_kernels[];
extern const int vector_kernel_count;
#endif
