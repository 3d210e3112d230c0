// The process in a benchmark's cgroup: waits until the pipe on its stdin ends.
//
//   tenant MS
//
// MS > 0: every so many milliseconds it does a little (takes some memory, writes to it, gives it back), so that the
// numbers of its cgroup are other ones at each look. MS = 0: it sleeps.

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { TAKEN = 32 * 4096 };

int main(int argc, char **argv) {
    int pause = argc == 2 ? atoi(argv[1]) : 0;
    struct pollfd life_line = {.fd = 0, .events = 0};  // hang-up is always told
    for (;;) {
        int told = poll(&life_line, 1, pause > 0 ? pause : -1);
        if (told > 0 || (told < 0 && errno != EINTR)) return 0;
        void *taken = mmap(NULL, TAKEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (taken == MAP_FAILED) return 1;
        memset(taken, 1, TAKEN);
        munmap(taken, TAKEN);
    }
}
