"""HTTPS to one hub: explicit certificates, time limits, and failures as the project's errors.

Rules: nothing is taken from the environment (proxies, certificate bundles); every call is limited in time;
redirects are not followed, because the token would travel with them.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx2

from skerry import __version__
from skerry.client.answers import decode_answer, error_of_answer
from skerry.kit.digests import digest_of, parse_digest
from skerry.kit.errors import Missing, Rejected, SkerryError, Unavailable, Untrusted
from skerry.spec.carrier import TrustRoot

CONNECT_LIMIT_S = 10.0
ANSWER_LIMIT_S = 60.0
STREAM_BYTES = 1 << 20
_MAX_TRUST_ROOT_BYTES = 1 << 20


class Connection:
    """Requests to one hub; usable from one thread, kept open between requests."""

    def __init__(self, hub: str, *, context: ssl.SSLContext, token: str = "") -> None:
        self.hub = check_address(hub)
        headers = {"user-agent": f"skerry/{__version__}", "accept": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        limit = httpx2.Timeout(ANSWER_LIMIT_S, connect=CONNECT_LIMIT_S)
        self._http = httpx2.Client(
            base_url=self.hub, headers=headers, verify=context, trust_env=False, timeout=limit
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
        media_type: str = "application/json",
    ) -> tuple[int, bytes]:
        """Return status and body of a granted request; `params` that are empty are left out.

        Raises:
            SkerryError: what the hub refused it with.
            Unavailable: no answer came (`hub.unreachable`).
            Untrusted: whoever answered is not the hub that was logged in to (`hub.certificate`).
        """
        headers = {"content-type": media_type} if content is not None else {}
        given = {name: value for name, value in (params or {}).items() if value}
        try:
            response = self._http.request(method, path, params=given, content=content, headers=headers)
        except (httpx2.RequestError, httpx2.StreamError) as error:
            raise _transport_error(self.hub, error) from error
        if not response.is_success:
            raise error_of_answer(response.status_code, response.content)
        return response.status_code, response.content

    def stream(self, path: str) -> Iterator[bytes]:
        """Yield the body of a granted GET in pieces as they arrive.

        Raises:
            SkerryError: as `request`; `Unavailable` also when the answer breaks off.
        """
        try:
            with self._http.stream("GET", path) as response:
                if not response.is_success:
                    raise error_of_answer(response.status_code, response.read())
                yield from response.iter_bytes(STREAM_BYTES)
        except (httpx2.RequestError, httpx2.StreamError) as error:
            raise _transport_error(self.hub, error) from error


def check_address(hub: str) -> str:
    """Return a hub's address without what does not belong to it.

    Raises:
        Rejected: it is not an https address.
    """
    hint = "write https://HOST:PORT"
    try:
        url = httpx2.URL(hub.strip())
    except httpx2.InvalidURL as error:
        raise Rejected("hub.address", f"not an address: {hub[:200]!r}: {error}", hint=hint) from None
    if url.scheme != "https" or not url.host or url.path not in ("", "/") or url.query or url.userinfo:
        raise Rejected("hub.address", f"not a hub's address: {hub[:200]!r}", hint=hint)
    return str(url).rstrip("/")


def context_of(ca_pem: str) -> ssl.SSLContext:
    """Return the context that trusts these certificates and no others."""
    try:
        return ssl.create_default_context(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        hint = "log in again: skerry login URL --root DIGEST"
        raise Rejected("hub.ca", f"the hub's CA certificate cannot be read: {error}", hint=hint) from None


def fetch_trust_root(hub: str, root: str) -> TrustRoot:
    """Return the trust root of a hub, having checked that its bytes have the digest `root`.

    The connection is not verified and need not be: the digest, which came another way, proves the bytes.

    Raises:
        Untrusted: the digest is another one (`hub.root_mismatch`).
        Unavailable: no answer came.
    """
    expected = parse_digest(root if root.startswith("sha256:") else f"sha256:{root}")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = Connection(hub, context=context)
    try:
        _, content = connection.request("GET", f"/v1/trust-root?digest={expected}")
    except Missing as error:
        hint = "is this address a Skerry hub?"
        raise Unavailable("hub.not_a_hub", f"{hub} has no trust root", hint=hint) from error
    finally:
        connection.close()
    found = digest_of(content)
    if found != expected or len(content) > _MAX_TRUST_ROOT_BYTES:
        message = f"{hub} is not the hub you mean: its trust root is {found}, not {expected}"
        hint = "ask whoever runs the hub for the digest; `skerry hub serve` prints it"
        raise Untrusted("hub.root_mismatch", message, hint=hint, found=found, expected=expected)
    return decode_answer(content, TrustRoot)


def _transport_error(hub: str, error: Exception) -> SkerryError:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            message = f"{hub} does not prove that it is the hub you logged in to: {cause.verify_message}"
            hint = "use the name the hub's certificate carries, or log in again with the hub's new root"
            return Untrusted("hub.certificate", message, hint=hint)
    reason = next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)
    if isinstance(error, httpx2.ConnectTimeout):
        reason = f"no connection within {CONNECT_LIMIT_S:.0f} s"
    elif isinstance(error, httpx2.TimeoutException):
        reason = f"no answer within {ANSWER_LIMIT_S:.0f} s"
    hint = "is the hub running, and is its port open from here?"
    return Unavailable("hub.unreachable", f"cannot reach {hub}: {reason}", hint=hint)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
