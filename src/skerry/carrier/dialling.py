"""How an upstream is dialled: straight or by a proxy, by whose certificates it is known, and with how much patience.

A proxy comes from the configuration, else from the environment as other programs take it (`https_proxy`, `all_proxy`,
`no_proxy`, also in capitals). Its password is in no text that is made here but the header that the proxy gets. Proxies
carry bytes (CONNECT); one that looks into them is trusted with that by a CA that the configuration adds.
"""

from __future__ import annotations

import ipaddress
import ssl
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
import urllib3

from skerry.kit.errors import Rejected, Untrusted

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
LONGEST_TIMEOUT_S = 600.0
DIRECT = "none"
_X509_V_FLAG_NO_CHECK_TIME = 0x200000  # OpenSSL's x509_vfy.h; the ssl module has no name for it
_PORTS = {"http": 80, "https": 443}


class Dialling(msgspec.Struct, frozen=True):
    """How to reach an upstream.

    `proxy` is the address of a proxy, perhaps with a name and a password, `none` for no proxy, and empty for what the
    environment says. `ca_pem` are certificates of those who look into connections on the way. A connection is to be
    there within `connect_s`, an answer within `answer_s` of when it is due; both are for each step by itself.
    """

    proxy: str = ""
    ca_pem: str = ""
    connect_s: float = CONNECT_TIMEOUT_S
    answer_s: float = ANSWER_TIMEOUT_S

    def __repr__(self) -> str:
        """Return it without what is secret in it."""
        return f"Dialling(proxy={shown_proxy(self.proxy)!r}, connect_s={self.connect_s}, answer_s={self.answer_s})"


class Proxy(msgspec.Struct, frozen=True):
    """A proxy: `url` has no name and no password; `authorization` is the header with both, empty without."""

    url: str
    host: str
    authorization: str = ""

    def __repr__(self) -> str:
        """Return it without what is secret in it."""
        return f"Proxy({self.url})"


def proxy_for(host: str, port: int, dialling: Dialling, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy to dial an upstream by; None when it is dialled straight.

    Raises:
        Rejected: the proxy's address is none (`proxy.bad_address`).
    """
    if dialling.proxy:
        return None if dialling.proxy == DIRECT else parse_proxy(dialling.proxy)
    found = next((value for name in ("https_proxy", "all_proxy") if (value := _variable(environ, name))), "")
    if not found or _is_exempt(host, port, _variable(environ, "no_proxy")):
        return None
    return parse_proxy(found if "://" in found else f"http://{found}")


def parse_proxy(url: str) -> Proxy:
    """Return the proxy of an address such as http://name:password@proxy.example:3128.

    Raises:
        Rejected: it is none (`proxy.bad_address`). The address is not repeated: there may be a password in it.
    """
    parts = _split(url)
    if parts is None:
        hint = "write it as http://HOST:PORT or https://HOST:PORT, with NAME:PASSWORD@ before HOST if it wants that"
        raise Rejected("proxy.bad_address", "that is not the address of a proxy", hint=hint)
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    authorization = f"Basic {b64encode(credentials).decode()}" if parts.username else ""
    return Proxy(f"{parts.scheme}://{shown}:{parts.port or _PORTS[parts.scheme]}", host, authorization)


def check_dialling(dialling: Dialling) -> None:
    """Refuse what can never work.

    Raises:
        Rejected: the proxy's address is none (`proxy.bad_address`), no certificate can be used (`ca_file.unusable`), or
            a time is none (`dialling.bad_time`).
    """
    if dialling.proxy not in ("", DIRECT):
        parse_proxy(dialling.proxy)
    if dialling.ca_pem:
        _trust_also(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), dialling.ca_pem)
    if not 0 < dialling.connect_s <= LONGEST_TIMEOUT_S or not 0 < dialling.answer_s <= LONGEST_TIMEOUT_S:
        raise Rejected("dialling.bad_time", f"a time-out is more than 0 and at most {LONGEST_TIMEOUT_S:g} s")


def shown_proxy(url: str) -> str:
    """Return a proxy's address as it may be shown: without name and password."""
    if url in ("", DIRECT):
        return url
    try:
        return parse_proxy(url).url
    except Rejected:
        return "(not an address)"


def has_password(url: str) -> bool:
    """Tell whether there is anything secret in an address."""
    return "@" in url


def upstream_context(ca_pem: str, more_ca_pem: str = "") -> ssl.SSLContext:
    """Return a context that trusts one CA, and more where they are given, whatever the local clock says.

    Raises:
        Untrusted: the trust root holds no usable CA (`trust_root.bad_ca`).
        Rejected: there is no usable CA among those that are given (`ca_file.unusable`).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= _X509_V_FLAG_NO_CHECK_TIME
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise Untrusted("trust_root.bad_ca", "the trust root holds no usable CA certificate") from error
    if more_ca_pem:
        # Who looks into connections may be older than what is at their ends.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _trust_also(context, more_ca_pem)
    return context


def unverified_context() -> ssl.SSLContext:
    """Return a context that believes any upstream: for what is known by its digest alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def open_pool(
    address: tuple[str, int],
    context: ssl.SSLContext,
    proxy: Proxy | None,
    *,
    options: list[tuple[int, int, int]] | None = None,
    more_ca_pem: str = "",
) -> urllib3.HTTPSConnectionPool:
    """Return connections to an upstream, a host and a port, opened when needed; `options` are those of sockets."""
    host, port = address
    given: dict[str, Any] = {"maxsize": 8, "ssl_context": context, "retries": False}
    if options:
        given["socket_options"] = options
    if proxy is None:
        return urllib3.HTTPSConnectionPool(host, port, **given)
    headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
    manager = urllib3.ProxyManager(
        proxy.url,
        proxy_headers=headers,
        proxy_ssl_context=_proxy_context(more_ca_pem) if proxy.url.startswith("https:") else None,
        **given,
    )
    pool = manager.connection_from_host(host, port, "https")
    assert isinstance(pool, urllib3.HTTPSConnectionPool)
    return pool


def _proxy_context(more_ca_pem: str) -> ssl.SSLContext:
    """Return a context for the connection to the proxy itself: it is known as servers on the web are."""
    context = ssl.create_default_context()
    context.verify_flags |= _X509_V_FLAG_NO_CHECK_TIME
    if more_ca_pem:
        _trust_also(context, more_ca_pem)
    return context


def _trust_also(context: ssl.SSLContext, ca_pem: str) -> None:
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        message = "there is no usable CA certificate in the file that was given"
        raise Rejected("ca_file.unusable", message, hint="it takes PEM certificates") from error


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return parts if sound and parts.path in ("", "/") and not any(one.isspace() for one in url) else None


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "") or environ.get(name.upper(), "")


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Tell whether `no_proxy` names an upstream: by its name, a domain it is in, an address, a network, or `*`."""
    host = host.lower().rstrip(".")
    for entry in no_proxy.lower().replace(",", " ").split():
        if entry == "*":
            return True
        name, colon, number = entry.rpartition(":")
        if colon and number.isdecimal() and (":" not in name or name.startswith("[")):
            if int(number) != port:
                continue
            entry = name
        entry = entry.strip("[]").removeprefix("*").lstrip(".").rstrip(".")
        if entry and (host == entry or host.endswith("." + entry) or _is_in(host, entry)):
            return True
    return False


def _is_in(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
