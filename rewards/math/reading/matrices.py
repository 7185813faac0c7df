r"""Matrices and what LaTeX sets like them: `\begin{pmatrix}`, determinants, `cases`, and a matrix times a factor.

The functions are handed `read`, which reads a cell or a part of the text into an answer.
"""

from __future__ import annotations

import re

from rayzero.rewards.math.errors import TooLargeError
from rayzero.rewards.math.reading.lists import MAX_ITEMS, Read
from rayzero.rewards.math.reading.parse import parse_expression
from rayzero.rewards.math.split import split_outside
from rayzero.rewards.math.values.answer import Answer, Matrix, Scalar
from rayzero.rewards.math.values.tree import apply

# The end of a row: `\\`, `\\[2pt]`, `\cr`.
_ROW = re.compile(r"\\\\(?:\[[^\]]*\])?|\\cr\b")
# The end of a cell.
_CELL = re.compile(r"&")
# A whole environment of rows and cells, with the brackets around it.
_MATRIX = re.compile(
    r"^(?P<open>[(\[|⟨]?) *\\begin *\{(?P<kind>[pbvVB]?(?:small)?matrix|smallmatrix|array|cases|aligned|align)\*?\} *"
    r"(?:\[[a-z]\])? *(?P<spec>\{ *[lcr| ]+\})?"
    r"(?P<body>.*)\\end *\{(?P=kind)\*?\} *(?P<close>[)\]|⟩]?)$",
    re.DOTALL,
)
# The brackets that may stand around an environment, or none.
_AROUND_MATRIX = frozenset(["", "()", "[]", "||", "⟨⟩"])


def read_matrix(text: str, read: Read) -> Answer | None:
    """A matrix, or what its environment merely lays out; None where the text is no environment."""
    match = _MATRIX.match(text)
    if match is None:
        return _scaled_matrix(text, read)
    if "\\begin" in match["body"] or match["open"] + match["close"] not in _AROUND_MATRIX:
        return None
    if match["kind"] == "array" and not match["open"] and not re.search(r"&|\\\\", match["body"]):
        return read(match["body"])  # a layout of one cell
    body = re.sub(r"\\hline|\\midrule", " ", match["body"])
    rows = [row for row in split_outside(body, _ROW)[0] if row.strip()]
    cells = [split_outside(row, _CELL)[0] for row in rows]
    if sum(map(len, cells)) > MAX_ITEMS or not rows:
        raise TooLargeError("a matrix too large")
    kind = match["kind"]
    if kind in ("cases", "aligned", "align"):
        if all(len(row) == 1 or (kind != "cases") for row in cells):
            return read(" , ".join("".join(row).strip(" ,;.") for row in cells))
        return Matrix(tuple(tuple(read(cell) for cell in row) for row in cells), "cases")
    determinant = kind[0] in "vV" or match["open"] == "|"
    return Matrix(tuple(tuple(read(cell) for cell in row) for row in cells), "v" if determinant else "")


def _scaled_matrix(text: str, read: Read) -> Answer | None:
    """A factor before a matrix of scalars: the matrix of their products."""
    start = text.find("\\begin")
    if start <= 0 or not re.search(r"[\d}A-Za-z)*] *$", text[:start]) or re.search("[=(,]", text[:start]):
        return None
    matrix = read_matrix(text[start:], read)
    if not isinstance(matrix, Matrix) or matrix.kind:
        return None
    factor = parse_expression(text[:start].rstrip(" *"))
    rows = [
        [Scalar(apply("mul", factor, cell.node)) for cell in row if isinstance(cell, Scalar)] for row in matrix.rows
    ]
    if any(len(row) != len(cells) for row, cells in zip(rows, matrix.rows, strict=True)):
        return None
    return Matrix(tuple(map(tuple, rows)))
