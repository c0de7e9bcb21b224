#include "load.h"

#include <stdio.h>
#include <string.h>

int main(int count, char **arguments) {
    const char *command = count > 1 ? arguments[1] : "";
    if (strcmp(command, "client") == 0) return client();
    if (strcmp(command, "serve") == 0) return serve(count - 2, arguments + 2);
    if (strcmp(command, "nameserver") == 0) return nameserver(count - 2, arguments + 2);
    fputs("load client | serve [ADDRESS PORT]… | nameserver ADDRESS PORT [NAME=ADDRESS]…\n", stderr);
    return 2;
}
