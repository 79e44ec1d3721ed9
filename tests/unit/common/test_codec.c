#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/io/base64.h"
#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/jointoken.h"
#include "common/io/json.h"
#include "common/io/yaml.h"
#include "common/pure/buf.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"
#include "common/pure/nearest.h"
#include "common/pure/selftest.h"
#include "common/pure/utf8.h"
#include "proto/bulk.pb-c.h"
#include "proto/command.pb-c.h"
#include "proto/receipt.pb-c.h"
#include "proto/worker.pb-c.h"

/* -- frames ----------------------------------------------------------------------------------- */

/* An envelope with a claim of some devices and held tasks. */
static void encode_hello(struct buf *out)
{
    Sheaf__ClaimDevice device = SHEAF__CLAIM_DEVICE__INIT;
    Sheaf__ClaimDevice *devices[] = {&device, &device, &device};
    Sheaf__HeldTask task = SHEAF__HELD_TASK__INIT;
    Sheaf__HeldTask *tasks[] = {&task, &task};
    Sheaf__Claim claim = SHEAF__CLAIM__INIT;
    Sheaf__Hello hello = SHEAF__HELLO__INIT;
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    char model[] = "pthread-é";
    char name[] = "node-1";
    uint8_t uid[16] = {1, 2, 3};

    device.model = model;
    claim.name = name;
    claim.n_devices = 3;
    claim.devices = devices;
    task.attempt = 7;
    hello.n_tasks = 2;
    hello.tasks = tasks;
    hello.claim = &claim;
    hello.node = (ProtobufCBinaryData){sizeof(uid), uid};
    envelope.protocol = 1;
    envelope.body_case = SHEAF__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    frame_encode(&envelope.base, out);
}

static void test_a_message_survives_the_wire(void **state)
{
    struct frame_arena arena;
    struct buf bytes;

    (void)state;
    buf_init(&bytes, 0);
    encode_hello(&bytes);
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    Sheaf__Envelope *envelope = (Sheaf__Envelope *)(void *)frame_decode(
        &sheaf__envelope__descriptor, bytes.data, bytes.length, &arena);
    assert_non_null(envelope);
    assert_int_equal(envelope->body_case, SHEAF__ENVELOPE__BODY_HELLO);
    assert_string_equal(envelope->hello->claim->devices[2]->model, "pthread-é");
    assert_int_equal(envelope->hello->tasks[1]->attempt, 7);
    assert_true(arena.used > 0 && arena.used < 65536);
    frame_arena_fini(&arena);
    buf_fini(&bytes);
}

static void test_every_cut_or_flipped_message_is_survived(void **state)
{
    struct buf bytes;
    uint32_t accepted = 0;

    (void)state;
    buf_init(&bytes, 0);
    encode_hello(&bytes);
    for (size_t i = 0; i < bytes.length; i++) {
        struct frame_arena arena;
        char *copy = mem_dup(bytes.data, bytes.length);
        frame_arena_init(&arena, FRAME_MAX_BUDGET);
        frame_decode(&sheaf__envelope__descriptor, copy, i, &arena);
        for (int bit = 0; bit < 8; bit++) {
            copy[i] = (char)(bytes.data[i] ^ 1 << bit);
            accepted +=
                frame_decode(&sheaf__envelope__descriptor, copy, bytes.length, &arena) != NULL;
            copy[i] = bytes.data[i];
        }
        frame_arena_fini(&arena);
        free(copy);
    }
    assert_in_range(accepted, 1, bytes.length * 8 - 1);
    buf_fini(&bytes);
}

static void test_strings_that_are_not_utf8_are_refused(void **state)
{
    static const uint8_t top[] = {0xa2, 0x01, 0x03, 0x0a, 0x01, 0xff}; /* Bye.reason, field 20 */
    static const uint8_t repeated[] = {0x0a, 0x00, 0x12, 0x02, 0xc3, 0x28}; /* GatewayHello.bulk */
    struct frame_arena arena;

    (void)state;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    assert_null(frame_decode(&sheaf__envelope__descriptor, top, sizeof(top), &arena));
    assert_null(
        frame_decode(&sheaf__gateway_hello__descriptor, repeated, sizeof(repeated), &arena));
    frame_arena_fini(&arena);
}

static void test_field_number_0_is_refused_however_it_is_spelled(void **state)
{
    static const uint8_t brief[] = {0x00, 0x38};
    static const uint8_t spelled[] = {0x80, 0x00, 0x38};
    static const uint8_t inside[] = {0xa2, 0x01, 0x03, 0x80, 0x00, 0x38}; /* of Bye, field 20 */
    struct frame_arena arena;

    (void)state;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    assert_null(frame_decode(&sheaf__envelope__descriptor, brief, sizeof(brief), &arena));
    assert_null(frame_decode(&sheaf__envelope__descriptor, spelled, sizeof(spelled), &arena));
    assert_null(frame_decode(&sheaf__envelope__descriptor, inside, sizeof(inside), &arena));
    frame_arena_fini(&arena);
}

static void test_pitfall_a_mebibyte_of_empty_messages_hits_the_budget(void **state)
{
    /* LinkReport.links, each empty: two bytes on the wire, dozens in memory. */
    uint8_t *bomb = mem_new(FRAME_MAX, 1);
    struct frame_arena arena;

    (void)state;
    for (size_t i = 0; i < FRAME_MAX; i += 2)
        bomb[i] = 0x0a;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    assert_null(frame_decode(&sheaf__link_report__descriptor, bomb, FRAME_MAX, &arena));
    assert_in_range(arena.used, 1, FRAME_MAX_BUDGET);
    frame_arena_fini(&arena);
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    assert_non_null(frame_decode(&sheaf__link_report__descriptor, bomb, FRAME_MAX / 16, &arena));
    frame_arena_fini(&arena);
    free(bomb);
}

static void test_a_frame_above_the_cap_is_not_even_looked_at(void **state)
{
    uint8_t *large = mem_new(FRAME_MAX + 1, 1);
    struct frame_arena arena;

    (void)state;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    assert_null(frame_decode(&sheaf__envelope__descriptor, large, FRAME_MAX + 1, &arena));
    assert_int_equal(arena.used, 0);
    frame_arena_fini(&arena);
    free(large);
}

/* Fails the k-th allocation. */
struct failing {
    struct frame_arena *arena;
    void *(*alloc)(void *data, size_t size);
    unsigned countdown;
};

static void *failing_alloc(void *data, size_t size)
{
    struct failing *failing = data;

    return failing->countdown-- == 0 ? NULL : failing->alloc(failing->arena, size);
}

static void failing_free(void *data, void *bytes)
{
    (void)data;
    (void)bytes;
}

static void test_decoding_survives_each_failed_allocation(void **state)
{
    struct buf bytes;
    unsigned k = 0;
    bool decoded = false;

    (void)state;
    buf_init(&bytes, 0);
    encode_hello(&bytes);
    for (k = 0; !decoded; k++) {
        struct frame_arena arena;
        frame_arena_init(&arena, FRAME_MAX_BUDGET);
        struct failing failing = {&arena, arena.allocator.alloc, k};
        arena.allocator = (ProtobufCAllocator){failing_alloc, failing_free, &failing};
        decoded =
            frame_decode(&sheaf__envelope__descriptor, bytes.data, bytes.length, &arena) != NULL;
        frame_arena_fini(&arena);
        assert_true(k < 1000);
    }
    assert_true(k > 8);
    buf_fini(&bytes);
}

/* True when a message of this type can hold one of the types above it. */
static bool is_recursive(const ProtobufCMessageDescriptor *type,
                         const ProtobufCMessageDescriptor **above, size_t depth)
{
    for (size_t i = 0; i < depth; i++) {
        if (above[i] == type)
            return true;
    }
    assert_true(depth < 16);
    above[depth] = type;
    for (unsigned i = 0; i < type->n_fields; i++) {
        if (type->fields[i].type == PROTOBUF_C_TYPE_MESSAGE
            && is_recursive(type->fields[i].descriptor, above, depth + 1))
            return true;
    }
    return false;
}

static void test_pitfall_no_message_can_contain_itself(void **state)
{
    static const ProtobufCMessageDescriptor *const roots[] = {
        &sheaf__envelope__descriptor,      &sheaf__order__descriptor,
        &sheaf__receipt__descriptor,       &sheaf__bulk__descriptor,
        &sheaf__command__descriptor,       &sheaf__command_reply__descriptor,
        &sheaf__change_hint__descriptor,   &sheaf__claim__descriptor,
        &sheaf__signed_receipt__descriptor};
    const ProtobufCMessageDescriptor *above[17];

    (void)state;
    for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++)
        assert_false(is_recursive(roots[i], above, 0));
}

/* -- JSON ------------------------------------------------------------------------------------- */

static void test_json_beyond_the_border_is_refused_with_its_reason(void **state)
{
    static const struct {
        const char *text;
        size_t length; /* 0 = strlen */
        enum err_code code;
        const char *says;
    } cases[] = {
        {"", 0, ERR_MALFORMED_JSON, "1:"},
        {"{\"a\":1,}", 0, ERR_MALFORMED_JSON, "1:"},
        {"{\n \"a\": nul\n}", 0, ERR_MALFORMED_JSON, "2:"},
        {"{} x", 0, ERR_MALFORMED_JSON, "1:4"},
        {"{}\0", 3, ERR_MALFORMED_JSON, "1:"},
        {"{\"a\":1,\"a\":2}", 0, ERR_DUPLICATE_KEY, "1:"},
        {"\"\xff\"", 0, ERR_INVALID_ENCODING, ""},
        {"\"a\\u0000b\"", 0, ERR_INVALID_ENCODING, ""},
        {"{\"a\\u0000\":1}", 0, ERR_INVALID_ENCODING, ""},
        {"\"\\ud800\"", 0, ERR_INVALID_ENCODING, ""},
        {"{\n \"a\": nul\n}", 0, ERR_MALFORMED_JSON, "(byte 11)"},
        {"01", 0, ERR_MALFORMED_JSON, ""},
        {"NaN", 0, ERR_MALFORMED_JSON, ""},
        {"99999999999999999999", 0, ERR_OUT_OF_RANGE, ""},
        {"1e999", 0, ERR_OUT_OF_RANGE, ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t length = cases[i].length ? cases[i].length : strlen(cases[i].text);
        json_t *value = NULL;
        struct err err = {0};
        int rc = json_read(cases[i].text, length, &value, &err);
        if (rc != -(int)cases[i].code || strstr(err.text, cases[i].says) == NULL)
            fail_msg("%s gave %s: %s", cases[i].text, err_slug((enum err_code) - rc), err.text);
        assert_null(value);
    }
}

static void test_json_nesting_is_bounded_and_quick(void **state)
{
    char *deep = mem_new(200001, 1);
    json_t *value = NULL;
    int64_t began = clock_mono_us();

    (void)state;
    memset(deep, '[', 200000);
    assert_int_equal(json_read(deep, 200000, &value, NULL), -ERR_NESTING_TOO_DEEP);
    for (size_t levels = JSON_MAX_DEPTH; levels <= JSON_MAX_DEPTH + 1; levels++) {
        memset(deep, '[', levels);
        memset(deep + levels, ']', levels);
        int rc = json_read(deep, 2 * levels, &value, NULL);
        assert_int_equal(rc, levels <= JSON_MAX_DEPTH ? 0 : -ERR_NESTING_TOO_DEEP);
    }
    json_decref(value);
    free(deep);
    assert_true(clock_mono_us() - began < 1000000);
}

static void test_canonical_json_sorts_its_keys(void **state)
{
    static const char text[] = "{\"b\":{\"y\":1,\"x\":[true,null]},\"a\":\"\\u00e9/\"}";
    json_t *value = NULL;

    (void)state;
    assert_int_equal(json_read(text, strlen(text), &value, NULL), 0);
    char *plain = json_write(value);
    char *canonical = json_write_canonical(value);
    assert_string_equal(plain, "{\"b\":{\"y\":1,\"x\":[true,null]},\"a\":\"é/\"}");
    assert_string_equal(canonical, "{\"a\":\"é/\",\"b\":{\"x\":[true,null],\"y\":1}}");
    free(plain);
    free(canonical);
    json_decref(value);
}

static void test_values_have_their_wire_form(void **state)
{
    static const uint8_t uuid[16] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                                     0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    json_t *object = json_object();

    (void)state;
    json_object_set_new(object, "money", json_money(2400000));
    json_object_set_new(object, "time", json_time(1795368243120456));
    json_object_set_new(object, "never", json_time(0));
    json_object_set_new(object, "uuid", json_uuid(uuid));
    json_object_set_new(object, "hex", json_hex(uuid, 4));
    assert_string_equal(json_text(object, "money"), "2.40");
    assert_string_equal(json_text(object, "time"), "2026-11-22T17:24:03.120Z");
    assert_true(json_is_null(json_object_get(object, "never")));
    assert_null(json_text(object, "never"));
    assert_null(json_text(object, "absent"));
    assert_string_equal(json_text(object, "uuid"), "01234567-89ab-cdef-0123-456789abcdef");
    assert_string_equal(json_text(object, "hex"), "01234567");
    json_decref(object);
}

/* -- YAML ------------------------------------------------------------------------------------- */

static void test_yaml_that_hides_something_is_refused(void **state)
{
    static const struct {
        const char *text;
        size_t length; /* 0 = strlen */
        enum err_code code;
        const char *says;
    } cases[] = {
        {"", 0, ERR_YAML_SYNTAX, "empty"},
        {"# nothing\n", 0, ERR_YAML_SYNTAX, "empty"},
        {"a: 1\na: 2\n", 0, ERR_DUPLICATE_KEY, "2:1"},
        {"{a: {b: 1, b: 2}}", 0, ERR_DUPLICATE_KEY, "1:12"},
        {"a: &x 1\n", 0, ERR_YAML_FEATURE, "1:4: anchors"},
        {"a: &x [1]\n", 0, ERR_YAML_FEATURE, "anchors"},
        {"a: *x\n", 0, ERR_YAML_FEATURE, "1:4: aliases"},
        {"a: !!int 5\n", 0, ERR_YAML_FEATURE, "1:4: tags"},
        {"a: !x {b: 1}\n", 0, ERR_YAML_FEATURE, "tags"},
        {"a: ! b\n", 0, ERR_YAML_FEATURE, "tags"},
        {"a: 1\n---\nb: 2\n", 0, ERR_YAML_SYNTAX, "2:1: more than one document"},
        {"a:\n\tb: 1\n", 0, ERR_YAML_SYNTAX, "2:"},
        {"a: [1, 2\n", 0, ERR_YAML_SYNTAX, ""},
        {"a: 'x\n", 0, ERR_YAML_SYNTAX, ""},
        {"? [a]\n: 1\n", 0, ERR_YAML_SYNTAX, "key must be a text"},
        {"a: \"x\\0y\"\n", 0, ERR_INVALID_ENCODING, "NUL"},
        {"\"x\\0y\": a\n", 0, ERR_INVALID_ENCODING, "NUL"},
        {"a: \0 b\n", 7, ERR_INVALID_ENCODING, "1:"},
        {"a: \xff\n", 0, ERR_INVALID_ENCODING, ""},
        {"\xff\xfe"
         "a\0:\0 \0b\0",
         10, ERR_INVALID_ENCODING, ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t length = cases[i].length ? cases[i].length : strlen(cases[i].text);
        struct yaml_marks *marks = NULL;
        json_t *value = NULL;
        struct err err = {0};
        int rc = yaml_read(cases[i].text, length, &value, &marks, &err);
        if (rc != -(int)cases[i].code || strstr(err.text, cases[i].says) == NULL)
            fail_msg("%s gave %s: %s", cases[i].text, err_slug((enum err_code) - rc), err.text);
        assert_null(value);
        assert_null(marks);
    }
}

static void test_pitfall_yaml_bombs_are_refused_fast(void **state)
{
    char *deep = mem_new(200001, 1);
    json_t *value = NULL;
    int64_t began = clock_mono_us();

    (void)state;
    memset(deep, '[', 200000);
    assert_int_equal(yaml_read(deep, 200000, &value, NULL, NULL), -ERR_BODY_TOO_LARGE);
    assert_int_equal(yaml_read(deep, YAML_MAX_BYTES, &value, NULL, NULL), -ERR_NESTING_TOO_DEEP);
    memset(deep, '{', 200000);
    assert_int_equal(yaml_read(deep, YAML_MAX_BYTES, &value, NULL, NULL), -ERR_YAML_SYNTAX);
    for (size_t i = 0; i < 200000; i += 2)
        memcpy(deep + i, "- ", 2);
    assert_int_equal(yaml_read(deep, YAML_MAX_BYTES, &value, NULL, NULL), -ERR_NESTING_TOO_DEEP);
    /* A long key and many values: what the marks hold must not be their product. */
    memset(deep, 'k', 30000);
    memcpy(deep + 30000, ": [", 3);
    for (size_t i = 30003; i + 2 < YAML_MAX_BYTES; i += 2)
        memcpy(deep + i, "1,", 2);
    deep[YAML_MAX_BYTES - 1] = ']';
    struct yaml_marks *marks = NULL;
    int rc = yaml_read(deep, YAML_MAX_BYTES, &value, &marks, NULL);
    assert_true(rc == 0 || rc == -ERR_YAML_SYNTAX);
    if (rc == 0)
        json_decref(value);
    yaml_marks_free(marks);
    free(deep);
    assert_true(clock_mono_us() - began < 2000000);
}

static void test_yaml_scalars_become_what_they_look_like_in_json(void **state)
{
    static const char text[] =
        "\xef\xbb\xbf" /* BOM */
        "t: true\r\nf: false\r\nn: ~\r\nnull_word: null\r\nempty:\r\ni: -12\r\nzero: 0\r\n"
        "octal: 012\r\nyes: yes\r\nclock: 1:30\r\nprice: 0.60\r\nhuge: 99999999999999999999\r\n"
        "quoted: '5'\r\nTrue: True\r\nminus: -0\r\nblock: |\r\n  a\r\n  b\r\nflow: {a: [1, x]}\r\n";
    json_t *value = NULL;
    struct err err = {0};

    (void)state;
    if (yaml_read(text, strlen(text), &value, NULL, &err) != 0)
        fail_msg("%s", err.text);
    char *json = json_write(value);
    assert_string_equal(
        json, "{\"t\":true,\"f\":false,\"n\":null,\"null_word\":null,\"empty\":null,\"i\":-12,"
              "\"zero\":0,\"octal\":\"012\",\"yes\":\"yes\",\"clock\":\"1:30\",\"price\":\"0.60\","
              "\"huge\":\"99999999999999999999\",\"quoted\":\"5\",\"True\":\"True\","
              "\"minus\":\"-0\",\"block\":\"a\\nb\\n\",\"flow\":{\"a\":[1,\"x\"]}}");
    free(json);
    json_decref(value);
}

static void test_marks_find_the_value_or_its_nearest_parent(void **state)
{
    static const char text[] = "a:\n  b:\n    - x\n    - {c/d: 1}\n";
    static const struct {
        const char *pointer;
        unsigned line;
        unsigned column;
    } cases[] = {
        {"", 1, 1},       {"/a", 1, 1},          {"/a/b", 2, 3},        {"/a/b/0", 3, 7},
        {"/a/b/1", 4, 7}, {"/a/b/1/c~1d", 4, 8}, {"/a/b/1/none", 4, 7}, {"/a/nowhere/9", 1, 1},
        {"/a/b/7", 2, 3},
    };
    struct yaml_marks *marks = NULL;
    json_t *value = NULL;

    (void)state;
    assert_int_equal(yaml_read(text, strlen(text), &value, &marks, NULL), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned line = 0;
        unsigned column = 0;
        yaml_locate(marks, cases[i].pointer, &line, &column);
        if (line != cases[i].line || column != cases[i].column)
            fail_msg("%s is at %u:%u", cases[i].pointer, line, column);
    }
    yaml_marks_free(marks);
    json_decref(value);
}

static void test_written_yaml_reads_back_the_same(void **state)
{
    static const char json[] =
        "{\"a\":[1,\"x\",{\"b\":null,\"c\":true}],\"no\":\"no\",\"price\":\"0.60\",\"n\":\"5\","
        "\"empty\":\"\",\"list\":[],\"object\":{},\"lines\":\"one\\ntwo\\n\",\"colon\":\"a: b\","
        "\"hash\":\" #x\",\"umlaut\":\"é\",\"tab\":\"a\\tb\",\"control\":\"\\u0007\",\"~\":\"~\","
        "\"tail\":\"x\\n\\n\",\"long\":\"a b c d e f g h i j k l m n o p q r s t u v w x y z a b c "
        "d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h\"}";
    json_t *value = NULL;
    json_t *again = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(json_read(json, strlen(json), &value, &err), 0);
    char *yaml = yaml_write(value);
    if (yaml_read(yaml, strlen(yaml), &again, NULL, &err) != 0)
        fail_msg("%s\n%s", yaml, err.text);
    assert_true(json_equal(value, again));
    assert_non_null(strstr(yaml, "no\": \"no\""));
    assert_non_null(strstr(yaml, "price: \"0.60\""));
    free(yaml);
    json_decref(value);
    json_decref(again);
}

/* -- texts ------------------------------------------------------------------------------------ */

static void test_base64_is_strict_in_both_alphabets(void **state)
{
    static const struct {
        enum base64_kind kind;
        const char *text;
        const char *bytes; /* NULL = refused */
    } cases[] = {
        {BASE64_STANDARD, "", ""},
        {BASE64_STANDARD, "aGk=", "hi"},
        {BASE64_STANDARD, "aGk", NULL},
        {BASE64_STANDARD, "aGk=\n", NULL},
        {BASE64_STANDARD, " aGk=", NULL},
        {BASE64_STANDARD, "a===", NULL},
        {BASE64_STANDARD, "--__", NULL},
        {BASE64_STANDARD, "++//", "\xfb\xef\xff"},
        {BASE64_URL, "aGk", "hi"},
        {BASE64_URL, "aGk=", NULL},
        {BASE64_URL, "-_-_", "\xfb\xff\xbf"},
        {BASE64_URL, "+/+/", NULL},
        {BASE64_URL, "a", NULL},
        {BASE64_STANDARD, "====", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf out;
        buf_init(&out, 0);
        int rc = base64_decode(cases[i].kind, cases[i].text, strlen(cases[i].text), &out);
        if ((rc == 0) != (cases[i].bytes != NULL))
            fail_msg("%s gave %d", cases[i].text, rc);
        if (rc == 0) {
            assert_int_equal(out.length, strlen(cases[i].bytes));
            assert_memory_equal(out.data, cases[i].bytes, out.length);
            buf_clear(&out);
            base64_encode(cases[i].kind, cases[i].bytes, strlen(cases[i].bytes), &out);
            assert_string_equal(out.data, cases[i].text);
        }
        buf_fini(&out);
    }
}

static void test_a_join_token_carries_everything_there_and_back(void **state)
{
    struct join_token token = {.url = "https://gateway.example:7443", .expires_us = 1800000000};
    struct join_token again;
    char text[JOIN_TOKEN_TEXT];
    struct err err;

    (void)state;
    random_bytes(token.ca_sha256, sizeof(token.ca_sha256));
    random_bytes(token.server_key, sizeof(token.server_key));
    random_bytes(token.sign_key, sizeof(token.sign_key));
    secret_make("shj_", token.secret);
    assert_int_equal(strlen(token.secret), 47);
    join_token_format(&token, text);
    assert_int_equal(strncmp(text, "sheaf-join-1.", 13), 0);
    assert_int_equal(join_token_parse(text, &again, &err), 0);
    assert_string_equal(again.url, token.url);
    assert_string_equal(again.secret, token.secret);
    assert_memory_equal(again.ca_sha256, token.ca_sha256, SHA256_SIZE);
    assert_memory_equal(again.server_key, token.server_key, 32);
    assert_memory_equal(again.sign_key, token.sign_key, 32);
    assert_int_equal(again.expires_us, token.expires_us);
    /* The longest URL fits. */
    memset(token.url + 8, 'x', sizeof(token.url) - 9);
    token.url[sizeof(token.url) - 1] = '\0';
    join_token_format(&token, text);
    assert_int_equal(join_token_parse(text, &again, &err), 0);
    assert_string_equal(again.url, token.url);
}

static void test_a_damaged_join_token_is_refused(void **state)
{
    static const char *const jsons[] = {
        "[]",
        "{}",
        "\"x\"",
        "{\"url\":5}",
        "{\"url\":\"ftp://x\",\"ca\":\"HEX\",\"key\":\"HEX\",\"sign\":\"HEX\",\"secret\":\"shj_x\","
        "\"expires_us\":1}",
        "{\"url\":\"https://a b\",\"ca\":\"HEX\",\"key\":\"HEX\",\"sign\":\"HEX\",\"secret\":"
        "\"shj_x\",\"expires_us\":1}",
        "{\"url\":\"https://"
        "a\",\"ca\":\"HEX\",\"key\":\"HEX\",\"sign\":\"HEX\",\"secret\":\"sht_x\","
        "\"expires_us\":1}",
        "{\"url\":\"https://"
        "a\",\"ca\":\"HEX\",\"key\":\"HEX\",\"sign\":\"HEX\",\"secret\":\"shj_x\","
        "\"expires_us\":0}",
        "{\"url\":\"https://"
        "a\",\"ca\":\"zz\",\"key\":\"HEX\",\"sign\":\"HEX\",\"secret\":\"shj_x\","
        "\"expires_us\":1}",
    };
    static const char *const texts[] = {"",
                                        "x",
                                        "sheaf-join-1.",
                                        "sheaf-join-1.!!",
                                        "sheaf-join-1.a",
                                        "sheaf-join-2.e30",
                                        "sheaf-join-1.e30\n"};
    struct join_token token;
    struct err err = {0};

    (void)state;
    memset(&token, 0x5a, sizeof(token));
    struct join_token before = token;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(join_token_parse(texts[i], &token, &err), -ERR_USAGE);
    for (size_t i = 0; i < sizeof(jsons) / sizeof(jsons[0]); i++) {
        struct buf json;
        struct buf text;
        buf_init(&json, 0);
        buf_init(&text, 0);
        for (const char *at = jsons[i]; *at != '\0'; at++) {
            if (strncmp(at, "HEX", 3) == 0) {
                for (int k = 0; k < 32; k++)
                    buf_puts(&json, "0f");
                at += 2;
            } else {
                buf_append(&json, at, 1);
            }
        }
        buf_puts(&text, "sheaf-join-1.");
        base64_encode(BASE64_URL, json.data, json.length, &text);
        assert_int_equal(join_token_parse(text.data, &token, &err), -ERR_USAGE);
        assert_true(err.text[0] != '\0');
        buf_fini(&json);
        buf_fini(&text);
    }
    char *endless = mem_new(5000, 1);
    memset(endless, 'A', 4999);
    memcpy(endless, "sheaf-join-1.", 13);
    assert_int_equal(join_token_parse(endless, &token, &err), -ERR_USAGE);
    free(endless);
    assert_memory_equal(&token, &before, sizeof(token));
}

static void test_utf8_is_shown_without_acting(void **state)
{
    static const char *const rows[][2] = {
        {"plain é 😀", "plain é 😀"},
        {"a\nb\x1b[2J\x7f", "a\\x0ab\\x1b[2J\\x7f"},
        {"a\xe2\x80\xae"
         "b\xc2\x9b"
         "c",
         "a\\u{202e}b\\u{9b}c"},
        {"\xe2\x80", "\\xe2\\x80"},
        {"\xff\xed\xa0\x80", "\\xff\\xed\\xa0\\x80"},
        {"\xef\xbb\xbfx", "\\u{feff}x"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct buf out;
        buf_init(&out, 0);
        utf8_show(rows[i][0], strlen(rows[i][0]), &out);
        assert_string_equal(out.data, rows[i][1]);
        buf_fini(&out);
    }
}

static void test_utf8_is_checked_and_repaired(void **state)
{
    static const char *const valid[] = {"", "a", "é", "€", "𐍈", "\xef\xbf\xbd"};
    static const char *const invalid[] = {"\x80",
                                          "\xc3",
                                          "\xc0\xaf",
                                          "\xe0\x80\x80",
                                          "\xed\xa0\x80",
                                          "\xf4\x90\x80\x80",
                                          "\xf8\x88\x80\x80\x80",
                                          "a\xe2\x82"};
    char cut[] = "ab\xe2\x82";
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++)
        assert_true(utf8_is_valid(valid[i], strlen(valid[i])));
    for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++)
        assert_false(utf8_is_valid(invalid[i], strlen(invalid[i])));
    utf8_repair(cut);
    assert_string_equal(cut, "ab??");
    err_set(&err, ERR_IO, "%.2s|%s", "€", "\xff");
    assert_string_equal(err.text, "\x3f\x3f|?");
}

static void test_the_nearest_word_is_near(void **state)
{
    static const char *const words[] = {"network", "nodes", "name", "max_duration", "env"};

    (void)state;
    assert_string_equal(nearest_word("netwrok", words, 5), "network");
    assert_string_equal(nearest_word("node", words, 5), "nodes");
    assert_string_equal(nearest_word("max-duration", words, 5), "max_duration");
    assert_string_equal(nearest_word("evn", words, 5), "env");
    assert_null(nearest_word("xyzzy", words, 5));
    assert_null(nearest_word("", words, 5));
}

static void test_selftest_sums_agree_with_the_formula(void **state)
{
    enum { N = SELFTEST_MATMUL_N };
    uint64_t seed = 42;
    uint64_t sum = 0;

    (void)state;
    /* Reference output of splitmix64 with seed 0 (first value is index 1). */
    assert_int_equal(selftest_word(0, 1), 0xe220a8397b1dcdafu >> 32);
    assert_int_equal(selftest_word(0, 2), 0x6e789e6aa1b965f4u >> 32);
    for (uint64_t i = 0; i < SELFTEST_CHUNK_WORDS; i++)
        sum += selftest_word(seed, 3 * SELFTEST_CHUNK_WORDS + i);
    assert_int_equal(selftest_chunk_sum(seed, 3), sum);
    sum = 0;
    for (uint32_t i = 0; i < N; i++) {
        for (uint32_t j = 0; j < N; j += 1) {
            int64_t c = 0;
            for (uint32_t k = 0; k < N; k++)
                c += selftest_entry(seed, 0, i, k) * selftest_entry(seed, 1, k, j);
            sum += (uint64_t)c * (1 + (i * N + j) % 8191);
        }
    }
    assert_int_equal(selftest_matmul_sum(seed), sum);
    for (uint32_t k = 0; k < SELFTEST_SAMPLES; k++)
        assert_true(selftest_sample_chunk(seed, k, 3) < 3);
    for (uint32_t i = 0; i < 1000; i++)
        assert_in_range(selftest_entry(seed, 0, 0, i) + 7, 0, 14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_survives_the_wire),
        cmocka_unit_test(test_every_cut_or_flipped_message_is_survived),
        cmocka_unit_test(test_strings_that_are_not_utf8_are_refused),
        cmocka_unit_test(test_field_number_0_is_refused_however_it_is_spelled),
        cmocka_unit_test(test_pitfall_a_mebibyte_of_empty_messages_hits_the_budget),
        cmocka_unit_test(test_a_frame_above_the_cap_is_not_even_looked_at),
        cmocka_unit_test(test_decoding_survives_each_failed_allocation),
        cmocka_unit_test(test_pitfall_no_message_can_contain_itself),
        cmocka_unit_test(test_json_beyond_the_border_is_refused_with_its_reason),
        cmocka_unit_test(test_json_nesting_is_bounded_and_quick),
        cmocka_unit_test(test_canonical_json_sorts_its_keys),
        cmocka_unit_test(test_values_have_their_wire_form),
        cmocka_unit_test(test_yaml_that_hides_something_is_refused),
        cmocka_unit_test(test_pitfall_yaml_bombs_are_refused_fast),
        cmocka_unit_test(test_yaml_scalars_become_what_they_look_like_in_json),
        cmocka_unit_test(test_marks_find_the_value_or_its_nearest_parent),
        cmocka_unit_test(test_written_yaml_reads_back_the_same),
        cmocka_unit_test(test_base64_is_strict_in_both_alphabets),
        cmocka_unit_test(test_a_join_token_carries_everything_there_and_back),
        cmocka_unit_test(test_a_damaged_join_token_is_refused),
        cmocka_unit_test(test_utf8_is_checked_and_repaired),
        cmocka_unit_test(test_utf8_is_shown_without_acting),
        cmocka_unit_test(test_the_nearest_word_is_near),
        cmocka_unit_test(test_selftest_sums_agree_with_the_formula),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
