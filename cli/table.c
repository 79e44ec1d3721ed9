#include "cli/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

#include "cli/term.h"
#include "common/io/json.h"
#include "common/io/yaml.h"
#include "common/pure/mem.h"
#include "common/pure/units.h"

#define COLUMN_MAX 16

const json_t *json_at(const json_t *object, const char *path)
{
    char key[64];

    while (object != NULL && *path != '\0') {
        size_t length = strcspn(path, ".");
        snprintf(key, sizeof(key), "%.*s", (int)length, path);
        object = json_object_get(object, key);
        path += length + (path[length] == '.');
    }
    return object;
}

const char *json_text_at(const json_t *object, const char *path)
{
    const char *text = json_string_value(json_at(object, path));

    return text ? text : "";
}

json_int_t json_int_at(const json_t *object, const char *path)
{
    return json_integer_value(json_at(object, path));
}

long long time_parse(const char *time)
{
    struct tm tm = {0};
    const char *rest = strptime(time, "%Y-%m-%dT%H:%M:%S", &tm);
    long long us = 0;

    if (rest == NULL)
        return 0;
    if (*rest == '.') {
        long long scale = 100000;
        for (rest++; *rest >= '0' && *rest <= '9'; rest++) {
            us += (*rest - '0') * scale;
            scale /= 10;
        }
    }
    return (long long)timegm(&tm) * 1000000 + us;
}

void age_format(const char *when, struct buf *out)
{
    long long at = time_parse(when);
    struct timespec now;

    if (at == 0) {
        buf_puts(out, "-");
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    long long age = now.tv_sec - at / 1000000;
    if (age < 0)
        age = 0;
    if (age < 60)
        buf_printf(out, "%llds", age);
    else if (age < 3600)
        buf_printf(out, "%lldm", age / 60);
    else if (age < 86400)
        buf_printf(out, "%lldh", age / 3600);
    else
        buf_printf(out, "%lldd", age / 86400);
}

static void list_format(const json_t *list, struct buf *out)
{
    size_t i;
    json_t *item;

    json_array_foreach(list, i, item)
        buf_printf(out, "%s%s", i ? "," : "", json_is_string(item) ? json_string_value(item) : "");
    if (json_array_size(list) == 0)
        buf_puts(out, "-");
}

static void scalar_format(const json_t *value, struct buf *out)
{
    if (json_is_string(value))
        buf_puts(out, json_string_length(value) > 0 ? json_string_value(value) : "-");
    else if (json_is_integer(value))
        buf_printf(out, "%lld", (long long)json_integer_value(value));
    else if (json_is_boolean(value))
        buf_puts(out, json_is_true(value) ? "yes" : "no");
    else
        buf_puts(out, "-");
}

void cell_format(const json_t *object, const struct column *column, bool wide, struct buf *out)
{
    const json_t *value = json_at(object, column->key);
    char text[UNITS_TEXT];

    switch (column->cell) {
    case CELL_AGE:
        if (wide)
            scalar_format(value, out);
        else
            age_format(json_is_string(value) ? json_string_value(value) : "", out);
        break;
    case CELL_STATE:
        buf_printf(out, "%s ", symbol_of_state(json_text_at(object, column->key)));
        scalar_format(value, out);
        break;
    case CELL_MIB:
        if (json_integer_value(value) > 0)
            buf_puts(out, units_format_bytes((uint64_t)json_integer_value(value) * MIB, text));
        else
            buf_puts(out, "-");
        break;
    case CELL_RTT:
        if (json_integer_value(value) > 0)
            buf_puts(out, units_format_duration((uint64_t)json_integer_value(value), text));
        else
            buf_puts(out, "-");
        break;
    case CELL_ID:
        if (json_is_string(value) && !wide)
            buf_printf(out, "%.13s", json_string_value(value));
        else
            scalar_format(value, out);
        break;
    case CELL_LIST:
        list_format(value, out);
        break;
    case CELL_TEXT:
    case CELL_NUMBER:
    case CELL_MONEY:
    case CELL_BOOL:
    default:
        scalar_format(value, out);
        break;
    }
}

/* Columns on the terminal: multi-byte characters count once. */
static size_t span_width(const char *text, size_t length)
{
    size_t width = 0;

    for (size_t i = 0; i < length; i++)
        width += ((unsigned char)text[i] & 0xc0) != 0x80;
    return width;
}

static size_t text_width(const char *text)
{
    return span_width(text, strlen(text));
}

void text_wrap(const char *text, unsigned indent, unsigned width, struct buf *out)
{
    size_t used = 0;

    while (*text != '\0') {
        size_t length = strcspn(text, " ");
        size_t columns = span_width(text, length);

        if (used > 0 && width > 0 && used + 1 + columns > width) {
            buf_puts(out, "\n");
            used = 0;
        }
        if (used == 0) {
            buf_printf(out, "%*s", (int)indent, "");
            used = indent;
        } else {
            buf_puts(out, " ");
            used++;
        }
        buf_append(out, text, length);
        used += columns;
        text += length;
        text += strspn(text, " ");
    }
    buf_puts(out, "\n");
}

/* Cuts text to width columns, ending in an ellipsis. */
static void put_cut(const char *text, size_t width)
{
    size_t used = 0;

    if (text_width(text) <= width) {
        fputs(text, stdout);
        return;
    }
    for (const char *at = text; *at != '\0'; at++) {
        if (((unsigned char)*at & 0xc0) != 0x80 && ++used >= width)
            break;
        putchar(*at);
    }
    fputs("…", stdout);
}

static bool right_aligned(enum cell cell)
{
    return cell == CELL_NUMBER || cell == CELL_MONEY || cell == CELL_MIB || cell == CELL_RTT;
}

struct grid {
    const struct column *column[COLUMN_MAX];
    size_t width[COLUMN_MAX];
    char **text; /* rows x columns */
    size_t columns;
    size_t rows;
};

static void grid_fill(struct grid *grid, const json_t *items, const struct column *columns)
{
    bool wide = term.format == OUTPUT_WIDE;

    for (const struct column *c = columns; c->header != NULL && grid->columns < COLUMN_MAX; c++) {
        if (!c->wide || wide) {
            grid->width[grid->columns] = term.no_headers ? 0 : text_width(c->header);
            grid->column[grid->columns++] = c;
        }
    }
    grid->rows = json_array_size(items);
    grid->text = mem_new(grid->rows * grid->columns, sizeof(char *));
    for (size_t r = 0; r < grid->rows; r++) {
        for (size_t c = 0; c < grid->columns; c++) {
            struct buf buf;
            buf_init(&buf, 4096);
            cell_format(json_array_get(items, r), grid->column[c], wide, &buf);
            size_t width = text_width(buf.data ? buf.data : "");
            if (width > grid->width[c])
                grid->width[c] = width;
            grid->text[r * grid->columns + c] = buf_take(&buf);
        }
    }
    /* The last column gives way on a narrow terminal. */
    size_t total = 0;
    for (size_t c = 0; c + 1 < grid->columns; c++)
        total += grid->width[c] + 2;
    if (term.width > total + 8 && total + grid->width[grid->columns - 1] > term.width)
        grid->width[grid->columns - 1] = term.width - total;
}

static void grid_cell(const struct grid *grid, size_t c, const char *text, enum tone tone)
{
    size_t width = text_width(text);
    size_t pad = width < grid->width[c] ? grid->width[c] - width : 0;
    bool last = c + 1 == grid->columns;

    if (right_aligned(grid->column[c]->cell))
        printf("%*s", (int)pad, "");
    fputs(tone_on(tone, term.color), stdout);
    put_cut(text, grid->width[c] > 0 ? grid->width[c] : width);
    fputs(tone_off(tone, term.color), stdout);
    if (!right_aligned(grid->column[c]->cell) && !last)
        printf("%*s", (int)pad, "");
    fputs(last ? "\n" : "  ", stdout);
}

static void grid_print(const struct grid *grid, const json_t *items)
{
    if (!term.no_headers) {
        for (size_t c = 0; c < grid->columns; c++)
            grid_cell(grid, c, grid->column[c]->header, TONE_BOLD);
    }
    for (size_t r = 0; r < grid->rows; r++) {
        for (size_t c = 0; c < grid->columns; c++) {
            enum tone tone = TONE_PLAIN;
            if (grid->column[c]->cell == CELL_STATE)
                tone = tone_of_state(json_text_at(json_array_get(items, r), grid->column[c]->key));
            grid_cell(grid, c, grid->text[r * grid->columns + c], tone);
        }
    }
}

static void print_json(const json_t *value, size_t flags)
{
    char *text = json_dumps(value, flags | JSON_ENCODE_ANY);

    puts(text ? text : "null");
    free(text);
}

static void print_yaml(const json_t *value)
{
    char *text = yaml_write(value);

    fputs(text, stdout);
    free(text);
}

static void print_names(const json_t *items, const struct column *columns)
{
    size_t i;
    json_t *item;

    for (const struct column *c = columns; c->header != NULL; c++) {
        if (!c->name)
            continue;
        json_array_foreach(items, i, item) puts(json_text_at(item, c->key));
        return;
    }
}

void table_print(const json_t *items, const struct column *columns, const char *empty)
{
    size_t i;
    json_t *item;
    struct grid grid = {0};

    switch (term.format) {
    case OUTPUT_JSON:
        print_json(items, JSON_INDENT(2));
        return;
    case OUTPUT_YAML:
        print_yaml(items);
        return;
    case OUTPUT_JSONL:
        json_array_foreach(items, i, item) print_json(item, JSON_COMPACT);
        return;
    case OUTPUT_NAME:
        print_names(items, columns);
        return;
    case OUTPUT_TABLE:
    case OUTPUT_WIDE:
    default:
        break;
    }
    if (json_array_size(items) == 0) {
        fprintf(stderr, "%s\n", empty);
        return;
    }
    grid_fill(&grid, items, columns);
    grid_print(&grid, items);
    for (size_t k = 0; k < grid.rows * grid.columns; k++)
        free(grid.text[k]);
    free(grid.text);
}

bool table_machine(const json_t *object, const char *name_key)
{
    switch (term.format) {
    case OUTPUT_JSON:
        print_json(object, JSON_INDENT(2));
        return true;
    case OUTPUT_JSONL:
        print_json(object, JSON_COMPACT);
        return true;
    case OUTPUT_YAML:
        print_yaml(object);
        return true;
    case OUTPUT_NAME:
        puts(json_text_at(object, name_key));
        return true;
    case OUTPUT_TABLE:
    case OUTPUT_WIDE:
    default:
        return false;
    }
}
