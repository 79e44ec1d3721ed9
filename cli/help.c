#include "cli/command.h"

#include <ctype.h>
#include <string.h>

#include "common/io/manpage.h"
#include "common/io/spec_json.h"

static const char first[] =
    "Sheaf runs multi-GPU jobs on clusters of other people's machines, picked by measured "
    "latency.\n"
    "\n"
    "  sheaf login URL --fingerprint FP       trust a server and store your token\n"
    "  sheaf offer --gpu 24GB:2 --nodes 4     what could run now, and its price\n"
    "  sheaf run --nodes 4 --gpu 24GB:2 -- python train.py\n"
    "  sheaf apply -f job.yaml                submit a job file (sheaf init writes one)\n"
    "\n"
    "Then: ps, show, why, logs -f, events, wait, get, cost, cancel.\n"
    "All commands: sheaf help        One command: sheaf help COMMAND\n";

void help_first(struct buf *out)
{
    buf_puts(out, first);
}

void help_all(struct buf *out)
{
    const char *group = "";

    buf_puts(out, "usage: sheaf [-o FORMAT] [--context NAME] COMMAND …\n");
    for (const struct command *c = commands; c->name != NULL; c++) {
        if (strcmp(c->group, group) != 0) {
            group = c->group;
            buf_printf(out, "\n%s\n", group);
        }
        buf_printf(out, "  %-22s %s\n", c->name, c->summary);
    }
    buf_puts(out,
             "\nEvery command: -o table|wide|json|yaml|jsonl|name, --context, --project, --yes,\n"
             "--color, --no-headers, --help. Exit codes: 0 ok, 1 job failed, 2 usage,\n"
             "3 not found, 4 auth, 5 refused, 6 no capacity, 7 funds, 8 timeout,\n"
             "9 unreachable, 130 interrupted.\n");
}

static void option_left(const struct option_row *row, struct buf *out)
{
    if (row->letter != 0)
        buf_printf(out, "-%c, ", row->letter);
    buf_printf(out, "--%s%s%s", row->name, row->metavar ? " " : "",
               row->metavar ? row->metavar : "");
}

void help_command(const struct command *command, struct buf *out)
{
    buf_printf(out, "usage: sheaf %s %s\n\n%s.\n", command->name, command->usage, command->summary);
    if (command->detail != NULL)
        buf_printf(out, "\n%s\n", command->detail);
    for (int i = 0; i < OPTION_MAX && command->options[i].name != NULL; i++) {
        struct buf left;
        buf_init(&left, 0);
        option_left(&command->options[i], &left);
        buf_printf(out, "%s  %-24s %s\n", i == 0 ? "\n" : "", left.data, command->options[i].help);
        buf_fini(&left);
    }
}

static void man_command(const struct command *c, struct buf *out)
{
    buf_printf(out, ".SS \"sheaf %s ", c->name);
    manpage_text(c->usage, out);
    buf_puts(out, "\"\n");
    manpage_text(c->summary, out);
    buf_puts(out, ".\n");
    if (c->detail != NULL) {
        buf_puts(out, ".PP\n");
        manpage_text(c->detail, out);
        buf_puts(out, "\n");
    }
    for (int i = 0; i < OPTION_MAX && c->options[i].name != NULL; i++) {
        struct buf left;
        buf_init(&left, 0);
        option_left(&c->options[i], &left);
        buf_puts(out, ".TP\n\\fB");
        manpage_text(left.data, out);
        buf_puts(out, "\\fR\n");
        manpage_text(c->options[i].help, out);
        buf_puts(out, "\n");
        buf_fini(&left);
    }
}

void help_man(struct buf *out)
{
    buf_puts(out, ".TH SHEAF 1 \"\" \"Sheaf " SHEAF_VERSION "\" \"User Commands\"\n"
                  ".SH NAME\nsheaf \\- run multi\\-GPU jobs on pooled hardware\n"
                  ".SH SYNOPSIS\n.B sheaf\n[\\fIoptions\\fR] \\fIcommand\\fR …\n"
                  ".SH DESCRIPTION\n");
    manpage_text(first, out);
    buf_puts(out, ".SH COMMANDS\n");
    for (const struct command *c = commands; c->name != NULL; c++)
        man_command(c, out);
    buf_puts(out, ".SH JOB FILE\n.nf\n");
    manpage_text(spec_reference(), out);
    buf_puts(out,
             ".fi\n.SH EXIT STATUS\n0 ok, 1 the job failed, 2 usage, 3 not found, 4 auth, 5 "
             "refused, 6 no capacity, 7 funds, 8 timeout, 9 unreachable, 130 interrupted.\n"
             ".SH ENVIRONMENT\n.TP\nSHEAF_URL, SHEAF_TOKEN, SHEAF_CA\nserver, token and CA file "
             "instead of a context.\n.TP\nNO_COLOR, CLICOLOR_FORCE\ncolour off, on.\n"
             ".SH FILES\n$XDG_CONFIG_HOME/sheaf/contexts.json\n");
}

/*
 * Bash: the table as lines "verb|kind|options"; the next word of every verb that begins with the
 * words so far, or the options and ids of the verb that they name. Ids are asked by -o name.
 */
void help_completion_bash(struct buf *out)
{
    buf_puts(out, "# bash completion of sheaf: eval \"$(sheaf completion bash)\"\n"
                  "_sheaf_table='");
    for (const struct command *c = commands; c->name != NULL; c++) {
        buf_printf(out, "%s|%s|", c->name, c->complete ? c->complete : "");
        for (int i = 0; i < OPTION_MAX && c->options[i].name != NULL; i++)
            buf_printf(out, " --%s", c->options[i].name);
        buf_puts(out, "\n");
    }
    buf_puts(
        out,
        "'\n"
        "_sheaf() {\n"
        "    local cur=${COMP_WORDS[COMP_CWORD]} i line words=\"\" next=\"\" kind=\"\" verb=\"\"\n"
        "    local options=\"--output --context --project --yes --color --no-headers --help\"\n"
        "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
        "        case ${COMP_WORDS[i]} in -*) ;; *) words+=\"${COMP_WORDS[i]} \" ;; esac\n"
        "    done\n"
        "    while IFS='|' read -r name what opts; do\n"
        "        [ -n \"$name\" ] || continue\n"
        "        case \"$words\" in \"$name \"*) verb=$name; kind=$what; options+=$opts ;; esac\n"
        "        case \"$name \" in \"$words\"*) line=${name#\"$words\"}; next+=\" ${line%% *}\" "
        ";; "
        "esac\n"
        "    done <<<\"$_sheaf_table\"\n"
        "    case $cur in -*) COMPREPLY=($(compgen -W \"$options\" -- \"$cur\")); return ;; esac\n"
        "    if [ -z \"$verb\" ]; then\n"
        "        COMPREPLY=($(compgen -W \"$next\" -- \"$cur\"))\n"
        "        return\n"
        "    fi\n"
        "    case $kind in\n"
        "    job) next=$(sheaf ps --all -o name 2>/dev/null) ;;\n"
        "    node) next=$(sheaf node ls -o name 2>/dev/null) ;;\n"
        "    *) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
        "    esac\n"
        "    COMPREPLY=($(compgen -W \"$next\" -- \"$cur\"))\n"
        "}\n"
        "complete -F _sheaf sheaf\n");
}
