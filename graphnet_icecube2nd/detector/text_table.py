"""Small text tables; errors name file, line and column."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from importlib.abc import Traversable


GZIP = b"\x1f\x8b"  # first bytes of a compressed file


def text_of(file: Path | Traversable, expected: str = "a table as text") -> str:
    """Return the text of a file, which may be compressed.

    Raises ValueError if it is not text; `expected` completes the message.
    """
    content = file.read_bytes()
    try:
        if content.startswith(GZIP):
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except (UnicodeDecodeError, EOFError, OSError, zlib.error):
        raise ValueError(f"{file} is not a text table; expected {expected}") from None


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTable:
    """Columns of a file; errors name the place of a value."""

    source: str  # the file, for messages
    lines: tuple[int, ...]  # line number of each row, counted from 1
    columns: dict[str, tuple[str, ...]]  # fields as text, by the name in the header
    line: str = "line"  # word for a line in messages

    @classmethod
    def read(cls, file: Path | Traversable) -> TextTable:
        """Read a table separated by commas, or by blanks if the header has no comma.

        Empty lines and lines that begin with # are ignored.
        """
        return cls.of_text(text_of(file), str(file))

    @classmethod
    def of_text(cls, text: str, source: str) -> TextTable:
        """Return the columns of a text; see `read`."""
        numbered = [
            (number, line)
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip() and not line.lstrip().startswith("#")
        ]
        if len(numbered) < 2:
            raise ValueError(f"{source}: a header and at least one row are needed")
        separator = "," if "," in numbered[0][1] else None
        header, *rows = [
            [cell.strip().strip('"') for cell in line.split(separator)]
            for _, line in numbered
        ]
        if len(set(header)) < len(header):
            raise ValueError(f"{source}, line {numbered[0][0]}: a column occurs twice")
        lines = tuple(number for number, _ in numbered[1:])
        for line, row in zip(lines, rows, strict=True):
            if len(row) != len(header):
                raise ValueError(
                    f"{source}, line {line}: {len(row)} fields, "
                    f"but the header has {len(header)}"
                )
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        return cls(source=source, lines=lines, columns=columns)

    def numbers(
        self,
        column: str,
        allowed: str = "finite numbers",
        rule: Callable[[float], bool] = math.isfinite,
    ) -> Tensor:
        """Return a column as (N,) float64; `rule` says whether a value is allowed."""
        if column not in self.columns:
            raise ValueError(
                f"{self.source}: no column {column!r}; "
                f"columns in the file: {', '.join(self.columns)}"
            )
        values = []
        for line, text in zip(self.lines, self.columns[column], strict=True):
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not (math.isfinite(value) and rule(value)):
                raise ValueError(
                    f"{self.source}, {self.line} {line}, column {column!r}: "
                    f"got {text!r}, allowed: {allowed}"
                )
            values.append(value)
        return torch.tensor(values, dtype=torch.float64)
