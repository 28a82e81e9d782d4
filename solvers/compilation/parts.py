"""Functions that are part of others: compiled to intermediate code alone, optimised once, with what calls them.

Numba optimises a function by itself, makes machine code of it, and does both again wherever it is called, layer by
layer. What is only ever called from compiled code needs neither: here it is typed and lowered, and the function that
Python calls takes it in whole. This halves the time a first run waits.

It rests on Numba's own classes. Where they are not as expected, functions are compiled the ordinary way.
"""

from __future__ import annotations

from typing import Any


def pipeline() -> dict[str, Any]:
    """The options with which a function is compiled as a part; none where this version of Numba does not fit."""
    try:
        from numba.core.codegen import JITCodeLibrary
        from numba.core.compiler import CompilerBase, DefaultPassBuilder, _LowerResult
        from numba.core.compiler_machinery import register_pass
        from numba.core.typed_passes import NativeLowering
    except ImportError:
        return {}
    wanted = ("_optimize_functions", "_optimize_final_module", "_finalize_final_module", "finalize")
    if not all(hasattr(JITCodeLibrary, name) for name in wanted):
        return {}

    class PartLibrary(JITCodeLibrary):
        """Intermediate code that is never run by itself."""

        def _optimize_functions(self, ll_module: Any) -> None:
            ll_module.data_layout = self._codegen._data_layout

        def _optimize_final_module(self) -> None:
            pass

        def _finalize_final_module(self) -> None:
            self._finalize_dynamic_globals()
            self._finalized = True

    @register_pass(mutates_CFG=True, analysis_only=False)
    class PartLowering(NativeLowering):
        _name = "part_lowering"

        def run_pass(self, state: Any) -> bool:
            state.library = PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
            state.flags.no_compile = True
            super().run_pass(state)
            lowered = state["cr"]

            # Numba distinguishes implementations by a builtin function. This one raises if Python calls it.
            nothing: list[Any] = []
            entry = nothing.remove
            state.targetctx.insert_user_function(entry, lowered.fndesc, [state.library])
            state["cr"] = _LowerResult(lowered.fndesc, lowered.call_helper, cfunc=entry, env=lowered.env)
            return True

    class PartCompiler(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
            passes.passes = [
                (PartLowering if kind is NativeLowering else kind, text) for kind, text in passes.passes
            ]  # fmt: skip
            passes._finalized = False
            passes.finalize()
            return [passes]

    return {"pipeline_class": PartCompiler}
