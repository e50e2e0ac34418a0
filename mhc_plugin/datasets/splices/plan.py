"""Which classes and which source images go into which composite."""

from collections.abc import Sequence

import numpy as np

from mhc_plugin.utils.seeding import sample_seed


def plan_splices(
    images_per_class: Sequence[int], num_cells: int, length: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Deal classes and source images to composites, as evenly as arithmetic allows.

    Both are dealt like cards: all classes are shuffled into a deck, every composite takes the
    next ``num_cells`` of it, and a new deck follows when one is used up; each class deals its
    images in the same way. So after any number of composites the uses of two classes differ
    by at most one, and so do the uses of two images of a class. No set of classes is preferred
    over another. The first composites do not depend on ``length``.

    All draws come from ``numpy.random.RandomState``, whose streams NumPy keeps for good.

    Args:
        images_per_class (Sequence[int]): Number of source images of each class, all above 0.
        num_cells (int): Cells of a composite, at most the number of classes.
        length (int): Number of composites.
        seed (int): Seed of all draws.

    Returns:
        tuple[np.ndarray, np.ndarray]: Two int64 arrays ``(length, num_cells)``: the class of
        every cell, distinct within a row, and the position of its image among the images of
        that class.
    """
    classes = _deal_classes(len(images_per_class), num_cells, length, _stream(seed, 0))
    images = np.empty_like(classes)
    for label, num_images in enumerate(images_per_class):
        cells = classes == label
        images[cells] = _deal_images(num_images, int(cells.sum()), _stream(seed, 1 + label))
    return classes, images


def _stream(seed: int, part: int) -> np.random.RandomState:
    return np.random.RandomState(sample_seed(seed, part))


def _deal_classes(
    num_classes: int, num_cells: int, length: int, stream: np.random.RandomState
) -> np.ndarray:
    dealt = np.empty((length, num_cells), dtype=np.int64)
    deck: list[int] = []
    for row in range(length):
        hand, deck = deck[:num_cells], deck[num_cells:]
        if len(hand) < num_cells:
            fresh = stream.permutation(num_classes).tolist()
            # What the rest of the old deck has put into the hand stays in the new deck.
            fill = [label for label in fresh if label not in hand][: num_cells - len(hand)]
            deck = [label for label in fresh if label not in fill]
            hand = hand + fill
        dealt[row] = hand
    return dealt


def _deal_images(num_images: int, uses: int, stream: np.random.RandomState) -> np.ndarray:
    decks = [stream.permutation(num_images) for _ in range(-(-uses // num_images))]
    return np.concatenate([*decks, np.empty(0, dtype=np.int64)])[:uses]
