"""What the pieces of an expression are worth, as numpy arrays over events.

Whole numbers are int64 and other numbers float64, whatever a column is stored as, so
that neither its type nor numpy's version changes a cut. Shape letter: B events; a
piece without a column is of shape () and the same for all.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

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


def place(node: ast.expr) -> str:
    """Say where a piece starts."""
    return f" at character {node.col_offset + 1}"


def refuse(text: str, node: ast.expr, why: str) -> NoReturn:
    """Raise ValueError about a piece of an expression."""
    piece = ast.get_source_segment(text, node) or type(node).__name__
    raise ValueError(f"{piece!r}{place(node)} of {text!r} {why}")


class Evaluator:
    """The values of an expression that `Expression` has checked.

    Args:
        text: The expression, for messages.
        columns: (B,) numbers, flags or texts by name.
        num_events: B.

    Raises:
        ValueError: A column is something else; the message names it.
    """

    def __init__(
        self, text: str, columns: Mapping[str, Array], num_events: int
    ) -> None:
        self.text = text
        self.columns = {
            name: _plain(name, values, num_events) for name, values in columns.items()
        }

    def value(self, node: ast.expr) -> Array:
        """Return what a piece is worth.

        Returns:
            (B,) or () of bool, int64, float64 or text.

        Raises:
            ValueError: A piece is of the wrong kind, or whole numbers are divided by
                zero or leave 64 bits; the message names it.
        """
        with np.errstate(all="ignore"):
            return self._value(node)

    def _value(self, node: ast.expr) -> Array:
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
                return _array(np.logical_not(self._condition(operand)))
            case ast.UnaryOp(op=op, operand=operand):
                number = self._number(operand)
                return _array(-number) if isinstance(op, ast.USub) else number
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                return _array(FUNCTIONS[name](self._number(argument)))
            case ast.Compare():
                return self._comparison(node)
        raise AssertionError(f"{type(node).__name__} went past the check")

    def _comparison(self, node: ast.Compare) -> Array:
        left = self._value(node.left)
        result = np.asarray(True)
        for op, other in zip(node.ops, node.comparators, strict=True):
            if isinstance(other, ast.Tuple | ast.List):
                found = np.zeros(left.shape, dtype=np.bool_)
                for entry in other.elts:
                    found = found | self._compare(node, np.equal, left, entry)
                return found if isinstance(op, ast.In) else _array(~found)
            step = self._compare(node, COMPARISONS[type(op)], left, other)
            result = _array(result & step)
            left = self._value(other)
        return result

    def _compare(
        self,
        node: ast.expr,
        compare: Callable[[Array, Array], Array],
        left: Array,
        other: ast.expr,
    ) -> Array:
        right = self._value(other)
        if (left.dtype.kind == "U") != (right.dtype.kind == "U"):
            refuse(self.text, node, "compares a text with a number")
        return _array(compare(left, right))

    def _arithmetic(self, node: ast.BinOp) -> Array:
        left, right = self._number(node.left), self._number(node.right)
        operation = ARITHMETIC[type(node.op)]
        as_float = _array(operation(left.astype(np.float64), right.astype(np.float64)))
        # A tower of powers ends at infinity and costs nothing.
        if isinstance(node.op, ast.Pow | ast.Div):
            return as_float
        if left.dtype == right.dtype == np.int64:
            # Where float64 divides by zero or overflows it shows; int64 is silent.
            if isinstance(node.op, ast.FloorDiv | ast.Mod) and bool((right == 0).any()):
                refuse(self.text, node, "divides a whole number by zero")
            if bool((np.abs(as_float) >= 2.0**63).any()):
                refuse(self.text, node, "does not fit into 64 bits")
            return _array(operation(left, right))
        return as_float

    def _condition(self, node: ast.expr) -> Array:
        value = self._value(node)
        if value.dtype != np.bool_:
            refuse(self.text, node, "is no condition, as and, or, not need")
        return value

    def _number(self, node: ast.expr) -> Array:
        value = self._value(node)
        if value.dtype.kind == "U":
            refuse(self.text, node, "is a text, where a number is needed")
        return value.astype(np.int64) if value.dtype == np.bool_ else value


def _array(value: Any) -> Array:
    """Undo numpy's habit of turning arrays of shape () into scalars."""
    return np.asarray(value)


def _plain(name: str, values: Array, num_events: int) -> Array:
    """Return a column as bool, int64, float64 or text."""
    values = np.asarray(values)
    if values.shape != (num_events,):
        raise ValueError(f"column {name!r} is {values.shape}, not ({num_events},)")
    kind = values.dtype.kind
    if kind in "bU":
        return values
    if kind == "S" or (kind == "O" and all(isinstance(v, str) for v in values)):
        return values.astype(np.str_)  # stores give texts as objects
    if kind == "f":
        return values.astype(np.float64, copy=False)
    if kind not in "iu":
        raise ValueError(f"column {name!r} is {values.dtype}, no number, flag or text")
    if values.dtype == np.uint64 and bool((values > np.uint64(2**63 - 1)).any()):
        raise ValueError(f"column {name!r} has numbers that do not fit into int64")
    return values.astype(np.int64, copy=False)
