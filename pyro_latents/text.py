"""Text for people: near names in messages, and tables of aligned columns."""

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches


def did_you_mean(word: str, known: Collection[str], otherwise: str | None = None) -> str:
    """Return what to say of a word that is not known: the near ones, or all there are.

    Args:
        word: What was given.
        known: What could have been given.
        otherwise: What is said where no word is near; None to name all.

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
    """Return the cells of a table, those of a column of one width.

    Args:
        rows: The rows, of equally many cells.
        right: Whether all columns but the first are aligned at their right, as numbers are.
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.rjust(width) if right and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]


def aligned(rows: Iterable[Sequence[str]], *, right: bool = False) -> str:
    """Return a table as lines, with two spaces between its columns.

    Args:
        rows: The rows, of equally many cells.
        right: Whether all columns but the first are aligned at their right, as numbers are.

    Example:
        >>> print(aligned([("elbo", "-91.2"), ("kl", "8.4")], right=True))
        elbo  -91.2
        kl      8.4
    """
    return "\n".join("  ".join(row).rstrip() for row in padded(rows, right=right))
