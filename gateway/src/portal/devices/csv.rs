//! `GET /portal/devices.csv`: the shown page of the list, for a spreadsheet.

use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use portcullis_registry::identity::Status;

use super::list::View;
use super::list_query::ListQuery;
use crate::iothub::time::time_text;
use crate::operations::presence;
use crate::portal::answer::PageResult;
use crate::portal::fields::Query;
use crate::portal::visit::Visit;

/// `GET /portal/devices.csv`, with the query of the list.
pub(in crate::portal) async fn show(visit: Visit, Query(query): Query) -> PageResult {
    let view = View::of(&visit, ListQuery::parse(&query)).await?;
    let mut text = line(&COLUMNS);
    for entry in &view.listing.devices {
        let identity = entry.identity();
        let live = presence::live_state(visit.hub(), entry);
        text += &line(&[
            identity.id.device.as_str(),
            if identity.iot_edge { "edge" } else { "device" },
            if identity.status == Status::Enabled { "enabled" } else { "disabled" },
            identity.status_reason.as_deref().unwrap_or_default(),
            &identity.status_updated.map(|at| time_text(Some(at))).unwrap_or_default(),
            identity.authentication.kind().as_str(),
            &live.queued.to_string(),
            if live.connected { "Connected" } else { "Disconnected" },
            &live.last_seen.map(|at| time_text(Some(at))).unwrap_or_default(),
        ]);
    }
    let head: [(HeaderName, &str); 2] = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"devices.csv\""),
    ];
    Ok((head, text).into_response())
}

fn line(cells: &[&str]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| quoted(cell)).collect();
    cells.join(",") + "\r\n"
}

/// One cell. An apostrophe before a text that a spreadsheet would run as a formula makes it plain text
/// (threats T716).
fn quoted(cell: &str) -> String {
    let guard = if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("\"{guard}{}\"", cell.replace('"', "\"\""))
}

const COLUMNS: [&str; 9] = [
    "deviceId",
    "type",
    "status",
    "statusReason",
    "statusUpdatedTime",
    "authenticationType",
    "cloudToDeviceMessageCount",
    "connectionState",
    "lastActivityTime",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t716_no_cell_is_a_formula_and_none_breaks_out_of_its_place() {
        for begin in ["=", "+", "-", "@", "\t", "\r"] {
            assert_eq!(
                quoted(&format!("{begin}cmd|' /C calc'!A0")),
                format!("\"'{begin}cmd|' /C calc'!A0\"")
            );
        }
        assert_eq!(line(&["a,b", "say \"=1\"\r\n=2", "1=2"]), "\"a,b\",\"say \"\"=1\"\"\r\n=2\",\"1=2\"\r\n");
    }
}
