/* Calls that Rust makes only with `unsafe`: mappings, handles of files, ioctl.
 *
 *   probe mapped FILE OTHER TIMES    compares random stretches of a mapping of FILE with reads of OTHER
 *   probe ioctl FILE                 asks for what no file of a disk has: a terminal's settings
 *   probe save FILE                  reads paths that end with NUL, writes a record of each with its handle to FILE
 *   probe open MOUNT FILE            opens each of these handles: says how many are what they were, stale, or other
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define HANDLE_BYTES 128
#define HEAD_BYTES 64

struct record {
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + HANDLE_BYTES];
    } of;
    uint64_t ino;
    uint32_t mode;
    char head[HEAD_BYTES];
};

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static int mapped(const char *path, const char *other, long times)
{
    int file = open(path, O_RDONLY), reference = open(other, O_RDONLY);
    struct stat stat;
    if (file < 0 || reference < 0 || fstat(file, &stat))
        fail("open");
    char *shared = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED, file, 0);
    char *own = mmap(NULL, stat.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (shared == MAP_FAILED || own == MAP_FAILED)
        fail("mmap");
    uint64_t chance = 1;
    char expected[8192];
    for (long n = 0; n < times; n++) {
        chance = chance * 6364136223846793005u + 1442695040888963407u;
        off_t at = (chance >> 16) % stat.st_size;
        ssize_t got = pread(reference, expected, 1 + (chance >> 50) % sizeof expected, at);
        const char *seen = (n & 1 ? own : shared) + at;
        if (got <= 0 || memcmp(seen, expected, got)) {
            printf("differs at %lld\n", (long long)at);
            return 1;
        }
    }
    own[0]++;
    if (own[0] == shared[0])
        return 1;
    printf("same\n");
    return 0;
}

static int asked(const char *path)
{
    struct termios settings;
    int file = open(path, O_RDONLY);
    if (file < 0)
        fail("open");
    printf("%s\n", ioctl(file, TCGETS, &settings) ? strerror(errno) : "answered");
    return 0;
}

/* The first bytes of a regular file; opening anything else may have consequences. */
static void read_head(int file, struct record *record)
{
    memset(record->head, 0, HEAD_BYTES);
    if (S_ISREG(record->mode) && pread(file, record->head, HEAD_BYTES, 0) < 0)
        fail("read");
}

static int save(const char *to)
{
    FILE *out = fopen(to, "w");
    char *path = NULL;
    size_t room = 0;
    if (!out)
        fail(to);
    while (getdelim(&path, &room, 0, stdin) > 0) {
        struct record record;
        struct stat stat;
        int mount;
        memset(&record, 0, sizeof record);
        record.of.handle.handle_bytes = HANDLE_BYTES;
        if (name_to_handle_at(AT_FDCWD, path, &record.of.handle, &mount, 0) || lstat(path, &stat))
            fail(path);
        record.ino = stat.st_ino;
        record.mode = stat.st_mode;
        int file = S_ISREG(stat.st_mode) ? open(path, O_RDONLY) : -1;
        read_head(file, &record);
        close(file);
        fwrite(&record, sizeof record, 1, out);
    }
    return fclose(out);
}

static int is_same(int file, const struct record *record)
{
    struct record now = *record;
    struct stat stat;
    if (fstat(file, &stat) || stat.st_ino != record->ino || stat.st_mode != record->mode)
        return 0;
    read_head(file, &now);
    return !memcmp(now.head, record->head, HEAD_BYTES);
}

static int opened(const char *mount, const char *from)
{
    int root = open(mount, O_RDONLY | O_DIRECTORY);
    FILE *in = fopen(from, "r");
    struct record record;
    unsigned same = 0, stale = 0, other = 0;
    if (root < 0 || !in)
        fail("open");
    while (fread(&record, sizeof record, 1, in)) {
        int flags = S_ISREG(record.mode) ? O_RDONLY : O_PATH | O_NOFOLLOW;
        int file = open_by_handle_at(root, &record.of.handle, flags);
        if (file < 0 && errno == ESTALE)
            stale++;
        else if (file < 0 || !is_same(file, &record))
            other++;
        else
            same++;
        close(file);
    }
    printf("%u same, %u stale, %u other\n", same, stale, other);
    return 0;
}

int main(int count, char **words)
{
    if (count == 5 && !strcmp(words[1], "mapped"))
        return mapped(words[2], words[3], atol(words[4]));
    if (count == 3 && !strcmp(words[1], "ioctl"))
        return asked(words[2]);
    if (count == 3 && !strcmp(words[1], "save"))
        return save(words[2]);
    if (count == 4 && !strcmp(words[1], "open"))
        return opened(words[2], words[3]);
    return 2;
}
