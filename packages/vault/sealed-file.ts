import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { replaceFile } from '@weir/durable';
import { WeirError } from '@weir/errors';
import type { StoredSecret } from './types.ts';
import { readWorkspaceKey } from './workspace-key.ts';

export const sealedName = 'secrets.sealed.json';
export const plainName = 'secrets.json';
const keyName = 'vault.key';
const lockName = 'secrets.lock';
const maxFileBytes = 4 * 1024 * 1024;
const lockWaitMs = 10_000;
/** SQLITE_BUSY: https://www.sqlite.org/rescode.html */
const busy = 5;

export type SecretMap = Record<string, StoredSecret>;
export interface FileStoreOptions {
  readonly dataDir: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** AES-256-GCM, base64url: 12 bytes of nonce, ciphertext, 16 bytes of tag. */
type Box = string;
interface SealedFile {
  readonly v: 1;
  /** Id of the root key that wraps the data key. */
  readonly root: string;
  readonly dataKey: Box;
  /** Audit leaf of the last change; the data key is bound to it. */
  readonly leaf?: string;
  readonly secrets: Readonly<Record<string, Box>>;
}

interface RootKey {
  readonly id: string;
  readonly key: Buffer;
}

function seal(key: Buffer, plain: Buffer, about: string): Box {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
  cipher.setAAD(Buffer.from(about));
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]).toString('base64url');
}

function unseal(key: Buffer, box: unknown, about: string): Buffer {
  const bytes = Buffer.from(typeof box === 'string' ? box : '', 'base64url');
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, 12), { authTagLength: 16 });
    decipher.setAAD(Buffer.from(about));
    decipher.setAuthTag(bytes.subarray(-16));
    return Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()]);
  } catch (error) {
    throw new WeirError('secret-unavailable', `${sealedName}: ${about} was changed or is sealed with another key`, { cause: error });
  }
}

/** The key that wraps, and its id, from 32 bytes of root (HKDF-SHA256, RFC 5869): the root itself is used for nothing else here. */
function rootKey(bytes: Buffer): RootKey {
  const key = Buffer.from(hkdfSync('sha256', bytes, '', 'weir vault root v1', 32));
  return { key, id: createHash('sha256').update(key).digest('base64url').slice(0, 12) };
}

/** A line of `vault.key` that is of no use without the workspace key; one without this mark is 32 bytes in base64url as they are. */
const wrappedMark = 'wrapped:';
const aboutLine = 'root key';

/** WEIR_KEY, where it is given: then it stands outside the data folder, and nothing in there may open without it. */
const outerKey = ({ dataDir, env }: FileStoreOptions): Buffer | undefined => ((env['WEIR_KEY'] ?? '') === '' ? undefined : readWorkspaceKey(dataDir, env['WEIR_KEY']));

const lineKey = (workspaceKey: Buffer): Buffer => Buffer.from(hkdfSync('sha256', workspaceKey, '', 'weir vault key line v1', 32));

const keyLine = (root: Buffer, outer: Buffer | undefined): string => (outer === undefined ? root.toString('base64url') : wrappedMark + seal(lineKey(outer), root, aboutLine));

/** Undefined: it is wrapped under another workspace key. */
function openLine(line: string, workspaceKey: Buffer, where: string): Buffer | undefined {
  if (line.startsWith(wrappedMark)) {
    try {
      return unseal(lineKey(workspaceKey), line.slice(wrappedMark.length), aboutLine);
    } catch (error) {
      if ((error as { code?: string }).code !== 'secret-unavailable') throw error;
      return undefined;
    }
  }
  const key = Buffer.from(line, 'base64url');
  if (key.length !== 32) throw new WeirError('config-invalid', `${where}: expected 32 bytes in base64url`);
  return key;
}

function keyLines(dataDir: string): string[] {
  const file = join(dataDir, keyName);
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').map((line) => line.trim()).filter((line) => line !== '') : [];
}

/** Whether `vault.key` has a root key that opens without WEIR_KEY although that is given: one that was made before it was, or by an earlier version. */
export function barerKey(options: FileStoreOptions): boolean {
  return outerKey(options) !== undefined && keyLines(options.dataDir).some((line) => !line.startsWith(wrappedMark));
}

/** Root keys, the one for sealing first: the lines of `vault.key` that open, then the workspace key. */
function rootKeys(options: FileStoreOptions): RootKey[] {
  const { dataDir } = options;
  const workspaceKey = outerKey(options) ?? readWorkspaceKey(dataDir, undefined);
  return [...keyLines(dataDir).flatMap((line, i) => openLine(line, workspaceKey, `${join(dataDir, keyName)}:${i + 1}`) ?? []), workspaceKey].map(rootKey);
}

export function readBounded(file: string): string {
  if (statSync(file).size > maxFileBytes) throw new WeirError('secret-unavailable', `${file}: more than ${maxFileBytes} bytes`);
  return readFileSync(file, 'utf8');
}

/** The parser's message would quote the text. */
export function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new WeirError('secret-unavailable', `${file}: not JSON`);
  }
}

/** Every secret of the file. Throws secret-unavailable when it cannot be opened. */
export function loadSecrets(options: FileStoreOptions): SecretMap {
  const sealed = join(options.dataDir, sealedName);
  const plain = join(options.dataDir, plainName);
  const out = Object.create(null) as SecretMap;
  if (!existsSync(sealed)) return existsSync(plain) ? Object.assign(out, parseJson(readBounded(plain), plain)) : out;
  // A rotation writes keys, secrets, keys: a reader between them sees the old file without its key, once.
  for (let attempt = 0; ; attempt++) {
    const file = parseJson(readBounded(sealed), sealed) as SealedFile;
    const root = rootKeys(options).find((k) => k.id === file.root);
    if (root === undefined) {
      if (attempt < 3) continue;
      throw new WeirError('secret-unavailable', `${sealed} is sealed with a key that is neither WEIR_KEY, workspace.key nor in ${keyName}${keyLines(options.dataDir).some((line) => line.startsWith(wrappedMark)) ? ', which is wrapped under the WEIR_KEY of its rotation' : ''}`);
    }
    const dataKey = unseal(root.key, file.dataKey, aboutDataKey(file.leaf));
    for (const [name, box] of Object.entries(file.secrets)) out[name] = parseJson(unseal(dataKey, box, `secret ${name}`).toString('utf8'), sealed) as StoredSecret;
    return out;
  }
}

const aboutDataKey = (leaf: string | undefined): string => (leaf === undefined ? 'data key' : `data key ${leaf}`);

/** Audit leaf of the last change of the sealed file, as it says (a false one does not open: see loadSecrets); undefined when there is no file, or none was named yet. */
export function sealedLeaf(dataDir: string): string | undefined {
  const file = join(dataDir, sealedName);
  if (!existsSync(file)) return undefined;
  const { leaf } = parseJson(readBounded(file), file) as Partial<SealedFile>;
  return typeof leaf === 'string' ? leaf : undefined;
}

function writeSealed(options: FileStoreOptions, secrets: SecretMap, leaf = sealedLeaf(options.dataDir)): void {
  const root = rootKeys(options)[0]!;
  const dataKey = randomBytes(32);
  const boxes = Object.fromEntries(Object.entries(secrets).map(([name, value]) => [name, seal(dataKey, Buffer.from(JSON.stringify(value)), `secret ${name}`)]));
  const file: SealedFile = { v: 1, root: root.id, dataKey: seal(root.key, dataKey, aboutDataKey(leaf)), ...(leaf === undefined ? {} : { leaf }), secrets: boxes };
  replaceFile(join(options.dataDir, sealedName), `${JSON.stringify(file, null, 2)}\n`, 0o600);
}

/** One writer at a time over processes, by an exclusive transaction of SQLite on an empty file: the system lets go of it when its holder dies, and nobody has to judge whether one is stale. */
export function locked<T>(dataDir: string, act: () => T): T {
  mkdirSync(dataDir, { recursive: true });
  const lock = join(dataDir, lockName);
  closeSync(openSync(lock, 'a', 0o600));
  const db = new DatabaseSync(lock);
  try {
    db.exec(`PRAGMA busy_timeout = ${lockWaitMs}`);
    try {
      db.exec('BEGIN EXCLUSIVE');
    } catch (error) {
      if ((error as { errcode?: number }).errcode !== busy) throw error;
      throw new WeirError('secret-unavailable', `${lock} is held by another process`);
    }
    return act();
  } finally {
    db.close();
  }
}

/** Change the secrets under the lock; a plain file that was not migrated stays plain. `leaf`: of the change, on the audit log or waiting for it; without one (a token server replaced a refresh token) the file keeps the one before. */
export function changeSecrets(options: FileStoreOptions, change: (secrets: SecretMap) => void, leaf?: string): void {
  locked(options.dataDir, () => {
    const secrets = loadSecrets(options);
    change(secrets);
    const plain = join(options.dataDir, plainName);
    if (existsSync(plain) && !existsSync(join(options.dataDir, sealedName))) replaceFile(plain, `${JSON.stringify(secrets, null, 2)}\n`, 0o600);
    else writeSealed(options, secrets, leaf);
  });
}

/**
 * A new root key and a new data key, every secret sealed anew. Running processes go on: the new root is in the
 * key file before a secret needs it, and the old one leaves after none does. Where WEIR_KEY is given the new root
 * stands there wrapped under it. Returns the id of the new root. Throws as loadSecrets does; nothing is changed then.
 */
export function rotateRootKey(options: FileStoreOptions, leaf: string): string {
  return locked(options.dataDir, () => {
    const secrets = loadSecrets(options);
    const file = join(options.dataDir, keyName);
    const fresh = randomBytes(32);
    const line = keyLine(fresh, outerKey(options));
    replaceFile(file, `${[line, ...keyLines(options.dataDir)].join('\n')}\n`, 0o600);
    writeSealed(options, secrets, leaf);
    replaceFile(file, `${line}\n`, 0o600);
    rmSync(join(options.dataDir, plainName), { force: true });
    return rootKey(fresh).id;
  });
}

/** Seal a plain secrets.json and remove it. Returns how many secrets moved; 0 when there was none. */
export function migrateSecrets(options: FileStoreOptions, leaf: string): number {
  return locked(options.dataDir, () => {
    const plain = join(options.dataDir, plainName);
    if (!existsSync(plain)) return 0;
    const moved = Object.assign(Object.create(null), parseJson(readBounded(plain), plain)) as SecretMap;
    const sealed = existsSync(join(options.dataDir, sealedName)) ? loadSecrets(options) : {};
    writeSealed(options, Object.assign(Object.create(null), moved, sealed) as SecretMap, leaf);
    rmSync(plain);
    return Object.keys(moved).length;
  });
}

/** Tells whether the files were replaced since; '' when there is none. */
export function fileStamp(dataDir: string): string {
  return [sealedName, plainName].map((name) => {
    const found = statSync(join(dataDir, name), { throwIfNoEntry: false, bigint: true });
    return found === undefined ? '' : `${found.ino}/${found.mtimeNs}`;
  }).join();
}
