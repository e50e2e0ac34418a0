"""Checkpoints in a folder: the newest that can be read, and what is wrong with newer ones."""

import re
import zipfile
from pathlib import Path

from mmengine.runner.checkpoint import _load_checkpoint

_NAME = re.compile(r'(?:epoch|iter)_(\d+)\.pth')


def newest_readable(work_dir: Path) -> tuple[Path | None, list[str]]:
    """Find the newest checkpoint of a training that can be read whole.

    A run that is killed while it writes leaves a damaged file, to which ``last_checkpoint`` may
    point, since ``CheckpointHook`` writes the same file twice when a score is the best so far.

    Args:
        work_dir (Path): Folder of the training.

    Returns:
        tuple[Path | None, list[str]]: The checkpoint, None if there are none; and for every
        newer one that is damaged what is wrong with it.

    Raises:
        ValueError: If there are checkpoints, but none can be read.
    """
    damaged = []
    for path in _candidates(work_dir):
        problem = what_is_wrong(path)
        if problem is None:
            return path, damaged
        damaged.append(f'{path}: {problem}')
    if damaged:
        raise ValueError(
            'None of the checkpoints can be read: ' + '; '.join(damaged) + '. Delete '
            'them to start anew, or name another one.'
        )
    return None, damaged


def what_is_wrong(path: Path) -> str | None:
    """Read a checkpoint and say why it cannot be resumed from; None if it can."""
    try:
        if zipfile.is_zipfile(path):
            # torch does not compare checksums.
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
            if bad is not None:
                return f'the checksum of {bad} is wrong'
        checkpoint = _load_checkpoint(str(path), map_location='cpu')
    except Exception as error:
        first_line = str(error).partition('\n')[0]
        return f'reading it failed with "{type(error).__name__}: {first_line}"'
    missing = {'meta', 'state_dict', 'message_hub'} - set(checkpoint)
    return f'it holds no {", ".join(sorted(missing))}' if missing else None


def _candidates(work_dir: Path) -> list[Path]:
    """Checkpoints, newest first: where ``last_checkpoint`` points to, and its neighbours."""
    work_dir = work_dir.resolve()
    folders = {work_dir}
    pointer = work_dir / 'last_checkpoint'
    last = Path(pointer.read_text().strip()).resolve() if pointer.is_file() else None
    if last is not None:
        folders.add(last.parent)
    numbered = {
        path: int(match.group(1))
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if (match := _NAME.fullmatch(path.name))
    }
    paths = sorted(numbered, key=lambda path: numbered[path], reverse=True)
    if last is not None and last.is_file() and last not in numbered:
        # A name of the config's own making: nothing is known of others.
        paths.insert(0, last)
    return paths
