"""`cellctl host credentials`: an account that a host can work with, made by the management API or by hand."""

import pathlib
import shlex
import stat
import uuid
from collections.abc import Iterator

import pytest

import api_db.cells
import api_db.hosts
import core.errors
from devstack.ports import free_port
from devstack.services import rabbitmq
from devstack.waiting import wait_until
from messaging import access
from messaging.broker import Broker
from messaging.channel import ChannelLost
from tests.cellctl.terminal import Terminal

BOSS = access.User("boss", tags="administrator")
HOST = "east-1.example.org"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq.RabbitMQ]:
    if not rabbitmq.is_installed():
        pytest.skip("RabbitMQ is not installed")
    node = rabbitmq.RabbitMQ(
        pathlib.Path(tmp_path_factory.mktemp("rabbitmq")),
        name=f"credentials-{uuid.uuid4().hex[:8]}",
        management_port=free_port(),
    )
    node.create_vhost("east", [BOSS, access.guest("api.east")])
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture
def east(cloud: Terminal, node: rabbitmq.RabbitMQ) -> Terminal:
    """A cloud whose cell east has a RabbitMQ."""
    cloud._update_cell("east", transport_url=node.url("east", "api.east"))
    return cloud


@pytest.fixture
def managed(east: Terminal, node: rabbitmq.RabbitMQ) -> Terminal:
    """One whose management API cellctl may use."""
    url = f"http://boss:{node.password('boss')}@127.0.0.1:{node._management_port}"
    east.configure(rabbitmq={"management_urls": f"east:{url}"})
    return east


def _opens(url: str) -> None:
    """Whether a host can work with it: it reads its own queue and reports, and does not read another's."""
    broker = Broker(url)
    link = broker.open(heartbeats=False)
    link.declare_work(f"compute.{HOST}")
    link.close()
    broker.publish("reports", b"{}", expires_s=1.0)
    other = broker.open(heartbeats=False)
    with pytest.raises(ChannelLost):
        other.consume("conductor", prefetch=1, no_ack=True, callback=print)
    other.drop()
    broker.close()


def _url_in(file: pathlib.Path) -> str:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    name, _, url = file.read_text().partition(" = ")
    assert name == "transport_url"
    return url.strip()


@pytest.fixture
def queues(node: rabbitmq.RabbitMQ) -> None:
    """What the conductor makes."""
    owner = Broker(node.url("east"))
    for queue in ("reports", "conductor", f"compute.{HOST}"):
        owner.declare(queue)
    owner.close()


@pytest.mark.rabbitmq
def test_credentials_are_made_once_renewed_when_asked_for_and_removed(
    managed: Terminal, node: rabbitmq.RabbitMQ, queues: None, tmp_path: pathlib.Path
) -> None:
    words = ("host", "credentials", HOST, "--cell", "east", "--file", str(tmp_path / "agent.conf"))

    assert managed.gets(*words, "--dry-run")["result"] == "would make new credentials"
    assert not (tmp_path / "agent.conf").exists()
    made = managed.does(*words)
    first = _url_in(tmp_path / "agent.conf")
    _opens(first)
    assert first.split(":")[2].partition("@")[0] not in made.out + made.err
    limits = node.control("list_user_limits", "--user", f"compute.{HOST}")
    assert '"max-connections":8' in limits and '"max-channels":16' in limits

    assert managed.gets(*words)["result"] == "kept, with its rights"
    unmapped = managed.runs("host", "credentials", HOST)
    assert unmapped.code == 2 and "--cell" in unmapped.err
    with managed.opened("api").transaction() as connection:
        api_db.hosts.insert(connection, [HOST], api_db.cells.find(connection, "east").uuid)
    assert managed.gets("host", "credentials", HOST)["result"] == "kept, with its rights"
    assert _url_in(tmp_path / "agent.conf") == first
    assert managed.gets(*words, "--renew")["result"] == "renewed"
    second = _url_in(tmp_path / "agent.conf")
    assert second != first
    _opens(second)
    with pytest.raises(core.errors.Unavailable):
        Broker(first).open()

    assert managed.gets(*words, "--remove", "--dry-run")["result"] == "would be removed"
    assert managed.gets(*words, "--remove")["result"] == "removed"
    assert managed.gets(*words, "--remove")["result"] == "was not there"
    with pytest.raises(core.errors.Unavailable):
        Broker(second).open()
    owner = Broker(node.url("east"))
    assert owner.waiting(f"compute.{HOST}") is None
    owner.close()


@pytest.mark.rabbitmq
def test_without_the_management_api_the_commands_are_shown(
    east: Terminal, node: rabbitmq.RabbitMQ, queues: None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("host", "credentials", HOST, "--cell", "east", "--file", "agent.conf")
    made = east.gets(*words)
    url = _url_in(tmp_path / "agent.conf")
    program, *arguments = shlex.split(made["run"])
    assert (program, arguments[0]) == ("rabbitmqctl", "import_definitions")
    assert stat.S_IMODE(pathlib.Path(arguments[1]).stat().st_mode) == 0o600
    assert url.split(":")[2].partition("@")[0] not in pathlib.Path(arguments[1]).read_text()

    node.control(*arguments)
    _opens(url)

    east.does(*words)
    assert _url_in(tmp_path / "agent.conf") == url, "a second run keeps the password"
    shown = east.gets("host", "credentials", HOST, "--cell", "east", "--remove")
    for line in shown["run"].splitlines():
        node.control(*shlex.split(line)[1:])
    wait_until(lambda: not _answers(url), what="end of the account", deadline_s=10.0)
    assert not list(tmp_path.glob("*.fresh"))


def _answers(url: str) -> bool:
    try:
        Broker(url).open(heartbeats=False).close()
    except core.errors.Unavailable:
        return False
    return True


def test_what_is_no_host_or_no_rabbitmq_is_refused(cloud: Terminal) -> None:
    cloud.host("west-1", "west")
    cloud.does("host", "discover")

    assert (
        cloud.runs("host", "credentials", "east-1", "--cell", "east").code == 2
    )  # its broker lives in the cloud's process
    assert cloud.runs("host", "credentials", "a/b", "--cell", "east").code == 2
    assert cloud.runs("host", "credentials", "west-1", "--cell", "east").code == 3
    assert cloud.runs("host", "credentials", "east-1", "--cell", "north").code == 4
    cloud.configure(rabbitmq={"management_urls": f"east:http://boss:hush@127.0.0.1:{free_port()}"})
    cloud._update_cell("east", transport_url="amqp://a:b@127.0.0.1/east")
    away = cloud.runs("host", "credentials", "east-1", "--cell", "east")
    assert away.code == 5
    assert "hush" not in away.err
