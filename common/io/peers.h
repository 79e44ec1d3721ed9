#ifndef SHEAF_COMMON_IO_PEERS_H
#define SHEAF_COMMON_IO_PEERS_H

/*
 * The connections of a server socket, and how many bytes each has sent that nobody received yet.
 * ZMQ_MAXMSGSIZE bounds one frame, and a ROUTER shows a message only when its last frame is there:
 * a peer that never ends a message fills our memory unseen. The kernel counts what a connection
 * sent; a thread of its own compares that with what was delivered, and ends a connection that holds
 * too much. The thread looks on while the loop is busy.
 *
 * Knows fds and bytes, no protocol. Of the socket adaptor (loop.c) alone; see its zsock_options.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEERS_USER_ID 72 /* hex of a CURVE key */
#define PEERS_ADDRESS 64

/* Bytes on the wire, received and not delivered. */
struct peers_limits {
    uint64_t one;   /* of one connection; 0: no connection is watched */
    uint64_t all;   /* of all together: the largest are ended first; 0: no such limit */
    uint64_t spare; /* a connection that holds no more is never ended for `all` */
};

/* A connection that was ended. */
struct peers_cut {
    char user_id[PEERS_USER_ID]; /* of its messages; "" when none was ever whole */
    char address[PEERS_ADDRESS]; /* host:port */
    uint64_t held;
    int64_t age_us; /* since it last completed a message, or came */
};

/*
 * What a connection sends between messages (heartbeats of ZeroMQ: 17 bytes a second) is held too:
 * one that says nothing for days ends like a hostile one, but comes back, and did no wrong.
 */
#define PEERS_IDLE_US ((int64_t)3600 * 1000000)

struct peers;

/* Watches the connections that `handle` accepts; call before its bind. NULL when libzmq refuses. */
struct peers *peers_new(void *zmq_context, void *handle, const struct peers_limits *limits);
/* Before the socket is closed. */
void peers_free(struct peers *peers);
/* What was bound; tcp://…:PORT, or nothing is watched. */
void peers_bound(struct peers *peers, const char *endpoint);
/* A whole message of a connection (ZMQ_SRCFD) was received. O(1), two system calls at most. */
void peers_delivered(struct peers *peers, int fd, const char *user_id, uint64_t bytes);
/* Ends every connection that has spoken under this user id; how many. */
uint32_t peers_end(struct peers *peers, const char *user_id);
/* Becomes readable when peers_next_cut has something. */
int peers_fd(const struct peers *peers);
bool peers_next_cut(struct peers *peers, struct peers_cut *ret_cut);

#endif
