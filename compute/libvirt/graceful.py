"""How a guest is asked to shut itself down or to start anew: as by the buttons of a machine, which it may not hear."""

from collections.abc import Callable

import core.errors
from compute.deadline import Deadline
from compute.libvirt import domain_power, domains
from compute.libvirt.connection import Libvirt

_LOOK_S = 0.5
_PRESS_AGAIN_S = 5.0
# Of the deadline, this part is kept for cutting the guest off.
_KEPT_FOR_FORCE = 0.5


def shut_down(libvirt: Libvirt, uuid: str, deadline: Deadline, *, patience_s: float) -> bool:
    """Whether the guest reacts to its power button in time. A guest that still boots does not hear it: it is pressed
    again."""
    return _reacts(
        libvirt,
        deadline,
        patience_s,
        press=lambda: domain_power.press_power_button(libvirt, uuid, deadline),
        has_reacted=lambda: not domains.known(libvirt, uuid, deadline).has_process,
    )


def reboot(libvirt: Libvirt, uuid: str, deadline: Deadline, *, patience_s: float) -> bool:
    """Whether the guest shuts itself down in time and runs again; not, if its process ended instead: it has to be
    started."""
    before = libvirt.reboots(uuid)
    has_reacted = _reacts(
        libvirt,
        deadline,
        patience_s,
        press=lambda: domain_power.ask_to_reboot(libvirt, uuid, deadline),
        has_reacted=lambda: libvirt.reboots(uuid) > before or not domains.known(libvirt, uuid, deadline).has_process,
    )
    return has_reacted and domains.known(libvirt, uuid, deadline).has_process


def _reacts(
    libvirt: Libvirt,
    deadline: Deadline,
    patience_s: float,
    *,
    press: Callable[[], None],
    has_reacted: Callable[[], bool],
) -> bool:
    patience = Deadline(attempt=deadline.attempt, deadline_s=min(patience_s, deadline.left_s() * _KEPT_FOR_FORCE))
    pressed_at_s = float("inf")
    while patience.left_s() > 0:
        news = libvirt.news_count()
        if has_reacted():
            return True
        if pressed_at_s - patience.left_s() >= _PRESS_AGAIN_S:
            pressed_at_s = patience.left_s()
            try:
                press()
            except core.errors.WrongState:
                continue  # It went off at this moment.
        deadline.check()
        libvirt.wait_for_news(news, min(_LOOK_S, patience.left_s()))
    return has_reacted()
