//! Taking an import back: its undo file, read from the end, as changes to be applied.

use std::io;
use std::path::Path;

use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use tokio::sync::mpsc;

use super::import::Item;
use super::line::{Asked, Words};
use super::plan::{Ask, TakeBack};
use super::undo::{Undo, UndoReader};
use crate::bulk::Change;

/// The changes to take back, the last one first, in batches.
pub(super) fn batches(undo: &Path, words: &'static dyn Words) -> mpsc::Receiver<io::Result<Vec<Item>>> {
    let (sender, receiver) = mpsc::channel(1);
    let undo = undo.to_owned();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read(&undo, words, &sender) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

fn read(undo: &Path, words: &dyn Words, to: &mpsc::Sender<io::Result<Vec<Item>>>) -> io::Result<()> {
    let mut changes = UndoReader::open(undo)?;
    let mut batch = Vec::with_capacity(BATCH_CHANGES);
    while let Some(line) = changes.next()? {
        let undo: Undo<'_> = serde_json::from_slice(&line)?;
        let ask =
            take_back(&undo, words).ok_or_else(|| io::Error::other("the undo file tells of no identity"))?;
        batch.push(Item { line: undo.line, ask: Ok(Ask::TakeBack(ask)), has_twin: false });
        if batch.len() == BATCH_CHANGES && to.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            return Ok(());
        }
    }
    let _ = to.blocking_send(Ok(batch));
    Ok(())
}

fn take_back(undo: &Undo<'_>, words: &dyn Words) -> Option<TakeBack> {
    let before = match undo.before {
        None => None,
        Some(before) => match words.parse(before.get()) {
            Ok(Asked { change: Change::CreateOrUpdate(spec, _), .. }) => Some(spec),
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
