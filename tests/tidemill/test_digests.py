"""Digests are fixed for ever: a change here makes stored datasets unverifiable."""

from tidemill import digests


def test_digests_are_fixed() -> None:
    assert digests.row_digest("a", b"{}").hex() == "c7e5d109029c4ed8cfa13feb1b5489980aeb3f36d0ee95ce931bbeb2a347fe26"
    assert digests.output_digest("text").hex() == "4c0c249bdb5c2184c20ac87b66f6378530b8a96fbac2b31420269c5149664ab1"
    assert (
        digests.error_digest("PROMPT_TOO_LONG").hex()
        == "8b4abd94307cbec725b145bf8052d3372b56b4881338628fc0f0751311fdc14e"
    )
    assert (
        digests.data_version(digests.INPUT_SPEC, 2, b"\0" * 32).hex()
        == "90883d6686de271668a4ed3c049befed63ec8eda3760577861650c9b73ad33eb"
    )
    assert (
        digests.output_leaf(1, "a", 1, b"\1" * 32).hex()
        == "00000000000000010000000161010101010101010101010101010101010101010101010101010101010101010101"
    )
    assert digests.id_hash("a").hex() == "ca978112ca1bbdcafac231b39a23dc4d"


def test_key_and_request_cannot_trade_bytes() -> None:
    assert digests.row_digest("a", b"bc") != digests.row_digest("ab", b"c")


def test_an_answer_and_an_error_of_the_same_words_differ() -> None:
    assert digests.output_digest("JOB_FAILED") != digests.error_digest("JOB_FAILED")
