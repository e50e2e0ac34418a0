"""Read the features of a complete entry."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .entry import Entry

TORCH_DTYPES = dict(fp16=torch.float16, fp32=torch.float32)


class EntryReader:
    """Stored features, mapped into memory.

    What was mapped stays readable when the entry is removed or rebuilt meanwhile.

    Args:
        entry (Entry): A complete entry.

    Raises:
        FileNotFoundError: If the entry is not complete.
    """

    def __init__(self, entry: Entry) -> None:
        if not entry.is_complete():
            raise FileNotFoundError(f'{entry.path} holds no complete entry of the feature cache.')
        self.layout = entry.layout()
        chunks = range(self.layout.num_chunks)
        self._arrays = {
            position: [map_array(entry.array_path(chunk, position)) for chunk in chunks]
            for position in self.layout.positions
        }
        # Rows of images of one size have the same text, which is held once.
        texts: dict[bytes, bytes] = {}
        self._samples = [
            [
                texts.setdefault(line, line)
                for line in entry.samples_path(chunk).read_bytes().splitlines()
            ]
            for chunk in chunks
        ]
        self._on_device: dict[int, Tensor] = {}
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

    def move_to(self, device: torch.device) -> None:
        """Copy all features into a device's memory, in the precision they are stored in."""
        for position, arrays in self._arrays.items():
            self._on_device[position] = torch.empty(
                (self.layout.num_rows, *self.layout.shapes[position]),
                dtype=TORCH_DTYPES[self.layout.storage],
                device=device,
            )
            for chunk, array in enumerate(arrays):
                rows = self.layout.rows_of(chunk)
                part = self._on_device[position][rows.start : rows.stop]
                part.copy_(torch.from_numpy(array))

    def sample(self, row: int) -> dict:
        """What was stored for a row besides features."""
        chunk, offset = divmod(row, self.layout.chunk_rows)
        return json.loads(self._samples[chunk][offset])

    def _by_position(self) -> list[list[np.ndarray] | None]:
        return [self._arrays.get(position) for position in range(len(self.layout.shapes))]

    def _gather_on_device(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        device = next(iter(self._on_device.values())).device
        index = torch.from_numpy(rows).to(device)
        return tuple(
            torch.empty(len(rows), 0, device=device)
            if shape is None
            else self._on_device[position].index_select(0, index).float()
            for position, shape in enumerate(self.layout.shapes)
        )


def map_array(path: Path) -> np.ndarray:
    """Map a ``.npy`` file into memory.

    As ``np.load(path, mmap_mode='c')``, which keeps a file descriptor open for every file; the
    files of a large entry are more than a process may hold open.

    Args:
        path (Path): The file.

    Returns:
        np.ndarray: The array; what is written to it stays in this process.
    """
    with open(path, 'rb') as f:
        version = np.lib.format.read_magic(f)
        read_header = getattr(np.lib.format, f'read_array_header_{version[0]}_{version[1]}')
        shape, fortran_order, dtype = read_header(f)
        start = f.tell()
    if fortran_order or 0 in shape:
        return np.load(path, mmap_mode='c')
    data = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    return data[start:].numpy().view(dtype).reshape(shape)
