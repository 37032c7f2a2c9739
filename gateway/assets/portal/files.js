// A text field takes the text of a file that is dropped on it.
(function () {
  "use strict";

  function field(event) {
    var place = event.target.closest && event.target.closest("[data-file-text]");
    return place && event.dataTransfer && Array.from(event.dataTransfer.types).includes("Files") ? place : null;
  }

  document.addEventListener("dragover", function (event) {
    if (field(event)) event.preventDefault();
  });
  document.addEventListener("drop", function (event) {
    var place = field(event);
    if (!place) return;
    event.preventDefault();
    event.dataTransfer.files[0].text().then(function (text) {
      place.value = text;
      place.dispatchEvent(new Event("input", { bubbles: true }));
    });
  });
})();
