//! A private session bus, as a desktop has one, with GNOME Keyring on it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::missing;

/// With a folder of services of its own, so that the bus starts no other keyring, and no prompt on a display.
const CONFIG: &str = r#"<busconfig>
  <type>session</type>
  <listen>unix:path=BUS</listen>
  <servicedir>SERVICES</servicedir>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;
const SECRETS: &str = "--dest=org.freedesktop.secrets";

/// A session bus. It ends with this value.
pub struct Desktop {
    folder: TempDir,
    bus: Child,
    keyring: Option<Child>,
}

impl Desktop {
    /// A desktop with an unlocked keyring. If the programs are not installed, prints that and returns `None`.
    pub fn with_keyring() -> Option<Self> {
        let mut desktop = Self::without_keyring()?;
        desktop.start_keyring();
        Some(desktop)
    }

    /// A desktop without a keyring.
    pub fn without_keyring() -> Option<Self> {
        Self::with_service(None)
    }

    /// A desktop whose keyring cannot be started.
    pub fn with_broken_keyring() -> Option<Self> {
        Self::with_service(Some("[D-BUS Service]\nName=org.freedesktop.secrets\nExec=/bin/false\n"))
    }

    fn with_service(service: Option<&str>) -> Option<Self> {
        let programs = ["dbus-daemon", "dbus-send", "gnome-keyring-daemon"];
        if let Some(absent) = programs.iter().find(|name| !Path::new("/usr/bin").join(name).exists()) {
            missing(absent);
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let bus = folder.path().join("bus");
        let config = folder.path().join("bus.conf");
        let services = folder.path().join("services");
        fs::create_dir(&services).unwrap();
        if let Some(service) = service {
            fs::write(services.join("org.freedesktop.secrets.service"), service).unwrap();
        }
        let (at, services) = (bus.to_str().unwrap(), services.to_str().unwrap());
        fs::write(&config, CONFIG.replace("BUS", at).replace("SERVICES", services)).unwrap();
        let config = format!("--config-file={}", config.display());
        let daemon = Command::new("dbus-daemon")
            .args([&config, "--nofork", "--nopidfile"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(|| bus.exists());
        Some(Self { folder, bus: daemon, keyring: None })
    }

    /// Starts the keyring, unlocked with a password. It has the items of an earlier one.
    pub fn start_keyring(&mut self) {
        let mut command = Command::new("gnome-keyring-daemon");
        command.args(["--unlock", "--foreground", "--components=secrets"]);
        self.put_in(&mut command).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = command.spawn().unwrap();
        daemon.stdin.take().unwrap().write_all(b"a password").unwrap();
        self.keyring = Some(daemon);
        let login = "/org/freedesktop/secrets/collection/login";
        wait_until(|| {
            self.send(&["/org/freedesktop/secrets", "org.freedesktop.Secret.Service.ReadAlias", "string:default"])
                .contains(login)
        });
    }

    pub fn stop_keyring(&mut self) {
        end(self.keyring.take().as_mut());
    }

    /// Locks the keyring. No prompt can unlock it, because there is no display.
    pub fn lock(&self) {
        let collection = "array:objpath:/org/freedesktop/secrets/collection/login";
        let reply = self.send(&["/org/freedesktop/secrets", "org.freedesktop.Secret.Service.Lock", collection]);
        assert!(reply.contains("collection/login"), "{reply}");
    }

    /// The paths of the entries of an application.
    pub fn entries(&self, application: &str) -> Vec<String> {
        let attributes = format!("dict:string:string:service,{application}");
        let reply = self.send(&["/org/freedesktop/secrets", "org.freedesktop.Secret.Service.SearchItems", &attributes]);
        let paths = reply.lines().filter_map(|line| line.trim().strip_prefix("object path \"")?.strip_suffix('"'));
        paths.map(str::to_owned).collect()
    }

    /// Deletes an entry, as a person can.
    pub fn delete(&self, entry: &str) {
        self.send(&[entry, "org.freedesktop.Secret.Item.Delete"]);
    }

    /// Makes a program one of this desktop.
    pub fn put_in<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        put_on_bus(command, &self.folder.path().join("bus"));
        command.env("XDG_RUNTIME_DIR", self.folder.path()).env("XDG_DATA_HOME", self.folder.path().join("data"))
    }

    fn send(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("dbus-send");
        command.args(["--session", "--print-reply", SECRETS]).args(arguments);
        let output = self.put_in(&mut command).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        end(self.keyring.as_mut());
        end(Some(&mut self.bus));
    }
}

/// Makes a program use the bus at this socket.
pub fn put_on_bus(command: &mut Command, bus: &Path) {
    command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", bus.display()));
}

/// Makes a program one of a machine without a desktop.
pub fn without_bus(command: &mut Command) -> &mut Command {
    command
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
        .env("XDG_RUNTIME_DIR", PathBuf::from("/nonexistent"))
}

fn end(process: Option<&mut Child>) {
    if let Some(process) = process {
        let _ = process.kill();
        let _ = process.wait();
    }
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "the desktop does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}
