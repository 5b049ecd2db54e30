/* A disk that loses what one flush was to bring to it, as Linux treats it: the flush fails once, the pages
 * count as clean from then on, whoever reads sees them, and only a machine that starts anew shows that they
 * were never there.
 *
 * Preloaded into a server. What has really come to "disk" of gatepost.db and gatepost.db-wal in the folder
 * SICK_FOLDER is kept in SICK_DISK: whole pages of 4096 bytes, each as it was at the last good flush after
 * it was written. Flush number SICK_NUMBER of the file whose name ends in SICK_FILE fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 1 << 16, FILES = 2 };
static const char *const names[FILES] = {"gatepost.db", "gatepost.db-wal"};
static unsigned char dirty[FILES][PAGES];
static long flushes[FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int file_of_path(const char *path) {
    const char *folder = getenv("SICK_FOLDER");
    size_t length = folder ? strlen(folder) : 0;
    if (!length || strncmp(path, folder, length) != 0 || path[length] != '/') return -1;
    for (int file = 0; file < FILES; file++)
        if (strcmp(path + length + 1, names[file]) == 0) return file;
    return -1;
}

static int file_of(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return -1;
    path[length] = 0;
    return file_of_path(path);
}

static void disk_path(int file, char *path) {
    snprintf(path, PATH_MAX, "%s/%s", getenv("SICK_DISK"), names[file]);
}

static ssize_t writes(int fd, const void *bytes, size_t count, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = REAL(pwrite);
    int file = file_of(fd);
    if (file < 0) return real(fd, bytes, count, at);
    pthread_mutex_lock(&lock);
    ssize_t written = real(fd, bytes, count, at);
    int error = errno;
    for (off_t page = at / PAGE; written > 0 && page * PAGE < at + written; page++) {
        if (page >= PAGES) abort();
        dirty[file][page] = 1;
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return writes(fd, bytes, count, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) { return writes(fd, bytes, count, at); }

ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = REAL(write);
    if (file_of(fd) < 0) return real(fd, bytes, count);
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t written = writes(fd, bytes, count, at);
    if (written > 0) lseek(fd, at + written, SEEK_SET);
    return written;
}

static int flush(int fd, int (*real)(int)) {
    int file = file_of(fd);
    if (file < 0) return real(fd);
    pthread_mutex_lock(&lock);
    const char *number = getenv("SICK_NUMBER"), *sick = getenv("SICK_FILE");
    flushes[file]++;
    if (number && sick && strcmp(names[file], sick) == 0 && flushes[file] == atol(number)) {
        memset(dirty[file], 0, PAGES);
        pthread_mutex_unlock(&lock);
        errno = EIO;
        return -1;
    }
    char path[PATH_MAX], page[PAGE];
    struct stat now;
    disk_path(file, path);
    int disk = open(path, O_RDWR | O_CREAT, 0600), live = dup(fd);
    if (disk < 0 || live < 0 || fstat(live, &now) || ftruncate(disk, now.st_size)) abort();
    for (off_t at = 0; at < PAGES; at++) {
        if (!dirty[file][at]) continue;
        dirty[file][at] = 0;
        ssize_t length = pread(live, page, PAGE, at * PAGE);
        if (length > 0 && REAL(pwrite)(disk, page, length, at * PAGE) != length) abort();
    }
    close(live);
    close(disk);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return flush(fd, REAL(fsync)); }
int fdatasync(int fd) { return flush(fd, REAL(fdatasync)); }

int unlink(const char *path) {
    int file = file_of_path(path), answer = REAL(unlink)(path);
    if (file >= 0 && answer == 0) {
        char disk[PATH_MAX];
        disk_path(file, disk);
        pthread_mutex_lock(&lock);
        memset(dirty[file], 0, PAGES);
        REAL(unlink)(disk);
        pthread_mutex_unlock(&lock);
    }
    return answer;
}
