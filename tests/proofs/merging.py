"""If-conversion: choices between values, in place of forks, for the solver's sake.

`if test: a = x` doubles the paths, and a function with ten of them has a thousand. Where the
branches of an `if` do nothing but assign plain expressions to names that have values already, both
are run and each name gets the value of whichever branch holds. This is done to the syntax tree,
mechanically; everything else runs as written, and forks.
"""

from __future__ import annotations

import ast
import operator
from functools import partial
from typing import Any

import z3
from symbolic import Sym, SymBool

__all__ = ["HELPERS", "merge_branches"]

_PURE_CALLS = frozenset({"min", "max", "abs"})


def _is_pure(node: ast.AST) -> bool:
    """Return whether evaluating *node* in vain does no harm."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            name = part.func.id if isinstance(part.func, ast.Name) else ""
            if name not in _PURE_CALLS and name not in HELPERS:
                return False
        if isinstance(part, ast.NamedExpr | ast.Subscript):
            return False
    return True


def _targets(body: list[ast.stmt]) -> set[str] | None:
    """Return the names that simple assignments set; None where there is anything else."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            targets: list[ast.expr] = [node.target]
        elif isinstance(node, ast.Assign):
            targets = []
            for target in node.targets:
                targets += target.elts if isinstance(target, ast.Tuple) else [target]
        else:
            return None
        if not _is_pure(node.value) or not all(isinstance(t, ast.Name) for t in targets):
            return None
        names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return names


class _Converter(ast.NodeTransformer):
    def __init__(self) -> None:
        self._defined: set[str] = set()
        self._count = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, self._defined = self._defined, {a.arg for a in node.args.args}
        node.body = self._block(node.body)
        self._defined = outer
        return node

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Convert statements in order, noting which names have values by then."""
        converted: list[ast.stmt] = []
        for node in body:
            result: Any = self.visit(node)
            converted += result if isinstance(result, list) else [result]
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    parts = target.elts if isinstance(target, ast.Tuple) else [target]
                    for part in parts:
                        inner = part.value if isinstance(part, ast.Starred) else part
                        if isinstance(inner, ast.Name):
                            self._defined.add(inner.id)
        return converted

    def visit_For(self, node: ast.For) -> ast.AST:
        target = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
        self._defined |= {t.id for t in target if isinstance(t, ast.Name)}
        node.body = self._block(node.body)
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        before = set(self._defined)
        node.body = self._block(node.body)
        self._defined = set(before)
        node.orelse = self._block(node.orelse)
        self._defined = before
        node.test = self._condition(node.test)
        plain = [_flatten(node.body), _flatten(node.orelse)]
        names: set[str] = set()
        for part in plain:
            found = None if part is None else _targets(part)
            if found is None:
                return node
            names |= found
        if not names or not names <= before or not _is_pure(node.test):
            return node
        return self._chosen(node, sorted(names))

    def _chosen(self, node: ast.If, names: list[str]) -> list[ast.stmt]:
        """Return the statements that run both branches and choose."""
        self._count += 1
        n = self._count
        all_ = ", ".join(names) + ","
        source = f"_test{n} = 0\n_old{n} = ({all_})\n_new{n} = ({all_})\n({all_}) = _old{n}\n"
        source += f"({all_}) = _merged(_test{n}, _new{n}, ({all_}))"
        head, old, new, back, choose = ast.parse(source).body
        assert isinstance(head, ast.Assign)
        head.value = node.test
        return [head, old, *node.body, new, back, *node.orelse, choose]

    def _condition(self, node: ast.expr) -> ast.expr:
        """Turn `and`, `or`, `not` and chains into conditions that do not fork."""
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq) and len(node.ops) == 1:
            return _call("_same", [node.left, node.comparators[0]])
        if not _is_pure(node):
            return node
        if isinstance(node, ast.BoolOp):
            name = "_all" if isinstance(node.op, ast.And) else "_any"
            return _call(name, [_lambda(self._condition(v)) for v in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return _call("_not", [self._condition(node.operand)])
        if isinstance(node, ast.Compare) and len(node.ops) > 1:
            links: list[ast.expr] = []
            left = node.left
            for op, right in zip(node.ops, node.comparators, strict=True):
                links.append(_lambda(ast.Compare(left, [op], [right])))
                left = right
            return _call("_all", links)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        node.test = self._condition(node.test)
        if not all(map(_is_pure, (node.test, node.body, node.orelse))):
            return node
        return _call("_merged", [node.test, node.body, node.orelse])


def _flatten(body: list[ast.stmt]) -> list[ast.stmt] | None:
    return [node for node in body if not isinstance(node, ast.Pass)]


def _call(name: str, args: list[ast.expr]) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), args, [])


def _lambda(body: ast.expr) -> ast.Lambda:
    none: list[Any] = []
    return ast.Lambda(ast.arguments(none, none, None, none, none, None, none), body)


def merge_branches(source: str, filename: str) -> ast.Module:
    """Return the tree of *source* with simple branches made choices."""
    tree: ast.Module = _Converter().visit(ast.parse(source, filename))
    return ast.fix_missing_locations(tree)


# What the converted code calls


def _condition_of(x: Any) -> Any:
    """Return *x*'s truth as a bool or a z3 condition, without forking."""
    if isinstance(x, SymBool):
        return x.expr
    return (x != 0).expr if isinstance(x, Sym) else bool(x)


def _joined(parts: tuple[Any, ...], stops: bool, op: Any) -> Any:
    terms = []
    for part in parts:
        term = _condition_of(part())
        if term is stops:
            return stops
        if not isinstance(term, bool):
            terms.append(term)
    return SymBool(op(*terms)) if terms else not stops


def _merged(test: Any, new: Any, old: Any) -> Any:
    """Return *new* if *test*, else *old*; as one value where that can be."""
    condition = _condition_of(test)
    if not isinstance(condition, bool):
        condition = z3.simplify(condition)
        if z3.is_true(condition) or z3.is_false(condition):
            condition = bool(z3.is_true(condition))
    if isinstance(condition, bool):
        return new if condition else old
    if new is old:
        return new
    if isinstance(new, tuple) and isinstance(old, tuple) and len(new) == len(old):
        parts = [_merged(SymBool(condition), a, b) for a, b in zip(new, old, strict=True)]
        return tuple(parts) if type(new) is tuple else type(new)(*parts)
    if isinstance(new, int | Sym) and isinstance(old, int | Sym):
        kind = type(new) if isinstance(new, Sym) else type(old) if isinstance(old, Sym) else Sym
        a, b = kind.of(new), kind.of(old)
        return a.or_else(SymBool(condition), b, min(a.low, b.low), max(a.high, b.high))
    return new if SymBool(condition) else old


def _negated(x: Any) -> Any:
    condition = _condition_of(x)
    return not condition if isinstance(condition, bool) else SymBool(z3.Not(condition))


def _same(a: Any, b: Any) -> Any:
    """Return whether *a* equals *b*, tuples element by element, without forking."""
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return _joined(
            tuple(partial(operator.eq, x, y) for x, y in zip(a, b, strict=True)), False, z3.And
        )
    return a == b


HELPERS: dict[str, Any] = {
    "_all": lambda *parts: _joined(parts, False, z3.And),
    "_any": lambda *parts: _joined(parts, True, z3.Or),
    "_not": _negated,
    "_same": _same,
    "_merged": _merged,
}
