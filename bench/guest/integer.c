/* Work for a CPU: integers. No library is needed, nor 64-bit division, so that it can be built for 32 bits. */
#include "kernels.h"

uint8_t buffer[BUFFER_SIZE] __attribute__((aligned(64)));
uint32_t random_state;

static uint64_t sieve(void) {
  enum { N = 2000000 };
  uint64_t count = 0;
  for (int round = 0; round < 6; round++) {
    for (int i = 0; i < N; i++) buffer[i] = 1;
    for (int i = 2; i * i < N; i++)
      if (buffer[i])
        for (int j = i * i; j < N; j += i) buffer[j] = 0;
    for (int i = 2; i < N; i++) count += buffer[i];
  }
  return count;
}

static uint64_t crc(void) {
  static uint32_t table[256];
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  for (int i = 0; i < 1 << 20; i++) buffer[i] = (uint8_t)(i * 7 + (i >> 8));
  uint32_t c = ~0u;
  for (int round = 0; round < 40; round++)
    for (int i = 0; i < 1 << 20; i++) c = table[(c ^ buffer[i]) & 255] ^ (c >> 8);
  return ~c;
}

static uint64_t matrix(void) {
  enum { N = 160 };
  static int a[N][N], b[N][N], c[N][N];
  uint64_t h = 0;
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) a[i][j] = i * 3 + j, b[i][j] = i - j * 5;
  for (int round = 0; round < 8; round++) {
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j++) {
        int sum = 0;
        for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
        c[i][j] = sum;
      }
    for (int i = 0; i < N; i++) MIX(h, c[i][round]), a[i][round] ^= c[round][i];
  }
  return h;
}

static void sort_range(int *v, int low, int high) {
  while (low < high) {
    int pivot = v[(low + high) >> 1], i = low, j = high;
    while (i <= j) {
      while (v[i] < pivot) i++;
      while (v[j] > pivot) j--;
      if (i <= j) {
        int t = v[i];
        v[i++] = v[j];
        v[j--] = t;
      }
    }
    if (j - low < high - i) {
      sort_range(v, low, j);
      low = i;
    } else {
      sort_range(v, i, high);
      high = j;
    }
  }
}

static uint64_t quicksort(void) {
  enum { N = 400000 };
  int *v = (int *)buffer;
  uint64_t h = 0;
  random_state = 2463534242u;
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < N; i++) v[i] = (int)next_random();
    sort_range(v, 0, N - 1);
    for (int i = 0; i < N; i += 997) MIX(h, v[i]);
  }
  return h;
}

static __attribute__((noinline)) uint64_t fibonacci(unsigned n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t recursion(void) { return fibonacci(36); }

static uint64_t hashmap(void) {
  enum { SLOTS = 1 << 16 };
  uint64_t *keys = (uint64_t *)buffer, *values = keys + SLOTS, h = 0;
  random_state = 88172645u;
  for (int round = 0; round < 12; round++) {
    for (int i = 0; i < SLOTS; i++) keys[i] = 0;
    for (int i = 0; i < SLOTS * 3 / 4; i++) {
      uint64_t key = (next_random() % 200000) + 1;
      unsigned slot = (unsigned)((key * 0x9e3779b97f4a7c15ull) >> 48) & (SLOTS - 1);
      while (keys[slot] && keys[slot] != key) slot = (slot + 1) & (SLOTS - 1);
      if (!keys[slot]) keys[slot] = key, values[slot] = 0;
      values[slot] += i;
    }
    for (int i = 0; i < SLOTS; i++)
      if (keys[i]) h += keys[i] * values[i];
  }
  return h;
}

/* A machine of a few instructions, run by a switch in a loop as byte-code interpreters are. */
static uint64_t bytecode(void) {
  enum { PUSH, ADD, MUL, DUP, LOAD, STORE, LESS, JUMPZ, JUMP, HALT };
  static const int program[] = {
      PUSH, 0, STORE, 0, PUSH, 1, STORE, 1,
      LOAD, 0, PUSH, 3000000, LESS, JUMPZ, 32,
      LOAD, 1, PUSH, 31, MUL, LOAD, 0, ADD, STORE, 1,
      LOAD, 0, PUSH, 1, ADD, JUMP, 33, HALT, STORE, 0, JUMP, 8};
  uint32_t stack[16], variables[2];
  int sp = 0, pc = 0;
  for (;;) switch (program[pc++]) {
      case PUSH: stack[sp++] = (uint32_t)program[pc++]; break;
      case ADD: sp--; stack[sp - 1] += stack[sp]; break;
      case MUL: sp--; stack[sp - 1] *= stack[sp]; break;
      case DUP: stack[sp] = stack[sp - 1]; sp++; break;
      case LOAD: stack[sp++] = variables[program[pc++]]; break;
      case STORE: variables[program[pc++]] = stack[--sp]; break;
      case LESS: sp--; stack[sp - 1] = stack[sp - 1] < stack[sp]; break;
      case JUMPZ: pc = stack[--sp] ? pc + 1 : program[pc]; break;
      case JUMP: pc = program[pc]; break;
      default: return variables[1];
    }
}

#ifdef __i386__
#define GROUP "integer32"
#else
#define GROUP "integer"
#endif

const struct kernel integer_kernels[] = {
    {GROUP, "sieve", sieve},       {GROUP, "crc", crc},
    {GROUP, "matrix", matrix},     {GROUP, "quicksort", quicksort},
    {GROUP, "recursion", recursion}, {GROUP, "hashmap", hashmap},
    {GROUP, "bytecode", bytecode}};
const int integer_kernel_count = sizeof integer_kernels / sizeof integer_kernels[0];
