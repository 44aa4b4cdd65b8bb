/** Keyhole from Node: repo vaults, and the server and its broker. */

export * from "./errors.js";
export { RepoVault, type RepoSecret, type RepoVaultOptions } from "./repo/vault.js";
