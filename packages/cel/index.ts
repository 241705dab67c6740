export { compileCel, type CelResult, type CompiledCel } from './cel.ts';
