// An http function in JavaScript, as the platform's documentation shows them: answers by path.
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const url = new URL(request.url);
  switch (url.pathname) {
    case "/echo":
      return new Response(request.body, { headers: { "content-type": request.headers.get("content-type") ?? "text/plain" } });
    case "/about":
      console.log(`asked by ${request.method}`);
      return new Response(JSON.stringify({ method: request.method, path: url.pathname, query: url.search, mine: request.headers.get("x-mine") }), {
        status: 201,
        headers: { "content-type": "application/json", "x-made-by": "JavaScript" },
      });
    case "/fetch":
      try {
        const answered = await fetch(url.searchParams.get("url"));
        return new Response(`${answered.status}: ${await answered.text()}`);
      } catch (error) {
        return new Response(`failed: ${error}`, { status: 502 });
      }
    default:
      return new Response("no such page\n", { status: 404 });
  }
}
