"""Text for people: near names in messages, and tables of aligned columns."""

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches


def did_you_mean(word: str, known: Collection[str], otherwise: str | None = None) -> str:
    """Return what to say of a word that is not known: the near ones, or ``otherwise``, or all.

    Example:
        >>> did_you_mean("digts", ["digits", "mnist"])
        'did you mean digits?'
        >>> did_you_mean("svhn", ["digits", "mnist"])
        'there are digits, mnist.'
    """
    near = get_close_matches(word, known, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(known)}." if otherwise is None else otherwise


def padded(rows: Iterable[Sequence[str]], *, right: bool = False) -> list[list[str]]:
    """Return the cells of a table of equally long rows, those of a column of one width.

    All columns but the first may be aligned at their ``right``, as numbers are.
    """
    columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        align = str.rjust if right and number else str.ljust
        columns.append([align(cell, max(map(len, column))) for cell in column])
    return [list(row) for row in zip(*columns, strict=True)]


def aligned(rows: Iterable[Sequence[str]], *, right: bool = False) -> str:
    """Return a table, with the arguments of `padded`, as lines with two spaces between columns.

    Example:
        >>> print(aligned([("elbo", "-91.2"), ("kl", "8.4")], right=True))
        elbo  -91.2
        kl      8.4
    """
    return "\n".join("  ".join(row).rstrip() for row in padded(rows, right=right))
