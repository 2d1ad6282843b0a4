// Requests to the server. Every failure is an Error whose message can be shown.

const LENGTH_BYTES = 8; // before each file of an upload, big endian
const LOST = "The server does not answer: is alpharefine demo still running in its terminal?";

export async function call(method, path, body) {
  const options = { method };
  if (body instanceof Blob) {
    options.body = body;
  } else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error(LOST);
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(answer.message || `The server refused this (status ${response.status}).`);
  }
  return answer;
}

// Sends files in one request. `progress` is told the fraction sent, 0 to 1; `signal` cancels.
export function upload(files, progress, signal) {
  const parts = [];
  for (const file of files) {
    const length = new DataView(new ArrayBuffer(LENGTH_BYTES));
    length.setBigUint64(0, BigInt(file.size));
    parts.push(length.buffer, file);
  }
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch cannot tell how far it is
    request.open("POST", "/api/uploads");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => progress(event.loaded / event.total));
    request.addEventListener("load", () => {
      if (request.status === 201) resolve(request.response);
      else reject(new Error(request.response?.message || "The server refused the upload."));
    });
    request.addEventListener("error", () => reject(new Error(LOST)));
    request.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    signal.addEventListener("abort", () => request.abort());
    request.send(new Blob(parts, { type: "application/octet-stream" }));
  });
}

// The messages of a run, until the last one. Returns a function that stops listening.
export function listen(session, run, onMessage, onLost) {
  const source = new EventSource(`/api/sessions/${session}/runs/${run}/events`);
  let failures = 0;
  source.addEventListener("open", () => { failures = 0; });
  source.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "done" || message.type === "failed") source.close();
    onMessage(message);
  });
  source.addEventListener("error", () => { // the browser tries again by itself unless it is closed
    failures += 1;
    if (source.readyState === EventSource.CLOSED || failures > 2) {
      source.close();
      onLost(new Error(LOST));
    }
  });
  return () => source.close();
}

// Ends when the server has let go of it. Also works while the page is being closed.
export async function forget(session) {
  await fetch(`/api/sessions/${session}`, { method: "DELETE", keepalive: true }).catch(() => {});
}
