// Reads texts as a JSON list, and prints what util.parseEnv finds of one variable in each. Argument: the name.
import { readFileSync } from "node:fs";
import { parseEnv } from "node:util";

const name = process.argv[2];
const value = (text) => {
  const found = parseEnv(text);
  return Object.hasOwn(found, name) ? found[name] : null;
};
process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(value)));
