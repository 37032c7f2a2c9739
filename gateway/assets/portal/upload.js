// A file goes up as it is, and the page goes on to where the hub says it is dealt with.
(function () {
  "use strict";

  document.addEventListener("submit", function (event) {
    var form = event.target;
    if (!form.dataset.upload) return;
    event.preventDefault();
    var file = form.querySelector('input[type="file"]').files[0];
    var bar = form.querySelector("[data-upload-progress]");
    var failure = form.querySelector("[data-upload-error]");
    var button = form.querySelector('button[type="submit"]');
    var ticked = Array.prototype.filter.call(form.querySelectorAll('input[type="checkbox"]'), function (box) {
      return box.checked;
    });
    var query = ticked.map(function (box) { return box.name + "=yes"; }).join("&");
    var request = new XMLHttpRequest();
    function failed(text) {
      failure.textContent = text;
      failure.hidden = false;
      bar.hidden = true;
      button.disabled = false;
    }
    request.open("POST", form.dataset.upload + (query ? "?" + query : ""));
    var token = JSON.parse(document.body.getAttribute("hx-headers"));
    Object.keys(token).forEach(function (name) { request.setRequestHeader(name, token[name]); });
    request.setRequestHeader("HX-Request", "true");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", function (progress) {
      bar.value = progress.lengthComputable ? 100 * progress.loaded / progress.total : 0;
    });
    request.addEventListener("load", function () {
      var next = request.getResponseHeader("Location") || request.getResponseHeader("HX-Redirect");
      if (next) { location.assign(next); return; }
      var page = new DOMParser().parseFromString(request.responseText, "text/html");
      failed(page.body.textContent.trim() || "The hub answered " + request.status + ".");
    });
    request.addEventListener("error", function () { failed("The upload broke off."); });
    failure.hidden = true;
    bar.hidden = false;
    button.disabled = true;
    request.send(file);
  });
})();
