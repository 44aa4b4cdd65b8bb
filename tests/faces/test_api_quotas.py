"""Quotas over HTTP: status and headers of a refusal."""

from faces.api_client import play


def test_refusal_says_when_to_come_back():
    async def scenario(ask, _vault):
        await ask("POST", "sys/quotas/rate-limit/q", {"rate": 1, "interval": "1h", "path": "secret"})
        assert (await ask("GET", "secret/data/x")).status == 404
        answer = await ask("GET", "secret/data/x")
        assert answer.status == 429
        assert answer.json == {"errors": ['request path "secret/data/x": rate limit quota exceeded']}
        assert answer.headers["x-keyhole-error"] == "rate_limited"
        assert 3500 < int(answer.headers["retry-after"]) <= 3600
        assert "x-ratelimit-limit" not in answer.headers

    play(scenario)


def test_every_answer_says_how_much_is_left_if_that_is_wished():
    async def scenario(ask, _vault):
        await ask("POST", "sys/quotas/rate-limit/q", {"rate": 2, "interval": "1h", "path": "secret"})
        await ask("POST", "sys/quotas/config", {"enable_rate_limit_response_headers": "true"})
        said = []
        for _ in range(3):
            answer = await ask("GET", "secret/data/x")
            said.append((answer.status, answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]))
        assert said == [(404, "2", "1"), (404, "2", "0"), (429, "2", "0")]
        assert "x-ratelimit-limit" not in (await ask("GET", "cubbyhole/x")).headers

    play(scenario)
