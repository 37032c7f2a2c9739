// The registry by the official Azure IoT SDK for Node's service side, for tests/service_sdk.rs.
//
// Goes through every call the SDK has for identities, and through its errors. Tells each part it has gone through as
// one line on standard output; exits 0 after the last. What goes otherwise than a service expects is an assertion.
//
// The connection string is in PORTCULLIS_TEST_CONNECTION_STRING, the hub's CA where NODE_EXTRA_CA_CERTS says. The SDK
// knows port 443 only.

'use strict';

const assert = require('assert');
const { promisify } = require('util');
const { Registry } = require('azure-iothub');

const key = (byte) => Buffer.alloc(32, byte).toString('base64');
const sas = (first, second) => ({
  type: 'sas',
  symmetricKey: { primaryKey: key(first), secondaryKey: key(second) },
});
const SHA1 = 'AB'.repeat(20);

const part = (name) => console.log(name);

/** The call is refused with this error of the SDK. */
async function refused(name, call) {
  try {
    await call();
  } catch (error) {
    assert.strictEqual(error.name, name, `${error.name}: ${error.message}`);
    return error;
  }
  throw new Error(`not refused: ${call}`);
}

async function devices(registry) {
  const made = (await registry.create({ deviceId: 'sas', status: 'enabled', authentication: sas(1, 2) })).responseBody;
  assert.deepStrictEqual(made.authentication.symmetricKey, sas(1, 2).symmetricKey);
  const generated = (await registry.create({ deviceId: 'generated' })).responseBody;
  assert.strictEqual(generated.authentication.symmetricKey.primaryKey.length, 44);
  await refused('DeviceAlreadyExistsError', () => registry.create({ deviceId: 'sas' }));
  await refused('ArgumentError', () => registry.create({ deviceId: 'a b' }));

  // This SDK's update is unconditional.
  const change = { deviceId: 'sas', status: 'disabled', statusReason: 'old', authentication: sas(3, 4) };
  const updated = (await registry.update(change)).responseBody;
  assert.strictEqual(updated.status, 'disabled');
  assert.notStrictEqual(updated.etag, made.etag);
  await refused('DeviceNotFoundError', () => registry.update({ deviceId: 'nobody', authentication: sas(1, 2) }));

  const thumbprints = { x509Thumbprint: { primaryThumbprint: SHA1, secondaryThumbprint: SHA1 } };
  const x509 = (await registry.create({ deviceId: 'x509', authentication: thumbprints })).responseBody;
  assert.strictEqual(x509.authentication.type, 'selfSigned');
  const authority = { deviceId: 'authority', authentication: { type: 'certificateAuthority' } };
  assert.strictEqual((await registry.create(authority)).responseBody.authentication.type, 'certificateAuthority');

  const odd = "a-b.c%d_e*f?g!h(i)j,k:l;m=n@o$p'q";
  await registry.create({ deviceId: odd });
  assert.strictEqual((await registry.get(odd)).responseBody.deviceId, odd);
  await registry.delete(odd);

  const listed = (await registry.list()).responseBody.map((device) => device.deviceId).sort();
  assert.deepStrictEqual(listed, ['authority', 'generated', 'sas', 'x509']);
  const counted = (await registry.getRegistryStatistics()).responseBody;
  assert.deepStrictEqual(counted, { totalDeviceCount: 4, enabledDeviceCount: 3, disabledDeviceCount: 1 });
  part('devices');
}

async function modules(registry) {
  const made = (await registry.addModule({ deviceId: 'sas', moduleId: 'one', managedBy: 'me', authentication: sas(1, 2) }))
    .responseBody;
  assert.deepStrictEqual([made.moduleId, made.managedBy], ['one', 'me']);
  await registry.addModule({ deviceId: 'sas', moduleId: 'two' });
  await refused('DeviceAlreadyExistsError', () => registry.addModule({ deviceId: 'sas', moduleId: 'one' }));
  const updated = (await registry.updateModule({ ...made, managedBy: 'you' })).responseBody;
  assert.strictEqual(updated.managedBy, 'you');
  await refused('InvalidEtagError', () => registry.updateModule({ ...made, managedBy: 'me' }));
  const forced = (await registry.updateModule({ ...made, managedBy: 'me' }, true)).responseBody;
  const listed = (await registry.getModulesOnDevice('sas')).responseBody.map((module) => module.moduleId);
  assert.deepStrictEqual(listed, ['one', 'two']);
  // With a whole module this call has no promise, only a callback.
  const remove = promisify(registry.removeModule.bind(registry));
  await refused('InvalidEtagError', () => remove({ ...forced, etag: made.etag }));
  await remove(forced);
  await registry.removeModule('sas', 'two');
  await assert.rejects(() => registry.getModule('sas', 'two'));
  part('modules');
}

async function bulk(registry) {
  const three = ['bulk1', 'bulk2', 'bulk3'].map((deviceId) => ({ deviceId, status: 'enabled', authentication: sas(1, 2) }));
  const added = (await registry.addDevices(three)).responseBody;
  assert.deepStrictEqual(added, { isSuccessful: true, errors: [], warnings: [] });
  await refused('ArgumentError', () => registry.addDevices(three));
  const stale = three.map((device) => ({ ...device, etag: 'c3RhbGU=' }));
  const failed = await refused('ArgumentError', () => registry.updateDevices(stale, false));
  assert.ok(failed.responseBody.includes('PreconditionFailed'), failed.responseBody);
  const disabled = three.map((device) => ({ ...device, status: 'disabled' }));
  assert.ok((await registry.updateDevices(disabled, true)).responseBody.isSuccessful);
  const now = (await registry.get('bulk2')).responseBody;
  assert.strictEqual(now.status, 'disabled');
  assert.ok((await registry.removeDevices([now], false)).responseBody.isSuccessful);
  assert.ok((await registry.removeDevices([three[0], three[2]], true)).responseBody.isSuccessful);
  await refused('DeviceNotFoundError', () => registry.get('bulk3'));
  part('bulk');
}

async function query(registry) {
  const ids = [];
  const query = registry.createQuery('SELECT * FROM devices', 3);
  const sizes = [];
  while (query.hasMoreResults) {
    const twins = (await query.nextAsTwin()).result;
    sizes.push(twins.length);
    twins.forEach((twin) => ids.push(twin.deviceId));
  }
  assert.deepStrictEqual(ids, ['authority', 'generated', 'sas', 'x509']);
  assert.deepStrictEqual(sizes, [3, 1]);
  const counted = registry.createQuery('SELECT status, COUNT() AS n FROM devices GROUP BY status');
  const rows = (await counted.next()).result;
  assert.deepStrictEqual(rows, [{ status: 'disabled', n: 1 }, { status: 'enabled', n: 3 }]);
  await refused('ArgumentError', () => registry.createQuery('SELECT everything').next());
  part('query');
}

async function theEnd(registry) {
  for (const device of (await registry.list()).responseBody) {
    await registry.delete(device.deviceId);
  }
  await refused('DeviceNotFoundError', () => registry.delete('sas'));
  const error = await refused('DeviceNotFoundError', () => registry.get('sas'));
  assert.strictEqual(error.response.statusCode, 404);
  part('the end');
}

async function strangers(connectionString) {
  const stranger = connectionString.replace(/SharedAccessKey=.*/, `SharedAccessKey=${key(0)}`);
  await refused('UnauthorizedError', () => Registry.fromConnectionString(stranger).list());
  part('strangers');
}

async function main() {
  const connectionString = process.env.PORTCULLIS_TEST_CONNECTION_STRING;
  const registry = Registry.fromConnectionString(connectionString);
  for (const goThrough of [devices, modules, bulk, query, theEnd]) {
    await goThrough(registry);
  }
  await strangers(connectionString);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
