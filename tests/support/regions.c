/*
 * The region emulator: one process between network namespaces, one TUN device each, and a matrix of
 * one-way delays, losses and rates that can be changed while it runs. `netem` is not needed.
 *
 *   regions run NAME PREFIX COUNT SOCKET [SEED]   makes devices NAME0 … and prints "ready"
 *   regions ctl SOCKET COMMAND…                   one command, prints the answer
 *
 * Packets go by their third octet: PREFIX.i.x (e.g. 10.77.2.9) belongs to region i. Commands:
 *   set A B delay 12ms|600us [loss PPM] [rate KBPS]   both directions; one-way delay; rate 0 = none
 *   cut A B | heal A B                                partition, both directions
 *   nat A on|off                                      A can dial out but not be dialled
 *   show | quit
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_REGIONS     32
#define MAX_PACKET      65536
#define MAX_QUEUE_BYTES ((size_t)8 << 20) /* per direction: more is dropped, as a router would */
#define READ_BUDGET     64                /* packets of one device a turn */
#define MAX_FLOWS       4096u             /* of the NAT; the oldest slot is taken over */
#define FLOW_LIFE_NS    ((uint64_t)120 * 1000000000)

struct packet {
    struct packet *next;
    uint64_t due_ns;
    size_t size;
    unsigned char bytes[];
};

/* One direction between two regions. */
struct path {
    uint64_t delay_ns;
    uint32_t loss_ppm;
    uint64_t rate_kbps; /* 0 = no limit */
    bool cut;
    uint64_t free_ns; /* when the wire is free again */
    struct packet *head;
    struct packet *tail;
    size_t queued;
    uint64_t passed;
    uint64_t dropped;
};

/* A conversation that a region behind NAT began. */
struct flow {
    uint32_t inside;
    uint32_t outside;
    uint16_t inside_port;
    uint16_t outside_port;
    uint8_t protocol;
    uint64_t until_ns;
};

struct hub {
    unsigned count;
    int tun[MAX_REGIONS];
    int timer;
    int control;
    uint32_t prefix; /* upper 16 bits of the addresses, host order */
    uint64_t chance; /* state of the generator: losses repeat with the seed */
    bool nat[MAX_REGIONS];
    struct flow flow[MAX_FLOWS];
    struct path path[MAX_REGIONS][MAX_REGIONS];
    bool quit;
};

static uint64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* xorshift64* (Vigna 2016). */
static uint32_t draw(struct hub *hub, uint32_t below)
{
    hub->chance ^= hub->chance >> 12;
    hub->chance ^= hub->chance << 25;
    hub->chance ^= hub->chance >> 27;
    return (uint32_t)((hub->chance * 2685821657736338717u) >> 33) % below;
}

static void fail(const char *what)
{
    fprintf(stderr, "regions: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* -- packets ------------------------------------------------------------------------------- */

struct header {
    uint32_t source;
    uint32_t target;
    uint16_t source_port;
    uint16_t target_port;
    uint8_t protocol;
};

/* False for anything but a whole IPv4 header. */
static bool read_header(const unsigned char *bytes, size_t size, struct header *ret_header)
{
    struct iphdr ip;
    uint16_t ports[2] = {0, 0};

    if (size < sizeof(ip))
        return false;
    memcpy(&ip, bytes, sizeof(ip));
    size_t length = (size_t)ip.ihl * 4;
    if (ip.version != 4 || length < sizeof(ip) || size < length)
        return false;
    if ((ip.protocol == IPPROTO_TCP || ip.protocol == IPPROTO_UDP) && size >= length + 4)
        memcpy(ports, bytes + length, sizeof(ports));
    *ret_header = (struct header){ntohl(ip.saddr), ntohl(ip.daddr), ntohs(ports[0]),
                                  ntohs(ports[1]), ip.protocol};
    return true;
}

static struct flow *flow_slot(struct hub *hub, const struct header *inside_out)
{
    uint32_t hash = inside_out->source * 2654435761u ^ inside_out->target * 2246822519u
                    ^ ((uint32_t)inside_out->source_port << 16 | inside_out->target_port)
                    ^ inside_out->protocol;

    return &hub->flow[(hash ^ hash >> 15) % MAX_FLOWS];
}

/* What a home router does: remembers who dialled out, lets only their answers in. */
static bool nat_passes(struct hub *hub, unsigned from, unsigned to, const struct header *header)
{
    uint64_t now = now_ns();

    if (hub->nat[from]) {
        *flow_slot(hub, header) =
            (struct flow){header->source,      header->target,   header->source_port,
                          header->target_port, header->protocol, now + FLOW_LIFE_NS};
    }
    if (!hub->nat[to])
        return true;
    const struct header answer = {header->target, header->source, header->target_port,
                                  header->source_port, header->protocol};
    struct flow *flow = flow_slot(hub, &answer);
    bool known = flow->inside == answer.source && flow->outside == answer.target
                 && flow->inside_port == answer.source_port
                 && flow->outside_port == answer.target_port && flow->protocol == answer.protocol
                 && flow->until_ns > now;
    if (known)
        flow->until_ns = now + FLOW_LIFE_NS;
    return known;
}

static void enqueue(struct path *path, const unsigned char *bytes, size_t size)
{
    uint64_t start = now_ns();

    if (path->queued + size > MAX_QUEUE_BYTES) {
        path->dropped++;
        return;
    }
    struct packet *packet = malloc(sizeof(*packet) + size);
    if (packet == NULL) {
        path->dropped++;
        return;
    }
    if (path->rate_kbps > 0) {
        if (path->free_ns > start)
            start = path->free_ns;
        path->free_ns = start + size * 8000000u / path->rate_kbps;
        start = path->free_ns;
    }
    packet->next = NULL;
    packet->due_ns = start + path->delay_ns;
    packet->size = size;
    memcpy(packet->bytes, bytes, size);
    if (path->tail != NULL)
        path->tail->next = packet;
    else
        path->head = packet;
    path->tail = packet;
    path->queued += size;
}

static void route(struct hub *hub, unsigned from, const unsigned char *bytes, size_t size)
{
    struct header header;

    if (!read_header(bytes, size, &header) || header.target >> 16 != hub->prefix)
        return;
    unsigned to = header.target >> 8 & 255;
    if (to >= hub->count || to == from)
        return;
    struct path *path = &hub->path[from][to];
    if (path->cut || (path->loss_ppm > 0 && draw(hub, 1000000) < path->loss_ppm)
        || !nat_passes(hub, from, to, &header)) {
        path->dropped++;
        return;
    }
    enqueue(path, bytes, size);
}

static void read_device(struct hub *hub, unsigned region)
{
    unsigned char bytes[MAX_PACKET];

    for (int i = 0; i < READ_BUDGET; i++) {
        ssize_t size = read(hub->tun[region], bytes, sizeof(bytes));
        if (size <= 0)
            return;
        route(hub, region, bytes, (size_t)size);
    }
}

/* Delivers what is due on one path; the time of the next packet, or UINT64_MAX. */
static uint64_t deliver(struct hub *hub, unsigned to, struct path *path, uint64_t now)
{
    while (path->head != NULL && path->head->due_ns <= now) {
        struct packet *packet = path->head;
        path->head = packet->next;
        if (path->head == NULL)
            path->tail = NULL;
        path->queued -= packet->size;
        if (write(hub->tun[to], packet->bytes, packet->size) < 0)
            path->dropped++;
        else
            path->passed++;
        free(packet);
    }
    return path->head != NULL ? path->head->due_ns : UINT64_MAX;
}

static void deliver_all(struct hub *hub)
{
    uint64_t now = now_ns();
    uint64_t next = UINT64_MAX;
    struct itimerspec when = {0};

    for (unsigned a = 0; a < hub->count; a++) {
        for (unsigned b = 0; b < hub->count; b++) {
            uint64_t due = deliver(hub, b, &hub->path[a][b], now);
            if (due < next)
                next = due;
        }
    }
    if (next != UINT64_MAX) {
        when.it_value.tv_sec = (time_t)(next / 1000000000u);
        when.it_value.tv_nsec = (long)(next % 1000000000u);
    }
    timerfd_settime(hub->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* -- commands ------------------------------------------------------------------------------ */

static bool parse_region(const struct hub *hub, const char *word, unsigned *ret_region)
{
    char *end;
    unsigned long value = word ? strtoul(word, &end, 10) : MAX_REGIONS;

    if (word == NULL || *word == '\0' || *end != '\0' || value >= hub->count)
        return false;
    *ret_region = (unsigned)value;
    return true;
}

/* "12ms", "600us" → nanoseconds. */
static bool parse_delay(const char *word, uint64_t *ret_ns)
{
    char *end;
    unsigned long long value = word ? strtoull(word, &end, 10) : 0;

    if (word == NULL || end == word || value > 60000000)
        return false;
    if (strcmp(end, "us") == 0)
        *ret_ns = value * 1000;
    else if (strcmp(end, "ms") == 0)
        *ret_ns = value * 1000000;
    else
        return false;
    return true;
}

static const char *set_paths(struct hub *hub, unsigned a, unsigned b, char **save)
{
    uint64_t delay = hub->path[a][b].delay_ns;
    uint64_t loss = hub->path[a][b].loss_ppm;
    uint64_t rate = hub->path[a][b].rate_kbps;

    for (char *key = strtok_r(NULL, " ", save); key != NULL; key = strtok_r(NULL, " ", save)) {
        char *value = strtok_r(NULL, " ", save);
        if (strcmp(key, "delay") == 0 && parse_delay(value, &delay))
            continue;
        if (value != NULL && strcmp(key, "loss") == 0)
            loss = strtoull(value, NULL, 10);
        else if (value != NULL && strcmp(key, "rate") == 0)
            rate = strtoull(value, NULL, 10);
        else
            return "error: set A B delay 12ms [loss PPM] [rate KBPS]\n";
    }
    if (loss > 1000000)
        return "error: loss is at most 1000000 ppm\n";
    struct path *both[] = {&hub->path[a][b], &hub->path[b][a]};
    for (int i = 0; i < 2; i++) {
        both[i]->delay_ns = delay;
        both[i]->loss_ppm = (uint32_t)loss;
        both[i]->rate_kbps = rate;
    }
    return "ok\n";
}

static void show(const struct hub *hub, char *out, size_t size)
{
    size_t used = 0;

    for (unsigned a = 0; a < hub->count; a++) {
        for (unsigned b = 0; b < hub->count; b++) {
            const struct path *path = &hub->path[a][b];
            if (a == b || used >= size)
                continue;
            used += (size_t)snprintf(out + used, size - used,
                                     "%u %u delay %" PRIu64 "us loss %u rate %" PRIu64
                                     "%s passed %" PRIu64 " dropped %" PRIu64 "\n",
                                     a, b, path->delay_ns / 1000, path->loss_ppm, path->rate_kbps,
                                     path->cut ? " cut" : "", path->passed, path->dropped);
        }
    }
}

static const char *run_command(struct hub *hub, char *line, char *room, size_t room_size)
{
    char *save = NULL;
    const char *verb = strtok_r(line, " \n", &save);
    unsigned a;
    unsigned b;

    if (verb == NULL)
        return "error: empty\n";
    if (strcmp(verb, "show") == 0) {
        show(hub, room, room_size);
        return room;
    }
    if (strcmp(verb, "quit") == 0) {
        hub->quit = true;
        return "ok\n";
    }
    if (!parse_region(hub, strtok_r(NULL, " \n", &save), &a))
        return "error: unknown command, or no such region\n";
    char *second = strtok_r(NULL, " \n", &save);
    if (strcmp(verb, "nat") == 0 && second != NULL) {
        hub->nat[a] = strcmp(second, "on") == 0;
        return "ok\n";
    }
    if (!parse_region(hub, second, &b) || a == b)
        return "error: no such region\n";
    if (strcmp(verb, "set") == 0)
        return set_paths(hub, a, b, &save);
    if (strcmp(verb, "cut") == 0 || strcmp(verb, "heal") == 0) {
        hub->path[a][b].cut = hub->path[b][a].cut = verb[0] == 'c';
        return "ok\n";
    }
    return "error: unknown command\n";
}

/* One connection, one line, one answer: the peers are test scripts of the same user. */
static void answer_control(struct hub *hub)
{
    char line[256];
    static char room[65536];
    int peer = accept4(hub->control, NULL, NULL, SOCK_CLOEXEC);

    if (peer < 0)
        return;
    ssize_t size = read(peer, line, sizeof(line) - 1);
    if (size > 0) {
        line[size] = '\0';
        line[strcspn(line, "\n")] = '\0';
        const char *answer = run_command(hub, line, room, sizeof(room));
        if (write(peer, answer, strlen(answer)) < 0)
            perror("regions: control");
    }
    close(peer);
}

/* -- set-up -------------------------------------------------------------------------------- */

static int open_tun(const char *name, unsigned index)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%.10s%u", name, index % MAX_REGIONS);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
        fail("cannot make a TUN device");
    return fd;
}

static struct sockaddr_un socket_address(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        fail(path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    return address;
}

static int listen_control(const char *path)
{
    struct sockaddr_un address = socket_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0)
        fail(path);
    return fd;
}

static void loop(struct hub *hub)
{
    struct pollfd fds[MAX_REGIONS + 2];

    for (unsigned i = 0; i < hub->count; i++)
        fds[i] = (struct pollfd){.fd = hub->tun[i], .events = POLLIN};
    fds[hub->count] = (struct pollfd){.fd = hub->timer, .events = POLLIN};
    fds[hub->count + 1] = (struct pollfd){.fd = hub->control, .events = POLLIN};
    while (!hub->quit) {
        uint64_t expired;
        deliver_all(hub);
        if (poll(fds, hub->count + 2, -1) < 0 && errno != EINTR)
            fail("poll");
        if (read(hub->timer, &expired, sizeof(expired)) < 0 && errno != EAGAIN)
            fail("timer");
        for (unsigned i = 0; i < hub->count; i++) {
            if (fds[i].revents & POLLIN)
                read_device(hub, i);
        }
        if (fds[hub->count + 1].revents & POLLIN)
            answer_control(hub);
    }
}

static int run(char **words, int count)
{
    static struct hub hub;
    struct in_addr prefix;
    char text[32];

    hub.count = (unsigned)strtoul(words[2], NULL, 10);
    snprintf(text, sizeof(text), "%.20s.0.0", words[1]);
    if (hub.count < 2 || hub.count > MAX_REGIONS || inet_pton(AF_INET, text, &prefix) != 1) {
        fprintf(stderr, "regions: want 2 to %d regions and a prefix like 10.77\n", MAX_REGIONS);
        return 2;
    }
    hub.prefix = ntohl(prefix.s_addr) >> 16;
    hub.chance = count > 4 ? strtoull(words[4], NULL, 10) | 1 : 1;
    for (unsigned i = 0; i < hub.count; i++)
        hub.tun[i] = open_tun(words[0], i);
    hub.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (hub.timer < 0)
        fail("timerfd");
    hub.control = listen_control(words[3]);
    puts("ready");
    fflush(stdout);
    loop(&hub);
    unlink(words[3]);
    return 0;
}

static int control(char **words, int count)
{
    struct sockaddr_un address = socket_address(words[0]);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char line[256] = "";
    char piece[4096];
    bool good = false;
    bool first = true;
    ssize_t size;

    for (int i = 1; i < count; i++) {
        size_t used = strlen(line);
        snprintf(line + used, sizeof(line) - used, "%s%s", i > 1 ? " " : "", words[i]);
    }
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0
        || write(fd, line, strlen(line)) < 0)
        fail(words[0]);
    while ((size = read(fd, piece, sizeof(piece))) > 0) {
        if (first)
            good = strncmp(piece, "error", 5) != 0;
        first = false;
        fwrite(piece, 1, (size_t)size, stdout);
    }
    close(fd);
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc >= 6 && strcmp(argv[1], "run") == 0)
        return run(argv + 2, argc - 2);
    if (argc >= 4 && strcmp(argv[1], "ctl") == 0)
        return control(argv + 2, argc - 2);
    fprintf(stderr, "usage: regions run NAME PREFIX COUNT SOCKET [SEED] | regions ctl SOCKET …\n");
    return 2;
}
