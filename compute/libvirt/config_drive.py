"""The files of a server's config drive, as OpenStack guests read them (volume label config-2)."""

import base64
import binascii
import json
from typing import Any

from objects.build import BuildSpec

LABEL = "config-2"
VERSIONS = ("2018-08-27", "latest")
"""What cloud-init asks for first, and what everything else asks for."""


def files_of(spec: BuildSpec, *, random_seed: bytes) -> dict[str, bytes]:
    """Content by path below the drive's root."""
    files = {
        "meta_data.json": _json(meta_data(spec, random_seed=random_seed)),
        "network_data.json": _json({"links": [], "networks": [], "services": []}),
        "vendor_data.json": _json({}),
        "vendor_data2.json": _json({}),
    }
    user_data = _user_data(spec)
    if user_data is not None:
        files["user_data"] = user_data
    return {f"openstack/{version}/{name}": content for version in VERSIONS for name, content in files.items()}


def meta_data(spec: BuildSpec, *, random_seed: bytes) -> dict[str, Any]:
    """The document meta_data.json."""
    document: dict[str, Any] = {
        "uuid": spec.uuid,
        "name": spec.name,
        "hostname": spec.hostname,
        "launch_index": spec.launch_index,
        "availability_zone": spec.availability_zone or "nova",
        "project_id": spec.project_id,
        "random_seed": base64.b64encode(random_seed).decode(),
        "devices": [],
        "dedicated_cpus": [],
    }
    if spec.reservation_id:
        document["reservation_id"] = spec.reservation_id
    if spec.metadata:
        document["meta"] = dict(spec.metadata)
    if spec.public_key:
        name = spec.key_name or "key"
        document["public_keys"] = {name: spec.public_key}
        document["keys"] = [{"name": name, "type": "ssh", "data": spec.public_key}]
    return document


def _user_data(spec: BuildSpec) -> bytes | None:
    if not spec.user_data:
        return None
    try:
        return base64.b64decode(spec.user_data, validate=False)
    except binascii.Error:
        # The API has checked it; should it be wrong all the same, the guest sees what the user sent.
        return spec.user_data.encode()


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
