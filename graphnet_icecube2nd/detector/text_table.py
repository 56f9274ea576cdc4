"""Small text tables, read so that errors name file, line and column."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTable:
    """A small text table with a header, read so that errors name the place.

    Args:
        source: Name of the file, for messages.
        lines: Line number of each row, counted from 1.
        columns: The fields of each column, as text, by the name in the header.
    """

    source: str
    lines: tuple[int, ...]
    columns: dict[str, tuple[str, ...]]

    @classmethod
    def parse(cls, text: str, source: str) -> TextTable:
        """Split text into columns: at commas if the header has one, else at blanks.

        Empty lines and lines that begin with # are passed over.

        Raises:
            ValueError: No header, no row, a name twice, a row of another length.
        """
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
            raise ValueError(f"{source}, line {numbered[0][0]}: a column stands twice")
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
        """One column as (N,) float64; `rule` tells of a value whether it is allowed.

        Raises:
            ValueError: No such column, or a value that is not allowed.
        """
        if column not in self.columns:
            raise ValueError(
                f"{self.source}: no column {column!r}; "
                f"columns there: {', '.join(self.columns)}"
            )
        values = []
        for line, text in zip(self.lines, self.columns[column], strict=True):
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not (math.isfinite(value) and rule(value)):
                raise ValueError(
                    f"{self.source}, line {line}, column {column!r}: "
                    f"got {text!r}, allowed: {allowed}"
                )
            values.append(value)
        return torch.tensor(values, dtype=torch.float64)
