"""The embedded set as one context: prepared, started, announced to clients, and stopped whatever happens."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from tidemill.errors import Reason, TidemillError
from tidemill.preflight import PORTS, Engine, graphics, machine
from tidemill.up.downloads import DownloadProgress
from tidemill.up.home import TENANT, Home
from tidemill.up.ports import choose_ports
from tidemill.up.services import EmbeddedSet, ModelSource, process_specs
from tidemill.up.spec import Event
from tidemill.up.supervisor import Supervisor

TINY = "tiny"
# A large model from the hub is downloaded behind this; a process that dies is noticed at once.
START_SECONDS = 900.0
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class UpOptions:
    """What the user asked for.

    Attributes:
        home: folder of everything that is kept.
        models: `NAME_OR_PATH` or `ID=NAME_OR_PATH`; none means the generated tiny model.
        engine: `cpu` or `gpu`.
        any_port: let the system choose the ports.
    """

    home: Path
    models: tuple[str, ...] = ()
    engine: str = "cpu"
    dagster: bool = True
    any_port: bool = False


@dataclass(frozen=True)
class Running:
    """A set whose processes are all ready."""

    chosen: EmbeddedSet
    api_key: str
    supervisor: Supervisor

    @property
    def address(self) -> str:
        """The gateway's `host:port`."""
        return self.chosen.address("gateway")

    @property
    def dagster(self) -> str | None:
        """The Dagster webserver's `host:port`."""
        return self.chosen.address("dagster") if self.chosen.dagster else None


class Interrupted(BaseException):
    """A signal asked the program to end; no handler of errors may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def running(options: UpOptions, report: Callable[[Event], None], tell: Callable[[str], None]) -> Generator[Running]:
    """The embedded set, ready for clients. Stops every process at the end and at SIGINT, SIGTERM and SIGHUP.

    The signals are raised as `Interrupted`; a second one kills what is left. Call it from the main thread. `report`
    gets what happens to processes, `tell` lines about downloads of models.
    """
    _check_machine(options)
    home = Home(options.home.absolute())
    home.prepare()
    with home.locked():
        home.rotate_logs()
        chosen = choose(options, home, tell)
        api_key = home.development_key()
        supervisor = Supervisor(process_specs(chosen, api_key), report)
        with stopped_at_end(supervisor, home), DownloadProgress(home.logs / "inference.log", tell):
            supervisor.start()
            supervisor.wait_ready(START_SECONDS)
            _announce(chosen, api_key, supervisor)
            yield Running(chosen, api_key, supervisor)


def _check_machine(options: UpOptions) -> None:
    wanted = {"services": "server", "pydantic_settings": "server", "ray": options.engine, "vllm": options.engine}
    if options.dagster:
        wanted |= {"dagster_defs": "dagster", "dagster_webserver": "dagster"}
    missing = {name: extra for name, extra in wanted.items() if find_spec(name) is None}
    if missing:
        extras = ",".join(dict.fromkeys(missing.values()))
        message = f"not installed: {', '.join(missing)}; install them with: pip install 'tidemill[{extras}]'"
        raise TidemillError(Reason.UNAVAILABLE, message)
    engine: Engine = "gpu" if options.engine == "gpu" else "cpu"
    for finding in (machine(engine), graphics(engine)):
        if finding.level == "error":
            raise TidemillError(Reason.UNAVAILABLE, f"{finding.found}: {finding.remedy}")


@contextlib.contextmanager
def stopped_at_end(supervisor: Supervisor, home: Home) -> Generator[None]:
    """Stop everything when the block ends, or at a signal, which is raised as `Interrupted`; a second one kills."""
    ending = False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal ending
        if ending:
            supervisor.kill()
            return
        ending = True
        raise Interrupted(number)

    before = {number: signal.signal(number, on_signal) for number in _ENDING_SIGNALS}
    try:
        yield
    finally:
        ending = True
        home.withdraw()
        supervisor.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def choose(options: UpOptions, home: Home, tell: Callable[[str], None]) -> EmbeddedSet:
    """What to run: models, free ports; `tell` gets a line for each default port that is taken."""
    models = [parse_model(text) for text in options.models] or [tiny_model(home.tiny_model)]
    twice = {model.id for model in models if [other.id for other in models].count(model.id) > 1}
    if twice:
        message = f"two models are called {min(twice)!r}; name one of them with --model ID=PATH"
        raise TidemillError(Reason.INVALID_ARGUMENT, message)
    ports = choose_ports(any_port=options.any_port)
    for name, default in PORTS.items():
        if ports[name] != default and not options.any_port:
            tell(f"port {default} ({name}) is taken; {ports[name]} is used")
    return EmbeddedSet(home, ports, models, options.engine, options.dagster)


def parse_model(text: str) -> ModelSource:
    """`NAME_OR_PATH` or `ID=NAME_OR_PATH`. A folder that exists goes by its own name, anything else is a hub name."""
    name, equals, rest = text.partition("=")
    path = Path(rest if equals else text).expanduser()
    if path.is_dir():
        source = str(path.resolve())
    elif text.startswith(("/", ".", "~")) or (equals and rest.startswith(("/", ".", "~"))):
        raise TidemillError(Reason.MODEL_NOT_FOUND, f"{path} is not a folder; name a model's folder or a hub name")
    else:
        source = rest if equals else text
    return ModelSource(name if equals else (path.resolve().name if path.is_dir() else text), source)


def tiny_model(folder: Path) -> ModelSource:
    """The generated model, written to `folder` when it is not there."""
    if not (folder / "config.json").exists():
        from tidemill.tiny_model import make_tiny

        # Written beside its place and moved, so that an interrupted start leaves no half model.
        partial = folder.with_name(f".{folder.name}.{os.getpid()}")
        make_tiny(partial)
        partial.replace(folder)
    return ModelSource(TINY, str(folder))


def _announce(chosen: EmbeddedSet, api_key: str, supervisor: Supervisor) -> None:
    processes = {
        name: {"pid": child.pid, "address": child.spec.address, "http_address": child.spec.http_address}
        for name, child in supervisor.children.items()
    }
    chosen.home.announce(
        {
            "version": 1,
            "pid": os.getpid(),
            "start_time": time.time(),
            "address": chosen.address("gateway"),
            "api_key": api_key,
            "tenant": TENANT,
            "models": [model.id for model in chosen.models],
            "dagster_url": f"http://{chosen.address('dagster')}" if chosen.dagster else None,
            "processes": processes,
        }
    )
