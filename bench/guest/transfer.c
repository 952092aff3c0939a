/* Moves bytes from and to disks and over TCP: "RESULT group name checksum microseconds" a line.

     transfer write NAME FILE MIB [direct]     one after the other, a MiB each; ends with fsync
     transfer read NAME FILE MIB [direct]
     transfer random NAME FILE MIB COUNT       reads of 4 KiB anywhere, 32 at a time, direct where FILE allows
     transfer receive|send NAME HOST PORT MIB
     transfer rounds NAME HOST PORT COUNT      a byte there, a byte back
     transfer serve                            the other end of these, on a port of 127.0.0.1 that it prints

   All bytes are a function of their place, so that whoever sees them can say what the checksum must be. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1u << 20)
#define PAGE 4096u
#define LINE 64u
#define PIECE (64u << 10)
#define DEPTH 32

static unsigned char *buffer;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void result(const char *group, const char *name, uint64_t sum, uint64_t since) {
  printf("RESULT %s %s %016llx %llu\n", group, name, (unsigned long long)sum, (unsigned long long)(now() - since));
  fflush(stdout);
}

/* A word of each line: what moves the bytes is to be measured, not what adds them up. */
static uint64_t sum_lines(uint64_t sum, const unsigned char *bytes, size_t count) {
  for (size_t i = 0; i < count; i += LINE)
    sum = ((sum << 23 | sum >> 41) ^ *(const uint64_t *)(bytes + i)) * 0x9e3779b97f4a7c15u;
  return sum;
}

/* The same in every MiB but for the first word of each page, which is its place. */
static void fill(void) {
  uint64_t *words = (uint64_t *)buffer;
  for (size_t i = 0; i < MIB / 8; i++) words[i] = (i + 1) * 0x9e3779b97f4a7c15u;
}

static void stamp(unsigned char *bytes, size_t count, uint64_t place) {
  for (size_t i = 0; i < count; i += PAGE) *(uint64_t *)(bytes + i) = place + i;
}

/* Disks. */

static int open_disk(const char *path, int flags, int direct) {
  int fd = open(path, flags | (direct ? O_DIRECT : 0), 0600);
  if (fd < 0) fail(path);
  return fd;
}

static void write_disk(const char *name, const char *path, unsigned mib, int direct) {
  int fd = open_disk(path, O_WRONLY | O_CREAT, direct);
  uint64_t sum = 0, since = now();
  fill();
  for (unsigned i = 0; i < mib; i++) {
    stamp(buffer, MIB, (uint64_t)i * MIB);
    sum = sum_lines(sum, buffer, MIB);
    if (write(fd, buffer, MIB) != MIB) fail(path);
  }
  if (fsync(fd) != 0) fail(path);
  result("disk", name, sum, since);
  close(fd);
}

static void read_disk(const char *name, const char *path, unsigned mib, int direct) {
  int fd = open_disk(path, O_RDONLY, direct);
  uint64_t sum = 0, since = now();
  for (unsigned i = 0; i < mib; i++) {
    if (read(fd, buffer, MIB) != MIB) fail(path);
    sum = sum_lines(sum, buffer, MIB);
  }
  result("disk", name, sum, since);
  close(fd);
}

static uint64_t next_place(uint64_t *state, unsigned mib) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return ((*state >> 33) % ((uint64_t)mib * (MIB / PAGE))) * PAGE;
}

static void random_reads(const char *name, const char *path, unsigned mib, unsigned count) {
  int fd = open(path, O_RDONLY | O_DIRECT);
  if (fd < 0) fd = open_disk(path, O_RDONLY, 0);
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, DEPTH, &context) != 0) fail("io_setup");
  static struct iocb blocks[DEPTH];
  struct iocb *ready[DEPTH];
  struct io_event events[DEPTH];
  unsigned begun = 0, ended = 0;
  uint64_t state = 1, sum = 0, since = now();
  long have = DEPTH;
  for (int i = 0; i < DEPTH; i++) ready[i] = &blocks[i];
  while (ended < count) {
    long more = 0;
    for (; more < have && begun < count; more++, begun++) {
      struct iocb *block = ready[more];
      memset(block, 0, sizeof *block);
      block->aio_lio_opcode = IOCB_CMD_PREAD;
      block->aio_fildes = (unsigned)fd;
      block->aio_buf = (uintptr_t)(buffer + (size_t)(block - blocks) * PAGE);
      block->aio_nbytes = PAGE;
      block->aio_offset = (int64_t)next_place(&state, mib);
    }
    for (long done = 0; done < more;) {
      long part = syscall(SYS_io_submit, context, more - done, ready + done);
      if (part <= 0) fail("io_submit");
      done += part;
    }
    have = syscall(SYS_io_getevents, context, 1, DEPTH, events, NULL);
    if (have < 1) fail("io_getevents");
    for (long i = 0; i < have; i++, ended++) {
      struct iocb *block = (struct iocb *)(uintptr_t)events[i].obj;
      if (events[i].res != PAGE) fail(path);
      /* In whatever order they end. */
      sum += sum_lines((uint64_t)block->aio_offset, (unsigned char *)(uintptr_t)block->aio_buf, PAGE);
      ready[i] = block;
    }
  }
  result("disk", name, sum, since);
  close(fd);
}

/* TCP. A client says what it wants: an octet, and how much of it. */

struct wish { uint32_t kind, amount; };

static uint64_t receive_all(int fd, unsigned mib) {
  uint64_t sum = 0, left = (uint64_t)mib * MIB;
  for (size_t have = 0; left > 0;) {
    ssize_t part = recv(fd, buffer + have, PIECE - have, 0);
    if (part <= 0) fail("recv");
    have += (size_t)part;
    if (have < PIECE) continue;
    sum = sum_lines(sum, buffer, PIECE);
    left -= PIECE;
    have = 0;
  }
  return sum;
}

static uint64_t send_all(int fd, unsigned mib) {
  uint64_t sum = 0;
  fill();
  for (uint64_t place = 0; place < (uint64_t)mib * MIB; place += PIECE) {
    unsigned char *piece = buffer + place % MIB;
    stamp(piece, PIECE, place);
    sum = sum_lines(sum, piece, PIECE);
    for (size_t done = 0; done < PIECE;) {
      ssize_t part = send(fd, piece + done, PIECE - done, MSG_NOSIGNAL);
      if (part <= 0) fail("send");
      done += (size_t)part;
    }
  }
  return sum;
}

static int move(int fd, void *bytes, size_t count, int sending) {
  for (size_t done = 0; done < count;) {
    char *at = (char *)bytes + done;
    ssize_t part = sending ? send(fd, at, count - done, MSG_NOSIGNAL) : recv(fd, at, count - done, 0);
    if (part <= 0) return 0;
    done += (size_t)part;
  }
  return 1;
}

static void no_delay(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void client(const char *kind, const char *name, const char *host, unsigned port, unsigned amount) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, host, &to.sin_addr) != 1) fail(host);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  uint64_t since = now(), sum = 0;
  if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) fail("connect");
  no_delay(fd);
  struct wish wish = {(uint32_t)kind[0] | (uint32_t)kind[1] << 8, amount};
  if (!move(fd, &wish, sizeof wish, 1)) fail("send");
  if (!strcmp(kind, "receive")) sum = receive_all(fd, amount);
  else if (!strcmp(kind, "send")) {
    send_all(fd, amount);
    /* What has arrived counts, and is what is told. */
    if (!move(fd, &sum, sizeof sum, 0)) fail("recv");
  } else
    for (unsigned i = 0; i < amount; i++) {
      unsigned char octet = (unsigned char)i;
      if (!move(fd, &octet, 1, 1) || !move(fd, &octet, 1, 0)) fail("rounds");
      sum = sum * 31 + octet;
    }
  result("network", name, sum, since);
  close(fd);
}

static void serve_one(int fd) {
  struct wish wish;
  no_delay(fd);
  if (!move(fd, &wish, sizeof wish, 0)) return;
  if ((wish.kind & 0xff) == 's') {
    uint64_t sum = receive_all(fd, wish.amount);
    move(fd, &sum, sizeof sum, 1);
  } else if ((wish.kind >> 8) == 'e') send_all(fd, wish.amount);
  else
    for (unsigned char octet; move(fd, &octet, 1, 0) && move(fd, &octet, 1, 1);) continue;
}

static void serve(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof at;
  int server = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(server, (struct sockaddr *)&at, sizeof at) != 0 || listen(server, 16) != 0) fail("bind");
  getsockname(server, (struct sockaddr *)&at, &length);
  printf("%u\n", ntohs(at.sin_port));
  fflush(stdout);
  for (;;) {
    int fd = accept(server, NULL, NULL);
    if (fd < 0) fail("accept");
    if (fork() == 0) {
      serve_one(fd);
      _exit(0);
    }
    close(fd);
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
  }
}

int main(int argc, char **argv) {
  buffer = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (buffer == MAP_FAILED) fail("mmap");
  if (argc == 2 && !strcmp(argv[1], "serve")) serve();
  if (argc < 5) return 2;
  const char *kind = argv[1], *name = argv[2];
  unsigned first = (unsigned)atoi(argv[4]);
  if (!strcmp(kind, "write")) write_disk(name, argv[3], first, argc > 5);
  else if (!strcmp(kind, "read")) read_disk(name, argv[3], first, argc > 5);
  else if (argc < 6) return 2;
  else if (!strcmp(kind, "random")) random_reads(name, argv[3], first, (unsigned)atoi(argv[5]));
  else client(kind, name, argv[3], first, (unsigned)atoi(argv[5]));
  return 0;
}
