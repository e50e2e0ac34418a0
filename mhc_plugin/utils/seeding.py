"""Random numbers that depend on the sample drawn, not on who draws it or when."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_WORD = 0xFFFFFFFF


def sample_seed(*entropy: int) -> int:
    """Mix integers into one seed, the same on any machine and in any process.

    Every integer enters as two words of 32 bits and their number enters too, so that
    ``(1,)``, ``(1, 0)`` and ``(0, 1)`` give different seeds; NumPy's ``SeedSequence`` alone
    pads with zeros and takes the first two for the same. Its mixing is promised to stay.

    Args:
        *entropy (int): What the draw depends on, such as (seed, epoch, index); integers are
            taken modulo 2**64.

    Returns:
        int: A seed in [0, 2**32).
    """
    words = [len(entropy)]
    for value in entropy:
        value = int(value)
        words += [value & _WORD, (value >> 32) & _WORD]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators inside; restore all three on exit.

    CUDA generators are left alone: transforms run in forked workers, where touching CUDA
    fails, and draw nothing from it. NumPy and torch start from the same algorithm, so each
    generator gets a seed of its own; with one seed their streams would be the same.

    Args:
        *entropy (int): As for :func:`sample_seed`.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.default_generator.get_state()
    try:
        random.seed(sample_seed(*entropy, 0))
        np.random.seed(sample_seed(*entropy, 1))
        torch.default_generator.manual_seed(sample_seed(*entropy, 2))
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(torch_state)
