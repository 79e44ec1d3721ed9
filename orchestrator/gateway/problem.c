#include "orchestrator/gateway/problem.h"

#include <string.h>

#include "common/io/json.h"
#include "common/pure/buf.h"
#include "common/pure/utf8.h"

int problem_status(enum err_code code)
{
    int status = err_info(code)->http_status;

    return status != 0 ? status : 500;
}

static json_t *shown(const char *text)
{
    struct buf out;

    buf_init(&out, 0);
    utf8_show(text, strlen(text), &out);
    json_t *value = json_stringn(out.length > 0 ? out.data : "", out.length);
    buf_fini(&out);
    return value;
}

char *problem_explain(enum err_code code)
{
    const struct err_info *info = err_info(code);
    struct buf text;

    buf_init(&text, 0);
    buf_printf(&text, "%s\n\n%s.\nNext step: %s.\n", info->slug, info->title, info->hint);
    if (info->http_status != 0)
        buf_printf(&text, "HTTP status: %d.\n", info->http_status);
    buf_printf(&text, "Who can change it: %s.\n%s\n",
               info->actor == ERR_ACTOR_NONE ? "nobody" : err_actor_name(info->actor),
               info->retryable ? "The same request may succeed later."
                               : "The same request will fail again.");
    return buf_take(&text);
}

char *problem_format(const struct err *err, const struct uuid *request)
{
    const struct err_info *info = err_info(err->code);
    char id[UUID_TEXT];
    json_t *problem = json_object();

    json_object_set_new(problem, "type", json_sprintf(PROBLEM_BASE "%s", info->slug));
    json_object_set_new(problem, "title", json_string(info->title));
    json_object_set_new(problem, "status", json_integer(problem_status(err->code)));
    json_object_set_new(problem, "detail", shown(err->text));
    json_object_set_new(problem, "instance", json_string(uuid_format(request, id)));
    json_object_set_new(problem, "code", json_string(info->slug));
    json_object_set_new(problem, "retryable", json_boolean(info->retryable));
    json_object_set_new(problem, "hint", json_string(info->hint));
    json_t *errors = json_array();
    if (err->pointer[0] != '\0') {
        json_t *one = json_object();
        json_object_set_new(one, "pointer", shown(err->pointer));
        json_object_set_new(one, "detail", shown(err->text));
        json_array_append_new(errors, one);
    }
    json_object_set_new(problem, "errors", errors);
    char *text = json_write(problem);
    json_decref(problem);
    return text;
}
