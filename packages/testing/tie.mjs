// Imported by the processes that tests start: ends this one when the process that started it is gone, however it ended.
// Node writes what it compiled (NODE_COMPILE_CACHE) only when a process ends by itself, and these are killed: here it is
// written while they run, once, so that the next start of the same code does not compile it again.
import { flushCompileCache } from 'node:module';
import { Socket } from 'node:net';

const tie = new Socket({ fd: 3 });
const end = () => process.kill(process.pid, 'SIGKILL');
tie.on('close', end).on('error', end).resume().unref();
setTimeout(flushCompileCache, 10_000).unref();
