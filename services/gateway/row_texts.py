"""The texts that the model reads of a row, whatever its kind."""

from tidemill.v1 import row_pb2


def is_generation(row: row_pb2.Row) -> bool:
    """Whether the row asks for generated text: a prompt or a chat."""
    return row.WhichOneof("input") in ("prompt", "chat")


def row_texts(row: row_pb2.Row) -> list[str]:
    """The texts of a row that passed its checks."""
    match row.WhichOneof("input"):
        case "prompt":
            return [row.prompt]
        case "chat":
            return [message.content for message in row.chat.messages]
        case "score":
            return [row.score.query, row.score.document]
        case "classification":
            return [row.classification.text]
        case _:
            return [row.embedding.text]
