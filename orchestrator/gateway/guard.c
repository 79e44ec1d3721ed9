#include "orchestrator/gateway/guard.h"

#include <string.h>
#include <strings.h>

/* RFC 9110 §5.6.2. */
static bool is_token_byte(unsigned char c)
{
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return true;
    return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_token(const char *text)
{
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (!is_token_byte((unsigned char)*text))
            return false;
    }
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

void guard_init(struct guard *guard)
{
    memset(guard, 0, sizeof(*guard));
    buf_init(&guard->head, GUARD_MAX_HEAD);
    guard->max_body = GUARD_MAX_BODY;
}

void guard_fini(struct guard *guard)
{
    buf_fini(&guard->head);
}

void guard_next(struct guard *guard)
{
    struct buf head = guard->head;

    buf_clear(&head);
    memset(guard, 0, sizeof(*guard));
    guard->head = head;
    guard->max_body = GUARD_MAX_BODY;
}

bool guard_is_idle(const struct guard *guard)
{
    return guard->state == GUARD_IN_LINE && guard->head.length == 0;
}

const char *guard_method(const struct guard *guard)
{
    return guard->head.data + guard->method;
}

const char *guard_target(const struct guard *guard)
{
    return guard->head.data + guard->target;
}

const char *guard_field(const struct guard *guard, const char *name)
{
    for (uint32_t i = 0; i < guard->field_count; i++) {
        if (strcasecmp(guard->head.data + guard->fields[i].name, name) == 0)
            return guard->head.data + guard->fields[i].value;
    }
    return NULL;
}

static enum guard_verdict refuse(struct guard *guard, enum err_code code, const char *why)
{
    guard->state = GUARD_REFUSED;
    guard->close = true;
    (void)err_set(&guard->err, code, "%s", why);
    return GUARD_BAD;
}

int guard_limit_body(struct guard *guard, uint64_t max_body)
{
    if (max_body < guard->max_body)
        guard->max_body = max_body;
    if (!guard->chunked && guard->length > guard->max_body) {
        (void)refuse(guard, ERR_BODY_TOO_LARGE, "the body is larger than this path takes");
        return -ERR_BODY_TOO_LARGE;
    }
    return 0;
}

/* -- request line --------------------------------------------------------------------------- */

/* "%2e" counts as a dot: what a proxy in front might resolve, we refuse. */
static bool segment_is_dots(const char *segment, size_t length)
{
    size_t dots = 0;

    for (size_t i = 0; i < length; dots++) {
        if (segment[i] == '.')
            i++;
        else if (length - i >= 3 && strncasecmp(segment + i, "%2e", 3) == 0)
            i += 3;
        else
            return false;
    }
    return dots == 1 || dots == 2;
}

static bool percent_is_valid(const char *text)
{
    int high = hex_value(text[1]);
    int low = high < 0 ? -1 : hex_value(text[2]);

    return low >= 0 && (high != 0 || low != 0);
}

static const char *check_path(const char *target)
{
    const char *end = strchr(target, '?');
    size_t length = end != NULL ? (size_t)(end - target) : strlen(target);

    for (size_t i = 0, start = 0; i <= length; i++) {
        if (i < length && target[i] != '/') {
            if (target[i] == '%' && strncasecmp(target + i, "%2f", 3) == 0)
                return "an encoded slash in the path";
            continue;
        }
        if (segment_is_dots(target + start, i - start))
            return "a dot segment in the path";
        if (i + 1 < length && target[i + 1] == '/')
            return "an empty segment in the path";
        start = i + 1;
    }
    return NULL;
}

/*
 * Absolute form (RFC 9112 §3.2.2): "https://host/path" is cut into authority and path. *ret_path is
 * where the path starts; false when the target has no such form.
 */
static bool cut_authority(struct guard *guard, char *target, char **ret_path)
{
    char *authority = strstr(target, "://");
    size_t scheme = authority != NULL ? (size_t)(authority - target) : 0;

    if (!(scheme == 5 && strncasecmp(target, "https", 5) == 0)
        && !(scheme == 4 && strncasecmp(target, "http", 4) == 0))
        return false;
    authority += 3;
    size_t length = strcspn(authority, "/?#");
    /* Into the slashes before it: room for the 0 behind it, and for a path that was left out. */
    bool bare = authority[length] != '/';
    char *moved = authority - (bare ? 2 : 1);
    memmove(moved, authority, length);
    moved[length] = '\0';
    if (bare)
        moved[length + 1] = '/';
    guard->authority = (uint32_t)(moved - guard->head.data);
    *ret_path = moved + length + 1;
    return true;
}

/* NULL when the path is one we serve. */
static const char *check_target(const char *target)
{
    if (target[0] != '/')
        return "the target is not an absolute path";
    for (const char *c = target; *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f)
            return "a byte that is not allowed in a path";
        if (strchr("\"<>\\^`{|}#", *c) != NULL)
            return "a character that is not allowed in a path";
        if (*c == '%' && !percent_is_valid(c))
            return "an invalid percent escape";
    }
    return check_path(target);
}

static enum guard_verdict read_version(struct guard *guard, const char *version)
{
    if (strlen(version) != 8 || strncmp(version, "HTTP/", 5) != 0 || version[6] != '.'
        || version[5] < '0' || version[5] > '9' || version[7] < '0' || version[7] > '9')
        return refuse(guard, ERR_BAD_REQUEST_LINE, "no HTTP version");
    if (version[5] != '1')
        return refuse(guard, ERR_HTTP_VERSION, "only HTTP/1.1 and HTTP/1.0 are spoken");
    guard->minor_zero = version[7] == '0';
    guard->state = GUARD_IN_FIELDS;
    return GUARD_MORE;
}

static enum guard_verdict read_request_line(struct guard *guard, char *line)
{
    char *target = strchr(line, ' ');
    char *version = target != NULL ? strchr(target + 1, ' ') : NULL;

    if (version == NULL || strchr(version + 1, ' ') != NULL)
        return refuse(guard, ERR_BAD_REQUEST_LINE, "not: method, target, version");
    *target++ = '\0';
    *version++ = '\0';
    if (!is_token(line) || strlen(line) > GUARD_MAX_METHOD)
        return refuse(guard, ERR_BAD_REQUEST_LINE, "the method is no token");
    guard->method = (uint32_t)(line - guard->head.data);
    /* The version first: a request in another protocol is told so whatever its target looks like.
     */
    if (read_version(guard, version) == GUARD_BAD)
        return GUARD_BAD;
    /* What its sender sends next is meant for somebody else. */
    if (strcmp(line, "CONNECT") == 0)
        return refuse(guard, ERR_METHOD_UNKNOWN, "this is no proxy");
    (void)cut_authority(guard, target, &target);
    guard->target = (uint32_t)(target - guard->head.data);
    const char *why = check_target(target);
    return why != NULL ? refuse(guard, ERR_INVALID_PATH, why) : GUARD_MORE;
}

/* -- fields --------------------------------------------------------------------------------- */

static bool port_is_valid(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return digits <= 5 && text[digits] == '\0';
}

/* RFC 3986 §3.2.2, without user info; names as DNS and common practice write them. */
static bool host_is_valid(const char *host)
{
    static const char *const name_bytes =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    size_t length;

    if (host[0] == '[') {
        length = strspn(host + 1, "0123456789abcdefABCDEF:.");
        if (length < 2 || length > 45 || host[1 + length] != ']')
            return false;
        length += 2;
    } else {
        length = strspn(host, name_bytes);
        if (length == 0 || length > 255)
            return false;
    }
    return host[length] == '\0' || (host[length] == ':' && port_is_valid(host + length + 1));
}

static enum guard_verdict take_length(struct guard *guard, const char *value)
{
    size_t digits = strspn(value, "0123456789");

    if (++guard->lengths > 1)
        return refuse(guard, ERR_INVALID_LENGTH, "Content-Length appears twice");
    if (digits == 0 || digits > 15 || value[digits] != '\0')
        return refuse(guard, ERR_INVALID_LENGTH, "Content-Length is no plain decimal number");
    for (size_t i = 0; i < digits; i++)
        guard->length = guard->length * 10 + (uint64_t)(value[i] - '0');
    return GUARD_MORE;
}

static void take_connection(struct guard *guard, const char *value)
{
    while (*value != '\0') {
        size_t length = strcspn(value, ",");
        size_t start = strspn(value, " \t");
        size_t end = length;

        while (end > start && (value[end - 1] == ' ' || value[end - 1] == '\t'))
            end--;
        if (end > start) {
            if (end - start == 5 && strncasecmp(value + start, "close", 5) == 0)
                guard->close = true;
            if (end - start == 10 && strncasecmp(value + start, "keep-alive", 10) == 0)
                guard->keep = true;
        }
        value += length + (value[length] == ',');
    }
}

static enum guard_verdict take_field(struct guard *guard, const char *name, const char *value)
{
    if (strcasecmp(name, "host") == 0) {
        if (++guard->hosts > 1)
            return refuse(guard, ERR_INVALID_HOST, "Host appears twice");
        if (!host_is_valid(value))
            return refuse(guard, ERR_INVALID_HOST, "Host is no host name or address");
        if (guard->authority != 0 && strcasecmp(value, guard->head.data + guard->authority) != 0)
            return refuse(guard, ERR_INVALID_HOST, "Host is not the host of the target");
    } else if (strcasecmp(name, "content-length") == 0) {
        return take_length(guard, value);
    } else if (strcasecmp(name, "transfer-encoding") == 0) {
        if (++guard->encodings > 1)
            return refuse(guard, ERR_INVALID_TE, "Transfer-Encoding appears twice");
        if (is_token(value) && strcasecmp(value, "chunked") != 0
            && strcasecmp(value, "identity") != 0)
            return refuse(guard, ERR_UNKNOWN_TE, "no transfer coding but chunked is known");
        if (strcasecmp(value, "chunked") != 0)
            return refuse(guard, ERR_INVALID_TE, "Transfer-Encoding is not just chunked");
        guard->chunked = true;
    } else if (strcasecmp(name, "connection") == 0) {
        take_connection(guard, value);
    } else if (strcasecmp(name, "expect") == 0) {
        guard->expect = strcasecmp(value, "100-continue") == 0;
    }
    return GUARD_MORE;
}

/* "Name " or "Name\t": what other readers may take for the name. */
static bool is_padded(const char *line, const char *name)
{
    size_t length = strlen(name);

    return strncasecmp(line, name, length) == 0
           && strspn(line + length, " \t") == strlen(line + length);
}

/* Fields of which two readers could each believe another one. */
static bool is_single(const char *name)
{
    static const char *const names[] = {"authorization",   "content-type", "content-encoding",
                                        "idempotency-key", "range",        "last-event-id"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcasecmp(name, names[i]) == 0)
            return true;
    }
    return false;
}

static enum guard_verdict read_field(struct guard *guard, char *line)
{
    if (line[0] == ' ' || line[0] == '\t')
        return refuse(guard, ERR_OBSOLETE_FOLDING, "a line starts with white space");

    char *colon = strchr(line, ':');
    if (colon == NULL)
        return refuse(guard, ERR_INVALID_HEADER, "a line without a colon");
    *colon = '\0';
    if (!is_token(line))
        return refuse(guard,
                      is_padded(line, "transfer-encoding") ? ERR_INVALID_TE
                      : is_padded(line, "content-length")  ? ERR_INVALID_LENGTH
                                                           : ERR_INVALID_HEADER,
                      "a field name is no token");
    if (guard->field_count == GUARD_MAX_FIELDS)
        return refuse(guard, ERR_HEADER_TOO_LARGE, "more than 100 fields");
    if (is_single(line) && guard_field(guard, line) != NULL)
        return refuse(guard, ERR_INVALID_HEADER, "a field that may stand once appears twice");

    char *value = colon + 1 + strspn(colon + 1, " \t");
    size_t length = strlen(value);
    while (length > 0 && (value[length - 1] == ' ' || value[length - 1] == '\t'))
        value[--length] = '\0';
    guard->fields[guard->field_count++] = (struct guard_field){
        .name = (uint32_t)(line - guard->head.data),
        .value = (uint32_t)(value - guard->head.data),
    };
    return take_field(guard, line, value);
}

static enum guard_verdict end_head(struct guard *guard)
{
    if (guard->hosts == 0 && !guard->minor_zero)
        return refuse(guard, ERR_INVALID_HOST, "no Host");
    if (guard->authority != 0 && !host_is_valid(guard->head.data + guard->authority))
        return refuse(guard, ERR_INVALID_HOST, "the target's host is no host name or address");
    if (guard->chunked && guard->lengths > 0)
        return refuse(guard, ERR_AMBIGUOUS_FRAMING, "Content-Length beside Transfer-Encoding");
    if (guard->chunked && guard->minor_zero)
        return refuse(guard, ERR_INVALID_TE, "HTTP/1.0 has no Transfer-Encoding");
    if (guard->length > guard->max_body)
        return refuse(guard, ERR_BODY_TOO_LARGE, "more than 32 MiB");
    if (guard->minor_zero && !guard->keep)
        guard->close = true;
    guard->left = guard->length;
    guard->state = guard->chunked       ? GUARD_IN_CHUNK_SIZE
                   : guard->length == 0 ? GUARD_AT_END
                                        : GUARD_IN_SIZED_BODY;
    return GUARD_HEAD;
}

/* A whole line lies in head from guard->line on, its CRLF cut off. */
static enum guard_verdict read_line(struct guard *guard)
{
    char *line = guard->head.data + guard->line;
    bool empty = line[0] == '\0';

    if (guard->state == GUARD_IN_LINE && empty) {
        if (guard->blank_seen)
            return refuse(guard, ERR_BAD_REQUEST_LINE, "empty lines before the request");
        guard->blank_seen = true; /* RFC 9112 §2.2: one is forgiven */
        return GUARD_MORE;
    }
    if (guard->state == GUARD_IN_LINE)
        return read_request_line(guard, line);
    return empty ? end_head(guard) : read_field(guard, line);
}

static enum guard_verdict read_head_byte(struct guard *guard, uint8_t byte)
{
    enum err_code code = guard->state == GUARD_IN_LINE ? ERR_BAD_REQUEST_LINE : ERR_INVALID_HEADER;

    if (guard->carriage && byte != '\n')
        return refuse(guard, code, "a CR without LF");
    if (byte == '\n') {
        if (!guard->carriage)
            return refuse(guard, code, "a LF without CR");
        guard->carriage = false;
        buf_append(&guard->head, "", 1);
        if (guard->head.full)
            return refuse(guard, ERR_HEADER_TOO_LARGE, "more than 32 KiB");
        enum guard_verdict verdict = read_line(guard);
        guard->line = guard->head.length;
        return verdict;
    }
    if (byte == '\r') {
        guard->carriage = true;
        return GUARD_MORE;
    }
    if ((byte < ' ' && byte != '\t') || byte == 0x7f)
        return refuse(guard, code, "a control character");
    buf_append(&guard->head, &byte, 1);
    if (guard->head.full)
        return refuse(guard, ERR_HEADER_TOO_LARGE, "more than 32 KiB");
    return GUARD_MORE;
}

/* -- chunks --------------------------------------------------------------------------------- */

static enum guard_verdict end_chunk_size(struct guard *guard)
{
    if (guard->digits == 0)
        return refuse(guard, ERR_INVALID_CHUNK, "a chunk without a size");
    guard->body += guard->left;
    if (guard->body > guard->max_body)
        return refuse(guard, ERR_BODY_TOO_LARGE, "the chunks are larger than this path takes");
    guard->state = guard->left == 0 ? GUARD_IN_TRAILER : GUARD_IN_CHUNK_DATA;
    guard->digits = 0;
    return GUARD_MORE;
}

/* CRLF in the places where nothing else may stand. *ret_end is set at its LF. */
static enum guard_verdict read_crlf(struct guard *guard, uint8_t byte, const char *why,
                                    bool *ret_end)
{
    if (byte == '\r' && !guard->carriage) {
        guard->carriage = true;
        return GUARD_MORE;
    }
    if (byte != '\n' || !guard->carriage)
        return refuse(guard, ERR_INVALID_CHUNK, why);
    guard->carriage = false;
    *ret_end = true;
    return GUARD_MORE;
}

static enum guard_verdict read_chunk_byte(struct guard *guard, uint8_t byte)
{
    bool end = false;
    enum guard_verdict verdict;

    if (guard->state == GUARD_IN_CHUNK_SIZE) {
        int value = guard->carriage ? -1 : hex_value((char)byte);
        if (value >= 0) {
            if (++guard->digits > 8)
                return refuse(guard, ERR_INVALID_CHUNK, "a chunk size of more than 8 digits");
            guard->left = guard->left * 16 + (uint64_t)value;
            return GUARD_MORE;
        }
        verdict = read_crlf(guard, byte, "not a plain chunk size", &end);
        return end ? end_chunk_size(guard) : verdict;
    }
    if (guard->state == GUARD_IN_CHUNK_END) {
        verdict = read_crlf(guard, byte, "a chunk longer than its size", &end);
        if (end) {
            guard->state = GUARD_IN_CHUNK_SIZE;
            guard->left = 0;
        }
        return verdict;
    }
    verdict = read_crlf(guard, byte, "trailers are not taken", &end);
    if (end)
        guard->state = GUARD_AT_END;
    return verdict;
}

static size_t take_body(struct guard *guard, size_t length)
{
    size_t size = guard->left < length ? (size_t)guard->left : length;

    guard->left -= size;
    if (guard->left == 0)
        guard->state = guard->state == GUARD_IN_CHUNK_DATA ? GUARD_IN_CHUNK_END : GUARD_AT_END;
    return size;
}

enum guard_verdict guard_read(struct guard *guard, const uint8_t *bytes, size_t length,
                              size_t *ret_used, const uint8_t **ret_piece, size_t *ret_size)
{
    size_t used = 0;
    enum guard_verdict verdict = GUARD_MORE;

    *ret_piece = NULL;
    *ret_size = 0;
    while (verdict == GUARD_MORE) {
        if (guard->state == GUARD_REFUSED) {
            verdict = GUARD_BAD;
        } else if (guard->state == GUARD_AT_END) {
            verdict = GUARD_DONE;
        } else if (used == length) {
            break;
        } else if (guard->state == GUARD_IN_SIZED_BODY || guard->state == GUARD_IN_CHUNK_DATA) {
            *ret_piece = bytes + used;
            *ret_size = take_body(guard, length - used);
            used += *ret_size;
            verdict = GUARD_BODY;
        } else if (guard->state <= GUARD_IN_FIELDS) {
            verdict = read_head_byte(guard, bytes[used++]);
        } else {
            verdict = read_chunk_byte(guard, bytes[used++]);
        }
    }
    *ret_used = used;
    return verdict;
}
