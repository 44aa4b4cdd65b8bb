"""A server of tools over stdio whose tool posts a mail over HTTPS, with the token that it was given. Runs under -S."""

import json
import os
import ssl
import sys
import urllib.request

SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}, "text": {"type": "string"}}}
TOOL = {"name": "send", "description": "Send a mail.", "inputSchema": SCHEMA}


def send(arguments):
    context = ssl.create_default_context(cafile=os.environ["MAIL_CA"])
    request = urllib.request.Request(
        os.environ["MAIL_URL"],
        json.dumps(arguments).encode(),
        {"Authorization": f"Bearer {os.environ['MAIL_TOKEN']}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(request, timeout=20) as answer:
        said = json.loads(answer.read())
    # a careless server: it tells what it sent
    return {"content": [{"type": "text", "text": json.dumps({**said, "sent_with": os.environ["MAIL_TOKEN"]})}]}


def answer(message):
    method = message["method"]
    if method == "initialize":
        return {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "mail", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [TOOL]}
    return send(message["params"]["arguments"]) if method == "tools/call" else {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        reply = {"jsonrpc": "2.0", "id": message["id"], "result": answer(message)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
