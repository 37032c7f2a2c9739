//! Taking an import back: its undo file, read from the end, as changes to be applied.

use std::io;
use std::path::Path;

use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use tokio::sync::mpsc;

use super::import::ImportItem;
use super::line::{self, LineChange, LineRefusal};
use super::plan::{LineRequest, TakeBack};
use super::source::{LineBatch, SourceError};
use super::undo::{Undo, UndoReader};
use crate::iothub::change::IdentityChange;
use crate::iothub::change::NamedIdentity;
use crate::operations::bulk::ChangeError;

/// The changes to take back, the last one first, in batches.
pub(super) fn batches(undo: &Path) -> mpsc::Receiver<Result<LineBatch, SourceError>> {
    let (sender, receiver) = mpsc::channel(1);
    let undo = undo.to_owned();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read(&undo, &sender) {
            // A job that ended meanwhile has no use for it.
            let _ = sender.blocking_send(Err(SourceError::Undo(error)));
        }
    });
    receiver
}

fn read(undo: &Path, to: &mpsc::Sender<Result<LineBatch, SourceError>>) -> io::Result<()> {
    let mut changes = UndoReader::open(undo)?;
    let mut batch = LineBatch::default();
    while let Some(line) = changes.next()? {
        batch.items.push(item(line.ok()));
        batch.read += 1;
        if batch.items.len() == BATCH_CHANGES {
            let next = LineBatch { read: batch.read, ..LineBatch::default() };
            if to.blocking_send(Ok(std::mem::replace(&mut batch, next))).is_err() {
                return Ok(());
            }
        }
    }
    let _ = to.blocking_send(Ok(LineBatch { is_last: true, ..batch }));
    Ok(())
}

fn item(line: Option<Vec<u8>>) -> ImportItem {
    let undo = line.as_deref().and_then(|line| serde_json::from_slice::<Undo<'_>>(line).ok());
    let (line, change) = match &undo {
        Some(undo) => (undo.line, take_back(undo)),
        None => (0, None),
    };
    let damaged = || (NamedIdentity::default(), LineRefusal::from(ChangeError::UndoDamaged));
    ImportItem { line, ask: change.map(LineRequest::TakeBack).ok_or_else(damaged), has_twin: false }
}

fn take_back(undo: &Undo<'_>) -> Option<TakeBack> {
    let before = match undo.before {
        None => None,
        Some(before) => match line::parse(before.get()) {
            Ok(LineChange { change: IdentityChange::CreateOrUpdate(spec, _), .. }) => Some(spec),
            _ => return None,
        },
    };
    let device = DeviceId::parse(&undo.id).ok()?;
    let id = match &undo.module {
        None => IdentityId::device(device),
        Some(module) => IdentityId::module(device, ModuleId::parse(module).ok()?),
    };
    Some(TakeBack { id, before, after: undo.after })
}

/// Changes that are taken back together.
const BATCH_CHANGES: usize = 1024;
