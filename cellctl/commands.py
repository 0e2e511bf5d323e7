"""What all commands share: settings, one line for an error, exit codes, formatters without a scan for plugins."""

import argparse
import contextlib
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cliff.command
import cliff.lister
import cliff.show
from cliff._argparse import SmartHelpFormatter
from cliff.app import App
from cliff.formatters import commaseparated, json_format, table, value, yaml_format

import core.errors
from cellctl import arguments, cloud, exits, lines
from cellctl.shell_format import ShellFormatter
from cells.gate.answers import Silence, Unknown
from core.log import masked
from core.printable import printable


class _Parsing(cliff.command.Command):
    """A command with a parser of ours: the last of its bases, for those of cliff add their options to what it gives."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return arguments.Parser(
            prog=prog_name, description=self.get_description(), epilog=self.get_epilog(),
            formatter_class=SmartHelpFormatter, conflict_handler=self.conflict_handler,
        )  # fmt: skip


class _Frame(cliff.command.Command):
    """Runs one command: whatever it raises becomes one line and an exit code. `exit_codes`: what its help says of them.

    `columns`: what it shows; empty: that depends.
    """

    # Cliff looks for hooks of a command, and for who installed it, in every package there is: half a second for
    # nothing.
    app_dist_name = "cellplane"
    columns: Sequence[str] = ()
    exit_codes = ""

    def __init__(self, app: App, app_args: argparse.Namespace | None) -> None:
        super().__init__(app, app_args)
        self.exit_code = exits.DONE
        self._open = contextlib.ExitStack()

    def get_epilog(self) -> str:
        return self.exit_codes

    def run(self, parsed_args: argparse.Namespace) -> int:
        try:
            with self._open:
                # Before anything is done, for then it would be done and not shown.
                _refuse_unknown_columns(parsed_args, self.columns)
                return super().run(parsed_args) or self.exit_code
        except core.errors.CellplaneError as error:
            self.complain(error.message)
            return exits.code_of(error)
        except ValueError as error:
            # Cliff's own word for a column that is not there.
            self.complain(str(error))
            return exits.INVALID
        except BrokenPipeError:
            raise
        except OSError as error:
            self.complain(f"{error.strerror}{f': {error.filename}' if error.filename else ''}")
            return exits.REFUSED
        except Exception as error:
            if self.app.options.debug:
                print(masked(traceback.format_exc()), file=self.app.stderr)
            self.complain(f"unexpected {type(error).__name__} (--debug shows where)")
            return exits.REFUSED

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        arguments.refuse_environment(prog_name)
        return super().get_parser(prog_name)

    def cloud(self) -> cloud.Cloud:
        """The cloud that the settings name; let go of when the command ends."""
        return self._open.enter_context(cloud.Cloud(cloud.settings(self.app.options.config_files)))

    def say(self, text: str) -> None:
        """A line for the person at the terminal, beside the command's output."""
        if self.app.options.verbose_level:
            lines.remark(text, self.app.stderr)

    def complain_of(self, silence: Silence | Unknown, who: str | None = None) -> None:
        """A line about a cell, or whoever else, that did not answer; the command ends with 5 and shows what the others
        said."""
        self.complain(cloud.unanswered(who or f"cell {silence.cell.name}", silence).message)
        self.exit_code = exits.AWAY

    def say_if_cut(self, who: str, number: int, most: int) -> None:
        """A remark that there may be more than was asked for."""
        if number >= most:
            self.say(f"{who}: only the first {most}, there may be more")

    def complain(self, text: str) -> None:
        """A line about what went wrong."""
        lines.complain(text, self.app.stderr)


def _refuse_unknown_columns(parsed_args: argparse.Namespace, columns: Sequence[str]) -> None:
    for option, dest in (("--column", "columns"), ("--sort-column", "sort_columns")):
        for name in getattr(parsed_args, dest, ()):
            if columns and name.lower().strip().replace(" ", "_") not in columns:
                raise core.errors.Invalid(f"{option} {name} is none of the columns {', '.join(columns)}", field=option)


class _Printing:
    """A formatter that sends no text of somebody outside to the terminal that would do anything there but be seen."""

    def __init__(self, formatter: Any) -> None:
        self._formatter = formatter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._formatter, name)

    def emit_list(
        self, column_names: Any, data: Iterable[Iterable[object]], stdout: Any, parsed_args: argparse.Namespace
    ) -> None:
        """As cliff's."""
        self._formatter.emit_list(column_names, [tuple(map(_shown, row)) for row in data], stdout, parsed_args)

    def emit_one(self, column_names: Any, data: Iterable[object], stdout: Any, parsed_args: argparse.Namespace) -> None:
        """As cliff's."""
        self._formatter.emit_one(column_names, tuple(map(_shown, data)), stdout, parsed_args)


class Lines(str):
    """A text whose line breaks are ours."""


def _shown(value: object) -> object:
    if isinstance(value, Lines):
        return "\n".join(map(printable, value.split("\n")))
    return printable(value) if isinstance(value, str) else value


class _Formatter:
    """A formatter as cliff keeps plugins."""

    def __init__(self, name: str, formatter: Any) -> None:
        self.name = name
        self.obj = formatter if name in _ESCAPING else _Printing(formatter)


class _Formatters:
    """The formatters of the OpenStack client, named here instead of looked for among the installed packages."""

    def __init__(self, **kinds: Any) -> None:
        self._all = {name: _Formatter(name, kind()) for name, kind in kinds.items()}

    def names(self) -> list[str]:
        return list(self._all)

    def __getitem__(self, name: str) -> _Formatter:
        return self._all[name]

    def __iter__(self) -> Iterator[_Formatter]:
        return iter(self._all.values())


_ESCAPING = frozenset({"json", "yaml"})
"""Formats that write such characters as their rules say."""
_FOR_LISTS = {
    "table": table.TableFormatter,
    "json": json_format.JSONFormatter,
    "yaml": yaml_format.YAMLFormatter,
    "csv": commaseparated.CSVLister,
    "value": value.ValueFormatter,
}
_FOR_ONE = {
    "table": table.TableFormatter,
    "json": json_format.JSONFormatter,
    "yaml": yaml_format.YAMLFormatter,
    "shell": ShellFormatter,
    "value": value.ValueFormatter,
}


class Command(_Frame, _Parsing):
    """A command that does something and says so."""


class Lister(_Frame, cliff.lister.Lister, _Parsing):
    """A command that gives rows."""

    def _load_formatter_plugins(self) -> Any:
        return _Formatters(**_FOR_LISTS)


class ShowOne(_Frame, cliff.show.ShowOne, _Parsing):
    """A command that gives one thing."""

    def _load_formatter_plugins(self) -> Any:
        return _Formatters(**_FOR_ONE)
