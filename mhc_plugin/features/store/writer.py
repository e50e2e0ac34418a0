"""Fill an entry of the feature cache, chunk by chunk."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .entry import Entry
from .files import check_space, remove_temporaries, write_file
from .layout import Layout

# Beside each chunk's arrays: headers, a mark, and what belongs to its rows.
EXTRA_BYTES_PER_CHUNK = 64 << 10


def begin_entry(entry: Entry, description: dict, layout: Layout) -> tuple[Layout, list[int]]:
    """Find out what is missing of an entry; hold its lock from here to :func:`finish_entry`.

    What an earlier process committed is kept, if it is undamaged.

    Args:
        entry (Entry): The entry, new or begun.
        description (dict): What its key was made from.
        layout (Layout): The layout of a new entry; one that was begun keeps its own.

    Returns:
        tuple[Layout, list[int]]: The layout and the chunks to write.

    Raises:
        OSError: With ``errno.ENOSPC``, if the disk has no room for them.
    """
    manifest = entry.read_manifest()
    if manifest is not None:
        layout = Layout.from_dict(manifest['layout'])
    entry.path.mkdir(parents=True, exist_ok=True)
    remove_temporaries(entry.path)
    missing = entry.damaged_chunks(layout)
    rows = sum(len(layout.rows_of(chunk)) for chunk in missing)
    check_space(entry.path, rows * layout.row_bytes + len(missing) * EXTRA_BYTES_PER_CHUNK)
    if manifest is None or (missing and manifest['complete']):
        entry.write_manifest(description, layout, complete=False)
    return layout, missing


def write_chunk(entry: Entry, chunk: 'ChunkBuffer') -> None:
    """Write a full chunk; once this returns, no kill undoes it."""
    # The mark of a damaged chunk must not vouch for files that are half replaced.
    entry.mark_path(chunk.number).unlink(missing_ok=True)
    for position, array in chunk.arrays.items():
        write_file(entry.array_path(chunk.number, position), lambda f, a=array: np.save(f, a))
    lines = b''.join(f'{json.dumps(sample)}\n'.encode() for sample in chunk.samples)
    write_file(entry.samples_path(chunk.number), lambda f: f.write(lines))
    entry.write_mark(chunk.layout, chunk.number)


def finish_entry(entry: Entry, description: dict, layout: Layout) -> None:
    """Declare an entry complete.

    Raises:
        RuntimeError: If a chunk is missing.
    """
    missing = entry.damaged_chunks(layout, check_content=False)
    if missing:
        raise RuntimeError(
            f'Chunks {missing} of {entry.path} are missing. If several processes '
            'fill the cache, its folder must be one that all of them share.'
        )
    if not entry.is_complete():
        entry.write_manifest(description, layout, complete=True)


class ChunkBuffer:
    """A chunk in memory.

    Args:
        layout (Layout): The layout.
        number (int): Number of the chunk.
    """

    def __init__(self, layout: Layout, number: int) -> None:
        self.layout = layout
        self.number = number
        self.rows = layout.rows_of(number)
        self.arrays = {
            position: np.empty((len(self.rows), *layout.shapes[position]), layout.dtype)
            for position in layout.positions
        }
        self.samples: list[dict] = []

    def append(self, features: Sequence[Tensor], samples: Sequence[dict]) -> None:
        """Add the next rows.

        Args:
            features (Sequence[Tensor]): The tuple of features, ``(N, ...)`` each; those at
                positions that are not stored are ignored.
            samples (Sequence[dict]): What belongs to each row besides, values that JSON can hold.

        Raises:
            ValueError: If a feature's shape is not that of the layout, or a value is not finite, or
                float16 cannot hold it.
        """
        begin = len(self.samples)
        end = begin + len(samples)
        for position, array in self.arrays.items():
            feature = features[position].detach()
            if tuple(feature.shape[1:]) != array.shape[1:]:
                raise ValueError(
                    f'Expected features of shape {array.shape[1:]} per image, as the first image '
                    f'has, but got {tuple(feature.shape[1:])} for image {self._sample(begin)}. '
                    'Resize or crop all images to one size in the pipeline.'
                )
            array[begin:end] = self._to_storage(feature, begin)
        self.samples.extend(samples)

    @property
    def is_full(self) -> bool:
        return len(self.samples) == len(self.rows)

    def _sample(self, index: int) -> int:
        return self.rows[index] % self.layout.num_samples

    def _to_storage(self, feature: Tensor, begin: int) -> np.ndarray:
        stored = feature.to(torch.float16 if self.layout.storage == 'fp16' else torch.float32)
        fine = torch.isfinite(stored).flatten(1).all(1)
        if not fine.all():
            row = int((~fine).nonzero()[0])
            sample = self._sample(begin + row)
            if torch.isfinite(feature[row]).all():
                raise ValueError(
                    f'A feature of image {sample} is {feature[row].abs().max().item():g}, but '
                    'float16 holds 65504 at most. Store float32 instead: `--storage fp32`.'
                )
            raise ValueError(
                f'The backbone gives NaN or infinity for image {sample}. Look at its '
                'weights, and at the image.'
            )
        return stored.cpu().numpy()
