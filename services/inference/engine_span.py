"""The span around a chunk's rows at an engine: OpenTelemetry's conventions for generative AI."""

from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import Span

from services.inference.held import HeldLease
from tidemill.encoding import sampling_values

__all__ = ["Usage", "describe"]


@dataclass
class Usage:
    """Sums over result rows as they come."""

    rows: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def add(self, table: Any) -> None:
        """Count a result table in."""
        self.rows += table.num_rows
        self.prompt_tokens += sum(table.column("prompt_tokens").to_pylist())
        self.output_tokens += sum(table.column("output_tokens").to_pylist())

    def describe(self, span: Span) -> None:
        """Put the sums on the span."""
        span.set_attributes(
            {
                "tidemill.rows": self.rows,
                "gen_ai.usage.input_tokens": self.prompt_tokens,
                "gen_ai.usage.output_tokens": self.output_tokens,
            }
        )


def describe(span: Span, held: HeldLease, build: str) -> None:
    """Put on the span what is known before the first answer, the job's own sampling values included."""
    span.set_attributes(
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": held.model,
            "gen_ai.response.model": held.model,
            "tidemill.job": held.job,
            "tidemill.fence": held.lease.fence,
            "tidemill.engine_build": build,
        }
    )
    values = sampling_values(held.lease.spec.sampling)
    for name in ("temperature", "top_p", "top_k", "max_tokens", "frequency_penalty", "presence_penalty", "seed"):
        if name in values:
            span.set_attribute(f"gen_ai.request.{name}", values[name])
