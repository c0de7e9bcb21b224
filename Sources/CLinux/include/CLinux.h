// Linux system calls and constants that Swift's importer cannot reach:
// function-like macros, variadic functions and headers that Glibc's module map leaves out.
// Nothing here decides anything.
#ifndef CLINUX_H
#define CLINUX_H

#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/types.h>

// epoll_ctl with the 64-bit user datum; struct epoll_event is packed and its union is awkward in Swift.
int clinux_epoll_ctl(int epoll, int operation, int descriptor, uint32_t events, uint64_t datum);

// The user datum of a returned event.
static inline uint64_t clinux_event_datum(const struct epoll_event *event) { return event->data.u64; }

#endif
