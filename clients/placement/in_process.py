"""Placement's WSGI application, called inside this process (the embedded profile): no server, no port.

Imported only for `wsgi://` endpoints: with its libraries it costs a process about 60 MiB. Its own `PlacementDirect` is
no choice for a service: it patches HTTP libraries process-wide and builds the whole application again for every
request.
"""

import functools
import threading

import orjson
import webob
from oslo_config import cfg
from oslo_db.sqlalchemy import enginefacade
from placement import conf as placement_conf
from placement import db_api, deploy
from placement.objects import resource_class, trait

import core.errors
from clients.http import Headers, Reply

# Placement keeps its database, its caches' "already filled" marks and its policy once per process, so calls from this
# process take turns, whichever database they are for. SQLite would have them take turns anyway.
_TURN = threading.Lock()


class InProcessTransport:
    """Asks the application that the configuration file describes; it is built once per process and file. Safe for many
    threads.

    Args:
        path: of `placement.conf`; its database must have Placement's schema, or `sync_on_startup`.
        timeout_s: for the turn; a call that has begun runs to its end.
        headers: who asks.
        fixed: headers of every request.
    """

    def __init__(self, path: str, *, timeout_s: float, headers: Headers, fixed: dict[str, str]) -> None:
        self._timeout_s = timeout_s
        self._headers = headers
        self._fixed = fixed
        with _TURN:
            self._application = _application(path)

    def ask(self, method: str, path: str, body: object = None) -> Reply:
        """One exchange.

        Raises:
            Unavailable: others kept the application busy for the whole time-out; nothing was done.
        """
        request = webob.Request.blank(
            path, method=method, headers={"Accept": "application/json", **self._fixed, **self._headers()}
        )
        if body is not None:
            request.content_type = "application/json"
            request.body = orjson.dumps(body)
        if not _TURN.acquire(timeout=self._timeout_s):
            raise core.errors.Unavailable(f"Placement in this process was busy for {self._timeout_s} s")
        try:
            return self._application.ask(request)
        finally:
            _TURN.release()

    def close(self) -> None:
        """Nothing: other doors of this process may lead to the same application."""


class _Application:
    """One configuration file's application and database."""

    def __init__(self, path: str) -> None:
        conf = cfg.ConfigOpts()
        placement_conf.register_opts(conf)
        try:
            conf([], project="placement", default_config_files=[path], default_config_dirs=[])
        except cfg.Error as error:
            raise core.errors.Invalid(f"placement.endpoint: {error}", field="placement.endpoint") from error
        settings = dict(conf.placement_database.items())
        settings.pop("sync_on_startup", None)
        self._database = enginefacade.transaction_context()
        self._database.configure(**settings)
        self._use_own_database()
        # A second database in this process needs the standard traits and resource classes as well.
        trait._TRAITS_SYNCED = False
        resource_class._RESOURCE_CLASSES_SYNCED = False
        self._wsgi = deploy.loadapp(conf)

    def ask(self, request: webob.Request) -> Reply:
        self._use_own_database()
        response = request.get_response(self._wsgi)
        return Reply(response.status_int, response.body)

    def _use_own_database(self) -> None:
        db_api.placement_context_manager.patch_factory(self._database)


@functools.cache
def _application(path: str) -> _Application:
    return _Application(path)
