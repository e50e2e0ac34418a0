"""The one error that damaged or unfit annotations end in."""

from os import PathLike


class AnnotationError(ValueError):
    """An annotation file says something that it should not.

    Args:
        message (str): What is wrong, as a whole sentence.
        path (str | PathLike, optional): The file at fault.
        line (int, optional): The line at fault, counted from 1.
    """

    def __init__(
        self, message: str, path: str | PathLike | None = None, line: int | None = None
    ) -> None:
        self.message = message
        self.path = path
        self.line = line
        super().__init__(message, path, line)

    def __str__(self) -> str:
        place = '' if self.path is None else str(self.path)
        if self.line is not None:
            place += f', line {self.line}'
        return f'{place}: {self.message}' if place else self.message
