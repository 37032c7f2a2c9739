//! The pages' commands, exactly as printed: every shell block of a page, in order, in a fresh directory with a new hub.
//!
//! The pages name the hub's default ports, so each run has a network of its own, in which nothing else listens: a network
//! namespace, made with `unshare`. It needs no root where the system lets users make namespaces.
//!
//! A block that begins with ```` ```sh ```` is run by `bash -euo pipefail` to its end. Commands that run until Ctrl-C
//! stand in ```` ```text ```` blocks: `portcullis monitor-events` is run as printed until all blocks are done.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_testing::tools;
use tempfile::TempDir;

#[test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
fn the_first_page_leads_to_a_device_that_talks() {
    let page = page("README.md");
    assert!(page.contains("\ncargo run --release "), "the page no longer says how the hub is run");
    let walk = Walk::through(&page);
    let printed = walk.printed();
    // What the page says that one sees.
    assert!(
        page.contains(
            "It prints `b'open valve' {'valve': '3'}`, and `monitor-events` prints `21.5 degrees`."
        )
    );
    assert!(printed.contains("b'open valve' {'valve': '3'}\n"), "{printed}");
    assert!(printed.contains("shut valve\n"), "{printed}");
    let watched = walk.file("watched");
    assert_eq!(watched.matches("21.5 degrees").count(), 2, "from Python and from mosquitto: {watched}");
}

#[test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
fn the_operators_manual_runs_from_top_to_bottom() {
    let walk = Walk::through(&page("gateway/README.md"));
    let printed = walk.printed();
    // The last command over MQTT disables a device, "and the events say so". The listener is there by then; it may come
    // too late for the first command, which the page does not promise it hears.
    assert!(printed.contains("\n$admin/events/identityUpdated/pump-7 "), "{printed}");
}

/// A page of the project.
fn page(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).expect("the page")
}

/// The text of each fenced block that is to be run, with the word behind its fence.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let text: String =
            lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        blocks.push((kind, text));
    }
    blocks
}

/// The steps of a script that does what a page says; each block is a file of its own.
fn steps(page: &str, directory: &Path) -> String {
    let mut steps = String::new();
    let mut count = 0;
    for (number, (kind, text)) in blocks(page).into_iter().enumerate() {
        let file = directory.join(format!("block-{number}"));
        let runs_until_ended = text.lines().find(|line| line.starts_with("portcullis monitor-events"));
        match (kind, runs_until_ended) {
            ("sh", _) => {
                fs::write(&file, &text).expect("a file");
                steps += &format!("step {}\n", file.display());
                count += 1;
            }
            ("text", Some(line)) => {
                fs::write(&file, line).expect("a file");
                steps += &format!("watch {}\n", file.display());
            }
            _ => {}
        }
    }
    assert!(count > 3, "the page has no more than {count} shell blocks");
    steps
}

/// A page whose blocks were run.
struct Walk {
    directory: TempDir,
}

impl Walk {
    /// Runs every block; panics with all that was printed when one fails.
    fn through(page: &str) -> Self {
        let mosquitto = tools::mosquitto();
        let python = tools::python_sdk();
        let walk = Self { directory: TempDir::new().expect("a directory") };
        for name in ["programs", "blocks", "here"] {
            fs::create_dir(walk.path(name)).expect("a directory");
        }
        let program = walk.path("programs/portcullis");
        symlink(env!("CARGO_BIN_EXE_portcullis"), &program).expect("a link");
        let python3 = walk.path("programs/python3");
        // A link would not find the packages beside the interpreter.
        fs::write(&python3, format!("#!/bin/sh\nexec {} \"$@\"\n", python.display())).expect("a file");
        fs::set_permissions(&python3, Permissions::from_mode(0o755)).expect("a file's mode");
        let script = format!("{PREPARE}{}{FINISH}", steps(page, &walk.path("blocks")));
        fs::write(walk.path("walk"), script).expect("a file");

        let mut shell: Command = mosquitto.shell(&program);
        let run = "exec timeout 120 unshare --map-root-user --net bash -euo pipefail ../walk";
        shell.args(["-c", run]).current_dir(walk.path("here"));
        for name in ["PORTCULLIS_CONNECTION_STRING", "PORTCULLIS_CA"] {
            shell.env_remove(name);
        }
        let ended = shell.output().expect("a shell runs");
        assert!(
            ended.status.success(),
            "{}: a block failed, or took too long, or no network could be made for it (see unshare(1)).\n{}\n{}\n\
             What the hub said:\n{}",
            ended.status,
            walk.printed(),
            String::from_utf8_lossy(&ended.stderr),
            walk.file("hub"),
        );
        walk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        fs::read(self.path(name))
            .map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).into_owned())
    }

    /// What the blocks printed, each below its text.
    fn printed(&self) -> String {
        self.file("printed")
    }
}

/// What the script of a page begins with. It brings up the network, starts the hub as a newcomer does, and waits until it is ready. A step is a
/// block; it ends when what the block left in the background has ended too.
const PREPARE: &str = r#"
PATH=$(realpath ../programs):$PATH
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
python3 -c 'import fcntl, socket, struct
up_and_running = 0x41
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", up_and_running))'
portcullis > ../hub 2>&1 &
hub=$!
until grep -q '^ready$' ../hub; do kill -0 $hub; sleep 0.05; done
watchers=
step() {
    { echo "--- $1"; cat "$1"; echo "---"; } >> ../printed
    bash -euo pipefail -c '. "$0"; wait' "$1" >> ../printed 2>&1
}
watch() {
    bash -euo pipefail -c "exec $(cat "$1")" >> ../watched 2>&1 &
    watchers="$watchers $!"
    until grep -q '^listening to' ../watched; do kill -0 $!; sleep 0.05; done
}
"#;

/// Ends what runs with Ctrl-C, which is no failure, and the hub in order.
const FINISH: &str = r#"
for watcher in $watchers; do
    kill -INT $watcher
    ended=0; wait $watcher || ended=$?
    [ $ended = 130 ]
done
kill -INT $hub
wait $hub
"#;
