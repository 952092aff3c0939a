/* The integer kernels as a 32-bit program. It makes its own system calls, since a 32-bit C library is seldom there. */
#include "kernels.h"

enum { SYS_EXIT = 1, SYS_WRITE = 4, SYS_CLOCK_GETTIME = 265, CLOCK_MONOTONIC = 1 };

struct timespec32 {
  int32_t sec, nsec;
};

static int call(int number, long a, long b, long c) {
  int result;
  __asm__ volatile("int $0x80" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c) : "memory");
  return result;
}

void *memset(void *to, int byte, __SIZE_TYPE__ count) {
  void *at = to;
  __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(byte) : "memory");
  return to;
}

void *memcpy(void *to, const void *from, __SIZE_TYPE__ count) {
  void *at = to;
  __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(count) : : "memory");
  return to;
}

static char line[128];
static int length;

static void put(const char *text) {
  while (*text) line[length++] = *text++;
}

static void put_hex(uint64_t value) {
  for (int shift = 60; shift >= 0; shift -= 4) line[length++] = "0123456789abcdef"[value >> shift & 15];
}

static void put_decimal(uint32_t value) {
  char digits[10];
  int count = 0;
  do digits[count++] = (char)('0' + value % 10);
  while (value /= 10);
  while (count) line[length++] = digits[--count];
}

__attribute__((used, force_align_arg_pointer)) static void start(void) {
  for (int i = 0; i < integer_kernel_count; i++) {
    const struct kernel *k = &integer_kernels[i];
    struct timespec32 a, b;
    call(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (long)&a, 0);
    uint64_t sum = k->run();
    call(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (long)&b, 0);
    length = 0;
    put("RESULT "), put(k->group), put(" "), put(k->name), put(" "), put_hex(sum), put(" ");
    put_decimal((uint32_t)((b.sec - a.sec) * 1000000 + (b.nsec - a.nsec) / 1000)), put("\n");
    call(SYS_WRITE, 1, (long)line, length);
  }
  call(SYS_EXIT, 0, 0, 0);
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n call start\n");
