#ifndef SHEAF_ORCHESTRATOR_GATEWAY_COMMAND_H
#define SHEAF_ORCHESTRATOR_GATEWAY_COMMAND_H

/*
 * The line to the orchestrator: commands out, replies in, hints of commits. It re-reads the link
 * file when the orchestrator does not answer, announces this gateway, and tells others what
 * changed.
 */
#include <stdbool.h>
#include <stdint.h>

#include "orchestrator/gateway/gateway.h"
#include "proto/command.pb-c.h"

struct command_link;

struct command_hooks {
    void (*on_hint)(const Sheaf__ChangeHint *hint, void *arg);
    void *arg;
};

/*
 * err is set (and reply NULL) when no answer came: the outcome is unknown. reply is borrowed for
 * the call. `call` and `arg` as given to command_send.
 */
typedef void (*command_on_reply_f)(const struct err *err, const Sheaf__CommandReply *reply,
                                   uint64_t call, void *arg);

int command_link_new(struct gateway *gateway, const struct command_hooks *hooks,
                     struct command_link **ret_link, struct err *err) SHEAF_MUST_USE;
void command_link_free(struct command_link *link);
/* Fills protocol and request, sends. on_reply is called exactly once, never from in here. */
void command_send(struct command_link *link, Sheaf__Command *command, command_on_reply_f on_reply,
                  uint64_t call, void *arg);
/* Announces this gateway now; NULL is nothing. */
void command_link_greet(struct command_link *link);
/* An answer came in the last seconds. */
bool command_link_is_up(const struct command_link *link);

struct command_counters {
    uint64_t sent;
    uint64_t answered;
    uint64_t timed_out;
    uint64_t hints;
    uint64_t waiting;
};
struct command_counters command_counters(const struct command_link *link);

#endif
