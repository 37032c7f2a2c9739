// What the portal's pages do better with a script than without; each works without it too.
(function () {
  "use strict";

  function toast(text) {
    var place = document.getElementById("toasts");
    if (!place) return;
    var note = document.createElement("p");
    note.className = "toast";
    note.textContent = text;
    place.append(note);
    setTimeout(function () { note.remove(); }, 6000);
  }

  // What the hub refuses to a script is told in a corner.
  document.addEventListener("htmx:responseError", function (event) {
    var page = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
    toast(page.body.textContent.trim() || "The hub answered " + event.detail.xhr.status + ".");
  });
  document.addEventListener("htmx:sendError", function () { toast("The hub cannot be reached."); });

  // The address of a list says what was asked for, and nothing of what was not.
  document.addEventListener("htmx:configRequest", function (event) {
    if (event.detail.verb !== "get") return;
    var said = event.detail.formData;
    Array.from(said.keys()).forEach(function (name) {
      if (said.get(name) === "") said.delete(name);
    });
  });

  // Copies what another element shows or holds.
  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-copy]");
    if (!button) return;
    var source = document.getElementById(button.dataset.copy);
    if (!source) return;
    var text = "value" in source ? source.value : source.textContent;
    navigator.clipboard.writeText(text).then(
      function () { toast("Copied."); },
      function () { toast("The browser does not allow copying. Select the text and copy it."); });
  });

  // A list with boxes to tick: all at once, how many, and no deeds without one.
  function countTicks() {
    document.querySelectorAll("form").forEach(function (form) {
      var boxes = form.querySelectorAll('input[type="checkbox"][name="id"]');
      var all = form.querySelector("[data-tick-all]");
      if (!all || !boxes.length) return;
      var ticked = Array.prototype.filter.call(boxes, function (box) { return box.checked; }).length;
      all.hidden = false;
      all.checked = ticked === boxes.length;
      all.indeterminate = ticked > 0 && ticked < boxes.length;
      form.querySelectorAll("[data-needs-ticks]").forEach(function (button) { button.disabled = ticked === 0; });
      var told = form.querySelector("[data-ticked]");
      if (told) told.textContent = ticked ? ticked + " selected" : "";
    });
  }
  document.addEventListener("change", function (event) {
    if (event.target.matches("[data-tick-all]")) {
      event.target.form.querySelectorAll('input[type="checkbox"][name="id"]').forEach(function (box) {
        box.checked = event.target.checked;
      });
    }
    countTicks();
  });

  // A certificate from a file, chosen or dropped, goes into its field as text.
  function readInto(field, file) {
    if (file.size > 262144) { toast("This file is too large to be a certificate."); return; }
    file.text().then(function (text) {
      field.value = text;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    });
  }
  document.addEventListener("change", function (event) {
    var into = event.target.dataset && event.target.dataset.fileInto;
    var field = into && document.getElementById(into);
    if (field && event.target.files.length) readInto(field, event.target.files[0]);
  });
  ["dragover", "dragleave", "drop"].forEach(function (kind) {
    document.addEventListener(kind, function (event) {
      var field = event.target.closest && event.target.closest("[data-drop]");
      if (!field) return;
      event.preventDefault();
      field.classList.toggle("dropping", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) readInto(field, event.dataTransfer.files[0]);
    });
  });

  // Rows of a form, one more at a time.
  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-add-row]");
    if (!button) return;
    var rows = button.parentElement.querySelector("[data-rows]");
    var row = rows.lastElementChild.cloneNode(true);
    row.querySelectorAll("input").forEach(function (input) { input.value = ""; });
    rows.append(row);
    row.querySelector("input").focus();
  });

  // What cannot be undone is asked for once more.
  document.addEventListener("submit", function (event) {
    var button = event.submitter;
    if (button && button.dataset.confirm && !window.confirm(button.dataset.confirm)) event.preventDefault();
  });

  // What only works with a script is shown by it.
  function enliven() {
    document.querySelectorAll("[data-add-row]").forEach(function (button) { button.hidden = false; });
    document.querySelectorAll("[data-file-into]").forEach(function (input) { input.hidden = false; });
    countTicks();
  }
  document.addEventListener("htmx:afterSettle", enliven);
  enliven();
})();
