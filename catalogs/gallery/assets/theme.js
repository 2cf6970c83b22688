/* Dark or light: what was chosen here before, else what the system asks for. Loaded first, so that nothing flashes. */
"use strict";
(function () {
  let chosen = null;
  try { chosen = localStorage.getItem("lyra-theme"); } catch (error) { /* storage may be forbidden */ }
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : system;
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (button) button.addEventListener("click", () => {
      const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      document.documentElement.dataset.theme = next;
      try { localStorage.setItem("lyra-theme", next); } catch (error) { /* then it lasts for this page */ }
    });
  });
})();
