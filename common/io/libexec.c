#include "common/io/libexec.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int libexec_own(char ret_folder[FS_PATH], struct err *err)
{
    char path[FS_PATH];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

    path[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (slash == NULL)
        return err_set(err, ERR_UNSUPPORTED_HERE, "/proc/self/exe does not say where we are");
    *slash = '\0';
    memcpy(ret_folder, path, sizeof(path));
    return 0;
}

/* NULL, or the first program that is not in the folder. */
static const char *first_missing(const char *const *programs, const char *folder)
{
    char path[FS_PATH];

    for (; *programs != NULL; programs++) {
        if (fs_path(path, "%s/%s", folder, *programs) != 0 || access(path, X_OK) != 0)
            return *programs;
    }
    return NULL;
}

int libexec_find(const char *const *programs, char ret_folder[FS_PATH], struct err *err)
{
    const char *forced = getenv("SHEAF_LIBEXEC");
    const char *missing = programs[0];
    char own[FS_PATH] = "";
    char folder[FS_PATH];

    if (forced != NULL) {
        if (fs_path(folder, "%s", forced) == 0)
            missing = first_missing(programs, folder);
    } else if (libexec_own(own, NULL) == 0) {
        memcpy(folder, own, sizeof(folder));
        missing = first_missing(programs, folder);
        if (missing != NULL && fs_path(folder, "%s/../libexec/sheaf", own) == 0)
            missing = first_missing(programs, folder);
    }
    if (missing != NULL)
        return err_set(err, ERR_UNSUPPORTED_HERE, "%s is not in %.200s; set SHEAF_LIBEXEC", missing,
                       forced != NULL ? forced : own);
    memcpy(ret_folder, folder, FS_PATH);
    return 0;
}
