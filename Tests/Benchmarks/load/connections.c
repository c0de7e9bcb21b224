#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

// Many connections, a number of them at once: connect, [CONNECT,] hello, read what comes.

enum phase { CONNECTING, ASKING_PROXY, RECEIVING };

struct connection {
    int descriptor;
    enum phase phase;
    uint64_t received;
    uint64_t begun;
};

struct plan {
    struct sockaddr_in peer;
    uint8_t hello[HELLO_MAX];
    size_t hello_size;
    char head[512];  // the CONNECT, if there is a proxy to ask
    size_t head_size;
    struct request request;
    int poller;
    size_t count, begun, ended, failed;
    const char *failure;  // what happened to the last that failed
    uint64_t received;
    uint64_t *latencies;  // from connect to the reply's first byte, in nanoseconds
    size_t latency_count;
};

static int *held;
static size_t held_count;

static void begin(struct plan *plan, struct connection *connection) {
    plan->begun++;
    *connection = (struct connection){.begun = now()};
    connection->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->descriptor < 0) fail("socket");
    if (connect(connection->descriptor, (struct sockaddr *)&plan->peer, sizeof plan->peer) < 0 && errno != EINPROGRESS)
        fail("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    if (epoll_ctl(plan->poller, EPOLL_CTL_ADD, connection->descriptor, &event) < 0) fail("epoll_ctl");
}

// A connection has ended, or got all that it asked for and stays; the next takes its place. `failure` says what went
// wrong, NULL if nothing did.
static void end(struct plan *plan, struct connection *connection, const char *failure) {
    plan->ended++;
    plan->received += connection->received;
    if (failure != NULL) {
        plan->failed++;
        plan->failure = failure;
    }
    if (failure == NULL && plan->request.stays) {
        epoll_ctl(plan->poller, EPOLL_CTL_DEL, connection->descriptor, NULL);
        held[held_count++] = connection->descriptor;
    } else {
        close(connection->descriptor);
    }
    if (plan->begun < plan->count) begin(plan, connection);
}

static bool send_all(int descriptor, const void *bytes, size_t count) {
    return send(descriptor, bytes, count, MSG_NOSIGNAL) == (ssize_t)count;
}

// Reads the proxy's answer. 1: it agreed; 0: not there yet; -1: it refused.
static int read_answer(int descriptor) {
    char answer[1024];
    ssize_t count = recv(descriptor, answer, sizeof answer - 1, MSG_PEEK);
    if (count < 0) return errno == EAGAIN ? 0 : -1;
    answer[count] = 0;
    char *last = strstr(answer, "\r\n\r\n");
    if (last == NULL) return count == 0 ? -1 : 0;
    if (recv(descriptor, answer, (size_t)(last + 4 - answer), 0) < 0) return -1;
    return strncmp(answer, "HTTP/1.1 200", 12) == 0 || strncmp(answer, "HTTP/1.0 200", 12) == 0 ? 1 : -1;
}

static void receive(struct plan *plan, struct connection *connection) {
    static uint8_t ignored[1 << 20];
    for (;;) {
        // MSG_TRUNC: the kernel drops what was read instead of copying it.
        ssize_t count = recv(connection->descriptor, ignored, sizeof ignored, MSG_TRUNC);
        if (count < 0 && errno == EAGAIN) return;
        if (count < 0) return end(plan, connection, "reset while receiving");
        if (count == 0)
            return end(plan, connection, connection->received == plan->request.reply ? NULL : "ended too early");
        if (connection->received == 0) plan->latencies[plan->latency_count++] = now() - connection->begun;
        connection->received += (uint64_t)count;
        if (plan->request.stays && connection->received == plan->request.reply) return end(plan, connection, NULL);
    }
}

static void go_on(struct plan *plan, struct connection *connection, uint32_t events) {
    if (connection->phase == CONNECTING) {
        if (!(events & EPOLLOUT) || events & (EPOLLERR | EPOLLHUP)) return end(plan, connection, "refused");
        connection->phase = plan->head_size > 0 ? ASKING_PROXY : RECEIVING;
        bool sent = plan->head_size > 0 ? send_all(connection->descriptor, plan->head, plan->head_size)
                                        : send_all(connection->descriptor, plan->hello, plan->hello_size);
        if (!sent) return end(plan, connection, "closed before the hello");
    }
    if (connection->phase == ASKING_PROXY) {
        int answer = read_answer(connection->descriptor);
        if (answer == 0) return;
        if (answer < 0 || !send_all(connection->descriptor, plan->hello, plan->hello_size))
            return end(plan, connection, "refused by the proxy");
        connection->phase = RECEIVING;
    }
    receive(plan, connection);
}

void run_connections(int count, char **words) {
    if (count != 8 && count != 11) {
        puts("{\"error\": \"connections ADDRESS PORT NAME REPLY CONCURRENCY COUNT close|stay [via PROXY PORT]\"}");
        return;
    }
    struct plan plan = {.peer = endpoint(words[1], words[2]), .count = (size_t)atol(words[6])};
    plan.request = (struct request){strtoull(words[4], NULL, 10), strcmp(words[7], "stay") == 0};
    plan.hello_size = write_hello(plan.hello, words[3], plan.request);
    if (count == 11) {
        plan.peer = endpoint(words[9], words[10]);
        plan.head_size = (size_t)snprintf(
            plan.head, sizeof plan.head, "CONNECT %s:%s HTTP/1.1\r\nHost: %s:%s\r\n\r\n", words[3], words[2], words[3],
            words[2]);
    }
    size_t concurrency = (size_t)atol(words[5]);
    if (concurrency > plan.count) concurrency = plan.count;
    struct connection *connections = calloc(concurrency, sizeof *connections);
    plan.latencies = calloc(plan.count, sizeof *plan.latencies);
    if (plan.request.stays) held = realloc(held, (held_count + plan.count) * sizeof *held);
    if (connections == NULL || plan.latencies == NULL) fail("calloc");
    plan.poller = epoll_create1(EPOLL_CLOEXEC);

    uint64_t start = now(), deadline = start + 120ULL * 1000000000;
    for (size_t index = 0; index < concurrency; index++) begin(&plan, &connections[index]);
    struct epoll_event events[256];
    while (plan.ended < plan.count && now() < deadline) {
        int ready = epoll_wait(plan.poller, events, 256, 1000);
        for (int index = 0; index < ready; index++) go_on(&plan, events[index].data.ptr, events[index].events);
    }
    double seconds = (double)(now() - start) / 1e9;
    close(plan.poller);
    if (plan.failed > 0 || plan.ended < plan.count) {
        const char *failure = plan.failure != NULL ? plan.failure : "no end in two minutes";
        printf("{\"error\": \"%zu of %zu connections to %s:%s failed: %s\"}\n",
            plan.failed + plan.count - plan.ended, plan.count, words[1], words[2], failure);
        free(plan.latencies);
        free(connections);
        return;
    }
    printf(
        "{\"seconds\": %.9f, \"connections\": %zu, \"bytes\": %llu, \"p50\": %llu, \"p99\": %llu}\n", seconds,
        plan.ended, (unsigned long long)plan.received,
        (unsigned long long)quantile(plan.latencies, plan.latency_count, 0.5),
        (unsigned long long)quantile(plan.latencies, plan.latency_count, 0.99));
    free(plan.latencies);
    free(connections);
}

void release_connections(void) {
    for (size_t index = 0; index < held_count; index++) close(held[index]);
    printf("{\"released\": %zu}\n", held_count);
    held_count = 0;
}
