"""URLs of brokers: the one parser."""

import dataclasses
import re
import urllib.parse

from oslo_config import cfg

import core.config
from core.addresses import ESCAPES, check_host, check_port, check_text, invalid

AMQP, AMQPS, IN_PROCESS = "amqp", "amqps", "inproc"
_EXPECTED = "amqp://user:password@host:port/vhost, amqps://… or inproc://NAME"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_LONGEST_VHOST_BYTES = 255  # AMQP 0-9-1: a short string.


@dataclasses.dataclass(frozen=True, slots=True)
class BrokerUrl:
    """One address of a broker. `host`: of `inproc` the broker's name.

    `user` and `password` None: the URL names none; `port` None: the usual one.
    """

    scheme: str
    user: str | None
    password: str | None
    host: str
    port: int | None
    vhost: str

    @property
    def shown(self) -> str:
        """The URL for people: without the password."""
        return self._with(f"{_quoted(self.user)}:***@" if self.user else "")

    def of(self, user: str, password: str) -> str:
        """The URL with which another user comes to the same place."""
        return self._with(f"{_quoted(user)}:{_quoted(password)}@")

    def _with(self, account: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        path = "" if self.scheme == IN_PROCESS else f"/{_quoted(self.vhost)}"
        return f"{self.scheme}://{account}{host}{port}{path}"


def parse(url: str, *, option: str = "the URL of the broker") -> list[BrokerUrl]:
    """The addresses of a broker, or of one cluster separated by `;`.

    Args:
        option: what errors call it.

    Raises:
        Invalid: none of our programs could connect to one of them.
    """
    return [_parse(one, option) for one in url.split(";")]


def configured(conf: cfg.ConfigOpts) -> str:
    """The setting `transport_url`.

    Raises:
        Invalid: it is not set, or no URL of a broker.
    """
    url = core.config.required(conf, None, "transport_url")
    parse(url, option="[DEFAULT] transport_url")
    return url


def _parse(url: str, option: str) -> BrokerUrl:
    check_text(url, option=option)
    try:
        parsed = urllib.parse.urlsplit(url)
        port = parsed.port
    except ValueError as error:
        raise invalid(option, f"is no URL of a broker: expected {_EXPECTED} ({ESCAPES})") from error
    if parsed.scheme not in (AMQP, AMQPS, IN_PROCESS):
        raise invalid(option, f"is no URL of a broker: expected {_EXPECTED}")
    if parsed.query or parsed.fragment or "?" in url or "#" in url:
        raise invalid(option, f"has options: a URL of a broker has none ({ESCAPES})")
    account = (parsed.username, parsed.password)
    user, password = (None if part is None else urllib.parse.unquote(part) for part in account)
    if parsed.scheme == IN_PROCESS:
        return BrokerUrl(IN_PROCESS, user or None, password, _name(parsed, option), None, "")
    check_host(parsed.hostname, option=option)
    check_port(port, option=option)
    if "/" in parsed.path[1:] and parsed.path != "//":
        raise invalid(option, "has a virtual host with a / of its own: written %2F")
    vhost = urllib.parse.unquote(parsed.path[1:]) or "/"
    if len(vhost.encode(errors="replace")) > _LONGEST_VHOST_BYTES:
        raise invalid(option, f"has a virtual host of more than {_LONGEST_VHOST_BYTES} bytes")
    return BrokerUrl(parsed.scheme, user or None, password, str(parsed.hostname), port, vhost)


def _name(parsed: urllib.parse.SplitResult, option: str) -> str:
    """Of the broker in a process; case counts, so it is not what urllib takes for the host."""
    name = parsed.netloc.rpartition("@")[2]
    if _NAME.fullmatch(name) is None or parsed.path not in ("", "/"):
        raise invalid(option, "names no broker: letters, digits, dots, hyphens and underscores after inproc://")
    return name


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
