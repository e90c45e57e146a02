// Apache's own client of OpenWhisk against the door: node openwhisk.mjs APIHOST USER:KEY MODULE. Expects the functions `echo`,
// `trap` and `math.echo`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const openwhisk = createRequire(process.env.NIGH_DOOR_CLIENTS + "/")("openwhisk");
const [apihost, api_key, module] = process.argv.slice(2);
const ow = openwhisk({ apihost, api_key });

const rejected = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail("it was to fail");
};

const ended = async (activationId) => {
  for (let tries = 0; tries < 500; tries++) {
    try {
      return await ow.activations.get(activationId);
    } catch (error) {
      assert.equal(error.statusCode, 404);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  assert.fail(`activation ${activationId} does not end`);
};

// What there is.
const actions = await ow.actions.list();
assert.deepEqual(actions.map(({ namespace, name }) => `${namespace}/${name}`), ["guest/echo", "guest/math/echo", "guest/trap"]);
assert.equal(actions[0].annotations.find(({ key }) => key === "exec").value, "wasm:native");
assert.deepEqual(await ow.actions.list({ limit: 1, skip: 1 }), [actions[1]]);
const echo = await ow.actions.get("echo");
assert.equal(echo.exec.kind, "wasm:native");
assert.deepEqual(echo.parameters, []);
assert.equal((await rejected(ow.actions.get("nobody"))).statusCode, 404);
assert.deepEqual(await ow.namespaces.list(), ["guest"]);
const all = await ow.namespaces.get("guest");
assert.equal(all.actions.length, 3);
assert.deepEqual([all.triggers, all.rules], [[], []]);
assert.deepEqual((await ow.packages.list()).map(({ name }) => name), ["math"]);
assert.equal((await ow.packages.get("math")).actions[0].name, "echo");

// Not waited for.
const params = { name: "Zoë \"Z\" \\ \n", list: [1, null, { deep: true }] };
const { activationId } = await ow.actions.invoke({ name: "echo", params });
assert.match(activationId, /^[0-9a-f]{32}$/);
const record = await ended(activationId);
assert.deepEqual(record.response.result, params);
assert.deepEqual([record.name, record.namespace, record.response.status], ["echo", "guest", "success"]);
assert.deepEqual((await ow.activations.result(activationId)).result, params);
assert.deepEqual((await ow.activations.logs(activationId)).logs, []);
assert.equal((await ow.actions.invoke("echo")).activationId.length, 32);

// Waited for.
const activation = await ow.actions.invoke({ name: "echo", params, blocking: true });
assert.deepEqual(activation.response, { status: "success", success: true, size: Buffer.byteLength(JSON.stringify(params)), result: params });
assert.deepEqual([activation.logs, activation.subject, activation.version], [[], "guest", "0.0.1"]);
assert.ok(activation.end >= activation.start && activation.duration === activation.end - activation.start);
assert.equal(activation.annotations.find(({ key }) => key === "path").value, "guest/echo");
assert.deepEqual(await ow.actions.invoke({ name: "echo", params, blocking: true, result: true }), params);
assert.deepEqual(await ow.actions.invoke({ name: "echo", blocking: true, result: true }), {});
for (const name of ["/guest/math/echo", "math/echo", "/guest/echo", "/_/math/echo"]) {
  assert.deepEqual(await ow.actions.invoke({ name, params: { name }, blocking: true, result: true }), { name });
}

// Failed.
let error = await rejected(ow.actions.invoke({ name: "echo", params: { error: "no luck" }, blocking: true }));
assert.deepEqual([error.statusCode, error.error.response.result.error], [502, "no luck"]);
assert.equal(error.error.response.status, "application error");
error = await rejected(ow.actions.invoke({ name: "trap", blocking: true, result: true }));
assert.deepEqual([error.statusCode, error.error.response.status], [502, "action developer error"]);
assert.match(error.error.response.result.error, /^trap: /);
error = await rejected(ow.actions.invoke({ name: "nobody", blocking: true }));
assert.equal(error.statusCode, 404);
assert.equal((await rejected(ow.actions.invoke({ name: "nobody" }))).statusCode, 404);

// What ran.
const list = await ow.activations.list({ name: "trap" });
assert.deepEqual(list.map(({ name, statusCode }) => [name, statusCode]), [["trap", 2]]);
assert.equal((await ow.activations.list({ limit: 1 })).length, 1);
assert.ok((await ow.activations.list({ count: true })).activations >= 8);
assert.deepEqual(await ow.activations.list({ since: Date.now() + 60_000 }), []);
assert.ok((await ow.activations.list({ docs: true }))[0].response);
assert.equal((await rejected(ow.activations.get("f".repeat(32)))).statusCode, 404);

// Put, put again, deleted.
const action = readFileSync(module);
const made = await ow.actions.create({ name: "made/new", action, limits: { timeout: 2000, memory: 64 } });
assert.deepEqual([made.namespace, made.name, made.limits.timeout, made.limits.memory], ["guest/made", "new", 2000, 64]);
assert.deepEqual(await ow.actions.invoke({ name: "made/new", params, blocking: true, result: true }), params);
assert.equal((await rejected(ow.actions.create({ name: "made/new", action }))).statusCode, 409);
const updated = await ow.actions.update({ name: "made/new", action });
assert.equal(updated.limits.timeout, 2000, "limits stay as they were");
error = await rejected(ow.actions.create({ name: "script", action: "function main() {}" }));
assert.deepEqual([error.statusCode, /no Wasm module/.test(error.error.error), error.error.code.length], [400, true, 32]);
assert.equal((await ow.actions.delete("made/new")).name, "new");
assert.equal((await rejected(ow.actions.get("made/new"))).statusCode, 404);

// Nothing here.
assert.equal((await rejected(ow.triggers.invoke({ name: "t" }))).statusCode, 501);
assert.equal((await rejected(openwhisk({ apihost, api_key: "some:body" }).actions.list())).statusCode, 401);
