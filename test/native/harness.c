/*
 * Runs single instructions on the host's CPU: reads cases from stdin, writes results to stdout.
 *
 * A case is executed by returning from a signal handler into it, with all registers
 * taken from the case; the bytes after the instruction are INT3, so that the next signal
 * shows the registers after it. No assembly is needed, and faults show themselves the same way.
 *
 * Record, in and out (all little endian, sizes in bytes):
 *     0  code[32]          32  gpr[16] u64 in encoding order     160  rip u64   168  rflags u64
 *   176  signal u32, mode u32 (1 = 32-bit code)   184  vector u32, error code u32
 *   192  fxsave image[512]   704  data[512]   1216  upper halves of ymm[256]   1472  tail[64]
 *  1536  fault address u64   1544  pad[8]
 * in: rip is where to start, the code is put at CODE + 256.
 *
 * Of the DATA pages the last but one is followed by a read-only page, and that by nothing; the tail is
 * what lies right below the read-only page.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define CODE 0x20000000ul
#define DATA 0x20010000ul
#define DATA_SIZE 0x3000ul
#define WINDOW (DATA + 0x1000ul)
#define READ_ONLY (DATA + DATA_SIZE)
#define TAIL 64
/* Places in the kernel's XSAVE image of a signal frame. */
#define FX_MAGIC 464
#define XSTATE_BV 512
#define YMM_HIGH 576
#define X87_SSE_AVX 7

struct record {
  uint8_t code[32];
  uint64_t gpr[16];
  uint64_t rip, rflags;
  uint32_t signal, mode;
  uint32_t vector, error;
  uint8_t fx[512];
  uint8_t data[512];
  uint8_t ymm[256];
  uint8_t tail[TAIL];
  uint64_t address, pad;
};

static struct record current;
static volatile int running;
static greg_t saved[NGREG];
static uint8_t saved_fx[512];
static uint8_t saved_ymm[256];

static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* Is there AVX state in the frame? */
static int has_ymm(const uint8_t *fx) {
  uint32_t magic;
  memcpy(&magic, fx + FX_MAGIC, 4);
  return magic == 0x46505853;
}

/* The kernel leaves out what is in its initial state. */
static void read_ymm(uint8_t *to, const uint8_t *fx) {
  memset(to, 0, 256);
  if (has_ymm(fx) && fx[XSTATE_BV] & 4) memcpy(to, fx + YMM_HIGH, 256);
}

static void write_ymm(uint8_t *fx, const uint8_t *from) {
  if (!has_ymm(fx)) return;
  fx[XSTATE_BV] |= X87_SSE_AVX;
  memcpy(fx + YMM_HIGH, from, 256);
}

static void enter(ucontext_t *uc) {
  greg_t *g = uc->uc_mcontext.gregs;
  uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
  memcpy(saved, g, sizeof saved);
  memcpy(saved_fx, fx, 416);
  read_ymm(saved_ymm, fx);
  for (int i = 0; i < 16; i++) g[order[i]] = (greg_t)current.gpr[i];
  g[REG_RIP] = (greg_t)current.rip;
  g[REG_EFL] = (greg_t)current.rflags;
  /* The code segment of 32-bit programs: the kernel restores CS from here, too. */
  if (current.mode == 1) g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll) | 0x23;
  memcpy(fx, current.fx, 416);
  write_ymm(fx, current.ymm);
  running = 1;
}

static void finish(ucontext_t *uc, int number) {
  greg_t *g = uc->uc_mcontext.gregs;
  uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
  for (int i = 0; i < 16; i++) current.gpr[i] = (uint64_t)g[order[i]];
  current.rip = (uint64_t)g[REG_RIP];
  current.rflags = (uint64_t)g[REG_EFL];
  current.signal = (uint32_t)number;
  current.vector = (uint32_t)g[REG_TRAPNO];
  current.error = (uint32_t)g[REG_ERR];
  current.address = (uint64_t)g[REG_CR2];
  memcpy(current.fx, fx, 416);
  read_ymm(current.ymm, fx);
  memcpy(g, saved, sizeof saved);
  memcpy(fx, saved_fx, 416);
  write_ymm(fx, saved_ymm);
  running = 0;
}

static void handler(int number, siginfo_t *info, void *context) {
  (void)info;
  if (running) finish(context, number);
  else if (number == SIGTRAP) enter(context);
  else _exit(3);
}

static void map(unsigned long where, size_t size, int protection) {
  void *p = mmap((void *)where, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (p != (void *)where) {
    perror("mmap");
    exit(2);
  }
}

int main(void) {
  static uint8_t stack[65536];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternate, NULL);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  int numbers[] = {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
  map(CODE, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC);
  map(DATA, DATA_SIZE, PROT_READ | PROT_WRITE);
  map(READ_ONLY, 0x1000, PROT_READ);
  /* Present from now on, so that writes violate its protection. */
  (void)*(volatile char *)READ_ONLY;
  memset((void *)CODE, 0xcc, 0x1000);
  /* 32-bit code needs data segments; 64-bit programs start with null ones. */
  __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" ::"r"(0x2b));
  while (fread(&current, sizeof current, 1, stdin) == 1) {
    memcpy((void *)(CODE + 256), current.code, sizeof current.code);
    memset((void *)DATA, 0, DATA_SIZE);
    memcpy((void *)WINDOW, current.data, sizeof current.data);
    memcpy((void *)(READ_ONLY - TAIL), current.tail, TAIL);
    __asm__ volatile("int3" ::: "memory");
    memcpy(current.data, (void *)WINDOW, sizeof current.data);
    memcpy(current.tail, (void *)(READ_ONLY - TAIL), TAIL);
    if (fwrite(&current, sizeof current, 1, stdout) != 1) return 1;
  }
  return 0;
}
