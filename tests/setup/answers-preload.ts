/** Of a process under test (`NODE_OPTIONS`): its answers are held to what its routes declare. What that needs is read once it makes a server. */
import type * as Answers from './answers.ts';
import { subscribe } from 'node:diagnostics_channel';
import { createRequire } from 'node:module';
import { appendFileSync } from 'node:fs';

const file = process.env['WEIR_TEST_ANSWERS'];
if (file !== undefined) {
  subscribe('fastify.initialization', (message) => {
    const { hold } = createRequire(import.meta.url)('./answers.ts') as typeof Answers;
    hold((message as { readonly fastify: Parameters<typeof hold>[0] }).fastify, (problem) => appendFileSync(file, `${problem}\n`));
  });
}
