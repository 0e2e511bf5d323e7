"""The socket the program is reached on: bound by itself, or handed over by whoever started it."""

import os
import socket

from oslo_config import cfg

import core.errors

BACKLOG = 1024
HANDED_OVER = 3
"""The descriptor of the first socket that is handed over: sd_listen_fds(3)."""


def listening_socket(conf: cfg.ConfigOpts) -> socket.socket:
    """The socket that was handed over, else one bound as configured.

    Who hands it over (systemd's socket units, a stack's supervisor) goes on listening while this program restarts, so
    that nobody is refused meanwhile.

    Raises:
        Invalid: the address can't be had.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return _handed_over()
    host, port = conf.api.listen_host, conf.api.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise core.errors.Invalid(f"can't listen on {host} port {port}: {error.strerror}", field="port") from error


def _handed_over() -> socket.socket:
    try:
        listening = socket.socket(fileno=HANDED_OVER)
    except OSError as error:
        raise core.errors.Invalid(f"the socket handed over can't be used: {error.strerror}", field="port") from error
    listening.set_inheritable(False)
    return listening
