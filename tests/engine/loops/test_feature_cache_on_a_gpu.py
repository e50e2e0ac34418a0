"""Training through the feature cache on a GPU: with features in its memory, and fetched ahead."""

import numpy as np
import pytest
import torch
from tiny_cache_run import CROP, FLIP, head_weights, make_cfg, pipeline, run

from mhc_plugin.features import loader as loader_module

pytestmark = pytest.mark.cuda

# Share of the memory, and batches that are fetched ahead.
PLACES = dict(in_its_memory=(1.0, 0), fetched_ahead=(0.0, 2))


def cfg_of(images, work_dir, **kwargs):
    cfg = make_cfg(images, work_dir, transforms=pipeline(CROP, FLIP), views=2, **kwargs)
    cfg.train_dataloader.pin_memory = True
    return cfg


@pytest.mark.parametrize('place', PLACES)
def test_weights_are_those_of_a_training_on_images(images, tmp_path, monkeypatch, place):
    share, num_ahead = PLACES[place]
    monkeypatch.setattr(loader_module, 'GPU_SHARE', share)
    cached = run(make_cfg(images, tmp_path / 'a'))
    assert cached.train_dataloader.num_ahead == num_ahead
    plain = run(make_cfg(images, tmp_path / 'b', cached=False))
    for name, weight in head_weights(cached).items():
        assert weight.is_cuda
        torch.testing.assert_close(weight, head_weights(plain)[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('amp', [False, True], ids=['float32', 'amp'])
def test_both_places_give_the_same_weights(images, tmp_path, monkeypatch, amp):
    weights = []
    for place, (share, num_ahead) in PLACES.items():
        monkeypatch.setattr(loader_module, 'GPU_SHARE', share)
        cfg = cfg_of(images, tmp_path / place, head=dict(dropout=0.5))
        if amp:
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
        runner = run(cfg)
        assert runner.train_dataloader.num_ahead == num_ahead
        weights.append(head_weights(runner))
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name


def test_float32_features_do_not_follow_tf32(images, tmp_path):
    features = []
    try:
        for precision in ('highest', 'medium'):
            torch.set_float32_matmul_precision(precision)
            torch.backends.cudnn.allow_tf32 = precision == 'medium'
            cfg = make_cfg(images, tmp_path / precision, cache_dir=str(tmp_path / precision))
            reader = run(cfg).train_dataloader.dataset.reader
            features.append(reader.gather(np.arange(12))[0])
    finally:
        torch.set_float32_matmul_precision('highest')
        torch.backends.cudnn.allow_tf32 = True
    assert torch.equal(*features)


def test_features_of_a_cpu_and_of_a_gpu_are_kept_apart(images, tmp_path, monkeypatch):
    run(make_cfg(images, tmp_path / 'a'))
    monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'cpu')
    run(make_cfg(images, tmp_path / 'b'))
    from mhc_plugin.features.store import FeatureStore

    entries = FeatureStore(tmp_path / 'cache').entries()
    devices = [entry.read_manifest()['description']['device'] for entry in entries]
    assert sorted(set(devices)) == ['cpu', 'cuda']
