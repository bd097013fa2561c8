"""What will have been spent by the end of a month."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, timedelta

from workbench.analytics.whatif import Estimate, t_value

# Days that say how the rest of the month goes on.
LOOK_BACK = 28
_FEWEST_DAYS, _FEWEST_WEEKLY = 3, 21


def project_spending(
    spent: Mapping[date, float], today: date, until: date, *, left: float = 1.0, level: float = 0.9
) -> list[tuple[date, Estimate]] | None:
    """What will be spent from now to the end of each day until `until`, the rest of today included.

    Days are taken to vary as the last `LOOK_BACK` complete ones did, each weekday around its own mean from three weeks on.
    The band counts both the days to come and how little is known of the means.

    Args:
        spent: dollars by day; a day that is missing between others is one without spending. What was spent today says
            nothing of what comes.
        left: the share of today that is still to come, from 0 to 1; it is taken to cost its share of a usual day.

    Returns: None where fewer than three complete days are known.
    """
    known = [day for day in spent if today - timedelta(days=LOOK_BACK) <= day < today]
    if not known:
        return None
    days = [min(known) + timedelta(days=n) for n in range((today - min(known)).days)]
    if len(days) < _FEWEST_DAYS:
        return None
    weekly = len(days) >= _FEWEST_WEEKLY
    groups: dict[int, list[float]] = {}
    for day in days:
        groups.setdefault(day.weekday() if weekly else 0, []).append(spent.get(day, 0.0))
    means = {group: sum(values) / len(values) for group, values in groups.items()}
    residuals = sum((value - means[group]) ** 2 for group, values in groups.items() for value in values)
    degrees = len(days) - len(groups)
    half_width, scale = t_value(degrees, level), residuals / degrees
    ahead: dict[int, float] = {}
    found, mean, days_ahead = [], 0.0, 0.0
    for number in range((until - today).days + 1):
        day = today + timedelta(days=number)
        group = day.weekday() if weekly else 0
        part = 1.0 if number else left
        days_ahead += part
        ahead[group] = ahead.get(group, 0.0) + part
        mean += part * means[group]
        variance = scale * (days_ahead + sum(k * k / len(groups[g]) for g, k in ahead.items()))
        half = half_width * math.sqrt(variance)
        found.append((day, Estimate(mean, max(0.0, mean - half), mean + half)))
    return found
