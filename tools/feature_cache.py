"""Look after stored features: list, inspect, verify and remove them."""

import argparse
import sys
from importlib.util import find_spec, module_from_spec

from rich.console import Console

# Looking after files needs none of what these import and register, which takes seconds: they are
# made, so that what is in them is found, and not run.
for name in ('mhc_plugin', 'mhc_plugin.features', 'mhc_plugin.features.store'):
    if name not in sys.modules:
        sys.modules[name] = module_from_spec(find_spec(name))

from mhc_plugin.cli.stored_features import entries_table, entry_report, parse_size  # noqa: E402
from mhc_plugin.features.options import CacheOptions  # noqa: E402
from mhc_plugin.features.store.files import format_bytes  # noqa: E402
from mhc_plugin.features.store.store import EntryInUseError, FeatureStore  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    common.add_argument(
        '--cache-dir',
        default=CacheOptions.cache_dir,
        help='folder of features (default: %(default)s)',
    )
    common.add_argument('--traceback', action='store_true', help='show where an error was raised')
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=text, description=text, parents=[common], allow_abbrev=False
        )

    add('list', 'show all entries and their sizes')
    info = add('info', 'show what an entry was made from')
    info.add_argument('key', help='the key, or its beginning')
    verify = add(
        'verify',
        'read entries and compare them with their hashes; a run computes damaged chunks anew',
    )
    verify.add_argument('keys', nargs='*', metavar='key', help='all entries by default')
    remove = add('remove', 'remove entries')
    remove.add_argument('keys', nargs='+', metavar='key', help='a key, or its beginning')
    prune = add(
        'prune', 'remove entries that no run can share, and on request those unused for longest'
    )
    prune.add_argument('--max-size', help='remove the oldest until the rest is as small, as 20G')
    prune.add_argument('--unused-days', type=float, help='remove those not used for so many days')
    return parser


def main() -> None:
    args = build_parser().parse_args()
    try:
        sys.exit(run(args, FeatureStore(args.cache_dir)))
    except (OSError, ValueError, EntryInUseError) as error:
        if args.traceback:
            raise
        print(f'Error: {error}\n(--traceback shows where it was raised.)', file=sys.stderr)
        sys.exit(1)


def run(args: argparse.Namespace, store: FeatureStore) -> int:
    """Run a command and give the exit code."""
    if args.command == 'list':
        # A table takes the room that it needs, and nothing of it may be cut off.
        Console(width=1000).print(entries_table(store))
    elif args.command == 'info':
        print(entry_report(store.find(args.key)))
    elif args.command == 'verify':
        entries = [store.find(key) for key in args.keys] or store.entries()
        damaged = {entry.key: store.verify(entry) for entry in entries}
        for key, chunks in damaged.items():
            print(f'{key}: ' + (f'chunks {chunks} are missing or damaged' if chunks else 'whole'))
        return int(any(damaged.values()))
    elif args.command == 'remove':
        for entry in [store.find(key) for key in args.keys]:
            print(f'{entry.key}: removed, {format_bytes(store.remove(entry))}')
    else:
        max_bytes = None if args.max_size is None else parse_size(args.max_size)
        for entry in store.prune(max_bytes, args.unused_days):
            print(f'{entry.key}: removed')
        print(store.report())
    return 0


if __name__ == '__main__':
    main()
