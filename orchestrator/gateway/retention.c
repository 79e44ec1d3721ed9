#include "orchestrator/gateway/retention.h"

#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/log.h"
#include "common/pure/buf.h"
#include "common/pure/mem.h"
#include "orchestrator/gateway/content.h"
#include "orchestrator/gateway/db.h"

/* Log pieces of one transaction: some milliseconds, 64 MiB of a rank in one. */
#define STEP_PIECES 256
/* Looked through in one turn of the loop: a readdir each. */
#define TURN_FOLDERS 16u
/* Between two steps while there is something to do; and between two rounds over everything. */
#define STEP_PAUSE_US ((int64_t)50000)
#define ROUND_MAX_US  ((int64_t)600000000)
#define ROUND_MIN_US  ((int64_t)1000000)

struct retention {
    struct gateway *gateway;
    struct event *timer;
    int64_t keep_us;
    uint32_t folder; /* of the content store, being looked through; CONTENT_FOLDERS = none */
    struct content_old old;
    struct retention_counters counters;
};

static void wait_for(struct retention *retention, int64_t us)
{
    struct timeval after = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};

    BUG_ON(event_add(retention->timer, &after) != 0);
}

static int64_t cut_us(const struct retention *retention)
{
    return clock_wall_us() - retention->keep_us;
}

/* A tenth of the time, so that what is over does not stay much longer. */
static int64_t round_us(const struct retention *retention)
{
    int64_t us = retention->keep_us / 10;

    if (us > ROUND_MAX_US)
        return ROUND_MAX_US;
    return us < ROUND_MIN_US ? ROUND_MIN_US : us;
}

/* -- content -------------------------------------------------------------------------------- */

static void pause_round(struct retention *retention)
{
    wait_for(retention, retention->folder < CONTENT_FOLDERS ? STEP_PAUSE_US : round_us(retention));
}

static bool is_listed(const PGresult *rows, const uint8_t sha256[SHA256_SIZE])
{
    char hex[SHA256_HEX];

    hex_format(sha256, SHA256_SIZE, hex);
    for (int i = 0; i < PQntuples(rows); i++) {
        if (strcmp(PQgetvalue(rows, i, 0), hex) == 0)
            return true;
    }
    return false;
}

/* Rows of QUERY_CONTENT_NEEDED: what has to stay. */
static void on_needed(const struct err *err, PGresult *const *results, uint32_t count, uint64_t id,
                      void *arg)
{
    struct retention *retention = arg;
    struct content *content = retention->gateway->content;
    const struct content_old *old = &retention->old;

    (void)count;
    (void)id;
    if (err != NULL) {
        retention->old.count = 0; /* this folder again, from its first */
        wait_for(retention, round_us(retention));
        return;
    }
    for (uint32_t i = 0; i < old->count; i++) {
        if (!is_listed(results[0], old->sha256[i])
            && content_remove(content, old->sha256[i], cut_us(retention)))
            retention->counters.contents++;
    }
    if (old->count < CONTENT_OLD_MAX) { /* else there may be more of this folder */
        retention->old.count = 0;
        retention->folder++;
    }
    pause_round(retention);
}

/* False: nothing is old in the folders that this turn has time for. */
static bool find_old(struct retention *retention)
{
    struct content_old *old = &retention->old;

    for (uint32_t i = 0; i < TURN_FOLDERS && retention->folder < CONTENT_FOLDERS; i++) {
        content_list_old(retention->gateway->content, retention->folder, cut_us(retention), old);
        if (old->count > 0)
            return true;
        retention->folder++;
    }
    return false;
}

static void look_at_content(struct retention *retention)
{
    const struct content_old *old = &retention->old;
    struct db_args args;
    struct buf list;
    char hex[SHA256_HEX];

    if (!find_old(retention)) {
        pause_round(retention);
        return;
    }
    buf_init(&list, 0);
    for (uint32_t i = 0; i < old->count; i++)
        buf_printf(&list, "%s%s", i ? "," : "{", hex_format(old->sha256[i], SHA256_SIZE, hex));
    buf_puts(&list, "}");
    db_args_init(&args, QUERY_CONTENT_NEEDED);
    db_add_text(&args, list.data);
    buf_fini(&list);
    db_ask(retention->gateway->db, &db_sight_own, &args, 1, on_needed, 0, retention);
}

/* -- logs ----------------------------------------------------------------------------------- */

static void on_step(const struct err *err, PGresult *const *results, uint32_t count, uint64_t id,
                    void *arg)
{
    struct retention *retention = arg;

    (void)count;
    (void)id;
    if (err != NULL) {
        wait_for(retention, round_us(retention));
    } else if (db_int(results[0], 0, 0) > 0) {
        retention->counters.steps++;
        wait_for(retention, STEP_PAUSE_US);
    } else {
        retention->folder = 0;
        look_at_content(retention);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct retention *retention = arg;
    struct db_args args;

    (void)fd;
    (void)what;
    if (retention->folder < CONTENT_FOLDERS) {
        look_at_content(retention);
        return;
    }
    db_args_init(&args, QUERY_RETENTION_STEP);
    db_add_int(&args, cut_us(retention));
    db_add_int(&args, STEP_PIECES);
    db_ask(retention->gateway->db, &db_sight_own, &args, 1, on_step, 0, retention);
}

/* -- life ----------------------------------------------------------------------------------- */

struct retention *retention_new(struct gateway *gateway, int64_t keep_us)
{
    struct retention *retention = mem_new(1, sizeof(*retention));

    retention->gateway = gateway;
    retention->keep_us = keep_us;
    retention->folder = CONTENT_FOLDERS;
    retention->timer = evtimer_new(gateway->base, on_timer, retention);
    BUG_ON(retention->timer == NULL);
    wait_for(retention, round_us(retention));
    return retention;
}

void retention_free(struct retention *retention)
{
    if (retention == NULL)
        return;
    event_free(retention->timer);
    free(retention);
}

struct retention_counters retention_counters(const struct retention *retention)
{
    return retention->counters;
}
