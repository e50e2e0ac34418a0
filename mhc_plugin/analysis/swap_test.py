"""Swap test for spliced images: what the heads do when one tile becomes another class."""

import copy
import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from mhc_plugin.datasets import SplicedDataset
from mhc_plugin.functional.swap import logit_std, swap_effects
from mhc_plugin.utils.seeding import sample_seed

from .one_pass import run_models


@dataclass(frozen=True)
class SwapTest:
    """Result of the swap test, in percent.

    Attributes:
        score (float): Mean share of the change of all logits, each divided by its standard
            deviation over the unswapped composites, that falls on the two classes concerned. 100
            is perfect class-level disentanglement.
        chance (float): Its level of chance, ``200 / num_classes``.
        expected (float): Share of the swaps in which the removed class falls and the added one
            rises.
        expected_chance (float): Its level of chance, 25.
        num_swaps (int): Number of swaps, one per composite.
    """

    score: float
    chance: float
    expected: float
    expected_chance: float
    num_swaps: int


class SwappedSplices(Dataset):
    """The composites of a spliced data set, one tile of each replaced by one of an absent class.

    Cell, class and tile are drawn from the seed and the composite's index. Tiles come from the
    same data set, so from the same split.

    Args:
        dataset (SplicedDataset): The composites.
        seed (int): Seed of the draw. Defaults to 0.

    Raises:
        ValueError: If it is no spliced data set, or every composite shows all classes.
    """

    def __init__(self, dataset: SplicedDataset, seed: int = 0) -> None:
        if not isinstance(dataset, SplicedDataset):
            raise ValueError(
                'Expected argument `dataset` to be a `SplicedDataset`, whose tiles '
                f'can be swapped, but got `{type(dataset).__name__}`.'
            )
        if dataset.keep_classes is not None:
            raise ValueError(
                'Expected argument `dataset` to have all its classes, but it has '
                f'`keep_classes={dataset.keep_classes}`: a tile of another could not be swapped.'
            )
        self.dataset = dataset
        num_classes = len(dataset.CLASSES)
        pools: list[dict[Any, dict]] = [{} for _ in range(num_classes)]
        cells = []
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            cells.append(info['gt_cells'].flatten().tolist())
            for label, tile in zip(cells[-1], info['tiles']):
                pools[label].setdefault(_key(tile), tile)
        self._pools = [list(pool.values()) for pool in pools]
        draws = [self._draw(sample_seed(seed, i), row) for i, row in enumerate(cells)]
        self.cells, self.added, self._tiles = zip(*draws)
        self.removed = tuple(row[cell] for row, cell in zip(cells, self.cells))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        """The swapped composite as the pipeline packs it; targets and cells are swapped, too."""
        info = copy.copy(self.dataset.get_data_info(index))
        cell, removed, added = self.cells[index], self.removed[index], self.added[index]
        info['tiles'] = list(info['tiles'])
        info['tiles'][cell] = self._pools[added][self._tiles[index]]
        info['gt_cells'] = info['gt_cells'].clone()
        info['gt_cells'].view(-1)[cell] = added
        info['gt_label'] = sorted({*info['gt_label'], added} - {removed})
        info['gt_score'] = info['gt_score'].copy()
        info['gt_score'][[removed, added]] = 0, 1
        return self.dataset.pipeline(info)

    def _draw(self, seed: int, cells: list[int]) -> tuple[int, int, int]:
        """Draw a cell, the class that takes it, and which of its tiles."""
        rng = np.random.RandomState(seed)
        absent = [c for c, pool in enumerate(self._pools) if pool and c not in cells]
        if not absent:
            raise ValueError(
                'Expected composites that do not show all classes, but one of '
                f'{sorted(cells)} has none left to swap in.'
            )
        cell, added = rng.randint(len(cells)), absent[rng.randint(len(absent))]
        return cell, added, rng.randint(len(self._pools[added]))


def swap_test(
    models: Mapping[Hashable, nn.Module],
    dataset: SplicedDataset,
    seed: int = 0,
    batch_size: int = 32,
    num_workers: int = 0,
    before: Mapping[Hashable, torch.Tensor] | None = None,
) -> dict[Hashable, SwapTest]:
    """Swap one tile of every composite and see which logits move.

    A head that is disentangled answers to its own class alone. Unlike class maps, which show what
    a score is made of, this tests what causes it.

    Args:
        models (Mapping[Hashable, nn.Module]): Classifiers in evaluation mode, by name.
        dataset (SplicedDataset): Test composites.
        seed (int): Seed of the draw of swaps; the same for all models. Defaults to 0.
        batch_size (int): Defaults to 32.
        num_workers (int): Processes that load images. Defaults to 0.
        before (Mapping[Hashable, Tensor], optional): Logits of every model on the unswapped
            composites (N, num_classes), if they are at hand. Defaults to None.

    Returns:
        dict[Hashable, SwapTest]: The result of every model.

    Raises:
        ValueError: If the data set is not spliced, or there are no classes to swap in.
    """
    swapped = SwappedSplices(dataset, seed)
    if before is None:
        before = _logits(models, dataset, batch_size, num_workers, 'Composites')
    after = _logits(models, swapped, batch_size, num_workers, 'Swapped')
    removed, added = torch.tensor(swapped.removed), torch.tensor(swapped.added)
    results = {}
    for name, logits in before.items():
        effects = swap_effects(logits, after[name], removed, added, logit_std(logits))
        results[name] = SwapTest(
            score=100 * effects.scores.mean().item(),
            chance=200 / logits.shape[1],
            expected=100 * effects.expected.double().mean().item(),
            expected_chance=25.0,
            num_swaps=len(removed),
        )
    return results


def _logits(
    models: Mapping[Hashable, nn.Module],
    dataset: Dataset,
    batch_size: int,
    num_workers: int,
    description: str,
) -> dict[Hashable, torch.Tensor]:
    kept: dict[Hashable, list[torch.Tensor]] = {name: [] for name in models}
    for _, outputs in run_models(models, dataset, batch_size, num_workers, description):
        for name, output in outputs.items():
            kept[name].append(output.logits.cpu())
    return {name: torch.cat(logits) for name, logits in kept.items()}


def _key(tile: dict) -> str:
    """Tell tiles apart: by file, or by content where they are in memory."""
    return tile.get('img_path') or hashlib.sha1(np.ascontiguousarray(tile['img'])).hexdigest()
