import json

from openai import OpenAI

client = OpenAI(max_retries=0)
ask = {"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}]}
whole = client.chat.completions.create(**ask)
parts = [part.choices[0].delta.content for part in client.chat.completions.create(**ask, stream=True)]
print(json.dumps([whole.choices[0].message.content, "".join(parts)]))
