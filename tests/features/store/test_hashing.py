"""Hashes are of content alone, and a side file is believed only where it is trusted."""

import hashlib
import os
import sqlite3
import threading
import time
import tracemalloc

import numpy as np
import pytest

from mhc_plugin.features.store import FileHashes, hashing
from mhc_plugin.features.store.hashing import hash_array, hash_file


@pytest.fixture
def settled(monkeypatch):
    """Let a file that was just written count as one that has not been touched for long."""
    monkeypatch.setattr(hashing, 'SETTLED_AFTER_NS', -(10**18))


def forge(path, content):
    """Change a file's content and keep size, inode and time of modification."""
    stat = os.stat(path)
    assert len(content) == stat.st_size
    with open(path, 'r+b') as f:
        f.write(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_hash_file_is_sha256_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / 'a').write_bytes(content)
    assert hash_file(tmp_path / 'a') == hashlib.sha256(content).hexdigest()


def test_hash_array_ignores_memory_layout_only():
    array = np.arange(12, dtype=np.int64).reshape(3, 4)
    assert hash_array(array) == hash_array(np.asfortranarray(array))
    others = [
        array.reshape(4, 3),
        array.astype(np.int32),
        array.T,
        array + 1,
        array.view(np.uint64),
    ]
    assert len({hash_array(x) for x in [array, *others]}) == 6


def test_hash_array_refuses_objects():
    with pytest.raises(TypeError, match='Expected an array of plain values, but got dtype object'):
        hash_array(np.array([{}], dtype=object))


def test_files_are_read_once_by_an_object_and_anew_by_the_next(tmp_path, settled):
    path, side_file = tmp_path / 'image', tmp_path / 'cache' / 'hashes.sqlite'
    path.write_bytes(b'old')
    hashes = FileHashes(side_file)
    first = hashes(path)
    assert hashes(path) == first
    assert hashes.num_read == 1
    hashes.save()
    assert side_file.is_file()
    again = FileHashes(side_file)
    assert again(path) == first
    assert again.num_read == 1


def test_trusted_side_file_spares_the_reading(tmp_path, settled):
    path, side_file = tmp_path / 'image', tmp_path / 'hashes.sqlite'
    path.write_bytes(b'old')
    hashes = FileHashes(side_file)
    digest = hashes(path)
    hashes.save()
    trusting = FileHashes(side_file, trust_mtime=True)
    assert trusting(path) == digest
    assert trusting.num_read == 0


def test_forged_file_is_seen_unless_times_are_trusted(tmp_path, settled, monkeypatch):
    path, side_file = tmp_path / 'image', tmp_path / 'hashes.sqlite'
    path.write_bytes(b'old')
    # The time of change cannot be forged from here; take it out of the fingerprint.
    monkeypatch.setattr(
        hashing, '_fingerprint', lambda stat: (stat.st_size, stat.st_mtime_ns, 0, stat.st_ino)
    )
    hashes = FileHashes(side_file)
    old = hashes(path)
    hashes.save()
    forge(path, b'new')
    assert FileHashes(side_file)(path) == hashlib.sha256(b'new').hexdigest()
    assert FileHashes(side_file, trust_mtime=True)(path) == old


@pytest.mark.parametrize(
    'change',
    [
        lambda path: path.write_bytes(b'longer'),
        lambda path: forge(path, b'new'),
        lambda path: os.utime(path, (1, 1)),
        lambda path: (
            path.with_name('b').write_bytes(b'old'),
            os.replace(path.with_name('b'), path),
        ),
    ],
    ids=['size', 'time of change', 'time of modification', 'inode'],
)
def test_trusting_reads_again_what_was_touched(tmp_path, settled, change):
    path, side_file = tmp_path / 'image', tmp_path / 'hashes.sqlite'
    path.write_bytes(b'old')
    hashes = FileHashes(side_file)
    hashes(path)
    hashes.save()
    change(path)
    trusting = FileHashes(side_file, trust_mtime=True)
    assert trusting(path) == hash_file(path)
    assert trusting.num_read == 1


def test_file_written_a_moment_ago_is_not_remembered(tmp_path):
    path, side_file = tmp_path / 'image', tmp_path / 'hashes.sqlite'
    path.write_bytes(b'old')
    hashes = FileHashes(side_file)
    hashes(path)
    hashes.save()
    trusting = FileHashes(side_file, trust_mtime=True)
    trusting(path)
    assert trusting.num_read == 1


def test_damaged_side_file_is_made_anew(tmp_path, settled):
    path, side_file = tmp_path / 'image', tmp_path / 'hashes.sqlite'
    path.write_bytes(b'old')
    side_file.write_bytes(b'no database' * 1000)
    hashes = FileHashes(side_file, trust_mtime=True)
    assert hashes(path) == hash_file(path)
    hashes.save()
    trusting = FileHashes(side_file, trust_mtime=True)
    trusting(path)
    assert trusting.num_read == 0


def test_side_file_in_a_place_that_cannot_be_used_does_no_harm(tmp_path, settled):
    path = tmp_path / 'image'
    path.write_bytes(b'old')
    side_file = tmp_path / 'folder'
    side_file.mkdir()
    hashes = FileHashes(side_file, trust_mtime=True)
    assert hashes(path) == hash_file(path)
    hashes.save()


def test_files_are_read_by_several_threads_and_each_once(tmp_path, monkeypatch):
    names, readers = [], set()
    for i in range(50):
        (tmp_path / f'{i}').write_bytes(bytes([i]))
    original = hashing._hash

    def hash_slowly(file):
        readers.add(threading.get_ident())
        names.append(os.path.basename(file.name))
        time.sleep(0.002)
        return original(file)

    monkeypatch.setattr(hashing, '_hash', hash_slowly)
    monkeypatch.setattr(hashing, 'LOOKED_UP', 8)
    monkeypatch.setattr(hashing, 'MAX_READING', 8)
    monkeypatch.setattr(os, 'cpu_count', lambda: 4)
    hashes = FileHashes()
    waiting = [hashes.submit(tmp_path / f'{i % 50}') for i in range(150)]
    assert [wait() for wait in waiting[:50]] == [wait() for wait in waiting[50:100]]
    assert waiting[7]() == hashlib.sha256(bytes([7])).hexdigest()
    assert sorted(names) == sorted(map(str, range(50)))
    assert hashes.num_read == 50
    assert len(readers) > 1
    assert threading.get_ident() not in readers


def test_few_files_are_read_by_several_threads(tmp_path, monkeypatch):
    readers, original = set(), hashing._hash

    def hash_slowly(file):
        readers.add(threading.get_ident())
        time.sleep(0.05)
        return original(file)

    monkeypatch.setattr(hashing, '_hash', hash_slowly)
    monkeypatch.setattr(os, 'cpu_count', lambda: 2)
    hashes = FileHashes()
    for i in range(4):
        (tmp_path / f'{i}').write_bytes(bytes([i]))
    for wait in [hashes.submit(tmp_path / f'{i}') for i in range(4)]:
        wait()
    assert len(readers) == 2


def test_hashes_of_many_files_take_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, '_read', lambda paths: [(1, 2, 3, 4, 'f' * 64)] * len(paths))
    monkeypatch.setattr(hashing, 'MAX_READING', 100)
    stat = os.stat(__file__)
    monkeypatch.setattr(os, 'stat', lambda path: stat)
    hashes, number = FileHashes(), 20_000
    hashes('warm')
    tracemalloc.start()
    for i in range(number):
        hashes(f'/data/openimages/train/{i:016x}.jpg')
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert hashes.num_read == number + 1
    assert len(hashes._reading) <= hashing.MAX_READING
    assert taken < 100 * number


def test_known_and_unknown_files_asked_for_together(tmp_path, settled):
    paths, side_file = [tmp_path / f'{i}' for i in range(200)], tmp_path / 'hashes.sqlite'
    for path in paths:
        path.write_bytes(path.name.encode())
    hashes = FileHashes(side_file)
    for path in paths[::3]:
        hashes(path)
    hashes.save()
    trusting = FileHashes(side_file, trust_mtime=True)
    for number_read in (133, 133):  # asked anew, they are known
        waiting = [trusting.submit(path) for path in paths]
        expected = [hashlib.sha256(path.name.encode()).hexdigest() for path in paths]
        assert [wait() for wait in waiting] == expected
        assert trusting.num_read == number_read


def test_file_that_vanishes_harms_no_other(tmp_path):
    paths = [tmp_path / f'{i}' for i in range(5)]
    for path in paths:
        path.write_bytes(path.name.encode())
    hashes = FileHashes()
    waiting = [hashes.submit(path) for path in paths]
    paths[1].unlink()
    with pytest.raises(FileNotFoundError, match=f'{paths[1]}'):
        waiting[1]()
    for i in (0, 2, 3, 4):
        assert waiting[i]() == hashlib.sha256(f'{i}'.encode()).hexdigest()
    assert hashes.num_read == 4


def test_rows_of_a_side_file_that_say_nothing_are_read_past(tmp_path, settled):
    path, side_file = tmp_path / 'image', tmp_path / 'hashes.sqlite'
    path.write_bytes(b'old')
    hashes = FileHashes(side_file)
    hashes(path)
    hashes.save()
    with sqlite3.connect(side_file) as connection:
        connection.execute('UPDATE files SET sha256 = NULL')
    assert FileHashes(side_file, trust_mtime=True)(path) == hashlib.sha256(b'old').hexdigest()


def test_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileHashes()(tmp_path / 'none')


@pytest.mark.parametrize('field', range(4), ids=['size', 'mtime', 'ctime', 'inode'])
def test_each_part_of_the_fingerprint_counts(tmp_path, settled, monkeypatch, field):
    path, side_file = tmp_path / 'image', tmp_path / 'hashes.sqlite'
    path.write_bytes(b'old')
    fingerprint = [100, 200, 300, 400]
    monkeypatch.setattr(hashing, '_fingerprint', lambda stat: tuple(fingerprint))
    hashes = FileHashes(side_file)
    hashes(path)
    hashes.save()
    for difference, num_read in ((0, 0), (1, 1), (-1, 1)):
        fingerprint[field] += difference
        trusting = FileHashes(side_file, trust_mtime=True)
        trusting(path)
        assert trusting.num_read == num_read
        fingerprint[field] -= difference
