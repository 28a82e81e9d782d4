"""Expectations without closed form, as SymPy functions with derivatives."""

from __future__ import annotations

from typing import Any

import sympy


class _Moment(sympy.Function):
    def _latex(self, printer: Any, exp: str | None = None) -> str:
        arguments = r",\, ".join(printer._print(argument) for argument in self.args)
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"\mathrm{{{type(self).__name__}}}{power}\left[{arguments}\right]"


class E(_Moment):
    """``E f(w + xi)``: derivatives in w commute with the expectation."""

    @classmethod
    def eval(cls, f: sympy.Expr) -> sympy.Expr | None:
        return f if not f.free_symbols else None

    def _eval_derivative(self, w: sympy.Symbol) -> sympy.Expr:
        return E(self.args[0].diff(w))


class Cov(_Moment):
    """``Cov(f(w + xi), h(w + xi))``."""

    @classmethod
    def eval(cls, f: sympy.Expr, h: sympy.Expr) -> sympy.Expr | None:
        return sympy.S.Zero if not f.free_symbols or not h.free_symbols else None

    def _eval_derivative(self, w: sympy.Symbol) -> sympy.Expr:
        f, h = self.args
        return Cov(f.diff(w), h) + Cov(f, h.diff(w))


class Var(_Moment):
    """``Var f(w + xi)``."""

    def _eval_derivative(self, w: sympy.Symbol) -> sympy.Expr:
        f = self.args[0]
        return 2 * Cov(f, f.diff(w))
