import { dottedPath, type Manifest } from '@weir/adapter';

const hour = 3_600_000;
/** Framing belongs to the client; so does the encoding, which it undoes. */
const reserved = 'host|content-length|transfer-encoding|connection|upgrade|te|trailer|expect|keep-alive|proxy-authorization|accept-encoding';
const headerLine = `(?!(?:${reserved}):)[a-z0-9-]{1,64}: [\\x21-\\x7e][\\x20-\\x7e]{0,999}`;

export const manifest: Manifest = {
  name: 'http-poll',
  title: 'Any HTTP API with pages, described in YAML',
  docs: 'adapters/http-poll/README.md',
  source: {
    kind: 'poll',
    config: {
      url: { type: 'url', required: true, doc: 'URL of the first page, without cursor and time.' },
      path: { type: 'string', pattern: '^/', doc: 'Path and query appended to url.' },
      auth: { type: 'string', secret: true, doc: 'Credential.' },
      authHeader: { type: 'string', default: 'authorization', pattern: '^[A-Za-z0-9-]{1,64}$', doc: 'Header that carries the credential.' },
      authPrefix: { type: 'string', default: 'Bearer ', doc: 'Text before the credential.' },
      headers: { type: 'string', pattern: `^(?:${headerLine}\\n){0,19}${headerLine}\\n?$`, doc: 'Further headers, one `name: value` a line, names in lower case, e.g. revision: 2026-07-15. No secrets: those go into auth.' },
      items: { type: 'string', default: '', pattern: `${dottedPath}|^$`, doc: 'Path in the page of the list, e.g. data or result.items; empty = the page is the list.' },
      cursor: { type: 'string', enum: ['token', 'url', 'link', 'page', 'none'], default: 'token', doc: 'How pages follow: token (a field of the page goes into a query parameter), url (a field of the page is the URL of the next), link (Link header, rel=next), page (a number from 1), none (one page).' },
      cursorField: { type: 'string', default: 'next_cursor', pattern: dottedPath, doc: 'token, url: path in the page of the next token or URL.' },
      cursorParam: { type: 'string', default: 'cursor', doc: 'token, page: query parameter that takes it.' },
      since: { type: 'string', pattern: dottedPath, doc: 'Path in an item of the time of its last change. With it each run asks only for what changed since the run before.' },
      sinceParam: { type: 'string', default: 'since', doc: 'since: query parameter that takes the time.' },
      sinceFormat: { type: 'string', enum: ['iso', 's', 'ms'], default: 'iso', doc: 'since: how items and the parameter write a time: ISO 8601, or seconds or milliseconds since 1970.' },
      start: { type: 'string', pattern: '^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}Z$', doc: 'since: what the first run asks for, e.g. 2026-01-01T00:00:00Z; absent = everything.' },
      overlap: { type: 'number', default: 60, doc: 'since: seconds that a run reads again, for changes that the sender shows late.' },
      id: { type: 'string', default: 'id', pattern: dottedPath, doc: 'Path in an item of the sender\'s id of the object.' },
      version: { type: 'string', pattern: dottedPath, doc: 'Path in an item of what changes with the object, e.g. updated_at. With it an update is a new event; the item\'s bytes count in any case.' },
      every: { type: 'number', default: 60, doc: 'Seconds between runs once there is nothing more.' },
      requestsPerMinute: { type: 'number', default: 60, doc: 'Most requests in a minute.' },
    },
    identity: { fields: ['id', 'version'], unique: false, cite: 'a polled object has no event id: its id, its version and its bytes identify the change' },
    retryHorizonMs: 24 * hour,
    limits: { bodyBytes: 16 * 1024 * 1024, items: 10_000, depth: 32 },
  },
};
