"""The command lines: what they write, what they say, and how they end."""

import argparse
import importlib.util
import json
import os
import pickle
import runpy
import sys
import uuid
from pathlib import Path

import pytest
import torch

from mhc_plugin import apis

HERE = Path(__file__).parent
TOOLS = HERE.parents[1] / 'tools'
TINY = HERE / 'tiny.py'


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Run a tool in this process, in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, 'LOCAL_RANK', '0')

    def run(name, *args):
        spec = importlib.util.spec_from_file_location(f'tool_{name}', TOOLS / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        args = list(map(str, args))
        if '--cfg-options' not in args:
            args.append('--cfg-options')
        monkeypatch.setattr(sys, 'argv', [name, *args, f'experiment_name={uuid.uuid4().hex}'])
        module.main()

    return run


@pytest.fixture
def fails(tool, capsys):
    """Run a tool, and give the one sentence and the exit code with which it ends."""

    def run(*args):
        with pytest.raises(SystemExit) as ended:
            tool(*args)
        lines = capsys.readouterr().err.strip().splitlines()
        if ended.value.code == 1:
            assert lines[-1] == '(--traceback shows where it was raised.)'
            assert 'Traceback' not in '\n'.join(lines)
            return lines[-2], 1
        return lines[-1], ended.value.code

    return run


@pytest.fixture(scope='module')
def trained(tiny_config, tmp_path_factory):
    """A checkpoint and what it scored."""
    return apis.train(
        tiny_config(train_cfg__max_epochs=1), work_dir=tmp_path_factory.mktemp('trained')
    )


class TestTrain:
    def test_the_last_lines_say_where_the_checkpoint_is_and_what_it_scored(
        self, tool, log_of, tmp_path
    ):
        tool(
            'train',
            TINY,
            '--amp',
            '--seed',
            3,
            '--auto-scale-lr',
            '--backbone-weights',
            'none',
            '--cfg-options',
            'train_cfg.max_epochs=1',
            'train_dataloader.batch_size=64',
        )
        # The folder is named after the config.
        work_dir = tmp_path / 'work_dirs' / 'tiny'
        *_, checkpoint, scores, _ = log_of(work_dir).splitlines()
        assert checkpoint.endswith(f'Last checkpoint: {work_dir / "epoch_1.pth"}')
        assert 'Last validation: multi-label/accuracy_top4_micro' in scores
        assert 'eta: ' in log_of(work_dir)
        cfg = apis.load_config(work_dir / 'tiny.py')
        assert cfg.randomness.seed == 3
        assert cfg.backbone_weights == 'none'
        assert cfg.auto_scale_lr.enable is True
        if not torch.cuda.is_available():
            assert cfg.optim_wrapper.type == 'mmpretrain.CPUAmpOptimWrapper'
            assert cfg.train_dataloader.pin_memory is False

    def test_weights_of_a_file(self, tool, trained, state_dict, log_of, tmp_path):
        tool(
            'train',
            TINY,
            '--work-dir',
            tmp_path,
            '--no-validate',
            '--seed',
            5,
            '--backbone-weights',
            trained.checkpoint,
            '--cfg-options',
            'train_cfg.max_epochs=1',
        )
        expected, weights = state_dict(trained.checkpoint), state_dict(tmp_path / 'epoch_1.pth')
        backbone = [name for name in expected if name.startswith('backbone.')]
        assert backbone
        assert all(torch.equal(weights[name], expected[name]) for name in backbone)
        assert not torch.equal(weights['head.fc.weight'], expected['head.fc.weight'])
        assert 'Last validation: none' in log_of(tmp_path)

    @pytest.mark.parametrize(
        ('options', 'sentence'),
        [
            (['tini.py'], 'There is no config tini.py.'),
            ([TINY, '--cfg-options', 'train_cfg.max_epoch=1'], "keyword argument 'max_epoch'"),
            ([TINY, '--cfg-options', 'model.head.type=MultiHeadClsHed'], 'mean MultiHeadClsHead'),
            ([TINY, '--cfg-options', 'optim_wrapper.optimizer.type=SDG'], 'did you mean SGD'),
            ([TINY, '--resume', 'a.pth'], 'There is no checkpoint a.pth.'),
            ([TINY, '--backbone-weights', 'a.pth'], 'There is no file a.pth'),
            (
                [TINY, '--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None'],
                'Expected the config to set `auto_scale_lr.base_batch_size`',
            ),
            (
                [
                    TINY,
                    '--cfg-options',
                    'model.backbone.init_cfg.type=Pretrained',
                    'model.backbone.init_cfg.checkpoint=http://localhost:9/a.pth',
                ],
                'Could not download http://localhost:9/a.pth',
            ),
            (
                [
                    TINY,
                    '--cfg-options',
                    'train_dataloader.dataset.source.type=Imagenette',
                    'train_dataloader.dataset.source.data_root=/not/there',
                ],
                '/not/there',
            ),
        ],
    )
    def test_mistakes_end_in_one_sentence(self, fails, options, sentence):
        said, code = fails('train', *options)
        assert said.startswith('Error: ')
        assert sentence in said
        assert code == 1

    def test_mistakes_in_workers_end_in_one_sentence(self, fails, tmp_path):
        said, code = fails(
            'train',
            TINY,
            '--cfg-options',
            'train_dataloader.num_workers=1',
            'train_pipeline.0.type=LoadImageFromFile',
            'train_dataloader.dataset.pipeline.0.type=LoadImageFromFile',
        )
        assert (said, code) == ("Error: KeyError: 'img_path'", 1)

    def test_traceback_on_request(self, tool):
        with pytest.raises(FileNotFoundError, match='There is no checkpoint'):
            tool('train', TINY, '--resume', 'a.pth', '--traceback')

    def test_interrupt(self, fails, monkeypatch):
        monkeypatch.setattr('mmengine.runner.Runner.train', _interrupt)
        said, code = fails('train', TINY)
        assert code == 130
        assert '--resume' in said


def _interrupt(self):
    raise KeyboardInterrupt


class TestTest:
    def test_metrics(self, tool, trained, log_of, tmp_path):
        tool(
            'test', TINY, trained.checkpoint, '--out', tmp_path / 'a.json', '--out-item', 'metrics'
        )
        metrics = json.loads((tmp_path / 'a.json').read_text())
        assert {name: metrics[name] for name in trained.metrics} == trained.metrics
        # The table is what is said last.
        table = log_of(tmp_path).rpartition(f'{trained.checkpoint}:\n')[2].split()
        assert table[:2] == ['metric', 'value']
        assert f'{metrics["multi-label/mAP"]:.2f}' == table[table.index('multi-label/mAP') + 1]

    def test_predictions(self, tool, trained, tmp_path):
        tool('test', TINY, trained.checkpoint, '--out', tmp_path / 'a.pkl', '--amp')
        predictions = pickle.loads((tmp_path / 'a.pkl').read_bytes())
        assert len(predictions) == 33
        assert predictions[0]['pred_score'].shape == (10,)

    def test_images(self, tool, trained, tmp_path):
        tool('test', TINY, trained.checkpoint, '--show-dir', tmp_path / 'show', '--interval', 16)
        assert {path.name for path in (tmp_path / 'show').iterdir()} == {'0_0.png', '16_0.png'}

    def test_tta_is_the_average_over_the_flip(self, tiny_config, tool, trained, tmp_path):
        tool('test', TINY, trained.checkpoint, '--tta', '--out', tmp_path / 'a.pkl')
        averaged = pickle.loads((tmp_path / 'a.pkl').read_bytes())
        scores = []
        for prob in (0.0, 1.0):
            cfg = tiny_config()
            flip = dict(type='RandomFlipWithCells', prob=prob)
            cfg.test_dataloader.dataset.pipeline.insert(1, flip)
            apis.test(cfg, trained.checkpoint, work_dir=tmp_path, out=tmp_path / f'{prob}.pkl')
            predictions = pickle.loads((tmp_path / f'{prob}.pkl').read_bytes())
            scores.append(torch.stack([sample['pred_score'] for sample in predictions]))
            if prob == 0:
                cells = [sample['gt_cells'] for sample in predictions]
        torch.testing.assert_close(
            torch.stack([sample['pred_score'] for sample in averaged]), sum(scores) / 2
        )
        # Those of the image as it is.
        assert all(torch.equal(a['gt_cells'], b) for a, b in zip(averaged, cells))

    def test_config_is_left_as_it_is(self, tiny_config, trained, tmp_path):
        cfg = tiny_config()
        before = cfg.pretty_text
        apis.test(cfg, trained.checkpoint, work_dir=tmp_path, tta=True)
        assert cfg.pretty_text == before

    @pytest.mark.parametrize(
        ('options', 'sentence'),
        [
            ([TINY, 'a.pth'], 'Error: There is no checkpoint a.pth.'),
            ([TINY, 'http://localhost:9/a.pth'], 'Could not download http://localhost:9/a.pth'),
            (
                [TINY, TINY, '--out', 'a.json'],
                "to end in one of ('.pkl', '.pickle'), but got 'a.json'",
            ),
        ],
    )
    def test_mistakes_end_in_one_sentence(self, fails, options, sentence):
        said, code = fails('test', *options)
        assert sentence in said
        assert code == 1

    @pytest.mark.parametrize(
        ('options', 'sentence'),
        [
            (['--out-item', 'pred'], '--out-item needs --out'),
            (['--tta', '--show-dir', 'a'], '--tta cannot be combined with --show or --show-dir'),
        ],
    )
    def test_usage(self, fails, options, sentence):
        said, code = fails('test', TINY, 'a.pth', *options)
        assert sentence in said
        assert code == 2

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (
                dict(out_item='both'),
                r"`out_item` to be one of \('pred', 'metrics', None\), but got "
                "'both'",
            ),
            (dict(out_item='pred'), "Expected argument `out`, the file to write 'pred' to"),
            (dict(tta=True, show=True), 'Expected one of `tta` and `show`'),
        ],
    )
    def test_arguments(self, tiny_config, arguments, message):
        with pytest.raises(ValueError, match=message):
            apis.test(tiny_config(), TINY, **arguments)


@pytest.mark.parametrize('name', sorted(path.stem for path in TOOLS.glob('*.py')))
def test_options_are_written_out(name, monkeypatch):
    """Else ``--out`` is taken for ``--out-dir`` where there is no ``--out``."""
    parsers = []
    made = argparse.ArgumentParser.__init__

    def make(self, *args, **kwargs):
        made(self, *args, **kwargs)
        parsers.append(self)

    monkeypatch.setattr(argparse.ArgumentParser, '__init__', make)
    monkeypatch.setattr(sys, 'argv', [name, '--help'])
    monkeypatch.syspath_prepend(TOOLS)
    with pytest.raises(SystemExit):
        runpy.run_path(TOOLS / f'{name}.py', run_name='__main__')
    assert parsers
    assert not any(parser.allow_abbrev for parser in parsers)


@pytest.mark.slow
def test_as_a_program(run, tmp_path):
    process = run(sys.executable, TOOLS / 'train.py', 'a.py')
    assert process.returncode == 1
    assert process.stderr.startswith('Error: There is no config a.py.')


@pytest.mark.parametrize('name', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_shell_scripts_hand_on_their_arguments(run, name, tmp_path):
    """With ``python`` and ``srun`` that print what they are given."""
    for program in ('python', 'srun'):
        (tmp_path / program).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tmp_path / program).chmod(0o755)
    arguments = dict(
        dist_train=['c.py', '2'],
        dist_test=['c.py', 'a.pth', '2'],
        slurm_train=['part', 'job', 'c.py', 'dir'],
    )[name.removesuffix('.sh')]
    process = run(
        'env',
        f'PATH={tmp_path}:{os.environ["PATH"]}',
        'PORT=7',
        'GPUS=4',
        'GPUS_PER_NODE=0',
        TOOLS / name,
        *arguments,
        '--cfg-options',
        'a=[1, 2]',
    )
    assert process.returncode == 0, process.stderr
    given = process.stdout.splitlines()
    assert given[-2:] == ['--cfg-options', 'a=[1, 2]']
    assert 'c.py' in given
    if name == 'slurm_train.sh':
        assert {'--ntasks=4', '--work-dir=dir', '--launcher', 'slurm'} <= set(given)
        assert not any(argument.startswith('--gres') for argument in given)
    else:
        assert {'--nproc_per_node=2', '--master_port=7', '--launcher', 'pytorch'} <= set(given)
