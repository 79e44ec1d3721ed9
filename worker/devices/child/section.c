#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/pure/buf.h"
#include "worker/devices/child/child.h"
#include "worker/devices/document.h"

/* Never returns: destructors of drivers are where many of them crash. */
static _Noreturn void section_child(void (*list)(struct host_info *), int out)
{
    struct host_info *part = calloc(1, sizeof(*part));
    json_t *document;
    char *text;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (part == NULL)
        _exit(1);
    list(part);
    document = document_from_host(part);
    text = json_dumps(document, JSON_COMPACT);
    if (text == NULL)
        _exit(1);
    for (size_t done = 0, length = strlen(text); done < length;) {
        ssize_t n = write(out, text + done, length - done);
        if (n < 0 && errno != EINTR)
            _exit(1);
        done += n > 0 ? (size_t)n : 0;
    }
    _exit(0);
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until end of file. False at the deadline or beyond DOCUMENT_MAX_BYTES. */
static bool read_all(int fd, struct buf *text)
{
    int64_t deadline = now_ms() + SECTION_DEADLINE_MS;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    char piece[4096];

    for (;;) {
        int64_t left = deadline - now_ms();
        ssize_t n;

        if (left <= 0 || poll(&wait, 1, (int)left) == 0)
            return false;
        n = read(fd, piece, sizeof(piece));
        if (n == 0)
            return !text->full;
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            buf_append(text, piece, (size_t)n);
        if (text->full)
            return false;
    }
}

static void section_adopt(const char *name, const struct buf *text, struct host_info *ret_part)
{
    json_error_t at;
    json_t *document = json_loadb(text->data, text->length, JSON_REJECT_DUPLICATES, &at);
    struct err err;

    if (document == NULL || document_to_host(document, ret_part, &err) != 0)
        host_warn(ret_part, "%s: the list of devices cannot be read", name);
    json_decref(document);
}

void section_run(const char *name, void (*list)(struct host_info *), struct host_info *ret_part)
{
    struct buf text;
    int ends[2];
    int status = 0;
    bool whole;
    pid_t pid;

    memset(ret_part, 0, sizeof(*ret_part));
    if (pipe(ends) != 0) {
        host_warn(ret_part, "%s: no pipe: %s", name, strerror(errno));
        return;
    }
    pid = fork();
    if (pid < 0) {
        host_warn(ret_part, "%s: no process: %s", name, strerror(errno));
        close(ends[0]);
        close(ends[1]);
        return;
    }
    if (pid == 0) {
        close(ends[0]);
        section_child(list, ends[1]);
    }
    close(ends[1]);
    buf_init(&text, DOCUMENT_MAX_BYTES);
    whole = read_all(ends[0], &text);
    close(ends[0]);
    if (!whole)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!whole)
        host_warn(ret_part, "%s: the driver does not answer", name);
    else if (WIFSIGNALED(status))
        host_warn(ret_part, "%s: the driver crashed (signal %d)", name, WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0 || text.length == 0)
        host_warn(ret_part, "%s: the driver ended the process", name);
    else
        section_adopt(name, &text, ret_part);
    buf_fini(&text);
}
