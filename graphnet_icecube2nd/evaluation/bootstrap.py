"""Bootstrap intervals of means, of paired differences and of quantiles.

Two reconstructions of the same events have correlated errors, so their difference is
known far better than either mean. Source: the percentile bootstrap, Efron and
Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Shape letters: B
events, R rows, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95  # share of the resamples inside the interval

Array = NDArray[np.float64]


def paired_intervals(
    difference_RB: Array,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Array:
    """Return intervals of mean differences, (R, 2), by the percentile bootstrap.

    All rows use the same resamples of the events. A share `level` of the resamples
    lies inside the interval.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            "resamples must be 1 or more and level between 0 and 1, found resamples "
            f"{resamples} and level {level}"
        )
    num_events = difference_RB.shape[1]
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, len(difference_RB)))
    for sample in range(resamples):
        drawn = generator.integers(0, num_events, num_events)
        times_B = np.bincount(drawn, minlength=num_events)
        means[sample] = difference_RB @ times_B / num_events
    edge = (1 - level) / 2
    interval_R2: Array = np.quantile(means, [edge, 1 - edge], axis=0).T
    return interval_R2


def resampled_quantiles(
    value_B: Array,
    shares: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Array:
    """Return intervals of quantiles (0.5: the median), (Q, 2), by the same bootstrap.

    The number of a resample's events below a value is binomial, so the resample's
    quantile is the event at a rank that follows a beta distribution. Drawing the ranks
    takes a time that does not depend on the number of events.
    """
    ordered, num = np.sort(value_B), len(value_B)
    generator = np.random.default_rng(seed)
    edge = (1 - level) / 2
    intervals = np.empty((len(shares), 2))
    for number, share in enumerate(shares):
        rank = share * (num - 1)
        place = generator.beta(rank + 1, num - rank, resamples) * num
        drawn = ordered[np.minimum(place.astype(np.int64), num - 1)]
        intervals[number] = np.quantile(drawn, [edge, 1 - edge])
    return intervals
