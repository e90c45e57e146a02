// Adobe's command line for OpenWhisk, as its own program starts it: node aio.cjs runtime action list …
const { createRequire } = require("node:module");
const { dirname } = require("node:path");

const installed = createRequire(process.env.NIGH_DOOR_CLIENTS + "/../aio/");
const root = dirname(installed.resolve("@adobe/aio-cli-plugin-runtime/package.json"));
const oclif = createRequire(root + "/")("@oclif/core");
oclif.run(process.argv.slice(2), { root }).then(() => oclif.flush?.()).catch(oclif.Errors.handle);
