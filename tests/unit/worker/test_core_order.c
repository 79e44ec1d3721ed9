/* Orders are believed only with the right signature, addressee and expiry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "worker/core/order.h"

#define NOW INT64_C(1700000000000000)

struct fixture {
    struct sign_pair orchestrator;
    struct order_trust trust;
    Sheaf__Order order;
    Sheaf__Go go;
    struct buf bytes;
    uint8_t signature[SIGNATURE_SIZE];
    struct frame_arena arena;
};

static void set_up(struct fixture *fixture)
{
    memset(fixture, 0, sizeof(*fixture));
    sign_pair_make(&fixture->orchestrator);
    memcpy(fixture->trust.sign_key, fixture->orchestrator.public_key, KEY_SIZE);
    memset(fixture->trust.worker_key, 7, KEY_SIZE);
    sheaf__order__init(&fixture->order);
    sheaf__go__init(&fixture->go);
    fixture->order.worker_key.data = fixture->trust.worker_key;
    fixture->order.worker_key.len = KEY_SIZE;
    fixture->order.expires_us = (uint64_t)(NOW + 1000000);
    fixture->order.attempt = 5;
    fixture->order.epoch = 2;
    fixture->order.what_case = SHEAF__ORDER__WHAT_GO;
    fixture->order.go = &fixture->go;
    buf_init(&fixture->bytes, 0);
    frame_arena_init(&fixture->arena, FRAME_MAX_BUDGET);
}

static void tear_down(struct fixture *fixture)
{
    buf_fini(&fixture->bytes);
    frame_arena_fini(&fixture->arena);
}

static void seal(struct fixture *fixture, const char *domain)
{
    buf_clear(&fixture->bytes);
    frame_encode(&fixture->order.base, &fixture->bytes);
    sign_bytes(&fixture->orchestrator, domain, fixture->bytes.data, fixture->bytes.length,
               fixture->signature);
}

static int open_order(struct fixture *fixture, Sheaf__Order **ret_order)
{
    Sheaf__SignedOrder wire = SHEAF__SIGNED_ORDER__INIT;
    struct err err = {0};

    wire.order.data = (uint8_t *)fixture->bytes.data;
    wire.order.len = fixture->bytes.length;
    wire.signature.data = fixture->signature;
    wire.signature.len = SIGNATURE_SIZE;
    return order_open(&fixture->trust, &wire, NOW, &fixture->arena, ret_order, &err);
}

static void test_good_order_is_taken(void **state)
{
    struct fixture fixture;
    Sheaf__Order *order = NULL;

    (void)state;
    set_up(&fixture);
    seal(&fixture, SIGN_DOMAIN_ORDER);
    assert_int_equal(open_order(&fixture, &order), 0);
    assert_int_equal(order->attempt, 5);
    assert_string_equal(order_name(order), "go");
    tear_down(&fixture);
}

static void test_every_flipped_bit_is_refused(void **state)
{
    struct fixture fixture;
    Sheaf__Order *order = NULL;

    (void)state;
    set_up(&fixture);
    seal(&fixture, SIGN_DOMAIN_ORDER);
    for (size_t i = 0; i < fixture.bytes.length; i++) {
        fixture.bytes.data[i] = (char)(fixture.bytes.data[i] ^ 1);
        assert_int_equal(open_order(&fixture, &order), -ERR_WIRE_SIGNATURE);
        fixture.bytes.data[i] = (char)(fixture.bytes.data[i] ^ 1);
    }
    for (size_t i = 0; i < SIGNATURE_SIZE; i++) {
        fixture.signature[i] ^= 4;
        assert_int_equal(open_order(&fixture, &order), -ERR_WIRE_SIGNATURE);
        fixture.signature[i] ^= 4;
    }
    assert_null(order);
    tear_down(&fixture);
}

static void test_other_key_and_other_domain_are_refused(void **state)
{
    struct fixture fixture;
    Sheaf__Order *order = NULL;

    (void)state;
    set_up(&fixture);
    seal(&fixture, SIGN_DOMAIN_RECEIPT);
    assert_int_equal(open_order(&fixture, &order), -ERR_WIRE_SIGNATURE);
    seal(&fixture, SIGN_DOMAIN_ORDER);
    fixture.trust.sign_key[0] ^= 1;
    assert_int_equal(open_order(&fixture, &order), -ERR_WIRE_SIGNATURE);
    tear_down(&fixture);
}

static void test_expired_and_far_ahead_are_refused(void **state)
{
    static const int64_t expiries[] = {0, 1, NOW - 1, NOW, NOW + ORDER_MAX_AHEAD_US + 1};
    struct fixture fixture;
    Sheaf__Order *order = NULL;

    (void)state;
    set_up(&fixture);
    for (size_t i = 0; i < sizeof(expiries) / sizeof(expiries[0]); i++) {
        fixture.order.expires_us = (uint64_t)expiries[i];
        seal(&fixture, SIGN_DOMAIN_ORDER);
        assert_int_equal(open_order(&fixture, &order), -ERR_WIRE_ORDER);
    }
    fixture.order.expires_us = UINT64_MAX;
    seal(&fixture, SIGN_DOMAIN_ORDER);
    assert_int_equal(open_order(&fixture, &order), -ERR_WIRE_ORDER);
    tear_down(&fixture);
}

static void test_order_for_another_worker_is_refused(void **state)
{
    struct fixture fixture;
    Sheaf__Order *order = NULL;
    uint8_t other[KEY_SIZE] = {8};

    (void)state;
    set_up(&fixture);
    fixture.order.worker_key.data = other;
    seal(&fixture, SIGN_DOMAIN_ORDER);
    assert_int_equal(open_order(&fixture, &order), -ERR_WIRE_ORDER);
    fixture.order.worker_key.len = 0;
    seal(&fixture, SIGN_DOMAIN_ORDER);
    assert_int_equal(open_order(&fixture, &order), -ERR_WIRE_ORDER);
    tear_down(&fixture);
}

static void test_empty_order_is_refused(void **state)
{
    struct fixture fixture;
    Sheaf__Order *order = NULL;

    (void)state;
    set_up(&fixture);
    fixture.order.what_case = SHEAF__ORDER__WHAT__NOT_SET;
    seal(&fixture, SIGN_DOMAIN_ORDER);
    assert_int_equal(open_order(&fixture, &order), -ERR_WIRE_ORDER);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_order_is_taken),
        cmocka_unit_test(test_every_flipped_bit_is_refused),
        cmocka_unit_test(test_other_key_and_other_domain_are_refused),
        cmocka_unit_test(test_expired_and_far_ahead_are_refused),
        cmocka_unit_test(test_order_for_another_worker_is_refused),
        cmocka_unit_test(test_empty_order_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
