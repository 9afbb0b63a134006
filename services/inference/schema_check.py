"""Compiles JSON schemas as the engine will, in a process that may be lost: `python -m services.inference.schema_check
MODEL_FOLDER VOCABULARY_SIZE`.

Each line of stdin is a schema as a JSON string; each line of stdout is what is wrong with it, as a JSON string, empty
for nothing. An answer under the schema is tried as well: some patterns compile at once and then hold up every token,
for all rows of the engine. A schema that takes more processor time or memory than it may ends the process. It ends with
its parent too: when stdin closes.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

CPU_SECONDS = 10
MEMORY_BYTES = 1 << 30
_TRIED_TOKENS = 256


def main() -> None:
    """Serve until stdin closes."""
    vocabulary = int(sys.argv[2])
    compiler = _compiler(sys.argv[1], vocabulary)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        _limit_time()
        print(json.dumps(_fault(compiler, vocabulary, json.loads(line))), flush=True)


def _compiler(folder: str, vocabulary: int) -> Any:
    import xgrammar
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary)
    return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)


def _limit_time() -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime) + 1 + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _fault(compiler: Any, vocabulary: int, schema: str) -> str:
    try:
        grammar = compiler.compile_json_schema(schema, any_whitespace=False, separators=(",", ":"))
        _try(grammar, vocabulary)
    except MemoryError:
        return "it needs too much memory"
    except Exception as exc:  # noqa: BLE001 - the compiler raises anything; its words are the answer
        return str(exc) or type(exc).__name__
    return ""


def _try(grammar: Any, vocabulary: int) -> None:
    """An answer that repeats a token as long as it may, which is what patterns inside patterns suffer from."""
    import xgrammar

    matcher, mask = xgrammar.GrammarMatcher(grammar), xgrammar.allocate_token_bitmask(1, vocabulary)
    last = -1
    for _ in range(_TRIED_TOKENS):
        if matcher.is_terminated():
            return
        matcher.fill_next_token_bitmask(mask)
        words: list[int] = mask[0].tolist()
        if last < 0 or not words[last // 32] >> (last % 32) & 1:
            last = next(index * 32 + (word & -word).bit_length() - 1 for index, word in enumerate(words) if word)
        matcher.accept_token(last)


if __name__ == "__main__":
    main()
