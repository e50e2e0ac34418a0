"""The feature cache on disk: keys, manifests, chunks and locks. Torch and files, no MMEngine."""

from .chunks import ChunkBuffer, EntryReader, begin_entry, finish_entry, write_chunk
from .files import format_bytes
from .hashing import FileHashes, hash_array
from .manifest import STORAGES, Entry, Layout, is_shared, make_key, unshared
from .store import EntryInUseError, FeatureStore
