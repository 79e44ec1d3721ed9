#ifndef SHEAF_ORCHESTRATOR_FLEET_WIRE_H
#define SHEAF_ORCHESTRATOR_FLEET_WIRE_H

/* Borrowing values into protobuf-c messages that are only encoded: its fields are not const. */
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

static inline char *wire_text(const char *text)
{
    return (char *)(uintptr_t)text;
}

static inline ProtobufCBinaryData wire_bytes(const void *bytes, size_t length)
{
    return (ProtobufCBinaryData){length, (uint8_t *)(uintptr_t)bytes};
}

#endif
