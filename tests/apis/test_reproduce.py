"""Which cells the paper's tables need, and what becomes of each when they are run."""

import json
import re

import pytest
from PIL import Image

from mhc_plugin.apis import reproduce
from mhc_plugin.apis.reproduce import Cell, plan, run_cells
from mhc_plugin.cli import paper_report, records

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
    cells = plan([1, 5, 6, 7], ['vgg19'], reproduce.HEADS, [0], schedule='optimum')
    assert {cell.head for cell in cells} == {'baseline', 'multifc'}
    # It has neither a learning rate nor batches.
    assert {key for cell in cells for key, _ in cell.options} == {'model.head.loss.loss_weight'}


@pytest.mark.parametrize(
    ('cell', 'epochs', 'length'),
    [
        (Cell('swin-tiny', 'multifc', 'combined0'), 30, 3000),
        (Cell('swin-tiny', 'multifc', 'combined0', 'paper'), 300, 3000),
        (Cell('swin-tiny', 'multifc', 'combined0', smoke=True), 2, 64),
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


class TestRuns:
    @pytest.fixture
    def cells(self):
        return [Cell('vgg19', head, 'combined0') for head in ('baseline', 'multifc', 'convfc')]

    @pytest.fixture
    def run(self, cells, tmp_path):
        """Run the cells, of which the heads named fail; what was run and what was said."""

        def call(*failing):
            ran, said = [], []

            def train(cell):
                ran.append(cell.head)
                if cell.head in failing:
                    raise RuntimeError('no weights')
                record = dict(scores=dict(settings=cell.settings))
                (tmp_path / f'{cell.name}.json').write_text(json.dumps(record))

            run_cells(cells, tmp_path, train, str, lambda cell, what: said.append(what))
            return ran, said

        return call

    def test_the_rest_goes_on_after_a_failure(self, run, cells, tmp_path):
        assert run('multifc') == (['baseline', 'multifc', 'convfc'], ['done', 'no weights', 'done'])
        failed = json.loads((tmp_path / f'{cells[1].name}.error.json').read_text())
        assert (failed['error'], failed['head']) == ('no weights', 'multifc')

    def test_what_is_there_is_not_run_again(self, run, tmp_path):
        run('multifc')
        assert run() == (['multifc'], ['there', 'done', 'there'])
        assert list(tmp_path.glob('*.error.json')) == []
        assert run() == ([], ['there'] * 3)

    def test_what_was_run_with_other_settings_is_run_again(self, run, monkeypatch):
        run()
        monkeypatch.setitem(reproduce.SCHEDULES, 'short', 31)
        assert run()[1] == ['done'] * 3


class TestReport:
    @pytest.fixture
    def found(self, tmp_path):
        """Two runs of the baseline, of MultiFC none but an error."""
        cells = [Cell('vgg19', 'baseline', 'combined0', seed=seed) for seed in (0, 1)]
        cells.append(Cell('vgg19', 'multifc', 'combined0'))
        for cell, precision in zip(cells, (60.0, 62.0)):
            scores = dict(
                settings=cell.settings,
                metrics={'multi-label/precision_top4_micro': precision},
                prevalence=[0.4] * 10,
                images=5,
                loss=[2.0, 1.0],
            )
            records.write_record(tmp_path / f'{cell.name}.json', scores, seconds=1)
        (tmp_path / f'{cells[2].name}.error.json').write_text('{"error": "no network"}')
        return paper_report.read_cells(tmp_path, cells)

    def test_rows(self, found):
        rows = {tuple(row['name']): row for row in paper_report.rows_of(1, found)}
        assert len(rows) == 12
        row = rows['vgg19', 'top-4', 'baseline', 'short']
        assert row['ours'] == dict(precision=(61.0, pytest.approx(2**0.5)))
        assert row['chance']['precision'] == pytest.approx(40)
        # 4 of 10 drawn, 4 of 10 there: 0.4 * 0.4 + 0.6 * 0.6.
        assert row['chance']['accuracy'] == pytest.approx(52)
        assert row['verdict'] == 'above the paper'
        cell = paper_report.cells_of(row)[2]
        assert cell == '48.22 → 61.00 ± 1.41 (+12.78, chance 40.00)'
        assert rows['vgg19', 'top-4', 'multifc', 'short']['verdict'] == 'no network'
        assert rows['swin-tiny', 'top-4', 'multifc', 'short']['verdict'] == 'not run'

    def test_the_optimum_stands_below(self, found):
        found['vgg19', 'baseline', 'combined0', (), 'optimum'] = found[
            'vgg19', 'baseline', 'combined0', (), 'short'
        ]
        names = [row['name'] for row in paper_report.rows_of(1, found)]
        place = names.index(['vgg19', 'top-4', 'baseline', 'short'])
        assert names[place + 1] == ['vgg19', 'top-4', 'baseline', 'optimum']
        assert len(names) == 13

    def test_constant_rows_are_named(self):
        rows = paper_report.rows_of(3, {})
        said = [row for row in rows if 'constant' in row['verdict']]
        assert len(rows) == 24
        assert len(said) == 8

    def test_pages(self, found, tmp_path):
        tables = {number: paper_report.rows_of(number, found) for number in (1, 5)}
        text = paper_report.results_markdown(tables, ['About <it>.'])
        assert '| vgg19 top-4 baseline short |' in text
        assert text.count('\n## ') == 2
        data = {'combined0': dict(images=5, labels=4.0, hash='d')}
        Image.new('RGB', (20, 10)).save(tmp_path / 'panel.png')
        page = paper_report.results_html(
            tables, ['About <it>.'], {'a': [2.0, 1.0]}, data, {'panel': tmp_path / 'panel.png'}
        )
        assert 'About &lt;it&gt;.' in page
        assert '<svg' in page
        assert page.count('<tr>') == text.count('\n|') - 2 + 2
        # Nothing from elsewhere, and no script.
        assert '<script' not in page
        assert re.findall('src="(.{22})', page) == ['data:image/webp;base64']
        assert 'href="http' not in page
