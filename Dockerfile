# One image for every service; the command says which: node services/<name>/main.ts
FROM node:24-bookworm-slim
WORKDIR /weir
ENV NODE_ENV=production WEIR_DATA=/data WEIR_HOST=0.0.0.0
# Else a busy service takes up to 192 MB for what has just been made; no dearer (docs/performance.md).
ENV NODE_OPTIONS=--max-semi-space-size=16
# Else what was read from a broker and let go stays with the process, in pieces (glibc, mallopt(3): the threshold grows with what is freed).
ENV MALLOC_MMAP_THRESHOLD_=262144
COPY package.json package-lock.json .npmrc ./
COPY packages packages
COPY adapters adapters
COPY schemas schemas
COPY cli cli
RUN npm ci --omit=dev --no-audit --no-fund && npm cache clean --force
COPY services services
COPY infra infra
COPY scripts scripts
COPY workspace workspace
RUN mkdir /data && chown node:node /data
VOLUME /data
USER node
CMD ["node", "services/control/main.ts"]
