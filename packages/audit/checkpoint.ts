import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify, type KeyObject } from 'node:crypto';

/** A tree head. As text it is a C2SP tlog-checkpoint: origin, size, root in base64, a line each. */
export interface Checkpoint {
  readonly origin: string;
  readonly size: number;
  readonly root: Buffer;
}

/** An Ed25519 key with its name, as C2SP signed-note wants it. */
export interface Signer {
  readonly name: string;
  readonly key: KeyObject;
}

const ed25519 = 1;
const maxNoteBytes = 16_384;
const pkcs8Prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
const spkiPrefix = Buffer.from('302a300506032b6570032100', 'hex');

const rawPublic = (key: KeyObject): Buffer => createPublicKey(key).export({ type: 'spki', format: 'der' }).subarray(spkiPrefix.length);

/** A new private key: its 32-byte seed in base64url. */
export function newSigningKey(): string {
  return generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'der' }).subarray(pkcs8Prefix.length).toString('base64url');
}

/** Throws TypeError when the seed is not 32 bytes in base64url. */
export function signingKey(name: string, seed: string): Signer {
  const bytes = Buffer.from(seed, 'base64url');
  if (bytes.length !== 32) throw new TypeError('a signing key is 32 bytes in base64url');
  return { name, key: createPrivateKey({ key: Buffer.concat([pkcs8Prefix, bytes]), format: 'der', type: 'pkcs8' }) };
}

/** First 4 bytes of SHA-256(name, newline, algorithm byte, public key): C2SP signed-note. */
export function keyId(name: string, publicKey: Uint8Array): Buffer {
  return createHash('sha256').update(`${name}\n`).update(Buffer.of(ed25519)).update(publicKey).digest().subarray(0, 4);
}

/** The verifier key of a signer: `<name>+<key id in hex>+<base64 of algorithm and public key>`. */
export function verifierOf(signer: Signer): string {
  const publicKey = rawPublic(signer.key);
  return `${signer.name}+${keyId(signer.name, publicKey).toString('hex')}+${Buffer.concat([Buffer.of(ed25519), publicKey]).toString('base64')}`;
}

export function checkpointText(checkpoint: Checkpoint): string {
  return `${checkpoint.origin}\n${checkpoint.size}\n${checkpoint.root.toString('base64')}\n`;
}

/** The signed note: the text, an empty line, one signature line. */
export function signCheckpoint(checkpoint: Checkpoint, signer: Signer): string {
  const text = checkpointText(checkpoint);
  const signature = Buffer.concat([keyId(signer.name, rawPublic(signer.key)), sign(null, Buffer.from(text), signer.key)]);
  return `${text}\n\u2014 ${signer.name} ${signature.toString('base64')}\n`;
}

/** The checkpoint of a note, its signature not looked at; undefined when it is none. */
export function parseCheckpoint(note: string): (Checkpoint & { readonly text: string; readonly signatures: readonly string[] }) | undefined {
  if (note.length > maxNoteBytes) return undefined;
  const match = /^(([^\n]+)\n(0|[1-9]\d{0,14})\n([A-Za-z0-9+/]{43}=)\n)\n((?:\u2014 [^\n ]+ [A-Za-z0-9+/=]+\n)+)$/.exec(note);
  if (match === null) return undefined;
  const root = Buffer.from(match[4]!, 'base64');
  if (root.toString('base64') !== match[4]) return undefined;
  return { text: match[1]!, origin: match[2]!, size: Number(match[3]), root, signatures: match[5]!.trimEnd().split('\n') };
}

/** The checkpoint of a note that the key signed for the origin (the name in the verifier key), else undefined. Signatures of other keys (witnesses) may stand beside it. */
export function verifyCheckpoint(note: string, verifier: string): Checkpoint | undefined {
  const parsed = parseCheckpoint(note);
  const [, name, id, key] = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+=*)$/.exec(verifier) ?? [];
  if (parsed === undefined || name === undefined || parsed.origin !== name) return undefined;
  const keyBytes = Buffer.from(key!, 'base64');
  const publicKey = keyBytes.subarray(1);
  if (keyBytes.length !== 33 || keyBytes[0] !== ed25519 || keyId(name, publicKey).toString('hex') !== id) return undefined;
  const object = createPublicKey({ key: Buffer.concat([spkiPrefix, publicKey]), format: 'der', type: 'spki' });
  const good = parsed.signatures.some((line) => {
    const [, signer, base64] = line.split(' ');
    const bytes = Buffer.from(base64!, 'base64');
    return signer === name && bytes.length === 68 && bytes.toString('base64') === base64 && bytes.subarray(0, 4).toString('hex') === id && verify(null, Buffer.from(parsed.text), object, bytes.subarray(4));
  });
  return good ? { origin: parsed.origin, size: parsed.size, root: parsed.root } : undefined;
}

/**
 * The notes of a file of kept checkpoints, a JSON string a line. What a crash or a full disk cut off was never acknowledged, and
 * is passed over: the rest behind the last line end, and a line that begins as a string, is no whole one and stands before a whole
 * one. Any other line that is no string counts as a checkpoint nobody signed (''): it is a finding, not a gap.
 */
export function keptCheckpoints(text: string): string[] {
  const lines = text.split('\n');
  const rest = noteOf(lines.pop()!);
  const kept = rest === undefined ? [] : [rest];
  let beforeWhole = rest !== undefined;
  for (const line of lines.reverse()) {
    const note = noteOf(line);
    if (line === '' || (note === undefined && beforeWhole && line.startsWith('"'))) continue;
    kept.push(note ?? '');
    beforeWhole = note !== undefined;
  }
  return kept.reverse();
}

function noteOf(line: string): string | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'string' ? value : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
