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
