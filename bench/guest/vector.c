/* The vector group: AES-CTR, SHA-256, a search by 32 bytes, a product of matrices by fused operations.
   Each has a plain form with the same checksum for a CPU that lacks the instructions. */
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include "kernels.h"

static uint8_t data[1 << 20];

static void fill(void) {
  for (uint32_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)((i * 2654435761u) >> 24);
}

static uint64_t hash_bytes(const void *from, int length) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (int i = 0; i < length; i++) hash = (hash ^ ((const uint8_t *)from)[i]) * 0x100000001b3u;
  return hash;
}

/* ---- AES-128 in counter mode, four blocks at a time ---- */

enum { CIPHER_ROUNDS = 10, AES_PASSES = 48 };

static uint8_t substitution[256];

static uint8_t twice(uint8_t x) { return (uint8_t)(x << 1 ^ (x >> 7) * 0x1b); }

/* FIPS 197, 5.1.1: p runs through the powers of 3, q through those of 1/3. */
static void make_substitution(void) {
  uint8_t p = 1, q = 1;
  do {
    p ^= twice(p);
    q ^= q << 1, q ^= q << 2, q ^= q << 4;
    if (q & 0x80) q ^= 9;
    uint8_t x = q;
    for (int i = 1; i < 5; i++) x ^= (uint8_t)(q << i | q >> (8 - i));
    substitution[p] = x ^ 0x63;
  } while (p != 1);
  substitution[0] = 0x63;
}

static void expand_key(uint8_t keys[CIPHER_ROUNDS + 1][16]) {
  uint8_t constant = 1, *k = keys[0];
  for (int i = 0; i < 16; i++) k[i] = (uint8_t)(i * 17);
  for (int i = 16; i < 16 * (CIPHER_ROUNDS + 1); i += 4) {
    uint8_t word[4] = {k[i - 4], k[i - 3], k[i - 2], k[i - 1]};
    if (i % 16 == 0) {
      uint8_t first = word[0];
      for (int j = 0; j < 4; j++) word[j] = substitution[j < 3 ? word[j + 1] : first];
      word[0] ^= constant, constant = twice(constant);
    }
    for (int j = 0; j < 4; j++) k[i + j] = k[i + j - 16] ^ word[j];
  }
}

static void plain_block(const uint8_t keys[][16], uint64_t counter, uint8_t *text) {
  uint8_t s[16] = {0}, t[16];
  memcpy(s, &counter, 8);
  for (int i = 0; i < 16; i++) s[i] ^= keys[0][i];
  for (int round = 1; round <= CIPHER_ROUNDS; round++) {
    for (int i = 0; i < 16; i++) t[i] = substitution[s[(i + 4 * (i & 3)) & 15]];
    for (int i = 0; i < 16; i++) {
      const uint8_t *c = t + (i & 12);
      uint8_t a = c[i & 3], b = c[(i + 1) & 3], sum = a ^ c[0] ^ c[1] ^ c[2] ^ c[3];
      s[i] = keys[round][i] ^ (round < CIPHER_ROUNDS ? twice(a ^ b) ^ sum : a);
    }
  }
  for (int i = 0; i < 16; i++) text[i] ^= s[i];
}

__attribute__((target("aes,sse4.1"))) static void aes_pass(const uint8_t keys[][16], uint64_t counter) {
  __m128i k[CIPHER_ROUNDS + 1], s[4];
  for (int i = 0; i <= CIPHER_ROUNDS; i++) k[i] = _mm_loadu_si128((const __m128i *)keys[i]);
  for (uint32_t at = 0; at < sizeof data; at += 64) {
    for (int i = 0; i < 4; i++) s[i] = _mm_xor_si128(_mm_cvtsi64_si128((long long)counter++), k[0]);
#pragma GCC unroll 16
    for (int round = 1; round < CIPHER_ROUNDS; round++)
      for (int i = 0; i < 4; i++) s[i] = _mm_aesenc_si128(s[i], k[round]);
    for (int i = 0; i < 4; i++) {
      __m128i *text = (__m128i *)(data + at) + i;
      _mm_storeu_si128(text, _mm_xor_si128(_mm_loadu_si128(text), _mm_aesenclast_si128(s[i], k[CIPHER_ROUNDS])));
    }
  }
}

static uint64_t aes_ctr(void) {
  uint8_t keys[CIPHER_ROUNDS + 1][16];
  int fast = __builtin_cpu_supports("aes");
  fill();
  make_substitution();
  expand_key(keys);
  for (uint64_t pass = 0, counter = 0; pass < AES_PASSES; pass++, counter += sizeof data / 16) {
    if (fast) aes_pass(keys, counter);
    else for (uint32_t i = 0; i < sizeof data / 16; i++) plain_block(keys, counter + i, data + 16 * i);
  }
  return hash_bytes(data, sizeof data);
}

/* ---- SHA-256 ---- */

enum { SHA_PASSES = 24 };

/* FIPS 180-4, 4.2.2 and 5.3.3: fractions of the cube roots and square roots of primes. */
static uint32_t sha_constants[64], sha_start[8];

/* floor(2^32 * the k-th root of p) modulo 2^32, bit by bit. */
static uint32_t root_fraction(uint32_t p, int k) {
  __extension__ typedef unsigned __int128 wide;
  uint64_t root = 0;
  for (int bit = 36; bit >= 0; bit--) {
    wide r = root | 1ull << bit;
    /* r^3 has up to 111 bits, p << 96 up to 105. */
    if (k == 2 ? r * r <= (wide)p << 64 : r * r * r <= (wide)p << 96) root = (uint64_t)r;
  }
  return (uint32_t)root;
}

static void make_sha_constants(void) {
  for (uint32_t n = 0, p = 2; n < 64; p++) {
    uint32_t d = 2;
    while (d * d <= p && p % d) d++;
    if (d * d <= p) continue;
    if (n < 8) sha_start[n] = root_fraction(p, 2);
    sha_constants[n++] = root_fraction(p, 3);
  }
}

static uint32_t rotate(uint32_t x, int by) { return x >> by | x << (32 - by); }

static void sha_plain(uint32_t state[8], const uint8_t *from, uint32_t blocks) {
  for (; blocks--; from += 64) {
    uint32_t w[64], v[8];
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 16; i++) memcpy(w + i, from + 4 * i, 4), w[i] = __builtin_bswap32(w[i]);
    for (int i = 16; i < 64; i++) {
      uint32_t a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    for (int i = 0; i < 64; i++) {
      uint32_t a = v[0], e = v[4];
      uint32_t one = v[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + sha_constants[i] + w[i];
      uint32_t two = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
      memmove(v + 1, v, 7 * sizeof *v);
      v[4] += one, v[0] = one + two;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
  }
}

__attribute__((target("sha,sse4.1"))) static void sha_fast(uint32_t state[8], const uint8_t *from, uint32_t blocks) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
  __m128i abef = _mm_set_epi32((int)state[0], (int)state[1], (int)state[4], (int)state[5]);
  __m128i cdgh = _mm_set_epi32((int)state[2], (int)state[3], (int)state[6], (int)state[7]);
  for (; blocks--; from += 64) {
    __m128i w[4], a = abef, c = cdgh;
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      if (i < 4) {
        w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)from + i), swap);
      } else {
        __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]),
          _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
        w[i & 3] = _mm_sha256msg2_epu32(sum, w[(i + 3) & 3]);
      }
      __m128i k = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)sha_constants + i));
      c = _mm_sha256rnds2_epu32(c, a, k);
      a = _mm_sha256rnds2_epu32(a, c, _mm_shuffle_epi32(k, 0x0e));
    }
    abef = _mm_add_epi32(abef, a), cdgh = _mm_add_epi32(cdgh, c);
  }
  uint32_t x[4], y[4];
  _mm_storeu_si128((__m128i *)x, abef), _mm_storeu_si128((__m128i *)y, cdgh);
  uint32_t result[8] = {x[3], x[2], y[3], y[2], x[1], x[0], y[1], y[0]};
  memcpy(state, result, sizeof result);
}

static int has_sha(void) {
  unsigned a, b = 0, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1) && __builtin_cpu_supports("sse4.1");
}

static uint64_t sha256(void) {
  uint32_t state[8];
  int fast = has_sha();
  fill();
  make_sha_constants();
  memcpy(state, sha_start, sizeof state);
  for (int pass = 0; pass < SHA_PASSES; pass++) (fast ? sha_fast : sha_plain)(state, data, sizeof data / 64);
  return (uint64_t)state[0] << 32 | state[7];
}

/* ---- memchr ---- */

enum { SEARCHES = 400 };

__attribute__((target("avx2"))) static const uint8_t *search_fast(const uint8_t *from, uint8_t byte) {
  __m256i wanted = _mm256_set1_epi8((char)byte);
  for (;; from += 32) {
    unsigned found = (unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)from), wanted));
    if (found) return from + __builtin_ctz(found);
  }
}

static const uint8_t *search_plain(const uint8_t *from, uint8_t byte) {
  while (*from != byte) from++;
  return from;
}

static uint64_t search(void) {
  uint64_t sum = 0;
  int fast = __builtin_cpu_supports("avx2");
  memset(data, 'a', sizeof data);
  for (uint32_t i = 0; i < SEARCHES; i++) {
    uint32_t at = sizeof data - 1 - i * 37;
    data[at] = 'x';
    sum = sum * 31 + (uint64_t)((fast ? search_fast : search_plain)(data + (i & 15), 'x') - data);
    data[at] = 'a';
  }
  return sum;
}

/* ---- single-precision matrices: small integers, so that fusing makes no difference ---- */

enum { N = 160, PRODUCTS = 24 };

static float left[N][N], right[N][N], product[N][N];

__attribute__((target("avx2,fma"))) static void multiply_fast(void) {
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j += 32) {
      __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
      for (int k = 0; k < N; k++) {
        __m256 factor = _mm256_broadcast_ss(&left[i][k]);
        for (int v = 0; v < 4; v++) sum[v] = _mm256_fmadd_ps(factor, _mm256_loadu_ps(&right[k][j + 8 * v]), sum[v]);
      }
      for (int v = 0; v < 4; v++) _mm256_storeu_ps(&product[i][j + 8 * v], sum[v]);
    }
}

static void multiply_plain(void) {
  memset(product, 0, sizeof product);
  for (int i = 0; i < N; i++)
    for (int k = 0; k < N; k++)
      for (int j = 0; j < N; j++) product[i][j] += left[i][k] * right[k][j];
}

static uint64_t fma_matrix(void) {
  uint64_t hash = 0;
  int fast = __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) left[i][j] = (float)((i + 3 * j) % 61), right[i][j] = (float)((7 * i + j) % 53 - 26);
  for (int pass = 0; pass < PRODUCTS; pass++) {
    (fast ? multiply_fast : multiply_plain)();
    hash = hash * 31 + hash_bytes(product, sizeof product);
    for (int i = 0; i < N; i++) left[i][pass] = (float)((int)product[pass][i] & 63);
  }
  return hash;
}

const struct kernel vector_kernels[] = {
  {"vector", "aes-ctr", aes_ctr}, {"vector", "sha256", sha256},
  {"vector", "memchr", search}, {"vector", "fma-matrix", fma_matrix}};
const int vector_kernel_count = sizeof vector_kernels / sizeof vector_kernels[0];
