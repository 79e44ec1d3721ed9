#include "orchestrator/gateway/tls.h"

#include <arpa/inet.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <unistd.h>

#include "common/io/base64.h"
#include "common/io/fs.h"
#include "common/pure/buf.h"
#include "common/pure/mem.h"

#define CA_DAYS     3650
#define SERVER_DAYS 397 /* what browsers accept at most */
#define RENEW_DAYS  30
#define PEM_MAX     ((size_t)64 << 10)

static int ssl_error(struct err *err, enum err_code code, const char *what)
{
    char text[160] = "unknown";
    unsigned long number = ERR_get_error();

    if (number != 0)
        ERR_error_string_n(number, text, sizeof(text));
    ERR_clear_error();
    return err_set(err, code, "%s: %s", what, text);
}

/* A file of the operator's, by the option that named it. */
static int option_error(struct err *err, const char *option, const char *path)
{
    struct err why = {0};

    (void)ssl_error(&why, ERR_CONFIG_INVALID, path);
    return err_set_at(err, ERR_CONFIG_INVALID, option, "%s", why.text);
}

/* -- files ---------------------------------------------------------------------------------- */

static int write_bio(BIO *bio, const char *path, mode_t mode, struct err *err)
{
    char *data = NULL;
    long length = BIO_get_mem_data(bio, &data);

    return fs_write(path, data, (size_t)length, mode, err);
}

static int save(const char *key_path, EVP_PKEY *key, const char *cert_path, X509 *cert,
                struct err *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int rc = 0;

    if (bio == NULL || PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
        rc = ssl_error(err, ERR_IO, "cannot write a key");
    if (rc == 0)
        rc = write_bio(bio, key_path, 0600, err);
    if (rc == 0 && (BIO_reset(bio) != 1 || PEM_write_bio_X509(bio, cert) != 1))
        rc = ssl_error(err, ERR_IO, "cannot write a certificate");
    if (rc == 0)
        rc = write_bio(bio, cert_path, 0644, err);
    BIO_free(bio);
    return rc;
}

static int load(const char *key_path, EVP_PKEY **ret_key, const char *cert_path, X509 **ret_cert,
                struct err *err)
{
    struct buf text;
    BIO *bio = NULL;

    *ret_key = NULL;
    *ret_cert = NULL;
    buf_init(&text, PEM_MAX);
    int rc = fs_read_secret(key_path, PEM_MAX, FS_OWNER_ALONE, &text, err);
    if (rc == 0) {
        bio = BIO_new_mem_buf(text.data, (int)text.length);
        *ret_key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
        BIO_free(bio);
        buf_clear(&text);
        rc = fs_read(cert_path, PEM_MAX, &text, err);
    }
    if (rc == 0) {
        bio = BIO_new_mem_buf(text.data, (int)text.length);
        *ret_cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        BIO_free(bio);
    }
    if (text.data != NULL)
        OPENSSL_cleanse(text.data, text.length);
    buf_fini(&text);
    if (rc == 0
        && (*ret_key == NULL || *ret_cert == NULL
            || X509_check_private_key(*ret_cert, *ret_key) != 1)) {
        (void)ssl_error(err, ERR_STATE_CORRUPT, "not a pair");
        rc = err_set(err, ERR_STATE_CORRUPT, "%s and %s are no pair of key and certificate",
                     key_path, cert_path);
    }
    if (rc != 0) {
        EVP_PKEY_free(*ret_key);
        X509_free(*ret_cert);
        *ret_key = NULL;
        *ret_cert = NULL;
    }
    return rc;
}

/* -- making --------------------------------------------------------------------------------- */

static bool set_serial(X509 *cert)
{
    unsigned char bytes[16];
    BIGNUM *number = NULL;

    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        return false;
    bytes[0] &= 0x7f;
    number = BN_bin2bn(bytes, sizeof(bytes), NULL);
    bool ok = number != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != NULL;
    BN_free(number);
    return ok;
}

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;

    X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool ok = extension != NULL && X509_add_ext(cert, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return ok;
}

static bool set_basics(X509 *cert, EVP_PKEY *key, const char *name, int days)
{
    X509_NAME *subject = X509_get_subject_name(cert);

    return X509_set_version(cert, X509_VERSION_3) == 1
           && set_serial(cert)
           /* An hour back: clocks of new machines differ. */
           && X509_gmtime_adj(X509_getm_notBefore(cert), -3600) != NULL
           && X509_time_adj_ex(X509_getm_notAfter(cert), days, 0, NULL) != NULL
           && X509_set_pubkey(cert, key) == 1
           && X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC, (const unsigned char *)"Sheaf",
                                         -1, -1, 0)
                  == 1
           && X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name,
                                         -1, -1, 0)
                  == 1;
}

static int make_ca(EVP_PKEY **ret_key, X509 **ret_cert, struct err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();

    if (key == NULL || cert == NULL || !set_basics(cert, key, "Sheaf local CA", CA_DAYS)
        || X509_set_issuer_name(cert, X509_get_subject_name(cert)) != 1
        || !add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0")
        || !add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign")
        || !add_extension(cert, cert, NID_subject_key_identifier, "hash")
        || X509_sign(cert, key, EVP_sha256()) == 0) {
        EVP_PKEY_free(key);
        X509_free(cert);
        return ssl_error(err, ERR_INTERNAL, "cannot make a CA");
    }
    *ret_key = key;
    *ret_cert = cert;
    return 0;
}

static bool is_address(const char *name)
{
    unsigned char bytes[16];

    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

static bool add_names(X509 *cert, const struct tls_names *names)
{
    struct buf list;

    buf_init(&list, 8192);
    for (uint32_t i = 0; i < names->count; i++)
        buf_printf(&list, "%s%s:%s", i > 0 ? "," : "", is_address(names->name[i]) ? "IP" : "DNS",
                   names->name[i]);
    bool ok = !list.full && add_extension(cert, cert, NID_subject_alt_name, list.data);
    buf_fini(&list);
    return ok;
}

static int make_server(const struct tls_names *names, EVP_PKEY *ca_key, X509 *ca,
                       EVP_PKEY **ret_key, X509 **ret_cert, struct err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();

    if (key == NULL || cert == NULL || !set_basics(cert, key, "Sheaf gateway", SERVER_DAYS)
        || X509_set_issuer_name(cert, X509_get_subject_name(ca)) != 1 || !add_names(cert, names)
        || !add_extension(cert, ca, NID_basic_constraints, "critical,CA:FALSE")
        || !add_extension(cert, ca, NID_key_usage, "critical,digitalSignature")
        || !add_extension(cert, ca, NID_ext_key_usage, "serverAuth")
        || !add_extension(cert, ca, NID_authority_key_identifier, "keyid")
        || X509_sign(cert, ca_key, EVP_sha256()) == 0) {
        EVP_PKEY_free(key);
        X509_free(cert);
        return ssl_error(err, ERR_INTERNAL, "cannot make the server's certificate");
    }
    *ret_key = key;
    *ret_cert = cert;
    return 0;
}

/* -- is the old one still good? ------------------------------------------------------------- */

static bool has_name(const GENERAL_NAMES *list, const char *name)
{
    unsigned char address[16];
    int size = inet_pton(AF_INET, name, address) == 1    ? 4
               : inet_pton(AF_INET6, name, address) == 1 ? 16
                                                         : 0;

    for (int i = 0; i < sk_GENERAL_NAME_num(list); i++) {
        const GENERAL_NAME *one = sk_GENERAL_NAME_value(list, i);
        const unsigned char *data;
        if (size > 0 && one->type == GEN_IPADD) {
            data = ASN1_STRING_get0_data(one->d.iPAddress);
            if (ASN1_STRING_length(one->d.iPAddress) == size
                && memcmp(data, address, (size_t)size) == 0)
                return true;
        } else if (size == 0 && one->type == GEN_DNS) {
            data = ASN1_STRING_get0_data(one->d.dNSName);
            if ((size_t)ASN1_STRING_length(one->d.dNSName) == strlen(name)
                && memcmp(data, name, strlen(name)) == 0)
                return true;
        }
    }
    return false;
}

static bool server_is_good(X509 *cert, X509 *ca, const struct tls_names *names)
{
    GENERAL_NAMES *list = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    EVP_PKEY *ca_key = X509_get0_pubkey(ca);
    time_t soon = time(NULL) + (time_t)RENEW_DAYS * 86400;
    bool good = list != NULL && X509_verify(cert, ca_key) == 1
                && X509_cmp_time(X509_get0_notAfter(cert), &soon) > 0
                && sk_GENERAL_NAME_num(list) == (int)names->count;

    for (uint32_t i = 0; i < names->count && good; i++)
        good = has_name(list, names->name[i]);
    GENERAL_NAMES_free(list);
    ERR_clear_error();
    return good;
}

/* -- contexts ------------------------------------------------------------------------------- */

static SSL_CTX *context_new(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (context == NULL)
        return NULL;
    (void)SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    (void)SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20");
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION
                                     | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    return context;
}

static int fingerprint(const X509 *cert, uint8_t ret_fingerprint[SHA256_SIZE], struct err *err)
{
    unsigned length = 0;

    if (X509_digest(cert, EVP_sha256(), ret_fingerprint, &length) != 1 || length != SHA256_SIZE)
        return ssl_error(err, ERR_INTERNAL, "cannot hash a certificate");
    return 0;
}

struct paths {
    char ca_key[FS_PATH];
    char ca[FS_PATH];
    char key[FS_PATH];
    char cert[FS_PATH];
};

static int load_or_make_ca(const struct paths *paths, EVP_PKEY **ret_key, X509 **ret_cert,
                           struct err *err)
{
    if (access(paths->ca, F_OK) == 0 || access(paths->ca_key, F_OK) == 0)
        return load(paths->ca_key, ret_key, paths->ca, ret_cert, err);
    int rc = make_ca(ret_key, ret_cert, err);
    return rc != 0 ? rc : save(paths->ca_key, *ret_key, paths->ca, *ret_cert, err);
}

static int load_or_make_server(const struct paths *paths, const struct tls_names *names,
                               EVP_PKEY *ca_key, X509 *ca, EVP_PKEY **ret_key, X509 **ret_cert,
                               struct err *err)
{
    if (load(paths->key, ret_key, paths->cert, ret_cert, err) == 0) {
        if (server_is_good(*ret_cert, ca, names))
            return 0;
        EVP_PKEY_free(*ret_key);
        X509_free(*ret_cert);
        *ret_key = NULL;
        *ret_cert = NULL;
    }
    int rc = make_server(names, ca_key, ca, ret_key, ret_cert, err);
    return rc != 0 ? rc : save(paths->key, *ret_key, paths->cert, *ret_cert, err);
}

int tls_local(const char *state, const struct tls_names *names, SSL_CTX **ret_context,
              char ret_ca_path[512], uint8_t ret_fingerprint[SHA256_SIZE], struct err *err)
{
    struct paths paths;
    EVP_PKEY *ca_key = NULL;
    EVP_PKEY *key = NULL;
    X509 *ca = NULL;
    X509 *cert = NULL;
    SSL_CTX *context = NULL;
    int rc = fs_path(paths.ca_key, "%s/ca.key", state);

    if (rc != 0 || fs_path(paths.ca, "%s/ca.pem", state) != 0
        || fs_path(paths.key, "%s/server.key", state) != 0
        || fs_path(paths.cert, "%s/server.pem", state) != 0)
        return err_set(err, ERR_IO, "the state folder's path is too long");
    rc = load_or_make_ca(&paths, &ca_key, &ca, err);
    if (rc == 0)
        rc = load_or_make_server(&paths, names, ca_key, ca, &key, &cert, err);
    if (rc == 0)
        rc = fingerprint(ca, ret_fingerprint, err);
    if (rc == 0) {
        context = context_new();
        if (context == NULL || SSL_CTX_use_certificate(context, cert) != 1
            || SSL_CTX_use_PrivateKey(context, key) != 1
            || SSL_CTX_add1_chain_cert(context, ca) != 1)
            rc = ssl_error(err, ERR_INTERNAL, "cannot use the certificate");
    }
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
    X509_free(ca);
    X509_free(cert);
    if (rc != 0) {
        SSL_CTX_free(context);
        return rc;
    }
    snprintf(ret_ca_path, 512, "%s", paths.ca);
    *ret_context = context;
    return 0;
}

static int pem_of(X509 *cert, char **ret_pem, struct err *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data = NULL;
    int rc = 0;

    if (bio == NULL || PEM_write_bio_X509(bio, cert) != 1)
        rc = ssl_error(err, ERR_INTERNAL, "cannot write a certificate");
    if (rc == 0) {
        long length = BIO_get_mem_data(bio, &data);
        *ret_pem = mem_dup(data, (size_t)length);
    }
    BIO_free(bio);
    return rc;
}

int tls_own(const char *cert, const char *key, SSL_CTX **ret_context, char **ret_pem,
            uint8_t ret_fingerprint[SHA256_SIZE], struct err *err)
{
    SSL_CTX *context = context_new();
    STACK_OF(X509) *chain = NULL;
    struct buf text;
    struct err why = {0};

    buf_init(&text, PEM_MAX);
    int rc = fs_read_secret(key, PEM_MAX, FS_GROUP_READS, &text, &why);
    if (text.data != NULL)
        OPENSSL_cleanse(text.data, text.length);
    buf_fini(&text);
    if (rc != 0) {
        SSL_CTX_free(context);
        return err_set_at(err, why.code, "tls-key", "%s", why.text);
    }
    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, cert) != 1) {
        SSL_CTX_free(context);
        return option_error(err, "tls-cert", cert);
    }
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1
        || SSL_CTX_check_private_key(context) != 1) {
        SSL_CTX_free(context);
        return option_error(err, "tls-key", key);
    }
    (void)SSL_CTX_get0_chain_certs(context, &chain);
    X509 *last = sk_X509_num(chain) > 0 ? sk_X509_value(chain, sk_X509_num(chain) - 1)
                                        : SSL_CTX_get0_certificate(context);
    rc = fingerprint(last, ret_fingerprint, err);
    if (rc == 0)
        rc = pem_of(last, ret_pem, err);
    if (rc != 0)
        SSL_CTX_free(context);
    else
        *ret_context = context;
    return rc;
}

void tls_pin(const SSL_CTX *context, char ret_pin[64])
{
    const X509 *cert = SSL_CTX_get0_certificate(context);
    unsigned char *key = NULL;
    uint8_t sha[SHA256_SIZE];
    struct buf text;
    int length = cert != NULL ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &key) : 0;

    ret_pin[0] = '\0';
    if (length <= 0)
        return;
    sha256(key, (size_t)length, sha);
    OPENSSL_free(key);
    buf_init(&text, 63);
    buf_puts(&text, "sha256//");
    base64_encode(BASE64_STANDARD, sha, sizeof(sha), &text);
    BUG_ON(text.full);
    memcpy(ret_pin, text.data, text.length + 1);
    buf_fini(&text);
}
