"""Several processes with their share of the batch each do what one does."""

import json
from pathlib import Path

import pytest
from tool_process import torchrun

from mhc_plugin import apis

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow

# Heads without batch norm and dropout, an even number of images, and unknown targets, of which the
# parts of a batch have different numbers.
OPTIONS = dict(
    total_batch_size=12,
    train_dataloader__batch_size=12,
    train_dataloader__dataset__length=36,
    model__head__dropout=0.0,
    train_dataloader__dataset__pipeline=[
        dict(type='ComposeTiles'),
        dict(type='RandomFlipWithCells', prob=0.5),
        dict(type='ForgetTargets'),
        dict(type='PackInputs'),
    ],
)


@pytest.fixture
def config_file(tiny_config, tmp_path):
    path = tmp_path / 'unknown_targets.py'
    tiny_config(**OPTIONS, experiment_name='two').dump(path)
    return path


@pytest.mark.parametrize('processes', [2, 3])
def test_heads_without_batch_norm_get_the_weights_of_one_process(
    tiny_config, config_file, state_dict, environment, tmp_path, processes
):
    one = apis.train(tiny_config(**OPTIONS), work_dir=tmp_path / 'one')
    ran = torchrun(
        processes,
        HERE.parents[1] / 'tools' / 'train.py',
        config_file,
        '--launcher',
        'pytorch',
        '--work-dir',
        tmp_path / 'several',
        cwd=tmp_path,
        env=environment,
    )
    assert [process.returncode for process in ran] == [0] * processes, ran[0].stderr[-3000:]
    text = (tmp_path / 'several' / config_file.name).read_text()
    assert f'batch_size={12 // processes}' in text

    expected = state_dict(one.checkpoint)
    weights = state_dict(tmp_path / 'several' / 'epoch_3.pth')
    assert max((weights[name] - expected[name]).abs().max() for name in expected) < 1e-5
    # From a standard deviation of 0.01: they have moved.
    assert expected['head.fc.weight'].abs().max() > 0.1


def test_batch_norm_and_scores(tiny_config, environment, tmp_path):
    given = apis.train(tiny_config(train_cfg__max_epochs=1), work_dir=tmp_path / 'given')
    ran = torchrun(
        2, HERE / 'two_processes.py', tmp_path, given.checkpoint, cwd=tmp_path, env=environment
    )
    assert [process.returncode for process in ran] == [0, 0], ran[0].stderr[-3000:]
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert scores['in_training'] == scores['of_checkpoint']
    # 33 images: the sampler repeats one, which must not count twice.
    assert scores['of_given'] == given.metrics
    one = apis.test(tiny_config(), given.checkpoint, work_dir=tmp_path)
    assert scores['of_given'] == one
