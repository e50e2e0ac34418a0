"""Known pairs against the matrix that they stand for."""

import pytest
import torch

from mhc_plugin.utils.known_pairs import KnownPairs


def matrix(dtype=torch.int8, num_images=9, num_classes=7):
    rng = torch.Generator().manual_seed(0)
    targets = torch.randint(-3, 2, (num_images, num_classes), generator=rng).clamp(min=-1)
    targets = targets.to(dtype)
    targets[3] = -1  # nothing known
    if dtype.is_floating_point:
        targets[4, 2] = 0.25
    return targets


@pytest.mark.parametrize('dtype', [torch.int8, torch.float32])
def test_the_matrix_comes_back(dtype):
    targets = matrix(dtype)
    pairs = KnownPairs.from_dense(targets)
    assert pairs.shape == targets.shape
    assert len(pairs) == 9
    assert pairs.dense().dtype == dtype
    assert torch.equal(pairs.dense(), targets)
    known = targets != -1
    assert torch.equal(torch.stack([pairs.images, pairs.classes.long()], 1), known.nonzero())
    assert torch.equal(pairs.values, targets[known])


@pytest.mark.parametrize('chosen', [[0], [3], [8, 3, 0, 0, 5], [], list(range(9))])
def test_images_are_chosen_as_rows_are(chosen):
    targets, index = matrix(), torch.tensor(chosen, dtype=torch.int64)
    chosen = KnownPairs.from_dense(targets).index_select(0, index)
    assert chosen.shape == (len(index), 7)
    assert torch.equal(chosen.dense(), targets[index])


def test_parts_are_put_together():
    parts = [matrix()[:4], matrix(torch.float32)[4:5], matrix()[5:5], matrix()[5:]]
    whole = KnownPairs.cat([KnownPairs.from_dense(part) for part in parts])
    assert torch.equal(whole.dense(), torch.cat(parts))


@pytest.mark.parametrize(('num_classes', 'bytes_of_a_pair'), [(1 << 15, 3), ((1 << 15) + 1, 5)])
def test_classes_take_what_they_need(num_classes, bytes_of_a_pair):
    targets = torch.full((2, num_classes), -1, dtype=torch.int8)
    targets[1, -1] = 1
    pairs = KnownPairs.from_dense(targets)
    assert pairs.num_bytes == 3 * 8 + bytes_of_a_pair
    assert torch.equal(pairs.dense(), targets)


def test_they_are_moved_and_pinned(monkeypatch):
    pairs = KnownPairs.from_dense(matrix())
    moved = pairs.to('meta', non_blocking=True)
    assert moved.device.type == 'meta'
    assert moved.shape == pairs.shape
    pinned = []
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self: pinned.append(self) or self)
    assert torch.equal(pairs.pin_memory().dense(), matrix())
    assert len(pinned) == 3
