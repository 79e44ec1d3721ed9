#include "orchestrator/gateway/queries.h"

#include "common/pure/err.h"

/* -- pieces --------------------------------------------------------------------------------- */
/* clang-format off */

/* bigint microseconds → RFC 3339 or null; exact, no float in between. */
#define TIME(c) \
    "to_char(timestamp 'epoch' + (" c ") * interval '1 microsecond'," \
    " 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
/* micro-units → decimal text with two to six places, as money_format writes it. */
#define MONEY(c) \
    "to_char((" c ")::numeric / 1000000, 'FM999999999999990.009999')"
#define BITS2(c, a, b) \
    "to_json(array_remove(array[" \
    "case when " c " & 1 <> 0 then '" a "' end, case when " c " & 2 <> 0 then '" b "' end], null))"
#define NODE_CONDITIONS(c) \
    "to_json(array_remove(array[" \
    "case when " c " & 1 <> 0 then 'unknown' end, case when " c " & 2 <> 0 then 'lost' end," \
    "case when " c " & 4 <> 0 then 'quarantined' end," \
    "case when " c " & 8 <> 0 then 'maintenance' end," \
    "case when " c " & 16 <> 0 then 'paused' end], null))"

/*
 * Text over rows (k bigint, j json), read one row beyond the limit: the last k in hex if there is
 * more, a space, the list of j. The answer is made from it in api.c, which knows how to seal a cursor.
 */
#define PAGE(rows, order, limit) \
    "(with page as (" rows " order by k " order " limit " limit "::bigint + 1)," \
    " counted as (select k, j, row_number() over (order by k " order ") as n from page)" \
    " select concat(case when count(*) > " limit "::bigint then" \
    " to_hex(max(k) filter (where n = " limit "::bigint)) end, ' '," \
    " coalesce(json_agg(j order by n) filter (where n <= " limit "::bigint), '[]'::json))" \
    " from counted)"

#define FINAL_STATES "('succeeded', 'failed', 'cancelled', 'expired', 'rejected')"

/* Part n of a reason's entry in the table given as text, which is read only if there is a reason. */
#define REASON_PART(reasons, reason, n) \
    "case when " reason " is not null then (select " reasons "::jsonb) -> " reason "::text ->> " n " end"

#define JOB_FIELDS(reasons) \
    "'id', j.uid, 'name', j.name, 'project', p.name, 'state', j.state," \
    " 'conditions', " BITS2("j.conditions", "degraded", "budget-low") "," \
    " 'reason', j.reason," \
    " 'reason_text', " REASON_PART(reasons, "j.reason", "0") "," \
    " 'hint', " REASON_PART(reasons, "j.reason", "1") "," \
    " 'class', nullif(j.class, 'none'), 'detail', nullif(j.detail, '')," \
    " 'nodes', coalesce(s.nodes, 1)," \
    " 'gpus_per_node', coalesce((s.resources #>> '{gpu,count}')::bigint, 1)," \
    " 'priority', s.priority," \
    " 'created_at', " TIME("j.created_us") ", 'state_since', " TIME("j.state_us") "," \
    " 'ended_at', " TIME("j.ended_us") "," \
    " 'exit_code', case when j.state in " FINAL_STATES " then j.exit_code end," \
    " 'epoch', j.epoch, 'attempts', j.attempts, 'attempt_id', a.uid," \
    " 'price_per_hour', " MONEY("a.price") ", 'diameter_us', a.diameter_us," \
    " 'hold', " MONEY("(select coalesce(sum(h.amount), 0) from transfer h" \
    " where h.job = j.id and h.kind = 'hold')") "," \
    " 'held', " MONEY("j.held") ", 'charged', " MONEY("j.charged") "," \
    " 'currency', s.budget ->> 'currency'"

/* The job file is read once per row, whatever is wanted of it. */
#define JOB_JOINS \
    " join project p on p.id = j.project left join attempt a on a.id = j.attempt" \
    " cross join lateral json_to_record(j.spec::json)" \
    " as s(nodes bigint, priority bigint, resources json, budget json) "
#define JOB_FROM " from job j" JOB_JOINS

#define JOB_RANKS(reasons) \
    "(select coalesce(json_agg(json_build_object('rank', r.rank, 'node', n.uid," \
    " 'node_name', n.name, 'region', n.region, 'country', n.country, 'state', r.state," \
    " 'exit_code', case when r.state in ('exited', 'done') then r.exit_code end," \
    " 'reason', r.reason, 'reason_text', " REASON_PART(reasons, "r.reason", "0") "," \
    " 'detail', nullif(r.detail, ''), 'address', n.address, 'port', nullif(r.port, 0))" \
    " order by r.rank), '[]'::json)" \
    " from gang_rank r join node n on n.id = r.node where r.attempt = j.attempt)"

/* Pairs of the placed gang from the link table, the worst first; bounded like why. */
#define JOB_PAIRS \
    "case when (j.spec::json ->> 'nodes')::bigint > 1 then" \
    " (select coalesce(json_agg(json_build_object('a', q.a, 'b', q.b, 'rtt_us', q.rtt)), '[]'::json)" \
    " from (select na.name as a, nb.name as b, l.rtt_p95_us as rtt" \
    " from gang_rank ra join gang_rank rb on rb.attempt = ra.attempt and ra.node < rb.node" \
    " join link l on l.a = ra.node and l.b = rb.node" \
    " join node na on na.id = ra.node join node nb on nb.id = rb.node" \
    " where ra.attempt = j.attempt order by l.rtt_p95_us desc, l.a, l.b limit 120) q) else '[]'::json end"

#define EVENT_JSON(reasons) \
    "json_build_object('id', e.id, 'at', " TIME("e.at_us") ", 'from', e.from_state," \
    " 'to', e.to_state, 'reason', e.reason," \
    " 'reason_text', " REASON_PART(reasons, "e.reason", "0") "," \
    " 'actor', e.actor, 'detail', nullif(e.detail, ''), 'attempt', ea.uid)"

#define NODE_DEVICES \
    "(select coalesce(json_agg(json_build_object('ordinal', d.ordinal, 'uuid', d.uuid," \
    " 'class', d.class, 'vendor', d.vendor, 'model', d.model, 'nominal_mib', d.nominal_mib," \
    " 'measured_mib', d.measured_mib, 'tier', d.tier, 'offered', d.offered," \
    " 'busy', exists (select from slot s join lease_slot ls on ls.slot = s.id and ls.live" \
    " where s.device = d.id), 'matmul_gflops', d.matmul_gflops, 'copy_mib_s', d.copy_mib_s," \
    " 'driver', d.driver) order by d.ordinal), '[]'::json) from device d where d.node = n.id)"

#define NODE_LEASES \
    "(select coalesce(json_agg(json_build_object('id', l.uid, 'job', s.job, 'attempt', s.attempt," \
    " 'rank', lr.rank, 'price_per_hour', " MONEY("l.price") ", 'granted_at', " TIME("l.granted_us") "," \
    " 'from', " TIME("l.meter_from_us") ", 'billed_ms', l.billed_ms, 'earned', " MONEY("l.earned") ")" \
    " order by l.id), '[]'::json) from lease l cross join lease_serves(l.attempt) s" \
    " join gang_rank lr on lr.id = l.rank" \
    " where l.node = n.id and l.ended_us is null)"

/* `mine`: address, leases and earnings are the owner's and the operator's to see. */
#define NODE_JSON(mine) \
    "json_build_object('id', n.uid, 'name', n.name, 'provider', v.name, 'state', n.state," \
    " 'conditions', " NODE_CONDITIONS("n.conditions") ", 'reason', n.reason," \
    " 'detail', nullif(n.detail, ''), 'region', n.region, 'country', n.country," \
    " 'address', case when " mine " then n.address end, 'runtime', n.runtime," \
    " 'version', n.version, 'price_per_hour', " MONEY("n.price") "," \
    " 'cpu_milli', n.cpu_milli, 'memory_mib', n.memory_mib, 'disk_mib', n.disk_mib," \
    " 'seen_at', " TIME("n.seen_us") ", 'devices', " NODE_DEVICES "," \
    " 'leases', case when " mine " then " NODE_LEASES " else '[]'::json end," \
    " 'earned', case when " mine " then " \
    MONEY("(select coalesce(sum(l.earned), 0) from lease l where l.node = n.id)") " end)"

#define SCOPE_NAMES(scopes, column) \
    "(select coalesce(json_agg(s.key order by s.value::bigint), '[]'::json)" \
    " from jsonb_each_text(" scopes "::jsonb) s where " column " & s.value::bigint <> 0)"

#define TOKEN_JSON(scopes) \
    "json_build_object('id', t.uid, 'prefix', t.prefix, 'project', p.name, 'provider', v.name," \
    " 'user', u.name, 'role', t.role, 'scopes', " SCOPE_NAMES(scopes, "t.scopes") "," \
    " 'created_at', " TIME("t.created_us") ", 'expires_at', " TIME("t.expires_us") "," \
    " 'revoked_at', " TIME("t.revoked_us") ")"
#define TOKEN_FROM \
    " from token t left join project p on p.id = t.project left join provider v" \
    " on v.id = t.provider left join app_user u on u.id = t.\"user\" "

#define SEES_JOB "($1::boolean or j.project = $2::bigint)"

/* Either half has an index for what it sees; a condition that is true for one caller has none. */
#define JOBS_PAGE(sees) \
    "(select x.* from job x where " sees " and ($5::bigint is null or x.id < $5::bigint)" \
    " and ($6::text is null or x.state = $6::text" \
    " or ($6::text = 'live' and x.state not in " FINAL_STATES "))" \
    " and ($7::text is null or x.name = $7::text) order by x.id desc limit $4::bigint + 1)"

/* -- the table ------------------------------------------------------------------------------ */

static const struct query queries[QUERY_COUNT] = {
    [QUERY_NONE] = {"none", "select null::text", {0}},

    [QUERY_JOBS] = {"jobs",
        "select " PAGE(
        "select j.id as k, json_build_object(" JOB_FIELDS("$3") ") as j from ("
        JOBS_PAGE("$1::boolean") " union all "
        JOBS_PAGE("not $1::boolean and x.project = $2::bigint") ") j" JOB_JOINS,
        "desc", "$4"),
        {PARAM_ALL, PARAM_PROJECT, PARAM_REASONS, PARAM_LIMIT, PARAM_CURSOR, PARAM_STATE,
         PARAM_NAME}},

    [QUERY_JOB] = {"job",
        "select json_build_object(" JOB_FIELDS("$3") ", 'spec', j.spec::json,"
        " 'ranks', " JOB_RANKS("$3") ", 'pairs', " JOB_PAIRS ")::text" JOB_FROM
        "where " SEES_JOB " and j.uid = $4::uuid",
        {PARAM_ALL, PARAM_PROJECT, PARAM_REASONS, PARAM_OBJECT}},

    [QUERY_JOB_WHY] = {"job_why",
        "select (coalesce(j.why, '{}'::jsonb) || jsonb_build_object('id', j.uid, 'state', j.state,"
        " 'reason', j.reason, 'reason_text', " REASON_PART("$3", "j.reason", "0") ","
        " 'hint', " REASON_PART("$3", "j.reason", "1") ", 'state_detail', nullif(j.detail, ''),"
        " 'not_before', " TIME("j.not_before_us") "))::text from job j"
        " where " SEES_JOB " and j.uid = $4::uuid",
        {PARAM_ALL, PARAM_PROJECT, PARAM_REASONS, PARAM_OBJECT}},

    [QUERY_JOB_EVENTS] = {"job_events",
        "select " PAGE(
        "select e.id as k, " EVENT_JSON("$3") " as j from job_event e"
        " left join attempt ea on ea.id = e.attempt"
        " where e.job = j.id and ($6::bigint is null or e.id > $6::bigint)", "asc", "$5")
        " from job j where " SEES_JOB " and j.uid = $4::uuid",
        {PARAM_ALL, PARAM_PROJECT, PARAM_REASONS, PARAM_OBJECT, PARAM_LIMIT, PARAM_CURSOR}},

    [QUERY_JOB_COST] = {"job_cost",
        "select json_build_object('job', j.uid, 'currency', j.spec::json #>> '{budget,currency}',"
        " 'hold', " MONEY("t.hold") ", 'held', " MONEY("j.held") ", 'charged', " MONEY("j.charged") ","
        " 'earned', " MONEY("t.earned") ", 'fee', " MONEY("t.fee") ", 'refunded', " MONEY("t.refunded") ","
        " 'balanced', t.hold = j.held + j.charged + t.refunded and j.charged = t.earned + t.fee,"
        " 'lines', (select coalesce(json_agg(json_build_object('attempt', a.epoch,"
        " 'attempt_id', a.uid, 'rank', r.rank, 'node', n.name, 'provider', v.name,"
        " 'price_per_hour', " MONEY("l.price") ", 'from', " TIME("l.meter_from_us") ","
        " 'to', " TIME("l.meter_to_us") ", 'billed_ms', l.billed_ms,"
        " 'charge', " MONEY("l.earned + l.fee") ", 'earned', " MONEY("l.earned") ","
        " 'fee', " MONEY("l.fee") ") order by a.epoch, r.rank), '[]'::json)"
        " from lease l join attempt a on a.id = l.attempt join gang_rank r on r.id = l.rank"
        " join node n on n.id = l.node join provider v on v.id = l.provider where a.job = j.id),"
        " 'transfers', (select coalesce(json_agg(json_build_object('id', x.id, 'kind', x.kind,"
        " 'amount', " MONEY("x.amount") ", 'at', " TIME("x.at_us") ", 'memo', nullif(x.memo, ''))"
        " order by x.id), '[]'::json) from transfer x where x.job = j.id))::text"
        " from job j cross join lateral (select"
        " coalesce(sum(x.amount) filter (where x.kind = 'hold'), 0) as hold,"
        " coalesce(sum(x.amount) filter (where x.kind = 'earn'), 0) as earned,"
        " coalesce(sum(x.amount) filter (where x.kind = 'fee'), 0) as fee,"
        " coalesce(sum(x.amount) filter (where x.kind in ('release', 'refund')), 0) as refunded"
        " from transfer x where x.job = j.id) t where " SEES_JOB " and j.uid = $3::uuid",
        {PARAM_ALL, PARAM_PROJECT, PARAM_OBJECT}},

    [QUERY_JOB_OUTPUTS] = {"job_outputs",
        "select " PAGE(
        "select o.id as k, json_build_object('rank', o.rank, 'path', o.path,"
        " 'sha256', encode(o.sha256, 'hex'), 'size', o.size, 'attempt', a.epoch,"
        " 'attempt_id', a.uid, 'stored_at', " TIME("o.stored_us") ") as j"
        " from job_output o join attempt a on a.id = o.attempt"
        " where o.job = j.id and ($5::bigint is null or o.id > $5::bigint)", "asc", "$4")
        " from job j where " SEES_JOB " and j.uid = $3::uuid",
        {PARAM_ALL, PARAM_PROJECT, PARAM_OBJECT, PARAM_LIMIT, PARAM_CURSOR}},

    /* Proven capacity alone: a claimed device is in no public total. */
    [QUERY_OFFERS] = {"offers",
        "select " PAGE(
        "select * from (select row_number() over (order by n.id, d.class, d.model, d.nominal_mib,"
        " d.measured_mib, d.tier, d.vendor) as k, json_build_object('node', n.uid,"
        " 'node_name', n.name, 'provider', v.name, 'region', n.region, 'country', n.country,"
        " 'class', d.class, 'model', d.model, 'vendor', d.vendor, 'nominal_mib', d.nominal_mib,"
        " 'measured_mib', d.measured_mib, 'tier', d.tier, 'devices', count(*),"
        " 'devices_free', count(*) filter (where d.offered and n.state = 'ready'"
        " and n.conditions = 0 and not exists (select from slot s join lease_slot ls"
        " on ls.slot = s.id and ls.live where s.device = d.id)),"
        " 'price_per_hour', " MONEY("n.price") ", 'state', n.state) as j"
        " from node n join provider v on v.id = n.provider join device d on d.node = n.id"
        " where n.state in ('ready', 'draining') and d.tier <> 'claimed'"
        " group by n.id, v.name, d.class, d.model, d.vendor, d.nominal_mib, d.measured_mib, d.tier"
        ") o where $2::bigint is null or o.k > $2::bigint", "asc", "$1"),
        {PARAM_LIMIT, PARAM_CURSOR}},

    [QUERY_NODES] = {"nodes",
        "select " PAGE(
        "select n.id as k, " NODE_JSON("($1::boolean or n.provider = $2::bigint)") " as j"
        " from node n join provider v on v.id = n.provider"
        " where ($1::boolean or $2::bigint is null or n.provider = $2::bigint)"
        " and ($4::bigint is null or n.id > $4::bigint)"
        " and (n.state = $5::text or ($5::text is null and n.state <> 'gone'))"
        " and ($6::text is null or n.name = $6::text)", "asc", "$3"),
        {PARAM_ALL, PARAM_PROVIDER, PARAM_LIMIT, PARAM_CURSOR, PARAM_STATE, PARAM_NAME}},

    [QUERY_NODE] = {"node",
        "select " NODE_JSON("($1::boolean or n.provider = $2::bigint)") "::text"
        " from node n join provider v on v.id = n.provider"
        " where ($1::boolean or $2::bigint is null or n.provider = $2::bigint)"
        " and n.uid = $3::uuid",
        {PARAM_ALL, PARAM_PROVIDER, PARAM_OBJECT}},

    [QUERY_PAIRS] = {"pairs",
        "select " PAGE(
        "select * from (select row_number() over (order by l.a, l.b) as k,"
        " json_build_object('a', na.name, 'b', nb.name, 'a_id', na.uid, 'b_id', nb.uid,"
        " 'rtt_p50_us', nullif(l.rtt_p50_us, 0), 'rtt_p95_us', nullif(l.rtt_p95_us, 0),"
        " 'loss_ppm', l.loss_ppm, 'reach_ab', l.reach_ab, 'reach_ba', l.reach_ba,"
        " 'measured_at', " TIME("l.measured_us") ") as j from link l"
        " join node na on na.id = l.a and na.state <> 'gone'"
        " join node nb on nb.id = l.b and nb.state <> 'gone') o"
        " where $2::bigint is null or o.k > $2::bigint", "asc", "$1"),
        {PARAM_LIMIT, PARAM_CURSOR}},

    [QUERY_JOIN_TOKENS] = {"join_tokens",
        "select " PAGE(
        "select t.id as k, json_build_object('id', t.uid, 'provider', v.name,"
        " 'uses_left', t.uses_left, 'created_at', " TIME("t.created_us") ","
        " 'expires_at', " TIME("t.expires_us") ") as j from join_token t"
        " left join provider v on v.id = t.provider"
        " where ($1::boolean or t.provider = $2::bigint)"
        " and ($4::bigint is null or t.id < $4::bigint)", "desc", "$3"),
        {PARAM_ALL, PARAM_PROVIDER, PARAM_LIMIT, PARAM_CURSOR}},

    [QUERY_ACCOUNTS] = {"accounts",
        "select " PAGE(
        "select c.id as k, json_build_object('id', c.uid, 'project', p.name, 'provider', v.name,"
        " 'owner', coalesce(p.name, v.name, 'operator'), 'purpose', c.purpose, 'asset', c.asset,"
        " 'balance', " MONEY("c.balance") ") as j from account c"
        " left join project p on p.id = c.project left join provider v on v.id = c.provider"
        " where ($1::boolean or c.project = $2::bigint or c.provider = $3::bigint)"
        " and ($5::bigint is null or c.id > $5::bigint)", "asc", "$4"),
        {PARAM_ALL, PARAM_PROJECT, PARAM_PROVIDER, PARAM_LIMIT, PARAM_CURSOR}},

    /* The other side is named by purpose alone: whose account it is, is not the reader's to know. */
    [QUERY_LEDGER] = {"ledger",
        "select " PAGE(
        "select x.id as k, json_build_object('id', x.id, 'kind', x.kind,"
        " 'direction', case when x.credit = c.id then 'in' else 'out' end,"
        " 'amount', " MONEY("x.amount") ", 'asset', x.asset,"
        " 'other', purpose_of(case when x.credit = c.id then x.debit else x.credit end),"
        " 'job', job_uid(x.job), 'at', " TIME("x.at_us") ","
        " 'memo', nullif(x.memo, ''), 'hash', encode(x.hash, 'hex')) as j"
        " from transfer x"
        " where (x.debit = c.id or x.credit = c.id)"
        " and ($6::bigint is null or x.id < $6::bigint)", "desc", "$5")
        " from account c where c.uid = $4::uuid"
        " and ($1::boolean or c.project = $2::bigint or c.provider = $3::bigint)",
        {PARAM_ALL, PARAM_PROJECT, PARAM_PROVIDER, PARAM_OBJECT, PARAM_LIMIT, PARAM_CURSOR}},

    [QUERY_PROJECTS] = {"projects",
        "select " PAGE(
        "select p.id as k, json_build_object('id', p.uid, 'name', p.name,"
        " 'created_at', " TIME("p.created_us") ") as j from project p"
        " where ($1::boolean or p.id = $2::bigint)"
        " and ($4::bigint is null or p.id > $4::bigint)", "asc", "$3"),
        {PARAM_ALL, PARAM_PROJECT, PARAM_LIMIT, PARAM_CURSOR}},

    [QUERY_PROJECT] = {"project",
        "select json_build_object('id', p.uid, 'name', p.name,"
        " 'created_at', " TIME("p.created_us") ")::text from project p"
        " where ($1::boolean or p.id = $2::bigint) and p.uid = $3::uuid",
        {PARAM_ALL, PARAM_PROJECT, PARAM_OBJECT}},

    [QUERY_USERS] = {"users",
        "select " PAGE(
        "select u.id as k, json_build_object('id', u.uid, 'name', u.name, 'role', u.role,"
        " 'created_at', " TIME("u.created_us") ") as j from app_user u"
        " where $1::boolean and ($3::bigint is null or u.id > $3::bigint)", "asc", "$2"),
        {PARAM_ALL, PARAM_LIMIT, PARAM_CURSOR}},

    [QUERY_USER] = {"user_one",
        "select json_build_object('id', u.uid, 'name', u.name, 'role', u.role,"
        " 'created_at', " TIME("u.created_us") ")::text from app_user u"
        " where $1::boolean and u.uid = $2::uuid",
        {PARAM_ALL, PARAM_OBJECT}},

    [QUERY_TOKENS] = {"tokens",
        "select " PAGE(
        "select t.id as k, " TOKEN_JSON("$3") " as j" TOKEN_FROM
        "where ($1::boolean or t.project = $2::bigint)"
        " and ($5::bigint is null or t.id < $5::bigint)", "desc", "$4"),
        {PARAM_ALL, PARAM_PROJECT, PARAM_SCOPES, PARAM_LIMIT, PARAM_CURSOR}},

    [QUERY_TOKEN] = {"token",
        "select " TOKEN_JSON("$3") "::text" TOKEN_FROM
        "where ($1::boolean or t.project = $2::bigint) and t.uid = $4::uuid",
        {PARAM_ALL, PARAM_PROJECT, PARAM_SCOPES, PARAM_OBJECT}},

    [QUERY_WHOAMI] = {"whoami",
        "select json_build_object('role', t.role, 'project', p.name, 'provider', v.name,"
        " 'user', u.name, 'scopes', " SCOPE_NAMES("$2", "t.scopes") ","
        " 'expires_at', " TIME("t.expires_us") ")::text" TOKEN_FROM "where t.id = $1::bigint",
        {PARAM_TOKEN, PARAM_SCOPES}},

    [QUERY_SUMMARY] = {"summary",
        "select json_build_object("
        "'nodes', (select coalesce(json_object_agg(s.state, s.n), '{}'::json)"
        " from (select state, count(*) as n from node group by state order by state) s),"
        " 'jobs', (select coalesce(json_object_agg(s.state, s.n), '{}'::json)"
        " from (select state, count(*) as n from job group by state order by state) s),"
        " 'unknown', (select count(*) from node where conditions & 3 <> 0 and state <> 'gone'),"
        " 'devices', (select count(*) from device d join node n on n.id = d.node"
        " where n.state = 'ready' and d.tier <> 'claimed'),"
        " 'leased', (select count(*) from lease_slot where live))::text",
        {PARAM_END}},

    /* Of the session: db.c says it again whenever the next request has another, or one failed. */
    [QUERY_SIGHT] = {"sight",
        "select set_config('sheaf.sees_all', $1::text, false),"
        " set_config('sheaf.project', $2::text, false),"
        " set_config('sheaf.provider', $3::text, false)",
        {0}},

    [QUERY_AUTH] = {"auth",
        "select t.id, t.project, t.provider, t.role, t.scopes, t.expires_us, p.name, v.name, t.uid"
        " from token t left join project p on p.id = t.project"
        " left join provider v on v.id = t.provider"
        " where t.hash = $1::bytea and t.revoked_us is null",
        {0}},

    [QUERY_TERM] = {"term", "select term from control", {0}},

    [QUERY_NODE_KEYS] = {"node_keys",
        "select encode(curve_key, 'hex') from node where state <> 'gone'", {0}},

    [QUERY_EVENTS_AFTER] = {"events_after",
        "select j.state, e.id, " EVENT_JSON("$5") "::text, e.to_state from job j"
        " left join lateral (select * from job_event x where x.job = j.id and x.id > $4::bigint"
        " order by x.id limit 100) e on true left join attempt ea on ea.id = e.attempt"
        " where " SEES_JOB " and j.uid = $3::uuid order by e.id",
        {0}},

    [QUERY_LOG_JOB] = {"log_job",
        "select j.state, a.epoch, a.uid, a.created_us / 86400000000,"
        " a.state = 'ended' or a.id <> j.attempt,"
        " coalesce((j.spec::json ->> 'nodes')::bigint, 1),"
        " coalesce((j.spec::json #>> '{resources,gpu,count}')::bigint, 1),"
        " coalesce(j.spec::json ->> 'launch', 'node'),"
        " exists (select from retention r where (j.ended_us, j.id) <= (r.swept_us, r.swept_job)),"
        " not exists (select from gang_rank g where g.attempt = a.id and g.state <> 'done')"
        " from job j left join lateral"
        " (select * from attempt x where x.job = j.id and x.epoch >= $4::bigint"
        " order by x.epoch limit 1) a on true where " SEES_JOB " and j.uid = $3::uuid",
        {0}},

    [QUERY_LOG_PAGE] = {"log_page",
        "select l.rank, l.stream, l.seq, l.at_us, l.raw_size, l.last, l.data"
        " from unnest($3::integer[], $4::smallint[], $5::bigint[]) as c(rank, stream, seq)"
        " cross join lateral (select * from log_piece x where x.day = $1::integer"
        " and x.attempt = $2::uuid and x.rank = c.rank and x.stream = c.stream and x.seq >= c.seq"
        " order by x.seq limit $6::bigint) l"
        " order by l.at_us, l.rank, l.stream, l.seq limit $6::bigint",
        {0}},

    [QUERY_LOG_INSERT] = {"log_insert",
        "insert into log_piece (day, attempt, rank, stream, seq, at_us, raw_size, last, data)"
        " values ($1::integer, $2::uuid, $3::integer, $4::smallint, $5::bigint, $6::bigint,"
        " $7::integer, $8::boolean, $9::bytea) on conflict do nothing",
        {0}},

    [QUERY_RETENTION_STEP] = {"retention_step",
        "select retention_step($1::bigint, $2::integer)",
        {0}},

    /* The states are those of the index job_live. */
    [QUERY_CONTENT_NEEDED] = {"content_needed",
        "select h from unnest($1::text[]) h where exists (select from job_output o"
        " join job j on j.id = o.job cross join retention r where o.sha256 = decode(h, 'hex')"
        " and (j.ended_us is null or (j.ended_us, j.id) > (r.swept_us, r.swept_job)))"
        " union select f ->> 'sha256' from job j cross join lateral jsonb_array_elements("
        "coalesce(j.spec::jsonb -> 'files', '[]'::jsonb)) f where j.state not in"
        " ('succeeded', 'failed', 'cancelled', 'expired', 'rejected')"
        " and f ->> 'sha256' = any($1::text[])",
        {0}},

    [QUERY_OUTPUT_FILE] = {"output_file",
        "select encode(o.sha256, 'hex'), o.size, o.path, j.name from job j"
        " join job_output o on o.job = j.id"
        " where " SEES_JOB " and j.uid = $3::uuid and o.rank = $4::integer"
        " and ($5::text is null or o.path = $5::text) order by o.attempt desc, o.path limit 1",
        {0}},

    [QUERY_CONTENT_HAS] = {"content_has",
        "select p.name, c.size from project p"
        " left join content c on c.project = p.id and c.sha256 = $3::bytea"
        " where p.id = $2::bigint or ($4::boolean and p.name = $1::text)",
        {0}},

    [QUERY_BULK_RANK] = {"bulk_rank",
        "select n.uid, r.rank, a.created_us / 86400000000, j.uid, a.epoch,"
        " coalesce((j.spec::json #>> '{resources,gpu,count}')::bigint, 1),"
        " coalesce(j.spec::json ->> 'launch', 'node')"
        " from attempt a join gang_rank r on r.attempt = a.id join node n on n.id = r.node"
        " join job j on j.id = a.job where a.uid = $1::uuid and n.curve_key = $2::bytea"
        " and n.state <> 'gone'",
        {0}},

    [QUERY_BULK_FETCH] = {"bulk_fetch",
        "select 1 from attempt a join gang_rank r on r.attempt = a.id"
        " join node n on n.id = r.node join job j on j.id = a.job"
        " join content c on c.project = j.project and c.sha256 = decode($3::text, 'hex')"
        " where a.uid = $1::uuid and n.curve_key = $2::bytea and n.state <> 'gone'"
        " and a.state <> 'ended' and (j.spec::jsonb #>> '{image,sha256}' = $3::text"
        " or exists (select from jsonb_array_elements("
        " coalesce(j.spec::jsonb -> 'files', '[]'::jsonb)) f where f ->> 'sha256' = $3::text))",
        {0}},

    [QUERY_BULK_OUTPUT] = {"bulk_output",
        "select n.uid, encode(o.sha256, 'hex'), a.state <> 'ended' from attempt a"
        " join gang_rank r on r.attempt = a.id join node n on n.id = r.node"
        " join job j on j.id = a.job"
        " left join job_output o on o.attempt = a.id and o.rank = r.rank and o.path = $4::text"
        " where a.uid = $1::uuid and n.curve_key = $2::bytea and n.state <> 'gone'"
        " and r.rank = $3::integer and j.spec::jsonb -> 'outputs' ? $4::text",
        {0}},
};
/* clang-format on */

const struct query *query_get(enum query_id id)
{
    BUG_ON(id >= QUERY_COUNT);
    return &queries[id];
}

bool query_reads(enum query_id id)
{
    return id != QUERY_LOG_INSERT;
}
