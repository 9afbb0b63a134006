"""Find secrets in tracked files with detect-secrets; `.secrets.baseline` holds findings that a person looked at."""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings

from scripts.tracked import ROOT, text_of, tracked_files

BASELINE = ".secrets.baseline"
# The entropy detectors are left out: digests, ids and alphabets are everywhere here, and each would be a finding.
PLUGINS = [
    "ArtifactoryDetector",
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "BasicAuthDetector",
    "CloudantDetector",
    "DiscordBotTokenDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "IbmCloudIamDetector",
    "JwtTokenDetector",
    "KeywordDetector",
    "MailchimpDetector",
    "NpmDetector",
    "OpenAIDetector",
    "PrivateKeyDetector",
    "PypiTokenDetector",
    "SendGridDetector",
    "SlackDetector",
    "SquareOAuthDetector",
    "StripeDetector",
    "TelegramBotTokenDetector",
    "TwilioKeyDetector",
]
FILTERS = [
    "allowlist.is_line_allowlisted",
    "heuristic.is_indirect_reference",
    "heuristic.is_templated_secret",
    "heuristic.is_potential_uuid",
    "heuristic.is_sequential_string",
    "heuristic.is_not_alphanumeric_string",
]
SETTINGS: dict[str, Any] = {
    "plugins_used": [{"name": name} for name in PLUGINS],
    "filters_used": [{"path": f"detect_secrets.filters.{name}"} for name in FILTERS],
}
# Ours, that no general detector knows: a key that `tidemill keys create` printed.
TIDEMILL_KEY = re.compile(r"\btm_live_[a-z2-7]{16}_[a-z2-7]{32}")
SKIPPED_SUFFIXES = (".lock", "_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi", BASELINE)


class Finding(NamedTuple):
    """A possible secret; `digest` is detect-secrets' SHA-1 of it, so the baseline never holds one."""

    file: str
    line: int
    kind: str
    digest: str


def findings(root: Path) -> list[Finding]:
    found: list[Finding] = []
    with transient_settings(SETTINGS):
        for path in tracked_files(root):
            name = str(path.relative_to(root))
            if name.endswith(SKIPPED_SUFFIXES) or (text := text_of(path)) is None:
                continue
            found += [Finding(name, one.line_number, one.type, one.secret_hash) for one in scan_file(str(path))]
            found += [Finding(name, number, "Tidemill key", "") for number in tidemill_keys(text)]
    return found


def tidemill_keys(text: str) -> list[int]:
    """Lines with a key of high variety; one made of repeated letters is an example."""
    lines = enumerate(text.splitlines(), start=1)
    return [number for number, line in lines for key in TIDEMILL_KEY.findall(line) if len(set(key)) > 16]


def known(root: Path) -> set[tuple[str, str, str]]:
    path = root / BASELINE
    entries: list[list[str]] = json.loads(path.read_text())["findings"] if path.exists() else []
    return {(file, kind, digest) for file, kind, digest in entries}


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accept", action="store_true", help="write the findings to the baseline, once looked at")
    found = findings(root)
    if parser.parse_args(argv).accept:
        entries = sorted({(one.file, one.kind, one.digest) for one in found})
        (root / BASELINE).write_text(json.dumps({"findings": entries}, indent=1) + "\n")
        return 0
    accepted = known(root)
    fresh = [one for one in found if (one.file, one.kind, one.digest) not in accepted]
    for one in fresh:
        print(
            f"{one.file}:{one.line}: {one.kind}; remove it, or mark a false one `pragma: allowlist secret`",
            file=sys.stderr,
        )
    return 1 if fresh else 0


if __name__ == "__main__":
    raise SystemExit(main())
