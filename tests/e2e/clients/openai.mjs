import OpenAI from "openai";
const client = new OpenAI({ maxRetries: 0 });
const ask = { model: "gpt-test", messages: [{ role: "user", content: "hi" }] };
const whole = await client.chat.completions.create(ask);
let text = "";
for await (const part of await client.chat.completions.create({ ...ask, stream: true })) text += part.choices[0].delta.content;
console.log(JSON.stringify([whole.choices[0].message.content, text]));
