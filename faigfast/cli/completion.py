"""`faigfast --print-shtab SHELL`: the script with which a shell completes commands and options."""

import sys
from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")
# Metavars of options whose values are files and folders.
FILES = ("FILE", "FILE.md")
FOLDERS = ("FOLDER",)


class PrintCompletion(Action):
    """Prints the script, by shtab, and ends."""

    def __init__(self, option_strings: Any, dest: str = SUPPRESS, **options: Any) -> None:
        super().__init__(option_strings, SUPPRESS, default=SUPPRESS, choices=SHELLS, **options)

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Print the script of the shell in `values`."""
        try:
            print(script(parser, values))
        except ModuleNotFoundError as error:
            if error.name != "shtab":
                raise
            print(
                "faigfast: error: completion needs shtab: pip install 'faigfast[cli]'",
                file=sys.stderr,
            )
            raise SystemExit(2) from None
        raise SystemExit(0)


def script(parser: ArgumentParser, shell: str) -> str:
    """Write the script of all commands; files and folders complete as such."""
    import shtab

    commands = next(a for a in parser._actions if a.dest == "command")
    for command in [parser, *dict(commands.choices or {}).values()]:
        for action in command._actions:
            if action.metavar in FOLDERS:
                action.complete = shtab.DIRECTORY
            elif action.metavar in FILES or action.dest in ("baseline", "target", "config"):
                action.complete = shtab.FILE
    return shtab.complete(parser, shell)
