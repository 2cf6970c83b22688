/* The index: rows come in parts as scripts (so a page from the disk may load them too); all text is set as text. */
"use strict";
(function () {
  const PAGE = 60;
  const $ = (id) => document.getElementById(id);
  let columns = [], rows = [], shown = [], page = 0, ascending = false, total = 0, at = {}, haystacks = [];
  const state = new URLSearchParams(location.hash.slice(1));

  function load(path) {
    const script = document.createElement("script");
    script.src = path;
    script.onerror = () => problem("the file " + path + " of this site could not be loaded; some worlds are missing here");
    document.head.append(script);
  }
  function problem(text) { $("problem").textContent = text; $("problem").hidden = !text; }
  function make(tag, name, text) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  window.lyraSite = (site) => {
    columns = site.columns; total = site.count;
    columns.forEach((column, i) => { at[column.name] = i; });
    $("made").textContent = site.made;
    for (const column of columns) {
      const line = make("tr");
      line.append(make("th", "mono", column.name), make("td", "soft", column.kind), make("td", "", column.meaning));
      $("columns").append(line);
    }
    for (const name of ["quality", "psnr_db", "ssim", "coverage_frac", "motion_px", "num_splats", "num_frames", "wall_s", "created_at", "name", "recipe", "trajectory_name"]) {
      if (!(name in at)) continue;
      const option = make("option", "", name);
      option.value = name;
      $("sort").append(option);
    }
    $("sort").value = state.get("sort") in at ? state.get("sort") : "quality";
    ascending = state.get("order") === "up";
    $("search").value = state.get("q") || "";
    $("where").value = state.get("where") || "";
    page = Math.max(0, (parseInt(state.get("page"), 10) || 1) - 1);
    for (const [label, where] of site.examples) {
      const chip = make("button", "chip", label);
      chip.type = "button";
      chip.title = where;
      chip.addEventListener("click", () => { $("where").value = where; changed(); });
      $("chips").append(chip);
    }
    /* the first part is small: cards appear before the rest has come */
    site.parts.forEach(load);
    if (!site.parts.length) update();
  };

  window.lyraRows = (number, part) => {
    for (const row of part) {
      rows.push(row);
      haystacks.push(null);
    }
    update();
  };

  function haystack(i) {
    if (haystacks[i] === null) {
      haystacks[i] = columns.map((c, k) => (c.kind === "text" && rows[i][k] !== null ? rows[i][k] : "")).join("\n").toLowerCase();
    }
    return haystacks[i];
  }

  function update() {
    let holds;
    problem("");
    try { holds = window.parseWhere($("where").value, columns); } catch (error) { problem(error.message); return; }
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const key = at[$("sort").value], sign = ascending ? 1 : -1, text = columns[key].kind === "text";
    shown = [];
    for (let i = 0; i < rows.length; i++) {
      if (holds(rows[i]) && words.every((word) => haystack(i).includes(word))) shown.push(rows[i]);
    }
    shown.sort((a, b) => {
      const x = a[key], y = b[key];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (text ? (String(x) < String(y) ? -1 : x === y ? 0 : 1) : x - y) || (a[at.world_id] < b[at.world_id] ? -1 : 1);
    });
    $("direction").textContent = text ? (ascending ? "a to z" : "z to a") : ascending ? "least first" : "most first";
    draw();
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    if (rows.length === total) page = Math.min(page, pages - 1);
    const first = page * PAGE, some = shown.slice(first, first + PAGE);
    const all = total.toLocaleString("en");
    $("count").textContent = shown.length === total ? all + (total === 1 ? " world" : " worlds") : shown.length.toLocaleString("en") + " of " + all + " worlds";
    $("range").textContent = rows.length < total ? "loading " + rows.length.toLocaleString("en") + " of " + all : some.length ? first + 1 + "–" + (first + some.length) : "";
    $("grid").replaceChildren(...some.map(card));
    $("empty").hidden = some.length > 0 || rows.length < total;
    $("empty").textContent = total ? "No world matches. Take away a word or a condition." : "This catalog has no worlds yet.";
    $("page").textContent = "page " + (page + 1) + " of " + pages;
    $("previous").disabled = page === 0;
    $("next").disabled = page >= pages - 1;
    document.querySelector(".pages").hidden = pages === 1;
    const left = new URLSearchParams();
    if ($("search").value) left.set("q", $("search").value);
    if ($("where").value) left.set("where", $("where").value);
    if ($("sort").value !== "quality") left.set("sort", $("sort").value);
    if (ascending) left.set("order", "up");
    if (page) left.set("page", page + 1);
    try { history.replaceState(null, "", left.size ? "#" + left : location.pathname + location.search); } catch (error) { /* from the disk */ }
    document.documentElement.dataset.ready = rows.length === total ? "all" : "some";
  }

  const number = (value, digits, unit) => (value === null || value === undefined ? null : value.toFixed(digits) + unit);

  function card(row) {
    const value = (name) => (name in at ? row[at[name]] : null);
    const id = value("world_id"), folder = "w/" + id.slice(0, 2) + "/" + id + "/", video = row[columns.length], poster = row[columns.length + 1];
    const item = make("li"), link = make("a", "card"), shot = make("div", "shot");
    link.href = folder + "index.html";
    if (poster) {
      const upright = value("height") > value("width");
      if (upright) {
        shot.classList.add("upright");
        const behind = make("img", "blur");
        behind.src = folder + "poster.jpg"; behind.alt = ""; behind.loading = "lazy";
        shot.append(behind);
      }
      const image = make("img", "clear");
      image.src = folder + "poster.jpg"; image.loading = "lazy"; image.decoding = "async";
      image.alt = "";
      shot.append(image);
    } else shot.append(make("span", "none", "no picture"));
    const score = value("quality");
    if (score !== null) {
      const badge = make("span", "badge", String(Math.round(score)));
      badge.title = "quality, 0 to 100";
      shot.append(badge);
    }
    if (value("accepted") === false) {
      const badge = make("span", "badge fail", "not accepted");
      badge.title = value("reject_reasons") || "";
      shot.append(badge);
    }
    const body = make("div", "body");
    body.append(make("span", "name", value("name") || id.slice(0, 12)));
    body.append(make("span", "facts", [value("recipe"), value("trajectory_name")].filter(Boolean).join(" · ")));
    body.append(make("span", "facts", [number(value("psnr_db"), 1, " dB"), value("num_splats") && Math.round(value("num_splats") / 1000) + "k splats", value("output_license") || value("seed_license")].filter(Boolean).join(" · ")));
    link.append(shot, body);
    item.append(link);
    if (video) {
      let player = null;
      const start = () => {
        if (player) return;
        player = make("video", "clear");
        player.muted = true; player.loop = true; player.playsInline = true; player.preload = "auto"; player.src = video;
        player.addEventListener("playing", () => shot.append(player), { once: true });
        /* a video plays off the page too, and joins it when there is something to see */
        player.play().catch(() => {});
      };
      const stop = () => { if (player) { player.pause(); player.remove(); player.removeAttribute("src"); player.load(); player = null; } };
      link.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") start(); });
      link.addEventListener("pointerleave", stop);
      link.addEventListener("focus", () => { if (link.matches(":focus-visible")) start(); });
      link.addEventListener("blur", stop);
    }
    return item;
  }

  let waiting = 0;
  function changed() { page = 0; clearTimeout(waiting); waiting = setTimeout(update, 80); }
  function turn(by) { page = Math.max(0, page + by); draw(); scrollTo(0, 0); }
  $("search").addEventListener("input", changed);
  $("where").addEventListener("input", changed);
  $("sort").addEventListener("change", () => { ascending = columns[at[$("sort").value]].kind === "text"; changed(); });
  $("direction").addEventListener("click", () => { ascending = !ascending; changed(); });
  $("tools").addEventListener("submit", (event) => { event.preventDefault(); update(); });
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); $("search").focus(); $("search").select(); return; }
    if (event.key === "Escape" && typing) { event.target.blur(); return; }
    if (typing) return;
    if (event.key === "[" && !$("previous").disabled) turn(-1);
    if (event.key === "]" && !$("next").disabled) turn(1);
    const cards = Array.from($("grid").querySelectorAll("a.card"));
    if (!cards.length || !event.key.startsWith("Arrow")) return;
    const here = cards.indexOf(document.activeElement);
    const top = cards[0].getBoundingClientRect().top;
    const across = Math.max(1, cards.findIndex((c) => c.getBoundingClientRect().top > top + 4));
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    const next = here < 0 ? 0 : Math.min(cards.length - 1, Math.max(0, here + step));
    event.preventDefault();
    cards[next].focus();
    cards[next].scrollIntoView({ block: "nearest" });
  });

  load("data/site.js");
})();
