"""Number images by name as they are met, at twenty bytes a name."""

from collections.abc import Sequence

import numpy as np


def encode_names(names: Sequence[str]) -> np.ndarray:
    """Names as a NumPy array of bytes (UTF-8), whose order is that of the bytes.

    Raises:
        UnicodeEncodeError: If a name holds bytes that were not UTF-8 where it was read.
    """
    return np.array([name.encode() for name in names], np.bytes_)


class ImageIndex:
    """Positions 0, 1, 2, ... of names; a name that is met again keeps its own.

    A dict of 1.7 million strings takes 330 MB. Here names lie in sorted runs; a new run is merged
    with its neighbour as soon as it is half as long, so there are few, and files that are sorted
    by image, as OpenImages' are, touch only the last.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def positions(self, names: Sequence[str]) -> np.ndarray:
        """Position of each of these distinct names, int32; new names get the next free ones."""
        encoded = encode_names(names)
        order = np.argsort(encoded)
        encoded = encoded[order]
        found = self._find(encoded)
        new = found < 0
        if new.any():
            found[new] = np.arange(self._size, self._size + new.sum())
            self._size += int(new.sum())
            self._append(encoded[new], found[new])
        positions = np.empty_like(found)
        positions[order] = found
        return positions

    def names(self) -> tuple[np.ndarray, np.ndarray]:
        """All names, sorted, and the position of each."""
        if not self._runs:
            return np.empty(0, 'S1'), np.empty(0, np.int32)
        while len(self._runs) > 1:
            self._merge_last()
        return self._runs[0]

    def _find(self, names: np.ndarray) -> np.ndarray:
        found = np.full(len(names), -1, np.int32)
        for run, positions in self._runs:
            if names[0] > run[-1] or names[-1] < run[0]:
                continue
            slots = np.minimum(np.searchsorted(run, names), len(run) - 1)
            hit = run[slots] == names
            found[hit] = positions[slots[hit]]
        return found

    def _append(self, names: np.ndarray, positions: np.ndarray) -> None:
        self._runs.append((names, positions))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            self._merge_last()

    def _merge_last(self) -> None:
        (names, positions), (more_names, more_positions) = self._runs[-2:]
        names = np.concatenate([names, more_names])
        positions = np.concatenate([positions, more_positions])
        # Stable sorting finds that both halves are sorted already.
        order = np.argsort(names, kind='stable')
        self._runs[-2:] = [(names[order], positions[order])]
