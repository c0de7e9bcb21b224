#define _GNU_SOURCE
#include "CLinuxScreen.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

// xterm's other screen (DECSET 1049), no cursor (DECRST 25), no wrapping (DECRST 7), as every terminal of today has them.
static const char enter_sequence[] = "\033[?1049h\033[?25l\033[?7l";
static const char leave_sequence[] = "\033[?7h\033[?25h\033[?1049l";

// What would end the process without asking. Handlers touch this and what is safe in them (signal-safety(7)), no more.
static const int endings[] = {
    SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGUSR1, SIGSEGV,
    SIGUSR2, SIGALRM, SIGTERM, SIGSTKFLT, SIGXCPU, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSYS,
};

static int screen = -1;
static struct termios before;
static volatile sig_atomic_t is_entered;

// A terminal that takes nothing for a second is not waited for.
static void say(const char *text, size_t length) {
    while (length > 0) {
        ssize_t count = write(screen, text, length);
        if (count > 0) {
            text += count;
            length -= (size_t)count;
        } else if (count < 0 && errno == EAGAIN) {
            struct pollfd room = {.fd = screen, .events = POLLOUT};
            if (poll(&room, 1, 1000) == 0) return;
        } else if (count == 0 || errno != EINTR) {
            return;
        }
    }
}

static int enter(void) {
    struct termios ours;
    if (tcgetattr(screen, &before) != 0) return -1;
    ours = before;
    // Signals by keys stay. Output is not to be stopped by a key: whoever stopped it could not leave.
    ours.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    ours.c_iflag &= ~(tcflag_t)(IXON);
    ours.c_cc[VMIN] = 1;
    ours.c_cc[VTIME] = 0;
    if (tcsetattr(screen, TCSANOW, &ours) != 0) return -1;
    is_entered = 1;
    say(enter_sequence, sizeof enter_sequence - 1);
    return 0;
}

void clinux_screen_leave(void) {
    if (!is_entered) return;
    is_entered = 0;
    int number = errno;
    say(leave_sequence, sizeof leave_sequence - 1);
    // From the background this would stop us: then the terminal is somebody else's to set.
    if (tcgetpgrp(screen) == getpgrp()) {
        // What was typed and not read is not for the shell.
        tcflush(screen, TCIFLUSH);
        tcsetattr(screen, TCSANOW, &before);
    }
    errno = number;
}

static void end(int number) {
    clinux_screen_leave();
    // As if we had never been told: it comes again when this returns, and does what it does by itself.
    signal(number, SIG_DFL);
    raise(number);
}

static void stop(int number) {
    int error = errno;
    struct sigaction ours, standard = {.sa_handler = SIG_DFL};
    sigset_t stopping, mask;
    clinux_screen_leave();
    sigaction(number, &standard, &ours);
    sigemptyset(&stopping);
    sigaddset(&stopping, number);
    raise(number);
    // Here it stops, and goes on.
    pthread_sigmask(SIG_UNBLOCK, &stopping, &mask);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    sigaction(number, &ours, NULL);
    enter();
    errno = error;
}

static void interrupt(int number) {
    (void)number;
}

// Without SA_RESTART: whoever waits is to look at the screen anew. What is ignored, as nohup(1) has it, stays ignored.
static void handle(int number, void (*handler)(int)) {
    struct sigaction action;
    if (sigaction(number, NULL, &action) != 0 || action.sa_handler == SIG_IGN) return;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigfillset(&action.sa_mask);
    // A process that goes on in the background is stopped when it takes the terminal.
    sigdelset(&action.sa_mask, SIGTTOU);
    sigaction(number, &action, NULL);
}

int clinux_screen_enter(int descriptor) {
    screen = descriptor;
    for (size_t index = 0; index < sizeof endings / sizeof *endings; index++) handle(endings[index], end);
    handle(SIGTSTP, stop);
    handle(SIGWINCH, interrupt);
    return enter();
}

int clinux_screen_size(int descriptor, int *columns, int *rows) {
    struct winsize size;
    if (ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return -1;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return 0;
}
