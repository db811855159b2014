// The calls of the page. An error carries the server's own words.
export async function call(path, options) {
  const response = await fetch(path, options);
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.error), { status: response.status });
  return body;
}

const model = (name) => `/v2/models/${encodeURIComponent(name)}`;
const post = (body) => ({ method: "POST", body: JSON.stringify(body) });

export const readyModels = async () =>
  (await call("/v2/repository/index", { method: "POST" })).filter((entry) => entry.state === "READY").map((entry) => entry.name);
export const state = (name) => call(`/console/state/${encodeURIComponent(name)}`);
export const samples = (name) => call(`/console/samples/${encodeURIComponent(name)}`);
export const profile = (name) => call(`${model(name)}/profile`);
export const metadata = (name) => call(model(name));
export const changeSlo = (name, changes, token) =>
  call(`${model(name)}/slo`, {
    method: "PATCH", body: JSON.stringify(changes), headers: token ? { Authorization: `Bearer ${token}` } : {},
  });

// Raw: the caller knows what the model takes and gives.
export const infer = (name, request, parameters) => call(`${model(name)}/infer`, post({ ...request, parameters }));

// One input in binary behind the request's JSON, as the protocol's extension has it.
export function inferBinary(name, request, tensor) {
  const head = new TextEncoder().encode(JSON.stringify(request));
  return call(`${model(name)}/infer`, {
    method: "POST", body: new Blob([head, tensor]), headers: { "Inference-Header-Content-Length": String(head.length) },
  });
}

// A message's answer, streamed: `told` hears of it as far as it is there.
export async function chat(name, content, parameters, told) {
  const request = { model: name, messages: [{ role: "user", content }], stream: true, ...parameters };
  const response = await fetch("/v1/chat/completions", post(request));
  if (!response.ok) throw new Error((await response.json()).error.message);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const reply = { text: "", parameters: null };
  for (let rest = "", read = await reader.read(); !read.done; read = await reader.read()) {
    const events = (rest + read.value).split("\n\n");
    rest = events.pop();
    for (const data of events.map((event) => event.slice("data: ".length)).filter((text) => text !== "[DONE]")) {
      const { error, choices, sluice } = JSON.parse(data);
      if (error) throw new Error(error.message);
      reply.text += choices[0].delta.content ?? "";
      reply.parameters = sluice ?? null;
    }
    told({ ...reply });
  }
  return reply;
}
