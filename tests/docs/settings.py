"""The settings of every program as a page: `python -m tests.docs.settings > docs/operations/settings.md`. A test keeps
both alike."""

from collections.abc import Iterator, Sequence

from oslo_config import cfg

import api.settings
import cellctl.cloud
import compute.main
import conductor.cell.main
import conductor.superconductor.main
import console.main
from core.config import OptionGroup

PROGRAMS: dict[str, Sequence[OptionGroup]] = {
    "cellplane-api": api.settings.options(),
    "cellplane-super-conductor": conductor.superconductor.main.options(),
    "cellplane-cell-conductor": conductor.cell.main.options(),
    "cellplane-compute": compute.main.options(),
    "cellplane-console-proxy": console.main.options(),
    "cellctl": cellctl.cloud.OPTIONS,
}

_HEAD = """\
# Settings

Made from the option tables in the code by `python -m tests.docs.settings > docs/operations/settings.md`.

Each program reads only the INI files that `--config-file` names. The option may be given several times, and the last value of a setting is used. If a
required setting has no value, the program does not start, and its message names the setting. Every program also takes
oslo.log's options in `[DEFAULT]`: [running.md](running.md#logs).
"""


def page() -> str:
    """The page, whole."""
    return "\n".join([_HEAD, *(line for name, groups in PROGRAMS.items() for line in _program(name, groups))])


def _program(name: str, groups: Sequence[OptionGroup]) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield "| section | option | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for group in groups:
        for option in group.options:
            yield f"| {group.name or 'DEFAULT'} | {option.name} | {_default(option)} | {_meaning(option)} |"
    yield ""


def _default(option: cfg.Opt) -> str:
    if option.name == "host":
        return "the machine's name"
    return "" if option.default is None else f"`{option.default}`"


def _meaning(option: cfg.Opt) -> str:
    choices = getattr(option.type, "choices", None)
    return str(option.help) + (f" One of: {', '.join(choices)}." if choices else "")


if __name__ == "__main__":
    print(page(), end="")
