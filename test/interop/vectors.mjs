// Checks reader.mjs with the vectors of internal/wire: node vectors.mjs DIR
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { deepStrictEqual as same, throws } from 'node:assert';
import { digest, judge, keyring, next, open, page, row, snapshot } from './reader.mjs';

const read = (name) => readFileSync(`${process.argv[2]}/${name}`), v = JSON.parse(read('vectors.json'));
const bytes = ({ base64 }) => Buffer.from(base64, 'base64'), keys = keyring([v.public_key]);
const json = (value) => JSON.parse(JSON.stringify(value));
const unversioned = ({ v: _, ...rest }) => rest;

same([...keys.keys()], [v.kid]);
for (const { issuer, selector, digest: want } of v.digests) same(digest(issuer, selector), want);

for (const m of v.messages) {
  if (!m.valid) { throws(() => open(keys, bytes(m)), m.name); continue; }
  const got = unversioned(open(keys, bytes(m)));
  if (m.heartbeat) same({ nonce: '', ...got }, m.heartbeat);
  else {
    const entries = got.entries.map((e) => (
      { issued_before: null, exact: false, by: '', reason: '', ...e, digest: digest(e.iss, e.sel) }));
    same({ ...got, entries }, m.batch);
  }
}

const message = (name) => bytes(v.messages.find((m) => m.name === name));
let chain = createHash('sha256').update('revcast/chain/v1/' + v.epoch).digest('hex');
same(chain, v.chain.start);
for (const step of v.chain.steps) same(chain = next(chain, step.position, message(step.message)), step.chain);

const { file, sections, ...header } = v.snapshot, { rows, ...said } = snapshot(keys, read(file));
same(unversioned(said), header);
same(json(rows), sections.flatMap(({ shape, window, digests, cuts }) => digests.map((d, i) => (
  { shape, digest: d, window, ...(window ? {} : { cutoff: cuts[i].cutoff ?? 2 ** 63, expires: cuts[i].expires }) }))));

const joined = new Map(); // one row for each digest, as in a snapshot: the later cut-off, the later expiry
for (const m of v.messages.filter(({ batch, position }) => batch && position <= header.position))
  for (const r of open(keys, bytes(m)).entries.map(row)) {
    const old = joined.get(r.digest) ?? r, later = (name) => Math.max(old[name], r[name]);
    joined.set(r.digest, r.window ? r : { ...r, cutoff: later('cutoff'), expires: later('expires') });
  }
same(new Map(rows.map((r) => [r.digest, r])), joined);

const whole = read(file);
for (let at = 0; at < whole.length; at++) {
  throws(() => snapshot(keys, whole.subarray(0, at)), Error, `${file} is not refused when cut at byte ${at}`);
  const flipped = Buffer.from(whole);
  flipped[at] ^= 1;
  throws(() => snapshot(keys, flipped), Error, `${file} is not refused with byte ${at} flipped`);
}

const large = snapshot(keys, read(v.large.file)).rows, number = (i) => i.toString(16).padStart(32, '0');
same(large, Array.from({ length: v.large.count }, (_, i) => (
  { shape: v.large.shape, digest: number(i + 1), window: v.large.window })));

const { messages, heartbeat } = page(keys, read(v.page.file), v.page.after, v.page.nonce);
same(messages, v.page.messages.map(message));
same(unversioned(heartbeat), v.page.heartbeat);

for (const t of v.tokens) {
  const denied = judge(rows, t.signing_input);
  same(denied.length > 0 ? 'revoked' : 'clear', t.expected, t.name);
  for (const { shape } of denied) same(shape, t.shape, t.name);
}

const readers = {
  message: (b) => open(keys, bytes(b)), snapshot: (b) => snapshot(keys, bytes(b)),
  page: (b) => page(keys, bytes(b), b.after, b.nonce),
};
for (const b of v.bad) throws(() => readers[b.what](b), Error, `${b.what}: ${b.name} is not refused`);
console.log(JSON.stringify({ digests: v.digests.length, messages: v.messages.length, rows: rows.length + large.length,
  tokens: v.tokens.length, bad: v.bad.length }));
