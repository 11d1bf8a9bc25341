/* SPDX-License-Identifier: Apache-2.0
 * requests PORT: answer each request over TCP, of 100 bytes, with as many.
 * requests PORT ADDRESS SECONDS: ask one after the other; write how many were answered a second. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 100 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int whole(int fd, char *buffer) {
    int got = 0, n;
    while (got < SIZE && (n = read(fd, buffer + got, SIZE - got)) > 0)
        got += n;
    return got == SIZE;
}

int main(int argc, char **argv) {
    char buffer[SIZE] = "";
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in there = {.sin_family = AF_INET};

    there.sin_port = htons(atoi(argv[1]));
    if (argc < 4) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, (void *)&there, sizeof there) || listen(fd, 8))
            return 1;
        puts("ready");
        fflush(stdout);
        for (int client; (client = accept(fd, NULL, NULL)) >= 0; close(client)) {
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            while (whole(client, buffer) && write(client, buffer, SIZE) == SIZE)
                ;
        }
        return 1;
    }
    inet_pton(AF_INET, argv[2], &there.sin_addr);
    if (connect(fd, (void *)&there, sizeof there))
        return 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    double began = now(), end = began + atof(argv[3]);
    long answered = 0;
    for (; now() < end; answered++)
        if (write(fd, buffer, SIZE) != SIZE || !whole(fd, buffer))
            return 1;
    printf("%.0f\n", answered / (now() - began));
    return 0;
}
