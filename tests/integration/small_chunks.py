"""Imported by a config: small chunks, and on request a kill at the n-th write of the cache."""

import os
import signal

from mhc_plugin.features.store import files, manifest

manifest.MIN_CHUNK_ROWS = 16

original = files.write_file
left = int(os.environ.get('KILL_AT_WRITE', 0))


def write_file(path, write):
    """Write, or die with half a file on disk."""
    global left
    left -= 1
    if left == 0:
        path.with_name(f'.{path.name}.0.tmp').write_bytes(b'half')
        os.kill(os.getpid(), signal.SIGKILL)
    original(path, write)


files.write_file = write_file
