"""Checkpoints in a folder: the newest that can be read, and what is wrong with newer ones."""

import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from mmengine.runner.checkpoint import _load_checkpoint

_NAME = re.compile(r'(?:epoch|iter)_(\d+)\.pth')
_OBJECT = re.compile(r'GLOBAL (\S+)')
# What MMEngine resumes from.
RESUMABLE = ('meta', 'state_dict', 'message_hub')


def newest_readable(work_dir: Path) -> tuple[Path | None, list[str]]:
    """Find the newest checkpoint of a training that can be read whole.

    A run that is killed while it writes leaves a damaged file, to which ``last_checkpoint`` may
    point, since ``CheckpointHook`` writes the same file twice when a score is the best so far.
    Where ``last_checkpoint`` points into another folder, as in a copy of a work dir, that folder
    counts only if this one has no checkpoint of its own.

    Args:
        work_dir (Path): Folder of the training.

    Returns:
        tuple[Path | None, list[str]]: The checkpoint, None if there are none; and sentences about
        newer ones that are damaged, and about another folder.

    Raises:
        ValueError: If there are checkpoints, but none can be read.
    """
    work_dir = work_dir.resolve()
    pointer = work_dir / 'last_checkpoint'
    last = Path(pointer.read_text().strip()).resolve() if pointer.is_file() else None
    notes = []
    found = _checkpoints_in(work_dir, last)
    if not found and last is not None:
        found = _checkpoints_in(last.parent, last)
        notes = [
            f'{work_dir} has no checkpoint of its own; its `last_checkpoint` points to '
            f'{last.parent}, whose newest is resumed.'
        ] * bool(found)
    damaged = []
    for path in found:
        problem = what_is_wrong(path, RESUMABLE)
        if problem is None:
            notes += [f'Cannot resume from {text}. Falling back to {path}.' for text in damaged]
            return path, notes
        damaged.append(f'{path}: {problem}')
    if damaged:
        raise ValueError(
            'None of the checkpoints can be read: ' + '; '.join(damaged) + '. Delete '
            'them to start anew, or name another one.'
        )
    return None, []


def check_readable(checkpoint: Path, needs: Sequence[str] = ()) -> None:
    """Raise, with the file's name and one reason, where a checkpoint is none.

    Args:
        checkpoint (Path): A file.
        needs (Sequence[str]): What it has to hold. Defaults to nothing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or lacks something.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f'There is no checkpoint {checkpoint}.')
    problem = what_is_wrong(checkpoint, needs)
    if problem is not None:
        raise ValueError(f'Checkpoint {checkpoint} cannot be used: {problem}.')


def what_is_wrong(path: Path, needs: Sequence[str] = ()) -> str | None:
    """Read a checkpoint and say why it is none, or what it lacks; None if it is one."""
    try:
        if zipfile.is_zipfile(path):
            # torch does not compare checksums.
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
            if bad is not None:
                return f'the checksum of {bad} is wrong'
        checkpoint = _load_checkpoint(str(path), map_location='cpu', logger='silent')
    except pickle.UnpicklingError as error:
        if match := _OBJECT.search(str(error)):
            return f'it holds `{match[1]}`, which is no weight, and loading it could run any code'
        return 'it is no file that torch.save has written'
    except Exception as error:
        first_line = str(error).partition('\n')[0]
        return f'reading it failed with "{type(error).__name__}: {first_line}"'
    if not isinstance(checkpoint, dict):
        return f'it holds a {type(checkpoint).__name__}, and no weights by name'
    missing = sorted({*needs} - {*checkpoint})
    return f'it holds no {", ".join(missing)}' if missing else None


def _checkpoints_in(folder: Path, last: Path | None) -> list[Path]:
    """Checkpoints of a folder, newest first."""
    numbered = {
        path: int(match.group(1))
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _NAME.fullmatch(path.name))
    }
    paths = sorted(numbered, key=lambda path: numbered[path], reverse=True)
    if last is not None and last.parent == folder and last.is_file() and last not in numbered:
        # A name of the config's own making: nothing is known of others.
        paths.insert(0, last)
    return paths
