"""Files of heads, one per class, and folders of them with a card.

A file is of safetensors, and says what is needed to understand it alone.
"""

import hashlib
import json
import math
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mhc_plugin.utils.tensor_hash import hash_tensors

FORMAT = 1
SUFFIX = '.safetensors'
KEY = 'mhc_plugin'
CARD = 'README.md'
CARD_TEXT = """---
license: {license}
library_name: mhc_plugin
pipeline_tag: image-classification
tags:
- multi-label-classification
---
# Heads of {number} classes

One file per class: a head of `{kind}` on a frozen backbone. Each was trained on its own class's
labels and can be used, added and removed by itself.

| class | file | scores | threshold | training data |
| --- | --- | --- | --- | --- |
{rows}

- Backbone: weights with SHA-256 `{backbone}`
- Preprocessing: SHA-256 `{preprocessing}`

To make a checkpoint of all heads in this folder, or of some of its files:

```
python tools/heads.py assemble CONFIG OUT.pth FOLDER
```

In Python, `mhc_plugin.apis.load_heads(CONFIG, [FOLDER])` gives the model. CONFIG is the config that
the heads were trained with; a file that does not fit it is refused.
"""


@dataclass(frozen=True)
class HeadFile:
    """One class's head, as its file holds it.

    Attributes:
        class_name (str): The class.
        head (dict): Type and arguments of the head, and what of the features it reads.
        backbone (str): SHA-256 of the backbone's weights.
        preprocessing (str): SHA-256 of what is done to images before the backbone.
        threshold (float, optional): The score from which on the class is predicted.
        scores (dict[str, float]): What it scored, by name.
        training_data (str, optional): SHA-256 of the training images and this class's labels.
        tensors (dict[str, Tensor]): Its parameters and statistics.
    """

    class_name: str
    head: dict
    backbone: str
    preprocessing: str
    threshold: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    training_data: str | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def meta(self) -> dict[str, Any]:
        """Everything but the tensors."""
        return {name: value for name, value in vars(self).items() if name != 'tensors'}

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the file ``<class>.safetensors``, equal bytes for equal contents.

        Raises:
            ValueError: If the file could not be read again, for the name of the class, say.
        """
        if not _fits(self):
            raise ValueError(f'No file can hold what is said of this head: {self.meta()}.')
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        meta = dict(self.meta(), format=FORMAT)
        meta['sha256'] = _digest(meta, self.tensors)
        tensors = {name: x.detach().cpu().contiguous() for name, x in self.tensors.items()}
        # One entry: safetensors keeps several in no order.
        content = save(tensors, {KEY: json.dumps(meta, sort_keys=True)})
        path = folder / file_name(self.class_name)
        # Beside it and renamed, so that no other process reads half a file.
        with tempfile.NamedTemporaryFile(dir=folder, suffix='.part', delete=False) as part:
            try:
                part.write(content)
                part.flush()
                os.chmod(part.name, 0o644)
                os.replace(part.name, path)
            except BaseException:
                os.unlink(part.name)
                raise
        return path


def file_name(class_name: str) -> str:
    """The name of a class's file: the class, what no file system takes written as %XX.

    Of a long one the beginning and a hash; the file says the whole of it.
    """
    name = quote(class_name, safe=' ()+,-=[]')
    if len(name) > 200:
        name = f'{name[:180]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'
    return name + SUFFIX


def read_head(path: str | os.PathLike) -> HeadFile:
    """Read a head's file; nothing in it is ever run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or no file of a head.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no file {path}.')
    try:
        with safe_open(path, 'pt') as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(f'{path} is no file of safetensors, or damaged ({error}).') from error
    if text is None:
        raise ValueError(f'{path} is no file of a head: it does not say of which class.')
    damaged = ValueError(f'{path} is damaged: what it says of itself cannot be read.')
    try:
        meta = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise damaged from error
    try:
        version, digest = meta.pop('format'), meta.pop('sha256')
        if version != FORMAT:
            raise ValueError(
                f'{path} is of format {version!r}, and this version reads {FORMAT}. Extract it '
                'anew.'
            )
        head = HeadFile(**meta, tensors=tensors)
        sound = _fits(head) and digest == _digest(dict(meta, format=version), tensors)
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise damaged from error
    if not sound:
        raise ValueError(f'{path} is damaged: its content is not what it was written with.')
    return head


def _fits(head: HeadFile) -> bool:
    """Whether what a file says is of the types that are worked with and shown."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and math.isfinite(value)

    return (
        isinstance(head.class_name, str)
        and head.class_name.isprintable()
        and isinstance(head.head, dict)
        and all(
            isinstance(value, str) and re.fullmatch('[0-9a-f]{64}', value)
            for value in (head.backbone, head.preprocessing, head.training_data or '0' * 64)
        )
        and (head.threshold is None or is_number(head.threshold))
        and isinstance(head.scores, dict)
        and all(name.isprintable() and is_number(x) for name, x in head.scores.items())
    )


def _digest(meta: dict, tensors: dict[str, Tensor]) -> str:
    text = json.dumps(meta, sort_keys=True) + hash_tensors(tensors.items())
    return hashlib.sha256(text.encode()).hexdigest()


def compare_heads(a: str | os.PathLike, b: str | os.PathLike) -> list[str]:
    """Say in sentences what differs between two files; none if they say and do the same."""
    one, other = read_head(a), read_head(b)
    differences = []
    for name, value in one.meta().items():
        if value != other.meta()[name]:
            differences.append(f'{name}: {value!r} and {other.meta()[name]!r}')
    for name in sorted({*one.tensors, *other.tensors}):
        x, y = one.tensors.get(name), other.tensors.get(name)
        if x is None or y is None:
            differences.append(f'{name}: in {"the second" if x is None else "the first"} only')
        elif x.shape != y.shape or x.dtype != y.dtype:
            differences.append(f'{name}: {tuple(x.shape)} {x.dtype}, {tuple(y.shape)} {y.dtype}')
        elif not torch.equal(x, y):
            largest = (x.double() - y.double()).abs().max().item()
            differences.append(f'{name}: differs by up to {largest:.3g}')
    return differences


# ---- a folder


def head_paths(folder: str | os.PathLike) -> list[Path]:
    """The files of heads in a folder, by name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder {folder}.')
    return sorted(folder.glob('*' + SUFFIX))


def write_card(folder: str | os.PathLike, license: str | None = None) -> Path:
    """Write ``README.md`` beside the files, in the form that model hubs read.

    Args:
        folder (str | PathLike): The folder of files.
        license (str, optional): By default what the card says already, or ``unknown``.
    """
    path = Path(folder) / CARD
    said = re.search(r'^license: (.*)$', path.read_text(), re.M) if path.is_file() else None
    paths = head_paths(folder)
    heads = [read_head(file) for file in paths]
    rows = [
        f'| {_in_a_cell(head.class_name)} | `{_in_a_cell(file.name)}` | '
        + (', '.join(f'{name} {value:.2f}' for name, value in sorted(head.scores.items())) or '-')
        + f' | {"-" if head.threshold is None else f"{head.threshold:.3f}"} | '
        + f'`{(head.training_data or "-")[:12]}` |'
        for file, head in zip(paths, heads)
    ]
    text = CARD_TEXT.format(
        license=license or (said.group(1) if said else 'unknown'),
        number=len(heads),
        rows='\n'.join(rows),
        kind=' and '.join(sorted({head.head.get('type', '?') for head in heads})) or '-',
        backbone=' and '.join(sorted({head.backbone for head in heads})) or '-',
        preprocessing=' and '.join(sorted({head.preprocessing for head in heads})) or '-',
    )
    path.write_text(text)
    return path


def _in_a_cell(text: str) -> str:
    return text.replace('|', '\\|')


def remove_head(folder: str | os.PathLike, class_name: str) -> Path:
    """Delete a class's file and write the card anew; the other files are not touched.

    Raises:
        FileNotFoundError: If the class has no file.
    """
    paths = {read_head(path).class_name: path for path in head_paths(folder)}
    if class_name not in paths:
        raise FileNotFoundError(f'There is no head of {class_name!r} in {folder}.')
    paths[class_name].unlink()
    write_card(folder)
    return paths[class_name]
