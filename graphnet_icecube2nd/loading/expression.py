"""Cuts on events written as text: `energy > 100 and interaction_type in (1, 2)`.

The text is parsed with Python's grammar, but no Python code is run: `_check` allows
only known operations, and anything else is an error that names the piece.

Integers are int64 and other numbers are float64, whatever the stored type of a column,
so that neither this type nor numpy's version changes a cut. Shape letter: B events; a
piece without a column has shape ().
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

MAX_CHARACTERS = 2000  # maximum length of an expression
MAX_DEPTH = 60  # maximum levels of an expression, far below Python's recursion limit
COMPARISONS: dict[type[ast.cmpop], Callable[[Array, Array], Array]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
ARITHMETIC: dict[type[ast.operator], Callable[[Array, Array], Array]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.remainder,
    ast.Pow: np.power,
}
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "cos": np.cos,
    "sin": np.sin,
}


class Expression:
    """A condition on the columns of events.

    An expression may use names of columns, numbers, strings, True and False; + - * / //
    % and ** (always in float64); < <= > >= == != also chained; `in` and `not in` with a
    tuple or list of values; and, or, not; and the functions abs, log10, sqrt, cos, sin.
    Undefined values such as sqrt(-1) or 1 / 0 are nan or infinite.

    Raises ValueError if the text is no such expression; the message has the piece and
    its first character, counted from 1.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ValueError(f"an expression must be a text, found {text!r}")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"an expression must have at most {MAX_CHARACTERS} characters, found "
                f"{len(text)}"
            )
        # One line, so that the number of a character is its position.
        self.text = text = text.replace("\n", " ").strip()
        try:
            self._tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            where = "" if error.offset is None else f" at character {error.offset}"
            message = f"{text!r} cannot be read{where}: {error.msg}"
            raise ValueError(message) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{text!r} cannot be read: {error}") from None
        names: dict[str, None] = {}
        self._check(self._tree, names, depth=0)
        self.names = tuple(names)  # of columns, in order of appearance

    def check_names(self, available: Iterable[str]) -> None:
        """Raise ValueError if a column is missing; the message has the nearest name."""
        known = tuple(dict.fromkeys(available))
        missing = set(self.names).difference(known)
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and node.id in missing:
                near = difflib.get_close_matches(node.id, known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(
                    f"unknown name {node.id!r}{_place(node)} of {self.text!r}; "
                    f"{hint}known are {', '.join(known)}"
                )

    def evaluate(
        self, column: Callable[[str], Array], num_events: int
    ) -> NDArray[np.bool_]:
        """Return which events fulfil the condition, (B,).

        Raises ValueError if a piece has the wrong kind (a text instead of a number, a
        number instead of a condition), the expression is no condition or names no
        column, or a column is not (B,) numbers, flags or texts.
        """
        columns = {name: _plain(name, column(name), num_events) for name in self.names}
        with np.errstate(all="ignore"):
            keep_B = _Evaluation(self.text, columns).value(self._tree)
        if keep_B.dtype != np.bool_:
            raise ValueError(
                f"{self.text!r} must be a condition, found numbers or texts: compare "
                "them with a value"
            )
        if keep_B.shape != (num_events,):
            raise ValueError(f"{self.text!r} must name a column, found none")
        return keep_B

    def _check(self, node: ast.expr, names: dict[str, None], depth: int) -> None:
        """Refuse unknown pieces, and collect the columns."""
        if depth > MAX_DEPTH:
            _refuse(self.text, node, f"nests deeper than {MAX_DEPTH} levels")
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
                why = f"is not allowed; functions of one argument are {known}"
                _refuse(self.text, node, why)
            case _:
                _refuse(self.text, node, f"is not allowed ({type(node).__name__})")
        for child in inner:
            self._check(child, names, depth + 1)

    def _check_comparison(self, node: ast.Compare) -> list[ast.expr]:
        """Return the compared pieces that still have to be checked."""
        inner = [node.left]
        for op, other in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                if len(node.ops) > 1:
                    _refuse(self.text, node, "chains `in`; combine with `and` instead")
                self._check_values(other)
            elif type(op) in COMPARISONS:
                inner.append(other)
            else:
                _refuse(self.text, node, "is not allowed; compare with == or !=")
        return inner

    def _check_values(self, node: ast.expr) -> None:
        """Check that a tuple or list of values stands right of `in`."""
        if not isinstance(node, ast.Tuple | ast.List):
            why = "must be a tuple or list of values like (1, 2) after `in`"
            _refuse(self.text, node, why)
        for entry in node.elts:
            constant = entry
            if isinstance(entry, ast.UnaryOp) and isinstance(entry.op, ast.USub):
                constant = entry.operand
            if not isinstance(constant, ast.Constant):
                _refuse(
                    self.text, entry, "must be a number or text, as a value after `in`"
                )
            self._check_constant(constant, constant.value)

    def _check_constant(self, node: ast.expr, value: object) -> None:
        if not isinstance(value, bool | int | float | str):
            _refuse(self.text, node, "must be a number, text, True or False")
        if isinstance(value, int) and not value < 2**63:
            _refuse(self.text, node, "does not fit into 64 bits")


@dataclass(frozen=True)
class _Evaluation:
    """The values of a checked expression: (B,) or () of bool, int64, float64 or text.

    Raises ValueError if a piece has the wrong kind, or if integers are divided by zero
    or exceed 64 bits; the message names the piece.
    """

    text: str
    columns: Mapping[str, Array]  # (B,) each

    def value(self, node: ast.expr) -> Array:
        """Return the values of a piece."""
        match node:
            case ast.Constant(value=value):
                number_type = {bool: np.bool_, int: np.int64}.get(type(value))
                return np.asarray(value, dtype=number_type)
            case ast.Name(id=name):
                return self.columns[name]
            case ast.BoolOp(op=op, values=values):
                combine = np.logical_and if isinstance(op, ast.And) else np.logical_or
                result = self._condition(values[0])
                for other in values[1:]:
                    result = combine(result, self._condition(other))
                return result
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return np.asarray(np.logical_not(self._condition(operand)))
            case ast.UnaryOp(op=op, operand=operand):
                number = self._number(operand)
                return np.asarray(-number) if isinstance(op, ast.USub) else number
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                return np.asarray(FUNCTIONS[name](self._number(argument)))
            case ast.Compare():
                return self._comparison(node)
        raise AssertionError(f"_check must refuse {type(node).__name__}")

    def _comparison(self, node: ast.Compare) -> Array:
        left = self.value(node.left)
        result = np.asarray(True)
        for op, other in zip(node.ops, node.comparators, strict=True):
            if isinstance(other, ast.Tuple | ast.List):
                found = np.zeros(left.shape, dtype=np.bool_)
                for entry in other.elts:
                    found = found | self._compared(node, np.equal, left, entry)
                return found if isinstance(op, ast.In) else np.asarray(~found)
            step = self._compared(node, COMPARISONS[type(op)], left, other)
            result = np.asarray(result & step)
            left = self.value(other)
        return result

    def _compared(
        self,
        node: ast.expr,
        compare: Callable[[Array, Array], Array],
        left: Array,
        other: ast.expr,
    ) -> Array:
        right = self.value(other)
        if (left.dtype.kind == "U") != (right.dtype.kind == "U"):
            _refuse(self.text, node, "compares a text with a number")
        return np.asarray(compare(left, right))

    def _arithmetic(self, node: ast.BinOp) -> Array:
        left, right = self._number(node.left), self._number(node.right)
        operation = ARITHMETIC[type(node.op)]
        as_float = np.asarray(
            operation(left.astype(np.float64), right.astype(np.float64))
        )
        # In float64 a tower of powers is infinite and cheap.
        if isinstance(node.op, ast.Pow | ast.Div):
            return as_float
        if left.dtype == right.dtype == np.int64:
            # float64 shows a division by zero or an overflow; int64 does not.
            if isinstance(node.op, ast.FloorDiv | ast.Mod) and bool((right == 0).any()):
                _refuse(self.text, node, "divides an integer by zero")
            if bool((np.abs(as_float) >= 2.0**63).any()):
                _refuse(self.text, node, "does not fit into 64 bits")
            return np.asarray(operation(left, right))
        return as_float

    def _condition(self, node: ast.expr) -> Array:
        value = self.value(node)
        if value.dtype != np.bool_:
            _refuse(self.text, node, "must be a condition, as operand of and, or, not")
        return value

    def _number(self, node: ast.expr) -> Array:
        value = self.value(node)
        if value.dtype.kind == "U":
            _refuse(self.text, node, "is a text, but must be a number")
        return value.astype(np.int64) if value.dtype == np.bool_ else value


def _plain(name: str, values: Array, num_events: int) -> Array:
    """Return a column as bool, int64, float64 or text."""
    values = np.asarray(values)
    if values.shape != (num_events,):
        raise ValueError(f"column {name!r} must be ({num_events},), not {values.shape}")
    kind = values.dtype.kind
    if kind in "bU":
        return values
    if kind == "S" or (kind == "O" and all(isinstance(v, str) for v in values)):
        return values.astype(np.str_)  # stores return texts as objects
    if kind == "f":
        return values.astype(np.float64, copy=False)
    if kind not in "iu":
        raise ValueError(f"column {name!r} must be number or text, not {values.dtype}")
    if values.dtype == np.uint64 and bool((values > np.uint64(2**63 - 1)).any()):
        raise ValueError(f"column {name!r} has integers that do not fit into int64")
    return values.astype(np.int64, copy=False)


def _place(node: ast.expr) -> str:
    return f" at character {node.col_offset + 1}"


def _refuse(text: str, node: ast.expr, why: str) -> NoReturn:
    """Raise ValueError about a piece of an expression."""
    piece = ast.get_source_segment(text, node) or type(node).__name__
    raise ValueError(f"{piece!r}{_place(node)} of {text!r} {why}")
