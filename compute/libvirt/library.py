"""libvirt-python, which is an extra of ours: None where it is not installed."""

try:
    import libvirt
except ImportError:
    # `compute.libvirt.connection.Libvirt` says so when it is wanted.
    libvirt = None

__all__ = ["libvirt"]
