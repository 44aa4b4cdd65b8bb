"""Functions as tools of agents: what they need is fetched for each call, and the agent sees neither it nor its name.

    @kh.tool("slack.send", needs={"token": "slack/bot-token"})
    async def send(channel: str, text: str, *, credentials) -> dict: ...

A framework that looks at ``send`` finds ``send(channel, text)``.
"""
