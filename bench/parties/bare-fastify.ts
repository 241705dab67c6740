/** `bare-fastify.ts <secret>`: verifies the same signature over the same bytes and answers 202: nothing is kept. */
import { verifyWebhook } from '@weir/adapter';
import Fastify from 'fastify';

const secret = process.argv[2]!;
const app = Fastify();
app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
app.post('/webhooks/contacts', (request, reply) => {
  const verified = verifyWebhook([secret], request.headers as Record<string, string>, request.body as Buffer, Date.now(), 300_000);
  return reply.code(verified.ok ? 202 : 401).send({ ok: verified.ok });
});
app.get('/readyz', () => ({ ready: true }));
await app.listen({ host: '127.0.0.1', port: Number(process.env['PORT']) });
