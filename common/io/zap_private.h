#ifndef SHEAF_COMMON_IO_ZAP_PRIVATE_H
#define SHEAF_COMMON_IO_ZAP_PRIVATE_H

/* Between the socket adaptor and the ZAP handler (ZeroMQ RFC 27). */
#include <stdbool.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"

/* True when a handler is bound in this context. */
bool zap_is_present(void *zmq_context);

#endif
