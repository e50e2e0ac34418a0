"""Whether heads are the same, to the bit, alone, in company and put together of files."""

import argparse
import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from rich.table import Table

from mhc_plugin.apis import assemble_heads, extract_heads, load_model, train

from .made_features import made_config
from .timing import print_table

STAGES = (24, 37)
HEADS = {
    'MultiFC': dict(type='MultiHeadClsHead'),
    'MultiFC, dropout': dict(type='MultiHeadClsHead', pool='lse', dropout=0.3),
    'MultiFC, stages': dict(type='MultiHeadClsHead', connection='stages', dropout=0.3),
    'MultiFC, hidden': dict(type='MultiHeadClsHead', hidden_channels=[7], dropout=0.3),
    'MultiConv': dict(type='ConvMultiHeadClsHead', conv_channels=6),
    'MultiConv, group norm': dict(
        type='ConvMultiHeadClsHead',
        norm_cfg=dict(type='GN', num_groups=4),
        act_cfg=dict(type='GELU'),
        pool='lse',
        dropout=0.3,
    ),
    'MultiConv, stages': dict(type='ConvMultiHeadClsHead', connection='stages', conv_channels=6),
    'MultiAtt': dict(type='AttentionMultiHeadClsHead'),
    'MultiAtt, stages': dict(type='AttentionMultiHeadClsHead', connection='stages'),
}
OPTIMIZERS = {
    'SGD': dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.01),
    'Nesterov': dict(type='SGD', lr=0.05, momentum=0.9, nesterov=True),
    'AdamW': dict(type='AdamW', lr=0.01, weight_decay=0.05),
    'RMSprop': dict(type='RMSprop', lr=0.001),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--draws', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0, help='of the first draw')
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--heads', nargs='+', choices=HEADS, default=list(HEADS))


def config_of(head: str, optimizer: str, seed: int, folder: Path) -> Config:
    """A short training on made features."""
    cfg = made_config('MultiHeadClsHead', STAGES, 5, 75, 2, str(folder), str(folder / 'cache'))
    kind = dict(HEADS[head], num_classes=10, in_channels=STAGES, separate=True)
    if kind.get('connection') == 'stages':
        draw = random.Random(seed)
        kind['head_stages'] = [draw.choice([[0], [1], [0, 1]]) for _ in range(10)]
    cfg.model.head = kind
    cfg.train_dataloader.batch_size = 33
    cfg.test_dataloader, cfg.test_cfg = cfg.train_dataloader, dict()
    cfg.test_evaluator = [dict(type='MultiLabelMeanAP')]
    cfg.optim_wrapper = dict(optimizer=OPTIMIZERS[optimizer])
    cfg.randomness = dict(seed=seed)
    torch.manual_seed(seed)
    torch.save(dict(state_dict=load_model(cfg, device='cpu').state_dict()), folder / 'backbone.pth')
    cfg.backbone_weights = str(folder / 'backbone.pth')
    return cfg


def trained(cfg: Config, classes: Sequence[str] | None, folder: Path) -> list[Path]:
    """The files of the heads of some classes, trained without the others."""
    # Runs of one name in one second would share their visualizer, and its folder.
    cfg.experiment_name = f'{folder.parent.name}-{folder.name}'
    result = train(cfg, work_dir=folder / 'run', classes=classes)
    # What was run, with these classes alone.
    return extract_heads(result.runner.cfg, result.checkpoint, folder / 'heads', scores={})


def hashes(files: Sequence[Path]) -> dict[str, str]:
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def main(args: argparse.Namespace) -> None:
    table = Table(title='Files of heads: alone, in company and put together')
    for column in ('head', 'draws', 'files compared', 'different'):
        table.add_column(column, justify='left' if column == 'head' else 'right')
    draws, compared, different = Counter(), Counter(), Counter()
    threads = torch.get_num_threads()
    for number in range(args.draws):
        seed = args.seed + number
        draw = random.Random(seed)
        head, optimizer = draw.choice(args.heads), draw.choice(list(OPTIMIZERS))
        names = [str(c) for c in range(10)]
        some = sorted(draw.sample(names, draw.randint(1, 9)))
        torch.set_num_threads(draw.choice(args.threads))
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            cfg = config_of(head, optimizer, seed, folder)
            runs = dict(
                together=None,
                some=some,
                others=[name for name in names if name not in some],
                alone=[draw.choice(names)],
            )
            files = {name: trained(cfg, own, folder / name) for name, own in runs.items()}
            out = assemble_heads(cfg, [*files['some'], *files['others']], folder / 'assembled.pth')
            files['assembled'] = extract_heads(cfg, out, folder / 'assembled', scores={})
            wanted = hashes(files.pop('together'))
            found = {kind: hashes(paths) for kind, paths in files.items()}
        bad = [
            f'{name} ({kind})'
            for kind, own in found.items()
            for name, digest in own.items()
            if digest != wanted[name]
        ]
        number_compared = sum(map(len, found.values()))
        print(
            f'{number + 1}: {head}, {optimizer}, classes {" ".join(some)}, '
            f'{torch.get_num_threads()} thread(s): {len(bad)} of {number_compared} files differ'
            + (f': {", ".join(bad)}' if bad else ''),
            flush=True,
        )
        draws[head] += 1
        compared[head] += number_compared
        different[head] += len(bad)
    torch.set_num_threads(threads)
    for head in draws:
        table.add_row(head, str(draws[head]), str(compared[head]), str(different[head]))
    total = (draws.total(), compared.total(), different.total())
    table.add_row('all', *map(str, total), end_section=True)
    print_table(table)
