"""Three prompts through a running Tidemill (`tidemill up`): python examples/client_ten_lines.py."""

from tidemill import Client

PROMPTS = ["The tide comes in twice a day because", "A mill turns water into", "Three uses of an old map:"]

with Client() as client:
    model = client.models()[0].name.removeprefix("models/")
    job = client.submit(PROMPTS, model=model, deadline="2h", sampling={"temperature": 0, "max_tokens": 24})
    for result in job.results():
        print(result.custom_id, result.text or result.error_message)
