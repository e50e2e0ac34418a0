"""The feature cache on disk: keys, manifests, chunks and locks. Torch and files, no MMEngine."""
from .describe import describe, describe_dataset, describe_module, is_dataset
from .entry import Entry
from .files import format_bytes
from .hashing import FileHashes
from .key import is_shared, make_key, unshared
from .layout import STORAGES, Layout
from .reader import EntryReader
from .store import EntryInUseError, FeatureStore
from .versions import UndescribableError, code_version, library_version
from .writer import ChunkBuffer, begin_entry, finish_entry, write_chunk

__all__ = [
    'STORAGES', 'ChunkBuffer', 'Entry', 'EntryInUseError', 'EntryReader', 'FeatureStore',
    'FileHashes', 'Layout', 'UndescribableError', 'begin_entry', 'code_version', 'describe',
    'describe_dataset', 'describe_module', 'finish_entry', 'format_bytes',
    'is_dataset', 'is_shared', 'library_version', 'make_key', 'unshared', 'write_chunk'
]
