"""Keys of the feature cache: equal where the features are equal, and never by place or time."""

import hashlib
import json
import uuid

FORMAT = 1


def make_key(description: dict) -> str:
    """Hash a description.

    Args:
        description (dict): What decides over the features; values that JSON can hold.

    Returns:
        str: 32 hexadecimal digits.
    """
    text = json.dumps(dict(format=FORMAT, **description), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def unshared(reason: str) -> dict:
    """The part of a description that no other has, for what cannot be described."""
    return dict(unshared=uuid.uuid4().hex, reason=reason)


def is_shared(description: dict) -> bool:
    """Whether another run can come to the same description."""
    return 'unshared' not in description
