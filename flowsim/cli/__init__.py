"""The command line: arguments in, one call of the library, tables and files out; no numerics.

Each command is in its own module, imported when it is called, so that ``flowsim --help`` is fast. `options` are shared
options, `output` writes folders of results, `experiment`, `schema` and `registry` read experiment files.
"""

from __future__ import annotations

import atexit
import difflib
import gc
import importlib
import re
import sys
from typing import Any

import click

__all__ = ["main"]

#: command -> (module, one line of help). The module defines a click command of the same name.
COMMANDS = {
    "run": ("flowsim.cli.run", "Integrate a flow on a table; jumps, figure, files."),
    "derive": ("flowsim.cli.derive", "Everything that follows from a formula, step by step."),
    "explore": ("flowsim.cli.explore", "A local page: scale, noise, decay, depth and formula as sliders."),
    "limit": ("flowsim.cli.limit", "Flow against the limit of vanishing alpha: errors, rates, orbits, Lasso."),
    "compare": ("flowsim.cli.compare", "Gradient descent against the flow: distances, orders, sampled runs."),
    "report": ("flowsim.cli.report", "One HTML page of a run folder: figures, jumps, slider over runs."),
    "certify": ("flowsim.cli.certify", "The theorems of the papers on your data: predicted, measured, holds."),
    "reproduce": ("flowsim.cli.reproduce", "Experiments of the papers: figure, data, checks."),
    "sweep": ("flowsim.cli.sweep", "Compute an experiment file over its grid; killed runs resume."),
}
#: Threshold of the garbage collector: importing and compiling make 200,000 permanent objects, and Python's is 700.
_OBJECTS_BETWEEN_COLLECTIONS = 500_000
#: Names of options for arguments of the library: the first that a command has is used.
_SYNONYMS = {"path": ("data", "run_folder", "experiment"), "std": ("eta",), "t_end": ("horizon",)}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[name][0]), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            meant = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}; {meant}")
        if args and args[0] in COMMANDS:
            from flowsim.cli import first_use

            first_use.begin(args[0], args[1:])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Errors name options of the command line: `--eta` rather than `std`."""
        from flowsim.errors import IntegrationError

        try:
            return super().invoke(ctx)
        except (ValueError, IntegrationError) as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            if command is None:
                raise
            raise click.ClickException(" ".join(_in_options(str(error), command).split())) from error


def _in_options(message: str, command: click.Command) -> str:
    """A message of the library, with arguments replaced by the command's options."""
    message = re.sub(r"allow more with `\w+`, ", "", message)  # budgets are no options
    names = {
        name: max(each.opts, key=len) if isinstance(each, click.Option) else name.upper()
        for name, each in ((each.name or "", each) for each in command.params)
    }

    def renamed(match: re.Match[str]) -> str:
        for name in (match[1], *_SYNONYMS.get(match[1], ())):
            if name in names:
                return f"`{names[name]}{' ' + match[2] if match[2] else ''}`"
        return match[0]

    return re.sub(r"`([a-z_]+)(?:='([^`']+)')?`", renamed, message)


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="flowsim")
@click.pass_context
def flowsim(context: click.Context) -> None:
    """Gradient flows of noisy diagonal and two-layer linear networks, at any initialisation scale."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exit status 2 for invalid arguments, 1 for a flow that cannot be continued."""
    from flowsim.extras import MissingExtraError

    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    atexit.register(gc.freeze)  # as it ends, Python searches all objects for garbage: a quarter of a short run
    try:
        return flowsim.main(args=arguments, prog_name="flowsim", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("flowsim: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        click.echo(f"flowsim: {error.format_message()}", err=True)
        sys.exit(2 if isinstance(error.__cause__, ValueError) else error.exit_code)
    except (OSError, MissingExtraError) as error:
        click.echo(f"flowsim: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
