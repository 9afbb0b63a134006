"""A DataFrame in, its answers beside it out. Needs pandas and pyarrow: python examples/client_dataframe.py."""

import pandas as pd

from tidemill import Client

questions = pd.DataFrame(
    {"page": [12, 40, 77], "topic": ["tides", "mills", "maps"], "year": [1851, 1870, 1883]},
)
questions["prompt"] = "In one sentence, about " + questions["topic"] + ":"

with Client() as client:
    model = client.models()[0].name.removeprefix("models/")
    columns = {"prompt": "prompt", "custom_id": "page"}
    job = client.submit(questions, model=model, columns=columns, sampling={"max_tokens": 24})
    answers = job.to_pandas().assign(page=lambda table: table["custom_id"].astype(int))

print(questions.merge(answers[["page", "status", "text"]], on="page").to_string(index=False))
