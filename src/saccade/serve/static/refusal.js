// Says why the server refuses this page. No module: those are what browsers name their origin for, and what is refused.

async function tellRefusal() {
  try {
    const answer = await fetch("api/status", { method: "POST" }); // with the origin, and no page's place
    if (answer.status !== 403) return;
    const notice = document.getElementById("notice");
    notice.textContent = await answer.text();
    notice.hidden = false;
    document.getElementById("rate").textContent = "no connection";
    document.querySelector(".waiting")?.remove();
  } catch {
    // The server is gone, which is told elsewhere.
  }
}

addEventListener("error", ({ target }) => target !== window && target.matches("script") && tellRefusal(), true);
addEventListener("refused", tellRefusal);
