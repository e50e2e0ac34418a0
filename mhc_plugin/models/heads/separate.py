"""Heads that are trained to the same bits in any company.

What a matrix product, a batch norm or a vectorised function gives for one class depends, in its
last bits, on how many classes lie beside it in memory. So in training on a CPU the heads are run in
blocks: all tensors of a block have one shape, whatever the other classes are, and lie in memory of
their own. First weights and dropout are drawn from seeds of each head's own.
"""

import copy
import hashlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from mmengine.model import initialize
from torch import Tensor, nn

from mhc_plugin.utils.seeding import sample_seed, seeded

if TYPE_CHECKING:
    from .base import BaseMultiHeadClsHead


# Arguments of a head that say nothing of what one class's head computes from what it reads.
JOINT = {
    'self',
    'num_classes',
    'in_channels',
    'connection',
    'head_stages',
    'head_groups',
    'separate',
    'loss',
    'thr',
    'topk',
    'init_cfg',
}


def heads_like(head: 'BaseMultiHeadClsHead', index: int, num_heads: int) -> 'BaseMultiHeadClsHead':
    """Heads, newly drawn, that read what one of a head's heads reads, of a class each."""
    feeds = head.feeds.heads[index]
    own = {
        name: getattr(head, name)
        for name in inspect.signature(type(head).__init__).parameters
        if name not in JOINT
    }
    return type(head)(
        num_classes=num_heads,
        in_channels=[len(channels) for _, channels in feeds],
        connection='stages',
        head_stages=[list(range(len(feeds)))] * num_heads,
        **own,
    )


# ---- random numbers


def name_seed(name: str) -> int:
    """A seed of 64 bits that follows from a class's name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big')


def draw_heads(
    head: 'BaseMultiHeadClsHead', entropy: Sequence[tuple[int, ...]], init_cfg: list[dict]
) -> None:
    """Draw the first weights of every head from random numbers of its own.

    Args:
        head (BaseMultiHeadClsHead): Changed in place.
        entropy (Sequence[tuple[int]]): For every head what its draw depends on.
        init_cfg (list[dict]): MMEngine's initialisation of single heads.

    Raises:
        TypeError: If a head draws anything but in ``reset_parameters`` of its layers.
    """
    _check_is_redrawn(head)
    for heads, positions in _readers(head).values():
        # To build a head takes much longer than to draw it.
        with seeded(*entropy[heads[0]]):
            single = heads_like(head, heads[0], 1)
        drawn = {
            like: _Stacked(head, name, heads, positions, like, 1)
            for name, like in single.state_dict(keep_vars=True).items()
        }
        for number, index in enumerate(heads):
            with seeded(*entropy[index]):
                redraw(single)
                if init_cfg:
                    initialize(single.head_view(0), init_cfg)
            for like, stacked in drawn.items():
                stacked.put(like, number)


def redraw(head: nn.Module) -> None:
    """Draw the layers of a head anew, in the order of its modules."""
    for layer in head.modules():
        if hasattr(layer, 'reset_parameters'):
            layer.reset_parameters()


def _check_is_redrawn(head: 'BaseMultiHeadClsHead') -> None:
    singles = []
    for seed in (0, 1):
        with seeded(seed):
            singles.append(heads_like(head, 0, 1))
    first, begun = (copy.deepcopy(single.state_dict()) for single in singles)
    with seeded(0):
        redraw(singles[1])
    for name, tensor in singles[1].state_dict().items():
        if torch.equal(tensor, begun[name]) and not torch.equal(tensor, first[name]):
            raise TypeError(
                f'Expected `{type(head).__name__}` to draw `{name}` in `reset_parameters` of a '
                'layer, by which every class gets weights of its own, but it is drawn elsewhere.'
            )


def _readers(head: 'BaseMultiHeadClsHead') -> dict[tuple, tuple[list[int], list[int]]]:
    """For all that heads read, the heads that read it, and where it is among the features."""
    members = {}
    for index, feeds in enumerate(head.feeds.heads):
        positions = [head.stages.index(stage) for stage, _ in feeds]
        members.setdefault(feeds, ([], positions))[0].append(index)
    return members


class Dropout:
    """Dropout that draws for every part of its input by itself.

    Args:
        share (float): Share of the channels that is set to 0.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        # For every part what its draws depend on; None for those of torch.
        self.entropy: list[tuple[int, ...]] | None = None
        self.generators: list[torch.Generator] = []

    def __getstate__(self) -> dict:
        # Generators are not copied everywhere.
        return dict(vars(self), generators=[])

    def seed(self, entropy: list[tuple[int, ...]]) -> None:
        """Begin anew, with random numbers of its own for every part."""
        self.entropy, self.generators = entropy, []

    def part(self, places: Sequence[int], size: int, device: torch.device) -> 'Dropout':
        """Dropout of some parts, filled up to so many, which goes on where this one has got to."""
        part = Dropout(self.share)
        if self.entropy is not None:
            self._start(device)
            part.entropy = self.entropy
            part.generators = [self.generators[place] for place in places]
            part.generators += [torch.Generator(device) for _ in range(size - len(places))]
        return part

    def __call__(
        self, x: Tensor, places: Sequence[int] | None = None, inplace: bool = False
    ) -> Tensor:
        """Set channels to 0 and make the others larger.

        Args:
            x (Tensor): ``(N, parts * width)``, or maps ``(N, parts * width, h, w)``.
            places (Sequence[int], optional): Its parts. Defaults to all.
            inplace (bool): Whether to write into ``x``.
        """
        if self.share == 0:
            return x
        if self.entropy is None:
            return (F.dropout if x.dim() == 2 else F.dropout2d)(x, self.share, inplace=inplace)
        self._start(x.device)
        generators = self.generators if places is None else [self.generators[p] for p in places]
        keep = x.new_empty(len(generators), len(x), x.shape[1] // len(generators))
        for part, generator in zip(keep, generators):
            part.bernoulli_(1 - self.share, generator=generator).div_(1 - self.share)
        keep = keep.transpose(0, 1).flatten(1)
        keep = keep if x.dim() == 2 else keep[..., None, None]
        return x.mul_(keep) if inplace else x * keep

    def _start(self, device: torch.device) -> None:
        if not self.generators:
            self.generators = [
                torch.Generator(device).manual_seed(sample_seed(*own)) for own in self.entropy
            ]


# ---- blocks


class _Block:
    """Heads that read the same and are run in one go, without tensors of their own.

    Args:
        head (BaseMultiHeadClsHead): As many heads as are run at a time.
    """

    def __init__(self, head: 'BaseMultiHeadClsHead') -> None:
        self.head = head.train()
        self.like = head.state_dict(keep_vars=True)
        self.places = []
        for name in self.like:
            path, _, attribute = name.rpartition('.')
            module = head.get_submodule(path)
            module._parameters.pop(attribute, None)
            module._buffers.pop(attribute, None)
            self.places.append((module, attribute))

    def score(self, feats: list[Tensor], tensors: Sequence[Tensor]) -> Tensor:
        """Logits with these tensors, in the order of ``like``; buffers among them are followed."""
        # A tenth of what `torch.func.functional_call` takes.
        for (module, name), tensor in zip(self.places, tensors):
            vars(module)[name] = tensor
        try:
            return self.head.score(feats)[0]
        finally:
            for module, name in self.places:
                vars(module)[name] = None


class Blocks:
    """A head, run in blocks of its heads.

    Args:
        head (BaseMultiHeadClsHead): With one class per head.
        size (int): Heads per block; a block of fewer is filled up with heads of zeros.
    """

    def __init__(self, head: 'BaseMultiHeadClsHead', size: int) -> None:
        self.size = size
        self.members = list(_readers(head).values())
        self.blocks = [_Block(heads_like(head, heads[0], size)) for heads, _ in self.members]
        order = [index for heads, _ in self.members for index in heads]
        self.order = None if order == sorted(order) else torch.tensor(order).argsort()

    def score(self, head: 'BaseMultiHeadClsHead', feats: list[Tensor]) -> Tensor:
        """What ``head.score(feats)`` gives, ``(N, num_heads)``; running statistics are followed."""
        groups = []
        for (heads, positions), block in zip(self.members, self.blocks):
            stacked = [
                _Stacked(head, name, heads, positions, like, self.size)
                for name, like in block.like.items()
            ]
            groups.append((heads, block, [feats[position] for position in positions], stacked))
        scores = []
        for heads, block, inputs, stacked in groups:
            for start in range(0, len(heads), self.size):
                chosen = heads[start : start + self.size]
                block.head.drop = head.own_draws.part(chosen, self.size, inputs[0].device)
                parts = [tensor.part(start) for tensor in stacked]
                out = block.score(inputs, parts)
                if out.requires_grad:
                    # The gradient of what is put together is a part of something larger.
                    out.register_hook(Tensor.contiguous)
                scores.append(out[:, : len(chosen)])
                for tensor, part in zip(stacked, parts):
                    tensor.take_over(part, start)
        scores = torch.cat(scores, 1)
        return scores if self.order is None else scores.index_select(1, self.order)


class _Stacked:
    """A stacked parameter or buffer, of which blocks are given their parts.

    Args:
        head (BaseMultiHeadClsHead): Whose it is.
        name (str): What it is called in the block.
        heads (list[int]): Those that read the same.
        positions (list[int]): The features that these read.
        like (Tensor): The block's own.
        size (int): Heads per block.
    """

    def __init__(
        self,
        head: 'BaseMultiHeadClsHead',
        name: str,
        heads: list[int],
        positions: list[int],
        like: Tensor,
        size: int,
    ) -> None:
        words, readers = name.split('.'), list(range(head.num_heads))
        if words[0] in head.per_stage:
            position = positions[int(words[1])]
            words[1] = str(position)
            readers = list(head.feeds.readers(head.stages[position]))
        self.whole = getattr(head.get_submodule('.'.join(words[:-1])), words[-1])
        self.is_parameter = isinstance(like, nn.Parameter)
        self.size = size
        if self.whole.dim() == 0:
            # Counts the batches of all blocks alike.
            self.count = self.whole.clone()
            return
        self.num_readers = len(readers)
        place_of = {reader: i for i, reader in enumerate(readers)}
        self.places = [place_of[index] for index in heads]
        self.width = width = len(like) // size
        rows = self.whole
        if self.places != list(range(len(readers))) or rows.shape[1:] != like.shape[1:]:
            # Others read other features. Where they are wider, what fills these up is left out.
            rows = rows.unflatten(0, (len(readers), -1))[self.places, :width].flatten(0, 1)
            for axis, length in enumerate(like.shape[1:], 1):
                rows = rows.narrow(axis, 0, length)
        self.parts = rows.split(size * width)

    def part(self, start: int) -> Tensor:
        """That of a block, in memory of its own: libraries choose their way by alignment, too."""
        if self.whole.dim() == 0:
            return self.count.clone()
        part = self.parts[start // self.size]
        missing = self.size * self.width - len(part)
        if missing:
            part = F.pad(part, (0, 0) * (part.dim() - 1) + (0, missing))
        return part.clone(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def take_over(self, part: Tensor, start: int) -> None:
        """What has become of a block's buffer."""
        if self.is_parameter:
            return
        if self.whole.dim() == 0:
            self.whole.data.copy_(part)
            return
        places = self.places[start : start + self.size]
        # Through `data`, as a norm itself does it: autograd does not count it as a change.
        rows = self.whole.data.unflatten(0, (-1, self.width))
        rows[places] = part.unflatten(0, (self.size, -1))[: len(places)]

    def put(self, drawn: Tensor, number: int) -> None:
        """Take over the first values of one of the heads."""
        own = self.whole.data
        if own.dim():
            own = own.unflatten(0, (self.num_readers, -1))[self.places[number]]
        for axis, length in enumerate(drawn.shape):
            own = own.narrow(axis, 0, length)
        own.copy_(drawn.data)
