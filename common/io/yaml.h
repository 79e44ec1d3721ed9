#ifndef SHEAF_COMMON_IO_YAML_H
#define SHEAF_COMMON_IO_YAML_H

/*
 * YAML text to a JSON value, remembering where each value stood, so that one validator serves both
 * and errors still name line and column. libyaml's events under limits: 64 KiB, depth 16, one
 * document, no anchors, aliases, merge keys or tags, no duplicate keys.
 *
 * Plain scalars become: true/false, integers of the JSON grammar, null (~ or empty), else text.
 * `yes`, `no`, `012`, `1:30`, `0.60` stay text; the validator decides.
 */
#include <stdbool.h>
#include <stddef.h>

#include "common/io/json.h"
#include "common/pure/err.h"

#define YAML_MAX_BYTES 131072 /* the description of our API is the largest we read */
#define YAML_MAX_DEPTH 16

struct yaml_marks;

/* ret_marks may be NULL. ERR_YAML_SYNTAX, ERR_YAML_FEATURE, ERR_DUPLICATE_KEY, … with line:column.
 */
int yaml_read(const char *text, size_t length, json_t **ret_value, struct yaml_marks **ret_marks,
              struct err *err) SHEAF_MUST_USE;
/* Line and column (1-based) of a JSON pointer, or of its nearest parent. */
void yaml_locate(const struct yaml_marks *marks, const char *pointer, unsigned *ret_line,
                 unsigned *ret_column);
void yaml_marks_free(struct yaml_marks *marks);
/*
 * True for what readers of YAML 1.1, YAML 1.2 and people take for different values: yes, no, on,
 * 012, 1:30, 0x1f, 1_000, 1e3, +5, .5. A plain decimal (12, -3, 0.60) and any other text are not.
 */
bool yaml_is_ambiguous(const char *text);
/* Block-style YAML of a JSON value, for `-o yaml`. Caller frees. */
char *yaml_write(const json_t *value);

#endif
