"""A private Galera cluster: MariaDB servers on the loopback address that take each other's writes (Debian's galera-4,
and nothing else).

All nodes begin with the files of the first one, which has been a cluster of its own for a moment: so they know its
state, and what they lack comes from its cache of writes. No whole state ever moves, and so neither rsync nor a script
of MariaDB's is needed for it.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from devstack import ports
from devstack.services.mariadb import GALERA, MariaDB
from devstack.waiting import wait_until

METHOD = "same"
SYNCED_DEADLINE_S = 60.0
# Who is silent for 2 s is taken for gone. Galera refuses other proportions of these (evs: extended virtual synchrony).
_TIMES = (
    "evs.keepalive_period=PT0.5S;evs.inactive_check_period=PT0.5S;evs.suspect_timeout=PT2S;"
    "evs.install_timeout=PT4S;evs.inactive_timeout=PT6S"
)
# Both sides of a transfer run this (wsrep_sst_method): the donor says at which write it is, the joiner takes its word
# for it.
_SCRIPT = """#!/bin/sh
set -e
at=$(dirname "$0")/position
while [ $# -gt 0 ]; do
    case $1 in
        --role) role=$2; shift ;;
        --gtid) gtid=$2; shift ;;
    esac
    shift
done
if [ "$role" = donor ]; then
    echo "$gtid" > "$at.fresh"
    mv "$at.fresh" "$at"
    echo "done $gtid"
    exit
fi
rm -f "$at"
echo "ready 127.0.0.1"
while [ ! -e "$at" ]; do sleep 0.05; done
cat "$at"
"""


@contextlib.contextmanager
def running_cluster(directory: Path, *, nodes: int = 3) -> Iterator[list[MariaDB]]:
    """Inside the `with` so many nodes run, each with all writes of the others. They end with it."""
    scripts = directory / "scripts"
    scripts.mkdir(parents=True)
    script = scripts / f"wsrep_sst_{METHOD}"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    members = _members(directory, scripts, nodes)
    try:
        _start(members)
        yield members
    finally:
        for node in reversed(members):
            node.stop()


def _members(directory: Path, scripts: Path, number: int) -> list[MariaDB]:
    """The nodes, which do not run yet; the first begins a cluster, the others join it."""
    group_ports = [ports.free_port() for _ in range(number)]
    address = ",".join(f"127.0.0.1:{port}" for port in group_ports)
    path = f"{scripts}:{os.environ.get('PATH', os.defpath)}"
    members: list[MariaDB] = []
    for place, port in enumerate(group_ports):
        arguments = _arguments(name=f"node-{place}", group_port=port, address=address if place else "")
        like = members[0] if members else None
        members.append(MariaDB(directory / f"node-{place}", arguments=arguments, path=path, accounts_of=like))
    return members


def _arguments(*, name: str, group_port: int, address: str) -> list[str]:
    options = f"gmcast.listen_addr=tcp://127.0.0.1:{group_port};ist.recv_addr=127.0.0.1:{ports.free_port()};gcache.size=32M;{_TIMES}"
    return [
        "--wsrep-on=ON", f"--wsrep-provider={GALERA}", "--wsrep-cluster-name=cellplane",
        f"--wsrep-cluster-address=gcomm://{address}", f"--wsrep-node-name={name}", "--wsrep-node-address=127.0.0.1",
        f"--wsrep-provider-options={options}", f"--wsrep-sst-method={METHOD}", "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
    ]  # fmt: skip


def _start(members: Sequence[MariaDB]) -> None:
    first, *others = members
    first.start()
    first.stop()
    for node in others:
        node.initialise(like=first)
    for number, node in enumerate(members, start=1):
        node.start()
        wait_until(
            lambda node=node, number=number: is_synced(node, number),
            what=f"node of {number}",
            deadline_s=SYNCED_DEADLINE_S,
        )  # type: ignore[misc]


def is_synced(node: MariaDB, number: int) -> bool:
    """Whether the node serves, as one of so many."""
    status = dict(node.ask("SHOW STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_cluster_size')"))
    return (status.get("wsrep_ready"), status.get("wsrep_cluster_size")) == ("ON", str(number))


def isolate(node: MariaDB, is_isolated: bool) -> None:
    """The node and the others no longer reach each other, as if its network were gone; or they do again."""
    node.ask(f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={int(is_isolated)}'")
