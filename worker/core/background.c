#include "worker/core/background.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/pure/err.h"
#include "common/pure/mem.h"

struct item {
    struct item *next;
    background_work_f work;
    background_done_f done;
    void *arg;
};

struct list {
    struct item *first;
    struct item **last;
};

struct background {
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct list todo;
    struct list ended;
    bool quit;
    bool running; /* the thread was started */
    pthread_t thread;
    int signal_fd;
    struct event *readable;
};

static void list_init(struct list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_push(struct list *list, struct item *item)
{
    item->next = NULL;
    *list->last = item;
    list->last = &item->next;
}

static struct item *list_take(struct list *list)
{
    struct item *item = list->first;

    if (item) {
        list->first = item->next;
        if (!list->first)
            list->last = &list->first;
    }
    return item;
}

static void tell(struct background *background)
{
    uint64_t one = 1;
    ssize_t n;

    do {
        n = write(background->signal_fd, &one, sizeof(one));
    } while (n < 0 && errno == EINTR);
}

static void *loop(void *arg)
{
    struct background *background = arg;

    pthread_mutex_lock(&background->mutex);
    while (!background->quit) {
        struct item *item = list_take(&background->todo);

        if (!item) {
            pthread_cond_wait(&background->wake, &background->mutex);
            continue;
        }
        pthread_mutex_unlock(&background->mutex);
        item->work(item->arg);
        pthread_mutex_lock(&background->mutex);
        list_push(&background->ended, item);
        tell(background);
    }
    pthread_mutex_unlock(&background->mutex);
    return NULL;
}

static void end_all(struct background *background)
{
    struct item *item;

    do {
        pthread_mutex_lock(&background->mutex);
        item = list_take(&background->ended);
        pthread_mutex_unlock(&background->mutex);
        if (item) {
            item->done(item->arg);
            free(item);
        }
    } while (item);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    uint64_t count;

    (void)what;
    if (read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
        end_all(arg);
}

struct background *background_new(struct event_base *base)
{
    struct background *background = mem_new(1, sizeof(*background));

    list_init(&background->todo);
    list_init(&background->ended);
    BUG_ON(pthread_mutex_init(&background->mutex, NULL) != 0);
    BUG_ON(pthread_cond_init(&background->wake, NULL) != 0);
    background->signal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    BUG_ON(background->signal_fd < 0);
    background->readable =
        event_new(base, background->signal_fd, EV_READ | EV_PERSIST, on_signal, background);
    BUG_ON(!background->readable || event_add(background->readable, NULL) != 0);
    return background;
}

void background_free(struct background *background)
{
    struct item *item;

    if (!background)
        return;
    if (background->running) {
        pthread_mutex_lock(&background->mutex);
        background->quit = true;
        pthread_cond_signal(&background->wake);
        pthread_mutex_unlock(&background->mutex);
        pthread_join(background->thread, NULL);
    }
    while ((item = list_take(&background->todo)) != NULL)
        list_push(&background->ended, item);
    end_all(background);
    event_free(background->readable);
    close(background->signal_fd);
    pthread_cond_destroy(&background->wake);
    pthread_mutex_destroy(&background->mutex);
    free(background);
}

void background_run(struct background *background, background_work_f work, background_done_f done,
                    void *arg)
{
    struct item *item = mem_new(1, sizeof(*item));

    item->work = work;
    item->done = done;
    item->arg = arg;
    pthread_mutex_lock(&background->mutex);
    list_push(&background->todo, item);
    pthread_cond_signal(&background->wake);
    pthread_mutex_unlock(&background->mutex);
    if (!background->running) {
        BUG_ON(pthread_create(&background->thread, NULL, loop, background) != 0);
        background->running = true;
    }
}
