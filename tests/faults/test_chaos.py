"""A short chaos: see tests/chaos for the long one."""

import os
import random
from collections.abc import Iterator

import pytest

from devstack import packages
from tests.faults import chaos
from tests.stack import cloud as clouds
from tests.stack.cloud import Cloud

SERVERS = 120
SEED = "CHAOS_SEED"
"""Environment variable that names the seed; a random one without it."""

pytestmark = [pytest.mark.stack, pytest.mark.mariadb, pytest.mark.rabbitmq]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    missing = packages.missing()
    if missing and os.geteuid() != 0:
        pytest.skip(f"the full profile needs Debian's packages {', '.join(missing)}, and only root can install them")
    with clouds.running(
        tmp_path_factory.mktemp("chaos") / "state", "--profile", "full", "--cells", str(chaos.CELLS)
    ) as cloud:
        yield cloud


@pytest.mark.timeout(900)
def test_nothing_is_lost_stuck_or_left_behind_in_chaos(stack: Cloud) -> None:
    seed = int(os.environ.get(SEED, random.SystemRandom().randrange(10**6)))
    print(f"{SEED}={seed}")
    chaos.lift_quota(stack)
    chaos.make_nervous(stack)

    print(chaos.run_round(stack, servers=SERVERS, rng=random.Random(seed), say=print))
