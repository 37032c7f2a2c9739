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
})();
