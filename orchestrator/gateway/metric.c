#include "orchestrator/gateway/metric.h"

#include <inttypes.h>

void metric_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metric_value(struct buf *out, const char *name, const char *label, const char *value,
                  uint64_t number)
{
    buf_puts(out, name);
    if (label != NULL) {
        buf_printf(out, "{%s=\"", label);
        for (; *value != '\0'; value++) {
            if (*value == '\\' || *value == '"')
                buf_printf(out, "\\%c", *value);
            else if (*value == '\n')
                buf_puts(out, "\\n");
            else
                buf_append(out, value, 1);
        }
        buf_puts(out, "\"}");
    }
    buf_printf(out, " %" PRIu64 "\n", number);
}

void html_text(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&':
            buf_puts(out, "&amp;");
            break;
        case '<':
            buf_puts(out, "&lt;");
            break;
        case '>':
            buf_puts(out, "&gt;");
            break;
        case '"':
            buf_puts(out, "&quot;");
            break;
        case '\'':
            buf_puts(out, "&#39;");
            break;
        default:
            buf_append(out, text, 1);
            break;
        }
    }
}
