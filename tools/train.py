"""Train a model. Options are those of MMPretrain's own tool, and a few more."""

import argparse

from mhc_plugin.apis import load_config, train
from mhc_plugin.apis.caching import add_cache_arguments, cache_options
from mhc_plugin.cli.arguments import add_common_arguments, one_sentence_errors, parse_args


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False, description='Train a model')
    parser.add_argument(
        'config', help='a file, mhc_plugin::mhc/<name>.py, or the name of a config of mhc_plugin'
    )
    parser.add_argument('--work-dir', help='folder of logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or from the newest readable one of the work dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: float16 on CUDA, bfloat16 on CPU'
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='do not validate during training'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the total batch size over auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='start the workers of data loaders anew in every epoch',
    )
    parser.add_argument(
        '--backbone-weights',
        metavar='PATH|none',
        help='a checkpoint of the backbone, or of a model that has it, in the place of the '
        'published weights; `none` for random weights',
    )
    parser.add_argument('--seed', type=int, help="seed in the place of the config's")
    parser.add_argument(
        '--small-checkpoints',
        action='store_true',
        help='save only what is trained, and the name of the backbone',
    )
    parser.add_argument(
        '--classes', nargs='+', metavar='CLASS', help='train the heads of these classes alone'
    )
    parser.add_argument(
        '--optimum',
        nargs='?',
        const='cv',
        type=weight_decay,
        metavar='WEIGHT_DECAY',
        help='set linear heads to the optimum of their loss with this weight decay, on stored '
        'features and without a schedule; cv, the default, chooses it by cross-validation, '
        'cv-per-class one for every class',
    )
    add_cache_arguments(parser)
    add_common_arguments(parser)
    return parser


def weight_decay(text: str) -> float | str:
    return text if text.startswith('cv') else float(text)


def main() -> None:
    args = parse_args(build_parser())
    # It reads stored features always.
    args.cache_features = args.cache_features or args.optimum is not None
    with one_sentence_errors(args.traceback):
        train(
            load_config(args.config, args.cfg_options),
            work_dir=args.work_dir,
            resume=args.resume or False,
            amp=args.amp,
            no_validate=args.no_validate,
            auto_scale_lr=args.auto_scale_lr,
            pin_memory=not args.no_pin_memory,
            persistent_workers=not args.no_persistent_workers,
            launcher=args.launcher,
            seed=args.seed,
            backbone_weights=args.backbone_weights,
            feature_cache=cache_options(args),
            optimum=args.optimum,
            classes=args.classes,
            small_checkpoints=args.small_checkpoints,
            verbose=args.verbose,
        )


if __name__ == '__main__':
    main()
