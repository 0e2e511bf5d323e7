"""libvirt behind the interface of all drivers."""
