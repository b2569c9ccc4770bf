// Files to search with: dropped anywhere on the page, or chosen.

import { get } from "./dom.js";

// chosen(file): the user has dropped or chosen a file
export function listenForFiles(chosen) {
  const veil = get("drop");
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0; // dragenter and dragleave fire for every element under the pointer

  document.addEventListener("dragenter", (event) => {
    if (carries(event)) veil.hidden = ++depth < 1;
  });
  document.addEventListener("dragleave", (event) => {
    if (carries(event)) veil.hidden = --depth < 1;
  });
  document.addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault(); // otherwise the browser opens the file instead of the page
    depth = 0;
    veil.hidden = true;
    if (event.dataTransfer.files.length) chosen(event.dataTransfer.files[0]);
  });
  get("file").addEventListener("change", (event) => {
    if (event.target.files.length) chosen(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
}
