"""The command ``toolkit``: one file a command in ``talkface/commands``, found by name.

A file whose name would be a word of Python's has an underscore at its end.
"""

import importlib
import os
import sys
import traceback
from types import ModuleType
from typing import Annotated

import typer

from talkface import discover
from talkface.commands._options import FAILED, MISTAKEN, OK
from talkface.errors import ConfigError, TalkfaceError
from talkface.threads import one_thread

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Raw talking-face videos in, verified datasets out.",
)


@app.callback()
def debug_option(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Raw talking-face videos in, verified datasets out."""
    if debug:
        os.environ["TALKFACE_DEBUG"] = "1"


def command_names() -> list[str]:
    """Names of our own commands: the public modules of ``talkface/commands``."""
    return sorted(_modules())


def command_module(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f"talkface.commands.{_modules()[name]}")


def _modules() -> dict[str, str]:
    return {name.rstrip("_"): name for name in discover.own_names(discover.COMMANDS)}


def _register() -> None:
    for name in command_names():
        module = command_module(name)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(module.command)
    for name in discover.offered(discover.COMMANDS):
        app.command(name)(discover.load(discover.COMMANDS, name))


_register()


def main() -> None:
    """Run the command and leave at once: native threads of some libraries abort a process that takes its time."""
    one_thread()
    code = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run() -> int:
    """The exit code; a talkface error is one line, a traceback only with ``--debug``."""
    try:
        app()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else FAILED if exit_.code else OK
    except TalkfaceError as error:
        if os.environ.get("TALKFACE_DEBUG"):
            traceback.print_exc()
        else:
            typer.echo(f"{_known_as(error)}: {error}", err=True)
        return MISTAKEN if isinstance(error, ConfigError) else FAILED
    except Exception:
        traceback.print_exc()
        return FAILED
    return OK


def _known_as(error: TalkfaceError) -> str:
    """Name of its class, or of the nearest above it that is not private."""
    return next(cls.__name__ for cls in type(error).__mro__ if not cls.__name__.startswith("_"))


if __name__ == "__main__":
    main()
