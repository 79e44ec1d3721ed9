#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>
#include <cmocka.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/io/fs.h"
#include "common/io/hash.h"
#include "common/io/keys.h"
#include "common/io/log.h"
#include "common/io/pack.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"

struct fixture {
    char root[64];
    char path[FS_PATH]; /* of the last at() */
    struct err err;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    snprintf(f->root, sizeof(f->root), "/tmp/sheaf-files-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    int rc = fs_remove_tree(f->root, NULL);

    free(f);
    return rc;
}

/* A path under the fixture's folder; valid until four more were asked for. */
static const char *at(struct fixture *f, const char *name)
{
    static char paths[4][FS_PATH];
    static unsigned next;
    char *path = paths[next++ % 4];

    assert_int_equal(fs_path(path, "%s/%s", f->root, name), 0);
    return path;
}

static void put(struct fixture *f, const char *name, const char *text)
{
    if (fs_write(at(f, name), text, strlen(text), 0644, &f->err) != 0)
        fail_msg("%s", f->err.text);
}

static bool exists(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

/* -- files ------------------------------------------------------------------------------------ */

static void test_a_write_is_whole_and_leaves_no_temporary(void **state)
{
    struct fixture *f = *state;
    struct buf text;
    struct stat status;

    buf_init(&text, 0);
    put(f, "a", "first");
    assert_int_equal(fs_write(at(f, "a"), "second", 6, 0600, &f->err), 0);
    assert_int_equal(fs_read(at(f, "a"), 6, &text, &f->err), 0);
    assert_string_equal(text.data, "second");
    assert_int_equal(stat(at(f, "a"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(fs_read(at(f, "a"), 5, &text, &f->err), -ERR_TOO_MANY);
    assert_string_equal(text.data, "second");
    assert_int_equal(fs_read(at(f, "none"), 5, &text, &f->err), -ERR_IO);
    assert_int_equal(fs_read(f->root, 5, &text, &f->err), -ERR_IO);
    assert_int_equal(mkfifo(at(f, "fifo"), 0600), 0);
    assert_int_equal(fs_read(at(f, "fifo"), 5, &text, &f->err), -ERR_IO);
    assert_int_equal(fs_write(at(f, "no/such/folder"), "x", 1, 0600, &f->err), -ERR_IO);
    assert_int_equal(unlink(at(f, "fifo")), 0);
    assert_int_equal(unlink(at(f, "a")), 0);
    assert_int_equal(rmdir(f->root), 0); /* nothing else is there */
    assert_int_equal(mkdir(f->root, 0700), 0);
    buf_fini(&text);
}

static void test_a_path_that_does_not_fit_is_an_error(void **state)
{
    char path[FS_PATH];

    (void)state;
    assert_int_equal(fs_path(path, "%0511d", 1), 0 - ERR_NONE);
    assert_int_equal(fs_path(path, "%0512d", 1), -ERR_IO);
}

static void test_folders_are_made_along_the_way(void **state)
{
    struct fixture *f = *state;
    struct stat status;

    assert_int_equal(fs_mkdir(at(f, "a/b/c"), 0700, &f->err), 0);
    assert_int_equal(fs_mkdir(at(f, "a/b/c"), 0700, &f->err), 0);
    assert_int_equal(stat(at(f, "a/b/c"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    put(f, "file", "x");
    assert_int_equal(fs_mkdir(at(f, "file"), 0700, &f->err), -ERR_IO);
    assert_int_equal(fs_mkdir(at(f, "file/x"), 0700, &f->err), -ERR_IO);
}

static void test_removing_never_follows_links(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fs_mkdir(at(f, "keep"), 0700, NULL), 0);
    put(f, "keep/file", "x");
    assert_int_equal(fs_mkdir(at(f, "tree/sub/locked"), 0700, NULL), 0);
    put(f, "tree/sub/locked/file", "x");
    assert_int_equal(symlink("../keep", at(f, "tree/link")), 0);
    assert_int_equal(symlink("nowhere", at(f, "tree/sub/dangling")), 0);
    assert_int_equal(chmod(at(f, "tree/sub/locked"), 0), 0);
    if (fs_remove_tree(at(f, "tree"), &f->err) != 0)
        fail_msg("%s", f->err.text);
    assert_false(exists(at(f, "tree")));
    assert_true(exists(at(f, "keep/file")));
    assert_int_equal(fs_remove_tree(at(f, "tree"), &f->err), 0);
    assert_int_equal(symlink("keep", at(f, "top")), 0);
    assert_int_equal(fs_remove_tree(at(f, "top"), &f->err), 0);
    assert_true(exists(at(f, "keep/file")));
}

static void test_a_tree_of_any_depth_is_removed(void **state)
{
    struct fixture *f = *state;
    int fd = -1;

    assert_int_equal(fs_mkdir(at(f, "deep"), 0700, NULL), 0);
    fd = open(at(f, "deep"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(mkdirat(fd, "d", 0700), 0);
        int next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        fd = next;
    }
    close(fd);
    if (fs_remove_tree(at(f, "deep"), &f->err) != 0)
        fail_msg("%s", f->err.text);
    assert_false(exists(at(f, "deep")));
}

static void test_a_second_instance_learns_who_holds_the_lock(void **state)
{
    struct fixture *f = *state;
    char wanted[32];
    int first = -1;
    int second = -1;

    assert_int_equal(fs_lock(at(f, "lock"), &first, &f->err), 0);
    assert_int_equal(fs_lock(at(f, "lock"), &second, &f->err), -ERR_ALREADY_RUNNING);
    assert_int_equal(second, -1);
    snprintf(wanted, sizeof(wanted), "process %ld holds", (long)getpid());
    assert_int_equal(strncmp(f->err.text, wanted, strlen(wanted)), 0);
    close(first);
    assert_int_equal(fs_lock(at(f, "lock"), &second, &f->err), 0);
    close(second);
    assert_true(fs_free_bytes(f->root) > 0);
    assert_int_equal(fs_free_bytes("/nonexistent"), 0);
}

/* -- hashes and keys --------------------------------------------------------------------------- */

static void test_hashes_have_their_published_values(void **state)
{
    struct fixture *f = *state;
    uint8_t hash[SHA256_SIZE];
    uint8_t again[SHA256_SIZE];
    char hex[SHA256_HEX];
    uint64_t size = 0;

    sha256("abc", 3, hash); /* FIPS 180-2 B.1 */
    assert_string_equal(hex_format(hash, SHA256_SIZE, hex),
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, again); /* RFC 4231 case 2 */
    assert_string_equal(hex_format(again, SHA256_SIZE, hex),
                        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    put(f, "abc", "abc");
    assert_int_equal(sha256_file(at(f, "abc"), again, &size, &f->err), 0);
    assert_int_equal(size, 3);
    assert_true(bytes_equal(hash, again, SHA256_SIZE));
    struct sha256_stream *stream = sha256_stream_new();
    sha256_stream_add(stream, "a", 1);
    sha256_stream_add(stream, "bc", 2);
    sha256_stream_end(stream, again);
    sha256_stream_free(stream);
    assert_true(bytes_equal(hash, again, SHA256_SIZE));
    assert_int_equal(sha256_file(at(f, "none"), again, &size, &f->err), -ERR_IO);
    assert_int_equal(sha256_file(f->root, again, &size, &f->err), -ERR_IO);
}

static void test_a_signature_binds_bytes_domain_and_key(void **state)
{
    struct sign_pair pair;
    struct sign_pair other;
    uint8_t signature[SIGNATURE_SIZE];

    (void)state;
    sign_pair_make(&pair);
    sign_pair_make(&other);
    sign_bytes(&pair, SIGN_DOMAIN_ORDER, "stop", 4, signature);
    assert_true(sign_verify(pair.public_key, SIGN_DOMAIN_ORDER, "stop", 4, signature));
    assert_false(sign_verify(pair.public_key, SIGN_DOMAIN_RECEIPT, "stop", 4, signature));
    assert_false(sign_verify(pair.public_key, SIGN_DOMAIN_ORDER, "stoq", 4, signature));
    assert_false(sign_verify(other.public_key, SIGN_DOMAIN_ORDER, "stop", 4, signature));
    signature[5] ^= 1;
    assert_false(sign_verify(pair.public_key, SIGN_DOMAIN_ORDER, "stop", 4, signature));
    sign_bytes(&pair, SIGN_DOMAIN_ORDER, "", 0, signature);
    assert_true(sign_verify(pair.public_key, SIGN_DOMAIN_ORDER, NULL, 0, signature));
    memset(pair.public_key, 0xff, KEY_SIZE);
    assert_false(sign_verify(pair.public_key, SIGN_DOMAIN_ORDER, "", 0, signature));
}

/* Keys and receipts are kept for years: another library reads them too. */
static void test_a_signature_is_plain_ed25519(void **state)
{
    static const char message[] = SIGN_DOMAIN_ORDER "\0stop";
    const size_t length = sizeof(message) - 1;
    uint8_t mine[SIGNATURE_SIZE];
    uint8_t theirs[SIGNATURE_SIZE];
    uint8_t public_key[KEY_SIZE];
    size_t size = KEY_SIZE;
    struct sign_pair pair;

    (void)state;
    sign_pair_make(&pair);
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, pair.secret_key, KEY_SIZE);
    assert_int_equal(EVP_PKEY_get_raw_public_key(key, public_key, &size), 1);
    assert_memory_equal(public_key, pair.public_key, KEY_SIZE);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    size = SIGNATURE_SIZE;
    assert_int_equal(EVP_DigestSignInit(context, NULL, NULL, NULL, key), 1);
    assert_int_equal(EVP_DigestSign(context, theirs, &size, (const uint8_t *)message, length), 1);
    sign_bytes(&pair, SIGN_DOMAIN_ORDER, "stop", 4, mine);
    assert_memory_equal(mine, theirs, SIGNATURE_SIZE);
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
}

static void test_keys_that_others_can_read_are_refused(void **state)
{
    struct fixture *f = *state;
    struct identity made;
    struct identity loaded;
    struct stat status;

    assert_int_equal(identity_load(at(f, "keys"), &loaded, &f->err), -ERR_IO);
    assert_int_equal(identity_load_or_make(at(f, "keys"), &made, &f->err), 0);
    assert_int_equal(stat(at(f, "keys"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(identity_load_or_make(at(f, "keys"), &loaded, &f->err), 0);
    assert_memory_equal(&made, &loaded, sizeof(made));
    static const mode_t modes[] = {0640, 0604, 0620, 0666};
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        assert_int_equal(chmod(at(f, "keys"), modes[i]), 0);
        assert_int_equal(identity_load(at(f, "keys"), &loaded, &f->err), -ERR_CREDENTIAL_EXPOSED);
        assert_non_null(strstr(f->err.text, "chmod 600"));
    }
}

static void test_damaged_keys_are_never_another_identity(void **state)
{
    struct fixture *f = *state;
    struct identity identity;
    struct buf text;

    buf_init(&text, 0);
    assert_int_equal(identity_load_or_make(at(f, "keys"), &identity, &f->err), 0);
    assert_int_equal(fs_read(at(f, "keys"), 1024, &text, &f->err), 0);
    for (size_t i = 0; i < text.length; i++) {
        char saved = text.data[i];
        text.data[i] = saved == '1' ? '2' : '1';
        int fd = open(at(f, "keys"), O_WRONLY | O_TRUNC | O_CLOEXEC);
        assert_int_equal(write(fd, text.data, text.length), text.length);
        close(fd);
        /* Curve25519 ignores five bits of a secret: such a flip gives the same public key. */
        int rc = identity_load(at(f, "keys"), &identity, &f->err);
        bool in_curve_secret = i > 91 && i < 156;
        assert_true(rc == -ERR_STATE_CORRUPT || (rc == 0 && in_curve_secret));
        text.data[i] = saved;
    }
    assert_int_equal(fs_write(at(f, "keys"), text.data, 100, 0600, NULL), 0);
    assert_int_equal(identity_load_or_make(at(f, "keys"), &identity, &f->err), -ERR_STATE_CORRUPT);
    assert_int_equal(fs_write(at(f, "keys"), "", 0, 0600, NULL), 0);
    assert_int_equal(identity_load_or_make(at(f, "keys"), &identity, &f->err), -ERR_STATE_CORRUPT);
    buf_fini(&text);
}

/* -- the log ------------------------------------------------------------------------------------
 */

/* What one call writes to stderr. */
static char *logged(struct fixture *f, const char *text, int number)
{
    struct buf out;
    int saved = dup(STDERR_FILENO);
    int fd = open(at(f, "log"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    buf_init(&out, 0);
    dup2(fd, STDERR_FILENO);
    log_open("test", LOG_INFO_LEVEL);
    log_debug("unit", "hidden", "text=" LOG_Q, text);
    log_info("unit", "seen", "text=" LOG_Q " bare=%s n=%d hex=%04x big=%lld part=%.*s%%", text,
             text, number, 255u, -5ll, 2, "abc");
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fd);
    assert_int_equal(fs_read(at(f, "log"), 65536, &out, NULL), 0);
    return buf_take(&out);
}

static void test_a_foreign_text_cannot_forge_a_log_line(void **state)
{
    struct fixture *f = *state;

    char *plain = logged(f, "word", 7);
    assert_non_null(strstr(plain, " level=info program=test module=unit event=seen text=\"word\" "
                                  "bare=word n=7 hex=00ff big=-5 part=ab%\n"));
    assert_null(strstr(plain, "hidden"));
    free(plain);
    char *hostile = logged(f, "x\" level=error event=\"forged\n\x1b[31m\\", 7);
    assert_null(strstr(hostile, "\x1b"));
    assert_null(strstr(hostile, "\" level=error event=\"forged"));
    assert_ptr_equal(strchr(hostile, '\n'), hostile + strlen(hostile) - 1);
    assert_non_null(strstr(hostile, "text=\"x\\\" level=error event=\\\"forged\\n\\x1b[31m\\\\\""));
    assert_non_null(strstr(hostile, "bare=\"x\\\" level"));
    free(hostile);
    char *huge = mem_new(10000, 1);
    memset(huge, 'x', 9999);
    char *cut = logged(f, huge, 7);
    assert_true(strlen(cut) <= 4096);
    assert_string_equal(cut + strlen(cut) - 10, " cut=true\n");
    free(huge);
    free(cut);
    enum log_level level = LOG_ERROR_LEVEL;
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_DEBUG_LEVEL);
    assert_false(log_level_parse("loud", &level));
}

static void test_clocks_and_ids_move_forward(void **state)
{
    char text[32];
    int64_t before = clock_mono_us();
    struct uuid first = uuid_new();
    struct uuid second = uuid_new();

    (void)state;
    assert_true(clock_mono_us() >= before);
    assert_true(uuid_compare(&first, &second) != 0);
    assert_int_equal(first.bytes[6] >> 4, 7);
    assert_string_equal(clock_format(0, text), "1970-01-01T00:00:00.000Z");
    assert_string_equal(clock_format(-1, text), "1970-01-01T00:00:00.000Z");
    assert_string_equal(clock_format(-1000, text), "1969-12-31T23:59:59.999Z");
    assert_string_equal(clock_format(INT64_MAX, text), "9999-12-31T23:59:59.999Z");
}

/* -- archives -----------------------------------------------------------------------------------
 */

static void make_tree(struct fixture *f, const char *name)
{
    char path[FS_PATH];

    snprintf(path, sizeof(path), "%s/sub/empty", name);
    assert_int_equal(fs_mkdir(at(f, path), 0755, NULL), 0);
    snprintf(path, sizeof(path), "%s/b.txt", name);
    put(f, path, "bee");
    snprintf(path, sizeof(path), "%s/a.sh", name);
    put(f, path, "#!/bin/sh\n");
    assert_int_equal(chmod(at(f, path), 0755), 0);
    snprintf(path, sizeof(path), "%s/sub/ümläut \xff", name);
    put(f, path, "name is bytes");
    snprintf(path, sizeof(path), "%s/sub/up", name);
    assert_int_equal(symlink("../b.txt", at(f, path)), 0);
}

static void hash_of(struct fixture *f, const char *name, uint8_t hash[SHA256_SIZE])
{
    uint64_t size = 0;

    assert_int_equal(sha256_file(at(f, name), hash, &size, &f->err), 0);
}

static void test_the_same_tree_packs_to_the_same_bytes(void **state)
{
    struct fixture *f = *state;
    uint8_t one[SHA256_SIZE];
    uint8_t two[SHA256_SIZE];

    make_tree(f, "one");
    make_tree(f, "two");
    assert_int_equal(
        utimensat(AT_FDCWD, at(f, "two/b.txt"), (struct timespec[]){{1, 0}, {1, 0}}, 0), 0);
    assert_int_equal(pack_tree(at(f, "one"), "src", at(f, "one.pack"), &f->err), 0);
    assert_int_equal(pack_tree(at(f, "two"), "src", at(f, "two.pack"), &f->err), 0);
    hash_of(f, "one.pack", one);
    hash_of(f, "two.pack", two);
    assert_memory_equal(one, two, SHA256_SIZE);
    put(f, "two/b.txt", "bees");
    assert_int_equal(pack_tree(at(f, "two"), "src", at(f, "two.pack"), &f->err), 0);
    hash_of(f, "two.pack", two);
    assert_memory_not_equal(one, two, SHA256_SIZE);
}

static void test_a_tree_comes_out_as_it_went_in(void **state)
{
    struct fixture *f = *state;
    struct buf text;
    struct stat status;
    char target[64] = "";

    buf_init(&text, 0);
    make_tree(f, "tree");
    assert_int_equal(fs_mkdir(at(f, "out"), 0755, NULL), 0);
    assert_int_equal(pack_tree(at(f, "tree"), "src", at(f, "pack"), &f->err), 0);
    for (int round = 0; round < 2; round++) { /* again over what is there */
        if (unpack_tree(at(f, "pack"), at(f, "out"), 1 << 20, &f->err) != 0)
            fail_msg("%s", f->err.text);
        buf_clear(&text);
        assert_int_equal(fs_read(at(f, "out/src/sub/ümläut \xff"), 100, &text, &f->err), 0);
        assert_string_equal(text.data, "name is bytes");
        assert_int_equal(stat(at(f, "out/src/a.sh"), &status), 0);
        assert_int_equal(status.st_mode & 0777, 0755);
        assert_true(exists(at(f, "out/src/sub/empty")));
        assert_true(readlink(at(f, "out/src/sub/up"), target, sizeof(target) - 1) > 0);
        assert_string_equal(target, "../b.txt");
    }
    /* One file alone. */
    assert_int_equal(pack_tree(at(f, "tree/b.txt"), "c.txt", at(f, "pack"), &f->err), 0);
    assert_int_equal(unpack_tree(at(f, "pack"), at(f, "out"), 3, &f->err), 0);
    assert_true(exists(at(f, "out/c.txt")));
    assert_int_equal(unpack_tree(at(f, "pack"), at(f, "out"), 2, &f->err), -ERR_TOO_MANY);
    buf_fini(&text);
}

static void test_a_tree_that_reaches_out_is_not_packed(void **state)
{
    static const char *const targets[] = {"/etc/passwd", "..", "sub/../../x", "../../etc"};
    struct fixture *f = *state;

    assert_int_equal(fs_mkdir(at(f, "tree/sub"), 0755, NULL), 0);
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        assert_int_equal(symlink(targets[i], at(f, "tree/link")), 0);
        int rc = pack_tree(at(f, "tree"), "src", at(f, "pack"), &f->err);
        /* ".." from src/link is the archive's root, which is inside. */
        assert_int_equal(rc, strcmp(targets[i], "..") == 0 ? 0 : -ERR_MOUNT_NOT_ALLOWED);
        assert_int_equal(exists(at(f, "pack")), rc == 0);
        unlink(at(f, "pack"));
        assert_int_equal(unlink(at(f, "tree/link")), 0);
    }
    assert_int_equal(mkfifo(at(f, "tree/fifo"), 0600), 0);
    assert_int_equal(pack_tree(at(f, "tree"), "src", at(f, "pack"), &f->err),
                     -ERR_MOUNT_NOT_ALLOWED);
    assert_int_equal(pack_tree(at(f, "tree/fifo"), "src", at(f, "pack"), &f->err),
                     -ERR_MOUNT_NOT_ALLOWED);
    assert_int_equal(pack_tree(at(f, "none"), "src", at(f, "pack"), &f->err), -ERR_IO);
    assert_int_equal(pack_tree(at(f, "tree/sub"), "a/b", at(f, "pack"), &f->err),
                     -ERR_INVALID_NAME);
    assert_false(exists(at(f, "pack")));
}

/* One entry of a hostile archive. */
struct hostile {
    mode_t type;
    const char *path;
    const char *target; /* links */
};

static void make_hostile(struct fixture *f, const struct hostile *entries, size_t count)
{
    struct archive *out = archive_write_new();
    struct archive_entry *entry = archive_entry_new();

    archive_write_set_format_gnutar(out);
    archive_write_add_filter_zstd(out);
    assert_int_equal(archive_write_open_filename(out, at(f, "hostile")), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        archive_entry_clear(entry);
        archive_entry_set_pathname(entry, entries[i].path);
        archive_entry_set_filetype(entry, entries[i].type == 0 ? AE_IFREG : entries[i].type);
        archive_entry_set_perm(entry, 06777);
        if (entries[i].type == AE_IFLNK)
            archive_entry_set_symlink(entry, entries[i].target);
        else if (entries[i].target != NULL)
            archive_entry_set_hardlink(entry, entries[i].target);
        bool has_data = entries[i].type == AE_IFREG;
        archive_entry_set_size(entry, has_data ? 4 : 0);
        assert_int_equal(archive_write_header(out, entry), ARCHIVE_OK);
        if (has_data)
            assert_int_equal(archive_write_data(out, "evil", 4), 4);
    }
    assert_int_equal(archive_write_close(out), ARCHIVE_OK);
    archive_write_free(out);
    archive_entry_free(entry);
}

static void test_an_archive_cannot_reach_out_of_its_target(void **state)
{
    static const struct hostile cases[][4] = {
        {{AE_IFREG, "/tmp/sheaf-escaped", NULL}},
        {{AE_IFREG, "../escaped", NULL}},
        {{AE_IFREG, "a/../../escaped", NULL}},
        {{AE_IFREG, "./x", NULL}},
        {{AE_IFREG, "a//x", NULL}},
        {{AE_IFLNK, "link", "../"}, {AE_IFREG, "link/escaped", NULL}},
        {{AE_IFLNK, "link", "/tmp"}},
        {{AE_IFLNK, "a/link", "../../x"}},
        {{AE_IFDIR, "d", NULL}, {AE_IFLNK, "l", "d"}, {AE_IFREG, "l/x", NULL}},
        {{AE_IFDIR, "d", NULL}, {AE_IFLNK, "l", "d"}, {AE_IFDIR, "l", NULL}},
        /* A chain: each link looks harmless, together they climb out. */
        {{AE_IFDIR, "d/e", NULL}, {AE_IFLNK, "d/e/up", ".."}, {AE_IFLNK, "out", "d/e/up/../.."}},
        {{AE_IFREG, "x", NULL}, {0, "hard", "x"}},
        {{AE_IFIFO, "fifo", NULL}},
        {{AE_IFCHR, "device", NULL}},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t count = 0;
        while (count < 4 && cases[i][count].path != NULL)
            count++;
        make_hostile(f, cases[i], count);
        assert_int_equal(fs_mkdir(at(f, "target"), 0755, NULL), 0);
        int rc = unpack_tree(at(f, "hostile"), at(f, "target"), 1 << 20, &f->err);
        if (rc != -ERR_MOUNT_NOT_ALLOWED)
            fail_msg("case %zu gave %d: %s", i, rc, f->err.text);
        assert_false(exists(at(f, "escaped")));
        assert_false(exists("/tmp/sheaf-escaped"));
        assert_int_equal(fs_remove_tree(at(f, "target"), NULL), 0);
    }
}

static void test_a_file_replaces_a_link_and_is_not_written_through_it(void **state)
{
    static const struct hostile entries[] = {
        {AE_IFREG, "real", NULL}, {AE_IFLNK, "name", "real"}, {AE_IFREG, "name", NULL}};
    struct fixture *f = *state;
    struct stat status;

    put(f, "outside", "safe");
    assert_int_equal(fs_mkdir(at(f, "target"), 0755, NULL), 0);
    assert_int_equal(symlink("../outside", at(f, "target/real")), 0);
    make_hostile(f, entries, 3);
    assert_int_equal(unpack_tree(at(f, "hostile"), at(f, "target"), 1 << 20, &f->err), 0);
    struct buf text;
    buf_init(&text, 0);
    assert_int_equal(fs_read(at(f, "outside"), 10, &text, NULL), 0);
    assert_string_equal(text.data, "safe");
    assert_int_equal(lstat(at(f, "target/name"), &status), 0);
    assert_true(S_ISREG(status.st_mode));
    assert_int_equal(status.st_mode & 07000, 0); /* no set-user-id from strangers */
    buf_fini(&text);
}

static void test_a_damaged_archive_is_said_to_be_damaged(void **state)
{
    struct fixture *f = *state;
    struct buf bytes;

    buf_init(&bytes, 0);
    make_tree(f, "tree");
    assert_int_equal(fs_mkdir(at(f, "out"), 0755, NULL), 0);
    assert_int_equal(pack_tree(at(f, "tree"), "src", at(f, "pack"), &f->err), 0);
    assert_int_equal(fs_read(at(f, "pack"), 1 << 20, &bytes, NULL), 0);
    assert_int_equal(fs_write(at(f, "cut"), bytes.data, bytes.length / 2, 0600, NULL), 0);
    assert_int_equal(unpack_tree(at(f, "cut"), at(f, "out"), 1 << 20, &f->err), -ERR_IO);
    put(f, "text", "this is no archive, only a text that is long enough to look at");
    assert_int_equal(unpack_tree(at(f, "text"), at(f, "out"), 1 << 20, &f->err), -ERR_IO);
    put(f, "text", "");
    assert_int_equal(unpack_tree(at(f, "text"), at(f, "out"), 1 << 20, &f->err), -ERR_IO);
    for (size_t i = 0; i < bytes.length; i += 3) {
        bytes.data[i] = (char)(bytes.data[i] ^ 0x40);
        assert_int_equal(fs_write(at(f, "cut"), bytes.data, bytes.length, 0600, NULL), 0);
        assert_true(unpack_tree(at(f, "cut"), at(f, "out"), 1 << 20, &f->err) <= 0);
        bytes.data[i] = (char)(bytes.data[i] ^ 0x40);
    }
    buf_fini(&bytes);
}

int main(void)
{
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_a_write_is_whole_and_leaves_no_temporary),
        cmocka_unit_test(test_a_path_that_does_not_fit_is_an_error),
        WITH_FOLDER(test_folders_are_made_along_the_way),
        WITH_FOLDER(test_removing_never_follows_links),
        WITH_FOLDER(test_a_tree_of_any_depth_is_removed),
        WITH_FOLDER(test_a_second_instance_learns_who_holds_the_lock),
        WITH_FOLDER(test_hashes_have_their_published_values),
        cmocka_unit_test(test_a_signature_binds_bytes_domain_and_key),
        cmocka_unit_test(test_a_signature_is_plain_ed25519),
        WITH_FOLDER(test_keys_that_others_can_read_are_refused),
        WITH_FOLDER(test_damaged_keys_are_never_another_identity),
        WITH_FOLDER(test_a_foreign_text_cannot_forge_a_log_line),
        cmocka_unit_test(test_clocks_and_ids_move_forward),
        WITH_FOLDER(test_the_same_tree_packs_to_the_same_bytes),
        WITH_FOLDER(test_a_tree_comes_out_as_it_went_in),
        WITH_FOLDER(test_a_tree_that_reaches_out_is_not_packed),
        WITH_FOLDER(test_an_archive_cannot_reach_out_of_its_target),
        WITH_FOLDER(test_a_file_replaces_a_link_and_is_not_written_through_it),
        WITH_FOLDER(test_a_damaged_archive_is_said_to_be_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
