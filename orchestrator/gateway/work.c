#include "orchestrator/gateway/work.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/pure/mem.h"

#define MAX_WAITING 256u

struct queue {
    struct work_item *first;
    struct work_item **last;
};

struct work {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct queue todo;
    struct queue done;
    bool stop;
    int wake; /* eventfd, thread → loop */
    struct event *event;
    uint64_t waiting; /* of the loop: posted and not told */
};

static void queue_put(struct queue *queue, struct work_item *item)
{
    item->next = NULL;
    *queue->last = item;
    queue->last = &item->next;
}

static struct work_item *queue_take(struct queue *queue)
{
    struct work_item *item = queue->first;

    if (item != NULL) {
        queue->first = item->next;
        if (queue->first == NULL)
            queue->last = &queue->first;
    }
    return item;
}

static void *thread_main(void *arg)
{
    struct work *work = arg;
    static const uint64_t one = 1;

    pthread_mutex_lock(&work->lock);
    while (!work->stop) {
        struct work_item *item = queue_take(&work->todo);
        if (item == NULL) {
            pthread_cond_wait(&work->more, &work->lock);
            continue;
        }
        pthread_mutex_unlock(&work->lock);
        item->rc = item->run(item, &item->err);
        pthread_mutex_lock(&work->lock);
        queue_put(&work->done, item);
        /* Full or interrupted: the loop is awake already or wakes at the next. */
        ssize_t written = write(work->wake, &one, sizeof(one));
        (void)written;
    }
    pthread_mutex_unlock(&work->lock);
    return NULL;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct work *work = arg;
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof(count));

    (void)what;
    (void)got;
    pthread_mutex_lock(&work->lock);
    struct work_item *item = work->done.first;
    work->done.first = NULL;
    work->done.last = &work->done.first;
    pthread_mutex_unlock(&work->lock);
    while (item != NULL) {
        struct work_item *next = item->next;
        work->waiting--;
        item->on_done(item, item->rc, &item->err);
        item = next;
    }
}

int work_new(struct event_base *base, struct work **ret_work, struct err *err)
{
    struct work *work = mem_new(1, sizeof(*work));

    work->todo.last = &work->todo.first;
    work->done.last = &work->done.first;
    pthread_mutex_init(&work->lock, NULL);
    pthread_cond_init(&work->more, NULL);
    work->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (work->wake < 0 || pthread_create(&work->thread, NULL, thread_main, work) != 0) {
        int rc = err_set(err, ERR_IO, "cannot start the work thread: %s", strerror(errno));
        if (work->wake >= 0)
            close(work->wake);
        free(work);
        return rc;
    }
    work->event = event_new(base, work->wake, EV_READ | EV_PERSIST, on_wake, work);
    event_add(work->event, NULL);
    *ret_work = work;
    return 0;
}

void work_free(struct work *work)
{
    if (work == NULL)
        return;
    pthread_mutex_lock(&work->lock);
    work->stop = true;
    pthread_cond_signal(&work->more);
    pthread_mutex_unlock(&work->lock);
    pthread_join(work->thread, NULL);
    event_free(work->event);
    close(work->wake);
    pthread_mutex_destroy(&work->lock);
    pthread_cond_destroy(&work->more);
    free(work);
}

bool work_post(struct work *work, struct work_item *item)
{
    if (work->waiting >= MAX_WAITING)
        return false;
    work->waiting++;
    pthread_mutex_lock(&work->lock);
    queue_put(&work->todo, item);
    pthread_cond_signal(&work->more);
    pthread_mutex_unlock(&work->lock);
    return true;
}

uint64_t work_waiting(const struct work *work)
{
    return work->waiting;
}
