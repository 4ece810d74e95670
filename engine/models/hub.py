"""The model hub: the one room of starfill that reaches the network, and only `starfill models pull` opens its door.

Through huggingface_hub: its addresses, tokens, sessions and errors. Proxies (`HTTPS_PROXY`, `NO_PROXY`), certificates
(`SSL_CERT_FILE`, `SSL_CERT_DIR`, `REQUESTS_CA_BUNDLE`) and another hub (`HF_ENDPOINT`) come from the environment. Its
telemetry is off, and so is its second way of transport, so that one way goes through proxies and is resumed and checked.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from engine import __version__
from engine.errors import HubError
from engine.models.explaining import explained, network_explained, said
from engine.models.locate import ModelName

if TYPE_CHECKING:
    import httpx2

_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
_SECONDS = 30.0
_ATTEMPTS = 5
"""How often in a row a connection may break without having brought a byte."""
_ASKED = 3
"""How often something small is asked for before that counts as a refusal."""
_PIECE = 2**20
_MOST_FILES = 10_000
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a commit, with what its bytes must be: `sha256:…`, or `git:…` for small ones that git keeps itself."""

    name: str
    size: int
    sum: str


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """What a hub says of a model at a revision."""

    commit: str
    files: Mapping[str, RemoteFile]
    licence: str | None
    gated: bool


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Lfs(_Lenient):
    sha256: str | None = None


class _Sibling(_Lenient):
    rfilename: str
    size: Annotated[int, Field(ge=0, le=2**50)] | None = None
    blobId: str | None = None  # noqa: N815  (the hub's names)
    lfs: _Lfs | None = None


class _Card(_Lenient):
    license: object = None
    license_name: object = None


class _Info(_Lenient):
    sha: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    siblings: Annotated[list[_Sibling], Field(max_length=_MOST_FILES)] = []
    gated: bool | str = False
    cardData: _Card | None = None  # noqa: N815


class Hub:
    """A hub that models are downloaded from; nothing is sent before one of its methods is called."""

    def __init__(self, *, sleep: Callable[[float], None] = time.sleep) -> None:
        if _is_true(os.environ.get("HF_HUB_OFFLINE")) or _is_true(os.environ.get("TRANSFORMERS_OFFLINE")):
            name = "HF_HUB_OFFLINE" if _is_true(os.environ.get("HF_HUB_OFFLINE")) else "TRANSFORMERS_OFFLINE"
            raise HubError(
                f"{name} is set, so nothing is downloaded; unset it, or copy the model's directory here by hand"
            )
        os.environ.update(_QUIET)
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        if bundle and not os.environ.get("SSL_CERT_FILE") and not os.environ.get("SSL_CERT_DIR"):
            os.environ["SSL_CERT_DIR" if Path(bundle).is_dir() else "SSL_CERT_FILE"] = bundle
        for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            if (path := os.environ.get(variable)) and not Path(path).exists():
                raise HubError(f"{variable}={path}: no such file; point it at your certificates, or unset it")
        import huggingface_hub
        from huggingface_hub import constants  # as an attribute it is there only once something else has imported it

        self._library = huggingface_hub
        self._sleep = sleep
        self.endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        with network_explained():
            self._session = huggingface_hub.get_session()
        self._token: str | None = huggingface_hub.get_token()

    def page(self, name: ModelName) -> str:
        """Where a person reads about a model, and agrees to its terms."""
        return f"{self.endpoint}/{name.id}"

    def describe(self, name: ModelName) -> RemoteModel:
        """Commit and files of a revision; raises HubError."""
        # Not through HfApi: what it sends along (and asks for, to know what to send) is not ours to tell.
        url = f"{self.endpoint}/api/models/{name.id}/revision/{quote(name.revision, safe='')}"
        with self._explained(name):
            response = self._ask("GET", f"{url}?blobs=true", follow_redirects=True)
            info = _Info.model_validate_json(response.content)
        files: dict[str, RemoteFile] = {}
        for sibling in info.siblings:
            known = _sum_of(sibling)
            if known is not None and sibling.size is not None:
                files[sibling.rfilename] = RemoteFile(sibling.rfilename, sibling.size, known)
        card = info.cardData or _Card()
        named = card.license_name if card.license == "other" else card.license
        return RemoteModel(info.sha, files, _word(named or card.license), info.gated is not False)

    def check_access(self, name: ModelName, commit: str, file: str) -> None:
        """Ask whether we may have a file, without having it; raises HubError that says what to do."""
        with self._explained(name):
            self._ask("HEAD", self._url(name, commit, file), follow_redirects=False)

    def download(
        self, name: ModelName, commit: str, file: RemoteFile, target: Path, advanced: Callable[[int], None]
    ) -> bool:
        """Bring `target` to the file's length, going on from what it has -> whether it had something before.

        `advanced` hears of bytes, negative where some had to be fetched again. Broken connections are taken up again; raises
        HubError after several in a row that brought nothing. What has come stays.
        """
        url = self._url(name, commit, file.name)
        with target.open("ab") as output:
            had = output.tell()
            if had > file.size:
                output.truncate(0)
                had = 0
            advanced(had)
            idle, best = 0, had
            while (at := output.seek(0, os.SEEK_END)) < file.size:
                with self._explained(name):
                    reason = self._read_on(url, at, file, output, advanced)
                if reason is None:
                    continue
                # One that starts over each time must get further than before, or it would never end.
                idle, best = (0, output.tell()) if output.tell() > best else (idle + 1, best)
                if idle >= _ATTEMPTS:
                    raise HubError(
                        f"{file.name} of {name}: the connection broke {idle} times without getting further ({reason}); "
                        "what has come is kept, run the same command again"
                    )
                self._sleep(min(2.0**idle, 30.0))
            output.flush()
            os.fsync(output.fileno())
        return had > 0

    def _read_on(
        self, url: str, at: int, file: RemoteFile, output: BinaryIO, advanced: Callable[[int], None]
    ) -> str | None:
        """Read from byte `at` until the end or until the connection breaks -> why it did, or None."""
        import httpx2

        headers = self._headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={at}-"} if at else {})
        try:
            with self._session.stream("GET", url, headers=headers, timeout=_SECONDS, follow_redirects=True) as response:
                if response.status_code in _PASSING:
                    return f"the hub answered {response.status_code}"
                if response.status_code >= 400:
                    response.read()
                    self._library.hf_raise_for_status(response)
                if at and not _goes_on(response, at):  # from the start again
                    output.truncate(0)
                    advanced(-at)
                    at = 0
                for piece in response.iter_bytes():
                    if at + len(piece) > file.size:
                        raise HubError(
                            f"{url}: sends more than the {file.size} bytes that the hub names; try again later"
                        )
                    output.write(piece)
                    at += len(piece)
                    advanced(len(piece))
            output.flush()
        except (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.TimeoutException) as error:
            output.flush()
            if _is_lasting(error):
                raise
            return said(error)
        return None if at == file.size else "the answer ended too early"

    def _ask(self, method: str, url: str, *, follow_redirects: bool) -> httpx2.Response:
        """A small answer; a hub that is busy, or a connection that breaks, is tried again."""
        import httpx2

        for left in range(_ASKED - 1, -1, -1):
            try:
                response = self._session.request(
                    method, url, headers=self._headers(), timeout=_SECONDS, follow_redirects=follow_redirects
                )
            except (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.TimeoutException) as error:
                if not left or _is_lasting(error):
                    raise
            else:
                if not left or response.status_code not in _PASSING:
                    break
            self._sleep(float(_ASKED - left))
        self._library.hf_raise_for_status(response)
        return response

    def _url(self, name: ModelName, commit: str, file: str) -> str:
        url: str = self._library.hf_hub_url(name.id, file, revision=commit, endpoint=self.endpoint)
        return url

    def _headers(self) -> dict[str, str]:
        return {"user-agent": _agent()} | ({"authorization": f"Bearer {self._token}"} if self._token else {})

    def _explained(self, name: ModelName) -> AbstractContextManager[None]:
        return explained(name, self.endpoint, has_token=self._token is not None)


def _sum_of(sibling: _Sibling) -> str | None:
    """What the hub says that a file's bytes are."""
    if sibling.lfs is not None:
        sha256 = sibling.lfs.sha256
        return f"sha256:{sha256}" if sha256 is not None and _SHA256.fullmatch(sha256) else None
    return f"git:{sibling.blobId}" if sibling.blobId is not None and _COMMIT.fullmatch(sibling.blobId) else None


def _goes_on(response: httpx2.Response, at: int) -> bool:
    """Whether an answer starts where we asked it to."""
    return response.status_code == 206 and response.headers.get("content-range", "").startswith(f"bytes {at}-")


def _is_lasting(error: Exception) -> bool:
    """Whether trying again is pointless: a certificate does not become right, nor a name known, within a minute."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error) or "Name or service not known" in str(error)


def _word(value: object) -> str | None:
    return value.lower()[:64] if isinstance(value, str) and re.fullmatch(r"[\w.+-]{1,64}", value, re.ASCII) else None


def _agent() -> str:
    return f"starfill/{__version__}"


def _is_true(value: str | None) -> bool:
    return (value or "").upper() in ("1", "ON", "YES", "TRUE")
