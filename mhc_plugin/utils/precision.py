"""float32 that is float32, not TF32 or bfloat16 in its place."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Operators by backend, each with its own switch, since about torch 2.9.
_OPERATORS = [
    (backend, operator)
    for backend in ('cudnn', 'mkldnn')
    for operator in ('conv', 'rnn', 'matmul')
    if (backend, operator) != ('cudnn', 'matmul')
]


@contextmanager
def full_float32() -> Iterator[None]:
    """Let matrix products and convolutions of float32 keep all of its 24 bits; undone on exit."""
    switches = _switches()
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, full in switches:
            setattr(owner, name, full)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before):
            setattr(owner, name, value)


def _switches() -> list[tuple[object, str, object]]:
    backends = torch.backends
    if not hasattr(backends.cuda.matmul, 'fp32_precision'):
        return [(_MatmulPrecision(), 'value', 'highest'), (backends.cudnn, 'allow_tf32', False)]
    owners = [getattr(getattr(backends, b), operator) for b, operator in _OPERATORS]
    return [(owner, 'fp32_precision', 'ieee') for owner in [backends.cuda.matmul, *owners]]


class _MatmulPrecision:
    """The older switch for all matrix products, as an attribute."""

    @property
    def value(self) -> str:
        return torch.get_float32_matmul_precision()

    @value.setter
    def value(self, precision: str) -> None:
        torch.set_float32_matmul_precision(precision)
