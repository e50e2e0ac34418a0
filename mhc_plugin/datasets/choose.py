"""Choose classes and images of a multi-label set, as even over the classes as can be had.

Images with the same classes present are interchangeable, so both functions work on the distinct
sets of classes ("patterns") and on how many images have each: a million images of ten classes come
to some hundred patterns.
"""

import numpy as np

from mhc_plugin.functional.checks import check_argument, check_int

from .label_table import LabelTable

# Rarer classes than these are never among the few that are chosen for having many images.
MAX_CANDIDATES = 64
# Patterns that are unpacked at a time.
_BLOCK = 4096


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
    there = int((images > 0).sum())
    check_argument(
        1 <= num_classes <= there,
        'num_classes',
        f'to be in 1..{there}, the classes that any image has',
        num_classes,
    )
    rng = np.random.RandomState(seed)
    shuffled = rng.permutation(len(images))
    by_frequency = shuffled[np.argsort(-images[shuffled], kind='stable')]
    candidates = by_frequency[: max(MAX_CANDIDATES, num_classes)]
    candidates = candidates[images[candidates] > 0]
    table = table.select_classes(candidates)
    rows = np.flatnonzero(table.num_positives() >= min_labels)
    patterns, pattern_of = label_patterns(table, rows)
    available = np.bincount(pattern_of, minlength=len(patterns))
    search = _ClassSearch(patterns, available, min_labels, max_labels, max_images)
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
    patterns, pattern_of = label_patterns(table, rows)
    available = np.bincount(pattern_of, minlength=len(patterns))
    rng = np.random.RandomState(seed)
    shares = _shares(patterns, available, max_images, rng)
    by_pattern = np.argsort(pattern_of, kind='stable').astype(np.int32)
    del pattern_of
    ends = np.cumsum(available)
    # What is alone with its classes is not drawn.
    single = available == 1
    chosen = [by_pattern[ends[single & (shares == 1)] - 1]]
    for pattern in np.flatnonzero(~single):
        group = by_pattern[ends[pattern] - available[pattern] : ends[pattern]]
        chosen.append(rng.permutation(group)[: shares[pattern]])
    return np.sort(rows[np.concatenate(chosen)])


def check_limits(min_labels: int, max_labels: int | None, max_images: int | None) -> None:
    """Raise a ValueError if no image could fit."""
    check_int('min_labels', min_labels, low=0)
    if max_labels is not None:
        check_int('max_labels', max_labels, low=min_labels)
    if max_images is not None:
        check_int('max_images', max_images)


def label_patterns(table: LabelTable, rows: np.ndarray) -> tuple[LabelTable, np.ndarray]:
    """The distinct sets of present classes, and which of them each image has.

    Args:
        table (LabelTable): Labels of all images.
        rows (np.ndarray): The images, int64 ``(n,)``.

    Returns:
        tuple: Patterns, a table of positives alone, in an order that depends on the set of
        patterns alone, and the pattern of each image, int32 ``(n,)``.
    """
    # A set of classes is known by the sum of its classes' random 64-bit numbers: that two of even
    # a million sets share one has odds of one to ten million.
    numbers = np.random.RandomState(0).randint(0, 2**63, table.num_classes, np.int64)
    keys = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _BLOCK):
        part = table.take(rows[start : start + _BLOCK])
        terms = numbers[part.classes] * (part.values == 1)
        sums = np.concatenate([[0], np.cumsum(terms)])
        keys[start : start + _BLOCK] = np.diff(sums[part.offsets])
    # As np.unique does it, in half of its memory.
    order = np.argsort(keys, kind='stable').astype(np.int32)
    keys = keys[order]
    is_first = np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]
    del keys
    pattern_of = np.empty(len(order), np.int32)
    pattern_of[order] = np.cumsum(is_first, dtype=np.int32) - 1
    return table.take(rows[order[is_first]]).only_positives(), pattern_of


def _as_table(labels: np.ndarray | LabelTable) -> LabelTable:
    if isinstance(labels, LabelTable):
        return labels
    labels = np.asarray(labels)
    check_argument(labels.ndim == 2, 'labels', 'to have the shape (images, classes)', labels.shape)
    return LabelTable.from_dense(labels, fill=0)


class _ClassSearch:
    """Exchange one chosen class for another as long as the choice gets better.

    What every exchange would give follows from products of the patterns with one another, which
    are computed for a block of patterns at a time.
    """

    def __init__(
        self,
        patterns: LabelTable,
        available: np.ndarray,
        min_labels: int,
        max_labels: int | None,
        max_images: int,
    ) -> None:
        self.patterns = patterns
        # Sums of whole numbers are exact in float32 below 2 ** 24 images.
        self.available = available.astype(np.float32 if available.sum() < 2**24 else np.float64)
        self.min_labels = min_labels
        self.max_labels = patterns.num_classes if max_labels is None else max_labels
        self.max_images = max_images

    def run(self, num_classes: int) -> list[int]:
        chosen = list(range(num_classes))
        while True:
            qualities = self._qualities(chosen)
            others = [c for c in range(self.patterns.num_classes) if c not in chosen]
            exchanges = [(place, other) for place in range(num_classes) for other in others]
            best = max(exchanges, key=lambda exchange: qualities[exchange], default=None)
            # To exchange a class for itself is to leave it.
            if best is None or qualities[best] <= qualities[0, chosen[0]]:
                return chosen
            place, other = best
            chosen[place] = other

    def _qualities(self, chosen: list[int]) -> dict[tuple[int, int], tuple[float, ...]]:
        """What the choice would be worth with another class at each place.

        Returns:
            dict: For every place and class: images that fit, up to ``max_images``, and images of
            each class among these, ascending.
        """
        size = len(chosen)
        totals = np.zeros((size, self.patterns.num_classes))
        counts = np.zeros((size, size, self.patterns.num_classes))
        added = np.zeros_like(totals)
        for start in range(0, len(self.patterns), _BLOCK):
            available = self.available[start : start + _BLOCK]
            present = self.patterns.part(start, start + _BLOCK).dense().T.astype(available.dtype)
            labels = present[chosen].sum(0)
            for place, out in enumerate(chosen):
                others = labels - present[out]
                without = available * self._fits(others)
                gained = available * self._fits(others + 1) - without
                totals[place] += without.sum() + present @ gained
                counts[place] += (present[chosen] @ without)[:, None]
                counts[place] += (present[chosen] * gained) @ present.T
                added[place] += present @ (without + gained)
        counts[range(size), range(size)] = added
        return {
            (place, new): (
                min(totals[place, new], self.max_images),
                *np.sort(counts[place, :, new]),
            )
            for place in range(size)
            for new in range(self.patterns.num_classes)
        }

    def _fits(self, labels: np.ndarray) -> np.ndarray:
        return (labels >= self.min_labels) & (labels <= self.max_labels)


def _shares(
    patterns: LabelTable, available: np.ndarray, total: int, rng: np.random.RandomState
) -> np.ndarray:
    """How many images of each pattern to take, int64 ``(u,)``, ``total`` in all."""
    num_classes = patterns.num_classes
    sizes = patterns.num_positives()
    left = available.copy()
    counts = np.zeros(num_classes + 1, np.int64)
    with_class = patterns.rows_by_class()
    for members in with_class:
        rng.shuffle(members)
    # The classes of each pattern, then places that count nothing: 2 bytes for each.
    classes_of = np.full((len(patterns), sizes.max(initial=0)), num_classes, np.int16)
    classes_of[np.arange(classes_of.shape[1]) < sizes[:, None]] = patterns.classes
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
        size = sizes[members]
        cost = 2 * num_classes * counts.take(classes_of.take(members, axis=0)).sum(1)
        cost -= size * (size + (2 * counts.sum() - num_classes))
        best = members[np.argmin(cost)]
        left[best] -= 1
        counts[patterns.positives(best)] += 1
    # Images without any of the classes do not touch the balance and come last.
    shares = available - left
    empty = np.flatnonzero(sizes == 0)
    shares[empty] = np.minimum(available[empty], total - shares.sum())
    return shares
