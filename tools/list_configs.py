"""Write configs/mhc/README.md and configs/mhc/metafile.yml from the configs themselves.

python tools/list_configs.py           # write both
python tools/list_configs.py --check   # exit with 1 if either is not up to date
"""

import argparse
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1] / 'configs' / 'mhc'

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
    'multiconv': '`ConvMultiHeadClsHead`',
    'multiconv-channels': '`ConvMultiHeadClsHead`, each head a slice of the channels',
    'multiconv-stages': "`ConvMultiHeadClsHead`, heads on the backbone's last two stages",
}
DATA = {
    'digits': 'splices of scikit-learn digits (the demo)',
    'combined0': 'splices of Imagenette',
    'combined1': 'splices of Caltech-101',
    'voc': 'PASCAL VOC, ten classes',
    'openimages': 'OpenImages, ten classes',
    'own-data': 'your own images',
}
HEADER = """# Configs

Written by `python tools/list_configs.py`; do not edit.

Each is named `<backbone>_<head>_<data>.py`, runs with `python tools/train.py configs/mhc/<name>.py`
and can be inherited from as `_base_ = 'mhc_plugin::mhc/<name>.py'`. Backbones are frozen and carry
ImageNet-1k weights.
"""


def parts(path: Path) -> tuple[str, str, str]:
    """Split a config's name into backbone, head and data.

    Raises:
        ValueError: If the name has other parts than the tables above.
    """
    names = path.stem.split('_')
    if (
        len(names) != 3
        or names[0] not in BACKBONES
        or names[1] not in HEADS
        or (names[2] not in DATA)
    ):
        raise ValueError(
            f'Expected the name of {path.name} to be <backbone>_<head>_<data>.py with '
            f'parts of {list(BACKBONES)}, {list(HEADS)}, {list(DATA)}.'
        )
    return names[0], names[1], names[2]


def readme(configs: list[Path]) -> str:
    """A table per data set: heads by backbones, with links."""
    present = {parts(path): path.name for path in configs}
    lines = [HEADER]
    for data, description in DATA.items():
        if not any(key[2] == data for key in present):
            continue
        lines += [
            f'## {data}: {description}',
            '',
            f'| head | {" | ".join(BACKBONES.values())} |',
            f'| --- |{" --- |" * len(BACKBONES)}',
        ]
        for head, head_description in HEADS.items():
            names = [present.get((backbone, head, data)) for backbone in BACKBONES]
            if any(names):
                cells = [f'[config](./{name})' if name else '' for name in names]
                lines.append(f'| {head}: {head_description} | {" | ".join(cells)} |')
        lines.append('')
    return '\n'.join(lines)


def metafile(configs: list[Path]) -> str:
    """What MMPretrain's ``ModelHub`` reads."""
    collection = dict(
        Name='MHC',
        Paper=dict(
            Title='Class-Level Feature Disentanglement for Multi-Label Image Classification',
            URL='https://doi.org/10.3390/fi17110486',
        ),
        README='configs/mhc/README.md',
    )
    models = []
    for path in configs:
        backbone, head, data = parts(path)
        models.append(
            {
                'Name': path.stem,
                'In Collection': 'MHC',
                'Config': f'configs/mhc/{path.name}',
                'Metadata': {
                    'Training Data': DATA[data],
                    'Architecture': [BACKBONES[backbone], head],
                },
            }
        )
    return yaml.safe_dump(dict(Collections=[collection], Models=models), sort_keys=False)


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing, compare')
    args = parser.parse_args()
    configs = sorted(ROOT.glob('*.py'))
    stale = []
    for name, text in (('README.md', readme(configs)), ('metafile.yml', metafile(configs))):
        path = ROOT / name
        if path.is_file() and path.read_text(encoding='utf-8') == text:
            continue
        stale.append(name)
        if not args.check:
            path.write_text(text, encoding='utf-8')
    if args.check and stale:
        print(f'Not up to date: {", ".join(stale)}. Run `python tools/list_configs.py`.')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
