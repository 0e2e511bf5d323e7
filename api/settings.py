"""What the program's configuration file may say."""

from oslo_config import cfg

import core.config
import core.errors
import core.listener
import core.monitoring
import core.scheduling
from core.config import OptionGroup

API = OptionGroup(
    "api",
    [
        cfg.StrOpt("listen_host", default="127.0.0.1", help="Address to listen on."),
        cfg.PortOpt("port", default=8774, help="Port to listen on; 0: a free one."),
        cfg.IntOpt("workers", default=1, min=1, help="Worker processes that share the address."),
        cfg.StrOpt(
            "auth_strategy",
            default="basic",
            choices=["basic", "none", "keystone"],
            help="How callers authenticate: HTTP basic, not at all (loopback only), or Keystone tokens.",
        ),
        cfg.StrOpt("htpasswd_file", help="With basic: file of user names and bcrypt hashes."),
        cfg.StrOpt("users_file", help="With basic: YAML file, user name -> user_id, project_id, project_name, roles."),
        cfg.IntOpt("max_limit", default=1000, min=1, help="Maximum number of items of one page of a list."),
        cfg.IntOpt(
            "max_page_bytes",
            default=4 * 1024 * 1024,
            min=1024,
            help="Bytes after which a page of a list ends, whatever its limit.",
        ),
        cfg.StrOpt("compute_link_prefix", help="Public address in links, if it differs from that of the request."),
        cfg.IntOpt("max_body_bytes", default=114688, min=1024, help="Largest request body that is read."),
        cfg.FloatOpt("read_timeout_s", default=30.0, min=0.1, help="Seconds within which a body must arrive."),
        cfg.FloatOpt(
            "send_timeout_s",
            default=60.0,
            min=0.1,
            help="Seconds within which a client must read an answer; then its connection is closed.",
        ),
        cfg.FloatOpt(
            "send_progress_timeout_s",
            default=10.0,
            min=0.1,
            help="Seconds within which a client must read a part of an answer; then its connection is closed.",
        ),
        cfg.IntOpt(
            "max_unsent_bytes",
            default=128 * 1024 * 1024,
            min=1024 * 1024,
            help="Bytes of all answers that a worker sends at the same time; beyond them an answer is a 503.",
        ),
        cfg.IntOpt(
            "project_requests_at_once",
            default=16,
            min=1,
            help="Requests of one project that a worker handles at the same time; further ones wait.",
        ),
        cfg.IntOpt(
            "project_requests_waiting",
            default=512,
            min=0,
            help="Requests of one project that may wait in a worker; further ones get a 503.",
        ),
        cfg.FloatOpt(
            "project_wait_s",
            default=30.0,
            min=0.1,
            help="Seconds that a request waits for other requests of its project; then it gets a 503.",
        ),
        cfg.IntOpt(
            "bodies_at_once",
            default=1024,
            min=1,
            help="Request bodies that a worker receives at the same time, of one project as many as it may have "
            "requests; for one more the oldest gets a 408.",
        ),
        *core.listener.OPTIONS,
        core.monitoring.OPTION,
        cfg.FloatOpt(
            "stop_timeout_s",
            default=10.0,
            min=0.1,
            help="Seconds that running requests may take when the process stops.",
        ),
        cfg.FloatOpt(
            "build_not_after_s",
            default=3600.0,
            min=1.0,
            help="Seconds after which a build without a running server is given up.",
        ),
        cfg.StrOpt("rescue_image_id", help="Image for rescues whose request names none. By default the server's own."),
        cfg.FloatOpt(
            "password_wait_s",
            default=8.0,
            min=0.0,
            help="Seconds that a request to set a server's password waits for the host's answer.",
        ),
        cfg.BoolOpt(
            "list_records_by_skipping_down_cells",
            default=True,
            help="Before microversion 2.69 a list omits the servers of cells that are down; if false, it fails.",
        ),
    ],
)

KEYSTONE = OptionGroup(
    "keystone_authtoken",
    [
        cfg.StrOpt(
            "auth_url",
            help="URL of Keystone for this program, with or without /v3. The section is read with auth_strategy "
            "keystone only.",
        ),
        cfg.StrOpt("www_authenticate_uri", help="URL of Keystone for users, named by a 401. By default auth_url."),
        cfg.StrOpt(
            "auth_type", default="password", choices=["password", "v3password"],
            help="How this program authenticates to Keystone.",
        ),
        cfg.StrOpt("username", help="User of this program. It needs the role service (or admin) to validate tokens."),
        cfg.StrOpt("password", secret=True, help="Password of that user."),
        cfg.StrOpt("project_name", help="Project in which the user has that role."),
        cfg.StrOpt("user_domain_id", default="default", help="Domain of the user, unless user_domain_name is set."),
        cfg.StrOpt("user_domain_name", help="Domain of the user, by name."),
        cfg.StrOpt("project_domain_id", default="default",
            help="Domain of the project, unless project_domain_name is set."),
        cfg.StrOpt("project_domain_name", help="Domain of the project, by name."),
        cfg.StrOpt("cafile", help="PEM file of trusted authorities for an https Keystone. By default the system's."),
        cfg.FloatOpt(
            "token_cache_time", default=60.0, min=-1.0,
            help="Seconds for which a valid token is cached. A revocation is noticed after this time. 0 or -1: no "
            "cache.",
        ),
        cfg.FloatOpt(
            "timeout_s", default=5.0, min=0.1,
            help="Seconds within which Keystone must answer; then the request gets a 503.",
        ),
    ],
)  # fmt: skip

QUOTA = OptionGroup(
    "quota",
    [
        cfg.IntOpt(name, default=default, min=-1, help=f"Default limit of {name} per project; -1 is no limit.")
        for name, default in (
            ("instances", 10),
            ("cores", 20),
            ("ram", 50 * 1024),
            ("key_pairs", 100),
            ("metadata_items", 128),
            ("server_groups", 10),
            ("server_group_members", 10),
        )
    ],
)


def options() -> list[OptionGroup]:
    """What this program's configuration file may say."""
    return [
        core.config.PROCESS,
        core.config.SOFT_DELETE,
        core.config.API_DATABASE,
        core.config.CELLS,
        core.config.IMAGE,
        core.config.HOSTS,
        core.scheduling.POLICIES,
        core.scheduling.FILTER_SCHEDULER,
        API,
        KEYSTONE,
        QUOTA,
    ]
