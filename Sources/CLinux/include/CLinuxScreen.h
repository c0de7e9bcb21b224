#ifndef CLINUX_SCREEN_H
#define CLINUX_SCREEN_H

// Takes the terminal `descriptor` as a screen of our own: keys come one by one and are not shown, the other screen of the
// terminal is what is written to, without a cursor. It is as it was again after clinux_screen_leave(), and before any signal
// that ends or stops this process does so (not SIGKILL and SIGSTOP); a process that goes on has its screen again. A change of
// size interrupts system calls (EINTR), as going on does. One at a time. 0, or -1 and errno.
int clinux_screen_enter(int descriptor);

// Gives the terminal back. Does nothing when it is given back already.
void clinux_screen_leave(void);

// How many columns and rows the terminal has: 0, or -1 when it does not say.
int clinux_screen_size(int descriptor, int *columns, int *rows);

#endif
