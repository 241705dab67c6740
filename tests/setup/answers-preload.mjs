// Of a process under test (`NODE_OPTIONS`): its answers are held to what its routes declare. Plain JavaScript, for any Node that a
// test starts; what the looking needs is read once the process makes a server.
import { subscribe } from 'node:diagnostics_channel';
import { appendFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const file = process.env.WEIR_TEST_ANSWERS;
if (file !== undefined) {
  subscribe('fastify.initialization', ({ fastify }) => {
    const { hold } = createRequire(import.meta.url)('./answers.ts');
    hold(fastify, (problem) => appendFileSync(file, `${problem}\n`));
  });
}
