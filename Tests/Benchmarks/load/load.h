// The load generator: what offers work to a proxy or resolver, and what stands behind it. Nothing of Sandgate is in it,
// so that a change to what is measured cannot change what it is measured with; and it does as little as it can, since
// it shares the machine's cores with what it measures. Therefore C, and no real TLS: a valid ClientHello goes out, and
// opaque bytes come back.
#ifndef LOAD_H
#define LOAD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// hello.c: ClientHellos that carry, as their session id, what the server is to do.

// The longest hello that is written, and the room a reader needs.
enum { HELLO_MAX = 1024 };

// What a hello asks of the server.
struct request {
    uint64_t reply;  // how many bytes to send
    bool stays;      // whether the server then waits for the client to close
};

// Writes a ClientHello for `name` to `out`; its length.
size_t write_hello(uint8_t out[HELLO_MAX], const char *name, struct request request);

// Reads what begins with a hello. 1: whole, `*request` is set; 0: more bytes are needed; -1: not one of ours.
int read_hello(const uint8_t *bytes, size_t count, struct request *request);

// support.c

// Prints a message with errno's text to standard error, and ends the program.
_Noreturn void fail(const char *what);
// The monotonic clock in nanoseconds.
uint64_t now(void);
// An IPv4 address and port; ends the program where the text is neither.
struct sockaddr_in endpoint(const char *address, const char *port);
// Raises the limit of open files as far as it goes.
void raise_descriptor_limit(void);
// The `fraction` quantile of `count` values, which are sorted by it; 0 of none.
uint64_t quantile(uint64_t *values, size_t count, double fraction);

// The subcommands, each in the file of its name.

// Serves what hellos ask for on each ADDRESS PORT.
int serve(int count, char **arguments);
// Answers DNS: nameserver ADDRESS PORT [NAME=ADDRESS]…
int nameserver(int count, char **arguments);
// Reads commands from standard input, one a line, and answers each with one line of JSON.
int client(void);

// The client's commands that are more than a line.

// connections ADDRESS PORT NAME REPLY CONCURRENCY COUNT close|stay [via PROXY PORT]
void run_connections(int count, char **words);
// Closes what `stay` left open.
void release_connections(void);
// queries ADDRESS PORT TYPE PATTERN FIRST DISTINCT COUNT RATE WINDOW
void run_queries(int count, char **words);

#endif
