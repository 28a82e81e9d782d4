"""How Numba compiles functions of this package: those that Python calls, and those that only compiled code calls.

Numba optimises each function and generates its machine code, and does both again in every caller, layer by
layer. Functions called only from compiled code need neither: such *parts* are typed and lowered, and the function
that Python calls links them. Passes that no part needs are left out, and the types of operations are cached
for all functions together. This more than halves the compilation time of a first run.

It relies on internal classes of Numba. Where they are not as expected, functions are compiled the ordinary way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

#: Passes of Numba that parts need: they have no closures, comprehensions, array expressions or ``with``.
_PASSES = frozenset({
    "TranslateByteCode", "FixupArgs", "IRProcessing", "RewriteSemanticConstants", "DeadBranchPrune", "GenericRewrites",
    "ReconstructSSA", "NopythonTypeInference", "PreLowerStripPhis", "IRLegalization", "AnnotateTypes", "NativeLowering",
    "NoPythonBackend",
})  # fmt: skip
#: Methods of Numba's code libraries that are overridden.
_METHODS = (
    "_optimize_functions", "_optimize_final_module", "_get_module_for_linking", "_finalize_dynamic_globals", "finalize",
)  # fmt: skip


class Pipelines(NamedTuple):
    """Options of ``njit``: for functions that Python calls, for those with explicit vectors, and for parts."""

    whole: dict[str, Any]
    explicit: dict[str, Any]
    part: dict[str, Any]


def pipelines() -> Pipelines:
    """The options; none for a version of Numba without the classes that are needed."""
    try:
        from numba.core.codegen import JITCodeLibrary
        from numba.core.compiler import Compiler, Flags, _LowerResult  # noqa: F401
        from numba.core.typed_passes import NativeLowering  # noqa: F401
    except ImportError:
        return Pipelines({}, {}, {})
    if not all(hasattr(JITCodeLibrary, name) for name in _METHODS):
        return Pipelines({}, {}, {})
    whole = _whole()
    return Pipelines(*({"pipeline_class": kind} for kind in (whole, _explicit(whole), _part(whole))))


def _whole() -> Any:
    """Numba's compiler, with a cache of the types of operations."""
    from numba.core import types
    from numba.core.compiler import Compiler, Flags

    known: dict[Any, Any] = {}
    defaults = {name: option.default for name, option in Flags.options.items()}

    class QuickFlags(Flags):
        """Flags whose values are read in one step; Numba compares them at every operation."""

        def values(self) -> dict[str, Any]:
            return defaults | self._values

    class KnownTypes:
        """A typing context that caches the types of operations."""

        def __init__(self, own: Any) -> None:
            self._own = own

        def __getattr__(self, name: str) -> Any:
            return getattr(self._own, name)

        def resolve_function_type(self, function: Any, arguments: Any, keywords: Any) -> Any:
            if keywords or type(function) is not types.Function:
                return self._own.resolve_function_type(function, arguments, keywords)
            key = id(function), tuple(arguments)
            if key in known:
                return known[key][1]
            found = self._own.resolve_function_type(function, arguments, keywords)
            if found is not None:
                # The function is kept, so that its id is not reused.
                known[key] = function, found
            return found

    class WholeCompiler(Compiler):
        def __init__(
            self, typing: Any, target: Any, library: Any, arguments: Any, returned: Any, flags: Any, names: Any
        ) -> None:
            super().__init__(typing, target, library, arguments, returned, QuickFlags(flags), names)
            self.state.typingctx = KnownTypes(typing)

    return WholeCompiler


def _explicit(whole: Any) -> Any:
    """The compiler of functions with explicit vectors: no automatic vectorisation or unrolling, one round of passes."""
    from llvmlite import binding
    from numba.core.codegen import JITCodeLibrary

    class ExplicitLibrary(JITCodeLibrary):
        def _optimize_functions(self, ll_module: Any) -> None:
            ll_module.data_layout = self._codegen._data_layout

        def _optimize_final_module(self) -> None:
            tuning = binding.create_pipeline_tuning_options(speed_level=2)
            tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
            builder = binding.create_pass_builder(self._codegen._tm, tuning)
            builder.getModulePassManager().run(self._final_module, builder)

    class ExplicitCompiler(whole):
        def define_pipelines(self) -> list[Any]:
            self.state.library = ExplicitLibrary(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
            self.state.library.enable_object_caching()
            pipelines: list[Any] = super().define_pipelines()
            return pipelines

    return ExplicitCompiler


def _lower() -> Any:
    """How parts are lowered: without sizes for a debugger, with the implementations of operators remembered."""
    from numba.core import cgutils, ir
    from numba.core.lowering import Lower

    known: dict[Any, tuple[Any, Any]] = {}

    class PartLower(Lower):
        def alloca_lltype(self, name: str, lltype: Any, datamodel: Any = None) -> Any:
            return cgutils.alloca_once(self.builder, lltype, name=name, zfill=False)

        def lower_binop(self, resty: Any, expr: Any, op: Any) -> Any:
            if expr.static_lhs is not ir.UNDEFINED or expr.static_rhs is not ir.UNDEFINED:
                return super().lower_binop(resty, expr, op)
            context, signature = self.context, self.fndesc.calltypes[expr]
            key = op, signature.args
            if key not in known:
                function = context.typing_context.resolve_value_type(op)
                known[key] = function, function.get_call_type(context.typing_context, signature.args, {})
            values = [
                context.cast(self.builder, self.loadvar(value.name), self.typeof(value.name), kind)
                for value, kind in zip((expr.lhs, expr.rhs), signature.args, strict=True)
            ]
            found = context.get_function(*known[key])(self.builder, values)
            return context.cast(self.builder, found, signature.return_type, resty)

    return PartLower


def _part(whole: Any) -> Any:
    """The compiler of parts: intermediate code alone, by fewer passes."""
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import _LowerResult
    from numba.core.compiler_machinery import register_pass
    from numba.core.typed_passes import NativeLowering

    lower = _lower()

    class PartLibrary(JITCodeLibrary):
        """A library of intermediate code, never executed by itself."""

        def _optimize_functions(self, ll_module: Any) -> None:
            ll_module.data_layout = self._codegen._data_layout

        def finalize(self) -> None:
            """Nothing: the functions it calls are linked in the function that Python calls."""
            for function in self._final_module.functions:
                if not function.is_declaration:
                    function.linkage = "linkonce_odr"
            self._finalize_dynamic_globals()
            self._finalized = True

        def _get_module_for_linking(self) -> Any:
            if self._shared_module is None:
                self._shared_module = self._final_module.clone()
                for library in self._called({}):
                    own = isinstance(library, PartLibrary)
                    module = library._final_module if own else library._get_module_for_linking()
                    self._shared_module.link_in(module, preserve=True)
            return self._shared_module

        def _called(self, found: dict[Any, None]) -> dict[Any, None]:
            for library in self._linking_libraries:
                if library not in found:
                    found[library] = None
                    if isinstance(library, PartLibrary):
                        library._called(found)
            return found

    @register_pass(mutates_CFG=True, analysis_only=False)
    class PartLowering(NativeLowering):
        _name, lowering_class = "part_lowering", lower

        def run_pass(self, state: Any) -> bool:
            state.library = PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
            state.flags.no_compile = True
            super().run_pass(state)
            lowered = state["cr"]

            # Numba identifies an implementation by a builtin function; this one fails if Python calls it.
            nothing: list[Any] = []
            entry = nothing.remove
            state.targetctx.insert_user_function(entry, lowered.fndesc, [state.library])
            state["cr"] = _LowerResult(lowered.fndesc, lowered.call_helper, cfunc=entry, env=lowered.env)
            return True

    class PartCompiler(whole):
        def define_pipelines(self) -> list[Any]:
            (passes,) = super().define_pipelines()
            # Once each: Numba's second round prunes branches that inlining brings, and parts inline nothing.
            wanted = {kind: text for kind, text in passes.passes if kind.__name__ in _PASSES}
            passes.passes = [(PartLowering if kind is NativeLowering else kind, text) for kind, text in wanted.items()]
            passes._finalized = False
            passes.finalize()
            return [passes]

    return PartCompiler
