#include <string.h>

#include "orchestrator/core/world.h"

#define SECOND ((usec_t)1000000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

/* Starting values: docs/policy of the design (prepare 15 min, lost 120 s, settle each minute). */
void policy_default(struct policy *policy)
{
    *policy = (struct policy){
        .version = 1,
        .fee_ppm = 50000,
        .lost_after_us = 120 * SECOND,
        .prepare_timeout_us = 15 * MINUTE,
        .prepare_progress_us = 120 * SECOND,
        .start_timeout_us = 120 * SECOND,
        .output_timeout_us = 15 * MINUTE,
        .settle_every_us = MINUTE,
        .backoff_first_us = 10 * SECOND,
        .backoff_max_us = 10 * MINUTE,
        .resend_after_us = 10 * SECOND,
        .mass_silence_min = 5,
        .mass_silence_window_us = MINUTE,
        .mass_silence_hold_us = 10 * MINUTE,
        .link_max_age_us = 15 * MINUTE,
        .probe_every_us = 5 * MINUTE,
        .asset = "USD",
    };
}

static int check_span(const char *name, usec_t value, usec_t least, usec_t most, struct err *err)
{
    if (value < least || value > most)
        return err_set_at(err, ERR_OUT_OF_RANGE, name, "%lld us is not within %lld and %lld",
                          (long long)value, (long long)least, (long long)most);
    return 0;
}

int policy_check(const struct policy *policy, struct err *err)
{
    const struct {
        const char *name;
        usec_t value;
        usec_t least;
        usec_t most;
    } spans[] = {
        {"lost_after_us", policy->lost_after_us, SECOND, DAY},
        {"prepare_timeout_us", policy->prepare_timeout_us, SECOND, DAY},
        {"prepare_progress_us", policy->prepare_progress_us, SECOND, DAY},
        {"start_timeout_us", policy->start_timeout_us, SECOND, DAY},
        {"output_timeout_us", policy->output_timeout_us, SECOND, 7 * DAY},
        {"settle_every_us", policy->settle_every_us, SECOND, HOUR},
        {"backoff_first_us", policy->backoff_first_us, SECOND / 10, HOUR},
        {"backoff_max_us", policy->backoff_max_us, policy->backoff_first_us, DAY},
        {"resend_after_us", policy->resend_after_us, SECOND, 5 * MINUTE},
        {"mass_silence_window_us", policy->mass_silence_window_us, SECOND, HOUR},
        {"mass_silence_hold_us", policy->mass_silence_hold_us, 0, DAY},
        {"link_max_age_us", policy->link_max_age_us, MINUTE, 30 * DAY},
        {"probe_every_us", policy->probe_every_us, SECOND, DAY},
    };

    for (size_t i = 0; i < sizeof(spans) / sizeof(spans[0]); i++) {
        int rc = check_span(spans[i].name, spans[i].value, spans[i].least, spans[i].most, err);
        if (rc < 0)
            return rc;
    }
    if (policy->fee_ppm > PPM)
        return err_set_at(err, ERR_OUT_OF_RANGE, "fee_ppm", "%u at most", PPM);
    if (policy->mass_silence_min == 0)
        return err_set_at(err, ERR_OUT_OF_RANGE, "mass_silence_min", "at least 1");
    if (policy->asset[0] == '\0' || memchr(policy->asset, '\0', sizeof(policy->asset)) == NULL)
        return err_set_at(err, ERR_OUT_OF_RANGE, "asset", "1-7 characters");
    return 0;
}
