import pino, { type Logger } from 'pino';

/** JSON lines on stdout (or `destination`), one per event. Known secret-bearing names are cut wherever they stand. */
export function createLogger(options: { service: string; level: string; instance?: string; destination?: pino.DestinationStream }): Logger {
  return pino({
    level: options.level,
    base: { service: options.service, instance: options.instance },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: ['authorization', '*.authorization', 'headers.authorization', '*.headers.authorization', 'secret', '*.secret', 'token', '*.token', 'password', '*.password'], censor: '[secret]' },
  }, options.destination ?? pino.destination({ fd: 1, sync: false }));
}
