"""Which stages and channels feed which head, and the checks of what a user asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

from torch import Tensor

from ..layers import POOLS

CONNECTIONS = ('all', 'channels', 'stages')


def check_arguments(
    num_classes: int, pool: str, lse_r: float, dropout: float, thr: float | None, topk: int | None
) -> None:
    """Raise ValueError for the first argument that does not fit."""
    if not isinstance(num_classes, Integral) or num_classes < 1:
        raise ValueError(
            f'Expected argument `num_classes` to be an int of at least 1, but got {num_classes!r}.'
        )
    if pool not in POOLS:
        raise ValueError(f'Expected argument `pool` to be one of {POOLS}, but got {pool!r}.')
    if not lse_r > 0:
        raise ValueError(f'Expected argument `lse_r` to be above 0, but got {lse_r!r}.')
    if not 0 <= dropout < 1:
        raise ValueError(f'Expected argument `dropout` to be in [0, 1), but got {dropout!r}.')
    if thr is not None and not 0 <= thr <= 1:
        raise ValueError(f'Expected argument `thr` to be in [0, 1], but got {thr!r}.')
    if topk is not None and not 1 <= topk <= num_classes:
        raise ValueError(
            f'Expected argument `topk` to be in 1..{num_classes} (`num_classes`), but got {topk!r}.'
        )


def make_groups(
    num_classes: int, head_groups: Sequence[Sequence[int]] | None
) -> tuple[list[int], ...]:
    """Give the classes of every head, by default one class each.

    Raises:
        ValueError: If a group is empty or a class is missing, repeated or unknown.
    """
    if head_groups is None:
        return tuple([c] for c in range(num_classes))
    groups = tuple([int(c) for c in group] for group in head_groups)
    if any(not group for group in groups):
        raise ValueError(
            f'Expected argument `head_groups` to have no empty group, but got {list(groups)}.'
        )
    given = [c for group in groups for c in group]
    unknown = sorted({c for c in given if not 0 <= c < num_classes})
    repeated = sorted({c for c in given if given.count(c) > 1})
    missing = sorted(set(range(num_classes)) - set(given))
    for problem, classes in (('unknown', unknown), ('repeated', repeated), ('missing', missing)):
        if classes:
            raise ValueError(
                f'Expected argument `head_groups` to name every class of '
                f'0..{num_classes - 1} once, but {problem}: {classes}.'
            )
    return groups


@dataclass(frozen=True)
class Connection:
    """What of the tuple of features every head reads.

    Attributes:
        heads: For every head the (stage, channels) pairs that feed it, by ascending stage. Stage -1
            is the last feature.
        stages: The stages in use, ascending.
        channels: The number of channels of every stage in use.
        num_features: How many features the tuple has to have; None if any number will do.
    """

    heads: tuple[tuple[tuple[int, range], ...], ...]
    stages: tuple[int, ...]
    channels: tuple[int, ...]
    num_features: int | None

    @classmethod
    def make(
        cls,
        in_channels: int | Sequence[int],
        connection: str,
        head_stages: Sequence | None,
        num_heads: int,
    ) -> 'Connection':
        """Work out who reads what.

        Raises:
            ValueError: If an argument does not fit.
        """
        if connection not in CONNECTIONS:
            raise ValueError(
                f'Expected argument `connection` to be one of {CONNECTIONS}, but got '
                f'{connection!r}.'
            )
        widths = (in_channels,) if isinstance(in_channels, Integral) else tuple(in_channels)
        if not widths or any(not isinstance(c, Integral) or c < 1 for c in widths):
            raise ValueError(
                'Expected argument `in_channels` to be an int of at least 1 or a '
                f'sequence of such, but got {in_channels!r}.'
            )
        num_features = None if isinstance(in_channels, Integral) else len(widths)
        if connection == 'stages':
            per_head = _check_head_stages(head_stages, num_features, num_heads)
            stages = tuple(sorted({s for stages in per_head for s in stages}))
            heads = tuple(tuple((s, range(widths[s])) for s in stages) for stages in per_head)
            return cls(heads, stages, tuple(widths[s] for s in stages), num_features)
        if head_stages is not None:
            raise ValueError(
                'Expected argument `head_stages` only with `connection="stages"`, '
                f'but got it with {connection!r}.'
            )
        last = -1 if num_features is None else num_features - 1
        total = widths[-1]
        if connection == 'all':
            heads = (((last, range(total)),),) * num_heads
        else:
            if num_heads > total:
                raise ValueError(
                    f'Expected at most as many heads as channels with '
                    f'`connection="channels"`, but got {num_heads} heads for '
                    f'{total} channels. Fewer heads: `head_groups`.'
                )
            bounds = [c * total // num_heads for c in range(num_heads + 1)]
            heads = tuple(((last, range(a, b)),) for a, b in pairwise(bounds))
        return cls(heads, (last,), (total,), num_features)

    def check_num_features(self, num_features: int) -> None:
        """Raise ValueError if a tuple of so many features does not fit."""
        if self.num_features not in (None, num_features):
            raise ValueError(
                f'Expected as many features as argument `in_channels` has entries '
                f'({self.num_features}), but the backbone gives {num_features}. Set its '
                '`out_indices` to match.'
            )

    def select(self, feats: tuple[Tensor, ...]) -> list[Tensor]:
        """Give the features in use, checked.

        Args:
            feats (tuple[Tensor]): Features ``(N, C, h, w)`` or ``(N, C)``.

        Raises:
            ValueError: If number, shape or channels do not fit.
        """
        if not isinstance(feats, tuple | list):
            raise ValueError(
                'Expected argument `feats` to be a tuple of features, one per stage, '
                f'but got {type(feats).__name__}.'
            )
        self.check_num_features(len(feats))
        selected = [feats[s] for s in self.stages]
        for stage, channels, x in zip(self.stages, self.channels, selected):
            if x.dim() not in (2, 4):
                raise ValueError(
                    'Expected features of shape (N, C, h, w) or (N, C), but feature '
                    f'{stage} has shape {tuple(x.shape)}.'
                )
            if x.shape[1] != channels:
                raise ValueError(
                    f'Expected feature {stage} to have {channels} channels (argument '
                    f'`in_channels`), but got {x.shape[1]}.'
                )
        return selected


def _check_head_stages(
    head_stages: Sequence | None, num_features: int | None, num_heads: int
) -> list[tuple[int, ...]]:
    if num_features is None:
        raise ValueError(
            'Expected argument `in_channels` to be a sequence with the channels of '
            'every feature with `connection="stages"`, but got an int.'
        )
    if head_stages is None or len(head_stages) != num_heads:
        got = 'none' if head_stages is None else f'{len(head_stages)} entries'
        raise ValueError(
            'Expected argument `head_stages` to list the stage or stages of each of '
            f'the {num_heads} heads, but got {got}.'
        )
    per_head = [(s,) if isinstance(s, Integral) else tuple(sorted(s)) for s in head_stages]
    for head, stages in enumerate(per_head):
        if not stages or len(set(stages)) < len(stages):
            raise ValueError(
                'Expected argument `head_stages` to name one or more different '
                f'stages for every head, but got {list(stages)} for head {head}.'
            )
        for stage in stages:
            if not isinstance(stage, Integral) or not 0 <= stage < num_features:
                raise ValueError(
                    f'Expected argument `head_stages` to name stages in 0..{num_features - 1} '
                    f'(positions in `in_channels`), but got {stage!r} for head {head}.'
                )
    return per_head
