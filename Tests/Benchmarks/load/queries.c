#include "load.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// DNS queries from one socket: evenly spaced at a rate, or as fast as answers come with so many under way.

struct plan {
    int descriptor;
    uint16_t type;
    const char *pattern;
    unsigned first, distinct;
    uint64_t sent_at[1 << 16];  // by id; 0 when answered
    uint64_t *latencies;
    size_t count, sent, answered, with_records, name_errors;
};

static size_t write_query(uint8_t out[512], uint16_t id, const char *name, uint16_t type) {
    uint8_t header[12] = {(uint8_t)(id >> 8), (uint8_t)id, 1, 0, 0, 1};  // recursion desired, one question
    memcpy(out, header, sizeof header);
    size_t count = sizeof header;
    while (*name != 0) {
        size_t length = strcspn(name, ".");
        out[count++] = (uint8_t)length;
        memcpy(out + count, name, length);
        count += length;
        name += length + (name[length] == '.');
    }
    out[count++] = 0;
    uint8_t question[4] = {(uint8_t)(type >> 8), (uint8_t)type, 0, 1};
    memcpy(out + count, question, sizeof question);
    return count + sizeof question;
}

static void send_next(struct plan *plan) {
    char name[256];
    uint8_t query[512];
    uint16_t id = (uint16_t)plan->sent;
    snprintf(name, sizeof name, plan->pattern, plan->first + (unsigned)(plan->sent % plan->distinct));
    size_t count = write_query(query, id, name, plan->type);
    plan->sent_at[id] = now();
    plan->sent++;
    // What finds no room is lost, as anywhere on the way.
    if (send(plan->descriptor, query, count, 0) < 0 && errno != EAGAIN && errno != ENOBUFS) fail("send");
}

static void receive_all(struct plan *plan) {
    uint8_t answer[4096];
    ssize_t count;
    while ((count = recv(plan->descriptor, answer, sizeof answer, 0)) > 0) {
        uint16_t id = (uint16_t)(answer[0] << 8 | answer[1]);
        if (count < 12 || plan->sent_at[id] == 0) continue;
        plan->latencies[plan->answered++] = now() - plan->sent_at[id];
        plan->sent_at[id] = 0;
        if ((answer[3] & 15) == 3) plan->name_errors++;
        if ((answer[3] & 15) == 0 && (answer[6] | answer[7]) != 0) plan->with_records++;
    }
    if (count < 0 && errno != EAGAIN) fail("recv");
}

static void wait_for_answer(struct plan *plan, uint64_t nanoseconds) {
    struct pollfd poller = {.fd = plan->descriptor, .events = POLLIN};
    struct timespec limit = {(time_t)(nanoseconds / 1000000000), (long)(nanoseconds % 1000000000)};
    ppoll(&poller, 1, &limit, NULL);
}

static void run_paced(struct plan *plan, double rate) {
    uint64_t start = now();
    while (plan->sent < plan->count) {
        uint64_t due = start + (uint64_t)((double)plan->sent * 1e9 / rate), time = now();
        if (time >= due) send_next(plan);
        receive_all(plan);
        if (time < due) wait_for_answer(plan, due - time);
    }
}

static void run_windowed(struct plan *plan, size_t window) {
    uint64_t progress = now();
    while (plan->answered < plan->count && now() - progress < 2000000000) {
        while (plan->sent < plan->count && plan->sent - plan->answered < window) send_next(plan);
        wait_for_answer(plan, 100000000);
        size_t before = plan->answered;
        receive_all(plan);
        if (plan->answered > before) progress = now();
    }
}

void run_queries(int count, char **words) {
    if (count != 10) {
        puts("{\"error\": \"queries ADDRESS PORT TYPE PATTERN FIRST DISTINCT COUNT RATE WINDOW\"}");
        return;
    }
    struct sockaddr_in peer = endpoint(words[1], words[2]);
    static struct plan plan;
    memset(&plan, 0, sizeof plan);
    plan.type = (uint16_t)atoi(words[3]);
    plan.pattern = words[4];
    plan.first = (unsigned)atoi(words[5]);
    plan.distinct = (unsigned)atoi(words[6]);
    plan.count = (size_t)atol(words[7]);
    double rate = atof(words[8]);
    plan.latencies = calloc(plan.count, sizeof *plan.latencies);
    plan.descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int room = 4 << 20;
    setsockopt(plan.descriptor, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (connect(plan.descriptor, (struct sockaddr *)&peer, sizeof peer) < 0) fail("connect");
    prctl(PR_SET_TIMERSLACK, 1);

    uint64_t start = now();
    if (rate > 0) {
        run_paced(&plan, rate);
    } else {
        run_windowed(&plan, (size_t)atol(words[9]));
    }
    double seconds = (double)(now() - start) / 1e9;
    for (uint64_t late = now(); plan.answered < plan.sent && now() - late < 500000000; receive_all(&plan))
        wait_for_answer(&plan, 10000000);
    close(plan.descriptor);
    printf(
        "{\"seconds\": %.9f, \"sent\": %zu, \"answered\": %zu, \"records\": %zu, \"nameErrors\": %zu, \"p50\": %llu, "
        "\"p99\": %llu}\n",
        seconds, plan.sent, plan.answered, plan.with_records, plan.name_errors,
        (unsigned long long)quantile(plan.latencies, plan.answered, 0.5),
        (unsigned long long)quantile(plan.latencies, plan.answered, 0.99));
    free(plan.latencies);
}
