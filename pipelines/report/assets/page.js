// The pictures of a report: one photo large, over the page, with its depth and confidence.
"use strict";
(() => {
  const dialog = document.getElementById("photo-dialog");
  if (!dialog) return;
  const pictures = [...document.querySelectorAll("figure.photo")];
  const image = dialog.querySelector("img");
  const layers = [...dialog.querySelectorAll("[data-show]")];
  let current = 0;
  let layer = "photo";

  function show() {
    const figure = pictures[current];
    const source = figure.querySelector(`img.${layer}`) || figure.querySelector("img.photo");
    image.src = source.src;
    image.alt = source.alt;
    image.className = source.className;
    dialog.querySelector(".name").textContent = figure.querySelector(".name").textContent;
    dialog.querySelector(".facts").textContent = figure.querySelector(".facts").textContent;
    for (const button of layers) {
      button.disabled = !figure.querySelector(`img.${button.dataset.show}`);
      button.setAttribute("aria-pressed", String(button.dataset.show === layer && !button.disabled));
    }
  }

  function open(number, wanted) {
    current = pictures.findIndex((figure) => figure.dataset.photo === String(number));
    if (current < 0) return;
    layer = wanted || "photo";
    show();
    if (!dialog.open) dialog.showModal();
  }

  function step(by) {
    current = (current + by + pictures.length) % pictures.length;
    show();
  }

  for (const button of layers) button.addEventListener("click", () => { layer = button.dataset.show; show(); });
  dialog.querySelector("[data-step='-1']").addEventListener("click", () => step(-1));
  dialog.querySelector("[data-step='1']").addEventListener("click", () => step(1));
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  document.addEventListener("show-photo", (event) => open(event.detail));
  document.addEventListener("click", (event) => {
    const wanted = event.target.closest("[data-photo]");
    if (!wanted || dialog.contains(wanted)) return;
    const choice = document.querySelector("input[name=layer]:checked");
    open(wanted.dataset.photo, wanted.matches("figure.photo") && choice ? choice.value : "photo");
  });
})();
