"""What a person can do about each way in which a hub refuses or cannot be reached."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.errors import HubError
from engine.models.locate import ModelName

_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_SCHEMES = ("http", "https", "socks5", "socks5h")
"""Of proxies that the HTTP library knows."""


@contextmanager
def network_explained() -> Iterator[None]:
    """Turn what the HTTP library makes of proxies and certificates in the environment into HubError; nothing is sent yet."""
    import httpx2

    try:
        yield
    except ImportError as error:
        named = _given(_PROXIES, lambda value: _scheme(value).startswith("socks")) or "your proxy"
        raise HubError(
            f"{named} is a SOCKS proxy, which needs one package more: pip install socksio, or name an http:// proxy"
        ) from error
    except OSError as error:  # ssl.SSLError is one
        named = _given(_CERTIFICATES, bool) or "the system's store of certificates"
        wrong = "holds no certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror or said(error)
        raise HubError(f"{named}: {wrong}; point it at your certificates (PEM), or unset it") from error
    except (ValueError, httpx2.InvalidURL) as error:
        named = _given(_PROXIES, lambda value: _scheme(value) not in _SCHEMES) or _given(_PROXIES, bool) or "NO_PROXY"
        raise HubError(
            f"{named} cannot be used ({said(error)}); it takes http://HOST:PORT, https:// or socks5://"
        ) from error


def _given(names: tuple[str, ...], wrong: Callable[[str], bool]) -> str | None:
    """The first of these variables, in either case of letters, whose value is wrong: `NAME=value` without any password."""
    for name in (each for upper in names for each in (upper, upper.lower())):
        value = os.environ.get(name, "")
        if value and wrong(value):
            return f"{name}={value if name in _CERTIFICATES else _without_password(value)}"
    return None


def _scheme(proxy: str) -> str:
    scheme, found, _ = proxy.partition("://")
    return scheme.casefold() if found else "http"


def _without_password(value: str) -> str:
    scheme, found, rest = value.rpartition("://")
    return ascii(scheme + found + rest.rpartition("@")[2])[1:-1][:200]


@contextmanager
def explained(name: ModelName, endpoint: str, *, has_token: bool) -> Iterator[None]:
    """Turn the errors of huggingface_hub and its HTTP library into HubError, with the remedy."""
    import httpx2
    from huggingface_hub import errors

    page, tokens = f"{endpoint}/{name.id}", f"{endpoint}/settings/tokens"
    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(_gated(name, page, tokens, has_token=has_token)) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{name.id} has no revision {name.revision!r}; {page}/tree/main shows those it has") from error
    except errors.RepositoryNotFoundError as error:
        hint = "" if has_token else f", or is private: put a token of {tokens} into HF_TOKEN"
        raise HubError(f"{page}: there is no such model{hint}") from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else None
        if code in (401, 403):
            raise HubError(
                f"{page}: the hub refused the token ({code}); make a new one at {tokens} and put it into HF_TOKEN"
            ) from error
        raise HubError(f"{page}: the hub answered {code}; try again later") from error
    except errors.OfflineModeIsEnabled as error:
        raise HubError("HF_HUB_OFFLINE is set, so nothing is downloaded; unset it") from error
    except httpx2.ProxyError as error:
        raise HubError(f"the proxy refused ({said(error)}); check HTTPS_PROXY and NO_PROXY") from error
    except httpx2.TransportError as error:
        raise HubError(_unreachable(endpoint, error)) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise HubError(
            f"{page}: the hub's answer cannot be read ({said(error)}); is HF_ENDPOINT a model hub?"
        ) from error


def said(error: Exception) -> str:
    """What a library says, in one bounded line."""
    return ascii(" ".join(str(error).split()) or type(error).__name__)[1:-1][:200]


def _gated(name: ModelName, page: str, tokens: str, *, has_token: bool) -> str:
    if not has_token:
        return (
            f"{name.id} is gated: 1. open {page}, sign in and agree to its terms; 2. make a token that may read at {tokens}; "
            f"3. put it into HF_TOKEN (or run: hf auth login); 4. starfill models pull {name}"
        )
    return (
        f"{name.id} is gated, and the account of your token is not let in: agree to its terms at {page}; if you did, give "
        f"the token the permission to read gated repositories at {tokens}; then starfill models pull {name}"
    )


def _unreachable(endpoint: str, error: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            f"{endpoint}: its certificate is not trusted here ({said(error)}); behind a company's proxy, point SSL_CERT_FILE "
            "at the file with the company's certificates (PEM)"
        )
    return (
        f"{endpoint} cannot be reached ({said(error)}); check the network, HTTPS_PROXY, and HF_ENDPOINT if that is set"
    )
