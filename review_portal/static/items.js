// Shows items on pages other than the labeling loop.

import { show } from "./show.js";

const texts = JSON.parse(document.getElementById("texts").dataset.texts);
for (const box of document.querySelectorAll("[data-item]")) {
  box.replaceChildren(show(JSON.parse(box.dataset.item), texts));
}
