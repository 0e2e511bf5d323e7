"""What the host reports that it has to give."""

import ipaddress

from oslo_config import cfg

from compute.hypervisor.hypervisor import Capacity
from objects.host import Inventory, node_uuid


def inventory(conf: cfg.ConfigOpts, capacity: Capacity) -> Inventory:
    """The hypervisor's capacity with the operator's ratios and reserves."""
    settings = conf.compute
    return Inventory(
        node_uuid=node_uuid(conf.host),
        hypervisor_hostname=conf.host,
        hypervisor_type=capacity.hypervisor_type,
        hypervisor_version=capacity.hypervisor_version,
        vcpus=capacity.vcpus,
        memory_mib=capacity.memory_mib,
        disk_gib=capacity.disk_gib,
        reserved_vcpus=min(settings.reserved_vcpus, capacity.vcpus),
        reserved_memory_mib=min(settings.reserved_memory_mib, capacity.memory_mib),
        reserved_disk_gib=min(settings.reserved_disk_gib, capacity.disk_gib),
        cpu_allocation_ratio=settings.cpu_allocation_ratio,
        ram_allocation_ratio=settings.ram_allocation_ratio,
        disk_allocation_ratio=settings.disk_allocation_ratio,
        host_ip=str(ipaddress.ip_address(settings.host_ip)),
        cpu_info=capacity.cpu_info,
        traits=list(capacity.traits),
        dedicated_cpus=min(capacity.dedicated_cpus, capacity.vcpus),
        page_sizes_kib=list(capacity.page_sizes_kib),
    )
