"""The `tidemill` command: every subcommand is a module of its own that imports what it needs when it runs."""

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from tidemill.cli import console, exit_codes
from tidemill.cli.exit_codes import ExitCode, code_of
from tidemill.errors import TidemillError

_EXTRAS = "pip install 'tidemill[server]'"


class _Group(TyperGroup):
    """Ends with one line and an exit status where Python would print a traceback."""

    def invoke(self, ctx: Any) -> Any:
        console.speak_json(False)
        try:
            return super().invoke(ctx)
        except TidemillError as exc:
            console.fail(exc)
            raise typer.Exit(code_of(exc.reason)) from None
        except ModuleNotFoundError as exc:
            console.error(f"{exc.name} is not installed; this command needs more than the client: {_EXTRAS}")
            raise typer.Exit(ExitCode.USAGE) from None
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output has gone, as `head` does; Python must not complain at its exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.BROKEN_PIPE) from None


app = typer.Typer(
    cls=_Group,
    help="Batch LLM inference with deadlines that hold.",
    epilog=exit_codes.HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register() -> None:
    from tidemill.cli import (
        admin,
        demo,
        doctor,
        jobs,
        keys,
        ledger,
        metrics,
        models,
        outlook,
        quotas,
        replay,
        results,
        submit,
        transfer,
        up,
        verbs,
        verify,
        version,
        watch,
    )

    app.command("up")(up.up)
    app.command("demo")(demo.demo)
    app.command("submit")(submit.submit)
    app.command("import")(transfer.import_file)
    app.command("jobs")(jobs.list_jobs)
    app.command("show")(jobs.show)
    app.command("watch")(watch.watch)
    app.command("results")(results.results)
    app.command("export")(transfer.export)
    app.command("cancel")(jobs.cancel)
    app.command("pause")(verbs.pause)
    app.command("resume")(verbs.resume)
    app.command("update")(verbs.update)
    app.command("retry")(verbs.retry)
    app.command("delete")(verbs.delete)
    app.command("estimate")(outlook.estimate)
    app.command("explain")(outlook.explain)
    app.command("replay")(replay.replay)
    app.command("verify")(verify.verify)
    app.command("quotas")(quotas.quotas)
    app.command("doctor")(doctor.doctor)
    app.command("metrics")(metrics.metrics)
    app.command("version")(version.version)
    app.add_typer(keys.app, name="keys")
    app.add_typer(models.app, name="models")
    app.add_typer(ledger.app, name="ledger")
    app.add_typer(admin.app, name="admin")


_register()


def main() -> None:
    """Entry point."""
    app(prog_name="tidemill")


if __name__ == "__main__":
    main()
