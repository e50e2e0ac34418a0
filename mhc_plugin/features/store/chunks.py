"""The chunks of an entry: written one by one by whoever fills it, mapped by readers."""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from . import files
from .manifest import Entry, Layout

TORCH_DTYPES = dict(fp16=torch.float16, fp32=torch.float32)
# Texts of rows that a reader keeps decoded.
MAX_DECODED = 1024
# Beside each chunk's arrays: headers, a mark, and what belongs to its rows.
EXTRA_BYTES_PER_CHUNK = 64 << 10


def begin_entry(entry: Entry, description: dict, layout: Layout) -> tuple[Layout, list[int]]:
    """Find out what is missing of an entry; hold its lock from here to :func:`finish_entry`.

    What an earlier process committed is kept, if it is undamaged. Who was killed may have left
    anything, so its chunks are read; those of a complete entry are told by size and header.

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
    files.remove_temporaries(entry.path)
    was_complete = manifest is not None and manifest['complete']
    missing = entry.damaged_chunks(layout, check_content=not was_complete)
    rows = sum(len(layout.rows_of(chunk)) for chunk in missing)
    files.check_space(entry.path, rows * layout.row_bytes + len(missing) * EXTRA_BYTES_PER_CHUNK)
    if manifest is None or (missing and was_complete):
        entry.write_manifest(description, layout, complete=False)
    return layout, missing


def write_chunk(entry: Entry, chunk: 'ChunkBuffer') -> None:
    """Write a full chunk; once this returns, no kill undoes it."""
    # The mark of a damaged chunk must not vouch for files that are half replaced.
    entry.mark_path(chunk.number).unlink(missing_ok=True)
    for position, array in chunk.arrays.items():
        files.write_file(entry.array_path(chunk.number, position), lambda f, a=array: np.save(f, a))
    lines = b''.join(f'{json.dumps(sample)}\n'.encode() for sample in chunk.samples)
    files.write_file(entry.samples_path(chunk.number), lambda f: f.write(lines))
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


class EntryReader:
    """Stored features, mapped into memory.

    What was mapped stays readable when the entry is removed or rebuilt meanwhile.

    Args:
        entry (Entry): A complete entry.

    Raises:
        FileNotFoundError: If the entry is not complete, or a file is missing or truncated.
    """

    def __init__(self, entry: Entry) -> None:
        manifest = entry.read_manifest()
        if manifest is None or not manifest['complete']:
            raise FileNotFoundError(f'{entry.path} holds no complete entry of the feature cache.')
        self.layout = Layout.from_dict(manifest['layout'])
        damaged = entry.damaged_chunks(self.layout, check_content=False)
        if damaged:
            raise FileNotFoundError(f'Chunks {damaged} of {entry.path} are missing or damaged.')
        chunks = range(self.layout.num_chunks)
        self._arrays = {
            position: [map_array(entry.array_path(chunk, position)) for chunk in chunks]
            for position in self.layout.positions
        }
        # Rows of images of one size have the same text, which is held once.
        texts: dict[bytes, int] = {}
        self._text_of = np.array(
            [
                texts.setdefault(line, len(texts))
                for chunk in chunks
                for line in entry.samples_path(chunk).read_bytes().splitlines()
            ],
            np.int32,
        )
        self._texts = list(texts)
        self._decode = lru_cache(MAX_DECODED)(json.loads)
        self._on_device: dict[int, Tensor] = {}
        self._number = 1
        entry.touch()

    def gather(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """Read rows.

        Args:
            rows (np.ndarray): Integers ``(N,)``, numbers of rows as in :class:`Layout`.

        Returns:
            tuple[Tensor]: Float32 features ``(N, ...)``; ``(N, 0)`` where nothing is stored. On
            CPU, or on the device of :meth:`move_to`.
        """
        if self._on_device:
            return self._gather_on_device(rows)
        chunks, offsets = np.divmod(rows, self.layout.chunk_rows)
        places = list(zip(chunks.tolist(), offsets.tolist()))
        features = []
        for shape, arrays in zip(self.layout.shapes, self._by_position()):
            if shape is None:
                features.append(torch.empty(len(rows), 0))
                continue
            feature = torch.empty(len(rows), *shape, dtype=TORCH_DTYPES[self.layout.storage])
            out = feature.numpy()
            # Row by row is as fast as one indexed read, and needs no copy in between.
            for i, (chunk, offset) in enumerate(places):
                out[i] = arrays[chunk][offset]
            features.append(feature.float())
        return tuple(features)

    def move_to(self, device: torch.device, rank: int = 0, number: int = 1) -> None:
        """Copy features into a device's memory, in the precision they are stored in.

        Args:
            device (torch.device): The device.
            rank (int): Of ``number`` processes, each of which holds every so-many-th row and gets
                others from those that hold them: all have to call :meth:`gather` in step, for
                their own rows each. Defaults to 0.
            number (int): Number of processes. Defaults to 1, which holds all rows.
        """
        self._number = number
        for position, arrays in self._arrays.items():
            held = self._on_device[position] = torch.empty(
                (len(range(rank, self.layout.num_rows, number)), *self.layout.shapes[position]),
                dtype=TORCH_DTYPES[self.layout.storage],
                device=device,
            )
            for chunk, array in enumerate(arrays):
                rows = self.layout.rows_of(chunk)
                first = (rank - rows.start) % number
                part = torch.from_numpy(array[first::number])
                start = (rows.start + first) // number
                held[start : start + len(part)].copy_(part)

    def sample(self, row: int) -> dict:
        """What was stored for a row besides features; not to be changed."""
        return self._decode(self._texts[self._text_of[row]])

    def distinct_samples(self) -> Iterator[dict]:
        """What was stored besides features, each that differs from all before."""
        return map(json.loads, self._texts)

    def _by_position(self) -> list[list[np.ndarray] | None]:
        return [self._arrays.get(position) for position in range(len(self.layout.shapes))]

    def _gather_on_device(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        device = next(iter(self._on_device.values())).device
        index = torch.from_numpy(rows).to(device)
        return tuple(
            torch.empty(len(rows), 0, device=device)
            if shape is None
            else exchange_rows(self._on_device[position], index, self._number).float()
            for position, shape in enumerate(self.layout.shapes)
        )


def exchange_rows(held: Tensor, rows: Tensor, number: int) -> Tensor:
    """Rows of a tensor of which each of ``number`` processes holds every so-many-th.

    All processes have to call it in step.

    Args:
        held (Tensor): The rows of this process: of process p those with ``row % number == p``.
        rows (Tensor): The rows that it wants, int64 ``(N,)``.
        number (int): Number of processes, all of the default group.

    Returns:
        Tensor: ``(N, ...)``.
    """
    if number == 1:
        return held.index_select(0, rows)
    order = (rows % number).argsort(stable=True)
    wanted = (rows % number).bincount(minlength=number)
    asked = torch.empty_like(wanted)
    dist.all_to_all_single(asked, wanted)
    wanted, asked = wanted.tolist(), asked.tolist()
    places = rows.new_empty(sum(asked))
    dist.all_to_all_single(places, rows[order] // number, asked, wanted)
    received = held.new_empty(len(rows), *held.shape[1:])
    dist.all_to_all_single(received, held.index_select(0, places), wanted, asked)
    return torch.empty_like(received).index_copy_(0, order, received)


def map_array(path: Path) -> np.ndarray:
    """Map a ``.npy`` file into memory.

    As ``np.load(path, mmap_mode='c')``, which keeps a file descriptor open for every file; the
    files of a large entry are more than a process may hold open.

    Args:
        path (Path): The file.

    Returns:
        np.ndarray: The array; what is written to it stays in this process.
    """
    (shape, dtype), start = files.npy_header(path)
    if 0 in shape:
        return np.empty(shape, dtype)
    data = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    return data[start:].numpy().view(dtype).reshape(shape)
