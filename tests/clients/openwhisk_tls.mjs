// Apache's own client of OpenWhisk against the door over TLS: node openwhisk_tls.mjs APIHOST USER:KEY trusted|doubted. Expects the
// function `echo`. Whom to believe the environment says (NODE_EXTRA_CA_CERTS).
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const openwhisk = createRequire(process.env.NIGH_DOOR_CLIENTS + "/")("openwhisk");
const [apihost, api_key, expected] = process.argv.slice(2);
const ow = openwhisk({ apihost, api_key, ignore_certs: false });

const params = { name: "Zoë" };
const invoked = ow.actions.invoke({ name: "echo", params, blocking: true, result: true });
if (expected === "trusted") {
  assert.deepEqual(await invoked, params);
  assert.deepEqual((await ow.actions.list()).map(({ name }) => name), ["echo"]);
  const { activationId } = await ow.actions.invoke({ name: "echo", params });
  assert.match(activationId, /^[0-9a-f]{32}$/);
} else {
  await assert.rejects(invoked, /certificate|issuer/);
}
