/** What the types of both frameworks and ours make of a tool; it is compiled and not run. */

import { Client, type Credentials } from "@keyhole/sdk";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { tool } from "ai";
import { z } from "zod";

const kh = new Client();
const needs = { token: "slack/bot-token" };

export const send = tool({
  description: "Send.",
  inputSchema: z.object({ channel: z.string() }),
  execute: kh.tool("slack.send", needs, async ({ channel }, { credentials, toolCallId }) => (
    { sent: channel.trim(), with: used(credentials), toolCallId }
  )),
});

export const follow = tool({
  inputSchema: z.object({ channel: z.string() }),
  execute: kh.tool("slack.follow", needs, async function* ({ channel }) {
    yield channel.trim();
  }),
});

export const wrong = tool({
  inputSchema: z.object({ channel: z.string() }),
  // @ts-expect-error: the schema has no such input
  execute: kh.tool("slack.wrong", needs, async ({ room }) => room),
});

const server = new McpServer({ name: "slack", version: "1" });
server.registerTool("send", { inputSchema: { channel: z.string() } }, kh.tool(
  "slack.send", needs, async ({ channel }, { credentials, requestId }) => (
    { content: [{ type: "text", text: `${channel.trim()} ${requestId} ${used(credentials)}` }] }
  ),
));

export async function direct(): Promise<number> {
  const size = kh.tool("size", needs, async (input: { by: number }, { credentials }) => used(credentials) * input.by);
  // @ts-expect-error: nobody gives it credentials
  void size({ by: 2 }, { credentials: 3 }).trim;
  return size({ by: 2 });
}

function used(credentials: Credentials): number {
  return String(credentials["token"]).length;
}
