"""The SDK of AgentSecrets as it is. Prints what came of each call, as one JSON object."""

import asyncio
import json
import sys

import agentsecrets
import httpx
import requests
from agentsecrets import AgentSecrets, AsyncAgentSecrets, credential
from agentsecrets.errors import AgentSecretsError
from agentsecrets.proxy import health_check

base, stranger = sys.argv[1:3]
agentsecrets.init()
said = {}
bearer = {"Authorization": f"Bearer {credential.STRIPE_KEY}"}


def note(name, answer):
    said[name] = [answer.status_code, answer.text, dict(answer.headers)]


def failed(name, work):
    try:
        work()
    except AgentSecretsError as error:
        said[name] = [type(error).__name__, str(error)]


async def later():
    async with httpx.AsyncClient() as client:
        note("async", await client.get(f"{base}/as/bearer", headers=bearer, follow_redirects=True))
        note("async gzip", await client.get(f"{base}/as/gzip", headers=bearer))
        note("async error", await client.get(f"{base}/as/error", headers=bearer))
    answer = await AsyncAgentSecrets().async_call(f"{base}/as/query?q=1", query={"api_key": "STRIPE_KEY"})
    note("async call", answer)


said["health"] = health_check(agentsecrets.settings.port).project
with requests.Session() as session:
    note("requests", session.get(f"{base}/as/bearer?a=b%20c", headers=bearer))
    note("header", session.post(f"{base}/as/header", json={"n": 1}, headers={"X-Api-Key": credential.STRIPE_KEY}))
    note("gzip", session.get(f"{base}/as/gzip", headers=bearer))
    note("error", session.get(f"{base}/as/error", headers=bearer))
    note("moved", session.get(f"{base}/as/moved", headers=bearer, allow_redirects=False))
    note("moved on", session.get(f"{base}/as/moved", headers=bearer))
    note("stranger", session.get(f"{stranger}/as/bearer", headers=bearer))
    note("elsewhere", session.get("https://evil.example.test/x", headers=bearer))
    note("unknown", session.get(f"{base}/as/bearer", headers={"Authorization": f"Bearer {credential.NO_SUCH}"}))
    upload = session.put(f"{base}/as/large", data=(b"x" * 65536 for _ in range(80)), headers=bearer)
    said["large"] = [upload.status_code, len(upload.content)]
with httpx.Client() as client:
    note("httpx", client.get(f"{base}/as/bearer", headers=bearer))
    note("httpx gzip", client.get(f"{base}/as/gzip", headers=bearer))
    note("httpx moved", client.get(f"{base}/as/moved", headers=bearer))
asyncio.run(later())

kh = AgentSecrets()
note("call", kh.call(f"{base}/as/body", method="POST", body={"a": 1}, body_field={"auth.api_key": "STRIPE_KEY"}))
failed("call elsewhere", lambda: kh.call("https://evil.example.test/x", bearer="STRIPE_KEY"))
said["spawn"] = kh.spawn(["sh", "-c", "echo $STRIPE_KEY; exit 3"]).__dict__
said["logs"] = [[e.status_code, e.status, e.reason, e.target_url] for e in kh.proxy.logs(last=3)]
print(json.dumps(said))
