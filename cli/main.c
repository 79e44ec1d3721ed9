/* sheaf: the command line for tenants, providers and operators. */
#include <signal.h>
#include <stdio.h>

#include "cli/command.h"
#include "cli/term.h"
#include "common/io/fs.h"
#include "common/io/process.h"

int main(int argc, char **argv)
{
    struct args args;
    struct err err;

    fs_guard_streams();
    process_keep_secrets();
    signal(SIGPIPE, SIG_IGN);
    if (command_parse(argc, argv, &args, &err) < 0)
        return command_fail(&err);
    if (args.command == NULL) {
        struct buf text;
        buf_init(&text, 0);
        help_first(&text);
        fputs(text.data, stdout);
        buf_fini(&text);
        args_fini(&args);
        return EXIT_OK;
    }
    int code = args.command->run(&args);
    args_fini(&args);
    return term_finish(code);
}
