import copy
import math
from io import StringIO

import pytest
import torch
from mmengine.runner import CheckpointLoader
from rich.console import Console

from mhc_plugin.analysis.report import results_table
from mhc_plugin.apis import model_runs
from mhc_plugin.apis.model_runs import ModelRuns, evaluate_runs, train_runs


@pytest.fixture
def runs(tiny_cfg, tiny_checkpoint, tmp_path):
    """One config with two checkpoints, another with one."""
    tiny_cfg.test_evaluator = [
        dict(type='TopKMultiLabelMetric', topk=4, average='micro'),
        dict(type='MultiLabelMeanAP'),
    ]
    other = tmp_path / 'other.pth'
    content = torch.load(tiny_checkpoint)
    content['state_dict']['head.fc.weight'].neg_()
    torch.save(content, other)
    return [
        ModelRuns('two', tiny_cfg, [tiny_checkpoint, other]),
        ModelRuns('one', copy.deepcopy(tiny_cfg), [other]),
    ]


def text(table):
    console = Console(width=300, record=True, file=StringIO())
    console.print(table)
    return console.export_text()


def test_figures_of_every_checkpoint(runs):
    results = evaluate_runs(runs, road_images=1)
    assert [len(group) for group in results.values()] == [2, 1]
    first, second = results['two']
    # The same checkpoint as the only one of another config.
    alone = {name: results['one'][0][name] for name in second}
    assert second == pytest.approx(alone, nan_ok=True)
    assert first['swap'] == pytest.approx(second['swap'], abs=1e-3)  # its sign does not matter
    assert first['multi-label/grid_pg'] != second['multi-label/grid_pg']
    assert {
        'swap_chance',
        'road',
        'road_chance',
        'random_head/grid_pg',
        'multi-label/mAP',
    } <= first.keys()
    assert 'random_head/grid_pg' not in second
    shown = text(results_table(results))
    assert '±' in shown
    lines = shown.splitlines()
    assert any(line.split()[:2] == ['one', '1'] for line in lines)
    chance = next(line for line in lines if line.split()[:1] == ['chance'])
    levels = ['25.0', '25.0', '20.0', '25.0', '0.0', '0.00', '25.0']
    # The model is sure of no image: then there is no level for these either.
    if math.isnan(first['multi-label/grid_pg_sure']) and math.isnan(
        second['multi-label/grid_pg_sure']
    ):
        del levels[1]
    assert chance.split() == ['chance', *levels]


def test_parts_can_be_left_out(runs):
    figures = evaluate_runs(runs[1:], with_swap=False, random_head=False)['one'][0]
    assert not any(name.startswith(('swap', 'road', 'random_head')) for name in figures)


def test_names_and_classes_have_to_fit(runs, monkeypatch):
    with pytest.raises(ValueError, match=r"names that differ, but got \['two', 'two'\]"):
        evaluate_runs([runs[0], ModelRuns('two', runs[1].cfg, runs[1].checkpoints)])
    content = torch.load(runs[1].checkpoints[0])
    content['meta']['dataset_meta']['classes'] = list('abcdefghij')
    torch.save(content, runs[1].checkpoints[0])
    with pytest.raises(ValueError, match=r"classes of the data set, \['0', .* but two has \['a'"):
        evaluate_runs(runs[:1])


def test_finished_runs_are_not_repeated(tiny_cfg, tmp_path, monkeypatch):
    trained = []
    original = model_runs.train

    def train(cfg, work_dir, seed, **kwargs):
        trained.append(seed)
        return original(cfg, work_dir=work_dir, seed=seed, **kwargs)

    monkeypatch.setattr(model_runs, 'train', train)
    runs = train_runs('tiny', tiny_cfg, [0, 1], tmp_path)
    assert trained == [0, 1]
    assert [path.relative_to(tmp_path).as_posix() for path in runs.checkpoints] == [
        'tiny/seed0/epoch_1.pth',
        'tiny/seed1/epoch_1.pth',
    ]
    train_runs('tiny', tiny_cfg, [0, 1], tmp_path)
    assert trained == [0, 1]
    # A run that was cut off is.
    (tmp_path / 'tiny/seed1/epoch_1.pth').unlink()
    train_runs('tiny', tiny_cfg, [0, 1], tmp_path)
    assert trained == [0, 1, 1]
    state = CheckpointLoader.load_checkpoint(str(runs.checkpoints[0]))['state_dict']
    assert 'head.fc.weight' in state


def test_finished_runs_in_a_relative_folder_are_not_repeated(tiny_cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = train_runs('tiny', tiny_cfg, [0], 'work_dirs/maps')
    before = first.checkpoints[0].stat().st_mtime_ns
    monkeypatch.setattr(model_runs, 'train', lambda *args, **kwargs: pytest.fail('trained again'))
    for work_dir in (
        'work_dirs/maps',
        './work_dirs/../work_dirs/maps',
        tmp_path / 'work_dirs/maps',
    ):
        again = train_runs('tiny', tiny_cfg, [0], work_dir)
        assert again.checkpoints == first.checkpoints
    assert first.checkpoints[0].stat().st_mtime_ns == before


def test_a_run_with_other_settings_does_not_pass_for_this_one(tiny_cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(model_runs, 'train', lambda *args, **kwargs: None)
    train_runs('tiny', tiny_cfg, [0], tmp_path)
    train_runs('tiny', copy.deepcopy(tiny_cfg), [0, 1], tmp_path)
    with pytest.raises(ValueError, match=r'seed0 holds .* setting of feature_cache\. .*work-dir'):
        train_runs('tiny', tiny_cfg, [0], tmp_path, dict(views=2))
    tiny_cfg.optim_wrapper.optimizer.lr = 7.0
    with pytest.raises(ValueError, match='another setting of optim_wrapper'):
        train_runs('tiny', tiny_cfg, [0], tmp_path)
    train_runs('tiny', tiny_cfg, [2], tmp_path)


def test_mean_and_deviation_of_seeds():
    results = dict(
        usual=[{'road': value} for value in (1.0, 2.0, 3.0)],
        near_zero=[{'road': value} for value in (-0.02, 0.0, 0.0)],
    )
    shown = text(results_table(results)).split()
    assert shown[shown.index('usual') + 1 :][:4] == ['3', '2.0', '±', '1.0']
    assert shown[shown.index('near_zero') + 1 :][:2] == ['3', '0.0']
