/* SPDX-License-Identifier: Apache-2.0
 * peak COMMAND...: run a command, then write its peak memory in KiB to stderr, in a line of its own.
 * A process begins with the peak of the one that started it, so that one has to be small. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct rusage usage;
    int status;
    pid_t pid = argc > 1 ? fork() : -1;

    if (pid == 0) {
        execv(argv[1], argv + 1);
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
        return 127;
    fprintf(stderr, "\n%ld\n", usage.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
