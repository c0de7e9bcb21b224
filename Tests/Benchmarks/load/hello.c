#include "load.h"

#include <string.h>

// What browsers pad their hellos to (RFC 7685).
enum { HELLO_SIZE = 517 };

// Where the session id begins: record header 5, handshake header 4, version 2, random 32, its own length 1.
enum { SESSION_ID = 44, SESSION_ID_SIZE = 32 };

static const uint8_t magic[8] = "sg-load";

struct writer {
    uint8_t *bytes;
    size_t count;
};

static void put(struct writer *to, const void *bytes, size_t count) {
    memcpy(to->bytes + to->count, bytes, count);
    to->count += count;
}

static void put16(struct writer *to, size_t value) {
    put(to, (uint8_t[]){(uint8_t)(value >> 8), (uint8_t)value}, 2);
}

// Sets a length of 16 bits that stands before everything written after it.
static void close16(struct writer *to, size_t position) {
    size_t count = to->count - position - 2;
    to->bytes[position] = (uint8_t)(count >> 8);
    to->bytes[position + 1] = (uint8_t)count;
}

static size_t open16(struct writer *to) {
    put16(to, 0);
    return to->count - 2;
}

static void put_extension(struct writer *to, size_t type, const void *bytes, size_t count) {
    put16(to, type);
    put16(to, count);
    put(to, bytes, count);
}

size_t write_hello(uint8_t out[HELLO_MAX], const char *name, struct request request) {
    struct writer to = {out, 0};
    put(&to, (uint8_t[]){22, 3, 1}, 3);  // handshake record, TLS 1.0
    size_t record = open16(&to);
    put(&to, (uint8_t[]){1, 0}, 2);  // client_hello, the first byte of its length
    size_t handshake = open16(&to);
    put16(&to, 0x0303);
    uint8_t zeros[HELLO_SIZE] = {0}, filler[32];
    memset(filler, 0x5a, sizeof filler);
    put(&to, filler, 32);  // random
    uint8_t session[1 + SESSION_ID_SIZE] = {SESSION_ID_SIZE};
    memcpy(session + 1, magic, 8);
    memcpy(session + 9, &request.reply, 8);
    session[17] = request.stays;
    put(&to, session, sizeof session);
    put16(&to, 6);
    put(&to, (uint8_t[]){0x13, 1, 0x13, 2, 0x13, 3}, 6);  // cipher suites
    put(&to, (uint8_t[]){1, 0}, 2);                       // compression: none
    size_t extensions = open16(&to);
    put16(&to, 0);  // server_name
    size_t extension = open16(&to), list = open16(&to);
    put(&to, (uint8_t[]){0}, 1);
    put16(&to, strlen(name));
    put(&to, name, strlen(name));
    close16(&to, list);
    close16(&to, extension);
    put_extension(&to, 10, (uint8_t[]){0, 2, 0, 29}, 4);                     // supported_groups: x25519
    put_extension(&to, 13, (uint8_t[]){0, 4, 4, 3, 8, 4}, 6);                // signature_algorithms
    put_extension(&to, 16, "\0\014\2h2\010http/1.1", 14);                    // ALPN
    put_extension(&to, 43, (uint8_t[]){4, 3, 4, 3, 3}, 5);                   // supported_versions
    uint8_t share[38] = {0, 36, 0, 29, 0, 32};
    memcpy(share + 6, filler, 32);
    put_extension(&to, 51, share, sizeof share);  // key_share
    if (to.count + 4 < HELLO_SIZE) put_extension(&to, 21, zeros, HELLO_SIZE - to.count - 4);
    close16(&to, extensions);
    close16(&to, handshake);
    close16(&to, record);
    return to.count;
}

int read_hello(const uint8_t *bytes, size_t count, struct request *request) {
    if (count < 5) return 0;
    size_t whole = 5 + ((size_t)bytes[3] << 8 | bytes[4]);
    if (bytes[0] != 22 || whole < SESSION_ID + SESSION_ID_SIZE || whole > HELLO_MAX) return -1;
    if (count < whole) return 0;
    if (memcmp(bytes + SESSION_ID, magic, 8) != 0) return -1;
    memcpy(&request->reply, bytes + SESSION_ID + 8, 8);
    request->stays = bytes[SESSION_ID + 16] != 0;
    return 1;
}
