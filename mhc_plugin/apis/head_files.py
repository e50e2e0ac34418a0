"""The file of one class's head: safetensors, and what is needed to understand it alone."""

import hashlib
import json
import os
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
        """Write the file ``<class>.safetensors``, equal bytes for equal contents."""
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
            part.write(content)
        os.chmod(part.name, 0o644)
        os.replace(part.name, path)
        return path


def file_name(class_name: str) -> str:
    """The name of a class's file: the class, what no file system takes written as %XX."""
    return quote(class_name, safe=' ()+,-=[]') + SUFFIX


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
    try:
        meta = json.loads(text)
        version, digest = meta.pop('format'), meta.pop('sha256')
        if version != FORMAT:
            raise ValueError(
                f'{path} is of format {version!r}, and this version reads {FORMAT}. Extract it '
                'anew.'
            )
        head = HeadFile(**meta, tensors=tensors)
        sound = (
            all(isinstance(x, str) for x in (head.class_name, head.backbone, head.preprocessing))
            and isinstance(head.head, dict)
            and isinstance(head.scores, dict)
            and digest == _digest(dict(meta, format=version), tensors)
        )
    except (AttributeError, KeyError, RecursionError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f'{path} is damaged: what it says of itself cannot be read.') from error
    if not sound:
        raise ValueError(f'{path} is damaged: its content is not what it was written with.')
    return head


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
