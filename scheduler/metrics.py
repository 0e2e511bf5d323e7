"""What hosts measure of themselves, by Nova's names."""

from collections.abc import Callable, Mapping, Sequence

import core.errors
from scheduler.aggregates import number
from scheduler.hosts import HostState

METRICS: Mapping[str, Callable[[HostState], float | None]] = {"cpu.percent": lambda host: host.cpu_percent}


def ratios_of(settings: Sequence[str]) -> dict[str, float]:
    """Metric -> how much it counts, from `cpu.percent=-1.0`.

    Raises:
        Invalid: one is of no such form, or hosts have no such metric.
    """
    ratios = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        ratio = number(text)
        if name not in METRICS or ratio is None:
            raise core.errors.Invalid(
                f"metrics_weight_setting {setting[:64]!r} is no NAME=NUMBER; names: {', '.join(METRICS)}",
                field="metrics_weight_setting",
            )
        ratios[name] = ratio
    return ratios


def weight_with(ratios: Mapping[str, float], unavailable: float) -> Callable[[HostState], float]:
    """What a host's metrics add up to; `unavailable`: where it does not say one of them."""

    def weight(host: HostState) -> float:
        values = [(METRICS[name](host), ratio) for name, ratio in ratios.items()]
        known = [value * ratio for value, ratio in values if value is not None]
        return sum(known) if len(known) == len(values) else unavailable

    return weight
