"""What all commands share: settings, one line for an error, exit codes, formatters without a scan for plugins."""

import argparse
import contextlib
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import cliff.command
import cliff.lister
import cliff.show
from cliff.app import App
from cliff.formatters import commaseparated, json_format, table, value, yaml_format

import core.errors
from cellctl import cloud, exits, urls
from cellctl.shell_format import ShellFormatter
from core.printable import printable


class _Frame(cliff.command.Command):
    """Runs one command: whatever it raises becomes one line and an exit code. `exit_codes`: what its help says of them."""

    # Cliff looks for hooks of a command, and for who installed it, in every package there is: half a second for nothing.
    app_dist_name = "cellplane"
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
        except Exception as error:
            if self.app.options.debug:
                print(urls.masked(traceback.format_exc()), file=self.app.stderr)
            self.complain(f"unexpected {type(error).__name__} (--debug shows where)")
            return exits.REFUSED

    def cloud(self) -> cloud.Cloud:
        """The cloud that the settings name; let go of when the command ends."""
        return self._open.enter_context(cloud.Cloud(cloud.settings(self.app.options.config_files)))

    def say(self, text: str) -> None:
        """A line for the person at the terminal, beside the command's output."""
        if self.app.options.verbose_level:
            print(printable(urls.masked(text)), file=self.app.stderr, flush=True)

    def complain(self, text: str) -> None:
        """A line about what went wrong."""
        print(f"cellctl: {printable(urls.masked(' '.join(text.split())))}", file=self.app.stderr, flush=True)


class _Printing:
    """A formatter that sends no text of somebody outside to the terminal that would do anything there but be seen."""

    def __init__(self, formatter: Any) -> None:
        self._formatter = formatter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._formatter, name)

    def emit_list(self, column_names: Any, data: Iterable[Iterable[object]], stdout: Any, parsed_args: argparse.Namespace) -> None:
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


class Command(_Frame):
    """A command that does something and says so."""


class Lister(_Frame, cliff.lister.Lister):
    """A command that gives rows."""

    def _load_formatter_plugins(self) -> Any:
        return _Formatters(**_FOR_LISTS)


class ShowOne(_Frame, cliff.show.ShowOne):
    """A command that gives one thing."""

    def _load_formatter_plugins(self) -> Any:
        return _Formatters(**_FOR_ONE)
