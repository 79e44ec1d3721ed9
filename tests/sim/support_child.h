#ifndef SHEAF_TESTS_SIM_SUPPORT_CHILD_H
#define SHEAF_TESTS_SIM_SUPPORT_CHILD_H

/* Seeds in children, so that a seed on which the core aborts is named like any other. */
#include "tests/sim/sim.h"

/* True when the run came to its end; false when it aborted: then only result->rule is set. */
bool child_run(const struct sim_options *options, struct sim_result *ret_result);

#endif
