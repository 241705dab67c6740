import type { Manifest } from '@weir/adapter';

const hour = 3_600_000;

export const manifest: Manifest = {
  name: 'http-poll',
  title: 'Any HTTP API with pages, described in YAML',
  docs: 'adapters/http-poll/README.md',
  source: {
    kind: 'poll',
    config: {
      url: { type: 'url', required: true, doc: 'URL of the first page, without the cursor.' },
      path: { type: 'string', doc: 'Path and query appended to url.' },
      auth: { type: 'string', secret: true, doc: 'Credential.' },
      authHeader: { type: 'string', default: 'authorization', doc: 'Header that carries the credential.' },
      authPrefix: { type: 'string', default: 'Bearer ', doc: 'Text before the credential.' },
      items: { type: 'string', default: '', doc: 'Path in the page of the list, e.g. data or result.items; empty = the page is the list.' },
      cursor: { type: 'string', enum: ['token', 'link', 'page', 'none'], default: 'token', doc: 'How pages follow: token (a field of the page goes into a query parameter), link (Link header, rel=next), page (a number), none.' },
      cursorField: { type: 'string', default: 'next_cursor', doc: 'token: top-level field of the page with the next token.' },
      cursorParam: { type: 'string', default: 'cursor', doc: 'token, page: query parameter that takes it.' },
      id: { type: 'string', default: 'id', doc: 'Field of an item: the sender\'s id of the object.' },
      version: { type: 'string', doc: 'Field of an item that changes with the object, e.g. updated_at. With it an update is a new event; the item\'s bytes count in any case.' },
      every: { type: 'number', default: 60, doc: 'Seconds between polls once there is nothing more.' },
      requestsPerMinute: { type: 'number', default: 60, doc: 'Most requests in a minute.' },
    },
    identity: { fields: ['id', 'version'], unique: false, cite: 'a polled object has no event id: its id, its version and its bytes identify the change' },
    retryHorizonMs: 24 * hour,
    limits: { bodyBytes: 16 * 1024 * 1024, items: 10_000, depth: 32 },
  },
};
