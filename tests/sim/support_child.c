#include "tests/sim/support_child.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void write_result(int fd, const struct sim_result *result)
{
    const char *bytes = (const char *)result;
    size_t done = 0;

    while (done < sizeof(*result)) {
        ssize_t rc = write(fd, bytes + done, sizeof(*result) - done);
        if (rc < 0)
            _exit(3);
        done += (size_t)rc;
    }
}

static bool read_result(int fd, struct sim_result *ret_result)
{
    char *bytes = (char *)ret_result;
    size_t done = 0;

    while (done < sizeof(*ret_result)) {
        ssize_t rc = read(fd, bytes + done, sizeof(*ret_result) - done);
        if (rc < 0 && errno == EINTR)
            continue;
        if (rc <= 0)
            return false;
        done += (size_t)rc;
    }
    return true;
}

bool child_run(const struct sim_options *options, struct sim_result *ret_result)
{
    int ends[2];
    int status = 0;
    pid_t pid;
    bool whole;

    if (pipe(ends) != 0 || (pid = fork()) < 0) {
        perror("fork");
        abort();
    }
    if (pid == 0) {
        struct sim_result result;
        close(ends[0]);
        sim_run(options, &result);
        write_result(ends[1], &result);
        _exit(0);
    }
    close(ends[1]);
    memset(ret_result, 0, sizeof(*ret_result));
    whole = read_result(ends[0], ret_result);
    close(ends[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (whole && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    memset(ret_result, 0, sizeof(*ret_result));
    ret_result->broken = true;
    snprintf(ret_result->rule, sizeof(ret_result->rule), "the run aborted: %s",
             WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "see above");
    return false;
}
