"""What answers hold, route by route and microversion by microversion: closed schemas, written down a second time from
the Compute API reference, so that no table of ours judges itself.

The notation: `name:type`, `name{fields}` an object, `name[fields]` a list of objects, `{*:type}` any keys; `?` may be
missing; `@N+`, `@-N` and `@A-B` the microversions that have the field. Types: `str int num bool null time micro uuid
any obj nothing list links`, several with `/`, `list<type>`, and `=word` for one of the words.
"""

import functools
import re
from typing import Any

import jsonschema

from api.http.routes import Router
from api.http.versions import MAX, Microversion
from api.resources.table import RESOURCES
from tests.api.http.harness import Reply

ZULU = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
MICRO = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})$"
UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
LINK = {
    "type": "object",
    "properties": {
        "rel": {"type": "string"},
        "href": {"type": "string", "pattern": "^https?://"},
        "type": {"type": "string"},
    },
    "required": ["rel", "href"],
    "additionalProperties": False,
}
TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "num": {"type": "number"},
    "bool": {"type": "boolean"},
    "null": {"type": "null"},
    "time": {"type": "string", "pattern": ZULU},
    "micro": {"type": "string", "pattern": MICRO},
    "uuid": {"type": "string", "pattern": UUID},
    "any": {},
    "obj": {"type": "object"},
    "nothing": {"type": "object", "maxProperties": 0},
    "list": {"type": "array"},
    "links": {"type": "array", "items": LINK, "minItems": 1},
}

# ---- the answers -----------------------------------------------------------------------------------------------------

_ADDRESSES = "{*[addr:str, version:int, OS-EXT-IPS:type?:str, OS-EXT-IPS-MAC:mac_addr?:str]}"
_FLAVOR = "vcpus:int, ram:int, disk:int, ephemeral:int, swap:int, original_name:str, extra_specs?{*:str}"
_EVERYWHERE = f"""
    id:uuid, name:str, status:str, tenant_id:str, user_id:str, created:time, updated:time, hostId:str, links:links,
    metadata{{*:str}}, addresses{_ADDRESSES}, accessIPv4:str, accessIPv6:str, OS-DCF:diskConfig:=AUTO=MANUAL,
    image@-97:=/<id:str, links:links>, image@98+:=/<id:str, links:links, properties{{*:str}}>,
    flavor@-46{{id:str, links:links}}, flavor@47+{{{_FLAVOR}}}, progress?:int,
    fault?{{code:int, created:time, message:str, details?:str}},
    locked@9+:bool, description@19+:str/null, tags@26+:list<str>, trusted_image_certificates@63+:list<str>/null,
    locked_reason@73+:str/null, pinned_availability_zone@96+:str/null, scheduler_hints@100+:obj
"""
_MORE = """
    OS-EXT-AZ:availability_zone{late}:str, config_drive{late}:str, OS-SRV-USG:launched_at{late}:micro/null,
    OS-SRV-USG:terminated_at{late}:micro/null, OS-EXT-STS:task_state{late}:str/null, OS-EXT-STS:vm_state{late}:str,
    OS-EXT-STS:power_state{late}:int, os-extended-volumes:volumes_attached{late}[id:uuid, delete_on_termination:bool],
    security_groups?{late}[name:str], OS-EXT-SRV-ATTR:host?{late}:str/null, OS-EXT-SRV-ATTR:instance_name?{late}:str,
    OS-EXT-SRV-ATTR:hypervisor_hostname?{late}:str/null, OS-EXT-SRV-ATTR:reservation_id?{third}:str/null,
    OS-EXT-SRV-ATTR:launch_index?{third}:int, OS-EXT-SRV-ATTR:hostname?{early}:str/null, OS-EXT-SRV-ATTR:hostname@90+:str/null,
    OS-EXT-SRV-ATTR:kernel_id?{third}:str, OS-EXT-SRV-ATTR:ramdisk_id?{third}:str,
    OS-EXT-SRV-ATTR:root_device_name?{third}:str/null, host_status?{sixteenth}:=UP=DOWN=MAINTENANCE=UNKNOWN=
"""
_SHOWN = _EVERYWHERE + "," + _MORE.format(late="", third="@3+", early="@3-89", sixteenth="@16+")
_CHANGED = _EVERYWHERE + "," + _MORE.format(late="@75+", third="@75+", early="@75-89", sixteenth="@75+")
_DETAIL = f"{_SHOWN}, key_name:str/null, OS-EXT-SRV-ATTR:user_data?@3+:str/null"
_SHOW = f"{_DETAIL}, server_groups@71+:list<uuid>"
_UPDATED = f"{_CHANGED}, key_name@75+:str/null, OS-EXT-SRV-ATTR:user_data?@75+:str/null, server_groups@71+:list<uuid>"
_REBUILT = f"{_CHANGED}, key_name@54+:str/null, user_data@57+:str/null, server_groups@71+:list<uuid>, adminPass?:str"

_FLAVORS = """
    id:str, name:str, ram:int, disk:int, vcpus:int, swap@-74:int/=, swap@75+:int, OS-FLV-EXT-DATA:ephemeral:int,
    OS-FLV-DISABLED:disabled@-101:bool, rxtx_factor@-101:num, os-flavor-access:is_public:bool, links:links,
    description@55+:str/null, extra_specs?@61+{*:str}
"""
_KEYPAIR = "fingerprint:str, name:str, public_key:str, type@2+:=ssh=x509"
_GROUP = """
    id:uuid, name:str, members:list<uuid>, metadata@-63:obj, policies@-63:list<str>, project_id@13+:str, user_id@13+:str,
    policy@64+:=affinity=anti-affinity=soft-affinity=soft-anti-affinity, rules@64+{max_server_per_host?:int}
"""
_ACTION = """
    action:str, instance_uuid:uuid, message:str/null, project_id:str/null, request_id:str, start_time:micro,
    user_id:str/null, updated_at@58+:micro/null
"""
_EVENTS = """
    event:str, finish_time:micro/null, result:str/null, start_time:micro, traceback?:str/null, hostId@62+:str,
    host?@62+:str/null, details?@84+:str/null
"""
_AGGREGATE = """
    id:int, name:str, availability_zone:str/null, created_at:micro, updated_at:micro/null, deleted:bool, deleted_at:null,
    uuid@41+:uuid
"""
_WHOLE_AGGREGATE = f"aggregate{{{_AGGREGATE}, hosts:list<str>, metadata{{*:str}}}}"
_NUMBERED = "id@-52:int, id@53+:uuid"
_HYPERVISOR = (
    f"{_NUMBERED}, hypervisor_hostname:str, state:=up=down, status:=enabled=disabled, servers?@-52[name:str, uuid:uuid]"
)
_HYPERVISOR_NOW = _HYPERVISOR.replace("servers?@-52", "servers?")
_WHOLE_HYPERVISOR = f"""
    {_HYPERVISOR_NOW}, hypervisor_type:str, hypervisor_version:int, host_ip:str/null,
    service{{{_NUMBERED}, host:str, disabled_reason:str/null}}, cpu_info@-27:str, cpu_info@28-87:obj, vcpus@-87:int,
    vcpus_used@-87:int, memory_mb@-87:int, memory_mb_used@-87:int, free_ram_mb@-87:int, local_gb@-87:int,
    local_gb_used@-87:int, free_disk_gb@-87:int, disk_available_least@-87:int/null, running_vms@-87:int,
    current_workload@-87:int, uptime@88+:str/null
"""
_SERVICE = """
    id@-52:int, id?@53+:uuid, binary:str, host:str, status:=enabled=disabled=UNKNOWN, zone?:str, state?:=up=down,
    updated_at?:micro/null, disabled_reason?:str/null, forced_down?@11+:bool
"""
_QUOTA = "instances:{0}, cores:{0}, ram:{0}, metadata_items:{0}, key_pairs:{0}"
_INJECTED = "injected_files@-56:{0}, injected_file_content_bytes@-56:{0}, injected_file_path_bytes@-56:{0}"
_OF_NETWORKS = "fixed_ips@-{1}:{0}, floating_ips@-{1}:{0}, security_groups@-{1}:{0}, security_group_rules@-{1}:{0}"
_GROUPS = "server_groups{1}:{0}, server_group_members{1}:{0}"


def _quota(kind: str, *, networks_until: int = 35, groups: str = "") -> str:
    return ", ".join(
        [
            _QUOTA.format(kind),
            _INJECTED.format(kind),
            _OF_NETWORKS.format(kind, networks_until),
            _GROUPS.format(kind, groups),
        ]
    )


_LIMIT, _USAGE = _quota("int"), _quota("<in_use:int, limit:int, reserved:int>")
_CLASS = _quota("int", networks_until=49, groups="@50+")
_PAGE = "links?:links"
_LOG = """
    hosts_not_run:list<str>, log:obj, num_hosts:int, num_hosts_done:int, num_hosts_not_run:int, num_hosts_running:int,
    overall_status:str, period_beginning:str, period_ending:str, total_errors:int, total_instances:int
"""
_IMAGE = """
    id:uuid, name:str, minRam:int, minDisk:int, metadata{*:str}, created:str, updated:str, status:str, progress:int,
    OS-EXT-IMG-SIZE:size:int, server?{id:str, links:links}, OS-DCF:diskConfig?:=AUTO=MANUAL, links:links
"""
_SERVER_USAGE = """
    instance_id:uuid, name:str, tenant_id:str, flavor:str, vcpus:int, memory_mb:int, local_gb:int, hours:num, uptime:int,
    started_at:micro, ended_at:micro/null, state:str
"""
_PROJECT_USAGE = f"""
    tenant_id:str, start:micro, stop:micro, total_hours:num, total_vcpus_usage:num, total_memory_mb_usage:num,
    total_local_gb_usage:num, server_usages?[{_SERVER_USAGE}]
"""
_CONSOLE = "console{type:str, url:str}"
_EXTENSION = "alias:str, name:str, description:str, namespace:str, updated:time, links:list"
_VERSION = "id:str, status:=CURRENT=SUPPORTED=DEPRECATED, version:str, min_version:str, updated:time, links:links"

ANSWERS: dict[str, str] = {
    "GET /servers": "servers[id:uuid, name?:str, status?@69+:=UNKNOWN, links:links], servers_links?:links",
    "POST /servers": """server?{id:uuid, links:links, OS-DCF:diskConfig:=AUTO=MANUAL, security_groups[name:str], adminPass?:str},
        reservation_id?:str""",
    "GET /servers/detail": f"servers[{_DETAIL}], servers_links?:links",
    "GET /servers/{}": f"server{{{_SHOW}}}",
    "PUT /servers/{}": f"server{{{_UPDATED}}}",
    "POST /servers/{}/action rebuild": f"server{{{_REBUILT}}}",
    "POST /servers/{}/action createImage": "image_id@45+:uuid",
    "POST /servers/{}/action rescue": "adminPass?:str",
    "POST /servers/{}/action os-getConsoleOutput": "output:str",
    "POST /servers/{}/action os-getVNCConsole": _CONSOLE,
    "POST /servers/{}/action os-getSPICEConsole": _CONSOLE,
    "POST /servers/{}/action os-getSerialConsole": _CONSOLE,
    "POST /servers/{}/remote-consoles": "remote_console{protocol:str, type:str, url:str}",
    "GET /servers/{}/metadata": "metadata{*:str}",
    "POST /servers/{}/metadata": "metadata{*:str}",
    "PUT /servers/{}/metadata": "metadata{*:str}",
    "GET /servers/{}/metadata/{}": "meta{*:str}",
    "PUT /servers/{}/metadata/{}": "meta{*:str}",
    "GET /servers/{}/tags": "tags:list<str>",
    "PUT /servers/{}/tags": "tags:list<str>",
    "GET /servers/{}/ips": f"addresses{_ADDRESSES}",
    "GET /servers/{}/topology": "nodes[memory_mb:int, siblings:list, vcpu_set:list<int>], pagesize_kb:int/null",
    "GET /servers/{}/os-server-password": "password:str",
    "GET /servers/{}/os-instance-actions": f"instanceActions[{_ACTION}], links?@58+:links",
    "GET /servers/{}/os-instance-actions/{}": f"instanceAction{{{_ACTION}, events?@-50[{_EVENTS}], events@51+[{_EVENTS}]}}",
    "GET /os-console-auth-tokens/{}": "console{instance_uuid:uuid, host:str/null, port:int, internal_access_path:str/null, tls_port@99+:int/null}",
    "GET /os-server-groups": f"server_groups[{_GROUP}]",
    "POST /os-server-groups": f"server_group{{{_GROUP}}}",
    "GET /os-server-groups/{}": f"server_group{{{_GROUP}}}",
    "GET /flavors": "flavors[id:str, name:str, links:links, description@55+:str/null], flavors_links?:links",
    "POST /flavors": f"flavor{{{_FLAVORS}}}",
    "GET /flavors/detail": f"flavors[{_FLAVORS}], flavors_links?:links",
    "GET /flavors/{}": f"flavor{{{_FLAVORS}}}",
    "PUT /flavors/{}": f"flavor{{{_FLAVORS}}}",
    "POST /flavors/{}/action addTenantAccess": "flavor_access[flavor_id:str, tenant_id:str]",
    "POST /flavors/{}/action removeTenantAccess": "flavor_access[flavor_id:str, tenant_id:str]",
    "GET /flavors/{}/os-flavor-access": "flavor_access[flavor_id:str, tenant_id:str]",
    "GET /flavors/{}/os-extra_specs": "extra_specs{*:str}",
    "POST /flavors/{}/os-extra_specs": "extra_specs{*:str}",
    "GET /flavors/{}/os-extra_specs/{}": "*:str",
    "PUT /flavors/{}/os-extra_specs/{}": "*:str",
    "GET /os-keypairs": f"keypairs[keypair{{{_KEYPAIR}}}], keypairs_links?@35+:links",
    "POST /os-keypairs": f"keypair{{{_KEYPAIR}, user_id:str, private_key?@-91:str}}",
    "GET /os-keypairs/{}": f"keypair{{{_KEYPAIR}, user_id:str, created_at:micro, deleted:bool, deleted_at:null, id:int, updated_at:null}}",
    "GET /limits": """limits{rate:list, absolute{maxImageMeta@-38:int, maxPersonality@-56:int, maxPersonalitySize@-56:int,
        maxSecurityGroups@-35:int, maxSecurityGroupRules@-35:int, maxServerMeta:int, maxServerGroups:int,
        maxServerGroupMembers:int, maxTotalCores:int, maxTotalFloatingIps@-35:int, maxTotalInstances:int,
        maxTotalKeypairs:int, maxTotalRAMSize:int, totalCoresUsed:int, totalFloatingIpsUsed@-35:int, totalInstancesUsed:int,
        totalRAMUsed:int, totalSecurityGroupsUsed@-35:int, totalServerGroupsUsed:int}}""",
    "GET /os-quota-sets/{}": f"quota_set{{id:str, {_LIMIT}}}",
    "GET /os-quota-sets/{}/defaults": f"quota_set{{id:str, {_LIMIT}}}",
    "GET /os-quota-sets/{}/detail": f"quota_set{{id:str, {_USAGE}}}",
    "PUT /os-quota-sets/{}": f"quota_set{{{_LIMIT}}}",
    "GET /os-quota-class-sets/{}": f"quota_class_set{{id:str, {_CLASS}}}",
    "PUT /os-quota-class-sets/{}": f"quota_class_set{{{_CLASS}}}",
    "GET /os-services": f"services[{_SERVICE}]",
    "PUT /os-services/{}": f"service{{{_SERVICE}}}",
    "PUT /os-services/enable": "service{host:str, binary:str, status:=enabled}",
    "PUT /os-services/disable": "service{host:str, binary:str, status:=disabled}",
    "PUT /os-services/disable-log-reason": "service{host:str, binary:str, status:=disabled, disabled_reason:str}",
    "PUT /os-services/force-down": "service{host:str, binary:str, forced_down:bool}",
    "GET /os-hypervisors": f"hypervisors[{_HYPERVISOR_NOW}], hypervisors_links?@33+:links",
    "GET /os-hypervisors/detail": f"hypervisors[{_WHOLE_HYPERVISOR}], hypervisors_links?@33+:links",
    "GET /os-hypervisors/{}": f"hypervisor{{{_WHOLE_HYPERVISOR}}}",
    "GET /os-hypervisors/{}/search": f"hypervisors[{_HYPERVISOR}]",
    "GET /os-hypervisors/{}/servers": f"hypervisors[{_HYPERVISOR}]",
    "GET /os-hypervisors/statistics": """hypervisor_statistics{count:int, vcpus:int, vcpus_used:int, memory_mb:int,
        memory_mb_used:int, free_ram_mb:int, local_gb:int, local_gb_used:int, free_disk_gb:int, disk_available_least:int/null,
        running_vms:int, current_workload:int}""",
    "GET /os-aggregates": f"aggregates[{_AGGREGATE}, hosts:list<str>, metadata{{*:str}}]",
    "POST /os-aggregates": f"aggregate{{{_AGGREGATE}}}",
    "GET /os-aggregates/{}": _WHOLE_AGGREGATE,
    "PUT /os-aggregates/{}": _WHOLE_AGGREGATE,
    "POST /os-aggregates/{}/action add_host": _WHOLE_AGGREGATE,
    "POST /os-aggregates/{}/action remove_host": _WHOLE_AGGREGATE,
    "POST /os-aggregates/{}/action set_metadata": _WHOLE_AGGREGATE,
    "GET /os-availability-zone": "availabilityZoneInfo[hosts:null, zoneName:str, zoneState{available:bool}]",
    "GET /os-availability-zone/detail": """availabilityZoneInfo[zoneName:str, zoneState{available:bool},
        hosts:null/<*{*{active:bool, available:bool, updated_at:micro/null}}>]""",
    "GET /os-hosts": "hosts[host_name:str, service:str, zone:str]",
    "GET /os-hosts/{}": "host[resource{host:str, project:str, cpu:int, memory_mb:int, disk_gb:int}]",
    "PUT /os-hosts/{}": "host:str, status:=enabled=disabled",
    "GET /os-simple-tenant-usage": f"tenant_usages[{_PROJECT_USAGE}], tenant_usages_links?@40+:links",
    "GET /os-simple-tenant-usage/{}": f"tenant_usage:nothing/<{_PROJECT_USAGE}>, tenant_usage_links?@40+:links",
    "GET /os-instance_usage_audit_log": f"instance_usage_audit_logs{{{_LOG}}}",
    "GET /os-instance_usage_audit_log/{}": f"instance_usage_audit_log{{{_LOG}}}",
    "GET /images": "images[id:uuid, name:str, links:links], images_links?:links",
    "GET /images/detail": f"images[{_IMAGE}], images_links?:links",
    "GET /images/{}": f"image{{{_IMAGE}}}",
    "GET /images/{}/metadata": "metadata{*:str}",
    "POST /images/{}/metadata": "metadata{*:str}",
    "PUT /images/{}/metadata": "metadata{*:str}",
    "GET /images/{}/metadata/{}": "meta{*:str}",
    "PUT /images/{}/metadata/{}": "meta{*:str}",
    "GET /extensions": f"extensions[{_EXTENSION}]",
    "GET /extensions/{}": f"extension{{{_EXTENSION}}}",
    "GET ": f"version{{{_VERSION}, media-types[base:str, type:str]}}",
    "GET /versions/{}": f"version{{{_VERSION}, media-types[base:str, type:str]}}",
}
# Of a server whose cell does not answer, from 2.69 on.
UNKNOWN: dict[str, str] = {
    "GET /servers/detail": "id:uuid, status:=UNKNOWN, links:links, tenant_id:str, created:time",
    "GET /servers/{}": f"""id:uuid, status:=UNKNOWN, links:links, tenant_id:str, created:time, user_id:str,
        image:=/<id:str, links:links>, flavor?{{{_FLAVOR}}}, OS-EXT-AZ:availability_zone:str, OS-EXT-STS:power_state:int,
        server_groups@71+:list<uuid>""",
}

# ---- from the notation to schemas ------------------------------------------------------------------------------------

_NAME = re.compile(r"\s*(\*|[A-Za-z][\w-]*(?::[A-Za-z_][\w]*(?=[?@:{\[]))?)(\?)?(?:@(?:(\d+)\+|-(\d+)|(\d+)-(\d+)))?")
_WORD = re.compile(r"[^,\]}>/<]+")


class _Notation:
    """One text, read from the left."""

    def __init__(self, text: str, version: Microversion) -> None:
        self._text = " ".join(text.split())
        self._at = 0
        self._minor = version.minor

    def fields(self, end: str = "") -> dict[str, Any]:
        """The schema of an object, up to the end or the character that closes it."""
        properties: dict[str, Any] = {}
        required: list[str] = []
        others: Any = False
        while True:
            name = _NAME.match(self._text, self._at)
            assert name is not None, self._text[self._at :][:60]
            self._at = name.end()
            schema = self._value()
            if name[1] == "*":
                others = schema
            elif self._is_there(name):
                properties[name[1]] = schema
                required += [] if name[2] else [name[1]]
            if not self._goes_on(end):
                return {
                    "type": "object", "properties": properties, "required": required, "additionalProperties": others,
                }  # fmt: skip

    def _is_there(self, name: "re.Match[str]") -> bool:
        first, last = int(name[3] or name[5] or 1), int(name[4] or name[6] or 10**6)
        return first <= self._minor <= last

    def _goes_on(self, end: str) -> bool:
        self._at += len(self._text[self._at :]) - len(self._text[self._at :].lstrip())
        if self._at >= len(self._text):
            assert not end, self._text
            return False
        found = self._text[self._at]
        self._at += 1
        assert found in (",", end), self._text[self._at - 1 :][:60]
        return found == ","

    def _value(self) -> dict[str, Any]:
        kind = self._text[self._at]
        self._at += 1
        if kind == "{":
            return self.fields("}")
        if kind == "[":
            return {"type": "array", "items": self.fields("]")}
        assert kind == ":", self._text[self._at - 20 : self._at + 20]
        branches = [self._type()]
        while self._at < len(self._text) and self._text[self._at] == "/":
            self._at += 1
            branches.append(self._type())
        return branches[0] if len(branches) == 1 else {"anyOf": branches}

    def _type(self) -> dict[str, Any]:
        if self._text[self._at] == "<":
            self._at += 1
            return self.fields(">")
        if self._text.startswith("list<", self._at):
            self._at += len("list<")
            inner = self._type()
            self._at += 1
            return {"type": "array", "items": inner}
        word = _WORD.match(self._text, self._at)
        assert word is not None, self._text[self._at :][:40]
        self._at = word.end()
        text = word[0].strip()
        return {"enum": text[1:].split("=")} if text.startswith("=") else TYPES[text]


@functools.cache
def validator(request: str, version: Microversion) -> jsonschema.Draft202012Validator:
    """What the answer to a request must be at a microversion."""
    schema = _Notation(ANSWERS[request], version).fields()
    unknown = UNKNOWN.get(request)
    if unknown is not None and version.minor >= 69:
        little = _Notation(unknown, version).fields()
        (name,) = [name for name in schema["properties"] if not name.endswith("_links")]
        whole = schema["properties"][name]
        if whole["type"] == "array":
            schema["properties"][name] = {**whole, "items": {"anyOf": [whole["items"], little]}}
        else:
            schema["properties"][name] = {"anyOf": [whole, little]}
    return jsonschema.Draft202012Validator(schema)


ROUTER = Router(resource.ROUTES for resource in RESOURCES)


def key(method: str, path: str, body: Any) -> str:
    """How `ANSWERS` names a request, which is found by its path as the API finds it."""
    match = ROUTER.match(method, path.partition("?")[0])
    if match is None:
        return ""
    endpoint = match.endpoint
    row = (*endpoint.rows, *endpoint.actions)[0]
    named = re.sub(r"{[^}]*}", "{}", row.path).replace("/os-volumes_boot", "/servers")
    action = f" {next(iter(body))}" if endpoint.actions and isinstance(body, dict) and body else ""
    return f"{method} {named}{action}"


def what_is_wrong(method: str, path: str, body: Any, version: str, reply: Reply) -> str | None:
    """The first error of an answer that is no refusal; None: it is as it must be, or nothing is said of it."""
    request = key(method, path, body)
    if reply.status not in (200, 201, 202) or not reply.body or request not in ANSWERS:
        return None
    asked = MAX if version == "latest" else Microversion.parse(version)
    error = next(validator(request, asked).iter_errors(reply.json), None)
    if error is None:
        return None
    deepest = jsonschema.exceptions.best_match([error])
    return f"{request} at {version}: {'/'.join(map(str, deepest.absolute_path))}: {deepest.message[:300]}"
