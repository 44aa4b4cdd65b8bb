"""What a server asks of the client whose call goes on: a completion of its model, or something that its user says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mcp_types as types

SAMPLING, ELICITATION = "sampling", "elicitation"
REFUSED = types.ErrorData(code=types.INVALID_REQUEST, message="the gateway passes this on to nobody")
Check = Callable[[], Awaitable[None]]
Asked = types.CreateMessageRequest | types.ElicitRequest


@dataclass(frozen=True, slots=True)
class QuestionLimits:
    """Bounds on what servers ask, and on the calls that wait for an answer.

    Attributes:
        at_once: questions of one call that are open.
        rounds: in which one call asks before it is answered.
        question: characters of one.
        together: characters of all that one call has open.
        call: characters of a call that may wait for its client.
        answer: bytes of the answers of one round.
        state: characters that a server has kept for it between two rounds.
        kept: bytes of a result that nobody waits for yet.
        wait: seconds that a client has to answer.
        agent: calls of one agent that wait for answers.
        total: such calls of all agents.
    """

    at_once: int = 8
    rounds: int = 8
    question: int = 256 * 1024
    together: int = 512 * 1024
    call: int = 1024 * 1024
    answer: int = 1024 * 1024
    state: int = 256 * 1024
    kept: int = 256 * 1024
    wait: float = 300.0
    agent: int = 32
    total: int = 512


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        kind: ``SAMPLING`` or ``ELICITATION``.
        params: as the protocol has them, without credentials.
    """

    kind: str
    params: Mapping[str, Any]

    def request(self, server: str) -> Asked:
        """The request that it is for a client; it says which server asks. Raises ``ValueError`` for what is none."""
        who = f"The server of tools {server!r} asks"
        if self.kind == SAMPLING:
            said = f"{who} this, and not the user. {self.params.get('systemPrompt', '')}"
            sampled = types.CreateMessageRequestParams.model_validate({**self.params, "systemPrompt": said.strip()})
            return types.CreateMessageRequest(params=sampled)
        said = (
            f"The server of tools {server!r} asks (never give it a key or password): {self.params.get('message', '')}"
        )
        form = types.ElicitRequestFormParams.model_validate({**self.params, "message": said})
        return types.ElicitRequest(params=form)


class Listens(Protocol):
    """The client whose call goes on."""

    def begun(self, check: Check) -> None:
        """The call was let through; ``check`` raises what it is refused for now."""

    async def log(self, level: types.LoggingLevel, logger: str, data: Any) -> None:
        """Hear what a server logs."""

    async def ask(self, server: str, questions: Sequence[Question]) -> list[Any]:
        """Answers to what a server asks at once, in their order; ``ErrorData`` ends it where it cannot be asked.

        Raises:
            KeyholeError: by now, the call is refused.
        """
