#include "common/io/manpage.h"

#include <stdio.h>

#include <string.h>

void manpage_text(const char *text, struct buf *out)
{
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '\\')
            buf_puts(out, "\\e");
        else if (*at == '-')
            buf_puts(out, "\\-");
        else if ((*at == '.' || *at == '\'') && (at == text || at[-1] == '\n'))
            buf_printf(out, "\\&%c", *at);
        else
            buf_append(out, at, 1);
    }
}

/* Lines stay lines. */
static void section(const char *title, const char *text, struct buf *out)
{
    buf_printf(out, ".SH %s\n.nf\n", title);
    manpage_text(text, out);
    if (text[0] != '\0' && text[strlen(text) - 1] != '\n')
        buf_puts(out, "\n");
    buf_puts(out, ".fi\n");
}

static void option_entry(const struct config_option *option, struct buf *out)
{
    buf_puts(out, ".TP\n\\fB\\-\\-");
    manpage_text(option->key, out);
    buf_puts(out, "\\fR");
    if (option->type != CONFIG_BOOL) {
        buf_puts(out, " \\fI");
        manpage_text(option->metavar != NULL ? option->metavar : "VALUE", out);
        buf_puts(out, "\\fR");
    }
    buf_puts(out, "\n");
    manpage_text(option->help, out);
    if (option->value != NULL && option->value[0] != '\0' && (option->flags & CONFIG_SECRET) == 0) {
        buf_puts(out, "; default ");
        manpage_text(option->value, out);
    }
    buf_puts(out, "\n");
}

void manpage_write(const struct manpage *page, struct buf *out)
{
    struct buf name;

    buf_init(&name, 0);
    manpage_text(page->name, &name);
    buf_printf(out, ".TH \"%s\" 8 \"\" \"Sheaf %s\" \"System Administration\"\n.SH NAME\n%s \\- ",
               name.data, SHEAF_VERSION, name.data);
    buf_fini(&name);
    manpage_text(page->summary, out);
    buf_puts(out, "\n");
    section("SYNOPSIS", page->usage, out);
    section("DESCRIPTION", page->text, out);
    buf_puts(out, ".SH OPTIONS\n");
    manpage_text("An option is also a key of the YAML file and a variable of the environment "
                 "(--help names it). The option wins over the variable, that over the file.\n",
                 out);
    for (const struct config_option *option = page->options; option->key != NULL; option++)
        option_entry(option, out);
    section("FILES", page->files, out);
}

void manpage_print(const struct manpage *page)
{
    struct buf out;

    buf_init(&out, 0);
    manpage_write(page, &out);
    fputs(out.data, stdout);
    buf_fini(&out);
}
