// node-vault as it is, against a server that speaks Vault's wire format. Prints what it found as one line of JSON.
import vault from 'node-vault';

const endpoint = process.env.VAULT_ADDR;
const root = vault({ apiVersion: 'v1', endpoint, token: process.env.VAULT_TOKEN });
const found = {};
const status = (promise) => promise.then(() => 200, (error) => error.response?.statusCode ?? String(error));

found.sealed = (await root.health()).sealed;
found.initialized = (await root.initialized()).initialized;

await root.write('secret/data/node/a', { data: { key: 'value', list: [1, 'two'] } });
found.read = (await root.read('secret/data/node/a')).data.data;
await root.update('secret/data/node/a', { data: { other: 1 } });
found.patched = (await root.read('secret/data/node/a')).data.data;
found.list = (await root.list('secret/metadata/node')).data.keys;
await root.delete('secret/data/node/a');
found.deleted = await status(root.read('secret/data/node/a'));

await root.addPolicy({ name: 'node', rules: 'path "secret/data/node/*" { capabilities = ["read"] } # readers' });
found.policies = (await root.policies()).policies.includes('node');

await root.mount({ mount_point: 'node-kv', type: 'kv', options: { version: '1' } });
await root.write('node-kv/a', { k: 'v' });
found.plain = (await root.read('node-kv/a')).data;
found.mounts = Object.keys(await root.mounts()).includes('node-kv/');
await root.unmount({ mount_point: 'node-kv' });

const maker = vault({ apiVersion: 'v1', endpoint, token: process.env.VAULT_TOKEN }); // it goes on with what it makes
const made = await maker.tokenCreate({ policies: ['node'], ttl: '10m' });
const reader = vault({ apiVersion: 'v1', endpoint, token: made.auth.client_token });
found.self = (await reader.tokenLookupSelf()).data.policies;
found.denied = await status(reader.read('secret/data/other'));
await reader.tokenRenewSelf({ increment: 60 });
await reader.tokenRevokeSelf();
found.revoked = await status(reader.tokenLookupSelf());

const methods = await root.auths();
if (!('approle/' in methods)) await root.enableAuth({ mount_point: 'approle', type: 'approle' });
await root.addApproleRole({ role_name: 'node', policies: 'node' });
const { role_id } = (await root.getApproleRoleId({ role_name: 'node' })).data;
const { secret_id } = (await root.getApproleRoleSecret({ role_name: 'node' })).data;
const machine = vault({ apiVersion: 'v1', endpoint });
found.login = (await machine.approleLogin({ role_id, secret_id })).auth.policies;
found.machine = (await machine.tokenLookupSelf()).data.meta;

console.log(JSON.stringify(found));
