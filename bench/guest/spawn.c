/* spawn COUNT COMMAND...: that many times fork, exec and wait; prints the sum of the statuses. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int sum = 0, status;
  for (int i = atoi(argv[1]); i > 0; i--) {
    pid_t child = fork();
    if (child == 0) {
      execv(argv[2], argv + 2);
      _exit(127);
    }
    waitpid(child, &status, 0);
    sum += WEXITSTATUS(status);
  }
  printf("%d\n", sum);
  return 0;
}
