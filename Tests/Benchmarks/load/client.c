#include "load.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

// Looks `name` up as every program does, so that its address is known to who enforces.
static void resolve(const char *name) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(name, NULL, &hints, &found);
    if (error != 0) {
        printf("{\"error\": \"cannot resolve %s: %s\"}\n", name, gai_strerror(error));
        return;
    }
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof text);
    freeaddrinfo(found);
    printf("{\"address\": \"%s\"}\n", text);
}

static void obey(char *line) {
    char *words[16];
    int count = 0;
    for (char *word = strtok(line, " \n"); word != NULL && count < 16; word = strtok(NULL, " \n"))
        words[count++] = word;
    if (count == 0) return;
    if (strcmp(words[0], "connections") == 0) {
        run_connections(count, words);
    } else if (strcmp(words[0], "queries") == 0) {
        run_queries(count, words);
    } else if (strcmp(words[0], "release") == 0) {
        release_connections();
    } else if (strcmp(words[0], "resolve") == 0 && count == 2) {
        resolve(words[1]);
    } else {
        puts("{\"error\": \"unknown command\"}");
    }
}

int client(void) {
    char line[1024];
    raise_descriptor_limit();
    puts("{\"ready\": true}");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        obey(line);
        fflush(stdout);
    }
    return 0;
}
