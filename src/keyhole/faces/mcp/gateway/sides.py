"""What servers have besides tools: resources, templates of them, prompts, and what completes their arguments.

Each is named after its server. An agent needs ``use`` of ``tools/SERVER/@resources`` or ``@prompts``.

    mcp://SERVER/QUOTED          a resource that the server lists
    mcp://SERVER/+URI            one of a template that it lists; the client has filled that in
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import mcp_types as types
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate
from pydantic import TypeAdapter, ValidationError

from keyhole.core.errors import KeyholeError, UpstreamUnreachable
from keyhole.core.tool_server import PROMPTS, RESOURCES, is_tool_name, look_alikes, shown_name, split_shown
from keyhole.faces.mcp.gateway.cleaned import Cleaner
from keyhole.faces.mcp.gateway.gateway import Asks, Gateway, Hidden, nothing_said
from keyhole.faces.mcp.gateway.questions import Listens
from keyhole.faces.mcp.gateway.rounds import exchanged
from keyhole.faces.mcp.gateway.upstream import LARGEST_LIST, Upstream, faults
from keyhole.faces.mcp.gateway.use import Use

SCHEME = "mcp://"
_WAITING = 20.0  # seconds that a list waits for a server that is slow
_MOST_PAGES = 100
_MOST = 5000  # of one list
_MOST_WATCHED = 256  # resources of one server
_LONGEST = 8192  # characters of a URI
_MOST_VALUES = 100  # of a completion, as the protocol says
_NOT_SHOWN = ("_meta", "icons")
_READ = TypeAdapter[types.ReadResourceResult | types.InputRequiredResult](
    types.ReadResourceResult | types.InputRequiredResult
)
_GOT = TypeAdapter[types.GetPromptResult | types.InputRequiredResult](types.GetPromptResult | types.InputRequiredResult)
Said = TypeVar("Said")
Item = TypeVar("Item", types.Resource, types.ResourceTemplate, types.Prompt)


class Sides:
    """What the servers of a gateway have besides tools.

    Args:
        gateway: that has the servers.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def resources(self, agent: Asks) -> list[types.Resource]:
        """What the servers show as resources."""
        found = await self._every(agent, RESOURCES, resources_of)
        return [
            each.model_copy(update={"uri": f"{SCHEME}{name}/{quote(str(each.uri), safe='')}"}) for name, each in found
        ]

    async def templates(self, agent: Asks) -> list[types.ResourceTemplate]:
        """Their templates of resources."""
        found = await self._every(agent, RESOURCES, templates_of)
        return [
            each.model_copy(update={"uri_template": f"{SCHEME}{name}/+{each.uri_template}"}) for name, each in found
        ]

    async def prompts(self, agent: Asks) -> list[types.Prompt]:
        """Their prompts."""
        found = await self._every(agent, PROMPTS, prompts_of)
        return [each.model_copy(update={"name": shown_name(name, each.name)}) for name, each in found]

    async def read(self, agent: Asks, uri: str, client: Listens | None = None) -> types.ReadResourceResult:
        """A resource that its server lists, or that is of one of its templates. Raises ``MCPError`` for any other."""
        name, inner, is_made = split_uri(uri)

        async def reads(upstream: Upstream, use: Use) -> types.ReadResourceResult:
            await _require_shown(upstream, inner, is_made=is_made)
            asked = types.ReadResourceRequest(params=types.ReadResourceRequestParams(uri=inner))
            found = await exchanged(upstream, use, asked, _READ, client, nothing_said)
            plain = use.cleaner.value(_plain(found))
            for each in plain["contents"]:
                each["uri"] = uri
                each.pop("_meta", None)
            return types.ReadResourceResult(contents=types.ReadResourceResult.model_validate(plain).contents)

        return await self._used(agent, name, RESOURCES, {"uri": inner}, reads, no_resource(), client)

    async def prompt(
        self, agent: Asks, shown: str, arguments: Mapping[str, str], client: Listens | None = None
    ) -> types.GetPromptResult:
        """A prompt with its arguments filled in. Raises ``MCPError``."""
        name, prompt = split_shown(shown)
        missing = no_prompt(shown)

        async def gets(upstream: Upstream, use: Use) -> types.GetPromptResult:
            if prompt not in {each.name for each in await prompts_of(upstream)}:
                raise missing
            params = types.GetPromptRequestParams(name=prompt, arguments=dict(arguments))
            asked = types.GetPromptRequest(params=params)
            found = await exchanged(upstream, use, asked, _GOT, client, nothing_said)
            plain = use.cleaner.value(_plain(found))
            plain.pop("_meta", None)
            return types.GetPromptResult.model_validate(plain)

        facts = {"name": prompt, "arguments": dict(arguments)}
        return await self._used(agent, name, PROMPTS, facts, gets, missing, client)

    async def complete(self, agent: Asks, params: types.CompleteRequestParams) -> types.CompleteResult:
        """Values for an argument of a prompt or a template. Raises ``MCPError``."""
        ref: types.PromptReference | types.ResourceTemplateReference
        if isinstance(params.ref, types.PromptReference):
            name, inner = split_shown(params.ref.name)
            side, ref = PROMPTS, types.PromptReference(name=inner)
        else:
            name, inner, _ = split_uri(str(params.ref.uri))
            side, ref = RESOURCES, types.ResourceTemplateReference(uri=inner)

        async def completes(upstream: Upstream, use: Use) -> types.CompleteResult:
            shown = (
                {each.name for each in await prompts_of(upstream)}
                if side == PROMPTS
                else {each.uri_template for each in await templates_of(upstream)}
            )
            async with use.session.in_use() as client, faults(use.session):
                has = client.server_capabilities
                if inner not in shown or has is None or has.completions is None:
                    return types.CompleteResult(completion=types.Completion(values=[]))
                argument = {"name": params.argument.name, "value": params.argument.value}
                context = params.context.arguments if params.context else None
                found = await client.complete(ref, argument, context)
            plain = use.cleaner.value(_plain(found))
            plain["completion"]["values"] = plain["completion"]["values"][:_MOST_VALUES]
            plain.pop("_meta", None)
            return types.CompleteResult.model_validate(plain)

        return await self._used(agent, name, side, {"name": inner}, completes, _missing("Nothing to complete"))

    async def watch(self, agent: Asks, uri: str) -> tuple[str, str]:
        """Hear of changes of a resource from now on; its server and its URI there. Raises ``MCPError``."""
        name, inner, is_made = split_uri(uri)
        missing = no_resource()

        async def watches(upstream: Upstream, use: Use) -> None:
            await _require_shown(upstream, inner, is_made=is_made)
            if inner not in upstream.watched:
                if len(upstream.watched) >= _MOST_WATCHED:
                    raise MCPError(code=types.INVALID_REQUEST, message="too many resources of this server are watched")
                async with use.session.in_use() as client, faults(use.session):
                    await use.session.talk.subscribe(client, inner)
            upstream.watched[inner] += 1

        await self._used(agent, name, RESOURCES, {"uri": inner}, watches, missing)
        return name, inner

    async def unwatch(self, name: str, inner: str) -> None:
        """Hear no more of a resource that was watched."""
        upstream = (await self._gateway.servers()).get(name)
        if upstream is not None and upstream.watched[inner] > 0:
            upstream.watched[inner] -= 1
            upstream.watched += Counter()  # without those of which nobody wants to hear

    async def allowed(self, agent: Asks, servers: set[str]) -> set[str]:
        """Of some servers those whose resources the agent may read now. Raises what the vault refuses."""
        offered = await self._gateway.offered(agent, {name: {RESOURCES: ""} for name in servers})
        return {name for name, tools in offered.items() if tools}

    async def _every(
        self, agent: Asks, side: str, listed: Callable[[Upstream], Awaitable[list[Item]]]
    ) -> list[tuple[str, Item]]:
        upstreams = await self._gateway.servers()
        offered = await self._gateway.offered(agent, {name: {side: ""} for name in upstreams}) if upstreams else {}
        names = [name for name, tools in offered.items() if tools and name in upstreams]

        async def within(upstream: Upstream) -> list[Item]:
            with contextlib.suppress(KeyholeError, MCPError, TimeoutError):
                return await asyncio.wait_for(listed(upstream), _WAITING)
            return []

        lists = await asyncio.gather(*(within(upstreams[name]) for name in names))
        return [(name, each) for name, found in zip(names, lists, strict=True) for each in found]

    async def _used(
        self,
        agent: Asks,
        name: str,
        side: str,
        arguments: Mapping[str, Any],
        doing: Callable[[Upstream, Use], Awaitable[Said]],
        missing: MCPError,
        client: Listens | None = None,
    ) -> Said:
        upstream = (await self._gateway.servers()).get(name)
        if upstream is None:
            raise missing
        try:
            using = self._gateway.using(agent, upstream, name, side, None, arguments, nothing_said, client)
            async with using as use:
                found = await doing(upstream, use)
                use.result = "ok"
        except Hidden:
            raise missing from None
        except ValidationError:
            raise MCPError(
                code=types.INTERNAL_ERROR, message="the answer cannot be shown without a credential"
            ) from None
        except KeyholeError as error:
            raise MCPError(code=types.INTERNAL_ERROR, message=str(error)) from None
        return found


async def resources_of(upstream: Upstream) -> list[types.Resource]:
    """What a server shows as resources, but no files; nothing from one that has none."""
    found = await _paged(upstream, "resources", lambda client, params: client.list_resources(params=params))
    return _read(types.Resource, [each for each in found if not _is_file(each["uri"])])


async def templates_of(upstream: Upstream) -> list[types.ResourceTemplate]:
    """Its templates of resources, each of which begins with its scheme."""
    found = await _paged(
        upstream, "resource_templates", lambda client, params: client.list_resource_templates(params=params)
    )
    return _read(types.ResourceTemplate, [each for each in found if _is_safe(each["uriTemplate"])])


async def prompts_of(upstream: Upstream) -> list[types.Prompt]:
    """Its prompts, under names that can be told apart."""
    found = await _paged(upstream, "prompts", lambda client, params: client.list_prompts(params=params))
    names = [each["name"] for each in found]
    refused = look_alikes(names) | {name for name in names if names.count(name) > 1 or not is_tool_name(name)}
    return _read(types.Prompt, [each for each in found if each["name"] not in refused])


def _read(kind: type[Item], found: list[dict[str, Any]]) -> list[Item]:
    """As what they are; without those of which a number was a credential, which is masked."""
    made = []
    for each in found:
        with contextlib.suppress(ValidationError):
            made.append(kind.model_validate(each))
    return made


def split_uri(uri: str) -> tuple[str, str, bool]:
    """Server, URI there, and whether it was made of a template; the server is empty for a URI that is none of ours."""
    name, _, rest = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or len(uri) > _LONGEST:
        return "", "", False
    return (name, rest[1:], True) if rest.startswith("+") else (name, unquote(rest), False)


async def _paged(
    upstream: Upstream, kind: str, ask: Callable[[ClientSession, types.PaginatedRequestParams], Awaitable[Any]]
) -> list[dict[str, Any]]:
    session = await upstream.session()
    async with session.in_use() as client, faults(session):
        has = client.server_capabilities
        if has is None or getattr(has, "prompts" if kind == "prompts" else "resources") is None:
            return []
        found: list[Any] = []
        cursor, size, cleaner = None, 0, Cleaner(session.scrubber)
        for _ in range(_MOST_PAGES):
            page = await ask(client, types.PaginatedRequestParams(cursor=cursor))
            found += getattr(page, kind)
            cursor = page.next_cursor
            size += len(page.model_dump_json())
            if size > LARGEST_LIST:
                raise UpstreamUnreachable(f"a list of {session.bound.server.name} is too large")
            if not cursor or len(found) > _MOST:
                break
    plain = [cleaner.value(_plain(each)) for each in found[:_MOST]]
    return [{name: value for name, value in each.items() if name not in _NOT_SHOWN} for each in plain]


async def _require_shown(upstream: Upstream, uri: str, *, is_made: bool) -> None:
    if is_made:
        templates = [each.uri_template for each in await templates_of(upstream)]
        if not _is_file(uri) and any(_matches(template, uri) for template in templates):
            return
    elif uri in {str(each.uri) for each in await resources_of(upstream)}:
        return
    raise no_resource()


def _matches(template: str, uri: str) -> bool:
    try:
        return UriTemplate.parse(template).match(uri) is not None
    except (InvalidUriTemplate, ValueError):
        return False


def _is_safe(template: str) -> bool:
    scheme, colon, _ = template.partition(":")
    return bool(colon) and scheme.isascii() and scheme.isalnum() and not _is_file(template)


def _is_file(uri: str) -> bool:
    return uri.strip().lower().startswith("file:")


def no_resource() -> MCPError:
    """What is said of a resource that is not there, or that the agent may not know of."""
    return _missing("Resource not found")


def no_prompt(name: str) -> MCPError:
    """The same of a prompt."""
    return _missing(f"Unknown prompt: {name[:200]}")


def _missing(text: str) -> MCPError:
    return MCPError(code=types.INVALID_PARAMS, message=text)


def _plain(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model.model_dump(by_alias=True, mode="json", exclude_none=True)
    return found
