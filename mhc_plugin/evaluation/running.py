"""Metrics that keep what they compute from, in few bytes, and not the samples."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.evaluator import BaseMetric
from torch import Tensor

from .samples import read_batch

# Scores that are gathered before they are made compact, and pairs that are sorted at a time: large
# enough for the work per call not to matter, small enough for memory not to.
BLOCK = 2**21


class RunningMetric(BaseMetric):
    """A metric of scores and targets whose memory does not grow with images times classes.

    A subclass says what it keeps of a block of samples, and computes its results from that.

    Args:
        collect_device (str): ``'cpu'`` or ``'gpu'``, where results of several processes are
            collected. Defaults to ``'cpu'``.
        prefix (str, optional): Put before the names of the results. Defaults to None, which
            means ``'multi-label'``.
    """

    default_prefix = 'multi-label'

    def __init__(self, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self._start()

    @abstractmethod
    def new_state(self) -> Any:
        """What is kept of no samples."""

    @abstractmethod
    def add(self, state: Any, scores: Tensor, target: Tensor) -> Any:
        """Add samples to what is kept.

        Args:
            state (Any): What is kept so far; it may be changed.
            scores (Tensor): ``(N, num_classes)``, checked.
            target (Tensor): 1, 0 or -1 (unknown), int8, same shape.

        Returns:
            Any: What is kept then.
        """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take in one batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``pred_score``, and ``gt_score`` or ``gt_label``.
        """
        if len(data_samples) == 0:
            return
        scores, target = read_batch(data_samples, self._seen)
        if self._batches and scores.shape[1] != self._batches[-1][0].shape[1]:
            raise ValueError(
                'Expected `pred_score` of one length in all samples, but got '
                f'{sorted({scores.shape[1], self._batches[-1][0].shape[1]})}.'
            )
        self._seen += len(scores)
        # The last batch stays until it is known whether its end is there to fill it up.
        if sum(kept.numel() for kept, _ in self._batches) >= BLOCK:
            self._take()
        self._batches.append((scores, target))

    def evaluate(self, size: int) -> dict:
        """Compute the results over all samples of all processes.

        Args:
            size (int): Number of samples of the whole data set. Samples that a sampler repeats so
                that all processes have as many are left out, as MMEngine does it.

        Returns:
            dict[str, float | list]: The results by name.

        Raises:
            ValueError: If a process has seen more samples than its share and a last batch.
        """
        rank, world_size = get_dist_info()
        surplus = max(self._seen - len(range(rank, size, world_size)), 0)
        if surplus and surplus > len(self._batches[-1][0]):
            raise ValueError(
                f'Expected {size} samples for {world_size} processes, but process {rank} got '
                f'{self._seen}. Give each process its share, as `DefaultSampler` does.'
            )
        if surplus:
            scores, target = self._batches.pop()
            if surplus < len(scores):
                self._batches.append((scores[:-surplus], target[:-surplus]))
        self._take()
        # MMEngine collects as many results as there are samples; here every process has one.
        self.results = [self._state]
        try:
            return super().evaluate(world_size)
        finally:
            self._start()

    def _start(self) -> None:
        self.results = []
        self._state = self.new_state()
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._seen = 0

    def _take(self) -> None:
        if self._batches:
            scores, target = map(torch.cat, zip(*self._batches))
            self._batches.clear()
            self._state = self.add(self._state, scores, target)


class KnownScores:
    """Scores of the known pairs of image and class, class by class.

    Takes the bytes of a score and one more for each pair, and 4 bytes for each class and ``BLOCK``
    scores that went in. They lie in three byte arrays that grow in place: many small tensors
    would keep the memory between them from being used again.
    """

    def __init__(self) -> None:
        self.num_classes = 0
        self.dtype: torch.dtype | None = None
        # Block after block, each in the order of classes: the scores of its pairs, whether they are
        # positive, and how many pairs each class has.
        self._scores, self._positive, self._counts = bytearray(), bytearray(), bytearray()

    def add(self, scores: Tensor, target: Tensor) -> 'KnownScores':
        """Add the known pairs of a block of samples.

        Args:
            scores (Tensor): ``(N, num_classes)``, of one dtype in all blocks.
            target (Tensor): 1, 0 or -1 (unknown), same shape.

        Returns:
            KnownScores: Itself.
        """
        if self.dtype not in (None, scores.dtype):
            raise ValueError(f'Expected scores in {self.dtype}, as before, but got {scores.dtype}.')
        self.num_classes, self.dtype = scores.shape[1], scores.dtype
        is_known = (target != -1).flatten()
        if is_known.all():
            in_order = scores.T.reshape(-1), target.T.reshape(-1)
            counts = torch.full((self.num_classes,), len(target))
        else:
            known = is_known.nonzero().squeeze(1)
            classes = known % self.num_classes
            known = known[classes.argsort(stable=True)]
            in_order = scores.flatten()[known], target.flatten()[known]
            counts = classes.bincount(minlength=self.num_classes)
        self._scores += _bytes(in_order[0])
        self._positive += _bytes(in_order[1] == 1)
        self._counts += _bytes(counts.int())
        return self

    def blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Scores ``(n,)``, whether they are positive, and where each class begins and ends.

        The last is int64 ``(num_classes + 1,)``.
        """
        if self.dtype is None:
            return
        counts = torch.frombuffer(self._counts, dtype=torch.int32).view(-1, self.num_classes)
        sizes = counts.sum(1).tolist()
        if not any(sizes):
            scores, positive = torch.empty(0, dtype=self.dtype), torch.empty(0, dtype=torch.bool)
        else:
            scores = torch.frombuffer(self._scores, dtype=self.dtype)
            positive = torch.frombuffer(self._positive, dtype=torch.bool)
        for *pairs, row in zip(scores.split(sizes), positive.split(sizes), counts):
            yield *pairs, torch.cat([row.new_zeros(1), row]).cumsum(0, dtype=torch.int64)


def pairs_of_classes(parts: Sequence[KnownScores]) -> Iterator[tuple[Tensor, Tensor]]:
    """Give for every class the scores of its known pairs, and whether they are positive.

    Pairs are in the order in which they went in. Some classes at a time are put in order, with
    ``BLOCK`` pairs or those of one class.

    Args:
        parts (Sequence[KnownScores]): What every process has kept.

    Raises:
        ValueError: If there are no samples, or their numbers of classes differ.
    """
    widths = {part.num_classes for part in parts if part.dtype is not None}
    if not widths:
        raise ValueError('Expected at least one sample to evaluate, but got none.')
    if len(widths) > 1:
        raise ValueError(
            f'Expected `pred_score` of one length in all samples, but got {sorted(widths)}.'
        )
    blocks = [block for part in parts for block in part.blocks()]
    total = sum(ends for _, _, ends in blocks)
    start, num_classes = 0, len(total) - 1
    while start < num_classes:
        fit = int(torch.searchsorted(total, total[start] + BLOCK, right=True)) - 1
        stop = min(max(fit, start + 1), num_classes)
        scores, positive, numbers = [], [], []
        for values, is_positive, ends in blocks:
            own = slice(int(ends[start]), int(ends[stop]))
            scores.append(values[own])
            positive.append(is_positive[own])
            counts = ends[start + 1 : stop + 1] - ends[start:stop]
            numbers.append(torch.arange(stop - start).repeat_interleave(counts))
        order = torch.cat(numbers).argsort(stable=True)
        lengths = (total[start + 1 : stop + 1] - total[start:stop]).tolist()
        yield from zip(
            torch.cat(scores)[order].split(lengths), torch.cat(positive)[order].split(lengths)
        )
        start = stop


def _bytes(values: Tensor) -> memoryview:
    return memoryview(values.contiguous().view(torch.uint8).numpy())
