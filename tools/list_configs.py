"""Write configs/mhc/*.py, their README.md and metafile.yml from the tables below.

A config is its `_base_` lines; what differs between two of them stands in `configs/_base_/`. The
metafile lists the models that a record in results/ has scores of.

python tools/list_configs.py           # write them, and delete configs that no table names
python tools/list_configs.py --check   # exit with 1 if any is not up to date
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

ROOT = Path(__file__).parents[1] / 'configs' / 'mhc'
RESULTS = Path(__file__).parents[1] / 'results'

BACKBONES = {
    'seresnet50': 'SE-ResNet50',
    'vgg19': 'VGG-19',
    'swin-tiny': 'Swin-T',
    'efficientnet-lite0': 'EfficientNet-Lite0',
}
HEADS = {
    'baseline': "MMPretrain's `MultiLabelLinearClsHead`",
    'convfc': '`ConvClsHead`, 16 channels',
    'convfc-wide': '`ConvClsHead`, 160 channels',
    'multifc': '`MultiHeadClsHead`',
    'multifc-channels': '`MultiHeadClsHead`, each head a slice of the channels',
    'multifc-stages': "`MultiHeadClsHead`, heads on the backbone's last two stages",
    'multiatt': '`AttentionMultiHeadClsHead`',
    'multiconv': '`ConvMultiHeadClsHead`',
    'multiconv-channels': '`ConvMultiHeadClsHead`, each head a slice of the channels',
    'multiconv-stages': "`ConvMultiHeadClsHead`, heads on the backbone's last two stages",
}
WHOLE = [head for head in HEADS if not head.endswith(('-channels', '-stages'))]
# For each data set: what it is, its schedule, and the backbones and heads that it has configs for.
DATA = {
    'digits': (
        'splices of scikit-learn digits (the demo)',
        'sgd_demo',
        ['efficientnet-lite0'],
        WHOLE,
    ),
    'combined0': ('splices of Imagenette', 'sgd_300e', [*BACKBONES], [*HEADS]),
    'combined1': ('splices of Caltech-101', 'sgd_300e', [*BACKBONES], WHOLE),
    'voc': ('PASCAL VOC, ten classes', 'sgd_1000e', [*BACKBONES], WHOLE),
    'openimages': ('OpenImages, ten classes', 'sgd_1000e', [*BACKBONES], WHOLE),
    'own-data': ('your own images', 'sgd_demo', ['efficientnet-lite0'], ['multifc', 'multiatt']),
}
# Heads with a schedule of their own on all data.
SCHEDULES = {'multiatt': 'sgd_decay_30e'}
# MMEngine lets no two bases set the same key, so a head cannot be put into `model` by its base.
CONFIG = """_base_ = [
    '../_base_/models/{model}.py',
    '../_base_/heads/{head}.py',
    '../_base_/datasets/{data}.py',
    '../_base_/schedules/{schedule}.py',
    '../_base_/default_runtime.py',
]
model = dict(neck=_base_.neck, head=dict(_base_.head, num_classes=_base_.num_classes))
"""
PAGE = """# Configs

Written by `python tools/list_configs.py`; do not edit.

Each is named `<backbone>_<head>_<data>.py`, runs with `python tools/train.py configs/mhc/<name>.py`
and can be inherited from as `_base_ = 'mhc_plugin::mhc/<name>.py'`. Backbones are frozen and carry
ImageNet-1k weights.
"""
METRICS = {'mAP': 'multi-label/mAP', 'Top-4 precision': 'multi-label/precision_top4_micro'}
PAPER = dict(
    Title='Class-Level Feature Disentanglement for Multi-Label Image Classification',
    URL='https://doi.org/10.3390/fi17110486',
)


def page() -> str:
    """A table per data set: heads by backbones, with links."""
    lines = [PAGE]
    for data, (description, _, backbones, heads) in DATA.items():
        lines += [
            f'## {data}: {description}',
            '',
            f'| head | {" | ".join(BACKBONES[b] for b in backbones)} |',
            f'| --- |{" --- |" * len(backbones)}',
        ]
        for head in heads:
            cells = ' | '.join(f'[config](./{b}_{head}_{data}.py)' for b in backbones)
            lines.append(f'| {head}: {HEADS[head]} | {cells} |')
        lines.append('')
    return '\n'.join(lines)


def measured() -> dict[str, list[dict]]:
    """For every config that a record has scores of: one set of results per record."""
    results = {}
    for path in sorted(RESULTS.glob('*.json')):
        record = json.loads(path.read_text(encoding='utf-8'))
        for name, scores in scores_of(record['scores']):
            metrics = {
                title: round(scores[key], 2) for title, key in METRICS.items() if key in scores
            }
            task = 'Multi-label image classification'
            results.setdefault(name, []).append(
                dict(Task=task, Metrics=metrics, Record=f'results/{path.name}')
            )
    return results


def scores_of(scores: Any) -> Iterator[tuple[str, dict[str, float]]]:
    """Configs of a record and their scores, as `evaluate_maps.py` or `reproduce.py` writes them."""
    if not isinstance(scores, dict):
        return
    for name, own in scores.items():
        if isinstance(own, dict) and 'multi-label/mAP' in own:
            yield name, {key: value['mean'] for key, value in own.items()}
    for own in scores.get('rows', []):
        as_it_is = own['schedule'] == 'short' and not own['options'] and not own['random']
        if as_it_is and own['metrics']:
            name = f'{own["backbone"]}_{own["head"]}_{own["dataset"]}'
            yield name, {key: mean(values) for key, values in own['metrics'].items()}


def files() -> dict[str, str]:
    """The text of every file of ``configs/mhc``, by its name."""
    texts = {'README.md': page()}
    models, results = [], measured()
    for data, (description, schedule, backbones, heads) in DATA.items():
        for backbone in backbones:
            for head in heads:
                name = f'{backbone}_{head}_{data}'
                stages = '_stages' if head.endswith('-stages') else ''
                texts[f'{name}.py'] = CONFIG.format(
                    model=backbone + stages,
                    head=head,
                    data=data.replace('-', '_'),
                    schedule=SCHEDULES.get(head, schedule),
                )
                if name in results:
                    architecture = [BACKBONES[backbone], head]
                    models.append(
                        {
                            'Name': name,
                            'In Collection': 'MHC',
                            'Config': f'configs/mhc/{name}.py',
                            'Metadata': {
                                'Training Data': description,
                                'Architecture': architecture,
                            },
                            'Results': [dict(own, Dataset=description) for own in results[name]],
                        }
                    )
    collection = dict(Name='MHC', Paper=PAPER, README='configs/mhc/README.md')
    # What MMPretrain's `ModelHub` reads.
    texts['metafile.yml'] = yaml.safe_dump(
        dict(Collections=[collection], Models=models), sort_keys=False
    )
    return texts


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing, compare')
    args = parser.parse_args()
    wanted = files()
    present = {path.name: path.read_text(encoding='utf-8') for path in ROOT.iterdir()}
    stale = sorted(
        name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name)
    )
    if args.check and stale:
        print(f'Not up to date: {", ".join(stale)}. Run `python tools/list_configs.py`.')
        return 1
    for name in stale:
        if name in wanted:
            (ROOT / name).write_text(wanted[name], encoding='utf-8')
        else:
            (ROOT / name).unlink()
    return 0


if __name__ == '__main__':
    sys.exit(main())
