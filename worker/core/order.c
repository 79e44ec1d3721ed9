#include "worker/core/order.h"

#include "common/io/hash.h"

static int order_check(const struct order_trust *trust, const Sheaf__Order *order, int64_t wall_us,
                       struct err *err)
{
    if (order->worker_key.len != KEY_SIZE
        || !bytes_equal(order->worker_key.data, trust->worker_key, KEY_SIZE))
        return err_set(err, ERR_WIRE_ORDER, "the order is for another worker");
    if (order->expires_us > INT64_MAX || (int64_t)order->expires_us <= wall_us)
        return err_set(err, ERR_WIRE_ORDER, "the order expired %lld s ago: check the clocks",
                       (long long)((wall_us - (int64_t)(order->expires_us & INT64_MAX)) / 1000000));
    if ((int64_t)order->expires_us - wall_us > ORDER_MAX_AHEAD_US)
        return err_set(err, ERR_WIRE_ORDER,
                       "the order expires more than an hour from now: check the clocks");
    if (order->what_case == SHEAF__ORDER__WHAT__NOT_SET)
        return err_set(err, ERR_WIRE_ORDER, "the order says nothing that this version knows");
    return 0;
}

int order_open(const struct order_trust *trust, const Sheaf__SignedOrder *signed_order,
               int64_t wall_us, struct frame_arena *arena, Sheaf__Order **ret_order,
               struct err *err)
{
    const ProtobufCBinaryData *bytes = &signed_order->order;
    Sheaf__Order *order;
    int rc;

    if (signed_order->signature.len != SIGNATURE_SIZE || bytes->len > FRAME_MAX
        || !sign_verify(trust->sign_key, SIGN_DOMAIN_ORDER, bytes->data, bytes->len,
                        signed_order->signature.data))
        return err_set(err, ERR_WIRE_SIGNATURE, "the order is not signed by our orchestrator");
    order = (Sheaf__Order *)frame_decode(&sheaf__order__descriptor, bytes->data, bytes->len, arena);
    if (!order)
        return err_set(err, ERR_WIRE_DECODE, "a signed order could not be decoded");
    rc = order_check(trust, order, wall_us, err);
    if (rc == 0)
        *ret_order = order;
    return rc;
}

const char *order_name(const Sheaf__Order *order)
{
    switch (order->what_case) {
    case SHEAF__ORDER__WHAT_PREPARE:
        return "prepare";
    case SHEAF__ORDER__WHAT_GO:
        return "go";
    case SHEAF__ORDER__WHAT_STOP:
        return "stop";
    case SHEAF__ORDER__WHAT_FORGET:
        return "forget";
    case SHEAF__ORDER__WHAT_SELFTEST:
        return "selftest";
    case SHEAF__ORDER__WHAT_PROBE:
        return "probe";
    case SHEAF__ORDER__WHAT__NOT_SET:
    case _SHEAF__ORDER__WHAT__CASE_IS_INT_SIZE:
        break;
    }
    return "unknown";
}
