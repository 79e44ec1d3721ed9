#ifndef SHEAF_ORCHESTRATOR_FLEET_FROM_GATEWAY_H
#define SHEAF_ORCHESTRATOR_FLEET_FROM_GATEWAY_H

/*
 * Commands of a gateway → events of the core. Job files are parsed again here; ids, secrets and
 * hashes are made here; who asks is passed on as the hash of the credential, for the core to judge.
 */
#include "common/io/jointoken.h"
#include "orchestrator/fleet/gateways.h"
#include "orchestrator/store/engine.h"
#include "proto/command.pb-c.h"

#define COMMAND_MAX_TTL_S      ((uint64_t)10 * 366 * 86400)
#define COMMAND_JOIN_TTL_S     ((uint64_t)86400) /* of a join token that names none */
#define COMMAND_MAX_JOIN_USES  10000u
#define COMMAND_MAX_OUTPUT     ((uint64_t)1 << 50) /* sizes fit a bigint, with room for sums */
#define COMMAND_JOIN_PROOF_LEN 64 /* curve key ‖ credential, what an enrolment signs */

/* What the answer needs and the core does not know. */
struct command_note {
    enum event_kind kind;
    char secret[SECRET_TEXT]; /* made for this command; told once, stored nowhere */
    usec_t expires_us;
};

/*
 * request: our handle of the waiting gateway, for the reply. now_us: wall clock. On failure nothing
 * is made and err has code, pointer and text for the gateway. GatewayHello and Ping are no events:
 * ERR_WIRE_UNKNOWN_TYPE.
 */
int from_gateway_command(const Sheaf__Command *command, uint64_t request, int64_t now_us,
                         struct event_box **ret_box, struct command_note *ret_note,
                         struct err *err) SHEAF_MUST_USE;
/* ERR_OUT_OF_RANGE names the field. */
int from_gateway_hello(const Sheaf__GatewayHello *hello, struct gateway *ret_gateway,
                       struct err *err) SHEAF_MUST_USE;

/* A token command of the orchestrator itself, at set-up: no credential is looked up. */
struct event_box *system_token(enum role role, const char *secret, uint64_t request);

#endif
