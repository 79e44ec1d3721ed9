#ifndef SHEAF_ORCHESTRATOR_GATEWAY_GATEWAY_H
#define SHEAF_ORCHESTRATOR_GATEWAY_GATEWAY_H

/*
 * What the parts of one gateway process share. Made once in main.c; the parts find each other
 * through it and own nothing of it.
 */
#include <event2/event.h>
#include <stdint.h>

#include "common/io/hash.h"
#include "common/io/keys.h"
#include "common/pure/id.h"
#include "common/pure/map.h"

#define GATEWAY_TEXT 256

/* The link file that the orchestrator writes for its gateways. */
struct gateway_link {
    char orchestrator[GATEWAY_TEXT];
    char hints[GATEWAY_TEXT];
    uint8_t server_key[KEY_SIZE];
    struct curve_pair curve;
    uint8_t sign_key[KEY_SIZE];
    char token[64]; /* shg_…; never logged */
    char database[1024];
};
/* Unknown keys are ignored, missing ones named. ERR_CONFIG_INVALID. */
int gateway_link_load(const char *path, struct gateway_link *ret_link,
                      struct err *err) SHEAF_MUST_USE;

struct gateway {
    struct event_base *base;
    void *zmq;
    char link_path[512];
    struct gateway_link link;
    uint8_t token_hash[SHA256_SIZE]; /* of link.token: our own credential */
    char url[GATEWAY_TEXT];          /* public */
    char bulk_url[GATEWAY_TEXT];     /* public */
    struct curve_pair bulk_pair;
    uint8_t ca_sha256[SHA256_SIZE];
    bool reload_failed; /* the last SIGHUP found a configuration that is not valid */
    char pin[64];  /* of the server's key, as curl --pinnedpubkey wants it; empty without TLS */
    char *ca_pem;  /* what clients pin; NULL without TLS */
    char *openapi; /* JSON text */
    char *reasons; /* jsonb for PARAM_REASONS */
    char *scopes;  /* jsonb for PARAM_SCOPES */
    int64_t started_us;
    uint8_t cursor_secret[SHA256_SIZE];
    struct map in_flight;  /* commands with an idempotency key that are not answered */
    struct limiter *rates; /* of tokens */
    struct http_server *http;
    struct db *db;
    struct auth *auth;
    struct command_link *commands;
    struct content *content;
    struct packages *packages;
    struct work *work;
    struct bulk *bulk;
    struct follow *follow;
    struct retention *retention;
};

#endif
