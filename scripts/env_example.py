"""Write `.env.example`: every variable of every settings class with its meaning and an example; `--check` compares."""

import sys
import textwrap
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from dagster_defs.settings import DagsterSettings
from services.gateway.settings import GatewaySettings
from services.inference.settings import InferenceSettings
from services.scheduler.settings import SchedulerSettings
from tidemill.config import CommonSettings

FILE = Path(__file__).resolve().parent.parent / ".env.example"
HEAD = """\
# Every variable that Tidemill reads, with its default or an example. Written by `make env`; do not edit.
# `tidemill up` needs none of them. For processes started by hand: cp .env.example .env, edit, set -a; . ./.env
"""
SECTIONS: dict[str, type[BaseSettings]] = {
    "Every process": CommonSettings,
    "Scheduler (python -m services.scheduler)": SchedulerSettings,
    "Gateway (python -m services.gateway)": GatewaySettings,
    "Inference (python -m services.inference)": InferenceSettings,
    "Dagster (python -m dagster_defs webserver|daemon)": DagsterSettings,
}
# Variables that no settings class reads: those of the client, and of libraries that we promise to honour.
OTHERS: dict[str, dict[str, tuple[str, str]]] = {
    "Client and command": {
        "TIDEMILL_ADDRESS": ("Gateway to talk to. Default: the one that `tidemill up` runs here.", "127.0.0.1:7070"),
        "TIDEMILL_CA": (
            "PEM certificates that may sign for the gateway. Default: those of the system.",
            "/etc/tidemill/ca.pem",
        ),
        "TIDEMILL_API_KEY": ("API key, as `tidemill keys create` printed it.", "<key>"),
        "ENGINE": ("What `make` and `tidemill up` run the models on: cpu or gpu.", "cpu"),
    },
    "Standard variables of libraries": {
        "OTEL_EXPORTER_OTLP_ENDPOINT": ("Collector of spans. Default: files in the folder.", "http://127.0.0.1:4317"),
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("The same for spans alone.", "http://127.0.0.1:4317"),
        "HF_HOME": ("Cache of models from the hub.", "/var/cache/huggingface"),
        "AWS_ACCESS_KEY_ID": (
            "Credentials of an s3:// store, with AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN).",
            "<id>",
        ),
        "AWS_SECRET_ACCESS_KEY": ("See AWS_ACCESS_KEY_ID.", "<secret>"),
        "AWS_ENDPOINT_URL_S3": ("S3 server, where the store's URI names none.", "https://s3.example:9000"),
        "AWS_REGION": ("Region, where the store's URI names none.", "eu-central-1"),
        "AWS_CA_BUNDLE": ("Certificates that the S3 server is checked with.", "/etc/ssl/certs/ca.pem"),
        "HTTPS_PROXY": ("Proxy for downloads.", "http://proxy.example:3128"),
    },
}
# Examples for what has no default, or one that says nothing.
EXAMPLES = {
    "TIDEMILL_HOME": "/var/lib/tidemill",
    "TIDEMILL_TELEMETRY_DIR": "/var/log/tidemill",
    "TIDEMILL_READY_FILE": "/run/tidemill/gateway.json",
    "TIDEMILL_MTLS_CERTIFICATE": "/etc/tidemill/gateway.pem",
    "TIDEMILL_MTLS_KEY": "/etc/tidemill/gateway-key.pem",
    "TIDEMILL_MTLS_CA": "/etc/tidemill/ca.pem",
    "TIDEMILL_GATEWAY_TLS_CERTIFICATE": "/etc/tidemill/public.pem",
    "TIDEMILL_GATEWAY_TLS_KEY": "/etc/tidemill/public-key.pem",
    "TIDEMILL_GATEWAY_AUDIT_FILE": "/var/log/tidemill/audit.jsonl",
    "TIDEMILL_SCHEDULER_LEDGER": "sqlite:////var/lib/tidemill/ledger.sqlite3",
    "TIDEMILL_SCHEDULER_LEDGER_PASSWORD": "<password>",
    "TIDEMILL_SCHEDULER_ADVERTISE": "scheduler-1.example:7080",
    "TIDEMILL_GATEWAY_STORE": "file:///var/lib/tidemill/store",
    "TIDEMILL_GATEWAY_IMPORT_ROOTS": "file:///srv/in/{tenant},s3://bucket/in",
    "TIDEMILL_GATEWAY_EXPORT_ROOTS": "file:///srv/out/{tenant},s3://bucket/out",
    "TIDEMILL_GATEWAY_SPOOL": "/var/lib/tidemill/spool",
    "TIDEMILL_GATEWAY_KEYS_FILE": "/var/lib/tidemill/keys.json",
    "TIDEMILL_GATEWAY_KEY_PEPPER": "<openssl rand -hex 32>",
    "TIDEMILL_INFERENCE_STORE": "file:///var/lib/tidemill/store",
    "TIDEMILL_INFERENCE_MODELS": "qwen=Qwen/Qwen2.5-0.5B-Instruct",
    "TIDEMILL_INFERENCE_PRELOAD": "qwen",
    "TIDEMILL_INFERENCE_PROFILE": "cpu",
    "TIDEMILL_INFERENCE_RAY_ADDRESS": "ray-head.example:6379",
    "TIDEMILL_SCHEDULER_QUOTAS": '\'{"*": {"jobs": 100}, "acme": {"rows": 1000000}}\'',
    "TIDEMILL_DAGSTER_API_KEY": "<key>",
    "TIDEMILL_DAGSTER_CA": "/etc/tidemill/ca.pem",
    "TIDEMILL_DAGSTER_TRACE_URL_TEMPLATE": "http://127.0.0.1:16686/trace/{trace_id}",
}


def variables(settings: type[BaseSettings]) -> dict[str, FieldInfo]:
    """The environment variables that a settings class reads."""
    prefix = settings.model_config.get("env_prefix", "")
    return {f"{prefix}{name}".upper(): field for name, field in settings.model_fields.items()}


def entry(name: str, meaning: str, example: str, *, required: bool) -> str:
    comment = textwrap.fill(meaning, 116, initial_indent="# ", subsequent_indent="# ")
    return f"{comment}\n{'' if required else '#'}{name}={example}\n"


def example_of(name: str, field: FieldInfo) -> str:
    if name in EXAMPLES:
        return EXAMPLES[name]
    value = field.get_default()
    return str(value).lower() if isinstance(value, bool) else str(value)


def text() -> str:
    parts = [HEAD]
    for title, settings in SECTIONS.items():
        parts.append(f"# ---- {title}\n")
        for name, field in variables(settings).items():
            meaning = f"{field.description or ''}{' Required.' if field.is_required() else ''}"
            parts.append(entry(name, meaning, example_of(name, field), required=field.is_required()))
    for title, others in OTHERS.items():
        parts.append(f"# ---- {title}\n")
        parts += [entry(name, meaning, example, required=False) for name, (meaning, example) in others.items()]
    return "\n".join(parts)


def main() -> int:
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text())
    elif not FILE.exists() or FILE.read_text() != text():
        print(".env.example: does not match the settings classes; run `make env` and commit it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
