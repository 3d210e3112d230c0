// Light or dark: as the system has it, unless somebody chose.

const KEY = "streamer.theme";

export function keepTheme(select) {
  const apply = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  try {
    select.value = localStorage.getItem(KEY) ?? "";
  } catch {
    // storage may be forbidden: the choice lasts as long as the page
  }
  apply(select.value);
  select.addEventListener("change", () => {
    apply(select.value);
    try {
      localStorage.setItem(KEY, select.value);
    } catch {
      // see above
    }
  });
}
