"""Statistics of weighted events: quantiles, shares, intervals, ROC curves, distances.

An event of weight 3 counts as three equal events, and only ratios of weights matter, so
that a statistical error follows from the effective number of events, (sum w)^2 /
sum w^2. Without weights (None) all events count alike.

Two reconstructions of the same events have correlated errors, so their difference is
known far better than either mean: intervals of differences are paired.

Sources: the percentile bootstrap, Efron and Tibshirani, An Introduction to the
Bootstrap (1993), chapter 13; intervals of shares, E. B. Wilson, J. Am. Stat. Assoc. 22
(1927) 209; area under the ROC curve, E. R. DeLong et al., Biometrics 44 (1988) 837;
partial area, D. K. McClish, Med. Decis. Making 9 (1989) 190. Shape letters: B events, R
rows, Q quantiles, N points of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95  # share of the resamples inside the interval
NORMAL_95 = 1.959963985  # half width of a normal distribution's central 95%
SAME = 1e-12  # relative difference of sums of weights that is rounding
BAND_EVENTS = 2e7  # events drawn for the band of a ROC curve, all resamples together
FALSE_RATE = 0.1  # largest false positive rate of the partial area

Array = NDArray[np.float64]
Chosen = NDArray[np.bool_]


def effective_events(weight_B: Array) -> float:
    """Return the number of equal weights with the same relative error; 0 for none."""
    square = float(np.square(weight_B).sum())
    return float(weight_B.sum()) ** 2 / square if square else 0.0


def is_weighted(weight_B: Array | None) -> bool:
    """Return whether weights differ from each other."""
    return weight_B is not None and len(np.unique(weight_B)) > 1


def mean(value_B: Array | Chosen, weight_B: Array | None = None) -> float:
    """Return the mean, or a share for values of True and False."""
    return float(np.average(value_B, weights=weight_B))


def quantile(
    value_B: Array, shares: Sequence[float], weight_B: Array | None = None
) -> Array:
    """Return quantiles, (Q,), for shares from 0 to 1.

    With different weights: the value at which the sum of the weights passes the share
    of the total; where the sum equals the share, the mean of this value and the next.
    """
    if weight_B is None or not is_weighted(weight_B):
        plain: Array = np.quantile(value_B, shares)
        return plain
    ordered, total = _cumulated(value_B, weight_B)
    wanted, rounding = np.asarray(shares) * total[-1], SAME * total[-1]
    low = np.searchsorted(total, wanted - rounding, side="left")
    high = np.searchsorted(total, wanted + rounding, side="right")
    last = len(ordered) - 1
    found: Array = (
        ordered[np.minimum(low, last)] + ordered[np.minimum(high, last)]
    ) / 2
    return found


def _cumulated(value_B: Array, weight_B: Array) -> tuple[Array, Array]:
    """Return ordered values with a weight above 0, and the sums of their weights."""
    counted = weight_B > 0
    value, weight = value_B[counted], weight_B[counted]
    order = np.argsort(value, kind="stable")
    return value[order], np.cumsum(weight[order])


def share_interval(share: float, num_effective: float) -> tuple[float, float]:
    """Return the 95% interval of a share of events, by Wilson's formula."""
    if not num_effective > 0:
        return 0.0, 1.0
    square = NORMAL_95**2 / num_effective
    centre = (share + square / 2) / (1 + square)
    half = np.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return float(centre - half), float(centre + half)


def share_error(is_in_B: Chosen, weight_B: Array) -> float:
    """Return the standard error of a weighted share of events."""
    off = weight_B * (is_in_B - mean(is_in_B, weight_B))
    return float(np.sqrt(np.square(off).sum()) / weight_B.sum())


def density(value_B: Array, edges: Array, weight_B: Array | None = None) -> Array:
    """Return the density in bins; the total includes values outside the bins."""
    counts, _ = np.histogram(value_B, edges, weights=weight_B)
    total = len(value_B) if weight_B is None else weight_B.sum()
    per_unit: Array = counts / (total or 1) / np.diff(edges)
    return per_unit


def paired_intervals(
    difference_RB: Array,
    weight_B: Array | None = None,
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
    if weight_B is not None:
        counted = weight_B > 0
        difference_RB, weight_B = difference_RB[:, counted], weight_B[counted]
    num_events = difference_RB.shape[1]
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, len(difference_RB)))
    for sample in range(resamples):
        drawn = generator.integers(0, num_events, num_events)
        drawn_weight = None if weight_B is None else weight_B[drawn]
        times_B = np.bincount(drawn, drawn_weight, num_events)
        means[sample] = difference_RB @ times_B / times_B.sum()
    edge = (1 - level) / 2
    interval_R2: Array = np.quantile(means, [edge, 1 - edge], axis=0).T
    return interval_R2


def quantile_intervals(
    value_B: Array,
    shares: Sequence[float],
    weight_B: Array | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Array:
    """Return intervals of quantiles (0.5: the median), (Q, 2), by the same bootstrap.

    The share of a resample's events below a value is binomial, so the resample's
    quantile is the event at a share that follows a beta distribution. Drawing the
    shares takes a time that does not depend on the number of events. With weights, the
    distribution has the variance of the weighted share.
    """
    if weight_B is None or not is_weighted(weight_B):
        weight_B = np.ones(len(value_B))
    ordered, total = _cumulated(value_B, weight_B)
    generator = np.random.default_rng(seed)
    edge = (1 - level) / 2
    intervals = np.empty((len(shares), 2))
    for number, share in enumerate(shares):
        num = _effective_number(value_B, share, weight_B)
        rank = share * (num - 1)
        drawn = generator.beta(rank + 1, num - rank, resamples) * total[-1]
        place = np.searchsorted(total, drawn, side="right")
        intervals[number] = np.quantile(
            ordered[np.minimum(place, len(ordered) - 1)], [edge, 1 - edge]
        )
    return intervals


def _effective_number(value_B: Array, share: float, weight_B: Array) -> float:
    """Return the number of equal events with the same error of a quantile's share."""
    if not is_weighted(weight_B):
        return len(value_B)
    is_below_B = value_B <= quantile(value_B, [share], weight_B)[0]
    square = float(np.square(weight_B * (is_below_B - share)).sum())
    num = share * (1 - share) * float(weight_B.sum()) ** 2 / square if square else 1.0
    return float(np.clip(num, 1.0, (weight_B > 0).sum()))


def roc_curve(
    score_B: Array, is_yes_B: Chosen, weight_B: Array | None = None
) -> tuple[Array, Array]:
    """Return false and true positive rates for falling thresholds, (N,) each."""
    weight_B = np.ones(len(score_B)) if weight_B is None else weight_B
    order = np.argsort(-score_B, kind="stable")
    yes, no = (weight_B * is_yes_B)[order], (weight_B * ~is_yes_B)[order]
    last = np.append(np.diff(score_B[order]) != 0, True)
    rates = [
        np.cumsum(of_class)[last] / (of_class.sum() or 1) for of_class in (no, yes)
    ]
    return np.append(0.0, rates[0]), np.append(0.0, rates[1])


def roc_area(false_N: Array, true_N: Array, most: float = 1.0) -> float:
    """Return the area under a ROC curve.

    Below `most` 1 it is the partial area for false positive rates up to `most`, scaled
    by McClish's formula: 1 for perfect separation, 0.5 for guessing.
    """
    inside = false_N < most
    end = np.interp(most, false_N, true_N)
    if most >= 1:
        inside, end = np.ones(len(false_N), bool), true_N[-1]
    false, true = np.append(false_N[inside], most), np.append(true_N[inside], end)
    area = float(np.diff(false) @ (true[1:] + true[:-1]) / 2)
    if most >= 1:
        return area
    guess = most**2 / 2
    return 0.5 * (1 + (area - guess) / (most - guess))


def auc_error(score_B: Array, is_yes_B: Chosen, weight_B: Array | None = None) -> float:
    """Return the standard error of the area under the ROC curve, by DeLong's formula.

    NaN if there are no events of one class.
    """
    weight_B = np.ones(len(score_B)) if weight_B is None else weight_B
    variance = 0.0
    for of_class in (is_yes_B, ~is_yes_B):
        weight = weight_B[of_class]
        if not weight.sum() or not weight_B[~of_class].sum():
            return float("nan")
        # Share of the other class below each score, half for equal scores.
        other, total = _cumulated(score_B[~of_class], weight_B[~of_class])
        total = np.append(0.0, total) / total[-1]
        places = [
            np.searchsorted(other, score_B[of_class], s) for s in ("left", "right")
        ]
        share = (total[places[0]] + total[places[1]]) / 2
        off = weight * (share - np.average(share, weights=weight))
        variance += float(np.square(off).sum() / weight.sum() ** 2)
    return float(np.sqrt(variance))


def roc_band(
    score_B: Array,
    is_yes_B: Chosen,
    false_N: Array,
    weight_B: Array | None = None,
    *,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Return the ends of the 95% bootstrap interval of the true positive rate, (N,).

    `false_N` are the false positive rates at which it is given. For many events there
    are fewer resamples.
    """
    weight_B = np.ones(len(score_B)) if weight_B is None else weight_B
    order = np.argsort(-score_B, kind="stable")
    weight, is_yes = weight_B[order], is_yes_B[order]
    last = np.append(np.diff(score_B[order]) != 0, True)
    generator = np.random.default_rng(seed)
    rates = []
    for _ in range(int(np.clip(BAND_EVENTS / len(score_B), 50, 300))):
        drawn = weight * generator.poisson(1.0, len(weight))
        no, yes = (np.cumsum(drawn * c)[last] for c in (~is_yes, is_yes))
        if no[-1] and yes[-1]:
            no, yes = np.append(0.0, no / no[-1]), np.append(0.0, yes / yes[-1])
            rates.append(np.interp(false_N, no, yes))
    if not rates:
        return np.full((2, len(false_N)), np.nan)[0], np.full(len(false_N), np.nan)
    low, high = np.quantile(rates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def kolmogorov_smirnov(
    first_B: Array,
    second_B: Array,
    first_weight_B: Array | None = None,
    second_weight_B: Array | None = None,
) -> tuple[float, float]:
    """Return the largest difference of two cumulative distributions, and its p-value.

    With weights, the p-value is that of the effective numbers of events. It is
    asymptotic, and too large for values with many ties.
    """
    samples, numbers = [], []
    for value, weight in ((first_B, first_weight_B), (second_B, second_weight_B)):
        weight = np.ones(len(value)) if weight is None else weight
        samples.append(_cumulated(value, weight))
        numbers.append(effective_events(weight))
    # The difference is largest at, or just before, a value of the smaller sample.
    values = min((ordered for ordered, _ in samples), key=len)
    sums = []
    for ordered, total in samples:
        places = [np.searchsorted(ordered, values, side=s) for s in ("left", "right")]
        sums.append(np.append(0.0, total)[places] / total[-1])
    distance = float(np.abs(sums[0] - sums[1]).max())
    scaled = distance * np.sqrt(numbers[0] * numbers[1] / sum(numbers))
    if scaled < 0.2:  # the series converges slowly; the value is 1
        return distance, 1.0
    k = np.arange(1, 101)
    series = 2 * np.sum((-1.0) ** (k - 1) * np.exp(-2 * (k * scaled) ** 2))
    return distance, float(np.clip(series, 0.0, 1.0))
