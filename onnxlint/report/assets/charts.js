for (const place of document.querySelectorAll("[data-spec]")) {
  // The interpreter (ast) evaluates Vega's expressions: the page's policy forbids eval.
  vegaEmbed(place, JSON.parse(place.dataset.spec), {
    actions: false,
    ast: true,
    renderer: "svg",
    tooltip: {theme: "custom", disableDefaultStyle: true},
  });
}
