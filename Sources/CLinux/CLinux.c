#include "CLinux.h"

int clinux_epoll_ctl(int epoll, int operation, int descriptor, uint32_t events, uint64_t datum) {
    struct epoll_event event = {.events = events, .data.u64 = datum};
    return epoll_ctl(epoll, operation, descriptor, &event);
}
