"""A run that was killed and resumed ends as one that was not."""

import random
import time
from pathlib import Path

import pytest
import torch
from tiny_parts import Stopped
from tool_process import ToolProcess

from mhc_plugin import apis

EMA = dict(type='EMAHook', momentum=0.1)
# Of 3 epochs with 3 iterations each.
STOP_IN_SECOND_EPOCH = dict(type='StopHook', iteration=4)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope='module')
def uninterrupted(tiny_config, state_dict, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('uninterrupted')
    apis.train(tiny_config(custom_hooks=[EMA]), work_dir=work_dir)
    return state_dict(work_dir / 'epoch_3.pth')


@pytest.fixture
def train_and_stop(tiny_config, tmp_path):
    """Train until somewhere in the second epoch."""

    def train(stop=STOP_IN_SECOND_EPOCH, **options):
        with pytest.raises(Stopped):
            apis.train(tiny_config(custom_hooks=[EMA, stop], **options), work_dir=tmp_path)

    return train


@pytest.mark.parametrize('num_workers', [0, 2])
def test_ends_with_the_same_weights(
    uninterrupted, train_and_stop, tiny_config, state_dict, tmp_path, num_workers
):
    options = dict(train_dataloader__num_workers=num_workers)
    train_and_stop(**options)
    result = apis.train(tiny_config(custom_hooks=[EMA], **options), work_dir=tmp_path, resume=True)
    assert result.checkpoint == tmp_path / 'epoch_3.pth'
    assert equal(state_dict(result.checkpoint), uninterrupted)


def test_seed_of_the_checkpoint_counts(
    uninterrupted, train_and_stop, tiny_config, state_dict, tmp_path
):
    train_and_stop()
    apis.train(
        tiny_config(custom_hooks=[EMA]), work_dir=tmp_path, resume=tmp_path / 'epoch_1.pth', seed=9
    )
    assert equal(state_dict(tmp_path / 'epoch_3.pth'), uninterrupted)


@pytest.mark.slow
def test_without_the_hook_it_ends_elsewhere(train_and_stop, tiny_config, state_dict, tmp_path):
    """Else the tests above show nothing."""
    options = dict(default_hooks__reproducible_epoch=None, custom_hooks=[EMA])
    apis.train(tiny_config(**options), work_dir=tmp_path / 'whole')
    train_and_stop(default_hooks__reproducible_epoch=None)
    apis.train(tiny_config(**options), work_dir=tmp_path, resume=True)
    whole = state_dict(tmp_path / 'whole' / 'epoch_3.pth')
    assert not equal(state_dict(tmp_path / 'epoch_3.pth'), whole)


def test_damaged_newest_checkpoint(
    uninterrupted, train_and_stop, tiny_config, state_dict, log_of, tmp_path
):
    train_and_stop(stop=dict(type='StopHook', iteration=7))
    newest = tmp_path / 'epoch_2.pth'
    assert (tmp_path / 'last_checkpoint').read_text() == str(newest)
    newest.write_bytes(newest.read_bytes()[:5000])
    apis.train(tiny_config(custom_hooks=[EMA]), work_dir=tmp_path, resume=True)
    log = log_of(tmp_path)
    assert f'Cannot resume from {newest}' in log
    assert f'Falling back to {tmp_path / "epoch_1.pth"}.' in log
    assert equal(state_dict(tmp_path / 'epoch_3.pth'), uninterrupted)


def test_two_checkpoints_are_kept(train_and_stop, tmp_path):
    train_and_stop(stop=dict(type='StopHook', iteration=8))
    assert {path.name for path in tmp_path.glob('*.pth')} == {'epoch_1.pth', 'epoch_2.pth'}


def test_nothing_to_resume_from_yet(tiny_config, log_of, tmp_path):
    apis.train(tiny_config(train_cfg__max_epochs=1, resume=True), work_dir=tmp_path)
    assert 'holds no checkpoint yet: training starts from the beginning' in log_of(tmp_path)
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_a_finished_training_says_again_what_it_scored(tiny_config, tmp_path):
    first = apis.train(tiny_config(train_cfg__max_epochs=2), work_dir=tmp_path)
    again = apis.train(tiny_config(train_cfg__max_epochs=2), work_dir=tmp_path, resume=True)
    assert again.metrics == first.metrics
    assert len(again.metrics) > 1
    assert again.checkpoint == first.checkpoint


@pytest.mark.parametrize('content', [None, dict(a=1)])
def test_checkpoint_by_name_that_is_none(tiny_config, tmp_path, content):
    path = tmp_path / 'a.pth'
    if content is None:
        error, message = FileNotFoundError, f'There is no checkpoint {path}'
    else:
        torch.save(content, path)
        error, message = ValueError, 'cannot be used: it holds no message_hub, meta, state_dict'
    with pytest.raises(error, match=message):
        apis.train(tiny_config(), work_dir=tmp_path, resume=path)


@pytest.mark.slow
def test_killed_at_any_moment(tiny_config, state_dict, environment, tmp_path):
    root = Path(__file__).parents[2]
    options = dict(train_cfg__max_epochs=30, train_dataloader__num_workers=1)
    command = [
        root / 'tools' / 'train.py',
        Path(__file__).with_name('tiny.py'),
        '--work-dir',
        tmp_path,
        '--resume',
        '--cfg-options',
        *(f'{name.replace("__", ".")}={value}' for name, value in options.items()),
    ]
    for _ in range(2):
        process = ToolProcess(*command, cwd=tmp_path, env=environment)
        before = set(tmp_path.glob('epoch_*.pth'))
        while process.returncode is None and not set(tmp_path.glob('epoch_*.pth')) - before:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.5))
        process.kill()
    assert not (tmp_path / 'epoch_30.pth').exists()
    apis.train(tiny_config(**options), work_dir=tmp_path, resume=True)
    apis.train(tiny_config(**options), work_dir=tmp_path / 'whole')
    whole = state_dict(tmp_path / 'whole' / 'epoch_30.pth')
    assert equal(state_dict(tmp_path / 'epoch_30.pth'), whole)
