"""Figures of several models, each trained with several seeds, in one table."""

import math

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

# What the table shows, where it was measured: key, title, digits, key of its level of chance.
COLUMNS = (
    ('multi-label/precision_top4_micro', 'top-4\nprecision', 1, None),
    ('multi-label/mAP', 'mAP', 1, None),
    ('multi-label/grid_pg', 'GridPG', 1, 'multi-label/grid_pg_chance'),
    ('multi-label/grid_pg_sure', 'GridPG\n(sure)', 1, 'multi-label/grid_pg_sure_chance'),
    ('multi-label/energy_pg', 'EnergyPG', 1, 'multi-label/energy_pg_chance'),
    ('multi-label/energy_pg_ratio', 'EnergyPG\n/ area', 2, None),
    ('multi-label/pointing_game', 'Pointing\ngame', 1, 'multi-label/pointing_game_chance'),
    ('multi-label/pointing_game_ratio', 'Pointing\n/ area', 2, None),
    ('swap', 'Swap', 1, 'swap_chance'),
    ('swap_expected', 'Swap\nas expected', 1, 'swap_expected_chance'),
    ('road', 'ROAD', 1, 'road_chance'),
    ('completeness', 'map and bias\nof the logit', 1, None),
    ('multi-label/map_correlation', 'map\ncorrelation', 2, 'multi-label/map_correlation_chance'),
    ('random_head/grid_pg', 'GridPG of a\nrandom head', 1, 'multi-label/grid_pg_chance'),
    ('random_head/energy_pg', 'EnergyPG of a\nrandom head', 1, 'multi-label/energy_pg_chance'),
)


def results_table(results: dict[str, list[dict[str, float]]]) -> Table:
    """Make a table: a model a row, mean and standard deviation over its seeds, chance below.

    Args:
        results (dict): For every name of a model one dict of figures per seed.
    """
    every = [figures for group in results.values() for figures in group]
    columns = [column for column in COLUMNS if any(column[0] in figures for figures in every)]
    table = Table('model', 'n', box=SIMPLE_HEAD, show_footer=True)
    table.columns[0].footer = 'chance'
    for _, title, digits, chance in columns:
        # It is not a number where a model has no image to measure on.
        level = next(
            (figures[chance] for figures in every if not math.isnan(figures.get(chance, math.nan))),
            None,
        )
        table.add_column(title, '' if level is None else f'{level:.{digits}f}', justify='right')
    for name, group in results.items():
        table.add_row(
            name,
            str(len(group)),
            *(
                _mean_and_std([figures[key] for figures in group if key in figures], digits)
                for key, _, digits, _ in columns
            ),
        )
    return table


def _mean_and_std(values: list[float], digits: int) -> str:
    if not values:
        return ''
    mean = f'{round(np.mean(values), digits) + 0.0:.{digits}f}'  # adding 0 makes -0 a 0
    return mean if len(values) == 1 else f'{mean} ± {np.std(values, ddof=1):.{digits}f}'
