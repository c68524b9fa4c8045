// Shows why the server refuses this page. Not a module: browsers request modules with an origin, which may be refused.

async function tellRefusal() {
  try {
    const answer = await fetch("api/status", { method: "POST" }); // POST sends the origin, and takes no page's place
    if (answer.status !== 403) return;
    const notice = document.getElementById("notice");
    notice.textContent = await answer.text();
    notice.hidden = false;
    document.getElementById("rate").textContent = "no connection";
    document.querySelector(".waiting")?.remove();
  } catch {
    // The server is not reachable; connection.js reports this.
  }
}

addEventListener("error", ({ target }) => target !== window && target.matches("script") && tellRefusal(), true);
addEventListener("refused", tellRefusal);
