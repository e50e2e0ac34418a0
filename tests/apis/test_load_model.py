import random

import numpy as np
import pytest
import torch

from mhc_plugin.apis import load_model
from mhc_plugin.apis.model import classes_of


def test_checkpoint_is_loaded_with_its_classes(tiny_cfg, tiny_model, tiny_checkpoint):
    model = load_model(tiny_cfg, tiny_checkpoint, device='cpu')
    assert not model.training
    assert model._dataset_meta['classes'] == [str(digit) for digit in range(10)]
    for name, value in model.state_dict().items():
        assert torch.equal(value, tiny_model.state_dict()[name]), name


def test_config_is_left_alone(tiny_cfg):
    before = tiny_cfg.to_dict()
    load_model(tiny_cfg, device='cpu')
    assert tiny_cfg.to_dict() == before


def test_untrained_model_is_drawn_by_the_seed(tiny_cfg):
    first, again = load_model(tiny_cfg, device='cpu'), load_model(tiny_cfg, device='cpu')
    assert torch.equal(first.head.fc.weight, again.head.fc.weight)
    assert classes_of(first) == [str(digit) for digit in range(10)]
    tiny_cfg.randomness.seed = 1
    assert not torch.equal(first.head.fc.weight, load_model(tiny_cfg).head.fc.weight)


def test_random_streams_of_the_caller_go_on(tiny_cfg, monkeypatch):
    seeded = []
    # torch.manual_seed, which MMEngine calls, seeds every GPU through this.
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', seeded.append)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    load_model(tiny_cfg, device='cpu')
    assert seeded == []
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.cuda
def test_stream_of_a_gpu_goes_on(tiny_cfg):
    torch.cuda.manual_seed_all(5)
    torch.rand(3, device='cuda')
    before = torch.cuda.get_rng_state()
    assert next(load_model(tiny_cfg).parameters()).is_cuda
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_classes_without_names_go_by_index(tiny_model):
    tiny_model._dataset_meta = {}
    assert classes_of(tiny_model) == [str(digit) for digit in range(10)]
    del tiny_model.head.num_classes
    with pytest.raises(ValueError, match='names its classes'):
        classes_of(tiny_model)


def test_checkpoint_of_another_model_is_refused(tiny_cfg, tiny_checkpoint):
    tiny_cfg.model.head.update(num_classes=9)
    with pytest.raises(ValueError, match=r'lacks head\.fc\.weight \(9, 1, 64\).*another config'):
        load_model(tiny_cfg, tiny_checkpoint)


def test_missing_checkpoint_is_named(tiny_cfg):
    with pytest.raises(FileNotFoundError, match=r'no checkpoint nowhere\.pth'):
        load_model(tiny_cfg, 'nowhere.pth')
