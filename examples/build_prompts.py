"""Write `prompts.jsonl`: 200 prompts over the texts beside it, in OpenAI's batch format. Same texts, same bytes.

python examples/build_prompts.py
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SYSTEM = "You read short passages of well-known texts and answer in plain English, as briefly as the question allows."


@dataclass(frozen=True)
class Task:
    """One question about a passage; `max_tokens` bounds the answer."""

    name: str
    question: str
    max_tokens: int


TASKS = (
    Task("summary", "Summarise the passage in one sentence of at most twenty words.", 48),
    Task("tone", "Is the passage's tone solemn, ironic, playful or factual? Answer with one of these words.", 16),
    Task("kind", "Is the passage narrative, argument, law or description? Answer with one of these words.", 16),
    Task("entities", "List the persons, places and animals that the passage names, separated by commas, or none.", 32),
)


def passages(path: Path) -> list[str]:
    """The paragraphs of a text after its source line."""
    return [block.strip() for block in path.read_text(encoding="ascii").split("\n\n")[1:]]


def row(text: str, number: int, passage: str, task: Task) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{task.question}\n\nPassage:\n{passage}"},
    ]
    return {
        "custom_id": f"{text}-{number}-{task.name}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": messages, "max_tokens": task.max_tokens, "temperature": 0},
    }


def build(folder: Path = HERE / "texts") -> str:
    """The whole file, one JSON object a line."""
    rows = [
        row(path.stem, number, passage, task)
        for path in sorted(folder.glob("*.txt"))
        for number, passage in enumerate(passages(path), start=1)
        for task in TASKS
    ]
    return "".join(json.dumps(one) + "\n" for one in rows)


if __name__ == "__main__":
    (HERE / "prompts.jsonl").write_text(build(), encoding="ascii")
