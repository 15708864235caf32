"""The page's own files: their names carry a hash of their content, so that a browser may keep them for ever."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

FOLDER = Path(__file__).parent / "static"


class _File(NamedTuple):
    content: bytes
    kind: str
    etag: str


class Statics:
    """Serves what lies in a folder when it is made, from memory."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files: dict[str, _File] = {}
        self._names: dict[str, str] = {}
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:16]
            name = f"{path.stem}.{digest}{path.suffix}"
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            self._files[name] = _File(content, kind, f'"{digest}"')
            self._names[path.name] = f"/static/{name}"

    @property
    def urls(self) -> Mapping[str, str]:
        """Maps a file's own name to where it is served."""
        return self._names

    async def serve(self, request: Request) -> Response:
        """Answers a request for a file."""
        file = self._files.get(request.path_params["name"])
        if file is None:
            return PlainTextResponse("There is no such file.", 404, {"Cache-Control": "no-store"})
        headers = {"ETag": file.etag, "Cache-Control": "public, max-age=31536000, immutable"}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.kind)
