"""Which cells the paper's tables need, and what becomes of each when they are run."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from mhc_plugin.analysis.paper import paper_tables
from mhc_plugin.apis import load_config, reproduce
from mhc_plugin.apis.reproduce import Cell, _hash_file, passes, plan, run_passes
from mhc_plugin.cli import paper_page, paper_report, records

TINY = Path(__file__).parents[1] / 'integration' / 'tiny.py'
ALL = dict(backbones=reproduce.PAPER_BACKBONES, heads=list(reproduce.PAPER_HEADS), seeds=[0])


def test_a_cell_per_row_of_the_tables():
    cells = plan([1, 2, 3, 4], **ALL)
    # Two values of k are two rows of one training.
    assert len(cells) == 3 * 4 * 4
    assert len({cell.name for cell in cells}) == len(cells)


def test_ablations_share_the_cell_of_the_paper_s_setting():
    cells = plan([5, 6, 7], ['seresnet50'], ['baseline', 'multifc'], [0])
    # Three tables of three values, on four data sets with two heads; one value is the same.
    assert len(cells) == (3 * 3 - 2) * 4 * 2
    assert len({cell.name for cell in cells}) == len(cells)
    options = {cell.options for cell in cells}
    assert (('train_dataloader.batch_size', 64),) in options
    assert all(isinstance(o[0][1], int) for o in options if o and 'batch' in o[0][0])


def test_only_what_was_asked_for():
    cells = plan([1, 5], ['vgg19'], ['multifc', 'multiatt'], [3, 4], datasets=['combined0'])
    assert {(cell.dataset, cell.backbone) for cell in cells} == {('combined0', 'vgg19')}
    assert {cell.seed for cell in cells} == {3, 4}
    assert {cell.head for cell in cells if cell.options} == {'multifc'}
    with pytest.raises(ValueError, match='Expected tables of 1 to 7, but got 8'):
        plan([8], ['vgg19'], ['multifc'], [0])


def test_the_optimum_is_of_linear_heads_alone():
    cells = plan(range(1, 8), ['vgg19'], reproduce.HEADS, [0], schedule='optimum')
    assert {cell.head for cell in cells} == {'baseline', 'multifc'}
    assert all(cell.options == () for cell in cells)
    assert len(cells) == 8


@pytest.mark.parametrize(
    ('cell', 'epochs', 'length'),
    [
        (Cell('swin-tiny', 'multifc', 'combined0'), 30, 3000),
        (Cell('swin-tiny', 'multifc', 'combined0', 'paper'), 300, 3000),
        (Cell('swin-tiny', 'multifc', 'combined0', smoke=True), 2, 64),
        (Cell('swin-tiny', 'multifc', 'combined0', images=1000), 30, 1000),
        (Cell('swin-tiny', 'multifc', 'combined0', images=10**6), 30, 3000),
    ],
)
def test_config_of_a_cell(cell, epochs, length):
    cfg = cell.config()
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (epochs, epochs)
    assert cfg.train_dataloader.dataset.length == length
    assert cfg.optim_wrapper.optimizer.lr == 0.01


def test_options_of_a_cell():
    cell = Cell('vgg19', 'multifc', 'voc', options=(('model.head.loss.loss_weight', 0.5),))
    assert cell.config().model.head.loss.loss_weight == 0.5
    assert cell.name == 'vgg19_multifc_voc_short_loss_weight0.5_seed0'


def test_other_weights_and_options_have_other_names(tmp_path):
    cell, names = Cell('vgg19', 'multifc', 'voc'), set()
    for content in (b'a', b'b'):
        (tmp_path / 'weights.pth').write_bytes(content)
        names.add(replace(cell, backbone_weights=str(tmp_path / 'weights.pth')).name)
        _hash_file.cache_clear()
    for value in ('/data/voc', '-data-voc', 'x' * 300, 'x' * 301):
        names.add(replace(cell, common=(('data_root', value),)).name)
    assert len(names) == 6
    assert all('/' not in name and len(name) < 200 for name in names)


def test_what_differs_in_optimizer_and_loss_shares_a_pass():
    cells = plan([1, 5, 6, 7], ['vgg19'], ['multifc', 'convfc'], [0], datasets=['combined0'])
    cells += plan([1], ['vgg19'], ['multifc'], [1], reductions=['sum', 'mean'])
    cells += plan([1], ['vgg19'], ['multifc'], [0], schedule='optimum')
    groups = {
        (own[0].head, own[0].seed, own[0].schedule): len(own)
        for own in passes(cells)
        if not any('batch' in key for key, _ in own[0].options)
    }
    # The paper's setting, two learning rates and two of lambda.
    assert groups['multifc', 0, 'short'] == 5
    assert groups['convfc', 0, 'short'] == 1
    assert groups['multifc', 1, 'short'] == 2
    assert groups['multifc', 0, 'optimum'] == 1
    # A pass for each of two other batch sizes.
    assert len(passes(cells)) == len(groups) + 2
    assert sum(map(len, passes(cells))) == len(cells)


def test_random_weights_are_drawn_once(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TINY.parent)
    monkeypatch.setattr(Cell, 'config', lambda cell: load_config(TINY))
    path = reproduce.random_backbone('vgg19', 3, tmp_path)
    state = torch.load(path)['state_dict']
    torch.manual_seed(9)
    path.unlink()
    again = torch.load(reproduce.random_backbone('vgg19', 3, tmp_path))['state_dict']
    assert all(torch.equal(again[name], value) for name, value in state.items())
    other = torch.load(reproduce.random_backbone('vgg19', 4, tmp_path))['state_dict']
    assert not torch.equal(other['conv1.weight'], state['conv1.weight'])


class TestRuns:
    @pytest.fixture
    def cells(self):
        return [Cell('vgg19', head, 'combined0') for head in ('baseline', 'multifc', 'convfc')]

    @pytest.fixture
    def run(self, cells, tmp_path):
        """Run the cells, of which the heads named fail; what was run and what was said."""

        def call(*failing):
            ran, said = [], []

            def train(together):
                (cell,) = together
                ran.append(cell.head)
                if cell.head in failing:
                    raise RuntimeError('no weights')
                record = dict(scores=dict(settings=cell.settings))
                (tmp_path / f'{cell.name}.json').write_text(json.dumps(record))
                return {}

            run_passes(cells, tmp_path, train, str, lambda cell, what: said.append(what))
            return ran, said

        return call

    def test_the_rest_goes_on_after_a_failure(self, run, cells, tmp_path):
        assert run('multifc') == (['baseline', 'multifc', 'convfc'], ['done', 'no weights', 'done'])
        failed = json.loads((tmp_path / f'{cells[1].name}.error.json').read_text())
        assert (failed['error'], failed['head']) == ('no weights', 'multifc')

    def test_what_is_there_is_not_run_again(self, run, tmp_path):
        run('multifc')
        assert run() == (['multifc'], ['done'])
        assert list(tmp_path.glob('*.error.json')) == []
        assert run() == ([], [])

    def test_what_was_run_with_other_settings_is_run_again(self, run, monkeypatch):
        run()
        monkeypatch.setitem(reproduce.SCHEDULES, 'short', 31)
        assert run()[1] == ['done'] * 3

    def test_one_of_a_pass_may_fail(self, run, cells, tmp_path):
        lr = (('optim_wrapper.optimizer.lr', 1e9),)
        cells[1:] = [replace(cells[0], options=lr)]
        errors, said = {cells[1]: 'The loss is nan.'}, []

        def train(together):
            assert together == cells
            record = dict(scores=dict(settings=cells[0].settings))
            (tmp_path / f'{cells[0].name}.json').write_text(json.dumps(record))
            return errors

        run_passes(cells, tmp_path, train, str, lambda cell, what: said.append(what))
        assert said == ['done', 'The loss is nan.']
        assert [cell.is_finished(tmp_path) for cell in cells] == [True, False]
        assert (tmp_path / f'{cells[1].name}.error.json').is_file()


class TestReport:
    @pytest.fixture
    def found(self, tmp_path):
        """Two runs of the baseline, of MultiFC none but an error."""
        cells = [Cell('vgg19', 'baseline', 'combined0', seed=seed) for seed in (0, 1)]
        cells.append(Cell('vgg19', 'multifc', 'combined0'))
        for cell, precision in zip(cells, (60.0, 62.0)):
            scores = dict(
                settings=cell.settings,
                metrics={'multi-label/precision_top4_micro': precision, 'multi-label/mAP': 70.0},
                prevalence=[0.4] * 10,
                images=5,
                loss=[2.0, precision],
            )
            records.write_record(tmp_path / f'{cell.name}.json', scores, seconds=1)
        (tmp_path / f'{cells[2].name}.error.json').write_text('{"error": "no network"}')
        return paper_report.read_cells(tmp_path, cells)

    def test_seeds_are_put_together(self, found):
        baseline, multifc = found
        assert baseline['seeds'] == [0, 1]
        assert baseline['metrics']['multi-label/precision_top4_micro'] == [60.0, 62.0]
        assert baseline['loss'] == [2.0, 61.0]
        assert (multifc['seeds'], multifc['error']) == ([], 'no network')
        # A record holds them.
        assert json.loads(json.dumps(found)) == found

    def test_rows(self, found):
        rows = {tuple(row['name']): row for row in paper_report.rows_of(1, found)}
        assert len(rows) == 12
        row = rows['vgg19', 'top-4', 'baseline', 'short']
        assert row['ours']['precision'] == (61.0, pytest.approx(2**0.5))
        assert row['chance']['precision'] == pytest.approx(40)
        # 4 of 10 drawn, 4 of 10 there: 0.4 * 0.4 + 0.6 * 0.6.
        assert row['chance']['accuracy'] == pytest.approx(52)
        assert row['verdict'] == 'above the paper'
        cells = paper_report.cells_of(row)
        assert cells[2] == '48.22 → 61.00 ± 1.41 (+12.78, chance 40.00)'
        assert cells[-2] == '70.00 ± 0.00'
        assert rows['vgg19', 'top-4', 'multifc', 'short']['verdict'] == 'no network'
        assert rows['swin-tiny', 'top-4', 'multifc']['verdict'] == 'not run'

    def test_variants_stand_below(self, found):
        mean = [[reproduce.REDUCTION, 'mean']]
        found.append(dict(found[0], schedule='optimum'))
        found.append(dict(found[0], options=mean, random=True))
        names = [row['name'] for row in paper_report.rows_of(1, found)]
        place = names.index(['vgg19', 'top-4', 'baseline', 'short'])
        assert names[place + 1] == ['vgg19', 'top-4', 'baseline', 'optimum']
        assert names[place + 2] == ['vgg19', 'top-4', 'baseline', 'mean', 'short', 'random weights']
        assert len(names) == 14

    def test_the_paper_s_ablations_stand_beside_those_of_other_backbones(self, found):
        rows = paper_report.rows_of(6, found)
        assert [row['paper'] for row in rows if row['paper']] == paper_tables()['table6']
        assert {row['verdict'] for row in rows if row['paper']} == {'not run'}

    def test_ablations(self, found):
        rate = [['optim_wrapper.optimizer.lr', 0.1]]
        found.append(dict(found[0], backbone='seresnet50', options=rate))
        rows = [row for row in paper_report.rows_of(5, found) if row['ours']]
        name = ['combined0', 'top-4', 'learning_rate 0.1', 'baseline', 'short']
        assert [row['name'] for row in rows if row['paper']] == [['seresnet50', *name]]
        # The paper has no such rows for VGG, whose own setting is that of Table 1.
        assert [row['name'][3] for row in rows if not row['paper']] == ['learning_rate 0.01']
        assert not [
            row
            for row in paper_report.rows_of(1, found)
            if 'seresnet50' in row['name'] and row['ours']
        ]

    def test_seconds_are_summed_by_part(self, found):
        rate = [['optim_wrapper.optimizer.lr', 0.1]]
        found.append(dict(found[0], options=rate, seconds=[30.0]))
        found.append(dict(found[0], dataset='voc', seconds=[200.0, 300.0, 7.0]))
        time = paper_report.sections_of({}, found)[-1]
        assert time['titles'] == ['part', 'combined0', 'voc', 'all']
        assert time['rows'] == [
            ['vgg19 baseline short', '2 s (2)', '507 s (3)', '509 s (5)'],
            ['vgg19 multifc short', '', '', ''],
            ['vgg19 baseline short ablations', '30 s (1)', '', '30 s (1)'],
            ['all', '32 s (3)', '507 s (3)', '539 s (6)'],
        ]

    def test_constant_rows_are_named(self):
        rows = paper_report.rows_of(3, [])
        said = [row for row in rows if 'constant' in row['verdict']]
        assert len(rows) == 24
        assert len(said) == 8

    def test_pages(self, found, tmp_path):
        tables = {number: paper_report.rows_of(number, found) for number in (1, 5)}
        sections = paper_report.sections_of(tables, found)
        text = paper_report.results_markdown(sections)
        assert '| vgg19 top-4 baseline short |' in text
        assert text.count('## Table ') == 2
        Image.new('RGB', (20, 10)).save(tmp_path / 'panel.png')
        page = paper_page.results_html(
            sections, ['About <it>.'], found, {'panel': tmp_path / 'panel.png'}
        )
        assert 'About &lt;it&gt;.' in page
        assert '<svg' in page
        assert page.count('<tr>') == text.count('\n|') - 3 + 2
        # Nothing from elsewhere, and no script.
        assert '<script' not in page
        assert re.findall('src="(.{22})', page) == ['data:image/webp;base64']
        assert 'href="http' not in page
