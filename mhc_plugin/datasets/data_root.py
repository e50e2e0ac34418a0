"""One sentence for data that is not where a config looks for it."""

import os


def check_path(path: str, argument: str) -> None:
    """Check that a folder or file of a dataset is there.

    Args:
        path (str): Where a dataset looks.
        argument (str): Name of the argument that says so.

    Raises:
        FileNotFoundError: If there is nothing.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(missing_data(path, argument))


def missing_data(path: str, argument: str) -> str:
    """The sentence that says what was looked for and what to do."""
    return (
        f"Expected argument `{argument}` to lead to data, but '{path}' does not exist: set "
        'MHC_DATA_ROOT to the folder that holds the datasets, or put them there '
        '(without MHC_DATA_ROOT our configs look in `data`).'
    )
