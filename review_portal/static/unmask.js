// One viewing: ask the device, wait for its answer, show the words for a minute, forget them.

const POLL_MILLISECONDS = 1000;
const SHOWN_MILLISECONDS = 60000;

const boot = document.getElementById("unmask");
const texts = JSON.parse(boot.dataset.texts);

const post = async (id, what) => {
  const answer = await fetch(`/api/unmaskings/${id}/${what}`, {
    method: "POST", headers: { "X-CSRF-Token": boot.dataset.csrf }, cache: "no-store",
  });
  return answer.ok ? answer.json() : { state: "", message: (await answer.json()).message };
};

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function look(entry) {
  const id = entry.dataset.unmasking;
  const state = entry.querySelector("[data-state]");
  const words = entry.querySelector("[data-words]");
  entry.querySelector("[data-open]").remove();
  let found = await post(id, "open");
  while (found.state === "OPENED") {
    words.textContent = texts["unmask.waiting"];
    await pause(POLL_MILLISECONDS);
    found = await post(id, "view");
  }
  if (!found.state) {
    words.textContent = found.message;
    return;
  }
  state.textContent = texts[`unmask.state.${found.state}`];
  words.textContent = found.words.length ? found.words.join(" · ") : texts[`unmask.why.${found.state}`] ?? "";
  if (!found.words.length) return;
  words.classList.add("unmasked");
  await pause(SHOWN_MILLISECONDS);
  words.classList.remove("unmasked");
  words.textContent = texts["unmask.over"];
}

for (const entry of document.querySelectorAll("[data-unmasking]")) {
  entry.querySelector("[data-open]")?.addEventListener("click", () => look(entry));
}
// A page that comes back from the browser's memory must not bring words along.
addEventListener("pagehide", () => {
  for (const words of document.querySelectorAll(".unmasked")) words.textContent = "";
});
