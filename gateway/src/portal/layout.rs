//! The frame of every page: head, navigation, notices, and the page's own content.

use axum::http::StatusCode;
use maud::{DOCTYPE, Markup, html};
use portcullis_registry::policy::Rights;

use super::assets::Asset;
use super::paths;
use super::sign_in::NoticeKind;
use super::visit::Visit;

/// A part of the portal with an entry in the navigation. To add one: a variant, and a line in `ALL` and in `place`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Overview,
    Devices,
    Policies,
    Authorities,
    Jobs,
    Audit,
}

impl Section {
    const ALL: [Section; 6] = [
        Section::Overview,
        Section::Devices,
        Section::Policies,
        Section::Authorities,
        Section::Jobs,
        Section::Audit,
    ];

    /// Its name, its path, and the rights that it needs.
    fn place(self) -> (&'static str, &'static str, Option<Rights>) {
        match self {
            Section::Overview => ("Overview", paths::HOME, None),
            Section::Devices => ("Devices", paths::DEVICES, Some(Rights::REGISTRY_READ)),
            Section::Policies => ("Policies", paths::POLICIES, Some(Rights::ALL)),
            Section::Authorities => ("CAs", paths::AUTHORITIES, Some(Rights::REGISTRY_READ)),
            Section::Jobs => ("Jobs", paths::JOBS, Some(Rights::REGISTRY_READ)),
            Section::Audit => ("Audit log", paths::AUDIT, Some(Rights::ALL)),
        }
    }
}

/// A page for a signed-in caller. `content` begins with its `h1`.
pub(super) fn page(visit: &Visit, section: Section, title: &str, content: Markup) -> Markup {
    frame(visit, Some(section), title, content)
}

/// A page that says what was refused, and why.
pub(super) fn refusal(visit: &Visit, status: StatusCode, text: &str) -> Markup {
    frame(visit, None, heading(status), refused(status, text))
}

/// The same for a caller who is not signed in.
pub(super) fn refusal_to_stranger(status: StatusCode, text: &str) -> Markup {
    for_strangers(heading(status), refused(status, text))
}

/// The same in one line, which a script shows in place.
pub(super) fn notice(text: &str) -> Markup {
    html! { p.notice.failed role="alert" { (text) } }
}

/// A page for a caller who is not signed in.
pub(super) fn for_strangers(title: &str, content: Markup) -> Markup {
    let body = html! {
        body.narrow {
            main.card { p.brand { img src=(Asset::Icon.path()) alt=""; "Portcullis" } (content) }
        }
    };
    document(title, body)
}

fn frame(visit: &Visit, section: Option<Section>, title: &str, content: Markup) -> Markup {
    let hub = visit.hub();
    let body = html! {
        body hx-headers=(visit.token().headers()) {
            a.skip href="#main" { "Skip to content" }
            header.bar {
                a.brand href=(paths::HOME) { img src=(Asset::Icon.path()) alt=""; span { "Portcullis" } }
                span.hub { (hub.hosts.primary()) }
                nav aria-label="Main" {
                    @for own in Section::ALL {
                        @let (name, path, needs) = own.place();
                        @if needs.is_none_or(|rights| visit.may(rights)) {
                            a href=(path) aria-current=[(section == Some(own)).then_some("page")] { (name) }
                        }
                    }
                }
                form.out method="post" action=(paths::SIGN_OUT) {
                    (visit.token_field())
                    span.who title=(visit.service().rights()) { (visit.service().policy()) }
                    button type="submit" { "Sign out" }
                }
            }
            main id="main" tabindex="-1" {
                @if let Some(notice) = visit.take_notice() {
                    @match notice.kind {
                        NoticeKind::Done => { p.notice.done role="status" { (notice.text) } }
                        NoticeKind::Failed => { p.notice.failed role="alert" { (notice.text) } }
                    }
                }
                (content)
            }
            footer.foot { "Times are in UTC. Portcullis " (env!("CARGO_PKG_VERSION")) }
            // Messages of scripts.
            div.toasts id="toasts" role="status" aria-live="polite" {}
        }
    };
    document(title, body)
}

fn document(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=(HTMX_CONFIG);
                title { (title) " · Portcullis" }
                link rel="icon" href=(Asset::Icon.path()) type="image/svg+xml";
                link rel="stylesheet" href=(Asset::Style.path());
                script src=(Asset::Htmx.path()) defer {}
                script src=(Asset::Script.path()) defer {}
            }
            (body)
        }
    }
}

fn refused(status: StatusCode, text: &str) -> Markup {
    html! {
        h1 { (heading(status)) }
        p.notice.failed role="alert" { (text) }
        p { a href=(paths::HOME) { "To the overview" } }
    }
}

fn heading(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::NOT_FOUND => "Not found",
        status if status.is_server_error() => "Something went wrong",
        _ => "Refused",
    }
}

/// No eval, no scripts or styles added by htmx, and no pages in the browser's store, because some show secrets.
const HTMX_CONFIG: &str = r#"{"allowEval":false,"allowScriptTags":false,"includeIndicatorStyles":false,"selfRequestsOnly":true,"historyCacheSize":0,"refreshOnHistoryMiss":true,"scrollBehavior":"auto","responseHandling":[{"code":"204","swap":false},{"code":"[23]..","swap":true},{"code":"...","swap":false,"error":true}]}"#;
