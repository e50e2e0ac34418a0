"""Choose classes and images of a multi-label set, as even over the classes as can be had.

Images with the same classes present are interchangeable, so both functions work on the distinct
sets of classes ("patterns") and on how many images have each: a million images of ten classes come
to some hundred patterns.
"""

import numpy as np

from .label_table import LabelTable

# Rarer classes than these are never among the few that are chosen for having many images.
MAX_CANDIDATES = 64


def choose_classes(
    labels: np.ndarray | LabelTable,
    num_classes: int = 10,
    min_labels: int = 2,
    max_labels: int | None = 7,
    max_images: int = 10_000,
    seed: int = 0,
) -> list[int]:
    """Choose classes that give many images with several of them, evenly.

    A choice is better if it leaves more images with ``min_labels`` to ``max_labels`` of its
    classes, counted up to ``max_images``; among equals, if the class with the fewest of these
    images has more, then the second, and so on. The search starts with the most frequent classes
    and exchanges one class at a time as long as that helps.

    Args:
        labels (np.ndarray | LabelTable): ``(n, C)`` of 1 (present), 0 (absent), -1 (unknown).
        num_classes (int): How many classes to choose. Defaults to 10, as in the paper.
        min_labels (int): Fewest classes present in an image. Defaults to 2.
        max_labels (int, optional): Most classes present in an image; None is no limit.
            Defaults to 7.
        max_images (int): More images than these are no better. Defaults to 10,000.
        seed (int): Decides between equally frequent and equally good classes. Defaults to 0.

    Returns:
        list[int]: Class indices, ascending.

    Raises:
        ValueError: If there are fewer classes with an image than ``num_classes``.
    """
    check_limits(min_labels, max_labels, max_images)
    table = _as_table(labels)
    images = table.count(1)
    if not 1 <= num_classes <= (images > 0).sum():
        raise ValueError(
            f'Expected argument `num_classes` to be in 1..{(images > 0).sum()} (the '
            f'classes that any image has), but got {num_classes}.'
        )
    rng = np.random.RandomState(seed)
    shuffled = rng.permutation(len(images))
    by_frequency = shuffled[np.argsort(-images[shuffled], kind='stable')]
    candidates = by_frequency[: max(MAX_CANDIDATES, num_classes)]
    candidates = candidates[images[candidates] > 0]
    table = table.select_classes(candidates)
    patterns, pattern_of = label_patterns(
        table.take(np.flatnonzero(table.num_positives() >= min_labels))
    )
    search = _ClassSearch(
        patterns,
        np.bincount(pattern_of, minlength=len(patterns)),
        min_labels,
        max_labels,
        max_images,
    )
    return sorted(int(candidates[i]) for i in search.run(num_classes))


def choose_images(
    labels: np.ndarray | LabelTable,
    max_images: int | None = 10_000,
    min_labels: int = 2,
    max_labels: int | None = 7,
    seed: int = 0,
) -> np.ndarray:
    """Choose images with ``min_labels`` to ``max_labels`` classes, as even over classes as can be.

    If there are more than ``max_images``, they are taken one after the other: the next one has the
    class that has the fewest so far, and of those images it is one whose other classes disturb the
    balance (the variance of images per class) least.

    Args:
        labels (np.ndarray | LabelTable): ``(n, C)`` of 1 (present), 0 (absent), -1 (unknown).
        max_images (int, optional): Most images; None takes all. Defaults to 10,000.
        min_labels (int): Fewest classes present in an image. Defaults to 2.
        max_labels (int, optional): Most classes present in an image; None is no limit.
            Defaults to 7.
        seed (int): Decides between images with the same classes and between equally good ones.
            Defaults to 0.

    Returns:
        np.ndarray: Rows, ascending, int64; fewer than ``max_images`` if there are not as many.
    """
    check_limits(min_labels, max_labels, max_images)
    table = _as_table(labels)
    present = table.num_positives()
    fits = present >= min_labels
    if max_labels is not None:
        fits &= present <= max_labels
    rows = np.flatnonzero(fits)
    if max_images is None or len(rows) <= max_images:
        return rows
    patterns, pattern_of = label_patterns(table.take(rows))
    rng = np.random.RandomState(seed)
    shares = _shares(patterns, np.bincount(pattern_of, minlength=len(patterns)), max_images, rng)
    by_pattern = np.argsort(pattern_of, kind='stable')
    groups = np.split(by_pattern, np.cumsum(np.bincount(pattern_of))[:-1])
    chosen = [rng.permutation(group)[:share] for group, share in zip(groups, shares)]
    return np.sort(rows[np.concatenate(chosen)])


def check_limits(min_labels: int, max_labels: int | None, max_images: int | None) -> None:
    """Raise a ValueError if no image could fit."""
    if min_labels < 0:
        raise ValueError(f'Expected argument `min_labels` to be 0 or more, but got {min_labels}.')
    if max_labels is not None and max_labels < min_labels:
        raise ValueError(
            f'Expected argument `max_labels` to be at least min_labels '
            f'({min_labels}), but got {max_labels}.'
        )
    if max_images is not None and max_images < 1:
        raise ValueError(
            f'Expected argument `max_images` to be 1 or more, or None for all, but '
            f'got {max_images}.'
        )


def label_patterns(table: LabelTable) -> tuple[np.ndarray, np.ndarray]:
    """The distinct sets of present classes, and which of them each image has.

    Returns:
        tuple: Patterns, bool ``(u, C)``, in an order that depends on the set of patterns alone,
        and the pattern of each image, int64 ``(n,)``.
    """
    # A set of classes is known by the sum of its classes' random 64-bit numbers: that two of even
    # a million sets share one has odds of one to ten million.
    numbers = np.random.RandomState(0).randint(0, 2**63, table.num_classes, np.int64)
    keys = np.empty(len(table), np.int64)
    step = 1 << 17
    for start in range(0, len(table), step):
        offsets = table.offsets[start : start + step + 1]
        entries = slice(offsets[0], offsets[-1])
        terms = numbers[table.classes[entries]] * (table.values[entries] == 1)
        sums = np.concatenate([[0], np.cumsum(terms)])
        keys[start : start + step] = np.diff(sums[offsets - offsets[0]])
    _, first, pattern_of = np.unique(keys, return_index=True, return_inverse=True)
    return table.take(first).dense() == 1, pattern_of


def _as_table(labels: np.ndarray | LabelTable) -> LabelTable:
    if isinstance(labels, LabelTable):
        return labels
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise ValueError(
            'Expected argument `labels` to have the shape (images, classes), but got '
            f'{labels.shape}.'
        )
    return LabelTable.from_dense(labels, fill=0)


class _ClassSearch:
    """Exchange one chosen class for another as long as the choice gets better."""

    def __init__(
        self,
        patterns: np.ndarray,
        images: np.ndarray,
        min_labels: int,
        max_labels: int | None,
        max_images: int,
    ) -> None:
        # One row per class: a choice then reads its own memory alone.
        self.present = np.ascontiguousarray(patterns.T).view(np.uint8)
        self.images = images.astype(np.float64)
        self.min_labels = min_labels
        self.max_labels = patterns.shape[1] if max_labels is None else max_labels
        self.max_images = max_images

    def run(self, num_classes: int) -> list[int]:
        chosen = list(range(num_classes))
        quality = self.quality(chosen)
        while True:
            better, swapped = max(
                ((self.quality(other), other) for other in self._neighbours(chosen)),
                key=lambda pair: pair[0],
                default=(quality, chosen),
            )
            if better <= quality:
                return chosen
            quality, chosen = better, swapped

    def quality(self, chosen: list[int]) -> tuple[float, ...]:
        present = self.present[chosen]
        labels = present.sum(0, dtype=np.int16)
        fits = (labels >= self.min_labels) & (labels <= self.max_labels)
        images = self.images[fits]
        return (min(images.sum(), self.max_images), *np.sort(present[:, fits] @ images))

    def _neighbours(self, chosen: list[int]):
        others = [c for c in range(len(self.present)) if c not in chosen]
        for place in range(len(chosen)):
            for other in others:
                yield [*chosen[:place], other, *chosen[place + 1 :]]


def _shares(
    patterns: np.ndarray, available: np.ndarray, total: int, rng: np.random.RandomState
) -> np.ndarray:
    """How many images of each pattern to take, int64 ``(u,)``, ``total`` in all."""
    num_classes = patterns.shape[1]
    sizes = patterns.sum(1)
    left = available.copy()
    counts = np.zeros(num_classes, np.int64)
    with_class = [rng.permutation(np.flatnonzero(column)) for column in patterns.T]
    open_classes = rng.permutation(num_classes)
    for _ in range(min(total, int(available[sizes > 0].sum()))):
        while True:
            lowest = open_classes[np.argmin(counts[open_classes])]
            members = with_class[lowest]
            members = with_class[lowest] = members[left[members] > 0]
            if len(members):
                break
            open_classes = open_classes[open_classes != lowest]
        # What one more image of a pattern adds to the variance of the counts, times num_classes
        # squared: in integers, so that every machine finds the same ties.
        deviation = 2 * (num_classes * counts - counts.sum()) + num_classes
        cost = patterns[members] @ deviation - sizes[members] ** 2
        best = members[np.argmin(cost)]
        left[best] -= 1
        counts += patterns[best]
    # Images without any of the classes do not touch the balance and come last.
    shares = available - left
    empty = np.flatnonzero(sizes == 0)
    shares[empty] = np.minimum(available[empty], total - shares.sum())
    return shares
