"""The feature cache on disk: keys, manifests, chunks and locks. Torch and files, no MMEngine."""

from .entry import Entry
from .files import format_bytes
from .hashing import FileHashes
from .key import is_shared, make_key, unshared
from .layout import STORAGES, Layout
from .reader import EntryReader
from .store import EntryInUseError, FeatureStore
from .writer import ChunkBuffer, begin_entry, finish_entry, write_chunk

__all__ = [
    'STORAGES',
    'ChunkBuffer',
    'Entry',
    'EntryInUseError',
    'EntryReader',
    'FeatureStore',
    'FileHashes',
    'Layout',
    'begin_entry',
    'finish_entry',
    'format_bytes',
    'is_shared',
    'make_key',
    'unshared',
    'write_chunk',
]
