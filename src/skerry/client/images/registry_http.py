"""Requests to one registry: its challenges answered, its redirects followed with care, its failures as our errors.

Rules: HTTPS, unless the registry is on this machine or was named as insecure; credentials and tokens go to the
registry and to the token service that it names, never along a redirect to another place; a redirect never leads
from HTTPS to HTTP. Authentication: RFC 7617 and the token specification of the distribution project.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Generator, Mapping

import httpx2
import msgspec

from skerry import __version__
from skerry.client.images.credentials import Credentials
from skerry.client.images.references import Reference
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Denied, Missing, Rejected, SkerryError, Unavailable, Untrusted

_CONNECT_LIMIT_S = 10.0
_ANSWER_LIMIT_S = 60.0
_MAX_REDIRECTS = 5
_MAX_ANSWER_BYTES = 1 << 20
_challenge_re = re.compile(r'([A-Za-z_]+)="([^"]*)"')


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""


class RegistryConnection:
    """Requests about one repository; usable from one thread."""

    def __init__(self, reference: Reference, credentials: Credentials, *, plain: bool) -> None:
        self._reference = reference
        self._credentials = credentials
        self._plain = plain
        self._authorization = ""
        self._http = httpx2.Client(
            verify=ssl.create_default_context(),
            # Proxies are the rule where publishers sit; they are no way to what is on this machine.
            trust_env=not reference.is_loopback,
            timeout=httpx2.Timeout(_ANSWER_LIMIT_S, connect=_CONNECT_LIMIT_S),
            headers={"user-agent": f"skerry/{__version__}"},
        )
        self._base = httpx2.URL(f"{'http' if plain else 'https'}://{reference.host}")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    @contextlib.contextmanager
    def get(self, path: str, headers: Mapping[str, str]) -> Generator[httpx2.Response]:
        """Yield the answer, not yet read, to a request below `/v2/REPOSITORY/`.

        Raises:
            Missing: it is not there (`image.not_in_registry`).
            Denied: the registry asks for other credentials (`image.denied`).
            Unavailable: no answer came, or the registry is at its limit (`image.registry_unreachable`).
            Untrusted: the registry's certificate does not hold (`image.registry_certificate`).
        """
        url = self._base.join(f"/v2/{self._reference.repository}/{path}")
        try:
            with contextlib.ExitStack() as stack:
                response = self._send(stack, url, headers)
                if response.status_code == 401:
                    # At first, and whenever a token has grown too old.
                    self._authorization = self._answer(response.headers.get("www-authenticate", ""))
                    response = self._send(stack, url, headers)
                self._check(response)
                yield response
        except (httpx2.RequestError, httpx2.StreamError) as error:
            raise self._transport_error(error) from error

    def _send(
        self, stack: contextlib.ExitStack, url: httpx2.URL, headers: Mapping[str, str]
    ) -> httpx2.Response:
        """Return an answer that is no redirect."""
        for _ in range(_MAX_REDIRECTS + 1):
            own = self._same_place(url)
            extra = {"authorization": self._authorization} if own and self._authorization else {}
            response = stack.enter_context(self._http.stream("GET", url, headers={**headers, **extra}))
            if response.status_code not in (301, 302, 303, 307, 308):
                return response
            url = url.join(response.headers.get("location", ""))
            if url.scheme not in (("https", "http") if self._plain else ("https",)):
                raise Untrusted(
                    "image.registry_redirect", f"{self._reference.registry} leads to {url.scheme}://"
                )
        raise Unavailable("image.registry_redirect", f"{self._reference.registry} leads in circles")

    def _same_place(self, url: httpx2.URL) -> bool:
        return (url.scheme, url.host, url.port) == (self._base.scheme, self._base.host, self._base.port)

    def _answer(self, challenge: str) -> str:
        """Return the authorization that a challenge asks for."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._credentials.basic:
            return self._credentials.basic
        fields = {key.lower(): value for key, value in _challenge_re.findall(rest)}
        if scheme.lower() != "bearer" or not fields.get("realm"):
            raise self._denied(f"HTTP 401, {scheme or 'no'} authentication")
        realm = httpx2.URL(fields["realm"])
        if realm.scheme != "https" and not self._plain:
            raise Untrusted(
                "image.registry_redirect", f"{self._reference.registry} asks for a token over {realm.scheme}"
            )
        scope = fields.get("scope") or f"repository:{self._reference.repository}:pull"
        asked = {"service": fields.get("service", ""), "scope": scope}
        given = self._credentials
        if given.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": given.identity_token,
                "client_id": "skerry",
            }
            request = self._http.build_request("POST", realm, data={**asked, **form})
        else:
            headers = {"authorization": given.basic} if given.basic else {}
            request = self._http.build_request(
                "GET", realm, params={k: v for k, v in asked.items() if v}, headers=headers
            )
        response = self._http.send(request, stream=True)
        try:
            content = bounded(response, _MAX_ANSWER_BYTES)
        finally:
            response.close()
        if not response.is_success:
            raise self._denied(f"its token service answers HTTP {response.status_code}")
        try:
            token = msgspec.json.decode(content, type=_Token)
        except UNREADABLE:
            raise self._denied("its token service answers no token") from None
        return f"Bearer {token.token or token.access_token}"

    def _check(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status in (200, 206, 416):
            return
        if status == 404:
            hint = "check its name and tag"
            raise Missing("image.not_in_registry", f"{self._reference.text} is not there", hint=hint)
        if status in (401, 403):
            raise self._denied(f"HTTP {status}")
        message = f"{self._reference.registry} answers HTTP {status}"
        if status == 429 or status >= 500:
            raise Unavailable("image.registry_unreachable", message, hint="try again later")
        raise Rejected(
            "image.registry", message, hint="is it a registry with the API of the OCI distribution?"
        )

    def _denied(self, reason: str) -> Denied:
        registry, helper = self._reference.registry, self._credentials.helper
        if helper:
            hint = (
                f"its credentials are with the helper {helper}, which is not run; write them into a file with "
                f"`podman login --authfile FILE {registry}` and set REGISTRY_AUTH_FILE=FILE"
            )
        elif self._credentials.user or self._credentials.identity_token:
            hint = f"log in again: podman login {registry}, or docker login {registry}"
        else:
            hint = f"log in first: podman login {registry}, or docker login {registry}; or is the name wrong?"
        return Denied("image.denied", f"{self._reference.text} is denied: {reason}", hint=hint)

    def _transport_error(self, error: Exception) -> SkerryError:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                message = f"{self._reference.registry} does not prove who it is: {cause.verify_message}"
                hint = "name its certificate authority with SSL_CERT_FILE"
                return Untrusted("image.registry_certificate", message, hint=hint)
            cause = cause.__cause__ or cause.__context__
        hint = "is the registry running? One without HTTPS is named with --insecure-registry HOST:PORT"
        return Unavailable(
            "image.registry_unreachable",
            f"cannot reach {self._reference.registry}: {str(error) or type(error).__name__}",
            hint=hint,
        )


def bounded(response: httpx2.Response, limit_bytes: int) -> bytes:
    """Return the body of an answer, which may not be longer than a limit.

    Raises:
        Rejected: it is longer.
    """
    content = bytearray()
    for chunk in response.iter_bytes(1 << 16):
        content += chunk
        if len(content) > limit_bytes:
            raise Rejected("image.malformed", f"an answer of more than {limit_bytes} bytes")
    return bytes(content)
