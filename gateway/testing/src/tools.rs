//! Programs from outside that tests try the hub with: the official SDKs, Azurite, mosquitto's clients, a browser, strace.
//!
//! Each is obtained by package name on first use, pinned, into `target/tools` of the workspace, and found there
//! afterwards. A file lock lets many test processes ask at once. Nothing on the system is changed and nobody needs to
//! be root. A tool that cannot be had fails the test and says what to install. Each test that needs one carries
//! `#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]`: with that variable set it is built to be ignored, and
//! shown so. `simulator/tests/skipped.rs`, the last to run, tells how many there are.
//!
//! To add a Python tool: one more function like [`python_sdk`]; a Node one: like [`node_service_sdk`].

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub mod brokers;

/// Set to `1`: ignore the tests that need a program from outside.
pub const OFFLINE: &str = "PORTCULLIS_TEST_OFFLINE";

/// strace, ready to run.
#[derive(Clone, Debug)]
pub struct Strace {
    pub program: PathBuf,
    /// Where its libraries are when they are not the system's; a value for `LD_LIBRARY_PATH`.
    pub libraries: Option<PathBuf>,
}

/// mosquitto's command line clients.
#[derive(Clone, Debug)]
pub struct Mosquitto {
    programs: PathBuf,
    /// Where the libraries unpacked beside the programs are; none when the system's own are used.
    libraries: Option<PathBuf>,
}

impl Mosquitto {
    /// `mosquitto_pub`, ready for its arguments.
    pub fn publisher(&self) -> Command {
        self.command("mosquitto_pub")
    }

    /// `mosquitto_sub`, ready for its arguments.
    pub fn subscriber(&self) -> Command {
        self.command("mosquitto_sub")
    }

    /// A shell that finds them, and `program` as `portcullis`, by their names.
    pub fn shell(&self, program: &Path) -> Command {
        let mut command = self.command("/bin/sh");
        let own = program.parent().expect("a program is in a directory");
        let before = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{}:{before}", self.programs.display(), own.display()));
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// The interpreter of a virtual environment that holds the Azure IoT device SDK for Python.
///
/// # Panics
/// When it cannot be had; the message says what to install.
pub fn python_sdk() -> PathBuf {
    obtain(|tools| python(tools, "python-device-sdk", &["azure-iot-device==2.14.0", "paho-mqtt==1.6.1"]))
}

/// The interpreter of a virtual environment that holds the Azure IoT service SDK for Python.
///
/// # Panics
/// When it cannot be had; the message says what to install.
pub fn python_service_sdk() -> PathBuf {
    // The SDK imports `six` and does not say so.
    obtain(|tools| python(tools, "python-service-sdk", &["azure-iot-hub==2.7.0", "six==1.17.0"]))
}

/// The directory where `node` finds the Azure IoT service SDK for Node, for its `NODE_PATH`.
///
/// # Panics
/// When it cannot be had; the message says what to install.
pub fn node_service_sdk() -> PathBuf {
    obtain(|tools| node(tools, "node-service-sdk", &["azure-iothub@1.16.6"]))
}

/// The directory where `node` finds Azurite.
///
/// # Panics
/// When it cannot be had; the message says what to install.
pub fn azurite() -> PathBuf {
    obtain(|tools| node(tools, "azurite", &["azurite@3.35.0"]))
}

/// mosquitto's clients: those on `PATH`, otherwise those of the distribution this machine runs.
///
/// # Panics
/// When they cannot be had; the message says what to install.
pub fn mosquitto() -> Mosquitto {
    obtain(|tools| match on_path("mosquitto_pub") {
        Some(programs) => Ok(Mosquitto { programs, libraries: None }),
        None => mosquitto_of_the_distribution(tools),
    })
}

/// Chromium without a window, ready to run.
#[derive(Clone, Debug)]
pub struct ChromiumTool {
    pub program: PathBuf,
    /// Where libraries are that the system lacks; a value for `LD_LIBRARY_PATH`.
    pub libraries: Option<OsString>,
}

/// Chromium: the one on `PATH`, otherwise that of the distribution this machine runs.
///
/// # Panics
/// When it cannot be had; the message says what to install.
pub fn chromium() -> ChromiumTool {
    obtain(|tools| {
        for name in ["chromium-headless-shell", "chromium"] {
            if let Some(programs) = on_path(name) {
                return Ok(ChromiumTool { program: programs.join(name), libraries: None });
            }
        }
        chromium_of_the_distribution(tools)
    })
}

/// The script of axe, which finds what keeps people out of a page.
///
/// # Panics
/// When it cannot be had; the message says what to install.
pub fn axe() -> PathBuf {
    obtain(|tools| Ok(node(tools, "axe", &["axe-core@4.14.1"])?.join("axe-core/axe.min.js")))
}

/// The program `openssl`. Nothing is fetched, so a run without a network has it too.
///
/// # Panics
/// When it is not there; the message says what to install.
pub fn openssl() -> PathBuf {
    let found = on_path("openssl").map(|programs| programs.join("openssl"));
    found.expect("a tool of this test is missing: install openssl so that it is on PATH (Debian: openssl)")
}

/// strace: the one on `PATH`, otherwise that of the distribution this machine runs.
///
/// # Panics
/// When it cannot be had; the message says what to install.
pub fn strace() -> Strace {
    let advice = "install strace so that it is on PATH (Debian: strace)";
    obtain(|tools| match on_path("strace") {
        Some(programs) => Ok(Strace { program: programs.join("strace"), libraries: None }),
        None => {
            let unpacked = of_the_distribution(tools, &["strace"], advice)?;
            let libraries = library_dir(&unpacked.join("usr/lib"), "libunwind.so.8");
            Ok(Strace { program: unpacked.join("usr/bin/strace"), libraries })
        }
    })
}

fn obtain<T>(tool: impl FnOnce(&Path) -> Result<T>) -> T {
    assert!(
        !is_offline(),
        "this test needs a program from outside and {OFFLINE} is 1: unset it, or mark the test as one to ignore then"
    );
    let had = locked(&tools_dir(), tool);
    had.unwrap_or_else(|error| panic!("a tool of this test is missing: {error:#}"))
}

/// Whether this run is to do without programs from outside.
pub fn is_offline() -> bool {
    env::var_os(OFFLINE).is_some_and(|value| value == "1")
}

fn tools_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools")
}

/// Runs `tool` while no other process of this machine does.
fn locked<T>(tools: &Path, tool: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    fs::create_dir_all(tools).with_context(|| format!("make {}", tools.display()))?;
    let tools = tools.canonicalize().with_context(|| format!("find {}", tools.display()))?;
    let lock = File::create(tools.join("lock")).context("make the lock file of the tools")?;
    lock.lock().context("lock the tools")?;
    tool(&tools)
}

/// The interpreter of the virtual environment `name` with `packages` in it, made if it is not there or holds others.
fn python(tools: &Path, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let home = tools.join(name);
    let interpreter = home.join("bin/python");
    make_once(&home, &packages.join("\n"), || {
        let advice = "install Python 3.9 or newer with its venv module (Debian: python3-venv)";
        run(Command::new("python3").args(["-m", "venv"]).arg(&home), advice)?;
        let mut install = Command::new(&interpreter);
        install
            .args(["-m", "pip", "install", "--no-input", "--quiet", "--disable-pip-version-check"])
            .args(packages);
        run(&mut install, "pip needs to reach its package index; it follows the machine's pip configuration")
    })?;
    Ok(interpreter)
}

/// The directory `name` with `packages` and all they need in it, made if it is not there or holds others.
fn node(tools: &Path, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let home = tools.join(name);
    make_once(&home, &packages.join("\n"), || {
        let advice =
            "install Node 18 or newer with npm (Debian: nodejs and npm); npm needs to reach its registry";
        run(Command::new("node").arg("--version"), advice)?;
        fs::create_dir_all(&home)?;
        let mut install = Command::new("npm");
        install
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
            .arg(&home)
            .args(packages);
        run(&mut install, advice)
    })?;
    Ok(home.join("node_modules"))
}

fn mosquitto_of_the_distribution(tools: &Path) -> Result<Mosquitto> {
    let advice = "install mosquitto's clients so that mosquitto_pub is on PATH (Debian: mosquitto-clients)";
    let unpacked = of_the_distribution(tools, &["mosquitto-clients"], advice)?;
    let libraries = library_dir(&unpacked.join("usr/lib"), "libmosquitto.so.1");
    Ok(Mosquitto { programs: unpacked.join("usr/bin"), libraries })
}

fn chromium_of_the_distribution(tools: &Path) -> Result<ChromiumTool> {
    let advice = "install Chromium so that chromium is on PATH (Debian: chromium)";
    // The second holds what the first cannot do without, and may be installed already.
    let unpacked = of_the_distribution(tools, &["chromium-headless-shell", "chromium-common"], advice)?;
    // PulseAudio keeps a library of its own below the others; which of them the system has already nobody knows.
    let directories = fs::read_dir(unpacked.join("usr/lib"))?.flatten().map(|entry| entry.path());
    let directories = directories.flat_map(|path| [path.join("pulseaudio"), path]);
    let libraries = Some(env::join_paths(directories)?);
    Ok(ChromiumTool { program: unpacked.join("usr/lib/chromium/chromium-headless-shell"), libraries })
}

/// Downloads Debian packages and what they need that the system lacks, and unpacks them: no root, no installation.
/// The version is the distribution's, its signature checked by apt. Where it was unpacked.
fn of_the_distribution(tools: &Path, packages: &[&str], advice: &str) -> Result<PathBuf> {
    let home = tools.join(packages[0]);
    let unpacked = home.join("unpacked");
    make_once(&home, &packages.join("\n"), || {
        let archives = home.join("archives");
        fs::create_dir_all(archives.join("partial"))?;
        fs::create_dir_all(home.join("lists/partial"))?;
        let apt = || {
            let mut apt = Command::new("apt-get");
            apt.args(["-q", "-o", "Debug::NoLocking=1", "-o"]).arg(option("Dir::Cache=", &home));
            apt
        };
        let download = ["install", "--download-only", "--reinstall", "--no-install-recommends", "--yes"];
        let download = [&download, packages].concat();
        if run(apt().args(&download), advice).is_err() {
            // The system's package lists are absent or old, and may not be ours to refresh: use lists of our own.
            let lists = option("Dir::State::Lists=", &home.join("lists"));
            run(apt().arg("-o").arg(&lists).arg("update"), advice)?;
            run(apt().arg("-o").arg(&lists).args(&download), advice)?;
        }
        for entry in fs::read_dir(&archives)? {
            let package = entry?.path();
            if package.extension() == Some(OsStr::new("deb")) {
                run(Command::new("dpkg-deb").arg("--extract").args([&package, &unpacked]), advice)?;
            }
        }
        Ok(())
    })?;
    Ok(unpacked)
}

/// Debian keeps libraries in a directory named after the machine's architecture, such as `x86_64-linux-gnu`.
/// `None` when nothing was unpacked there, because the system has the libraries already.
fn library_dir(lib: &Path, library: &str) -> Option<PathBuf> {
    let mut directories = fs::read_dir(lib).ok()?.flatten().map(|entry| entry.path());
    directories.find(|path| path.join(library).exists())
}

/// The same for whatever library was unpacked there.
fn any_library_dir(lib: &Path) -> Option<PathBuf> {
    let mut directories = fs::read_dir(lib).ok()?.flatten().map(|entry| entry.path());
    directories.find(|path| path.extension().is_none() && path.to_string_lossy().contains("-linux-"))
}

fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

/// Runs `make` unless `home` was completely made from `recipe` before; what an interrupted attempt left is removed.
fn make_once(home: &Path, recipe: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = home.join("made-from");
    if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == recipe) {
        return Ok(());
    }
    if home.exists() {
        fs::remove_dir_all(home).with_context(|| format!("remove {}", home.display()))?;
    }
    make()?;
    fs::write(&stamp, recipe).with_context(|| format!("write {}", stamp.display()))
}

/// Runs `command` to its end; `advice` says what to do when it is not there or fails.
fn run(command: &mut Command, advice: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}; {advice}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "{program} ended with {}; {advice}. It said:\n{}",
            output.status,
            String::from_utf8_lossy(&said)
        );
    }
    Ok(())
}

/// The directory on `PATH` that holds `program`.
fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).find(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_made_once_and_again_for_another_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("tool");
        let mut made = 0;
        for recipe in ["one", "one", "two"] {
            make_once(&home, recipe, || {
                made += 1;
                fs::create_dir(&home).map_err(Into::into)
            })
            .unwrap();
        }
        assert_eq!(made, 2);
    }

    #[test]
    fn what_an_interrupted_attempt_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("tool");
        make_once(&home, "one", || {
            fs::create_dir(&home)?;
            fs::write(home.join("half"), "")?;
            bail!("interrupted")
        })
        .unwrap_err();
        make_once(&home, "one", || fs::create_dir(&home).map_err(Into::into)).unwrap();
        assert!(!home.join("half").exists());
    }

    #[test]
    fn a_missing_program_says_what_to_install() {
        let error = run(&mut Command::new("no-such-program-here"), "install it").unwrap_err();
        assert!(error.to_string().contains("install it"), "{error:#}");
    }

    #[test]
    fn a_failing_program_tells_what_it_said() {
        let error =
            run(Command::new("sh").args(["-c", "echo no space left >&2; exit 3"]), "make room").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no space left") && text.contains("make room"), "{text}");
    }
}
