"""The program: global options, the table of commands, exit codes."""

import argparse
import importlib.metadata
import itertools
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import cliff.app
import cliff.commandmanager

import core.log
import core.process
from cellctl import exits, lines
from cellctl.arguments import Parser
from cellctl.lines import PROGRAM
from core.log import masked

LONGEST_COMMAND = 2
MAX_LIKE = 8
CONFIG_FILE_VARIABLE = "CELLCTL_CONFIG_FILE"
DESCRIPTION = "Databases, cells and hosts of a Cellplane cloud."

# A command's module is loaded when it is run: Alembic, say, only for `db`.
COMMANDS = {
    "build abandon": "cellctl.build:AbandonBuilds",
    "build list": "cellctl.build:ListBuilds",
    "build resume": "cellctl.build:ResumeBuilds",
    "build show": "cellctl.build:ShowBuild",
    "cell create": "cellctl.cell:CreateCell",
    "cell delete": "cellctl.cell:DeleteCell",
    "cell disable": "cellctl.cell:DisableCell",
    "cell enable": "cellctl.cell:EnableCell",
    "cell list": "cellctl.cell:ListCells",
    "cell show": "cellctl.cell:ShowCell",
    "cell update": "cellctl.cell:UpdateCell",
    "cleanup forget": "cellctl.cleanup:ForgetCleanups",
    "cleanup list": "cellctl.cleanup:ListCleanups",
    "db sync": "cellctl.db:SyncDatabases",
    "db version": "cellctl.db:ListVersions",
    "dead-letter drop": "cellctl.dead_letter:DropDeadLetters",
    "dead-letter list": "cellctl.dead_letter:ListDeadLetters",
    "dead-letter requeue": "cellctl.dead_letter:RequeueDeadLetters",
    "dead-letter show": "cellctl.dead_letter:ShowDeadLetter",
    "explain": "cellctl.explain:Explain",
    "host accept": "cellctl.host:AcceptHost",
    "host credentials": "cellctl.credentials:HostCredentials",
    "host dedicate": "cellctl.host:DedicateHost",
    "host delete": "cellctl.host:DeleteHost",
    "host discover": "cellctl.host:DiscoverHosts",
    "host list": "cellctl.host:ListHosts",
    "host weight": "cellctl.host:WeighHost",
    "status": "cellctl.status:Status",
}
# What commands were called before release 0.2: understood, and in no help.
LEGACY = {f"queue {word}": f"dead-letter {word}" for word in ("drop", "list", "requeue", "show")}


class _Masked(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


class _Complaints(logging.Handler):
    """Shows what cliff itself has to complain of as our own complaints."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(logging.ERROR)
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        lines.complain(record.getMessage(), self._stream)


class Cellctl(cliff.app.App):
    """Cliff's application with our options; nothing is read or opened before a command needs it."""

    NAME = PROGRAM

    def __init__(self) -> None:
        manager = cliff.commandmanager.CommandManager()
        for name, place in COMMANDS.items():
            manager.commands[name] = importlib.metadata.EntryPoint(name, place, PROGRAM)
        for old_name, name in LEGACY.items():
            manager.add_legacy_command(old_name, name)
        super().__init__(DESCRIPTION, core.process.version(), manager, deferred_help=True)

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> argparse.ArgumentParser:
        parser = Parser(
            PROGRAM, description=description, epilog=exits.as_text(),
            formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False, allow_abbrev=False,
        )  # fmt: skip
        add = parser.add_argument
        add("--config-file", dest="config_files", metavar="FILE", action="append",
            help="settings; may be given several times; "
            f"default: the environment variable {CONFIG_FILE_VARIABLE}")  # fmt: skip
        add(
            "-v",
            "--verbose",
            dest="verbose_level",
            action="count",
            default=1,
            help="also log what libraries say; twice: events too",
        )
        add(
            "-q",
            "--quiet",
            dest="verbose_level",
            action="store_const",
            const=0,
            help="no remarks beside the output, errors only",
        )
        add("--debug", action="store_true", help="show where an unexpected error came from")
        add("--version", action="version", version=f"{PROGRAM} {version}")
        add("-h", "--help", dest="deferred_help", action="store_true", help="show this, or a command's options")
        return parser

    def configure_logging(self) -> None:
        """Warnings of libraries are noise beside a command's own words: -v shows them, -vv shows events, all masked."""
        level = {0: logging.CRITICAL, 1: logging.CRITICAL, 2: logging.WARNING, 3: logging.INFO}
        handler = logging.StreamHandler(self.stderr)
        handler.setFormatter(_Masked("%(levelname)s %(name)s: %(message)s"))
        logging.basicConfig(handlers=[handler], level=level.get(self.options.verbose_level, logging.DEBUG), force=True)
        self.LOG.setLevel(logging.ERROR)
        self.LOG.propagate = False
        self.LOG.handlers[:] = [_Complaints(self.stderr)]

    def initialize_app(self, argv: list[str]) -> None:
        if not self.options.config_files:
            self.options.config_files = [name for name in [os.environ.get(CONFIG_FILE_VARIABLE)] if name]

    def run_subcommand(self, argv: list[str]) -> int:
        """As cliff's, which names no unknown command on standard error, and shows values that may hold passwords."""
        is_help = argv[0] == "help"
        named = list(itertools.takewhile(lambda word: not word.startswith("-"), argv[is_help:]))
        if not named and not is_help:
            self.parser.error(f"unrecognized arguments: {argv[0].partition('=')[0]}")
        if named and not self._knows(named, part=is_help):
            like = ", ".join(self._like(named[0]))
            self.parser.error(
                f"there is no command {' '.join(named[:LONGEST_COMMAND])}" + (f"; is it {like}?" if like else "")
            )
        return int(super().run_subcommand(["help", *named] if is_help else argv))

    def _like(self, word: str) -> list[str]:
        """Some commands that may be meant."""
        return [name for name in self.get_fuzzy_matches(word) if name in COMMANDS][:MAX_LIKE]

    def _knows(self, words: list[str], *, part: bool) -> bool:
        """Whether the words begin with the name of a command; `part`: or are the beginning of one."""
        if part and any(name.startswith(words[0]) for name, _ in self.command_manager):
            return True
        try:
            self.command_manager.find_command(words)
        except ValueError:
            return False
        return True

    def interact(self) -> None:
        """Without a command there is nothing to do; cliff would open a prompt."""
        self.parser.print_help(self.stderr)
        raise SystemExit(exits.INVALID)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    try:
        return Cellctl().run(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as end:  # argparse: usage, --help, --version
        return end.code if isinstance(end.code, int) else exits.DONE


if __name__ == "__main__":
    sys.exit(main())
