"""Run in two processes: train a head with batch norm and an average, and test checkpoints.

Arguments: a folder to work in, and a checkpoint of ``tiny.py`` to test. Writes ``scores.json``.
"""

import json
import sys
from pathlib import Path

from mmengine.dist import is_main_process

from mhc_plugin import apis

TINY = Path(__file__).with_name('tiny.py')
BATCH_NORM = {
    'model.head': dict(
        _delete_=True, type='ConvMultiHeadClsHead', num_classes=10, in_channels=16, conv_channels=4
    ),
    'custom_hooks': [dict(type='EMAHook', momentum=0.2)],
}


def main() -> None:
    folder, checkpoint = Path(sys.argv[1]), sys.argv[2]
    scores = {}
    cfg = apis.load_config(TINY, dict(BATCH_NORM, experiment_name='train'))
    result = apis.train(cfg, work_dir=folder / 'batch_norm', launcher='pytorch')
    scores['in_training'] = result.metrics
    cfg.experiment_name = 'test_of_training'
    scores['of_checkpoint'] = apis.test(
        cfg, folder / 'batch_norm' / 'epoch_3.pth', work_dir=folder, launcher='pytorch'
    )
    cfg = apis.load_config(TINY, dict(experiment_name='test'))
    scores['of_given'] = apis.test(cfg, checkpoint, work_dir=folder, launcher='pytorch')
    if is_main_process():
        (folder / 'scores.json').write_text(json.dumps(scores))


if __name__ == '__main__':
    main()
