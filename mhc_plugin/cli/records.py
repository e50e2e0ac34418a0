"""Records: one JSON file per run that a figure of README, docs or report stands on."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import mean, stdev
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

PACKAGE = Path(__file__).parents[1]
# Whatever a config may name comes from these, and a newer stack is met by the last.
REGISTERED = tuple(
    f'{PACKAGE.name}.{room}' for room in ('datasets', 'engine', 'evaluation', 'models', 'compat')
)
LIBRARIES = ('torch', 'torchvision', 'numpy', 'mmpretrain', 'mmengine', 'timm', 'scikit-learn')
# What every record has to say; `read_records` refuses one that leaves something out.
FIELDS = ('command', 'commit', 'code', 'versions', 'machine', 'date', 'seeds', 'data', 'seconds')


def source_hashes(package: Path = PACKAGE) -> dict[str, str]:
    """Hash of the source of every module of the package, by its name.

    Without ``cli``, which reads command lines and writes pages, and computes nothing of a record.
    """
    hashes = {}
    for path in sorted(package.rglob('*.py')):
        parts = path.relative_to(package).with_suffix('').parts
        if parts[0] != 'cli':
            name = '.'.join((PACKAGE.name, *parts)).removesuffix('.__init__')
            hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return hashes


def code_behind(module: str, sources: dict[str, str]) -> dict[str, str]:
    """Of the sources those that a module builds on, and what is registered for configs to name.

    Args:
        module (str): Its name; it has been imported.
        sources (dict[str, str]): Of :func:`source_hashes`.
    """
    found, ahead = set(), [module, *REGISTERED]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += _modules_used(sys.modules[name])
    return {name: sources[name] for name in sorted(found & sources.keys())}


def _modules_used(module: ModuleType) -> Iterator[str]:
    """Modules of this checkout from which a module takes something; not the package as a whole."""
    for value in vars(module).values():
        is_module = isinstance(value, ModuleType)
        name = value.__name__ if is_module else getattr(value, '__module__', None)
        used = sys.modules.get(name) if isinstance(name, str) and name != PACKAGE.name else None
        path = Path(getattr(used, '__file__', None) or '/')
        if PACKAGE.parent in path.parents and 'site-packages' not in path.parts:
            yield name


def data_hash(dataset: Dataset) -> str:
    """Hash of what a dataset holds: classes, and of every sample targets and the files it names.

    It reads every file once. Names of folders, the order of keys and the pipeline do not count.

    Args:
        dataset (Dataset): A dataset with ``metainfo`` and ``get_data_info``, as MMEngine's.
    """
    files = {}

    def content(value: Any) -> Any:
        if isinstance(value, str | os.PathLike) and os.path.isfile(value):
            key = os.fspath(value)
            if key not in files:
                files[key] = hashlib.sha256(Path(key).read_bytes()).hexdigest()
            return files[key]
        if isinstance(value, dict):
            return {key: content(value[key]) for key in sorted(value) if key != 'sample_idx'}
        if isinstance(value, list | tuple):
            return [content(item) for item in value]
        if isinstance(value, np.ndarray | torch.Tensor):
            array = np.ascontiguousarray(value)
            return [array.dtype.str, array.shape, hashlib.sha256(array).hexdigest()]
        return value if isinstance(value, int | float | str | bool | None) else repr(type(value))

    digest = hashlib.sha256(json.dumps(content(dataset.metainfo), default=str).encode())
    for i in range(len(dataset)):
        digest.update(json.dumps(content(dataset.get_data_info(i)), default=str).encode())
    return digest.hexdigest()[:16]


def files_hash(paths: Sequence[str | os.PathLike]) -> str:
    """Hash of the content of files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()[:16]


def summarise(runs: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation and values of every score over the runs of one model.

    Args:
        runs (Sequence[dict[str, float]]): The scores of each run, one per seed.

    Returns:
        dict[str, dict]: For every score ``mean``, ``std`` (None for one run) and ``values``.
    """
    summary = {}
    for name in {name: None for run in runs for name in run}:
        values = [run[name] for run in runs if name in run]
        spread = stdev(values) if len(values) > 1 else None
        summary[name] = dict(mean=mean(values), std=spread, values=values)
    return summary


def write_record(
    path: str | os.PathLike,
    scores: Any,
    *,
    seconds: float,
    seeds: Sequence[int] = (),
    data: str | None = None,
    begun_with: dict[str, Any] | None = None,
    module: str = '__main__',
) -> None:
    """Write what a tool measured, with what it takes to measure it again.

    Args:
        path (str | PathLike): The file, ``results/<name>.json``.
        scores (Any): What was measured: plain values, lists and dicts.
        seconds (float): How long it took.
        seeds (Sequence[int]): The seeds. Defaults to ().
        data (str, optional): Hash of the data, see :func:`data_hash`. Defaults to None: made data.
        begun_with (dict, optional): ``commit`` and ``code`` that measured, where it was not this
            process: see :func:`merged`. Defaults to None.
        module (str): What measured, by whose code a record is stale. Defaults to the program.
    """
    begun_with = begun_with or dict(commit=COMMIT, code=code_behind(module, SOURCES))
    gpu = f', {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ', no GPU'
    record = dict(
        command=_command(),
        **begun_with,
        versions=dict(python=platform.python_version(), **_versions()),
        machine=f'{platform.machine()}, {len(os.sched_getaffinity(0))} cores{gpu}',
        date=datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M'),
        seeds=list(seeds),
        data=data,
        seconds=round(seconds, 1),
        scores=scores,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: a run that is ended while it writes is begun again.
    part = path.with_suffix('.part')
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    part.replace(path)


def read_record(path: str | os.PathLike) -> dict[str, Any]:
    """Read a record; ``record['stale']`` says whether the code has changed since.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is no record, or does not say how it was made.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'The record {path} is missing: run the command that writes it.')
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        missing = [name for name in (*FIELDS, 'scores') if name not in record]
    except (ValueError, TypeError) as error:
        raise ValueError(f'Expected {path} to be a record in JSON: {error}.') from error
    if missing:
        raise ValueError(f'Expected the record {path} to have {", ".join(missing)}.')
    code, sources = record['code'], source_hashes()
    stale = not isinstance(code, dict) or any(sources.get(m) != own for m, own in code.items())
    return dict(record, name=path.stem, stale=stale)


def merged(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``commit`` and ``code`` of a record of records: all they have, which is stale if several."""
    codes: dict[str, set[str]] = {}
    for record in records:
        code = record['code'] if isinstance(record['code'], dict) else {'unknown': record['code']}
        for name, own in code.items():
            codes.setdefault(name, set()).add(own)
    return dict(
        commit=', '.join(sorted({str(record['commit']) for record in records})) or None,
        code={name: ', '.join(sorted(codes[name])) for name in sorted(codes)},
    )


def _command() -> str:
    folders = {os.path.abspath(os.environ.get('MHC_DATA_ROOT', 'data')): '"$MHC_DATA_ROOT"'}
    folders[str(PACKAGE.parent)] = '.'
    words = ['python']
    for word in sys.argv:
        for folder, name in folders.items():
            if word.startswith(folder + os.sep):
                words.append(f'{name}/{shlex.quote(word[len(folder) + 1 :])}'.removeprefix('./'))
                break
        else:
            # Folders of this machine say nothing to another.
            words.append(shlex.quote(os.path.basename(word) if os.path.isabs(word) else word))
    return ' '.join(words)


def _commit() -> str | None:
    """The commit of the checkout, with a + where the package differs from it; None without one."""

    def git(*words: str) -> str:
        return subprocess.run(
            ['git', '-C', PACKAGE, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git('status', '--porcelain', '--', '.')
        return git('rev-parse', '--short=10', 'HEAD') + ('+' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return None


def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        for package in (name, f'onedl-{name}'):
            try:
                versions[name] = metadata.version(package)
                break
            except metadata.PackageNotFoundError:
                continue
    return versions


# Of the code that runs, not of what a long run finds changed at its end.
COMMIT, SOURCES = _commit(), source_hashes()
