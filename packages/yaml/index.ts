export { parseYaml, type ParsedYaml, type YamlValue } from './parse.ts';
