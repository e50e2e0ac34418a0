"""What the command lines of the tools share."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from mmengine.config import DictAction

from .errors import in_one_sentence


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings that override the config, as key=value; a list as key="[a,b]" or key=a,b, '
        'nested as key="[(a,b),(c,d)]", quoted and without spaces',
    )
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='do not pin memory in data loaders'
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes',
    )
    parser.add_argument(
        '--verbose',
        action='store_true',
        help="MMEngine's own log on the screen, too: environment, config, hooks",
    )
    parser.add_argument('--traceback', action='store_true', help='show where an error was raised')
    # Set by `torch.distributed.launch`; torchrun sets the variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, and set ``LOCAL_RANK`` where the launcher has not."""
    args = parser.parse_args()
    # A subcommand that runs no model has no such argument.
    if 'local_rank' in args:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@contextmanager
def one_sentence_errors(show_traceback: bool = False) -> Iterator[None]:
    """End the program with one sentence and exit code 1 where an exception would end it.

    Args:
        show_traceback (bool): Let the exception through. Defaults to False.

    Raises:
        SystemExit: With code 1 after an error, and 130 after an interrupt from the keyboard.
    """
    try:
        yield
    except KeyboardInterrupt:
        print('Interrupted; `--resume` goes on from the last checkpoint.', file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if show_traceback:
            raise
        rank = f' (process {dist.get_rank()})' if dist.is_initialized() else ''
        print(f'Error{rank}: {in_one_sentence(error)}', file=sys.stderr)
        print('(--traceback shows where it was raised.)', file=sys.stderr)
        sys.exit(1)
    if dist.is_initialized():
        dist.barrier()
        # Before torch 2.8 a group that is destroyed keeps the GIL while it waits for its threads,
        # one of which may need it to let go of its last tensor (pytorch/pytorch#154976).
        time.sleep(0.1)
        dist.destroy_process_group()
