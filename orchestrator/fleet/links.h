#ifndef SHEAF_ORCHESTRATOR_FLEET_LINKS_H
#define SHEAF_ORCHESTRATOR_FLEET_LINKS_H

/*
 * Keeps link reports from becoming commits: remembers per direction what was told to the core last
 * and says whether a new sample is news. Takes time as an argument; knows no world.
 */
#include <stdbool.h>
#include <stdint.h>

#include "orchestrator/core/event.h"

struct links;

struct links *links_new(void);
void links_free(struct links *links);
/*
 * True when the sample is to be told, and remembers it then. News is: the first sample of this
 * direction; reachability or "answers at all" changed; p95 moved by more than both 10 % and
 * LINKS_MIN_MOVE_US; loss moved by more than LINKS_MIN_LOSS_PPM; or the last one told is older than
 * half of max_age_us, so that a steady link never counts as unmeasured. O(1).
 */
bool links_news(struct links *links, const struct ev_link *sample, int64_t now_us,
                int64_t max_age_us);
/* Drops both directions of a node that left. O(all). */
void links_forget(struct links *links, uint64_t node);
/* After a reload of the world: everything is news again. */
void links_clear(struct links *links);

/* Jitter of an idle host's UDP echo; below it a change says nothing about the path. */
#define LINKS_MIN_MOVE_US 200u
/* One probe of 20 lost is 50 000 ppm; a tenth of it never happens by one packet. */
#define LINKS_MIN_LOSS_PPM 10000u
/* Remembered directions: 1000 nodes probing 256 peers each. Beyond it samples are always news. */
#define LINKS_MAX 262144u

#endif
