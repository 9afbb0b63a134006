"""Several answers, log probabilities, schemas and refusals on a real generating engine, beside bare vLLM."""

import json
import math
from typing import Any

import pytest

from services.inference.engine_config import Answer, Call, EngineRow
from services.inference.tasks import GENERATE
from tests.inference.engine_host import Bare, Work
from tests.inference.hosted import config, refused, run
from tidemill.encoding import Request
from tidemill.tiny_model import make_tiny

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"sea": {"enum": ["calm", "rough"]}, "sail": {"type": "boolean"}},
        "required": ["sea", "sail"],
        "additionalProperties": False,
    }
)
EXPLODING = json.dumps({"type": "string", "pattern": "^((a{1,400}){1,400}){1,400}$"})
SAMPLED = {"temperature": 1.2, "seed": 7, "max_tokens": 12, "n": 3, "logprobs": 5}
GREEDY = {"temperature": 0.0, "max_tokens": 12}
LEAST = {"temperature": 0.0, "max_tokens": 40, "min_tokens": 40}
ENDLESS = {"temperature": 0.0, "max_tokens": 200, "ignore_eos": True}
UNDER_SCHEMA = {"temperature": 0.0, "max_tokens": 60, "json_schema": SCHEMA}
GOOD: dict[str, dict[str, Any]] = {
    "sampled": SAMPLED,
    "again": SAMPLED,
    "bare logprobs": {**GREEDY, "logprobs": 0},
    "least": LEAST,
    "endless": ENDLESS,
    "schema": UNDER_SCHEMA,
    "many under a schema": {**UNDER_SCHEMA, "temperature": 1.0, "seed": 3, "n": 2, "logprobs": 1},
    "plain": GREEDY,
}
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "float seed": ({"seed": 1.0}, "PARAMETER_OUT_OF_RANGE", "sampling.seed"),
    "nan": ({"temperature": math.nan}, "PARAMETER_OUT_OF_RANGE", "sampling.temperature"),
    "no answers": ({"n": 0}, "PARAMETER_OUT_OF_RANGE", "sampling.n"),
    "too many answers": ({"n": 17}, "PARAMETER_OUT_OF_RANGE", "sampling.n"),
    "answers that are a fraction": ({"n": 2.0}, "PARAMETER_OUT_OF_RANGE", "sampling.n"),
    "greedy answers": ({"n": 2, "temperature": 0}, "PARAMETER_OUT_OF_RANGE", "greedy"),
    "too many logprobs": ({"logprobs": 21}, "PARAMETER_OUT_OF_RANGE", "sampling.logprobs"),
    "too many numbers": ({"logprobs": 20, "n": 16, "max_tokens": 400}, "PARAMETER_OUT_OF_RANGE", "max_tokens"),
    "the last seed": ({"seed": 2**63 - 1, "n": 2, "temperature": 1.0}, "PARAMETER_OUT_OF_RANGE", "sampling.seed"),
    "more than most": ({"min_tokens": 9, "max_tokens": 8}, "PARAMETER_OUT_OF_RANGE", "sampling.min_tokens"),
    "a word for a truth": ({"ignore_eos": "yes"}, "PARAMETER_OUT_OF_RANGE", "sampling.ignore_eos"),
    "a schema that is none": ({"json_schema": "{"}, "SCHEMA_INVALID", "not JSON"),
    "an unknown type": ({"json_schema": '{"type": "sea"}'}, "SCHEMA_INVALID", "compile"),
    "a lost reference": ({"json_schema": '{"$ref": "#/$defs/lost"}'}, "SCHEMA_INVALID", "compile"),
    "an unsupported keyword": ({"json_schema": '{"type": "integer", "multipleOf": 3}'}, "SCHEMA_INVALID", "multipleOf"),
    "an exploding schema": ({"json_schema": EXPLODING}, "SCHEMA_INVALID", "complex"),
    "a deep schema": ({"json_schema": '{"a":' * 40 + "1" + "}" * 40}, "SCHEMA_INVALID", "levels"),
}
PROMPT = "The tide comes in"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("generation")
    make_tiny(folder / "tiny")
    sampling = {**GOOD, **{name: values for name, (values, _, _) in BAD.items()}}
    rows = [EngineRow(index, prompt(**values)) for index, values in enumerate(sampling.values())]
    rows.append(EngineRow(len(rows), Request("embedding", text="a")))
    work = Work(
        config(folder / "tiny", 512, GENERATE),
        # Behind the bad ones, which must not have harmed the engine.
        [(Call("first"), rows), (Call("second"), [EngineRow(0, prompt(**GREEDY))])],
        [Bare("generate", (PROMPT,), values) for values in GOOD.values()],
        (Call("aborted"), [EngineRow(0, prompt(temperature=1.0, n=4, ignore_eos=True, max_tokens=450))]),
    )
    answers = run(work, folder)
    named = dict(zip([*sampling, "embedding"], range(len(rows)), strict=True))
    return {
        "ours": {name: answers["ours"][0][index] for name, index in named.items()},
        "bare": dict(zip(GOOD, answers["bare"], strict=True)),
        "afterwards": answers["ours"][1][0],
        "aborted": answers["aborted"],
        "probe": answers["probe"],
    }


def prompt(**sampling: Any) -> Request:
    return Request("prompt", prompt=PROMPT, sampling=sampling)


@pytest.mark.parametrize("name", GOOD)
def test_answers_equal_those_of_bare_vllm(found: dict[str, Any], name: str) -> None:
    ours, bare = found["ours"][name], found["bare"][name]
    assert isinstance(ours, Answer), ours
    alternatives = ours.alternatives or ()
    assert [ours.text, *(item.text for item in alternatives)] == [text for text, _ in bare]
    assert (ours.logprobs is None) == ("logprobs" not in GOOD[name])
    for answer, (_, logprobs) in zip([ours, *alternatives], bare, strict=True):
        if answer.logprobs is not None:
            assert [item.logprob for item in answer.logprobs] == pytest.approx(
                [own for _, own, _ in logprobs], abs=1e-5
            )
            for item, (_, _, places) in zip(answer.logprobs, logprobs, strict=True):
                likeliest = sorted(places.values(), reverse=True)[: len(item.top)]
                assert [top.logprob for top in item.top] == pytest.approx(likeliest, abs=1e-5)


def test_several_answers_are_each_their_own_and_repeatable(found: dict[str, Any]) -> None:
    first, again = found["ours"]["sampled"], found["ours"]["again"]
    texts = [first.text, *(item.text for item in first.alternatives)]
    assert len(set(texts)) == 3
    assert texts == [again.text, *(item.text for item in again.alternatives)]
    counts = [len(first.logprobs), *(len(item.logprobs) for item in first.alternatives)]
    assert counts[1:] == [item.output_tokens for item in first.alternatives]
    assert first.output_tokens == sum(counts)
    assert {item.finish_reason for item in first.alternatives} <= {"stop", "length"}


def test_log_probabilities_are_of_a_distribution(found: dict[str, Any]) -> None:
    for item in found["ours"]["sampled"].logprobs:
        values = [top.logprob for top in item.top]
        assert len(values) == 5
        assert values == sorted(values, reverse=True)
        assert all(value <= 0 for value in [*values, item.logprob])
        assert sum(map(math.exp, values)) <= 1 + 1e-5
    bare = found["ours"]["bare logprobs"]
    assert {item.top for item in bare.logprobs} == {()}
    assert "".join(item.token for item in bare.logprobs).startswith(bare.text)


def test_least_and_endless_lengths_are_kept(found: dict[str, Any]) -> None:
    assert found["ours"]["least"].output_tokens == 40
    assert (found["ours"]["endless"].output_tokens, found["ours"]["endless"].finish_reason) == (200, "length")


def test_answers_under_a_schema_are_documents_of_it(found: dict[str, Any]) -> None:
    several = found["ours"]["many under a schema"]
    for text in [found["ours"]["schema"].text, several.text, *(item.text for item in several.alternatives)]:
        document = json.loads(text)
        assert document.keys() == {"sea", "sail"}
        assert document["sea"] in ("calm", "rough")
        assert document["sail"] in (True, False)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_refused_by_name(found: dict[str, Any], name: str) -> None:
    _, code, words = BAD[name]
    own_code, message = refused(found["ours"][name])
    assert (own_code, words in message) == (code, True), message


def test_the_engine_outlives_bad_rows(found: dict[str, Any]) -> None:
    assert found["afterwards"].text == found["ours"]["plain"].text
    assert found["probe"].unfinished <= 1, "the probe's own canary at most"


def test_another_kind_of_row_is_refused_by_name(found: dict[str, Any]) -> None:
    code, message = refused(found["ours"]["embedding"])
    assert code == "TASK_NOT_SUPPORTED"
    assert "TASK_GENERATE" in message


def test_an_aborted_row_with_several_answers_has_none(found: dict[str, Any]) -> None:
    assert found["aborted"] == {}
