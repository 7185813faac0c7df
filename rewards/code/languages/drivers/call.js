// Calls one function of the program with JSON arguments from stdin and prints {"value": ..., "args": [...]}.
// argv: the program's path, the function's name. The program's own console and stdout are mute.
"use strict";
const fs = require("fs");
const [, , path, name] = process.argv;
const args = JSON.parse(fs.readFileSync(0, "utf8"));
const source = fs.readFileSync(path, "utf8");
const { stringify } = JSON;
const { writeSync } = fs;
for (const method of ["log", "info", "warn", "error", "debug", "trace", "table"]) console[method] = () => {};
process.stdout.write = () => true;
const find = `;return typeof ${name} === "function" ? ${name}
  : typeof Solution === "function" ? ((s) => s.${name}.bind(s))(new Solution()) : module.exports.${name};`;
const module_ = { exports: {} };
const target = new Function("require", "module", "exports", source + "\n" + find)(require, module_, module_.exports);
Promise.resolve(target(...args)).then(
  (value) => {
    const text = Buffer.from(stringify({ value: value === undefined ? null : value, args }));
    for (let done = 0; done < text.length; ) done += writeSync(1, text, done);
    process.exit(0);
  },
  () => process.exit(1),
);
