import { randomBytes, randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import type { SamplePerson } from '@weir/adapter';
import { parseYaml } from '@weir/yaml';
import { UsageError } from './command.ts';

const firstNames = ['Ada', 'Noor', 'Mateo', 'Yuki', 'Ines', 'Kofi', 'Lena', 'Ravi'];
const lastNames = ['Okafor', 'Lindqvist', 'Moreau', 'Tanaka', 'Silva', 'Haddad', 'Novak', 'Byrne'];
const countries = ['DE', 'FR', 'SE', 'PT', 'IE', 'CZ'];

/**
 * A believable person nobody has seen before; the address is of a domain set aside for examples (RFC 2606). Without
 * a phone: the numbers set aside for fiction are so few that strangers would share one, and be linked to one person.
 */
export function inventPerson(): SamplePerson {
  const firstName = firstNames[randomInt(firstNames.length)]!;
  const lastName = lastNames[randomInt(lastNames.length)]!;
  const tag = randomBytes(4).toString('hex');
  return { email: `${firstName}.${lastName}.${tag}@example.com`.toLowerCase(), userId: `user_${tag}`, firstName, lastName, country: countries[randomInt(countries.length)]! };
}

/** The person of a JSON or YAML file: email and userId at least. Throws WorkspaceError with line, or UsageError. */
export function readPerson(path: string): SamplePerson {
  const { value } = parseYaml({ path, content: readInput(path).toString('utf8') });
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new UsageError(`${path}: expected an object with email and userId`);
  for (const field of ['email', 'userId']) if (typeof value[field] !== 'string' || value[field] === '') throw new UsageError(`${path}: ${field} is missing`);
  return value as unknown as SamplePerson;
}

export function readInput(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new UsageError(`cannot read ${path} (${(error as NodeJS.ErrnoException).code ?? 'error'})`);
  }
}

/** Who runs this process, for the audit log; a user id where the system knows no name. */
export function localUser(): string {
  try {
    return userInfo().username;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SYSTEM_ERROR') throw error;
    return `uid ${process.getuid?.() ?? '?'}`;
  }
}
