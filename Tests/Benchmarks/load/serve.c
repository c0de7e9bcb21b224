#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

// The server: accepts, reads a hello, sends what it asks for.

struct connection {
    int descriptor;
    bool listens;
    bool asked;
    struct request request;
    size_t count;  // of the hello's bytes
    uint8_t hello[HELLO_MAX];
};

static int poller;
static uint8_t content[256 * 1024];

static void watch(struct connection *connection, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, connection->descriptor, &event) < 0) fail("epoll_ctl");
}

static struct connection *make(int descriptor, bool listens) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL) fail("calloc");
    connection->descriptor = descriptor;
    connection->listens = listens;
    return connection;
}

static void end(struct connection *connection) {
    close(connection->descriptor);
    free(connection);
}

// Sends on. Whether the connection goes on.
static bool send_on(struct connection *connection) {
    while (connection->request.reply > 0) {
        size_t piece = connection->request.reply < sizeof content ? connection->request.reply : sizeof content;
        ssize_t sent = send(connection->descriptor, content, piece, MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN;
        connection->request.reply -= (uint64_t)sent;
    }
    return connection->request.stays;
}

// Reads on. Whether the connection goes on.
static bool read_on(struct connection *connection) {
    while (!connection->asked) {
        ssize_t count = recv(
            connection->descriptor, connection->hello + connection->count, HELLO_MAX - connection->count, 0);
        if (count < 0) return errno == EAGAIN;
        if (count == 0) return false;
        connection->count += (size_t)count;
        switch (read_hello(connection->hello, connection->count, &connection->request)) {
        case 1: connection->asked = true; break;
        case 0: break;
        default: return false;
        }
    }
    if (connection->request.reply > 0) return send_on(connection);
    uint8_t ignored[256];
    ssize_t count;
    while ((count = recv(connection->descriptor, ignored, sizeof ignored, 0)) > 0) {}
    return count < 0 && errno == EAGAIN;
}

static void accept_all(int listener) {
    int descriptor;
    while ((descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = make(descriptor, false);
        watch(connection, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    }
}

static void listen_at(const char *address, const char *port) {
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0) fail("socket");
    int one = 1;
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in local = endpoint(address, port);
    if (bind(descriptor, (struct sockaddr *)&local, sizeof local) < 0) fail("bind");
    if (listen(descriptor, 4096) < 0) fail("listen");
    watch(make(descriptor, true), EPOLLIN);
}

int serve(int count, char **arguments) {
    raise_descriptor_limit();
    memset(content, 0x17, sizeof content);
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (int index = 0; index + 1 < count; index += 2) listen_at(arguments[index], arguments[index + 1]);
    puts("serving");
    fflush(stdout);
    struct epoll_event events[256];
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int index = 0; index < ready; index++) {
            struct connection *connection = events[index].data.ptr;
            if (connection->listens) {
                accept_all(connection->descriptor);
            } else if (!read_on(connection)) {
                end(connection);
            }
        }
    }
}
