"""The confusion matrix as a picture in SVG, for 2 to some hundred classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from saccade.evaluate.evaluation import Evaluation
from saccade.foreign import shown

STYLE = """
.matrix { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; }
.matrix text { fill: var(--ink, #1c1f24); }
.matrix .axis { fill: var(--muted, #5c626c); }
.matrix .grid { fill: var(--panel, #f6f7f9); stroke: var(--line, #dfe2e7); }
.matrix .right { fill: var(--matrix-right, #0b6bb5); }
.matrix .wrong { fill: var(--matrix-wrong, #b8451d); }
.matrix .on { fill: var(--on-matrix, #ffffff); }
"""
"""The style of the picture; a page may set its colours."""

_WIDTH_PX = 900  # of the cells together, as far as the limits of a cell allow
_MIN_CELL_PX, _MAX_CELL_PX, _MIN_TOLD_PX = 11, 44, 20  # numbers are written in cells of at least the last
_LETTER = 0.6  # width of a letter as a fraction of the size of the font, for most letters
_MAX_LETTERS = 28
_SLANT = 0.71  # sine and cosine of 45 degrees


@dataclass(frozen=True)
class Matrix:
    """A table of counts to draw: a row for what the clips show, a column for what the model predicted.

    Args:
        rows: the names of the rows.
        columns: the names of the columns.
        counts: the number of clips in each cell.
        shares: each count as a share of the clips that it is compared with, usually those of the row.
        right: whether the verdict of each cell is right.
        axes: what the rows and what the columns stand for.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    shares: Sequence[Sequence[float]]
    right: Sequence[Sequence[bool]]
    axes: tuple[str, str] = ("shown", "predicted")


def matrix_of(evaluation: Evaluation) -> Matrix:
    """Return the confusion matrix of an evaluation.

    If classes do not exclude each other, there is one row for each class, with four columns: present and predicted,
    present and missed, absent and predicted, absent and not predicted.
    """
    names, counts = evaluation.labels.names, evaluation.confusion_matrix
    if evaluation.labels.exclusive:
        shares = [[num / (sum(row) or 1) for num in row] for row in counts]
        return Matrix(names, names, counts, shares, [[i == j for j in range(len(names))] for i in range(len(names))])
    cells = [[found, missed, imagined, left] for (left, imagined), (missed, found) in counts]
    shares = [[n / (sum(pair) or 1) for pair in (row[:2], row[2:]) for n in pair] for row in cells]
    columns = ("shown and predicted", "shown, but missed", "absent, but predicted", "absent and not predicted")
    right = [[True, False, False, True]] * len(names)
    return Matrix(names, columns, cells, shares, right, axes=("class", "clips that show the class or not"))


def confusion_svg(evaluation: Evaluation, *, style: str = STYLE) -> str:
    """Return the confusion matrix as an SVG picture.

    Cells are coloured by their share of the row, in blue on the diagonal and in red elsewhere.

    Args:
        evaluation: the evaluation.
        style: the style sheet inside the picture; empty for a page that has it already.
    """
    matrix = matrix_of(evaluation)
    cell = max(_MIN_CELL_PX, min(_MAX_CELL_PX, _WIDTH_PX // len(matrix.columns)))
    font = min(13, cell - 2)
    beside, above = _room(matrix.rows, font), _room(matrix.columns, font)
    slanted = cell >= 1.5 * font  # else the names are too close, and stand upright
    left, top = beside + 2 * font, (above * _SLANT if slanted else above) + 2 * font
    across, down = cell * len(matrix.columns), cell * len(matrix.rows)
    beyond = above * _SLANT if slanted else font
    width, height = left + across + beyond, top + down + font
    lines = [f"M{left:.1f} {top + i * cell:.1f}h{across}" for i in range(1, len(matrix.rows))]
    lines += [f"M{left + j * cell:.1f} {top:.1f}v{down}" for j in range(1, len(matrix.columns))]
    names = [
        _text(left - font / 2, top + (i + 0.5) * cell, name, font, 'text-anchor="end"')
        for i, name in enumerate(matrix.rows)
    ]
    for j, name in enumerate(matrix.columns):
        x, y = left + (j + 0.5) * cell, top - font / 2
        names.append(_text(x, y, name, font, f'transform="rotate({-45 if slanted else -90} {x:.1f} {y:.1f})"'))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="matrix" role="img" aria-label="Confusion matrix" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" font-size="{font}">',
        f"<style>{style}</style>" if style else "",
        f'<text class="axis" x="{left:.0f}" y="{font}">{matrix.axes[1]} →</text>',
        f'<text class="axis" transform="rotate(-90 {font} {top:.0f})" x="{font}" y="{top:.0f}" text-anchor="end">'
        f"← {matrix.axes[0]}</text>",
        f'<rect class="grid" x="{left:.1f}" y="{top:.1f}" width="{across}" height="{down}"/>',
        f'<path class="grid" d="{"".join(lines)}"/>',
        *names,
        *_cells(matrix, cell, left, top, font),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _cells(matrix: Matrix, cell: int, left: float, top: float, font: int) -> list[str]:
    """Draw the cells that hold clips."""
    found = []
    for i, row in enumerate(matrix.counts):
        for j, num in enumerate(row):
            if not num:
                continue
            x, y, share = left + j * cell, top + i * cell, matrix.shares[i][j]
            kind = "right" if matrix.right[i][j] else "wrong"
            told = f"{_clean(matrix.rows[i])}: {_clean(matrix.columns[j])}, {num} of {round(num / share)} clips"
            # The square root shows rare confusions, which are what one looks for.
            found.append(
                f'<g><title>{told}</title><rect class="{kind}" fill-opacity="{share**0.5:.2f}"'
                f' x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{cell - 1}" height="{cell - 1}"/>'
                + (_number(x, y, cell, num, share, font) if cell >= _MIN_TOLD_PX else "")
                + "</g>"
            )
    return found


def _number(x: float, y: float, cell: int, num: int, share: float, font: int) -> str:
    size = min(font, (cell - 2) / (_LETTER * len(str(num))))
    on = ' class="on"' if share > 0.45 else ""
    return (
        f'<text{on} x="{x + cell / 2:.1f}" y="{y + cell / 2:.1f}" font-size="{size:.1f}"'
        f' text-anchor="middle" dominant-baseline="central">{num}</text>'
    )


def _room(names: Sequence[str], font: int) -> float:
    """Return the length of the longest name and a space before it."""
    return max(len(_label(name)) for name in names) * font * _LETTER + font


def _text(x: float, y: float, name: str, font: int, attributes: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" dominant-baseline="central" {attributes}>'
        f"<title>{_clean(name)}</title>{escape(_label(name))}</text>"
    )


def _label(name: str) -> str:
    name = shown(name)
    return name if len(name) <= _MAX_LETTERS else f"{name[: _MAX_LETTERS - 1]}…"


def _clean(name: str) -> str:
    return escape(shown(name))
