"""Which way the metrics of this package are better."""

import re

# Names without prefix; the first pattern that fits a whole name says it.
_DIRECTIONS = (
    # Levels of chance and numbers of things are no merit of a model; lists have no order.
    (r'.*_(chance|num_\w+|classwise|matrix)', None),
    (r'hamming_distance_top\d+(_micro)?', 'less'),
    (r'map_correlation(_positive)?', 'less'),
    (r'(accuracy|precision|recall|f1)_top\d+(_micro)?', 'greater'),
    (r'mAP(_voc07)?', 'greater'),
    (r'(grid_pg|grid_pg_sure|energy_pg|pointing_game)(_ratio|_q25|_median|_q75)?', 'greater'),
)


def direction(name: str) -> str | None:
    """Say which way a metric of this package is better.

    Args:
        name (str): Name of a result, with any prefix, such as
            ``'multi-label/hamming_distance_top4'``.

    Returns:
        str | None: ``'greater'`` or ``'less'``, as MMEngine's hooks call it; None for what is no
        score, or no metric of this package.
    """
    item = name.rpartition('/')[2]
    return next((way for pattern, way in _DIRECTIONS if re.fullmatch(pattern, item)), None)
