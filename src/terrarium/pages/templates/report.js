// Replaces each drawn chart by the same one with tooltips, fitted to the page's width.
// The page is complete without it.
(() => {
  "use strict";

  // As terrarium.figures.layout.sized: panels wrap and the legend breaks its line.
  function sized(spec, width) {
    const meta = spec.usermeta && spec.usermeta.terrarium;
    if (!meta) return spec;
    const fitted = { ...spec, config: { ...spec.config } };
    width = Math.min(width, meta.widest);
    const limit = Math.min(260, Math.round(0.34 * width));
    fitted.config.axis = { ...spec.config.axis, labelLimit: limit };
    if (meta.legend) {
      const columns = Math.max(1, Math.floor(width / (meta.legend * 7 + 36)));
      fitted.config.legend = { ...spec.config.legend, columns };
    }
    if (!spec.facet) {
      fitted.width = width;
      fitted.autosize = { type: "fit-x", contains: "padding" };
      return fitted;
    }
    const room = width - meta.margin - Math.min(limit, 7 * meta.labels);
    const columns = Math.max(
      1, Math.min(meta.columns, meta.panels, Math.floor(room / meta.least)));
    const child = Math.max(80, Math.round((room - meta.gap * (columns - 1)) / columns));
    fitted.columns = columns;
    fitted.spec = { ...spec.spec, width: child };
    return fitted;
  }

  const options = {
    mode: "vega-lite", renderer: "svg", actions: false,
    tooltip: { disableDefaultStyle: true },
  };

  async function embed(holder, spec) {
    const box = document.createElement("div");
    box.style.cssText = "position:absolute;visibility:hidden;left:-99999px;top:0";
    document.body.append(box);
    const result = await vegaEmbed(box, spec, options);
    const svg = box.querySelector("svg");
    const drawn = svg ? Number(svg.getAttribute("width")) : 0;
    return { box, result, drawn };
  }

  async function draw(holder, spec, state) {
    const width = Math.floor(holder.clientWidth);
    if (width < 50 || width === state.width) return;
    state.width = width;
    let fitted = sized(spec, width);
    let made = await embed(holder, fitted);
    const extra = made.drawn - width;
    if (fitted.facet && extra > 0) {
      // Axis labels took more than was set aside for them: give the panels that much less.
      const child = Math.max(60, fitted.spec.width - Math.ceil(extra / fitted.columns));
      fitted = { ...fitted, spec: { ...fitted.spec, width: child } };
      made.result.finalize();
      made.box.remove();
      made = await embed(holder, fitted);
    }
    if (state.width !== width) { made.result.finalize(); made.box.remove(); return; }
    made.box.removeAttribute("style");
    if (state.result) state.result.finalize();
    state.result = made.result;
    holder.replaceChildren(made.box);
    holder.dataset.drawn = String(width);
  }

  for (const holder of document.querySelectorAll("[data-figure]")) {
    const source = document.querySelector(`script[data-spec="${holder.dataset.figure}"]`);
    const spec = JSON.parse(source.textContent);
    const state = {};
    let timer = 0;
    const again = () => draw(holder, spec, state);
    again();
    new ResizeObserver(() => { clearTimeout(timer); timer = setTimeout(again, 150); }).observe(holder);
  }
})();
