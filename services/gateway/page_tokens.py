"""Page tokens: opaque, bound to the query that they continue, and not to be made up by clients."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from tidemill.errors import Reason, TidemillError

_MAC_BYTES = 16


class PageTokens:
    """Seals where a page ended together with its query; replicas that share the pepper read each other's tokens."""

    def __init__(self, pepper: str) -> None:
        self._key = hmac.new(pepper.encode(), b"tidemill.page-tokens.v1", hashlib.sha256).digest()

    def seal(self, query: Sequence[object], position: str) -> str:
        """A token that goes on behind `position`."""
        data = position.encode()
        return base64.urlsafe_b64encode(self._mac(query, data) + data).decode()

    def open(self, query: Sequence[object], token: str) -> str:
        """The position in a token, empty for the first page; INVALID_PAGE_TOKEN unless it was sealed for `query`."""
        if not token:
            return ""
        try:
            sealed = base64.b64decode(token.encode("ascii", "replace"), altchars=b"-_", validate=True)
        except binascii.Error:
            sealed = b""
        mac, data = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(query, data)):
            raise TidemillError(
                Reason.INVALID_PAGE_TOKEN,
                "the page token does not belong to this query; send the same fields with every page, or start again "
                "without a token",
            )
        return data.decode()

    def _mac(self, query: Sequence[object], data: bytes) -> bytes:
        return hmac.new(self._key, repr(tuple(query)).encode() + b"\0" + data, hashlib.sha256).digest()[:_MAC_BYTES]
