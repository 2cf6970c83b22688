/* What a world's page does besides the 3D view: it tells where that view cannot run. */
"use strict";
(function () {
  const note = document.getElementById("note");
  if (!note) return;
  if (location.protocol === "file:") {
    note.textContent = "Browsers do not let a page from the disk read 3D files. Serve the folder: python -m http.server";
    return;
  }
  const probe = document.createElement("canvas");
  if (!probe.getContext("webgl2")) { note.textContent = "This browser has no WebGL 2, which the 3D view needs."; return; }
  const script = document.createElement("script");
  script.type = "module";
  script.src = document.currentScript ? document.currentScript.dataset.viewer : "../../../assets/viewer.js";
  script.onerror = () => { note.textContent = "The viewer's files could not be loaded."; };
  document.head.append(script);
})();
