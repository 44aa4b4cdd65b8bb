/** Fields of a signed document by their types. What is of another type is a `SyntaxError`. */

import type { Json, JsonObject } from "../strict_json.js";

export function textOf(content: JsonObject, name: string): string {
  return asText(content.get(name));
}

export function integerOf(content: JsonObject, name: string): number {
  const value = content.get(name);
  return typeof value === "number" ? value : wrong();
}

export function listOf(content: JsonObject, name: string): Json[] {
  const value = content.get(name);
  return Array.isArray(value) ? value : wrong();
}

export function textsOf(content: JsonObject, name: string): string[] {
  return listOf(content, name).map(asText);
}

export function objectOf(value: Json | undefined): JsonObject {
  return value instanceof Map ? value : wrong();
}

function asText(value: Json | undefined): string {
  return typeof value === "string" ? value : wrong();
}

function wrong(): never {
  throw new SyntaxError("a field is missing or of another type");
}
