"""Which stages and channels feed which head."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from numbers import Integral

from mhc_plugin.functional.checks import check_argument, check_choice, check_ints

CONNECTIONS = ('all', 'channels', 'stages')


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
    check_argument(all(groups), 'head_groups', 'to have no empty group', list(groups))
    given = sorted(chain.from_iterable(groups))
    expected = f'to name every class of 0..{num_classes - 1} once'
    for problem, classes in (
        ('unknown', {c for c in given if not 0 <= c < num_classes}),
        ('repeated', {a for a, b in pairwise(given) if a == b}),
        ('missing', set(range(num_classes)).difference(given)),
    ):
        check_argument(not classes, 'head_groups', expected, f'{problem}: {sorted(classes)}')
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
        check_choice('connection', connection, CONNECTIONS)
        is_one = isinstance(in_channels, Integral)
        widths = (in_channels,) if is_one else tuple(in_channels)
        check_ints('in_channels', widths)
        check_argument(bool(widths), 'in_channels', 'to have an entry', in_channels)
        num_features = None if is_one else len(widths)
        if connection == 'stages':
            per_head = _check_head_stages(head_stages, num_features, num_heads)
            stages = tuple(sorted(set(chain.from_iterable(per_head))))
            heads = tuple(tuple((s, range(widths[s])) for s in stages) for stages in per_head)
            return cls(heads, stages, tuple(widths[s] for s in stages), num_features)
        check_argument(
            head_stages is None,
            'head_stages',
            'only with `connection="stages"`',
            f'it with {connection!r}',
        )
        last = -1 if is_one else num_features - 1
        total = widths[-1]
        if connection == 'all':
            heads = (((last, range(total)),),) * num_heads
        else:
            check_argument(
                num_heads <= total,
                'connection',
                'to be "channels" with at most as many heads as channels',
                f'{num_heads} heads for {total} channels. Fewer heads: `head_groups`',
            )
            bounds = [c * total // num_heads for c in range(num_heads + 1)]
            heads = tuple(((last, range(a, b)),) for a, b in pairwise(bounds))
        return cls(heads, (last,), (total,), num_features)

    def readers(self, stage: int) -> dict[int, range]:
        """The heads that a stage feeds, each with the channels that it reads of it."""
        return {h: dict(f)[stage] for h, f in enumerate(self.heads) if stage in dict(f)}

    def concatenated(self) -> list[Sequence[int]]:
        """The channels of every head where those of all stages in use lie side by side."""
        starts = dict(zip(self.stages, accumulate(self.channels, initial=0)))
        return [
            _join([range(starts[s] + c.start, starts[s] + c.stop) for s, c in feeds])
            for feeds in self.heads
        ]

    def check_num_features(self, num_features: int) -> None:
        """Raise ValueError if a tuple of so many features does not fit."""
        if self.num_features not in (None, num_features):
            raise ValueError(
                f'Expected as many features as argument `in_channels` has entries '
                f'({self.num_features}), but the backbone gives {num_features}. Set its '
                '`out_indices` to match.'
            )


def _join(parts: list[range]) -> Sequence[int]:
    """Ranges one after the other: as one range where they follow one another."""
    if all(a.stop == b.start for a, b in pairwise(parts)):
        return range(parts[0].start, parts[-1].stop)
    return list(chain.from_iterable(parts))


def _check_head_stages(
    head_stages: Sequence | None, num_features: int | None, num_heads: int
) -> list[tuple[int, ...]]:
    check_argument(
        num_features is not None,
        'in_channels',
        'to be a sequence with the channels of every feature with `connection="stages"`',
        'an int',
    )
    check_argument(
        head_stages is not None and len(head_stages) == num_heads,
        'head_stages',
        f'to list the stage or stages of each of the {num_heads} heads',
        'none' if head_stages is None else f'{len(head_stages)} entries',
    )
    per_head = [(s,) if isinstance(s, Integral) else tuple(sorted(s)) for s in head_stages]
    for head, stages in enumerate(per_head):
        check_argument(
            bool(stages) and len(set(stages)) == len(stages),
            'head_stages',
            'to name one or more different stages for every head',
            f'{list(stages)} for head {head}',
        )
        for stage in stages:
            check_argument(
                isinstance(stage, Integral) and 0 <= stage < num_features,
                'head_stages',
                f'to name stages in 0..{num_features - 1} (positions in `in_channels`)',
                f'{stage!r} for head {head}',
            )
    return per_head
