#include "common/io/libexec.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Folder of the running program's file; false when it cannot be told. */
static bool own_folder(char out[FS_PATH])
{
    ssize_t length = readlink("/proc/self/exe", out, FS_PATH - 1);

    out[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(out, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    return true;
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
    } else if (own_folder(own)) {
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
