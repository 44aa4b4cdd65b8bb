import Anthropic from "@anthropic-ai/sdk";
const client = new Anthropic({ maxRetries: 0 });
const ask = { model: "claude-test", max_tokens: 9, messages: [{ role: "user", content: "hi" }] };
const whole = await client.messages.create(ask);
let text = "";
for await (const part of client.messages.stream(ask)) text += part.delta?.text ?? "";
console.log(JSON.stringify([whole.content[0].text, text]));
