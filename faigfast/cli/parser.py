"""The parser of all commands, and its errors in one line."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from faigfast.cli.command_groups import EXAMPLES
from faigfast.cli.completion import PrintCompletion
from faigfast.cli.help_format import HelpFormatter, spellings, usage
from faigfast.cli.options import COMMANDS
from faigfast.cli.wrong_arguments import explain
from faigfast.version import __version__


class CommandParser(ArgumentParser):
    """Takes options with `-` and with `_`; reports wrong arguments in one line."""

    words: Sequence[str] = ()  # as last parsed

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=HelpFormatter, print_config="--print-config", allow_abbrev=True,
            **options,
        )  # fmt: skip

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Parse words, and keep them for the message of an error."""
        self.words = list(args or ())
        return super().parse_args(args, *others, **options)

    def add_option(self, *names: str, **options: Any) -> None:
        """Add an option; one with `_` in its name is spelled with `-` too."""
        if names[0].startswith("--") and "_" in names[0]:
            names = ("--" + names[0][2:].replace("_", "-"), *names)
        self.add_argument(*names, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Complain in one line, and end with 2."""
        name = next((word for word in self.words if word in COMMANDS), None)
        parser = self
        if self._subcommands_action is not None and name is not None:
            parser = self._subcommands_action.choices[name]
        options = list(spellings(list(parser._option_string_actions)))
        text = explain(" ".join(message.split()), list(COMMANDS), options)
        complain(f"{text} ({parser.prog} --help)")
        raise SystemExit(2)

    def _get_option_tuples(self, option_string: str) -> Any:
        """Count the two spellings of an abbreviated option once."""
        by_action = {id(match[0]): match for match in super()._get_option_tuples(option_string)}
        return list(by_action.values())


def build_parser() -> ArgumentParser:
    """Make the parser of all commands; each takes `--config FILE.yaml` and `--print-config`."""
    parser = CommandParser(
        prog="faigfast",
        version=__version__,
        usage="%(prog)s COMMAND [options]",
        description="Filter attribution with integrated gradients (FAIG): which filters of a "
        "restoration network remove which degradation.",
        epilog="faigfast COMMAND --help explains the options of a command.",
    )
    parser.add_argument(
        "--print-shtab", action=PrintCompletion, help="print the script of completion in a shell"
    )
    commands = parser.add_subcommands(dest="command", title="commands", description=None)
    for name, (text, add_arguments) in COMMANDS.items():
        command = CommandParser(description=text, epilog=f"example:\n  {EXAMPLES[name]}")
        command.add_argument(
            "--config",
            action="config",
            metavar="FILE",
            help="YAML file of options; what stands on the command line overrides it",
        )
        add_arguments(command.add_option)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        commands.add_subcommand(name, command, help=text)
        command.prog = f"faigfast {name}"
        command.usage = usage(command)
    return parser


def complain(message: str) -> None:
    """Print an error in one line on stderr."""
    print(f"faigfast: error: {message}", file=sys.stderr)
