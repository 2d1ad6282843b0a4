"""Who may ask: only pages that this server itself has served, under a name that is its own.

A page of any other site can make a browser send requests to a server on the same computer, and can make its
own name point there (DNS rebinding). The first is seen by `Origin` and `Sec-Fetch-Site`, the second by `Host`
(Fetch Metadata and RFC 6454).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = {"GET", "HEAD"}
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                               "img-src 'self' blob: data:; media-src blob:; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


def own_names(host: str) -> frozenset[str]:
    """The names under which a server that listens on `host` may be asked, besides addresses."""
    names = {"localhost"}
    if not is_loopback(host):
        names |= {host.lower(), socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
    return frozenset(names)


def is_loopback(host: str) -> bool:
    """Whether a name or address means this computer alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """ASGI middleware: refuses requests of other sites, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, names: Iterable[str], loopback_only: bool) -> None:
        """names: as of `own_names`. loopback_only: whether other addresses than loopback ones are refused."""
        self.app = app
        self._names = frozenset(names)
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        problem = self._problem(scope["method"], Headers(scope=scope))
        if problem:
            refusal = JSONResponse({"message": problem}, status_code=403)
            await refusal(scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)

    def _problem(self, method: str, headers: Headers) -> str | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return ("This server does not answer under that name; open the address that alpharefine demo "
                    "printed.")
        origins = headers.getlist("origin")
        if origins != [f"http://{hosts[0]}"] and (origins or method not in SAFE_METHODS):
            return "Only the page of this server itself may do that; other sites are refused."
        # A link from elsewhere may open the page, but nothing may be embedded or fetched from elsewhere.
        foreign = headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}
        if foreign and not (method in SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"):
            return "Other sites may not use this server."
        return None

    def _is_own(self, host: str) -> bool:
        name, separator, port = host.rpartition(":")
        if not separator or not port.isdigit():  # no port, or the end of an IPv6 address
            name = host
        try:
            address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return name.lower() in self._names
        return address.is_loopback or not self._loopback_only
