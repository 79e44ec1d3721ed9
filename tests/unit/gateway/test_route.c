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
    assert_string_equal(allow, "POST, GET");
    assert_null(route_match(gateway_routes, "POST", "/healthz", params, allow));
    assert_string_equal(allow, "GET");
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
    assert_string_equal(json_text(problem, "type"), "https://sheaf.invalid/errors/unknown-field");
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
        cmocka_unit_test(test_every_reference_of_the_description_resolves),
        cmocka_unit_test(test_a_problem_says_code_status_and_place),
        cmocka_unit_test(test_a_problem_survives_texts_that_are_no_utf8),
        cmocka_unit_test(test_codes_that_are_no_http_refusal_are_500),
        cmocka_unit_test(test_metrics_and_pages_escape_what_is_foreign),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
