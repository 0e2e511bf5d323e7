"""What a browser is shown: noVNC's files, if this machine has them, else a page that says so."""

import html
import mimetypes
import pathlib
import urllib.parse

from aiohttp import web

from objects.console import PAGE

_HEADERS = {
    # The page's own address holds a token: it goes nowhere else, and into no cache.
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".svg": "image/svg+xml"}

_TEXT = """\
<!DOCTYPE html>
<title>Cellplane console proxy</title>
<h1>Cellplane console proxy</h1>
<p>{}</p>
"""


class Pages:
    """The files below one directory; nothing outside of it, no lists of names."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory

    @property
    def are_there(self) -> bool:
        """Whether noVNC is installed in the directory."""
        return (self._directory / PAGE).is_file()

    def answer(self, raw_path: str) -> web.StreamResponse:
        """The file of this path, or a page that says why there is none."""
        if not self.are_there:
            return _page(
                404,
                f"noVNC is not installed here: its files are not in {self._directory}. A console opens by a WebSocket "
                "client only.",
            )
        path = self._file(urllib.parse.unquote(raw_path))
        if path is None:
            return _page(404, "There is nothing here. Open the address that the Compute API gave for a console.")
        suffix = path.suffix.lower()
        kind = _TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")
        return web.FileResponse(path, headers={**_HEADERS, "Content-Type": kind})

    def _file(self, path: str) -> pathlib.Path | None:
        parts = pathlib.PurePosixPath(path).parts[1:]
        # Links inside are the packager's; a way out by its name is not.
        if not parts or "\0" in path or any(part in (".", "..") for part in parts):
            return None
        file = self._directory.joinpath(*parts)
        return file if file.is_file() else None


def _page(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=_TEXT.format(html.escape(text)), content_type="text/html", headers=_HEADERS)
