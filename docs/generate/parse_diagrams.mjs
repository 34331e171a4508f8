// Reads a JSON list of Mermaid diagrams on standard input, and writes a list of what is wrong with each: null for nothing.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const modules = createRequire(`${process.argv[2]}/`);
const { JSDOM } = modules("jsdom");
const { window } = new JSDOM("<!doctype html><body></body>");
Object.assign(globalThis, { window, document: window.document });

const { default: mermaid } = await import(pathToFileURL(`${process.argv[2]}/mermaid/dist/mermaid.core.mjs`));
const said = [];
for (const diagram of JSON.parse(readFileSync(0, "utf8"))) {
  said.push(await mermaid.parse(diagram).then(() => null, (error) => String(error.message ?? error)));
}
process.stdout.write(JSON.stringify(said));
process.exit(0);
