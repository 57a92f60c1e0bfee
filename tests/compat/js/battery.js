// Checks of kafkajs against one broker. Usage: node battery.js BOOTSTRAP [survive], with NODE_PATH naming the modules.
// Prints a line for each check: its name, a tab, and "ok" or what went wrong.
'use strict'

const assert = require('node:assert/strict')
const { setTimeout: sleep } = require('node:timers/promises')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const bootstrap = process.argv[2]
const run = process.hrtime.bigint().toString(36)
const retry = { initialRetryTime: 100, maxRetryTime: 1000, retries: 60 }
const kafka = new Kafka({ clientId: 'battery', brokers: [bootstrap], logLevel: logLevel.NOTHING, retry })
const admin = kafka.admin()
const name = stem => `${stem.replaceAll(' ', '-')}-${run}`
const range = (from, to) => Array.from({ length: to - from }, (_, i) => `value ${from + i}`)

async function topic(stem, partitions = 1, configEntries = []) {
  await admin.createTopics({ topics: [{ topic: name(stem), numPartitions: partitions, replicationFactor: 1, configEntries }] })
  return name(stem)
}

async function fill(topic, values, { partitions = 1, compression, acks = -1, idempotent = false } = {}) {
  const producer = kafka.producer({ idempotent, maxInFlightRequests: idempotent ? 1 : null, allowAutoTopicCreation: true })
  await producer.connect()
  try {
    const messages = values.map((value, i) => ({ key: `key${i}`, value, partition: i % partitions }))
    return await producer.send({ topic, messages, acks, compression })
  } finally {
    await producer.disconnect()
  }
}

class Member {
  constructor(group, options = {}) {
    this.seen = []
    this.records = []
    this.held = []
    this.consumer = kafka.consumer({ groupId: group, sessionTimeout: 6000, heartbeatInterval: 500, rebalanceTimeout: 6000, maxWaitTimeInMs: 200, ...options })
    this.consumer.on('consumer.group_join', event => { this.held = Object.values(event.payload.memberAssignment).flat() })
  }

  async start(topic, options = {}) {
    await this.consumer.connect()
    await this.consumer.subscribe({ topics: [topic], fromBeginning: true })
    await this.consumer.run({
      ...options,
      eachMessage: async ({ message }) => {
        this.records.push(message)
        this.seen.push(message.value && message.value.toString())
      },
    })
    return this
  }

  async until(count) {
    await eventually(() => this.seen.length >= count, () => `${this.seen.length} of ${count} records`)
    return this.seen
  }

  stop() {
    return this.consumer.disconnect()
  }
}

async function eventually(condition, what = () => 'in vain', patience = 30000) {
  const deadline = Date.now() + patience
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(what())
    await sleep(20)
  }
}

async function roundTrip(codec) {
  const to = await topic(`codec ${codec}`)
  await fill(to, range(0, 200), { compression: CompressionTypes[codec] })
  const member = await new Member(name(`g ${codec}`)).start(to)
  try {
    assert.deepEqual(await member.until(200), range(0, 200))
  } finally {
    await member.stop()
  }
}

async function acknowledgements(options) {
  const to = await topic(`acks ${JSON.stringify(options).replace(/\W/g, '')}`)
  await fill(to, range(0, 50), options)
  const member = await new Member(name(`g ${to}`)).start(to)
  try {
    assert.deepEqual(await member.until(50), range(0, 50))
  } finally {
    await member.stop()
  }
}

async function headers() {
  const to = await topic('headers')
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic: to, messages: [{ key: 'k', value: null, headers: { trace: ['one', 'two'] }, timestamp: '1700000000123' }] })
  await producer.disconnect()
  const member = await new Member(name('g headers')).start(to)
  await member.until(1)
  await member.stop()
  const [record] = member.records
  assert.equal(record.key.toString(), 'k')
  assert.equal(record.value, null)
  assert.equal(record.timestamp, '1700000000123')
  assert.deepEqual(record.headers.trace.map(String), ['one', 'two'])
}

async function seeking() {
  const to = await topic('seek')
  const producer = kafka.producer()
  await producer.connect()
  const messages = range(0, 10).map((value, i) => ({ value, timestamp: String(1700000000000 + 1000 * i) }))
  await producer.send({ topic: to, messages })
  await producer.disconnect()
  const [ends] = await admin.fetchTopicOffsets(to)
  assert.deepEqual([ends.low, ends.high], ['0', '10'])
  assert.equal((await admin.fetchTopicOffsetsByTimestamp(to, 1700000003500))[0].offset, '4')
  const member = new Member(name('g seek'))
  await member.start(to)
  member.consumer.seek({ topic: to, partition: 0, offset: '6' })
  await eventually(() => member.seen.slice(-4).join() === range(6, 10).join())
  await member.stop()
}

async function resume() {
  const to = await topic('resume')
  await fill(to, range(0, 10))
  const first = await new Member(name('g resume')).start(to, { autoCommit: false })
  await first.until(10)
  await first.consumer.commitOffsets([{ topic: to, partition: 0, offset: '4' }])
  await first.stop()
  const second = await new Member(name('g resume')).start(to)
  assert.deepEqual(await second.until(6), range(4, 10))
  await second.stop()
}

async function group() {
  const to = await topic('shared', 4)
  const one = await new Member(name('g shared')).start(to)
  const two = await new Member(name('g shared')).start(to)
  try {
    await eventually(() => one.held.length === 2 && two.held.length === 2, () => `${one.held} ${two.held}`)
    assert.deepEqual([...one.held, ...two.held].sort(), [0, 1, 2, 3])
    await fill(to, range(0, 80), { partitions: 4 })
    await eventually(() => one.seen.length + two.seen.length >= 80)
    assert.deepEqual([...one.seen, ...two.seen].sort(), range(0, 80).sort())
    await two.stop()
    await eventually(() => one.held.length === 4)
  } finally {
    await one.stop()
  }
}

async function administration() {
  const to = await topic('admin', 2, [{ name: 'retention.ms', value: '1000000' }])
  assert.ok((await admin.listTopics()).includes(to))
  const resources = [{ type: ConfigResourceTypes.TOPIC, name: to }]
  const found = async () => (await admin.describeConfigs({ resources })).resources[0].configEntries.find(e => e.configName === 'retention.ms').configValue
  assert.equal(await found(), '1000000')
  await admin.alterConfigs({ resources: [{ ...resources[0], configEntries: [{ name: 'retention.ms', value: '2000000' }] }] })
  for (let i = 0; i < 50 && (await found()) !== '2000000'; i++) await sleep(50)
  assert.equal(await found(), '2000000')
  await admin.createPartitions({ topicPartitions: [{ topic: to, count: 3 }] })
  assert.equal((await admin.fetchTopicMetadata({ topics: [to] })).topics[0].partitions.length, 3)
  await fill(to, range(0, 10))
  await admin.deleteTopicRecords({ topic: to, partitions: [{ partition: 0, offset: '6' }] })
  assert.equal((await admin.fetchTopicOffsets(to)).find(p => p.partition === 0).low, '6')
  const groupId = name('g admin')
  await admin.setOffsets({ groupId, topic: to, partitions: [{ partition: 0, offset: '7' }] })
  const offsets = await admin.fetchOffsets({ groupId, topics: [to] })
  assert.equal(offsets[0].partitions.find(p => p.partition === 0).offset, '7')
  assert.ok((await admin.listGroups()).groups.some(g => g.groupId === groupId))
  assert.equal((await admin.describeGroups([groupId])).groups[0].state, 'Empty')
  await admin.deleteGroups([groupId])
  assert.equal((await admin.describeCluster()).brokers.length, 1)
  await admin.deleteTopics({ topics: [to] })
  assert.ok(!(await admin.listTopics()).includes(to))
}

// A producer and a group at work while somebody kills the broker and starts it again, on the word "now". Without
// transactions this client may send twice what was not acknowledged, so doubles are left out before comparing.
async function survive() {
  const to = await topic('killed')
  const member = await new Member(name('g killed')).start(to)
  const producer = kafka.producer()
  await producer.connect()
  for (let i = 0; i < 300; i++) {
    await producer.send({ topic: to, messages: [{ value: `value ${i}`, partition: 0 }] })
    if (i === 100) {
      await member.until(50)
      console.log('now')
    }
    await sleep(5)
  }
  await producer.disconnect()
  await eventually(() => member.seen.includes('value 299'), () => 'the end did not come', 60000)
  await member.stop()
  assert.deepEqual([...new Set(member.seen)], range(0, 300))
}

async function report(check, test) {
  let outcome = 'ok'
  try {
    await test()
  } catch (error) {
    outcome = String(error.stack).replace(/\s+/g, ' ')
  }
  console.log(`${check}\t${outcome}`)
}

async function main() {
  await admin.connect()
  if (process.argv[3] === 'survive') {
    await report('survives a kill', survive)
  } else {
    for (const codec of ['None', 'GZIP', 'Snappy']) await report(`round trip ${codec}`, () => roundTrip(codec))
    for (const options of [{ acks: 0 }, { acks: 1 }, { acks: -1 }, { idempotent: true }])
      await report(`acknowledgements ${JSON.stringify(options)}`, () => acknowledgements(options))
    await report('keys, headers and timestamps', headers)
    await report('offsets and seeking', seeking)
    await report('commit and resume', resume)
    await report('group', group)
    await report('administration', administration)
  }
  await admin.disconnect()
}

main().then(() => process.exit(0), error => { console.error(error); process.exit(1) })
