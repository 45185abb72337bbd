"use strict";
(() => {
  const $ = (name, from = document) => from.querySelector(`[data-el="${name}"]`);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const gallery = $("gallery");
  const cards = () => (gallery ? [...gallery.children] : []);
  const shown = () => cards().filter((card) => !card.hidden);
  const isLive = document.body.dataset.live !== undefined;
  const sources = new Map();

  // Theme: the system's, or one of two, remembered where the browser lets us.
  const THEMES = ["system", "light", "dark"];
  const theme = $("theme");
  const setTheme = (name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.textContent = `Theme: ${name}`;
    theme.setAttribute("aria-label", `Colour theme: ${name === "system" ? "as the system" : name}`);
  };
  const remembered = () => { try { return localStorage.getItem("vlmteach-theme"); } catch { return null; } };
  const nextTheme = () => {
    const now = document.documentElement.dataset.theme || "system";
    const name = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    setTheme(name);
    try { localStorage.setItem("vlmteach-theme", name); } catch { /* a page off the disk may not */ }
  };
  if (THEMES.includes(remembered())) setTheme(remembered());
  theme.addEventListener("click", nextTheme);

  // Clips: made when they come near, all of a card at the same time, let go when far away. A
  // video's own controls are dozens of nodes, hidden or not.
  const videos = (card) => all("video", card);
  const ready = (card) => videos(card).filter((video) => video.readyState > 0);
  const share = (card) => Number($("time", card)?.value ?? 1000) / 1000;
  const seek = (video, part) => {
    video.currentTime = Math.min(part * video.duration, Math.max(0, video.duration - 0.001));
  };
  const place = (card) => { for (const video of ready(card)) seek(video, share(card)); };
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) attach(target);
      else detach(target);
    }
  }, { rootMargin: "400px" });
  const attach = (card) => {
    for (const screen of all("[data-video]", card)) {
      if (screen.querySelector("video")) continue;
      const video = document.createElement("video");
      Object.assign(video, { muted: true, playsInline: true, preload: "auto", tabIndex: -1, src: screen.dataset.video });
      video.setAttribute("aria-label", screen.dataset.told);
      screen.append(video);
    }
  };
  const detach = (card) => {
    pause(card);
    for (const video of videos(card)) {
      video.removeAttribute("src");
      video.load(); // lets go of the file and the decoder
      video.remove();
    }
  };
  document.addEventListener("loadedmetadata", ({ target }) => {
    const card = target.closest("[data-card]");
    target.classList.toggle("pixels", Math.min(target.videoWidth, target.videoHeight) < 128);
    target.closest(".screen").classList.remove("broken");
    seek(target, share(card));
  }, true);
  document.addEventListener("error", ({ target }) => {
    if (target instanceof HTMLVideoElement && target.src) target.closest(".screen").classList.add("broken");
  }, true);
  document.addEventListener("load", ({ target }) => {
    if (target instanceof HTMLImageElement && target.naturalWidth < 128) target.classList.add("pixels");
  }, true);
  for (const image of all("img")) if (image.complete && image.naturalWidth && image.naturalWidth < 128) image.classList.add("pixels");

  let playing = null;
  const pressed = (card, on) => $("play", card)?.setAttribute("aria-pressed", String(on));
  const pause = (card) => {
    if (playing !== card) return;
    playing = null;
    for (const video of videos(card)) video.pause();
    const [lead] = ready(card).slice(-1);
    if (lead) for (const video of ready(card)) video.currentTime = lead.currentTime;
    pressed(card, false);
  };
  const play = async (card) => {
    if (playing) pause(playing);
    attach(card);
    playing = card;
    pressed(card, true);
    await start(card, share(card) > 0.98 ? 0 : share(card));
    requestAnimationFrame(follow);
  };
  const start = async (card, part) => {
    for (const video of ready(card)) seek(video, part);
    await Promise.allSettled(videos(card).map((video) => video.play()));
  };
  const follow = async () => {
    const card = playing;
    if (!card) return;
    const clips = ready(card);
    const lead = clips[clips.length - 1];
    if (lead) {
      $("time", card).value = String(Math.round(1000 * lead.currentTime / lead.duration));
      for (const video of clips) {
        if (video !== lead && !video.ended && Math.abs(video.currentTime - lead.currentTime) > 0.08) video.currentTime = lead.currentTime;
      }
      if (clips.every((video) => video.ended)) {
        if (calm.matches) { pause(card); return; }
        await start(card, 0);
      }
    }
    requestAnimationFrame(follow);
  };

  // One instance: opened, and scrubbed through update by update.
  // What is folded up stands in a <noscript>: markup for a browser without scripts, and one text,
  // read in no time, for the others. It is the page's own: strangers' words are escaped in it.
  const own = globalThis.trustedTypes?.createPolicy("vlmteach", { createHTML: (text) => text });
  const unfold = (more) => {
    const folded = more.querySelector("noscript");
    if (!folded) return;
    if (folded.firstElementChild) { folded.replaceWith(...folded.childNodes); return; }
    const holder = document.createElement("template");
    holder.innerHTML = own ? own.createHTML(folded.textContent) : folded.textContent;
    folded.replaceWith(holder.content);
  };
  const open = (card, on = true) => {
    const more = $("more", card);
    if (!more) return;
    if (on) unfold(more);
    more.open = on;
  };
  const point = (card) => { try { history.replaceState(null, "", card ? `#${encodeURIComponent(card.dataset.key)}` : "#"); } catch { /* about:srcdoc */ } };
  const update = (card) => {
    const range = $("update", card);
    if (!range) return;
    const n = Number(range.value);
    const step = range.dataset.steps.split(" ")[n];
    $("step", card).textContent = step;
    range.setAttribute("aria-valuetext", `update ${step}`);
    const at = $("at", card);
    if (at) at.textContent = step;
    for (const p of all("[data-p]", card)) p.textContent = p.dataset.p.split(" ")[n];
    const x = $("more", card).dataset.places.split(" ")[n];
    for (const cursor of all(".cursor", card)) cursor.setAttribute("transform", `translate(${x})`);
    const strip = $("strip", card);
    if (strip) {
      const rows = strip.dataset.rows.split(" ").map(Number);
      const row = rows.filter((kept) => kept <= Number(step)).length - 1;
      strip.querySelector("image").setAttribute("y", String(-Math.max(row, 0) * Number(strip.dataset.height)));
    }
  };
  document.addEventListener("toggle", ({ target }) => {
    if (target.dataset?.el === "table" && target.querySelector("noscript")) { unfold(target); sort(); sift(); }
    if (!target.matches?.('[data-el="more"]')) return;
    const card = target.closest("[data-card]");
    card.classList.toggle("open", target.open);
    if (!target.open) return;
    unfold(target);
    for (const image of all("[data-href]", card)) image.setAttribute("href", image.dataset.href);
    for (const image of all("img[data-src]", card)) image.src = image.dataset.src;
    if (card.contains(document.activeElement)) point(card);
  }, true);
  document.addEventListener("input", ({ target }) => {
    const card = target.closest?.("[data-card]");
    if (!card) return;
    if (target.dataset.el === "time") { if (playing === card) pause(card); attach(card); place(card); }
    if (target.dataset.el === "update") update(card);
  });
  document.addEventListener("click", ({ target }) => {
    const card = target.closest("[data-card]");
    const button = target.closest("button");
    if (card && button?.dataset.el === "play") { if (playing === card) pause(card); else play(card); }
    if (button?.dataset.filter) {
      const select = document.querySelector('[data-facet="outcome"]');
      select.value = button.dataset.filter;
      sift();
      select.scrollIntoView({ block: "start" });
    }
    if (button?.dataset.el === "reset") { $("filters").reset(); sift(); }
  });
  const named = () => {
    let key = location.hash.slice(1);
    try { key = decodeURIComponent(key); } catch { /* as it stands */ }
    return key && cards().find((card) => card.dataset.key === key);
  };
  const goTo = (card) => {
    if (card.hidden) { $("filters").reset(); sift(); }
    open(card);
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
  };
  const follows = () => { const card = named(); if (card) goTo(card); };
  addEventListener("hashchange", follows);

  // Filters and order; the table follows.
  const ORDERS = {
    key: null, gain: ["gain", -1], "gain-up": ["gain", 1], loss: ["loss", 1],
    score: ["score", -1], updates: ["updates", -1], seconds: ["seconds", -1], spread: ["spread", -1],
  };
  const number = (card, name) => (card.dataset[name] ? Number(card.dataset[name]) : null);
  const sift = () => {
    const text = $("search").value.trim().toLowerCase();
    const facets = all("[data-facet]").filter((select) => select.value);
    const rows = new Map(all("[data-row]").map((row) => [row.dataset.row, row]));
    let count = 0;
    for (const card of cards()) {
      const fits = facets.every((select) => (card.dataset[select.dataset.facet] || "").split("\u001f").includes(select.value))
        && (!text || `${card.dataset.key} ${card.querySelector(".prompt")?.textContent ?? ""}`.toLowerCase().includes(text));
      if (card.hidden === fits) card.hidden = !fits;
      const row = rows.get(card.dataset.key);
      if (row) row.hidden = !fits;
      count += fits;
    }
    $("count").textContent = `${count} of ${cards().length}`;
    $("none").hidden = count > 0 || cards().length === 0;
  };
  const sort = () => {
    const order = ORDERS[$("sort").value];
    const byKey = (a, b) => (a.dataset.key < b.dataset.key ? -1 : a.dataset.key > b.dataset.key ? 1 : 0);
    const sorted = cards().sort((a, b) => {
      if (!order) return byKey(a, b);
      const [x, y] = [number(a, order[0]), number(b, order[0])];
      if (x === null || y === null) return x === y ? byKey(a, b) : x === null ? 1 : -1;
      return (x - y) * order[1] || byKey(a, b);
    });
    gallery.append(...sorted);
    const rows = new Map(all("[data-row]").map((row) => [row.dataset.row, row]));
    for (const card of sorted) { const row = rows.get(card.dataset.key); if (row) row.parentNode.append(row); }
  };
  document.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("input", ({ target }) => { if (target.dataset.el === "search" || target.dataset.facet) sift(); });
  document.addEventListener("change", ({ target }) => { if (target.dataset.el === "sort") sort(); if (target.dataset.facet) sift(); });

  // Keys.
  let current = null;
  document.addEventListener("focusin", ({ target }) => { current = target.closest("[data-card]") ?? current; });
  const step = (by) => {
    const list = shown();
    const at = list.indexOf(current);
    const next = list[at < 0 ? (by > 0 ? 0 : list.length - 1) : Math.min(Math.max(at + by, 0), list.length - 1)];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
    if (location.hash.length > 1) point(next);
  };
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const writes = target.matches("input:not([type=range]), select, textarea");
    if (key === "Escape") {
      if (writes) target.blur();
      else if (current) { open(current, false); point(null); current.focus(); }
      return;
    }
    if (writes) return;
    const keys = {
      j: () => step(1), k: () => step(-1), t: nextTheme,
      o: () => { if (current) { const more = $("more", current); if (more) { more.open = !more.open; point(more.open ? current : null); } } },
      "/": () => $("search").focus(),
    };
    if (!target.matches("button, summary, a, input")) {
      keys[" "] = () => { if (current && $("play", current)) { if (playing === current) pause(current); else play(current); } };
      for (const [arrow, by] of [["ArrowLeft", -1], ["ArrowRight", 1]]) {
        keys[arrow] = () => { const range = current && $("update", current); if (range) { range.value = String(Number(range.value) + by); update(current); } };
      }
      if (!current) { delete keys[" "]; delete keys.ArrowLeft; delete keys.ArrowRight; }
    }
    if (Object.hasOwn(keys, key)) { event.preventDefault(); keys[key](); }
  });

  // Live: what the server has new takes the place of what stands here.
  const renew = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const parts = new Map(all("[data-part]", fresh).map((part) => [part.dataset.part, part]));
    for (const part of all("[data-part]")) {
      const other = parts.get(part.dataset.part);
      if (!other || other.outerHTML === part.outerHTML) continue;
      if (part.open) { unfold(other); other.open = true; }
      part.replaceWith(document.adoptNode(other));
    }
    const form = $("filters"), other = $("filters", fresh);
    if (form && other && !form.contains(document.activeElement)) {
      const values = all("select, input", form).map((field) => [field.dataset.facet ?? field.dataset.el, field.value]);
      form.replaceWith(document.adoptNode(other));
      for (const [name, value] of values) {
        const field = all("select, input", $("filters")).find((each) => (each.dataset.facet ?? each.dataset.el) === name);
        if (field) field.value = value;
      }
    }
    const byId = new Map(cards().map((card) => [card.id, card]));
    for (const card of [...($("gallery", fresh)?.children ?? [])]) {
      const source = card.outerHTML;
      const known = sources.get(card.id);
      const before = byId.get(card.id);
      sources.set(card.id, source);
      // What the page began with was never sent to here: its state tells whether it is the same.
      const isSame = ["outcome", "score", "gain"].every((name) => before?.dataset[name] === card.dataset[name]);
      if (known === source || (known === undefined && before && isSame)) continue;
      const mine = document.adoptNode(card);
      if (before) {
        const wasOpen = $("more", before)?.open;
        near.unobserve(before);
        before.replaceWith(mine);
        if (current === before) current = mine;
        if (wasOpen) open(mine);
      } else gallery.append(mine);
      near.observe(mine);
    }
    sort();
    sift();
  };
  if (isLive) {
    let last = null;
    const status = document.querySelector(".live");
    const ask = async () => {
      try {
        const answer = await fetch(location.pathname, { cache: "no-cache" });
        const tag = answer.headers.get("etag");
        if (answer.ok && tag !== last) { renew(await answer.text()); last = tag; }
        status.textContent = "live";
      } catch { status.textContent = "the server has ended"; }
      setTimeout(ask, 2000);
    };
    setTimeout(ask, 1000);
  }

  for (const card of cards()) near.observe(card);
  // A browser may have kept what stood in the filters when the page was left.
  if (gallery && $("sort").value !== "key") sort();
  if (gallery && all("[data-facet], [data-el=search]").some((field) => field.value)) sift();
  follows();
})();
