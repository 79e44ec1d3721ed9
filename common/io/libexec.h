#ifndef SHEAF_COMMON_IO_LIBEXEC_H
#define SHEAF_COMMON_IO_LIBEXEC_H

/*
 * Where our helper programs are: beside the running program in a build folder, in ../libexec/sheaf
 * from it once installed. $SHEAF_LIBEXEC names another folder and then the only one.
 */
#include "common/io/fs.h"
#include "common/pure/err.h"

/* Folder of the running program's file. ERR_UNSUPPORTED_HERE. */
int libexec_own(char ret_folder[FS_PATH], struct err *err) SHEAF_MUST_USE;
/* The first folder with all these programs (the list ends with NULL). ERR_UNSUPPORTED_HERE. */
int libexec_find(const char *const *programs, char ret_folder[FS_PATH],
                 struct err *err) SHEAF_MUST_USE;

#endif
