"""The image that a stack with real guests boots: built once by `guest_image.sh`, with a guest agent, and kept in the
user's cache."""

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

from core import errors

SCRIPT = Path(__file__).with_name("guest_image.sh")
BUILD_DEADLINE_S = 300.0


def cache() -> Path:
    """The directory that keeps the image, and the packages of which it is made."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cellplane"


def path() -> Path:
    """Where the image is once it was built; another script makes another image."""
    digest = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()[:16]
    return cache() / f"guest-{digest}-agent.qcow2"


def ensure() -> Path:
    """The image, built if it is not there.

    Raises:
        Unavailable: it could not be built.
    """
    image = path()
    if image.exists():
        return image
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "guest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            _build(image)
    return image


def _build(image: Path) -> None:
    fresh = image.with_suffix(".fresh")
    command = [str(SCRIPT), "-a", "-o", str(fresh), "-c", str(cache() / "debian")]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_DEADLINE_S, check=False
    )
    if result.returncode != 0:
        raise errors.Unavailable(f"the guest image could not be built: {(result.stderr or result.stdout)[-1000:]}")
    fresh.replace(image)
