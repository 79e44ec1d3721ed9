#include "worker/runtime/filter.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/runtime/spawn.h"

/* nft takes milliseconds; this is for a machine that swaps. */
#define NFT_TIMEOUT_MS 10000
/* Of the tasks without peers. */
#define GUARD_TABLE "sheaf_alone"
#define GUARD_CHAIN "output"
/* Netlink's own macros are signed. */
#define ALIGNED(size) (((size_t)(size) + 3) & ~(size_t)3)
#define ATTRIBUTE     ALIGNED(sizeof(struct nlattr))
#define MESSAGE       ALIGNED(sizeof(struct nlmsghdr))

static int nft_run(const char *script, struct err *err)
{
    char path[FS_PATH];
    const char *const argv[] = {path, "-f", "-", NULL};
    struct err detail = {0};
    struct buf output;

    if (spawn_find("nft", path) != 0)
        return err_set(err, ERR_UNSUPPORTED_HERE, "nft is not installed; apt-get install nftables");
    buf_init(&output, 0);
    int rc = spawn_run(argv, script, NFT_TIMEOUT_MS, &output, &detail);
    buf_fini(&output);
    return rc == 0 ? 0 : err_set(err, ERR_UNSUPPORTED_HERE, "nft: %.200s", detail.text);
}

/* nft identifiers have no dash. */
static void table_name(const char *name, char out[128])
{
    snprintf(out, 128, "sheaf_%s", name);
    for (char *at = out; *at != '\0'; at++) {
        if (!isalnum((unsigned char)*at))
            *at = '_';
    }
}

static int add_peers(const struct spec_texts *peers, int family, struct buf *script,
                     struct err *err)
{
    uint8_t address[16];
    uint32_t added = 0;

    for (uint32_t i = 0; i < peers->count; i++) {
        const char *peer = peers->items[i];
        int other = family == AF_INET ? AF_INET6 : AF_INET;
        if (inet_pton(family, peer, address) != 1) {
            if (inet_pton(other, peer, address) == 1)
                continue;
            return err_set(err, ERR_OUT_OF_RANGE, "peer %.60s is not an address", peer);
        }
        if (added++ == 0)
            buf_printf(script, "    %s daddr { ", family == AF_INET ? "ip" : "ip6");
        else
            buf_puts(script, ", ");
        buf_puts(script, peer);
    }
    if (added > 0)
        buf_puts(script, " } accept\n");
    return 0;
}

int filter_script(const char *name, uid_t uid, enum filter_mode mode,
                  const struct spec_texts *peers, struct buf *ret_script, struct err *err)
{
    char table[128];

    table_name(name, table);
    /* Adding first makes the delete succeed when there is none. */
    buf_printf(ret_script,
               "add table inet %s\n"
               "delete table inet %s\n"
               "table inet %s {\n"
               "  chain output {\n"
               "    type filter hook output priority 0; policy accept;\n"
               "    meta skuid != %u accept\n"
               "    oif lo accept\n"
               "    ct state established,related accept\n",
               table, table, table, (unsigned)uid);
    int rc = add_peers(peers, AF_INET, ret_script, err);
    if (rc == 0)
        rc = add_peers(peers, AF_INET6, ret_script, err);
    if (rc != 0)
        return rc;
    /* A reset ends a connect at once; over IPv6 an ICMP answer does not. */
    if (mode == FILTER_REJECT)
        buf_printf(ret_script,
                   "    meta skuid %u meta l4proto tcp reject with tcp reset\n"
                   "    meta skuid %u reject with icmpx type admin-prohibited\n",
                   (unsigned)uid, (unsigned)uid);
    buf_printf(ret_script, "    meta skuid %u drop\n  }\n}\n", (unsigned)uid);
    return 0;
}

int filter_install(const char *name, uid_t uid, enum filter_mode mode,
                   const struct spec_texts *peers, struct err *err)
{
    struct buf script;

    buf_init(&script, 0);
    int rc = filter_script(name, uid, mode, peers, &script, err);
    if (rc == 0)
        rc = nft_run(script.data, err);
    buf_fini(&script);
    return rc;
}

int filter_remove(const char *name, struct err *err)
{
    char table[128];
    char script[320];

    table_name(name, table);
    snprintf(script, sizeof(script), "add table inet %s\ndelete table inet %s\n", table, table);
    return nft_run(script, err);
}

/* -- tasks without peers ---------------------------------------------------------------------- */

/* One question to nf_tables: a chain by its name. */
struct chain_query {
    struct nlmsghdr head;
    struct nfgenmsg family;
    struct nlattr table_head;
    char table[sizeof(GUARD_TABLE)];
    struct nlattr chain_head __attribute__((aligned(4)));
    char chain[sizeof(GUARD_CHAIN)];
};

/* How many rules the chain of an NFT_MSG_NEWCHAIN has; 0 for any other message. */
static uint32_t count_rules(const unsigned char *bytes, size_t length)
{
    struct nlmsghdr head;
    struct nlattr attribute;
    size_t at = MESSAGE + ALIGNED(sizeof(struct nfgenmsg));
    uint32_t count = 0;

    if (length < at)
        return 0;
    memcpy(&head, bytes, sizeof(head));
    if (head.nlmsg_type != ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWCHAIN))
        return 0;
    while (at + sizeof(attribute) + sizeof(count) <= length) {
        memcpy(&attribute, bytes + at, sizeof(attribute));
        if ((attribute.nla_type & NLA_TYPE_MASK) == NFTA_CHAIN_USE) {
            memcpy(&count, bytes + at + ATTRIBUTE, sizeof(count));
            return ntohl(count);
        }
        if (attribute.nla_len < ATTRIBUTE)
            return 0;
        at += ALIGNED(attribute.nla_len);
    }
    return 0;
}

/* Asking nft itself costs as much as making the table anew. */
static bool guard_stands(void)
{
    struct chain_query query = {
        .head = {.nlmsg_len = offsetof(struct chain_query, chain) + sizeof(GUARD_CHAIN),
                 .nlmsg_type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETCHAIN,
                 .nlmsg_flags = NLM_F_REQUEST},
        .family = {.nfgen_family = 1 /* NFPROTO_INET */},
        .table_head = {ATTRIBUTE + sizeof(GUARD_TABLE), NFTA_CHAIN_TABLE},
        .table = GUARD_TABLE,
        .chain_head = {ATTRIBUTE + sizeof(GUARD_CHAIN), NFTA_CHAIN_NAME},
        .chain = GUARD_CHAIN,
    };
    unsigned char answer[2048];
    struct timeval limit = {.tv_sec = 1};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    ssize_t got = -1;

    if (fd < 0)
        return false;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0
        && send(fd, &query, sizeof(query), 0) == (ssize_t)sizeof(query))
        got = recv(fd, answer, sizeof(answer), 0);
    close(fd);
    return got > 0 && count_rules(answer, (size_t)got) > 0;
}

int filter_guard(uid_t first, uid_t last, enum filter_mode mode, struct err *err)
{
    struct buf script;
    int rc;

    if (guard_stands())
        return 0;
    buf_init(&script, 0);
    /* Two tasks may come here at once: the second puts the same rules in place of the first's. */
    buf_printf(&script,
               "table inet " GUARD_TABLE " {\n"
               "  chain " GUARD_CHAIN " {\n"
               "    type filter hook output priority 0; policy accept;\n"
               "  }\n"
               "}\n"
               "flush chain inet " GUARD_TABLE " " GUARD_CHAIN "\n"
               "table inet " GUARD_TABLE " {\n"
               "  chain " GUARD_CHAIN " {\n"
               "    meta skuid != %u-%u accept\n"
               "    oif lo accept\n"
               "    ct state established,related accept\n",
               (unsigned)first, (unsigned)last);
    if (mode == FILTER_REJECT)
        buf_printf(&script,
                   "    meta skuid %u-%u meta l4proto tcp reject with tcp reset\n"
                   "    meta skuid %u-%u reject with icmpx type admin-prohibited\n",
                   (unsigned)first, (unsigned)last, (unsigned)first, (unsigned)last);
    buf_printf(&script, "    meta skuid %u-%u drop\n  }\n}\n", (unsigned)first, (unsigned)last);
    rc = nft_run(script.data, err);
    buf_fini(&script);
    return rc;
}

int filter_unguard(struct err *err)
{
    return nft_run("add table inet " GUARD_TABLE "\ndelete table inet " GUARD_TABLE "\n", err);
}

/* -- what this machine can do ----------------------------------------------------------------- */

enum filter_mode filter_probe(struct err *err)
{
    static const enum filter_mode wanted[] = {FILTER_REJECT, FILTER_DROP};
    char item[] = "192.0.2.1"; /* documentation range, RFC 5737 */
    char *items[] = {item};
    const struct spec_texts peers = {items, 1};
    char name[64];

    if (geteuid() != 0) {
        (void)err_set(err, ERR_UNSUPPORTED_HERE, "it needs root");
        return FILTER_NONE;
    }
    snprintf(name, sizeof(name), "probe_%d", (int)getpid());
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (filter_install(name, UINT32_MAX - 1, wanted[i], &peers, err) == 0
            && filter_remove(name, err) == 0)
            return wanted[i];
    }
    return FILTER_NONE;
}
