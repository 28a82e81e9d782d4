"""From Numba's intermediate representation to LLVM's, for functions that only compiled code calls.

The fewer instructions, the sooner LLVM is done: nothing for a debugger, implementations of operators are remembered,
loops over ``range`` with a constant step 1 or -1 do without division, and an error of a called function is
returned as it is.
"""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from functools import cache
from typing import Any

from llvmlite import ir as llvm
from llvmlite.ir.instructions import ExtractValue, InsertValue, LoadInstr, PhiInstr
from numba.core import cgutils, ir, types
from numba.core.callconv import RETCODE_OK, CPUCallConv, Status
from numba.core.lowering import Lower

_INT64 = llvm.IntType(64)
#: Implementations of operators, by the operator and the types of its arguments.
_KNOWN: dict[Any, tuple[Any, Any]] = {}


class PartConvention(CPUCallConv):
    """Numba's convention for calls between compiled functions, without its distinction of kinds of errors."""

    def call_function(self, builder: Any, callee: Any, resty: Any, argtys: Any, args: Any, attrs: Any = None) -> Any:
        if isinstance(resty, types.Optional) or attrs is not None:
            return super().call_function(builder, callee, resty, argtys, args, attrs)
        result = cgutils.alloca_once(builder, self._get_return_argument(callee.function_type).pointee)
        error = self._get_excinfo_argument(builder.function)
        code = builder.call(callee, [result, error, *self._get_arg_packer(argtys).as_arguments(builder, args)])
        failed = builder.icmp_signed("!=", code, RETCODE_OK)
        status = Status(**(dict.fromkeys(Status._fields) | {"code": code, "is_error": failed}))
        return status, self.context.get_returned_value(builder, resty, builder.load(result))

    def return_status_propagate(self, builder: Any, status: Any) -> None:
        if status.is_ok is not None:
            super().return_status_propagate(builder, status)
        else:
            builder.ret(status.code)


@cache
def _context_of(kind: Any) -> Any:
    """A target context, of which a function that is lowered has a copy of its own, with another calling convention."""
    return type(kind.__name__, (kind,), {"call_conv": property(PartConvention)})


class PartBuilder(llvm.IRBuilder):
    """A builder that reads a member of a structure where it was put into it."""

    def extract_value(self, agg: Any, idx: Any, name: str = "") -> Any:
        found, index = agg, [idx] if isinstance(idx, int) else list(idx)
        while isinstance(found, InsertValue):
            if list(found.indices) == index:
                return found.value
            if found.indices[0] == index[0]:
                break
            found = found.aggregate
        return super().extract_value(agg, idx, name)


def _drop_unused(function: Any) -> None:
    """Leave out structures that nobody reads."""
    kinds = InsertValue, ExtractValue, LoadInstr
    uses: Counter[int] = Counter()
    for block in function.blocks:
        for each in block.instructions:
            values = each.operands if not isinstance(each, PhiInstr) else [value for value, _ in each.incomings]
            uses.update(map(id, values))
    everything = [each for block in function.blocks for each in block.instructions]
    unused = [each for each in everything if isinstance(each, kinds) and not uses[id(each)]]
    dropped = set()
    while unused:
        last = unused.pop()
        dropped.add(id(last))
        for value in last.operands:
            uses[id(value)] -= 1
            if not uses[id(value)] and isinstance(value, kinds):
                unused.append(value)
    for block in function.blocks:
        block.instructions[:] = [each for each in block.instructions if id(each) not in dropped]


class PartLower(Lower):
    """Where references are not counted, a variable is stored and not zeroed first."""

    def lower(self) -> None:
        #: values of ranges, with their first number, end and step, and of what an iterator returns, with both parts
        self._ranges: dict[int, Any] = {}
        self._pairs: dict[int, Any] = {}
        #: names of iterators: pointers to the next number and to how many are left, which may be below 0; the step
        self._iterators: dict[str, tuple[Any, Any, Any]] = {}
        kind: Any = type(self.context)
        self.context.__class__ = _context_of(kind)
        super().lower()

    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        self.builder.__class__ = PartBuilder
        # Of functions of bare arrays those with fast arithmetic are worth long code.
        if not self.context.fastmath and any(getattr(kind, "is_bare", False) for kind in fndesc.argtypes):
            self.function.attributes.add("optsize")

    def lower_normal_function(self, fndesc: Any) -> None:
        super().lower_normal_function(fndesc)
        _drop_unused(self.function)

    def _find_singly_assigned_variable(self) -> None:
        """Variables assigned once, in the block that uses them or in the first, are values; others are in memory."""
        blocks: dict[str, set[Any]] = defaultdict(set)
        assigned = Counter[str]()
        for number, block in self.blocks.items():
            for instruction in block.body:
                if isinstance(instruction, ir.Assign):
                    assigned[instruction.target.name] += 1
                for variable in instruction.list_vars():
                    blocks[variable.name].add(number)
        targets = {target for block in self.blocks.values() for target in block.terminator.get_targets()}
        first = min(self.blocks)
        if first not in targets and not self.context.enable_nrt:
            for instruction in self.blocks[first].body:
                if isinstance(instruction, ir.Assign):
                    blocks[instruction.target.name] = {first}
        self._singly_assigned_vars = {name for name, times in assigned.items() if times == 1 and len(blocks[name]) == 1}
        self._blk_local_varmap: dict[str, Any] = {}

    def pre_block(self, block: Any) -> None:
        self._cur_ir_block = block

    def lower_block(self, block: Any) -> None:
        for instruction in block.body:
            self.loc = instruction.loc
            if not isinstance(instruction, ir.Assign):
                self.lower_inst(instruction)
                continue
            name = instruction.target.name
            if (iterator := self._iterator(instruction.value)) is not None:
                self._iterators[name] = iterator
            else:
                self.storevar(self.lower_assign(self.typeof(name), instruction), name)

    def delvar(self, name: str) -> None:
        if name not in self._iterators:
            super().delvar(name)

    def storevar(self, value: Any, name: str, argidx: Any = None) -> None:
        if self.context.enable_nrt:
            super().storevar(value, name)
        elif name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self.getvar(name))

    def alloca_lltype(self, name: str, lltype: Any, datamodel: Any = None) -> Any:
        with self.builder.goto_entry_block():
            place = self.builder.alloca(lltype)
            if self.context.enable_nrt:
                self.builder.store(lltype(None), place)
        return place

    def lower_call(self, resty: Any, expr: Any) -> Any:
        function, signature = self.typeof(expr.func.name), self.fndesc.calltypes[expr]
        if not isinstance(function, types.Function | types.Dispatcher) or expr.target is not None:
            return super().lower_call(resty, expr)
        values = self.fold_call_args(function, signature, expr.args, expr.vararg, expr.kws)
        if getattr(function, "typing_key", None) is range and resty == types.range_state64_type:
            return self._range(values)
        found = self.context.get_function(function, signature)(self.builder, values, self.loc)
        found = self.context.get_dummy_value() if found is None else found
        return self.context.cast(self.builder, found, signature.return_type, resty)

    def lower_expr(self, resty: Any, expr: Any) -> Any:
        if expr.op == "iternext" and expr.value.name in self._iterators:
            return self._next(resty, *self._iterators[expr.value.name])
        if expr.op in ("pair_first", "pair_second") and id(pair := self.loadvar(expr.value.name)) in self._pairs:
            return self._pairs[id(pair)][1 + (expr.op == "pair_second")]
        return super().lower_expr(resty, expr)

    def _range(self, values: Any) -> Any:
        one, zero = _INT64(1), _INT64(0)
        first, end, step = ((zero, *values, one), (*values, one), values)[len(values) - 1]
        made = llvm.Constant(self.context.get_value_type(types.range_state64_type), llvm.Undefined)
        if not self.context.enable_nrt and isinstance(step, llvm.Constant) and step.constant in (1, -1):
            self._ranges[id(made)] = made, first, end, step  # its only use is the loop
            return made
        for index, each in enumerate((first, end, step)):
            made = self.builder.insert_value(made, each, index)
        return made

    def _iterator(self, value: Any) -> tuple[Any, Any, Any] | None:
        """Of a range with a constant step, or another name of one; None for any other value."""
        if isinstance(value, ir.Var):
            return self._iterators.get(value.name)
        if not (isinstance(value, ir.Expr) and value.op == "getiter" and self._ranges):
            return None
        found = self._ranges.get(id(self.loadvar(value.value.name)))
        if found is None:
            return None
        _, first, end, step = found
        with self.builder.goto_entry_block():
            number, left = self.builder.alloca(_INT64), self.builder.alloca(_INT64)
        self.builder.store(first, number)
        self.builder.store(self.builder.sub(*((end, first) if step.constant == 1 else (first, end))), left)
        return number, left, step

    def _next(self, kind: Any, number: Any, left: Any, step: Any) -> Any:
        """The next number, and whether there is one."""
        builder = self.builder
        count, now = builder.load(left), builder.load(number)
        builder.store(builder.sub(count, _INT64(1), flags=["nsw"]), left)
        builder.store(builder.add(now, step), number)
        pair = llvm.Constant(self.context.get_value_type(kind), llvm.Undefined)
        self._pairs[id(pair)] = pair, now, builder.icmp_signed(">", count, _INT64(0))
        return pair

    def lower_binop(self, resty: Any, expr: Any, op: Any) -> Any:
        if expr.static_lhs is not ir.UNDEFINED or expr.static_rhs is not ir.UNDEFINED:
            return super().lower_binop(resty, expr, op)
        signature = self.fndesc.calltypes[expr]
        return self._applied(op, signature, (expr.lhs, expr.rhs), resty)

    def lower_getitem(self, resty: Any, expr: Any, value: Any, index: Any, signature: Any) -> Any:
        return self._applied(operator.getitem, signature, (value, index), resty)

    def lower_setitem(self, target_var: Any, index_var: Any, value_var: Any, signature: Any) -> Any:
        return self._applied(operator.setitem, signature, (target_var, index_var, value_var))

    def _applied(self, op: Any, signature: Any, variables: Any, kind: Any = None) -> Any:
        """The result of an operator on variables, of a type if it has any."""
        context, key = self.context, (op, signature.args)
        if key not in _KNOWN:
            function = context.typing_context.resolve_value_type(op)
            _KNOWN[key] = function, function.get_call_type(context.typing_context, signature.args, {})
        values = [
            context.cast(self.builder, self.loadvar(each.name), self.typeof(each.name), wanted)
            for each, wanted in zip(variables, signature.args, strict=True)
        ]
        found = context.get_function(*_KNOWN[key])(self.builder, values)
        return found if kind is None else context.cast(self.builder, found, signature.return_type, kind)
