// What happens while a page is open: connection states, refusals and telemetry, as the hub tells of them.
// Whatever a device says is put on the page as text, never as markup.
(function () {
  "use strict";

  var ROWS_MAX = 200;
  var source = null;
  var url = null;
  var paused = false;
  var counts = { messages: 0, lost: 0 };

  function all(selector) { return Array.prototype.slice.call(document.querySelectorAll(selector)); }

  function say(text) {
    all("[data-live-status]").forEach(function (place) {
      place.textContent = text;
      place.classList.toggle("good", text === "live");
    });
  }

  // One connection a page, and none of a page that nobody sees: browsers open few to one host.
  function connect() {
    var place = document.querySelector("[data-live]");
    var wanted = place && !document.hidden ? place.dataset.live : null;
    if (wanted === url) return;
    if (source) source.close();
    source = null;
    url = wanted;
    if (!wanted) return;
    say("connecting");
    source = new EventSource(wanted);
    source.addEventListener("open", function () { say(paused ? "paused" : "live"); });
    source.addEventListener("error", function () {
      var ended = source.readyState === EventSource.CLOSED;
      say(ended ? "ended; load the page again" : "connecting");
    });
    source.addEventListener("state", function (event) { state(JSON.parse(event.data)); });
    source.addEventListener("refused", function (event) { refused(JSON.parse(event.data)); });
    source.addEventListener("telemetry", function (event) { telemetry(JSON.parse(event.data)); });
  }

  function state(told) {
    var id = told.module === null ? told.device : told.device + "/" + told.module;
    all("[data-connection-of]").forEach(function (place) {
      if (place.dataset.connectionOf !== id) return;
      var chip = place.querySelector(".chip");
      chip.textContent = told.connected ? "Connected" : "Disconnected";
      chip.classList.toggle("good", told.connected);
    });
  }

  function refused(told) {
    all("[data-live-refused]").forEach(function (place) {
      place.textContent = "Refused just now: " + told.reason + " (from " + told.peer + ")";
      place.hidden = false;
    });
  }

  function count() {
    all("[data-live-count]").forEach(function (place) {
      place.textContent = counts.messages + (counts.messages === 1 ? " message" : " messages")
        + (counts.lost ? ", " + counts.lost + " missed because they came faster than this page reads" : "");
    });
  }

  function telemetry(told) {
    counts.messages += 1;
    counts.lost += told.lost;
    count();
    if (paused) return;
    var list = document.querySelector("[data-live-messages]");
    var template = document.getElementById("live-message");
    if (!list || !template) return;
    var row = template.content.cloneNode(true);
    function put(name, text) { row.querySelector("[data-field='" + name + "']").textContent = text; }
    put("time", told.time.replace("T", " ").replace(/(\.\d{3})\d*Z$/, "$1"));
    put("sender", told.module === null ? "" : "module " + told.module);
    put("size", told.bytes + " B" + (told.isText ? "" : ", not text") + (told.isCut ? ", cut" : ""));
    put("properties", told.properties.map(function (pair) { return pair[0] + "=" + pair[1]; }).join("  "));
    put("body", told.body);
    list.prepend(row);
    while (list.children.length > ROWS_MAX) list.lastElementChild.remove();
    all("[data-live-empty]").forEach(function (place) { place.hidden = true; });
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-live-pause], [data-live-clear]");
    if (!button) return;
    if ("livePause" in button.dataset) {
      paused = !paused;
      button.textContent = paused ? "Go on" : "Pause";
      say(paused ? "paused" : "live");
    } else {
      all("[data-live-messages]").forEach(function (list) { list.replaceChildren(); });
      counts = { messages: 0, lost: 0 };
      count();
    }
  });
  document.addEventListener("visibilitychange", connect);
  document.addEventListener("htmx:afterSettle", connect);
  window.addEventListener("pagehide", function () { if (source) source.close(); source = null; url = null; });
  window.addEventListener("pageshow", connect);
})();
