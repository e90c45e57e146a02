// The CloudEvents SDK against the HTTP door: node cloudevents.mjs URL. Expects the function `echo` at URL/function/echo, and
// `nothing`, which answers with nothing.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { CloudEvent, HTTP, emitterFor, httpTransport } = createRequire(process.env.NIGH_DOOR_CLIENTS + "/")("cloudevents");
const [url] = process.argv.slice(2);

const event = new CloudEvent({
  type: "com.example.order",
  source: "/shop",
  subject: "order 7",
  traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  data: { item: "tea", count: 2 },
});

const post = async (name, { headers, body }) => {
  const response = await fetch(`${url}/function/${name}`, { method: "POST", headers, body });
  return { status: response.status, headers: Object.fromEntries(response.headers), body: await response.text() };
};

for (const encode of [HTTP.binary, HTTP.structured]) {
  const answer = await post("echo", encode(event));
  assert.equal(answer.status, 200, answer.body);
  const told = HTTP.toEvent(answer);
  assert.deepEqual([told.source, told.type], ["/functions/echo", "nigh.function.answered"]);
  // In binary mode a function that does not say what its bytes are has them taken for just that.
  assert.deepEqual(typeof told.data === "string" ? JSON.parse(told.data) : told.data, event.data);
  assert.ok(told.id && told.id !== event.id && told.validate());
  assert.equal(answer.headers["content-type"].includes("cloudevents+json"), encode === HTTP.structured);
  assert.ok(answer.headers["nigh-call-id"] && answer.headers["nigh-computer"]);
  const nothing = await post("nothing", encode(event));
  assert.deepEqual([nothing.status, nothing.body], [204, ""]);
}

// As a program would send them, by the SDK's own transport.
const emit = emitterFor(httpTransport(`${url}/function/echo`));
assert.match((await emit(event)).body, /tea/);

// What is none is refused.
const { headers, body } = HTTP.binary(event);
delete headers["ce-type"];
const refused = await post("echo", { headers, body });
assert.equal(refused.status, 400);
assert.match(refused.body, /type/);
const batch = { headers: { "content-type": "application/cloudevents-batch+json" }, body: "[]" };
assert.equal((await post("echo", batch)).status, 415);
