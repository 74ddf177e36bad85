// What programs do with the Node client `etcd3`, against the members that KVD_ENDPOINTS names.
'use strict';
const assert = require('node:assert');
const readline = require('node:readline');
const { Etcd3 } = require('etcd3');

const hosts = process.env.KVD_ENDPOINTS.split(',');
const patience = 90000;
const lines = readline.createInterface({ input: process.stdin });

// While the cluster has no leader a program asks again.
async function patiently(ask) {
  for (const deadline = Date.now() + patience; ; ) {
    try {
      return await ask();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function keysAndValues(client) {
  await client.put('kv/a').value('1');
  assert.strictEqual(await client.get('kv/a').string(), '1');
  assert.strictEqual(await client.get('kv/none').string(), null);
  for (let n = 0; n < 5; n++) await client.put(`kv/n${n}`).value(String(n));
  assert.deepStrictEqual(await client.getAll().prefix('kv/n').sort('Key', 'Descend').strings(),
    { 'kv/n4': '4', 'kv/n3': '3', 'kv/n2': '2', 'kv/n1': '1', 'kv/n0': '0' });
  assert.strictEqual((await client.delete().prefix('kv/n')).deleted, '5');
}

async function transactions(client) {
  const create = () => client.if('txn/a', 'Create', '==', 0).then(client.put('txn/a').value('made'))
    .else(client.get('txn/a')).commit();
  assert.ok((await create()).succeeded);
  const again = await create();
  assert.ok(!again.succeeded);
  assert.strictEqual(again.responses[0].response_range.kvs[0].value.toString(), 'made');
}

async function leasesAndLocks(client) {
  const lease = client.lease(30);
  await lease.put('lease/a').value('x');
  await lease.keepaliveOnce();
  await lease.revoke();
  assert.strictEqual(await client.get('lease/a').string(), null);
  const lock = await client.lock('lock').ttl(30).acquire();
  await assert.rejects(client.lock('lock').ttl(30).acquire(), /lock/i);
  await lock.release();
}

async function elections(client) {
  const first = client.election('election', 30);
  const told = [];
  const observer = await first.observe();
  observer.on('change', (value) => told.push(value));
  const campaign = first.campaign('one');
  await campaign.wait();
  await campaign.proclaim('one again');
  await campaign.resign();
  const second = client.election('election', 30).campaign('two');
  await second.wait();
  await patiently(async () => assert.strictEqual(told[told.length - 1], 'two'));
  await second.resign();
  await observer.cancel();
}

async function watches(client) {
  const told = [];
  const watcher = await client.watch().prefix('watch/').create();
  watcher.on('put', (kv) => told.push(kv.value.toString()));
  watcher.on('delete', (kv) => told.push(`without ${kv.key}`));
  const expected = [];
  for (let n = 0; n < 50; n++) {
    await client.put('watch/a').value(String(n));
    expected.push(String(n));
  }
  await client.delete().key('watch/a');
  expected.push('without watch/a');
  await patiently(async () => assert.strictEqual(told.length, expected.length));
  assert.deepStrictEqual(told, expected);
  await watcher.cancel();
}

async function membersAndMaintenance(client) {
  assert.strictEqual((await client.cluster.memberList({})).members.length, hosts.length);
  assert.match((await client.maintenance.status()).version, /^3\./);
  const last = (await client.put('maintenance').value('x')).header.revision;
  await client.kv.compact({ revision: last });
}

// Each number is put under a key of its own, again where the answer was lost.
async function deathOfALeader(client) {
  const lease = client.lease(60);
  await lease.put('death/own').value('x');
  const told = [];
  const watcher = await client.watch().prefix('death/n').create();
  watcher.on('put', (kv) => told.push(Number(kv.value.toString())));
  let killed = false;
  lines.once('line', () => { killed = true; });
  const numbers = [];
  for (let n = 0, since = 0; since < 30; n++) {
    if (n === 30) console.log('kill');
    if (killed) since++;
    await patiently(() => client.put(`death/n${n}`).value(String(n)));
    numbers.push(n);
  }
  await patiently(async () => assert.ok(told.includes(numbers[numbers.length - 1])));
  assert.deepStrictEqual([...new Set(told)], numbers);
  assert.strictEqual(await patiently(() => client.get('death/own').string()), 'x');
  await watcher.cancel();
  await patiently(() => lease.revoke());
}

async function main() {
  for (const scenario of [keysAndValues, transactions, leasesAndLocks, elections, watches,
    membersAndMaintenance, deathOfALeader]) {
    const client = new Etcd3({ hosts });
    await scenario(client);
    client.close();
    console.log('passed:', scenario.name);
  }
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
