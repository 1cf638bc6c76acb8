// The page: controls, what follows of them, and what is seen.

function begin(section, page) {
  const numbers = readNumbers(page.numbers);
  const controls = {};
  const follow = following(section, page, numbers, controls);
  const made = (kinds, declared, ...more) => ({
    ...declared,
    ...kinds[declared.kind](declared, numbers, ...more),
  });
  for (const declared of page.controls) {
    controls[declared.name] = made(CONTROLS, declared, follow.moved);
  }
  follow.shows = page.shows.map((declared) => made(SHOWS, declared));
  const boxes = (wanted) =>
    Object.values(controls).filter(({ kind }) => kind === wanted).map(({ box }) => box);
  const shown = element("div", { class: "live-shows" }, ...follow.shows.map(({ box }) => box));
  section.append(
    element("div", { class: "live-top" }, ...boxes("picture"), shown),
    ...boxes("choice"),
    ...boxes("sliders"),
  );
  follow.now(Object.keys(controls));
  section.append(verdict(section, page, numbers));
}

// Return `moved(name)`, after which all follows at the next frame, and `now(names)`.
function following(section, page, numbers, controls) {
  const values = {};
  const changed = new Set();
  let isWaiting = false;

  // Take the steps that follow from what has changed, and draw what has.
  function now(names) {
    const began = performance.now();
    for (const name of names) values[name] = controls[name].value();
    const fresh = new Set(names);
    for (const step of page.steps) {
      if (!step.takes.some((name) => fresh.has(name))) continue;
      const results = run(step, numbers, step.takes.map((name) => values[name]));
      step.gives.forEach((name, i) => {
        values[name] = results[i];
        controls[name]?.show(results[i]);
        fresh.add(name);
      });
    }
    for (const { name, show } of follow.shows) if (fresh.has(name)) show(values[name]);
    section.dataset.milliseconds = (performance.now() - began).toFixed(1);
    section.dispatchEvent(new CustomEvent("followed", { detail: values }));
  }

  function moved(name) {
    changed.add(name);
    // Several moves before a frame are one.
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      const names = [...changed];
      changed.clear();
      isWaiting = false;
      now(names);
    });
  }

  const follow = { now, moved, shows: [] };
  return follow;
}

// Check the page, and say what came of it.
function verdict(section, page, numbers) {
  const { differences, count } = check(page, numbers);
  const difference = Math.max(...differences);
  const agrees = difference <= page.tolerance;
  section.dataset.difference = difference;
  section.dataset.differences = JSON.stringify(differences);
  section.dataset.agrees = agrees;
  const said = agrees
    ? "Computed in this page, and checked as it opened: the largest difference from PyTorch is"
    : "Do not trust this part: it differs from PyTorch by";
  const far = `${difference.toExponential(1)} in ${count.toLocaleString("en")} numbers`;
  const names = agrees ? "live-status" : "live-status live-wrong";
  return element("p", { class: names, role: "status" }, `${said} ${far}.`);
}

begin(
  document.getElementById("live"),
  JSON.parse(document.getElementById("live-data").textContent),
);
