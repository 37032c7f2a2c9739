//! The portal's own files: its style, its script, and htmx. The program contains them. Their names depend on their
//! content, so that a browser may keep them for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::answer::PageResult;
use super::device::snippets::ca_path;
use super::visit::Visit;
use crate::iothub::problem::Problem;

/// One file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asset {
    Style,
    Script,
    Htmx,
    Icon,
}

impl Asset {
    const ALL: [Asset; 4] = [Asset::Style, Asset::Script, Asset::Htmx, Asset::Icon];

    /// The path at which it is served.
    pub(super) fn path(self) -> &'static str {
        &PATHS[self as usize]
    }

    fn kind(self) -> &'static str {
        match self {
            Asset::Style => "text/css; charset=utf-8",
            Asset::Script | Asset::Htmx => "text/javascript; charset=utf-8",
            Asset::Icon => "image/svg+xml",
        }
    }

    fn name(self) -> (&'static str, &'static str) {
        match self {
            Asset::Style => ("portal", "css"),
            Asset::Script => ("portal", "js"),
            Asset::Htmx => ("htmx", "js"),
            Asset::Icon => ("icon", "svg"),
        }
    }

    fn bytes(self) -> &'static [u8] {
        match self {
            Asset::Style => concat!(
                include_str!("../../assets/portal/portal.css"),
                include_str!("../../assets/portal/hub.css")
            )
            .as_bytes(),
            Asset::Script => concat!(
                include_str!("../../assets/portal/portal.js"),
                include_str!("../../assets/portal/live.js"),
                include_str!("../../assets/portal/upload.js")
            )
            .as_bytes(),
            Asset::Htmx => include_bytes!("../../assets/portal/htmx.min.js"),
            Asset::Icon => include_bytes!("../../assets/portal/icon.svg"),
        }
    }
}

/// `GET /portal/assets/{file}`.
pub(super) async fn show(Path(file): Path<String>) -> PageResult {
    let is_asked = |asset: &Asset| asset.path().strip_prefix(DIRECTORY) == Some(&*file);
    let found = Asset::ALL.into_iter().find(is_asked);
    let asset = found.ok_or_else(|| Problem::not_found("The portal has no such file."))?;
    Ok(answer(asset))
}

/// `GET /portal/ca.pem`: the CA certificate that clients must trust, if the hub's own CA signed its certificate.
pub(super) async fn show_ca(visit: Visit) -> PageResult {
    let hub = visit.hub();
    if hub.config.certificate.is_some() {
        return Err(Problem::not_found(
            "The hub's own CA did not sign this hub's certificate. Ask the operator for the CA certificate.",
        )
        .into());
    }
    let path = ca_path(hub);
    let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
    let read = read.map_err(|error| Problem::internal(error.to_string()))?;
    let text = read.map_err(|error| Problem::internal(format!("the CA's certificate: {error}")))?;
    let head = [
        (header::CONTENT_TYPE, "application/x-pem-file"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"ca.pem\""),
    ];
    Ok((head, text).into_response())
}

fn answer(asset: Asset) -> Response {
    let head = [
        (header::CONTENT_TYPE, asset.kind()),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (head, asset.bytes()).into_response()
}

static PATHS: LazyLock<[String; Asset::ALL.len()]> = LazyLock::new(|| {
    Asset::ALL.map(|asset| {
        let (name, ending) = asset.name();
        let digest = Sha256::digest(asset.bytes());
        let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{DIRECTORY}{name}-{digest}.{ending}")
    })
});
const DIRECTORY: &str = "/portal/assets/";
