"""Where a bucket is: `s3://bucket/prefix?endpoint=https://host:port&region=name`, and credentials by environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from pyarrow import fs

from tidemill.errors import Reason, TidemillError

ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_DEFAULT_REGION = "us-east-1"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*(/[A-Za-z0-9][A-Za-z0-9._=-]*)*")
# A silent endpoint costs the product of time and attempts; callers that can wait try again themselves.
_CONNECT_SECONDS = 3.0
_SILENT_SECONDS = 5.0
_ATTEMPTS = 2

_fs = cast("Any", fs)


@dataclass(frozen=True)
class S3Address:
    """A place in a bucket.

    Attributes:
        bucket: its name.
        prefix: keys begin with it, without slashes at its ends; may be empty.
        endpoint: `http://host:port` or `https://host:port`; empty means Amazon's.
        region: name of the region.
    """

    bucket: str
    prefix: str
    endpoint: str
    region: str

    @property
    def base(self) -> str:
        """Bucket and prefix, as `pyarrow.fs` names the place."""
        return f"{self.bucket}/{self.prefix}" if self.prefix else self.bucket

    @property
    def uri(self) -> str:
        """Without the endpoint."""
        return f"s3://{self.base}"


def parse_s3(uri: str) -> S3Address:
    """The place that `uri` names; what it leaves open is taken from the environment. INVALID_ARGUMENT."""
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise _refused(parts.hostname or "", f"credentials do not belong into it: set {ACCESS_KEY} and {SECRET_KEY}")
    if not _BUCKET.fullmatch(parts.netloc):
        raise _refused(uri, f"{parts.netloc!r} is not a bucket's name; use s3://bucket/prefix")
    prefix = parts.path.strip("/")
    if parts.fragment or (prefix and not _PREFIX.fullmatch(prefix)):
        raise _refused(uri, "the prefix may have letters, digits and . _ = - between slashes")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := options.keys() - {"endpoint", "region"}:
        raise _refused(uri, f"{', '.join(sorted(unknown))} is unknown; it may have endpoint and region")
    endpoint = options.get("endpoint") or _first(_ENDPOINTS, os.environ)
    if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
        raise _refused(uri, f"the endpoint {endpoint!r} must begin with http:// or https://")
    region = options.get("region") or _first(_REGIONS, os.environ) or _DEFAULT_REGION
    return S3Address(parts.netloc, prefix, endpoint.rstrip("/"), region)


def filesystem(address: S3Address) -> Any:
    """`pyarrow.fs` view of the endpoint, one for a process; INVALID_ARGUMENT without credentials."""
    access, secret = os.environ.get(ACCESS_KEY, ""), os.environ.get(SECRET_KEY, "")
    if not access or not secret:
        # The SDK would go on to look for the credentials of a machine, which takes seconds and finds those of others.
        raise _refused(address.uri, f"it needs credentials: set {ACCESS_KEY} and {SECRET_KEY} in the environment")
    return _filesystem(address.endpoint, address.region, access, secret, os.environ.get(SESSION_TOKEN, ""))


@lru_cache(maxsize=16)
def _filesystem(endpoint: str, region: str, access: str, secret: str, token: str) -> Any:
    where = urlsplit(endpoint)
    return _fs.S3FileSystem(
        access_key=access,
        secret_key=secret,
        session_token=token or None,
        region=region,
        scheme=where.scheme or "https",
        endpoint_override=where.netloc or None,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_SILENT_SECONDS,
        retry_strategy=_fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        # A file below 5 MiB is then one PUT.
        allow_delayed_open=True,
        background_writes=False,
        tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE") or None,
    )


def forget_filesystems() -> None:
    """Make new connections from now on."""
    _filesystem.cache_clear()


def explain(exc: OSError, address: S3Address) -> str:
    """What went wrong at the bucket, and what to do."""
    found = re.search(r"AWS Error ([A-Z_0-9]+)", str(exc))
    code = found[1] if found else ""
    if code in _REFUSED:
        return (
            f"{address.uri} refuses the credentials in {ACCESS_KEY} and {SECRET_KEY} ({code}): they must be valid and "
            "may GetObject, PutObject, DeleteObject, ListBucket and AbortMultipartUpload there"
        )
    if code == "NETWORK_CONNECTION" or "curlCode" in str(exc):
        return f"{address.endpoint or 'Amazon S3'} does not answer ({_tail(exc)})"
    if code == "NO_SUCH_BUCKET":
        return f"bucket {address.bucket} does not exist: make it, or name another one in the store's URI"
    return f"{address.uri}: {_tail(exc)}"


_REFUSED = frozenset(
    {"ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID"}
    | {"INVALID_SIGNATURE", "MISSING_AUTHENTICATION_TOKEN", "REQUEST_EXPIRED", "UNRECOGNIZED_CLIENT"}
)


def _tail(exc: OSError) -> str:
    return str(exc).partition("operation: ")[2][:300] or str(exc)[:300]


def _first(names: tuple[str, ...], environment: Mapping[str, str]) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _refused(uri: str, problem: str) -> TidemillError:
    return TidemillError(Reason.INVALID_ARGUMENT, f"store {uri[:200]!r}: {problem}", metadata={"store": uri[:200]})
