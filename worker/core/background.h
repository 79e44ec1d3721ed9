#ifndef SHEAF_WORKER_CORE_BACKGROUND_H
#define SHEAF_WORKER_CORE_BACKGROUND_H

/*
 * One thread for what takes long and blocks: hashing, packing, unpacking, removing trees. Work is
 * done in order; what it touches belongs to it until its end is told on the loop's thread.
 */
#include <event2/event.h>
#include <stdbool.h>

struct background;

/* On the thread. */
typedef void (*background_work_f)(void *arg);
/* On the loop, later, once per work. */
typedef void (*background_done_f)(void *arg);

/* The thread starts with the first work. */
struct background *background_new(struct event_base *base);
/* Waits for the work that runs; work that has not begun is dropped with its `done` called. */
void background_free(struct background *background);
void background_run(struct background *background, background_work_f work, background_done_f done,
                    void *arg);

#endif
