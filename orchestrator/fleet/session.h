#ifndef SHEAF_ORCHESTRATOR_FLEET_SESSION_H
#define SHEAF_ORCHESTRATOR_FLEET_SESSION_H

/*
 * Sessions of workers: one record per live key, and the rules of a conversation. Identity is the
 * authenticated CURVE key alone; the routing id only says where to send. The newest hello of a key
 * wins, hello comes first, and frames of a key that is not here are dropped at once (libzmq cannot
 * disconnect one peer).
 *
 * Takes time as an argument; knows no sockets, protobuf or world.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/err.h"
#include "common/pure/id.h"
#include "common/pure/spec.h"

#define SESSION_PROTOCOL 1u
#define SESSION_NONCE    8
#define SESSION_MAX_PEER 64 /* routing ids of ours are 5 to 16 bytes */
#define SESSION_MAX_WRONG                                                                          \
    3u /* undecodable messages in SESSION_WRONG_US: the session is dropped                         \
        */
#define SESSION_WRONG_US ((int64_t)60000000)
/* Error answers: one a second, five at once; a confused peer must not make us a traffic source. */
#define SESSION_ANSWER_US    ((int64_t)1000000)
#define SESSION_ANSWER_BURST 5
/* Offences kept as rows: one a minute, five at once. */
#define SESSION_OFFENCE_US    ((int64_t)60000000)
#define SESSION_OFFENCE_BURST 5
/* A worker's clock further off than this is told: orders live five minutes by it. */
#define SESSION_SKEW_US ((int64_t)30000000)

/* A self-test that was ordered: the answer must be to this seed. */
struct session_seed {
    uint64_t seed;
    bool asked;
};

struct session {
    uint64_t node;
    struct uuid uid;
    uint8_t key[32];
    bool open; /* a hello was taken and nothing ended it */
    uint8_t peer[SESSION_MAX_PEER];
    size_t peer_size;
    uint8_t nonce[SESSION_NONCE];
    uint64_t boot;      /* of the hello */
    uint64_t first_seq; /* that it said would follow */
    uint64_t next_seq;  /* above every durable message of this session */
    uint64_t acked;     /* highest durable seq known committed, of this boot */
    int64_t wrong_us[SESSION_MAX_WRONG];
    uint32_t wrong;
    int64_t muted_until_us;
    int64_t answer_us;  /* token bucket: time up to which answers are spent */
    int64_t offence_us; /* the same for rows of offences */
    bool hang_up;       /* its connections are ended at the next tick, after what was answered */
    bool skewed;        /* its clock is off by more than SESSION_SKEW_US */
    struct session_seed seed[SPEC_MAX_GPUS_PER_NODE];
};

struct sessions;

struct sessions *sessions_new(void);
void sessions_free(struct sessions *sessions);
/* A key that may speak for a node. Known already: the same record, its session kept. */
struct session *sessions_allow(struct sessions *sessions, uint64_t node, const struct uuid *uid,
                               const uint8_t key[32]);
/* Ends the session and forgets the key; further frames of it find nothing. Returns the node or 0.
 */
uint64_t sessions_revoke(struct sessions *sessions, const uint8_t key[32]);
/* NULL when the key is none of a live node, or muted after too many undecodable messages. O(1). */
struct session *sessions_arrive(struct sessions *sessions, const uint8_t key[32], int64_t now_us);
/* By node; NULL when unknown. Also while no session is open. */
struct session *sessions_of(const struct sessions *sessions, uint64_t node);
uint32_t sessions_count(const struct sessions *sessions);
/* for (uint32_t i = 0; i < sessions_count(s); i++): order is not stable over removals. */
struct session *sessions_at(const struct sessions *sessions, uint32_t index);
uint32_t sessions_open_count(const struct sessions *sessions);

struct session_hello {
    const uint8_t *peer;
    size_t peer_size;
    const uint8_t *nonce; /* Envelope.session */
    size_t nonce_size;
    uint32_t protocol_min;
    uint32_t protocol_max;
    const uint8_t *node; /* the UUID it says it is */
    size_t node_size;
    uint64_t boot;
    uint64_t next_seq;
};

/*
 * Checks a hello without changing anything: ERR_WIRE_VERSION, ERR_WIRE_IDENTITY, ERR_WIRE_ENVELOPE
 * (sizes), ERR_WIRE_DECODE (numbers), ERR_WIRE_STATE (a second hello of the open session).
 */
int session_check_hello(const struct session *session, const struct session_hello *hello,
                        struct err *err) SHEAF_MUST_USE;
/* Opens the session that session_check_hello() accepted; the former one ends. */
void session_open(struct session *session, const struct session_hello *hello);
void session_close(struct session *session);

enum session_fate {
    SESSION_TAKE,
    SESSION_ACKED,  /* durable and committed already: acknowledge again, nothing else */
    SESSION_REFUSE, /* answer with err */
};
/*
 * A message that is no hello, from this routing id under this session's nonce. seq 0 = not durable.
 * A durable message below next_seq that is not acknowledged is taken again: the core is idempotent.
 * One below the first that the hello announced is ERR_WIRE_SEQUENCE: a new hello puts it right.
 * Gaps are the worker's own doing (it merges old receipts away): nothing is lost inside a session,
 * because a new connection has a new routing id and so needs a new hello.
 */
enum session_fate session_message(struct session *session, const uint8_t *peer, size_t peer_size,
                                  const uint8_t *nonce, size_t nonce_size, uint64_t seq,
                                  struct err *err);
/* A durable message is committed. False: there is nobody to tell now. */
bool session_ack(struct session *session, uint64_t seq);
/* An undecodable message. True when it was one too many: closed, and muted for a while. */
bool session_wrong(struct session *session, int64_t now_us);
/* Whether an error may be answered, or an offence be kept, now; counts it. */
bool session_may_answer(struct session *session, int64_t now_us);
bool session_may_tell(struct session *session, int64_t now_us);
/* Its clock at a heartbeat, and ours. True when it went wrong just now. */
bool session_clock(struct session *session, uint64_t sent_us, int64_t wall_us);

#endif
