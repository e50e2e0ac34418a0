"""tools/sweep.py beside tools/train.py, and tools/reproduce.py interrupted and started again."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mhc_plugin.apis import reproduce

HERE = Path(__file__).parent
TINY = HERE / 'tiny.py'


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Run a tool in this process, in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')

    def run(name, *args):
        path = HERE.parents[1] / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(f'tool_{name}', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        module.main()

    return run


def head_of(path):
    state = torch.load(path, map_location='cpu', weights_only=False)['state_dict']
    return {name: value for name, value in state.items() if name.startswith('head.')}


def test_sweep_gives_what_training_gives(tool, tmp_path, capsys):
    lr = 'optim_wrapper.optimizer.lr'
    # Runs of one name within a second share a logger, and its file.
    tool('sweep', TINY, '--vary', f'{lr}=0.2,0.05', '--seeds', 0, 1, '--record', 'sweep.json',
         '--cfg-options', f'experiment_name={tmp_path.name}')  # fmt: skip
    said = capsys.readouterr().out
    assert 'Checkpoint and config of every setting: work_dirs/sweep/tiny/<pass>/<setting>/' in said
    record = json.loads(Path('sweep.json').read_text())
    low = record['scores']['settings'][1]
    assert low['options'] == {lr: 0.05}
    assert f'{low["metrics"]["multi-label/mAP"]["mean"]:.2f}' in said
    tool('train', TINY, '--cache-features', '--seed', 1, '--work-dir', 'alone',
         '--cfg-options', f'{lr}=0.05', f'experiment_name={tmp_path.name}-alone')  # fmt: skip
    alone = head_of(Path('alone', 'epoch_3.pth'))
    own = head_of(Path('work_dirs', 'sweep', 'tiny', 'seed1', 'lr0.05', 'epoch_3.pth'))
    assert alone.keys() == own.keys()
    assert all(torch.equal(own[name], value) for name, value in alone.items())


def test_reproduce_goes_on_where_it_was_interrupted(tool, tmp_path, monkeypatch, capsys):
    def config(cell):
        cfg = Config.fromfile(TINY)
        cfg.merge_from_dict(dict(cell.options))
        cfg.train_cfg.max_epochs = 1
        cfg.model.head.loss = dict(type='PerHeadBCELoss')
        if cell.head == 'multiatt':
            cfg.model.head.in_channels = 17
        cfg.experiment_name = tmp_path.name
        return cfg

    monkeypatch.setattr(reproduce.Cell, 'config', config)
    monkeypatch.setattr(reproduce, '_prevalence', reproduce._prevalence.__wrapped__)
    run_pass, ran = reproduce.run_pass, []

    def interrupted(cells, *args):
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append([cell.head for cell in cells])
        return run_pass(cells, *args)

    monkeypatch.setattr(reproduce, 'run_pass', interrupted)
    plan = ['--tables', 1, 5, '--datasets', 'combined0', '--heads', 'multiatt', 'multifc',
            'multiconv', '--backbone-weights', 'none', '--no-panels', '--work-dir', 'all',
            '--record', 'tables.json']  # fmt: skip
    with pytest.raises(SystemExit):
        tool('reproduce', *plan)
    # Three learning rates are one pass; the attention's width fits no feature.
    assert ran == [['multiatt'], ['multiconv']]
    assert '[1/5' in capsys.readouterr().out

    monkeypatch.setattr(reproduce, 'run_pass', run_pass)
    tool('reproduce', *plan)
    said = capsys.readouterr().out
    assert '5 trainings, 1 of them there.' in said
    assert said.count(': done') == 3
    assert 'multiatt_combined0_short_random_seed0: ' in said
    error = json.loads(next(Path('all', 'records').glob('*.error.json')).read_text())['error']
    assert '17 channels' in error
    text = Path('all', 'RESULTS.md').read_text()
    assert '4 of 5 trainings.' in text
    assert error in text
    assert Path('all', 'report.html').is_file()
    rows = json.loads(Path('tables.json').read_text())['scores']['rows']
    assert [row['head'] for row in rows if row['metrics']] == ['multiconv', *['multifc'] * 3]

    tool('reproduce', *plan)
    assert '5 trainings, 4 of them there.' in capsys.readouterr().out
