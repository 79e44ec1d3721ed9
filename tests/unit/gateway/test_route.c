#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/io/json.h"
#include "orchestrator/gateway/describe.h"
#include "orchestrator/gateway/metric.h"
#include "orchestrator/gateway/problem.h"
#include "orchestrator/gateway/route.h"

static void params_free(char *params[HTTP_MAX_PARAMS])
{
    for (int i = 0; i < HTTP_MAX_PARAMS; i++) {
        free(params[i]);
        params[i] = NULL;
    }
}

static void test_paths_match_whole_segments(void **state)
{
    static const struct {
        const char *method;
        const char *path;
        const char *pattern; /* NULL = no row */
        const char *param[2];
    } rows[] = {
        {"GET", "/", "/", {NULL}},
        {"GET", "/healthz", "/healthz", {NULL}},
        {"GET", "/healthz/", NULL, {NULL}},
        {"GET", "/api/v1/jobs", "/api/v1/jobs", {NULL}},
        {"GET", "/api/v1/jobs/", NULL, {NULL}},
        {"GET", "/api/v1/job", NULL, {NULL}},
        {"GET", "/api/v1/jobsx", NULL, {NULL}},
        {"GET", "/api/v1/jobs/x", "/api/v1/jobs/{id}", {"x"}},
        {"GET", "/api/v1/jobs/x/logs", "/api/v1/jobs/{id}/logs", {"x"}},
        {"GET", "/api/v1/jobs/x/outputs/3", "/api/v1/jobs/{id}/outputs/{rank}", {"x", "3"}},
        {"PUT", "/api/v1/uploads/ab/parts/7", "/api/v1/uploads/{sha256}/parts/{n}", {"ab", "7"}},
        {"PUT", "/api/v1/uploads/ab/parts", NULL, {NULL}},
        {"GET", "/api/v1/jobs/x/logs/y", NULL, {NULL}},
        {"GET", "", NULL, {NULL}},
        {"DELETE", "/api/v1/tokens/x", "/api/v1/tokens/{id}", {"x"}},
    };
    char *params[HTTP_MAX_PARAMS] = {NULL};
    char allow[64];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct route *route =
            route_match(gateway_routes, rows[i].method, rows[i].path, params, allow);
        if (rows[i].pattern == NULL) {
            assert_null(route);
            assert_string_equal(allow, "");
            continue;
        }
        assert_non_null(route);
        assert_string_equal(route->pattern, rows[i].pattern);
        for (int p = 0; p < 2 && rows[i].param[p] != NULL; p++)
            assert_string_equal(params[p], rows[i].param[p]);
        params_free(params);
    }
}

static void test_a_known_path_names_its_methods(void **state)
{
    char *params[HTTP_MAX_PARAMS] = {NULL};
    char allow[64];

    (void)state;
    assert_null(route_match(gateway_routes, "DELETE", "/api/v1/jobs", params, allow));
    assert_string_equal(allow, "POST, GET, HEAD");
    assert_null(route_match(gateway_routes, "POST", "/healthz", params, allow));
    assert_string_equal(allow, "GET, HEAD");
}

static void test_every_row_is_reachable_and_whole(void **state)
{
    char *params[HTTP_MAX_PARAMS] = {NULL};
    char allow[64];

    (void)state;
    for (const struct route *row = gateway_routes; row->method != NULL; row++) {
        /* Its own pattern is a path that matches it: no earlier row hides it. */
        assert_ptr_equal(route_match(gateway_routes, row->method, row->pattern, params, allow),
                         row);
        params_free(params);
        assert_non_null(row->handle);
        /* What changes something is never public, but joining with its own secret. */
        if (strcmp(row->method, "GET") != 0 && strcmp(row->pattern, "/api/v1/join") != 0)
            assert_int_not_equal(row->scope, 0);
        if (row->fill == NULL)
            assert_int_equal(row->flags & ROUTE_KEYED, 0);
    }
}

static void test_jobs_and_deposits_need_an_idempotency_key(void **state)
{
    static const char *const keyed[] = {"/api/v1/jobs", "/api/v1/deposits"};

    (void)state;
    for (const struct route *row = gateway_routes; row->method != NULL; row++) {
        bool wanted =
            strcmp(row->method, "POST") == 0
            && (strcmp(row->pattern, keyed[0]) == 0 || strcmp(row->pattern, keyed[1]) == 0);
        assert_int_equal((row->flags & ROUTE_KEYED) != 0, wanted);
    }
}

static json_t *description(void)
{
    struct err err = {0};
    char *text = NULL;

    if (describe_json(&text, &err) != 0)
        fail_msg("proto/gateway.yaml: %s", err.text);
    json_t *value = json_loads(text, 0, NULL);
    free(text);
    assert_non_null(value);
    return value;
}

static void lower(const char *method, char out[16])
{
    size_t i = 0;

    for (; i < 15 && method[i] != '\0'; i++)
        out[i] = (char)(method[i] + 32);
    out[i] = '\0';
}

static void test_the_description_has_exactly_the_routes_of_the_table(void **state)
{
    json_t *api = description();
    json_t *paths = json_object_get(api, "paths");
    size_t described = 0;
    size_t served = 0;
    const char *path;
    json_t *item;
    char method[16];

    (void)state;
    for (const struct route *row = gateway_routes; row->method != NULL; row++) {
        lower(row->method, method);
        if (json_object_get(json_object_get(paths, row->pattern), method) == NULL)
            fail_msg("%s %s is not described", row->method, row->pattern);
        served++;
    }
    json_object_foreach(paths, path, item)
    {
        described += json_object_size(item);
    }
    assert_int_equal(described, served);
    json_decref(api);
}

/* What a person reads in the description is what the table asks for. */
static void test_the_description_says_who_may(void **state)
{
    json_t *api = description();
    char method[16];
    char needs[64];

    (void)state;
    for (const struct route *row = gateway_routes; row->method != NULL; row++) {
        lower(row->method, method);
        json_t *operation =
            json_object_get(json_object_get(json_object_get(api, "paths"), row->pattern), method);
        snprintf(needs, sizeof(needs), "Needs: %s", route_scope_name(row));
        assert_string_equal(json_text(operation, "x-scope"), route_scope_name(row));
        assert_string_equal(json_text(operation, "x-owner"), route_owner_name(row->owner));
        if (row->scope != 0 || (row->flags & ROUTE_SECRET) != 0)
            assert_string_equal(json_text(operation, "description"), needs);
        else
            assert_int_equal(json_array_size(json_object_get(operation, "security")), 0);
        assert_int_equal(json_object_get(operation, "security") != NULL,
                         row->scope == 0 && (row->flags & ROUTE_SECRET) == 0);
        /* Who must say whose it is, needs a token to say it with. */
        if (row->owner != OWNER_POOL)
            assert_int_not_equal(row->scope, 0);
    }
    json_decref(api);
}

static void check_refs(json_t *api, json_t *value)
{
    const char *key;
    json_t *item;
    size_t i;

    if (json_is_array(value)) {
        json_array_foreach(value, i, item)
        {
            check_refs(api, item);
        }
    }
    if (!json_is_object(value))
        return;
    json_object_foreach(value, key, item)
    {
        if (strcmp(key, "$ref") != 0) {
            check_refs(api, item);
            continue;
        }
        char name[64];
        char kind[32];
        assert_int_equal(sscanf(json_string_value(item), "#/components/%31[a-z]/%63s", kind, name),
                         2);
        if (json_object_get(json_object_get(json_object_get(api, "components"), kind), name)
            == NULL)
            fail_msg("%s is not there", json_string_value(item));
    }
}

static void test_every_reference_of_the_description_resolves(void **state)
{
    json_t *api = description();

    (void)state;
    check_refs(api, api);
    json_decref(api);
}

/* The schema's list has each code of the table once and no other. */
static void check_codes(const json_t *problem, const char *field, const char *prefix)
{
    json_t *list =
        json_object_get(json_object_get(json_object_get(problem, "properties"), field), "enum");
    const struct err_info *row;
    char wanted[96];
    size_t i = 0;

    for (; (row = err_row(i)) != NULL; i++) {
        snprintf(wanted, sizeof(wanted), "%s%s", prefix, row->slug);
        assert_string_equal(json_string_value(json_array_get(list, i)), wanted);
    }
    assert_int_equal(json_array_size(list), i);
}

/* What the operation answers with this status as a problem; NULL when it is not described. */
static const json_t *problem_of(json_t *api, const json_t *operation, int status)
{
    char key[16];
    char name[64];

    snprintf(key, sizeof(key), "%d", status);
    const json_t *response = json_object_get(json_object_get(operation, "responses"), key);
    const char *ref = json_text(response, "$ref");
    if (ref == NULL)
        return NULL;
    assert_int_equal(sscanf(ref, "#/components/responses/%63s", name), 1);
    response =
        json_object_get(json_object_get(json_object_get(api, "components"), "responses"), name);
    const json_t *parts = json_object_get(
        json_object_get(json_object_get(json_object_get(response, "content"), PROBLEM_TYPE),
                        "schema"),
        "allOf");
    return json_object_get(json_array_get(parts, 1), "properties");
}

static void check_refusals(json_t *api, const struct route *row, const json_t *operation)
{
    const bool reads = strcmp(row->method, "GET") == 0;
    const bool has_body = strcmp(row->method, "POST") == 0 || strcmp(row->method, "PUT") == 0;
    const struct {
        int status;
        bool wanted;
        bool optional;
    } rules[] = {
        {400, true, false},
        {401, row->scope != 0, row->scope == 0}, /* joining has a secret of its own */
        {402, false, (row->flags & ROUTE_KEYED) != 0},
        {403, row->scope != 0 && row->scope != ROUTE_ANY_TOKEN, false},
        {404, strchr(row->pattern, '{') != NULL, has_body},
        {405, false, false}, /* the method of an operation is always allowed */
        {409, !reads, false},
        {413, has_body, false},
        {415, has_body, false},
        {422, has_body, false},
        {429, true, false},
        {500, true, false},
        {503, true, false},
    };

    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const json_t *problem = problem_of(api, operation, rules[i].status);
        if ((problem != NULL) != rules[i].wanted && !rules[i].optional)
            fail_msg("%s %s: %d is %s", row->method, row->pattern, rules[i].status,
                     problem != NULL ? "described and never answered" : "not described");
    }
}

static void test_the_description_has_the_refusals_of_each_route(void **state)
{
    json_t *api = description();
    char method[16];

    (void)state;
    for (const struct route *row = gateway_routes; row->method != NULL; row++) {
        lower(row->method, method);
        check_refusals(
            api, row,
            json_object_get(json_object_get(json_object_get(api, "paths"), row->pattern), method));
    }
    json_decref(api);
}

static void test_the_description_has_exactly_the_codes_of_the_table(void **state)
{
    json_t *api = description();
    json_t *components = json_object_get(api, "components");
    const json_t *problem = json_object_get(json_object_get(components, "schemas"), "Problem");
    const char *name;
    json_t *response;
    size_t listed = 0;
    size_t refusals = 0;

    (void)state;
    check_codes(problem, "code", "");
    check_codes(problem, "type", PROBLEM_BASE);
    /* Each status has the codes of that status: together, once each, all that are refusals. */
    json_object_foreach(json_object_get(components, "responses"), name, response)
    {
        json_t *parts = json_object_get(
            json_object_get(json_object_get(json_object_get(response, "content"), PROBLEM_TYPE),
                            "schema"),
            "allOf");
        json_t *fields = json_object_get(json_array_get(parts, 1), "properties");
        json_t *codes = json_object_get(json_object_get(fields, "code"), "enum");
        json_int_t status =
            json_integer_value(json_object_get(json_object_get(fields, "status"), "const"));
        size_t i;
        json_t *code;
        json_array_foreach(codes, i, code)
        {
            enum err_code number = err_from_slug(json_string_value(code));
            assert_int_equal(err_info(number)->http_status, status);
            listed++;
        }
    }
    const struct err_info *row;
    for (size_t i = 0; (row = err_row(i)) != NULL; i++)
        refusals += row->http_status != 0 && row->http_status != 500 && row->http_status != 405;
    assert_int_equal(listed, refusals);
    json_decref(api);
}

static void test_a_code_is_explained_to_people(void **state)
{
    (void)state;
    char *text = problem_explain(ERR_NOT_NOW);
    assert_string_equal(text, "not-now\n\nThe hardware exists but is busy.\n"
                              "Next step: wait, or relax the constraint named.\n"
                              "HTTP status: 409.\nWho can change it: platform.\n"
                              "The same request may succeed later.\n");
    free(text);
}

static void test_a_problem_says_code_status_and_place(void **state)
{
    struct err err = {0};
    struct uuid id;

    (void)state;
    assert_int_equal(uuid_parse("01890000-0000-7000-8000-000000000001", &id), 0);
    assert_int_not_equal(err_set_at(&err, ERR_UNKNOWN_FIELD, "/a", "a \"quoted\" <text>"), 0);
    char *text = problem_format(&err, &id);
    json_t *problem = json_loads(text, 0, NULL);
    assert_non_null(problem);
    assert_string_equal(json_text(problem, "type"), "/errors/unknown-field");
    assert_string_equal(json_text(problem, "code"), "unknown-field");
    assert_string_equal(json_text(problem, "instance"), "01890000-0000-7000-8000-000000000001");
    assert_string_equal(json_text(problem, "detail"), "a \"quoted\" <text>");
    assert_int_equal(json_integer_value(json_object_get(problem, "status")), 422);
    assert_true(json_is_false(json_object_get(problem, "retryable")));
    assert_string_equal(json_text(json_array_get(json_object_get(problem, "errors"), 0), "pointer"),
                        "/a");
    json_decref(problem);
    free(text);
}

static void test_a_problem_survives_texts_that_are_no_utf8(void **state)
{
    struct err err = {.code = ERR_MALFORMED_JSON, .text = "\xff\xfe", .pointer = "\xc0"};
    struct uuid id = {{0}};

    (void)state;
    char *text = problem_format(&err, &id);
    json_t *problem = json_loads(text, 0, NULL);
    assert_non_null(problem);
    assert_int_equal(json_integer_value(json_object_get(problem, "status")), 400);
    json_decref(problem);
    free(text);
}

static void test_codes_that_are_no_http_refusal_are_500(void **state)
{
    (void)state;
    assert_int_equal(problem_status(ERR_IO), 500);
    assert_int_equal(problem_status(ERR_NO_SPACE), 507);
    assert_int_equal(problem_status(ERR_INSUFFICIENT_FUNDS), 402);
}

static void test_metrics_and_pages_escape_what_is_foreign(void **state)
{
    struct buf out;

    (void)state;
    buf_init(&out, 0);
    metric_head(&out, "x_total", "counter", "Help.");
    metric_value(&out, "x_total", "name", "a\"b\\c\nd", 7);
    metric_value(&out, "x_total", NULL, NULL, UINT64_MAX);
    assert_string_equal(out.data, "# HELP x_total Help.\n# TYPE x_total counter\n"
                                  "x_total{name=\"a\\\"b\\\\c\\nd\"} 7\n"
                                  "x_total 18446744073709551615\n");
    buf_clear(&out);
    html_text(&out, "<a href='x'>&\"");
    assert_string_equal(out.data, "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths_match_whole_segments),
        cmocka_unit_test(test_a_known_path_names_its_methods),
        cmocka_unit_test(test_every_row_is_reachable_and_whole),
        cmocka_unit_test(test_jobs_and_deposits_need_an_idempotency_key),
        cmocka_unit_test(test_the_description_has_exactly_the_routes_of_the_table),
        cmocka_unit_test(test_the_description_says_who_may),
        cmocka_unit_test(test_every_reference_of_the_description_resolves),
        cmocka_unit_test(test_the_description_has_the_refusals_of_each_route),
        cmocka_unit_test(test_the_description_has_exactly_the_codes_of_the_table),
        cmocka_unit_test(test_a_code_is_explained_to_people),
        cmocka_unit_test(test_a_problem_says_code_status_and_place),
        cmocka_unit_test(test_a_problem_survives_texts_that_are_no_utf8),
        cmocka_unit_test(test_codes_that_are_no_http_refusal_are_500),
        cmocka_unit_test(test_metrics_and_pages_escape_what_is_foreign),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
