import json

from anthropic import Anthropic

client = Anthropic(max_retries=0)
ask = {"model": "claude-test", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
whole = client.messages.create(**ask)
with client.messages.stream(**ask) as stream:
    print(json.dumps([whole.content[0].text, "".join(stream.text_stream)]))
