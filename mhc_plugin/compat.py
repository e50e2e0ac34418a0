"""Every accommodation to a version of the stack, each with its reason and when it can go."""


def check_stack() -> None:
    pass


def apply() -> None:
    pass
