// Apache's own client of OpenWhisk against what the door keeps of actions and packages: node openwhisk_kept.mjs APIHOST USER:KEY MODULE
// ARCHIVE. MODULE echoes, and so does the one in ARCHIVE. Expects the functions `echo`, `trap` and `math.echo`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const openwhisk = createRequire(process.env.NIGH_DOOR_CLIENTS + "/")("openwhisk");
const [apihost, api_key, module, archive] = process.argv.slice(2);
const ow = openwhisk({ apihost, api_key });

const rejected = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return [error.statusCode, error.error.error];
  }
  assert.fail("it was to fail");
};
const result = (name, params = {}) => ow.actions.invoke({ name, params, blocking: true, result: true });
const annotation = ({ annotations }, key) => annotations.find((annotation) => annotation.key === key)?.value;

// Parameters that are stored stand under those of an invocation.
const action = readFileSync(module);
const made = await ow.actions.create({ name: "greeter", action, params: { greeting: "hello", list: [1, { a: "ö" }] } });
assert.deepEqual(made.parameters, [{ key: "greeting", value: "hello" }, { key: "list", value: [1, { a: "ö" }] }]);
assert.equal(made.version, "0.0.1");
assert.deepEqual(await result("greeter", { name: "Ada" }), { greeting: "hello", list: [1, { a: "ö" }], name: "Ada" });
assert.deepEqual(await result("greeter", { greeting: "bye", list: 7 }), { greeting: "bye", list: 7 });
assert.deepEqual(await result("greeter"), { greeting: "hello", list: [1, { a: "ö" }] });

// An update changes what it says, and nothing else.
const changed = await ow.actions.update({ name: "greeter", params: { greeting: "hi" } });
assert.deepEqual([changed.version, changed.exec.kind, changed.parameters], ["0.0.2", "wasm:native", [{ key: "greeting", value: "hi" }]]);
assert.deepEqual(await result("greeter"), { greeting: "hi" });
const limited = await ow.actions.update({ name: "greeter", limits: { memory: 17 } });
assert.deepEqual([limited.limits.memory, limited.parameters.length], [17, 1]);
await ow.actions.update({ name: "greeter", action: { annotations: [{ key: "about", value: { by: "Ada" } }, { key: "final", value: true }] } });
const greeter = await ow.actions.get("greeter");
assert.deepEqual([annotation(greeter, "about"), annotation(greeter, "exec")], [{ by: "Ada" }, "wasm:native"]);
assert.deepEqual([greeter.version, greeter.parameters.length], ["0.0.4", 1]);
assert.deepEqual(await rejected(result("greeter", { greeting: "mine" })), [400, "Request defines parameters that are not allowed (e.g., reserved properties)."]);
assert.deepEqual(await result("greeter", { name: "Bob" }), { greeting: "hi", name: "Bob" });
const activation = await ow.actions.invoke({ name: "greeter", blocking: true });
assert.equal(activation.version, "0.0.4");
const [last] = await ow.actions.list();
assert.deepEqual([last.name, last.version, last.updated > 1.7e12], ["greeter", "0.0.4", true]);
assert.deepEqual(await rejected(ow.actions.create({ name: "bad", action, params: { "": 1 } })), [400, "The request content was malformed: parameters: a key is empty"]);
assert.equal((await rejected(ow.actions.update({ name: "nobody", params: {} })))[1], "exec undefined");
const large = await rejected(ow.actions.update({ name: "greeter", params: { large: "x".repeat(300_000) } }));
assert.equal(large[0], 413);

// Packages have parameters for all actions in them, and can be bound to.
await ow.packages.create({ name: "tools", package: { parameters: [{ key: "unit", value: "m" }, { key: "from", value: "tools" }] } });
await ow.actions.create({ name: "tools/measure", action, params: { from: "measure" } });
assert.deepEqual(await result("tools/measure", { x: 1 }), { from: "measure", unit: "m", x: 1 });
assert.equal((await rejected(ow.packages.create({ name: "tools" })))[0], 409);
const binding = { namespace: "_", name: "tools" };
const bound = await ow.packages.create({ name: "mine", package: { binding, parameters: [{ key: "unit", value: "km" }] } });
assert.deepEqual(bound.binding, { namespace: "guest", name: "tools" });
assert.deepEqual(await result("mine/measure", { x: 1 }), { from: "measure", unit: "km", x: 1 });
assert.deepEqual((await ow.packages.get("mine")).actions.map(({ name }) => name), ["measure"]);
assert.deepEqual((await ow.actions.get("mine/measure")).parameters, [{ key: "from", value: "measure" }, { key: "unit", value: "km" }]);
const through = await ow.actions.invoke({ name: "mine/measure", blocking: true });
assert.deepEqual([annotation(through, "path"), annotation(through, "binding")], ["guest/tools/measure", "guest/mine"]);
assert.equal((await rejected(ow.actions.create({ name: "mine/other", action })))[0], 400);
assert.equal((await rejected(ow.actions.delete("mine/measure")))[0], 400);
assert.equal((await rejected(ow.packages.create({ name: "loop", package: { binding: { namespace: "_", name: "mine" } } })))[0], 400);
assert.deepEqual((await ow.packages.list()).map(({ name }) => name).sort(), ["math", "mine", "tools"]);
const published = await ow.packages.update({ name: "tools", package: { publish: true } });
assert.deepEqual([published.publish, published.version, published.parameters.length], [true, "0.0.2", 2]);
assert.match((await rejected(ow.packages.delete("tools")))[1], /not empty \(contains 1 entities\)/);
await ow.packages.delete("mine");
assert.equal((await rejected(result("mine/measure")))[0], 404);

// A sequence runs its actions one after the other; each has an activation of its own.
await ow.actions.create({ name: "both", sequence: ["/_/greeter", "/guest/tools/measure"], params: { start: 1 } });
const both = await ow.actions.get("both");
assert.deepEqual(both.exec, { kind: "sequence", components: ["/guest/greeter", "/guest/tools/measure"], binary: false });
assert.deepEqual(await result("both", { go: true }), { from: "measure", unit: "m", greeting: "hi", start: 1, go: true });
const whole = await ow.actions.invoke({ name: "both", blocking: true });
assert.deepEqual([whole.name, annotation(whole, "kind"), annotation(whole, "topmost"), whole.logs.length], ["both", "sequence", true, 2]);
assert.deepEqual((await ow.activations.logs(whole.activationId)).logs, whole.logs);
const parts = await Promise.all(whole.logs.map((id) => ow.activations.get(id)));
assert.deepEqual(parts.map(({ name, cause }) => [name, cause]), [["greeter", whole.activationId], ["measure", whole.activationId]]);
assert.deepEqual(parts.map((part) => annotation(part, "causedBy")), ["sequence", "sequence"]);
assert.deepEqual(parts[1].response.result, whole.response.result);
assert.ok(whole.duration <= parts[0].duration + parts[1].duration + 2 && whole.end >= parts[1].end);
// One within another, and not waited for.
await ow.actions.create({ name: "nested", sequence: ["/_/both", "/_/echo"] });
const { activationId } = await ow.actions.invoke({ name: "nested", params: { deep: 1 } });
let nested;
for (let tries = 0; !nested && tries < 500; tries++) {
  nested = await ow.activations.get(activationId).catch(() => new Promise((resolve) => setTimeout(resolve, 10)));
}
assert.equal(nested.response.result.deep, 1);
const inner = await ow.activations.get(nested.logs[0]);
assert.deepEqual([inner.name, inner.cause, annotation(inner, "topmost"), inner.logs.length], ["both", activationId, undefined, 2]);
// It ends where one of them does.
await ow.actions.create({ name: "broken", sequence: ["/_/greeter", "/_/trap", "/_/echo"] });
const failed = await ow.actions.invoke({ name: "broken", blocking: true }).catch((error) => error);
assert.deepEqual([failed.statusCode, failed.error.response.status, failed.error.logs.length], [502, "action developer error", 2]);
assert.match(failed.error.response.result.error, /^trap: /);
assert.deepEqual(await rejected(ow.actions.create({ name: "s", sequence: ["/_/nobody"] })), [404, "Sequence component does not exist. (/guest/nobody)"]);
assert.deepEqual(await rejected(ow.actions.update({ name: "both", sequence: ["/_/nested"] })), [400, "Sequence may not refer to itself."]);
assert.equal((await rejected(ow.actions.create({ name: "s", sequence: ["echo"] })))[0], 400);
await ow.actions.delete("greeter");
const gone = await ow.actions.invoke({ name: "both", blocking: true }).catch((error) => error);
assert.deepEqual([gone.statusCode, gone.error.response.result.error], [502, "Sequence component does not exist."]);
// What was code becomes a sequence, and code again.
await ow.actions.create({ name: "greeter", action });
await ow.actions.update({ name: "greeter", sequence: ["/_/echo"] });
assert.equal((await ow.actions.get("greeter")).exec.kind, "sequence");
assert.deepEqual(await result("greeter", { a: 1 }), { a: 1 });
await ow.actions.update({ name: "greeter", action });
assert.equal((await ow.actions.get("greeter")).exec.kind, "wasm:native");
assert.equal((await ow.actions.delete("both")).name, "both");
assert.equal((await rejected(ow.actions.get("both")))[0], 404);

// A module in an archive.
await ow.actions.create({ name: "zipped", action: readFileSync(archive), kind: "wasm:default" });
assert.deepEqual(await result("zipped", { from: "archive" }), { from: "archive" });
const empty = Buffer.from("504b0506" + "00".repeat(18), "hex");
assert.match((await rejected(ow.actions.create({ name: "none", action: empty })))[1], /archive/);

// All of it goes.
await ow.packages.delete({ name: "tools", force: true }).catch(() => {});
for (const { namespace, name } of await ow.actions.list()) {
  await ow.actions.delete(`/${namespace}/${name}`).catch(() => {});
}
