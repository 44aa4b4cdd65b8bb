/** Keyhole from Node: repo vaults, and the server and its broker. */

export * from "./errors.js";
export { Client, type ClientOptions } from "./client/client.js";
export type { Work } from "./client/context.js";
export type { Result } from "./client/core.js";
export type { Lease, LeaseOptions } from "./client/lease.js";
export type { Answered, CallOptions } from "./client/travel.js";
export type { Environment } from "./environment.js";
export { RepoVault, type RepoSecret, type RepoVaultOptions } from "./repo/vault.js";
export { ToolFailed } from "./tools/cleaned.js";
export type { Credentials } from "./tools/credentials.js";
export type { Given, Needs } from "./tools/tool.js";
