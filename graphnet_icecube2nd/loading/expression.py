"""Cuts on events written as text: `energy > 100 and interaction_type in (1, 2)`.

The text is read as Python's grammar, but nothing of Python is run: only what stands
in `_check` is known, and anything else is an error that names it. What the pieces are
worth is in `evaluation.py`. Shape letter: B events.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.loading.evaluation import (
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    Evaluator,
    place,
    refuse,
)

MAX_CHARACTERS = 2000  # of an expression
MAX_DEPTH = 60  # levels of an expression, far below Python's limit of recursion


@dataclass(frozen=True)
class Expression:
    """A condition on the columns of events.

    Known are names of columns, numbers, strings, True and False; + - * / // % and **
    (always in float64); < <= > >= == != also chained; `in` and `not in` with a tuple
    or list of values; and, or, not; and the functions abs, log10, sqrt, cos, sin.
    What has no value in mathematics is nan or infinite, and compares like it.

    Args:
        text: The expression.

    Attributes:
        names: The columns it needs, in order of appearance.

    Raises:
        ValueError: The text is no expression of this kind; the message names the
            piece and the character where it starts, counted from 1.
    """

    text: str
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ValueError(f"an expression is a text, got {self.text!r}")
        if len(self.text) > MAX_CHARACTERS:
            raise ValueError(
                f"an expression has at most {MAX_CHARACTERS} characters, "
                f"this one has {len(self.text)}"
            )
        # On one line, so that a character's number says where it is.
        text = self.text.replace("\n", " ").strip()
        object.__setattr__(self, "text", text)
        try:
            tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            where = "" if error.offset is None else f" at character {error.offset}"
            message = f"{text!r} cannot be read{where}: {error.msg}"
            raise ValueError(message) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{text!r} cannot be read: {error}") from None
        object.__setattr__(self, "_tree", tree)
        names: dict[str, None] = {}
        self._check(tree, names, depth=0)
        object.__setattr__(self, "names", tuple(names))

    def check_names(self, available: Iterable[str]) -> None:
        """See that every column is there.

        Raises:
            ValueError: One is not; the message has the nearest name and the list.
        """
        known = tuple(dict.fromkeys(available))
        for node in ast.walk(self._tree):
            name = node.id if isinstance(node, ast.Name) else None
            if name in self.names and name not in known:
                assert isinstance(node, ast.Name)
                near = difflib.get_close_matches(node.id, known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(
                    f"unknown name {name!r}{place(node)} of {self.text!r}; "
                    f"{hint}known are {', '.join(known)}"
                )

    def evaluate(
        self, column: Callable[[str], NDArray[Any]], num_events: int
    ) -> NDArray[np.bool_]:
        """Return which events fulfil the condition.

        Args:
            column: Gives the (B,) values of a column by its name.
            num_events: B.

        Returns:
            (B,) bool.

        Raises:
            ValueError: A piece is of the wrong kind, a text where a number is needed
                or a number where a condition is; the whole is no condition or the
                same for all events; a column is not (B,) numbers, flags or texts.
        """
        columns = {name: column(name) for name in self.names}
        keep_B = Evaluator(self.text, columns, num_events).value(self._tree)
        if keep_B.dtype != np.bool_:
            raise ValueError(
                f"{self.text!r} gives values, not a condition; compare it with one"
            )
        if keep_B.shape != (num_events,):
            raise ValueError(f"{self.text!r} names no column, so it selects nothing")
        return keep_B

    def _check(self, node: ast.expr, names: dict[str, None], depth: int) -> None:
        """Refuse what is not known, and note the columns."""
        if depth > MAX_DEPTH:
            refuse(self.text, node, f"nests deeper than {MAX_DEPTH} levels")
        inner: list[ast.expr] = []
        match node:
            case ast.Constant(value=value):
                self._check_constant(node, value)
            case ast.Name(id=name):
                names[name] = None
            case ast.BoolOp(values=inner):
                pass
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
                inner = [operand]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                inner = [left, right]
            case ast.Compare():
                inner = self._check_comparison(node)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if (
                name in FUNCTIONS
            ):
                inner = [argument]
            case ast.Call():
                known = ", ".join(FUNCTIONS)
                why = f"is not allowed; functions, of one value, are {known}"
                refuse(self.text, node, why)
            case _:
                refuse(self.text, node, f"is not allowed ({type(node).__name__})")
        for child in inner:
            self._check(child, names, depth + 1)

    def _check_comparison(self, node: ast.Compare) -> list[ast.expr]:
        """Return the pieces that are compared and still to be checked."""
        inner = [node.left]
        for op, other in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                if len(node.ops) > 1:
                    refuse(self.text, node, "chains `in`; join with `and` instead")
                self._check_values(other)
            elif type(op) in COMPARISONS:
                inner.append(other)
            else:
                refuse(self.text, node, "is not allowed; compare with == or !=")
        return inner

    def _check_values(self, node: ast.expr) -> None:
        """See that what stands right of `in` is a tuple or list of values."""
        if not isinstance(node, ast.Tuple | ast.List):
            why = "is no tuple or list of values like (1, 2), as `in` needs"
            refuse(self.text, node, why)
        for entry in node.elts:
            constant = entry
            if isinstance(entry, ast.UnaryOp) and isinstance(entry.op, ast.USub):
                constant = entry.operand
            if not isinstance(constant, ast.Constant):
                refuse(self.text, entry, "is no number or text, as `in` needs")
            self._check_constant(constant, constant.value)

    def _check_constant(self, node: ast.expr, value: object) -> None:
        if not isinstance(value, bool | int | float | str):
            refuse(self.text, node, "is no number, text, True or False")
        if isinstance(value, int) and not value < 2**63:
            refuse(self.text, node, "does not fit into 64 bits")
