"""Where the programs print their tables."""

from rich.console import Console

NARROWEST = 120


def console() -> Console:
    """As wide as the terminal; without one (a file, a log) wide enough for every table."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=max(NARROWEST, terminal.width))
