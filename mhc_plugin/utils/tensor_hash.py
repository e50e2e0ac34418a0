"""Names of tensors by their content."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and values.

    Device, memory format and whether a gradient is needed make no difference, nor does the order.

    Args:
        tensors (Iterable[tuple[str, Tensor]]): Such as ``module.named_parameters()``.

    Returns:
        str: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def hash_weights(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers.

    Args:
        module (nn.Module): The module.

    Returns:
        str: 64 hexadecimal digits.
    """
    return hash_tensors([*module.named_parameters(), *module.named_buffers()])
