"""Who may change things: the administrator's token, or the machine itself where no token is set."""

import hmac
import ipaddress
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from service.errors import Unauthorized

Authorise = Callable[..., None]


def admin_authorisation(token: str | None) -> Authorise:
    """A FastAPI dependency that lets only administrators pass; raises Unauthorized (401 or 403) for others.

    With a ``token`` the call needs ``Authorization: Bearer <token>``, compared in constant time. Without one (None or
    empty) it has to come from a loopback address, and not out of a page of some other site that runs in a browser on
    this machine.
    """
    bearer = HTTPBearer(auto_error=False, scheme_name="Admin token", description="The value of SLUICE_ADMIN_TOKEN")
    expected = token.encode() if token else None

    def authorise(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None
    ) -> None:
        if expected is None:
            _require_loopback(request)
        # Headers arrive decoded as latin-1; encoding them so gives the bytes that were sent.
        elif credentials is None or not hmac.compare_digest(credentials.credentials.encode("latin-1"), expected):
            raise Unauthorized("this call needs the header 'Authorization: Bearer' with the admin token")

    return authorise


def _require_loopback(request: Request) -> None:
    if request.client is None or not _is_loopback(request.client.host):
        raise Unauthorized("without an admin token this call is only for the server's own machine", challenge=False)
    origin = request.headers.get("origin")
    if origin is not None and not _is_loopback(_host_of(origin)):
        raise Unauthorized("without an admin token this call is not for another site's page", challenge=False)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
