#include "orchestrator/fleet/session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/map.h"
#include "common/pure/mem.h"

struct sessions {
    struct map by_key;
    struct map by_node;
};

struct sessions *sessions_new(void)
{
    struct sessions *sessions = mem_new(1, sizeof(*sessions));

    map_init(&sessions->by_key);
    map_init(&sessions->by_node);
    return sessions;
}

void sessions_free(struct sessions *sessions)
{
    if (sessions == NULL)
        return;
    for (uint32_t i = 0; i < sessions->by_key.count; i++)
        free(map_at(&sessions->by_key, i));
    map_fini(&sessions->by_key);
    map_fini(&sessions->by_node);
    free(sessions);
}

struct session *sessions_allow(struct sessions *sessions, uint64_t node, const struct uuid *uid,
                               const uint8_t key[32])
{
    struct session *session = map_get(&sessions->by_key, key, 32);

    if (session && session->node == node)
        return session;
    /* A node has one key and a key one node: whoever held either before is gone. */
    if (session)
        sessions_revoke(sessions, key);
    session = map_get_id(&sessions->by_node, node);
    if (session)
        sessions_revoke(sessions, session->key);
    session = mem_new(1, sizeof(*session));
    session->node = node;
    session->uid = *uid;
    memcpy(session->key, key, sizeof(session->key));
    map_put(&sessions->by_key, key, 32, session);
    map_put_id(&sessions->by_node, node, session);
    return session;
}

uint64_t sessions_revoke(struct sessions *sessions, const uint8_t key[32])
{
    struct session *session = map_remove(&sessions->by_key, key, 32);
    uint64_t node;

    if (session == NULL)
        return 0;
    node = session->node;
    map_remove_id(&sessions->by_node, node);
    free(session);
    return node;
}

struct session *sessions_arrive(struct sessions *sessions, const uint8_t key[32], int64_t now_us)
{
    struct session *session = map_get(&sessions->by_key, key, 32);

    if (session == NULL || now_us < session->muted_until_us)
        return NULL;
    return session;
}

struct session *sessions_of(const struct sessions *sessions, uint64_t node)
{
    return map_get_id(&sessions->by_node, node);
}

uint32_t sessions_count(const struct sessions *sessions)
{
    return sessions->by_key.count;
}

struct session *sessions_at(const struct sessions *sessions, uint32_t index)
{
    return map_at(&sessions->by_key, index);
}

uint32_t sessions_open_count(const struct sessions *sessions)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < sessions_count(sessions); i++)
        count += sessions_at(sessions, i)->open ? 1 : 0;
    return count;
}

static bool same_peer(const struct session *session, const uint8_t *peer, size_t peer_size)
{
    return session->peer_size == peer_size && memcmp(session->peer, peer, peer_size) == 0;
}

static bool same_nonce(const struct session *session, const uint8_t *nonce, size_t nonce_size)
{
    return nonce_size == SESSION_NONCE && memcmp(session->nonce, nonce, SESSION_NONCE) == 0;
}

int session_check_hello(const struct session *session, const struct session_hello *hello,
                        struct err *err)
{
    if (hello->nonce_size != SESSION_NONCE || hello->peer_size == 0
        || hello->peer_size > SESSION_MAX_PEER)
        return err_set(err, ERR_WIRE_ENVELOPE, "session is %d random bytes", SESSION_NONCE);
    if (hello->protocol_min > SESSION_PROTOCOL || hello->protocol_max < SESSION_PROTOCOL)
        return err_set(err, ERR_WIRE_VERSION,
                       "the worker speaks %" PRIu32 " to %" PRIu32 ", we speak %u",
                       hello->protocol_min, hello->protocol_max, SESSION_PROTOCOL);
    if (hello->node_size != sizeof(session->uid.bytes)
        || memcmp(hello->node, session->uid.bytes, sizeof(session->uid.bytes)) != 0)
        return err_set(err, ERR_WIRE_IDENTITY, "hello names a node that is not this key's");
    if (hello->boot > INT64_MAX || hello->next_seq > INT64_MAX)
        return err_set(err, ERR_WIRE_DECODE, "start or sequence number out of range");
    if (session->open && same_peer(session, hello->peer, hello->peer_size)
        && same_nonce(session, hello->nonce, hello->nonce_size))
        return err_set(err, ERR_WIRE_STATE, "second hello in one session");
    return 0;
}

void session_open(struct session *session, const struct session_hello *hello)
{
    if (hello->boot != session->boot)
        session->acked = 0;
    session->open = true;
    memcpy(session->peer, hello->peer, hello->peer_size);
    session->peer_size = hello->peer_size;
    memcpy(session->nonce, hello->nonce, SESSION_NONCE);
    session->boot = hello->boot;
    session->first_seq = hello->next_seq ? hello->next_seq : 1;
    session->next_seq = session->first_seq;
    session->hang_up = false;
}

void session_close(struct session *session)
{
    session->open = false;
}

enum session_fate session_message(struct session *session, const uint8_t *peer, size_t peer_size,
                                  const uint8_t *nonce, size_t nonce_size, uint64_t seq,
                                  struct err *err)
{
    if (!session->open || !same_peer(session, peer, peer_size)
        || !same_nonce(session, nonce, nonce_size)) {
        err_set(err, ERR_WIRE_STATE,
                session->open ? "not the open session of this key; say hello"
                              : "hello comes first");
        return SESSION_REFUSE;
    }
    if (seq == 0)
        return SESSION_TAKE;
    if (seq <= session->acked)
        return SESSION_ACKED;
    if (seq > INT64_MAX) {
        err_set(err, ERR_WIRE_DECODE, "sequence number out of range");
        return SESSION_REFUSE;
    }
    if (seq < session->first_seq) {
        err_set(err, ERR_WIRE_SEQUENCE, "message %" PRIu64 " after a hello that began at %" PRIu64,
                seq, session->first_seq);
        return SESSION_REFUSE;
    }
    if (seq >= session->next_seq)
        session->next_seq = seq + 1;
    return SESSION_TAKE;
}

bool session_ack(struct session *session, uint64_t seq)
{
    if (seq >= session->next_seq)
        return false;
    if (seq > session->acked)
        session->acked = seq; /* closed meanwhile: the next welcome says it */
    return session->open;
}

bool session_wrong(struct session *session, int64_t now_us)
{
    uint32_t recent = 0;

    session->wrong_us[session->wrong++ % SESSION_MAX_WRONG] = now_us;
    if (session->wrong < SESSION_MAX_WRONG)
        return false;
    for (uint32_t i = 0; i < SESSION_MAX_WRONG; i++)
        recent += now_us - session->wrong_us[i] < SESSION_WRONG_US ? 1 : 0;
    if (recent < SESSION_MAX_WRONG)
        return false;
    session_close(session);
    session->wrong = 0;
    session->muted_until_us = now_us + SESSION_WRONG_US;
    session->hang_up = true;
    return true;
}

/* One each `each_us`, `burst` at once. */
static bool bucket_take(int64_t *spent_us, int64_t now_us, int64_t each_us, int burst)
{
    int64_t earliest = now_us - burst * each_us;

    if (*spent_us < earliest)
        *spent_us = earliest;
    if (*spent_us + each_us > now_us)
        return false;
    *spent_us += each_us;
    return true;
}

bool session_may_answer(struct session *session, int64_t now_us)
{
    return bucket_take(&session->answer_us, now_us, SESSION_ANSWER_US, SESSION_ANSWER_BURST);
}

bool session_may_tell(struct session *session, int64_t now_us)
{
    return bucket_take(&session->offence_us, now_us, SESSION_OFFENCE_US, SESSION_OFFENCE_BURST);
}

bool session_clock(struct session *session, uint64_t sent_us, int64_t wall_us)
{
    bool was = session->skewed;
    int64_t theirs = sent_us > INT64_MAX ? INT64_MAX : (int64_t)sent_us;

    if (sent_us == 0)
        return false; /* it told none */
    session->skewed =
        theirs > wall_us ? theirs - wall_us > SESSION_SKEW_US : wall_us - theirs > SESSION_SKEW_US;
    return session->skewed && !was;
}
