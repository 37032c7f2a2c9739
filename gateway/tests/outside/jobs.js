// Import and export jobs by the official Azure IoT SDK for Node's service side, for tests/jobs_sdk.rs.
//
// Goes through every call the SDK has for such jobs, and through its errors. Tells each part it has gone through as one
// line on standard output; exits 0 after the last. What goes otherwise than a service expects is an assertion.
//
// The connection string is in PORTCULLIS_TEST_CONNECTION_STRING, the hub's CA where NODE_EXTRA_CA_CERTS says. The SDK
// knows port 443 only, and one name for the blob: devices.txt. Containers: PORTCULLIS_TEST_INPUT may be read,
// PORTCULLIS_TEST_OUTPUT and PORTCULLIS_TEST_BARE read, written and deleted from; PORTCULLIS_TEST_NOWHERE is not there.

'use strict';

const assert = require('assert');
const { Registry } = require('azure-iothub');

const [INPUT, OUTPUT, BARE, NOWHERE] =
  ['INPUT', 'OUTPUT', 'BARE', 'NOWHERE'].map((name) => process.env[`PORTCULLIS_TEST_${name}`]);

const part = (name) => console.log(name);

/** What the SDK hands back, with or without the response around it. */
const body = (answer) => answer.responseBody || answer;

/** The job when it is over. */
async function ended(registry, answer) {
  let job = body(answer);
  while (job.status === 'enqueued' || job.status === 'running') {
    job = body(await registry.getJob(job.jobId));
  }
  assert.deepStrictEqual([job.status, job.progress], ['completed', 100], JSON.stringify(job));
  assert(!JSON.stringify(job).includes('sig='), 'a signature is shown');
  return job;
}

async function refused(name, call) {
  try {
    await call();
  } catch (error) {
    assert.strictEqual(error.name, name, `${error.name}: ${error.message}`);
    assert(!error.message.includes('sig='), error.message);
    return;
  }
  throw new Error(`not refused: ${call}`);
}

async function jobs(registry) {
  const whole = await ended(registry, await registry.exportDevicesToBlob(OUTPUT, false));
  assert.deepStrictEqual([whole.type, whole.excludeKeysInExport], ['export', false]);
  part('export');
  const bare = await ended(registry, await registry.exportDevicesToBlob(BARE, true));
  assert.deepStrictEqual([bare.type, bare.excludeKeysInExport], ['export', true]);
  part('export without keys');
  const taken = await ended(registry, await registry.importDevicesFromBlob(INPUT, OUTPUT));
  assert.strictEqual(taken.type, 'import');
  part('import');

  const known = body(await registry.listJobs()).map((job) => job.jobId);
  assert.deepStrictEqual(known, [taken.jobId, bare.jobId, whole.jobId]);
  await registry.cancelJob(taken.jobId);
  assert.strictEqual(body(await registry.getJob(taken.jobId)).status, 'completed');
  part('list');
}

async function strangers(registry) {
  const elsewhere = 'https://evil.test/reg?sp=rwd&sig=AAAA';
  for (const uri of [INPUT, NOWHERE, elsewhere]) {
    await refused('ArgumentError', () => registry.exportDevicesToBlob(uri, false));
  }
  await refused('ArgumentError', () => registry.importDevicesFromBlob(BARE, NOWHERE));
  await refused('ArgumentError', () => registry.exportDevicesToBlobByIdentity(OUTPUT, false));
  await refused('ArgumentError', () => registry.importDevicesFromBlobByIdentity(INPUT, OUTPUT));
  part('strangers');
}

(async () => {
  const registry = Registry.fromConnectionString(process.env.PORTCULLIS_TEST_CONNECTION_STRING);
  await jobs(registry);
  await strangers(registry);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
