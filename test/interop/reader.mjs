// A reader of Revcast's wire format in another language, written from docs/wire.md alone, with Node's own modules.
//   node reader.mjs list URL     print the list of the authority at URL, from its snapshot and the log after it
//   node reader.mjs judge URL    say revoked or clear for each token on standard input: header.payload[.signature]
import { createHash, createPublicKey, randomBytes, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';

const check = (holds, what) => { if (!holds) throw new Error(what); };
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
const uint = (bytes, n) => Buffer.from(BigInt(n).toString(16).padStart(2 * bytes, '0'), 'hex');
const ascending = (names) => [...names].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
const roundUp = (seconds) => Math.ceil(seconds / 600) * 600, unbase64 = (s) => Buffer.from(s, 'base64url');
// JSON.parse is strict but for a doubled name (a string before a colon is a name) and half a surrogate pair.
function strict(bytes) {
  const s = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes), value = JSON.parse(s), open = [];
  for (const [, bracket, string, colon] of s.matchAll(/([{}[\]])|("(?:[^"\\]|\\.)*")\s*(:?)/g)) {
    if (bracket) '{['.includes(bracket) ? open.push(new Set()) : open.pop();
    else check(JSON.parse(string) === `${Buffer.from(JSON.parse(string))}`, 'half a surrogate pair');
    if (colon) check(open.at(-1).size < open.at(-1).add(JSON.parse(string)).size, `${string} twice`);
  }
  return value;
}
const text = (most) => (v) => typeof v === 'string' && v !== '' && Buffer.byteLength(v) <= most;
const integer = (least, most = 2 ** 53) => (v) => Number.isSafeInteger(v) && v >= least && v <= most;
const areNames = (names) => names.length <= 8 && names.every((v) => text(256)(v) && !/^(iss|exp|nbf|iat)$|\0/.test(v));
const types = { // what each member must be
  v: (v, version) => v === version, epoch: text(64), issued_at: integer(0), as_of: integer(0), position: integer(0),
  chain: (v) => text(64)(v) && /^[0-9a-f]{64}$/.test(v), nonce: (v) => text(64)(v) && /^[\x00-\x7f]*$/.test(v),
  entries: (v) => Array.isArray(v) && v.length <= 16384, exact: (v) => v === true, by: text(512), reason: text(512),
  iss: text(2048), exp: integer(1, 253402300799), issued_before: integer(1, 253402300799), at: integer(0),
  sel: (v) => !Array.isArray(v) && areNames(Object.keys(v)) && Object.values(v).every(text(8192)),
};
function members(value, names, version = 1) { // those that an object has, and no others; "name?" is optional
  check(Object.keys(value).every((k) => names.split(/\??(?: |$)/).includes(k)), 'unknown member');
  for (const [, name, optional] of names.matchAll(/(\w+)(\??)/g))
    check(Object.hasOwn(value, name) ? types[name](value[name], version) : optional, `member ${name}`);
  return value;
}
export const keyring = (xs) => new Map(xs.map((x) => [sha256(unbase64(x)).toString('hex', 0, 8),
  createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x } })]));
const verified = (keys, id, kind, bytes, signature) => (check(verify(null, Buffer.concat([Buffer.from(
  'revcast/signed/v1/' + kind), bytes]), keys.get(id.toString('hex')), signature), 'signature'), bytes);
export function open(keys, message) { // a batch, a mark or a heartbeat
  const kind = message.toString('latin1', 4, 5), magic = message.toString('latin1', 0, 4);
  check(message.length <= 921600 && magic === 'RVC\x01' && /^[bh]$/.test(kind), 'not a message');
  const said = strict(verified(keys, message.subarray(5, 13), kind, message.subarray(77), message.subarray(13, 77)));
  if (kind === 'h') check(members(said, 'v epoch position chain issued_at as_of nonce?').as_of <= said.issued_at, kind);
  else for (const entry of members(said, 'v epoch issued_at entries').entries) {
    const { sel, issued_before, exact } = members(entry, 'iss sel issued_before? exp exact? at by? reason?');
    const one = Object.keys(sel).join('\0').match(/^(jti|fingerprint|sid)$/)?.[0];
    check(exact ? one && one !== 'sid' && !issued_before : one || issued_before, 'cut-off or exact');
  }
  return said;
}
export const next = (hash, n, message) => sha256(Buffer.from(hash, 'hex'), uint(8, n), sha256(message)).toString('hex');
export const digest = (iss, sel, names = ascending(Object.keys(sel))) => sha256('revcast/digest/v1', ...[iss,
  ...names.flatMap((n) => [n, sel[n]])].flatMap((s) => [uint(4, Buffer.byteLength(s)), s])).toString('hex', 0, 16);
// A row is {shape, digest, window}, and where window is 0, cutoff and expires; 2^63 for a cut-off denies all.
export const row = ({ iss, sel, exact, exp: expires, issued_before: cutoff = 2 ** 63 }) => ({ digest: digest(iss, sel),
  shape: ascending(Object.keys(sel)), ...(exact ? { window: roundUp(expires) } : { window: 0, cutoff, expires }) });
export function snapshot(keys, body) {
  verified(keys, body.subarray(-72, -64), 's', sha256(body.subarray(0, -72)), body.subarray(-64));
  const take = (n) => (check(at + n <= body.length - 72, 'cut short'), body.subarray(at, at += n)), rows = [];
  let at = 5, mark, place = '', count = 0, last = '';
  const header = members(strict(take(take(2).readUInt16BE())), 'v epoch issued_at position chain', 2);
  while ((mark = take(1)[0])) {
    const names = take(take(2).readUInt16BE()), shape = names.length ? names.toString().split('\0') : [];
    const end = take(8), window = Number(end.readBigInt64BE()), before = place;
    check(window % 600 === 0 && integer(0, 253402300800)(window), 'window');
    check(areNames(shape) && names.equals(Buffer.from(ascending([...new Set(shape)]).join('\0'))), 'shape');
    place = Buffer.concat([end, names]).toString('hex');
    check(mark === 1 && (before < place || (before === place && count === 4096)), 'order of sections');
    if (before !== place) last = '';
    check((count = take(2).readUInt16BE()) >= 1 && count <= 4096, 'count');
    for (let i = 0; i < count; i++) {
      const bytes = take(window ? 16 : 32), r = { shape, digest: bytes.toString('hex', 0, 16), window };
      check(last < (last = r.digest), 'order of digests');
      if (!window) [r.cutoff, r.expires] = [16, 24].map((offset) => Number(bytes.readBigInt64BE(offset)));
      check(window || types.exp(r.expires), 'expiry');
      check(window || types.issued_before(r.cutoff) || bytes.toString('hex', 16, 24) === '7fffffffffffffff', 'cut-off');
      rows.push(r);
    }
  }
  check(at === body.length - 72 && body.toString('latin1', 0, 5) === 'RVCS\x02', 'not a snapshot');
  return { ...header, rows };
}
export function page(keys, body, after, nonce) {
  for (let at = 0, messages = []; ;) {
    const n = body.readBigUInt64BE(at), message = body.subarray(at + 12, at += 12 + body.readUInt32BE(at + 8));
    check(at <= body.length && (n === 0n || n === BigInt(after + messages.length + 1)), 'cut short, or a gap');
    const heartbeat = n > 0n ? messages.push(message) && null : open(keys, message);
    check(!heartbeat || (at === body.length && heartbeat.chain && heartbeat.nonce === nonce), 'end of the page');
    if (heartbeat) return { messages, heartbeat };
  }
}
export function judge(rows, token) { // the rows that deny a token
  const [header, payload] = token.split('.'), { kid } = strict(unbase64(header)), claims = strict(unbase64(payload));
  Object.assign(claims, { kid, fingerprint: sha256(`${header}.${payload}`).toString('base64url') });
  const texts = (v) => (typeof v === 'boolean' || Number.isSafeInteger(v) || text(8192)(v) ? [String(v)] : []);
  const digests = (shape) => shape.reduce((all, name) => all.flatMap((sel) => [claims[name]].flat().flatMap(texts)
    .map((v) => ({ ...sel, [name]: v }))), [{}]).map((sel) => digest(claims.iss, sel));
  return rows.filter((r) => (r.window === 0 || r.window === roundUp(Math.floor(claims.exp)))
    && !(Math.floor(claims.iat) > r.cutoff) && digests(r.shape).includes(r.digest));
}
async function follow(url) { // the list as it is now
  const get = async (path) => Buffer.from(await (await fetch(new URL(path, url))).arrayBuffer());
  const found = strict(await get('/.well-known/revcast')), keys = keyring(found.signing_keys.map(({ x }) => x));
  const { rows, epoch, position, chain } = snapshot(keys, await get(found.snapshot)), chains = [chain];
  for (let unread = 0, at = position; ;) {
    const nonce = randomBytes(16).toString('hex'), body = await get(`${found.log}?after=${at}&nonce=${nonce}`);
    const { messages, heartbeat } = page(keys, body, at, nonce), now = heartbeat.issued_at / 1e6;
    for (const message of messages) {
      chains.push(next(chains.at(-1), ++at, message));
      try { rows.push(...(open(keys, message).entries ?? []).map(row)); } catch { unread++; }
    }
    check(found.version === 1 && epoch === found.epoch && epoch === heartbeat.epoch, 'another log');
    if (heartbeat.position > at) continue;
    check(chains[heartbeat.position - position] === heartbeat.chain, 'the chain is broken');
    return { epoch, at, unread, rows: rows.filter((r) => now < roundUp(r.window || r.expires) + 900) };
  }
}
const [, , command, url] = process.argv, list = url && await follow(url);
if (command === 'list') console.log(JSON.stringify(list));
if (command === 'judge') for (const token of readFileSync(0, 'utf8').trim().split('\n'))
  console.log(judge(list.rows, token).length ? 'revoked' : 'clear');
