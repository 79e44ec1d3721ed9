/* The journal under every kind of damage that one byte can do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/fs.h"
#include "worker/core/journal.h"

#define RECORDS 5

struct seen {
    uint32_t count;
    bool wrong;
};

static char folder[64];
static char path[128];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/sheaf-journal-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/journal", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return fs_remove_tree(folder, NULL);
}

/* Record i: type 10 + i, i x 3 bytes of value i. */
static void on_record(uint32_t type, const uint8_t *bytes, size_t size, void *arg)
{
    struct seen *seen = arg;
    uint32_t i = seen->count++;

    if (type != 10 + i || size != (size_t)i * 3)
        seen->wrong = true;
    for (size_t k = 0; k < size && !seen->wrong; k++)
        seen->wrong = bytes[k] != i;
}

static struct journal *open_journal(struct seen *seen, uint64_t *ret_cut)
{
    struct journal *journal = NULL;
    struct err err = {0};

    memset(seen, 0, sizeof(*seen));
    assert_int_equal(journal_open(path, on_record, seen, &journal, ret_cut, &err), 0);
    return journal;
}

static void add(struct journal *journal, uint32_t i)
{
    uint8_t bytes[RECORDS * 3 + 8];

    memset(bytes, (int)i, sizeof(bytes));
    journal_add(journal, 10 + i, bytes, (size_t)i * 3);
}

/* Writes RECORDS records; ret_ends[i] = size of the file after record i. */
static void write_journal(uint64_t ret_ends[RECORDS], struct buf *ret_bytes)
{
    struct seen seen;
    uint64_t cut;
    struct journal *journal;

    (void)unlink(path);
    journal = open_journal(&seen, &cut);
    for (uint32_t i = 0; i < RECORDS; i++) {
        add(journal, i);
        assert_int_equal(journal_commit(journal, i % 2 == 0, NULL), 0);
        ret_ends[i] = journal_size(journal);
    }
    journal_close(journal);
    buf_init(ret_bytes, 0);
    assert_int_equal(fs_read(path, 1 << 20, ret_bytes, NULL), 0);
}

static uint32_t whole_records(const uint64_t ends[RECORDS], uint64_t size)
{
    uint32_t count = 0;

    while (count < RECORDS && ends[count] <= size)
        count++;
    return count;
}

static void test_all_records_come_back(void **state)
{
    uint64_t ends[RECORDS];
    struct buf bytes;
    struct seen seen;
    uint64_t cut;

    (void)state;
    write_journal(ends, &bytes);
    journal_close(open_journal(&seen, &cut));
    assert_int_equal(seen.count, RECORDS);
    assert_false(seen.wrong);
    assert_int_equal(cut, 0);
    buf_fini(&bytes);
}

static void tear_at_every_byte(void)
{
    uint64_t ends[RECORDS];
    struct buf bytes;
    struct seen seen;
    uint64_t cut;

    write_journal(ends, &bytes);
    for (size_t size = 16; size < bytes.length; size++) {
        uint32_t whole = whole_records(ends, size);
        struct journal *journal;

        assert_int_equal(fs_write(path, bytes.data, size, 0600, NULL), 0);
        journal = open_journal(&seen, &cut);
        assert_false(seen.wrong);
        assert_int_equal(seen.count, whole);
        assert_int_equal(cut, size - (whole ? ends[whole - 1] : 16));
        /* It goes on from there. */
        for (uint32_t i = whole; i < RECORDS; i++)
            add(journal, i);
        assert_int_equal(journal_commit(journal, false, NULL), 0);
        journal_close(journal);
        journal_close(open_journal(&seen, &cut));
        assert_int_equal(seen.count, RECORDS);
        assert_false(seen.wrong);
        assert_int_equal(cut, 0);
    }
    buf_fini(&bytes);
}

static void flip_a_bit_of_every_byte(void)
{
    uint64_t ends[RECORDS];
    struct buf bytes;
    struct seen seen;
    uint64_t cut;

    write_journal(ends, &bytes);
    for (size_t at = 16; at < bytes.length; at++) {
        uint32_t whole = whole_records(ends, at);
        char damaged[160];

        bytes.data[at] = (char)(bytes.data[at] ^ (1 << (at % 8)));
        assert_int_equal(fs_write(path, bytes.data, bytes.length, 0600, NULL), 0);
        bytes.data[at] = (char)(bytes.data[at] ^ (1 << (at % 8)));
        journal_close(open_journal(&seen, &cut));
        assert_false(seen.wrong);
        assert_int_equal(seen.count, whole); /* none behind the damage is believed */
        assert_true(cut > 0);
        snprintf(damaged, sizeof(damaged), "%s.damaged", path);
        assert_int_equal(access(damaged, F_OK), 0);
    }
    buf_fini(&bytes);
}

/* What comes back is what was before the damage, reported and kept aside; no order behind it runs.
 */
static void c08_a_journal_torn_or_flipped_anywhere_ends_at_its_last_good_record(void **state)
{
    (void)state;
    tear_at_every_byte();
    flip_a_bit_of_every_byte();
}

static void test_left_out_record_is_noticed(void **state)
{
    uint64_t ends[RECORDS];
    struct buf bytes;
    struct buf less;
    struct seen seen;
    uint64_t cut;

    (void)state;
    write_journal(ends, &bytes);
    buf_init(&less, 0);
    buf_append(&less, bytes.data, ends[1]);
    buf_append(&less, bytes.data + ends[2], bytes.length - ends[2]);
    assert_int_equal(fs_write(path, less.data, less.length, 0600, NULL), 0);
    journal_close(open_journal(&seen, &cut));
    assert_int_equal(seen.count, 2);
    assert_false(seen.wrong);
    buf_fini(&less);
    buf_fini(&bytes);
}

static void test_foreign_file_is_refused(void **state)
{
    struct journal *journal = NULL;
    struct err err = {0};
    uint64_t cut;

    (void)state;
    assert_int_equal(fs_write(path, "not a journal of ours", 21, 0600, NULL), 0);
    assert_int_equal(journal_open(path, NULL, NULL, &journal, &cut, &err), -ERR_STATE_CORRUPT);
    assert_null(journal);
}

static void fill(struct journal *journal, void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < 3; i++)
        add(journal, i);
}

static void test_rewrite_replaces_and_goes_on(void **state)
{
    uint64_t ends[RECORDS];
    struct buf bytes;
    struct seen seen;
    struct journal *journal;
    uint64_t cut;

    (void)state;
    write_journal(ends, &bytes);
    journal = open_journal(&seen, &cut);
    assert_int_equal(journal_rewrite(journal, fill, NULL, NULL), 0);
    add(journal, 3);
    assert_int_equal(journal_commit(journal, true, NULL), 0);
    journal_close(journal);
    journal_close(open_journal(&seen, &cut));
    assert_int_equal(seen.count, 4);
    assert_false(seen.wrong);
    buf_fini(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_records_come_back, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(
            c08_a_journal_torn_or_flipped_anywhere_ends_at_its_last_good_record, make_folder,
            remove_folder),
        cmocka_unit_test_setup_teardown(test_left_out_record_is_noticed, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_foreign_file_is_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_rewrite_replaces_and_goes_on, make_folder,
                                        remove_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
