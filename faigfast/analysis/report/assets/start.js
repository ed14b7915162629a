"use strict";
// Start every part of the page; a failure in one is thrown after the others have started.
{
  const failures = [];
  const start = (selector, action) => {
    for (const part of document.querySelectorAll(selector)) {
      try { action(part); } catch (failure) { failures.push(failure); }
    }
  };
  const browsers = [];
  document.documentElement.classList.add("ready");
  startContents();
  start("main table", startTable);
  start("figure.chart", startChart);
  start(".scene", startScene);
  start(".dial", startDial);
  start(".browser", (part) => browsers.push(startBrowser(part)));
  startTheme(() => browsers.forEach((redraw) => redraw()));
  if (failures.length) throw failures[0];
  document.documentElement.dataset.ready = "yes";
}
