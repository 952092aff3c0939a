/* Work for a CPU: SSE2 doubles, x87 and memory. No library is needed. */
#include "kernels.h"

/* ---- SSE2 doubles ---- */

struct body {
  double x, y, z, vx, vy, vz, mass;
};

static double inverse_root(double x) {
  double r;
  __asm__("sqrtsd %1, %0" : "=x"(r) : "x"(x));
  return 1.0 / r;
}

static uint64_t bits_of(double value) {
  union { double d; uint64_t u; } pun = {value};
  return pun.u;
}

static uint64_t nbody(void) {
  struct body b[5] = {
      {0, 0, 0, 0, 0, 0, 39.47}, {4.84, -1.16, -0.10, 0.60, 2.81, -0.02, 0.037}, {8.34, 4.12, -0.4, -1.01, 1.82, 0.008, 0.011},
      {12.89, -15.11, -0.22, 1.08, 0.86, -0.01, 0.0017}, {15.37, -25.9, 0.17, 0.97, 0.59, -0.03, 0.002}};
  for (int step = 0; step < 400000; step++) {
    for (int i = 0; i < 5; i++)
      for (int j = i + 1; j < 5; j++) {
        double dx = b[i].x - b[j].x, dy = b[i].y - b[j].y, dz = b[i].z - b[j].z;
        double d2 = dx * dx + dy * dy + dz * dz;
        double mag = 0.001 / d2 * inverse_root(d2);
        b[i].vx -= dx * b[j].mass * mag, b[i].vy -= dy * b[j].mass * mag, b[i].vz -= dz * b[j].mass * mag;
        b[j].vx += dx * b[i].mass * mag, b[j].vy += dy * b[i].mass * mag, b[j].vz += dz * b[i].mass * mag;
      }
    for (int i = 0; i < 5; i++) b[i].x += 0.001 * b[i].vx, b[i].y += 0.001 * b[i].vy, b[i].z += 0.001 * b[i].vz;
  }
  return bits_of(b[0].x + b[1].y + b[2].z);
}

static uint64_t mandelbrot(void) {
  uint64_t total = 0;
  for (int py = 0; py < 200; py++)
    for (int px = 0; px < 300; px++) {
      double cx = px / 100.0 - 2.0, cy = py / 100.0 - 1.0, x = 0, y = 0;
      int i = 0;
      for (; i < 500 && x * x + y * y < 4.0; i++) {
        double t = x * x - y * y + cx;
        y = 2 * x * y + cy;
        x = t;
      }
      total += (uint64_t)i * (px ^ py);
    }
  return total;
}

static uint64_t double_matrix(void) {
  enum { N = 160 };
  static double a[N][N], b[N][N], c[N][N];
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) a[i][j] = i * 0.5 + j, b[i][j] = (i - j) * 0.25;
  for (int round = 0; round < 6; round++) {
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j++) {
        double sum = 0;
        for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
        c[i][j] = sum;
      }
    for (int i = 0; i < N; i++) a[i][round] = c[round][i] * 0.001;
  }
  return bits_of(c[7][11] + c[N - 1][3]);
}

/* ---- x87 ---- */

static uint64_t x87_mandelbrot(void) {
  uint64_t total = 0;
  for (int py = 0; py < 60; py++)
    for (int px = 0; px < 90; px++) {
      long double cx = px / 30.0L - 2.0L, cy = py / 30.0L - 1.0L, x = 0, y = 0;
      int i = 0;
      for (; i < 300 && x * x + y * y < 4.0L; i++) {
        long double t = x * x - y * y + cx;
        y = 2 * x * y + cy;
        x = t;
      }
      total += (uint64_t)i * (px ^ py);
    }
  return total;
}

static uint64_t x87_series(void) {
  long double sum = 0, root;
  for (int i = 1; i < 200000; i++) {
    long double x = i;
    __asm__("fsqrt" : "=t"(root) : "0"(x));
    sum += (i & 1 ? 1.0L : -1.0L) / (x * root + 0.5L);
  }
  return (uint64_t)(sum * 1e15L);
}

static uint64_t x87_nbody(void) {
  static struct { long double x[3], v[3], mass; } b[5] = {
      {{0, 0, 0}, {0, 0, 0}, 39.47L}, {{4.84L, -1.16L, -0.10L}, {0.60L, 2.81L, -0.02L}, 0.037L},
      {{8.34L, 4.12L, -0.4L}, {-1.01L, 1.82L, 0.008L}, 0.011L}, {{12.89L, -15.11L, -0.22L}, {1.08L, 0.86L, -0.01L}, 0.0017L},
      {{15.37L, -25.9L, 0.17L}, {0.97L, 0.59L, -0.03L}, 0.002L}};
  for (int step = 0; step < 20000; step++) {
    for (int i = 0; i < 5; i++)
      for (int j = i + 1; j < 5; j++) {
        long double d[3], d2 = 0, root;
        for (int k = 0; k < 3; k++) d[k] = b[i].x[k] - b[j].x[k], d2 += d[k] * d[k];
        __asm__("fsqrt" : "=t"(root) : "0"(d2));
        long double mag = 0.001L / (d2 * root);
        for (int k = 0; k < 3; k++) b[i].v[k] -= d[k] * b[j].mass * mag, b[j].v[k] += d[k] * b[i].mass * mag;
      }
    for (int i = 0; i < 5; i++)
      for (int k = 0; k < 3; k++) b[i].x[k] += 0.001L * b[i].v[k];
  }
  return (uint64_t)(int64_t)((b[0].x[0] + b[1].x[1] + b[2].x[2]) * 1e15L);
}

/* ---- memory ---- */

static uint64_t copy_memory(void) {
  uint64_t *from = (uint64_t *)buffer, *to = from + (4 << 17), h = 0;
  for (int i = 0; i < 4 << 17; i++) from[i] = (uint64_t)i * 0x9e3779b97f4a7c15ull;
  for (int round = 0; round < 40; round++) {
    void *d = to, *s = from;
    uint64_t n = 4 << 20;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
    MIX(h, to[round * 1001]);
  }
  return h;
}

static uint64_t stream(void) {
  enum { N = 1 << 18 };
  uint64_t *a = (uint64_t *)buffer, *b = a + N, *c = b + N, h = 0;
  for (int i = 0; i < N; i++) a[i] = (uint64_t)i, b[i] = (uint64_t)i * 3;
  for (int round = 0; round < 40; round++) {
    for (int i = 0; i < N; i++) c[i] = a[i] + 3 * b[i];
    for (int i = 0; i < N; i++) a[i] = c[i] ^ (uint64_t)round;
    MIX(h, a[round * 1009]);
  }
  return h;
}

static uint64_t pointer_chase(void) {
  enum { N = 1 << 19 };
  uint32_t *next = (uint32_t *)buffer;
  for (uint32_t i = 0; i < N; i++) next[i] = i;
  random_state = 362436069u;
  for (uint32_t i = N - 1; i > 0; i--) {
    uint32_t j = next_random() % i, t = next[i];
    next[i] = next[j];
    next[j] = t;
  }
  uint32_t at = 0;
  for (int i = 0; i < 12000000; i++) at = next[at];
  return at;
}

const struct kernel kernels[] = {
    {"sse2", "n-body", nbody},
    {"sse2", "mandelbrot", mandelbrot}, {"sse2", "matrix", double_matrix},
    {"x87", "mandelbrot", x87_mandelbrot}, {"x87", "series", x87_series},
    {"x87", "n-body", x87_nbody},
    {"memory", "copy", copy_memory},   {"memory", "stream", stream},
    {"memory", "chase", pointer_chase}};
const int kernel_count = sizeof kernels / sizeof kernels[0];
