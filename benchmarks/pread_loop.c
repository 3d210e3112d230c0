// The floor: what the kernel charges for the files that the agent reads, and nothing else.
//
//   pread_loop LIST FILES SECONDS SLICES
//
// LIST names the files, one path a line, FILES of them per container, container after container. All are opened once.
// A round preads every file once. SLICES > 0: a round takes a second, in that many slices of it, evenly
// apart; SLICES = 0: round after round without a pause. Two rounds go before the measurement. Ends after SECONDS
// and prints one JSON object: rounds, reads, bytes, and the user and system time of the measured rounds (getrusage(2)).

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { WARM_UP_ROUNDS = 2, BUFFER = 65536 };
static const long NS = 1000000000L;

static int *fds;
static size_t count, files;
static unsigned long long reads, bytes;

static void die(const char *what) {
    fprintf(stderr, "pread_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void open_all(const char *list) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    FILE *paths = fopen(list, "r");
    if (!paths) die(list);
    char path[4096];
    size_t room = 0;
    while (fgets(path, sizeof path, paths)) {
        path[strcspn(path, "\n")] = 0;
        if (count == room) {
            room = room ? room * 2 : 1024;
            fds = realloc(fds, room * sizeof *fds);
            if (!fds) die("memory");
        }
        fds[count] = open(path, O_RDONLY | O_CLOEXEC);
        if (fds[count] < 0) die(path);
        count++;
    }
    fclose(paths);
}

static void read_containers(size_t from, size_t to) {
    static char buffer[BUFFER];
    for (size_t i = from * files; i < to * files; i++) {
        ssize_t got = pread(fds[i], buffer, sizeof buffer, 0);
        if (got < 0) die("pread");
        reads++;
        bytes += (unsigned long long)got;
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double idle_seconds(void) {
    FILE *told = fopen("/proc/stat", "r");  // first line: user, nice, system, idle, iowait of all processors, in ticks (proc(5))
    unsigned long long idle, iowait;
    if (!told || fscanf(told, "cpu %*u %*u %*u %llu %llu", &idle, &iowait) != 2) die("/proc/stat");
    fclose(told);
    return (double)(idle + iowait) / (double)sysconf(_SC_CLK_TCK);
}

static void round_of(size_t containers, long slices, struct timespec *due) {
    if (slices == 0) {
        read_containers(0, containers);
        return;
    }
    for (long slice = 0; slice < slices; slice++) {
        read_containers(containers * (size_t)slice / (size_t)slices, containers * (size_t)(slice + 1) / (size_t)slices);
        due->tv_nsec += NS / slices;
        if (due->tv_nsec >= NS) due->tv_nsec -= NS, due->tv_sec++;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, due, NULL) == EINTR) {}
    }
}

static double seconds_of(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: pread_loop LIST FILES SECONDS SLICES\n");
        return 2;
    }
    files = (size_t)atol(argv[2]);
    double length = atof(argv[3]);
    long slices = atol(argv[4]);
    open_all(argv[1]);
    if (!files || !count || count % files || slices < 0 || length <= 0) {
        errno = EINVAL;
        die("arguments");
    }
    size_t containers = count / files;
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (int i = 0; i < WARM_UP_ROUNDS; i++) round_of(containers, slices, &due);

    struct rusage before, after;
    unsigned long rounds = 0;
    reads = bytes = 0;
    getrusage(RUSAGE_SELF, &before);
    double began = now(), end = began + length, idle = idle_seconds();
    do {
        round_of(containers, slices, &due);
        rounds++;
    } while (now() < end - 0.01);  // a round ends on the second: do not begin one more for a rounding error
    getrusage(RUSAGE_SELF, &after);
    double not_idle = (now() - began) * (double)sysconf(_SC_NPROCESSORS_ONLN) - (idle_seconds() - idle);
    printf("{\"rounds\": %lu, \"reads\": %llu, \"bytes\": %llu, ", rounds, reads, bytes);
    printf("\"user_seconds\": %.6f, \"system_seconds\": %.6f, ", seconds_of(after.ru_utime) - seconds_of(before.ru_utime),
           seconds_of(after.ru_stime) - seconds_of(before.ru_stime));
    printf("\"not_idle_seconds\": %.6f}\n", not_idle);
    return 0;
}
