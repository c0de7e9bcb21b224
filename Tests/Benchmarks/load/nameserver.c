#include "load.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

// An upstream nameserver that is never the bottleneck. It knows the names that it is told, by their IPv4 addresses, and
// every name below query.example, by an IPv6 address that is the name's alone.

static const char synthetic[] = ".query.example";

struct answer {
    uint16_t type;
    uint8_t length;  // 0: the name exists and has no such record
    uint8_t data[16];
};

// The question's name as text, and where its type stands; 0 for what is no query.
static size_t read_name(const uint8_t *message, size_t count, char text[256]) {
    size_t position = 12, written = 0;
    while (position < count && message[position] != 0) {
        size_t length = message[position];
        if (length > 63 || position + length + 1 >= count || written + length + 1 > 255) return 0;
        if (written > 0) text[written++] = '.';
        for (size_t index = 1; index <= length; index++) text[written++] = (char)tolower(message[position + index]);
        position += length + 1;
    }
    text[written] = 0;
    return position + 5 <= count ? position + 1 : 0;
}

// Whether the name exists.
static bool look_up(const char *name, uint16_t type, int count, char **known, struct answer *answer) {
    *answer = (struct answer){.type = type};
    size_t length = strlen(name), suffix = sizeof synthetic - 1;
    if (length > suffix && strcmp(name + length - suffix, synthetic) == 0) {
        if (type != 28) return true;
        uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
        for (const char *byte = name; *byte != 0; byte++) hash = (hash ^ (uint8_t)*byte) * 0x100000001b3;
        uint8_t address[16] = {0x20, 0x01, 0x0d, 0xb8, 0x64};
        memcpy(address + 8, &hash, 8);
        memcpy(answer->data, address, 16);
        answer->length = 16;
        return true;
    }
    for (int index = 0; index < count; index++) {
        const char *equals = strchr(known[index], '=');
        if (equals == NULL || (size_t)(equals - known[index]) != length || strncasecmp(known[index], name, length) != 0)
            continue;
        if (type == 1 && inet_pton(AF_INET, equals + 1, answer->data) == 1) answer->length = 4;
        return true;
    }
    return false;
}

// Writes the answer over the query, whose question it keeps as it was written; the answer's length, 0 for none.
static size_t answer_query(uint8_t *message, size_t count, int known_count, char **known) {
    char name[256];
    size_t position = count < 12 ? 0 : read_name(message, count, name);
    if (position == 0 || message[2] & 0x80) return 0;
    struct answer answer;
    uint16_t type = (uint16_t)(message[position] << 8 | message[position + 1]);
    bool exists = look_up(name, type, known_count, known, &answer);
    size_t end = position + 4;
    message[2] = 0x84 | (message[2] & 1);  // a response, authoritative
    message[3] = exists ? 0x80 : 0x83;
    memset(message + 6, 0, 6);
    if (answer.length > 0) {
        message[7] = 1;
        // The name by a pointer to the question's; a TTL of an hour.
        uint8_t record[12] = {0xc0, 12, 0, (uint8_t)answer.type, 0, 1, 0, 0, 14, 16, 0, answer.length};
        memcpy(message + end, record, sizeof record);
        memcpy(message + end + sizeof record, answer.data, answer.length);
        end += sizeof record + answer.length;
    }
    return end;
}

int nameserver(int count, char **arguments) {
    if (count < 2) return 2;
    int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), room = 4 << 20;
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    struct sockaddr_in local = endpoint(arguments[0], arguments[1]);
    if (bind(descriptor, (struct sockaddr *)&local, sizeof local) < 0) fail("bind");
    puts("serving");
    fflush(stdout);
    for (;;) {
        uint8_t message[4096];
        struct sockaddr_storage peer;
        socklen_t length = sizeof peer;
        ssize_t received = recvfrom(descriptor, message, 2048, 0, (struct sockaddr *)&peer, &length);
        if (received <= 0) continue;
        size_t size = answer_query(message, (size_t)received, count - 2, arguments + 2);
        if (size > 0) sendto(descriptor, message, size, 0, (struct sockaddr *)&peer, length);
    }
}
