"""How Numba compiles functions of this package: those that Python calls, and those that only compiled code calls.

Numba optimises each function and generates its machine code, and does both again in every caller, layer by
layer. Functions called only from compiled code need neither: such *parts* are typed and lowered, and the function
that Python calls links them. Passes that no part needs are left out, and the types of operations are cached
for all functions together. This more than halves the compilation time of a first run. A part that cannot be compiled
by the few passes takes the ordinary ones.

It relies on internal classes of Numba. Where they are not as expected, functions are compiled the ordinary way.
"""

from __future__ import annotations

import operator
from functools import cache
from typing import Any, NamedTuple

#: Passes of Numba that parts need: they have no closures, comprehensions, array expressions or ``with``, and every
#: variable of a part has one type, so that assignments need no versions of it. Only parts that count references delete
#: variables.
_PASSES = frozenset(
    {
        "TranslateByteCode",
        "FixupArgs",
        "RewriteSemanticConstants",
        "DeadBranchPrune",
        "NopythonTypeInference",
        "AnnotateTypes",
        "NativeLowering",
        "NoPythonBackend",
    }
)
_COUNTED = _PASSES | {"IRLegalization"}
#: What a part takes that contains more than the others, such as ``(s, *shape)`` or a variable of two types.
_ORDINARY = _COUNTED | {"IRProcessing", "GenericRewrites", "ReconstructSSA", "PreLowerStripPhis"}
#: Methods of Numba's code libraries that are overridden.
_METHODS = (
    "_optimize_functions",
    "_optimize_final_module",
    "_get_module_for_linking",
    "_finalize_dynamic_globals",
    "finalize",
)


class Pipelines(NamedTuple):
    """Options of ``njit``: for functions that Python calls, for those gone over once, with vectors, and for parts."""

    whole: dict[str, Any]
    once: dict[str, Any]
    explicit: dict[str, Any]
    part: dict[str, Any]


def pipelines() -> Pipelines:
    """The options; none for a version of Numba without the classes that are needed."""
    try:
        from numba.core.callconv import RETCODE_OK, CPUCallConv, Status  # noqa: F401
        from numba.core.codegen import JITCodeLibrary
        from numba.core.compiler import Compiler, Flags, _LowerResult  # noqa: F401
        from numba.core.interpreter import Interpreter  # noqa: F401
        from numba.core.lowering import Lower  # noqa: F401
        from numba.core.rewrites.static_binop import DetectStaticBinops  # noqa: F401
        from numba.core.rewrites.static_getitem import RewriteConstGetitems, RewriteConstSetitems  # noqa: F401
        from numba.core.typed_passes import NativeLowering  # noqa: F401
        from numba.core.untyped_passes import TranslateByteCode  # noqa: F401
    except ImportError:
        return Pipelines({}, {}, {}, {})
    if not all(hasattr(JITCodeLibrary, name) for name in _METHODS):
        return Pipelines({}, {}, {}, {})
    whole = _whole()
    return Pipelines(
        *({"pipeline_class": kind} for kind in (whole, _once(whole, True), _once(whole, False), _part(whole)))
    )


def _whole() -> Any:
    """Numba's compiler, with a cache of the types of operations."""
    from numba.core import types
    from numba.core.compiler import Compiler, Flags

    known: dict[Any, Any] = {}
    operators = frozenset(each for name, each in vars(operator).items() if not name.startswith("_") and callable(each))
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
            arguments = tuple(arguments)
            if function.typing_key in operators and not isinstance(arguments[0], types.BaseTuple):
                arguments = tuple(map(types.unliteral, arguments))  # the value of a number has no effect
            key = id(function), arguments
            if key in known:
                return known[key][1]
            found = self._own.resolve_function_type(function, arguments, keywords)
            if found is not None:
                # The function is kept, so that its id is not reused.
                known[key] = function, found
            return found

        def resolve_setitem(self, target: Any, index: Any, value: Any) -> Any:
            function = self._own.resolve_value_type(operator.setitem)
            return self.resolve_function_type(function, (target, index, value), {})

    class WholeCompiler(Compiler):
        def __init__(
            self, typing: Any, target: Any, library: Any, arguments: Any, returned: Any, flags: Any, names: Any
        ) -> None:
            _load_array_functions()
            super().__init__(typing, target, library, arguments, returned, QuickFlags(flags), names)
            self.state.typingctx = KnownTypes(typing)

    return WholeCompiler


@cache
def _load_array_functions() -> None:
    """Without SciPy's linear algebra, of which Numba asks only whether it can be imported: a quarter of a second."""
    from numba.np import linalg

    own, linalg.ensure_blas = linalg.ensure_blas, lambda: None
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        linalg.ensure_blas = own


def _once(whole: Any, vectorise: bool) -> Any:
    """A compiler with one round of passes and without unrolling of loops, which are vectorised or not."""
    from llvmlite import binding
    from numba.core.codegen import JITCodeLibrary

    class OnceLibrary(JITCodeLibrary):
        def _optimize_functions(self, ll_module: Any) -> None:
            ll_module.data_layout = self._codegen._data_layout

        def _optimize_final_module(self) -> None:
            tuning = binding.create_pipeline_tuning_options(speed_level=2)
            tuning.loop_vectorization = vectorise
            tuning.slp_vectorization = tuning.loop_unrolling = tuning.loop_interleaving = False
            builder = binding.create_pass_builder(self._codegen._tm, tuning)
            builder.getModulePassManager().run(self._final_module, builder)

    class OnceCompiler(whole):
        def define_pipelines(self) -> list[Any]:
            self.state.library = OnceLibrary(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
            self.state.library.enable_object_caching()
            pipelines: list[Any] = super().define_pipelines()
            return pipelines

    return OnceCompiler


def _translation() -> Any:
    """The pass from bytecode to Numba's intermediate representation, without what parts do not contain."""
    from numba.core.compiler_machinery import FunctionPass, register_pass
    from numba.core.interpreter import Interpreter
    from numba.core.rewrites.static_binop import DetectStaticBinops
    from numba.core.rewrites.static_getitem import RewriteConstGetitems, RewriteConstSetitems

    class PartInterpreter(Interpreter):
        def post_process(self, peepholes: Any, func_ir: Any) -> Any:
            return func_ir

    @register_pass(mutates_CFG=True, analysis_only=False)
    class PartTranslation(FunctionPass):
        _name = "part_translation"

        def __init__(self) -> None:
            super().__init__()

        def run_pass(self, state: Any) -> bool:
            state.func_ir = function = PartInterpreter(state.func_id).interpret(state.bc)
            function.generator_info = None
            for kind in (DetectStaticBinops, RewriteConstGetitems, RewriteConstSetitems):
                rewrite = kind(state)
                for number, block in function.blocks.items():
                    if rewrite.match(function, block, None, None):
                        function.blocks[number] = rewrite.apply()
            return True

    return PartTranslation


def _part(whole: Any) -> Any:
    """The compiler of parts: intermediate code alone, by fewer passes."""
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import _LowerResult
    from numba.core.compiler_machinery import register_pass
    from numba.core.typed_passes import NativeLowering
    from numba.core.untyped_passes import TranslateByteCode

    from flowsim.solvers.compilation.lowering import PartLower

    translation = _translation()

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
        _name, lowering_class = "part_lowering", PartLower

        def run_pass(self, state: Any) -> bool:
            state.library = PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
            state.flags.no_compile = True
            state.status.fail_reason = None  # the few passes may have failed before the ordinary ones
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
            few = _COUNTED if self.state.flags.nrt else _PASSES
            return [self._only(few, {TranslateByteCode: translation}), self._only(_ORDINARY, {})]

        def _only(self, names: frozenset[str], own: dict[Any, Any]) -> Any:
            (passes,) = super().define_pipelines()
            # Once each: Numba's second round prunes branches that inlining brings, and parts inline nothing.
            wanted = {kind: text for kind, text in passes.passes if kind.__name__ in names}
            own = {**own, NativeLowering: PartLowering}
            passes.passes = [(own.get(kind, kind), text) for kind, text in wanted.items()]
            passes._finalized = False
            passes.finalize()
            return passes

    return PartCompiler
