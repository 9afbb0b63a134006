"""Taking secrets out of what leaves this machine: known ones wherever they stand, and whatever looks like one."""

import base64
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from tidemill.client.settings import read_up_file

REMOVED = "[removed]"
# Shorter values would be found in half of all words; they are removed where they are assigned.
_SHORTEST = 6
_SECRET_NAME = re.compile(
    r"pepper|secret|token(?!izer|s)|passw|credential|private|api_?key|access_?key|dev_?key|_key$|_auth$", re.IGNORECASE
)
_NAMES_OF_FILES = ("pepper", "dev-key")
_PATTERNS = (
    re.compile(r"tm_live_[A-Za-z0-9]+_[A-Za-z0-9_-]+"),
    re.compile(r"(?i)(?<=bearer )[^\s\"',\\]+"),
    re.compile(r"(?<=://)[^\s/@:\"']*:[^\s/@\"']+(?=@)"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{12,}|gh[pousr]_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,})"),
    re.compile(r"(?i)(?<=[?&])(?:x-amz-(?:signature|credential|security-token)|signature|sig|token)=[^\s&\"']+"),
)
_ASSIGNED = re.compile(
    r"""(?i)\b([\w-]*(?:pepper|secret|password|passwd|api_?key|auth_token)["']?\s*[:=]\s*["']?)([^\s"',}]+)"""
)
_URL_PASSWORD = re.compile(r"://[^\s/@:]*:([^\s/@]+)@")


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name holds a secret; the path of a file with one is none."""
    return bool(_SECRET_NAME.search(name)) and not name.upper().endswith(("_FILE", "_PATH"))


def known_secrets(home: Path, environments: Iterable[Mapping[str, str]]) -> frozenset[str]:
    """The secrets of `home` and those in `environments`, each also as base64, hex and in a URL."""
    environments = tuple(environments)
    found = {value for env in environments for name, value in env.items() if is_secret_name(name)}
    found |= {_read(home / name).strip() for name in _NAMES_OF_FILES}
    found |= {match for env in environments for value in env.values() for match in _URL_PASSWORD.findall(value)}
    found.add(str(read_up_file(home).get("api_key", "")))
    # The secret part of a key alone is as good as the key.
    found |= {key.rpartition("_")[2] for key in tuple(found) if key.startswith("tm_live_")}
    usable = {secret for secret in found if len(secret) >= _SHORTEST}
    return frozenset(form for secret in usable for form in _forms(secret))


def redacted(text: str, secrets: Iterable[str]) -> str:
    """`text` with known secrets and what looks like one replaced."""
    # Long ones first: one may be part of another.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, REMOVED)
    for pattern in _PATTERNS:
        text = pattern.sub(REMOVED, text)
    return _ASSIGNED.sub(rf"\1{REMOVED}", text)


def redacted_environment(environment: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """The variables with one of `prefixes`; those that hold a secret say only whether they are set."""
    return {
        name: (REMOVED if value else "") if is_secret_name(name) else value
        for name, value in sorted(environment.items())
        if name.startswith(prefixes)
    }


def process_environment(pid: int) -> dict[str, str]:
    """Environment of a process of this user; empty where it cannot be read."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)


def own_environment() -> dict[str, str]:
    """Environment of this process."""
    return dict(os.environ)


def _forms(secret: str) -> set[str]:
    raw = secret.encode()
    encoded = base64.b64encode(raw).decode().rstrip("=")
    return {secret, encoded, encoded.replace("+", "-").replace("/", "_"), raw.hex(), quote(secret, safe="")}


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
