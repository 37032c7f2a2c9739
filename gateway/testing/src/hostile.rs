//! Texts that a page must not take for anything but text.

/// What somebody may have written to have a browser run it.
pub fn hostile_texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "<script>alert(1)</script>",
        "\"><script>alert(1)</script>",
        "'><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg onload=alert(1)>",
        "\" onmouseover=\"alert(1)",
        "' onfocus='alert(1)",
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "{{constructor.constructor('alert(1)')()}}",
        "${alert(1)}",
        "#{alert(1)}",
        "<%= alert(1) %>",
        "</title><script>alert(1)</script>",
        "</textarea><script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        "--><script>alert(1)</script>",
        "]]><script>alert(1)</script>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&#60;script&#62;",
        "\u{2028}alert(1)\u{2029}",
        "\u{202e}txt.exe",
        "<iframe src=javascript:alert(1)>",
        "<a href=javascript:alert(1)>x</a>",
        "<style>*{display:none}</style>",
        "<meta http-equiv=refresh content=0;url=//evil>",
        "<base href=//evil>",
        "<form action=//evil><button>",
        "<div hx-get=/portal>",
        "<b data-copy=x>",
        "`alert(1)`",
        "\\\"; alert(1); //",
        "\u{0}\u{1}\u{7f}",
        "<!--",
        "*/alert(1)/*",
    ]
    .map(str::to_owned)
    .to_vec();
    for event in [
        "onclick",
        "onload",
        "onerror",
        "onfocus",
        "onanimationstart",
        "onmouseover",
        "onpointerenter",
        "onbegin",
        "ontoggle",
        "onhashchange",
        "onwheel",
        "oncopy",
        "onpaste",
        "onbeforetoggle",
        "onscroll",
        "onkeydown",
        "onsubmit",
        "onchange",
        "hx-on:click",
        "hx-vals",
        "hx-get",
        "hx-trigger",
    ] {
        texts.push(format!("<x {event}=alert(1)>"));
        texts.push(format!("\" {event}=alert(1) x=\""));
        texts.push(format!("'/{event}=alert(1)/'"));
    }
    texts
}
