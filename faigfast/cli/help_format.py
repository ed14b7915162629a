"""Help without the names of Python's types: commands in groups, options in one spelling."""

import shutil
from argparse import ONE_OR_MORE, SUPPRESS, ZERO_OR_MORE, Action
from collections.abc import Iterator, Sequence
from copy import copy
from textwrap import fill
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from faigfast.cli.command_groups import GROUPS

WIDTH = 100
COLUMN = 18  # of the summaries of commands


class HelpFormatter(DefaultHelpFormatter):
    """Shows a default where it says something, and of `--crop-to`, `--crop_to` the first."""

    def __init__(self, prog: str, **options: Any) -> None:
        options.setdefault("max_help_position", 28)
        options.setdefault("width", min(shutil.get_terminal_size().columns, WIDTH) - 2)
        super().__init__(prog, **options)

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        if action.option_strings and action.required:
            return f"{text} (required)"
        default = default_text(action.default)
        return text if not default or "default" in text else f"{text} (default: {default})"

    def _format_action(self, action: Action) -> str:
        if action.dest == "command":
            return overview(self._width)
        return super()._format_action(action)

    def _format_action_invocation(self, action: Action) -> str:
        one = copy(action)
        one.option_strings = list(spellings(action.option_strings))
        return super()._format_action_invocation(one)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("example:") else super()._fill_text(text, width, indent)

    def _format_args(self, action: Action, default_metavar: str) -> str:
        if action.nargs in (ONE_OR_MORE, ZERO_OR_MORE):
            name = self._metavar_formatter(action, default_metavar)(1)[0]
            return f"{name} ..." if action.nargs == ONE_OR_MORE else f"[{name} ...]"
        return super()._format_args(action, default_metavar)


def default_text(value: Any) -> str:
    """Write a default as on the command line; "" where there is none to show."""
    if value is None or value is SUPPRESS or isinstance(value, bool | dict):
        return ""
    values = value if isinstance(value, list | tuple) else [value]
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def spellings(names: Sequence[str]) -> Iterator[str]:
    """Leave out names with `_` where the same name with `-` is given."""
    for name in names:
        dashed = "--" + name[2:].replace("_", "-")
        if name == dashed or dashed not in names:
            yield name


def overview(width: int) -> str:
    """Write every command with its summary and an example, by groups."""
    from faigfast.cli.options import COMMANDS

    lines = []
    for title, examples in GROUPS.items():
        lines.append(f"  {title}")
        for name, example in examples.items():
            first = f"    {name}".ljust(COLUMN)
            text = COMMANDS[name][0].partition(". ")[0].rstrip(".") + "."
            indent = " " * COLUMN
            lines.append(fill(text, width, initial_indent=first, subsequent_indent=indent))
            lines.append(f"{indent}$ {example}")
        lines.append("")
    return "\n".join(lines)


def usage(command: ArgumentParser) -> str:
    """Write the words that a command needs; all other options are "[options]"."""
    words = ["%(prog)s"]
    for action in command._actions:
        if action.option_strings and action.required:
            words.append(f"{action.option_strings[0]} {action.metavar or action.dest.upper()}")
        elif not action.option_strings:
            name = action.dest.upper()
            words.append(f"[{name}]" if action.nargs == "?" else name)
    return " ".join([*words, "[options]"])
