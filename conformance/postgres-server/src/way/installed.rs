//! `initdb` and `postgres` of the installed package.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use super::{PASSWORD, Patience, Running, USER, Way, free_port, no_disk};
use crate::client::Access;
use crate::guard::Guard;
use crate::{Certificate, Error, Options, Result};

/// Every process of a server works in its data directory, those that outlived their parent too.
const REMOVE: &str = r#"
while :; do
  left=
  for process in /proc/[0-9]*; do
    if [ "$(readlink "$process/cwd")" = "$1/disk/data" ]; then
      kill -9 "${process#/proc/}"
      left=1
    fi
  done
  [ -n "$left" ] || break
done
if [ -n "$2" ]; then umount "$1/disk"; fi
rm -rf "$1"
"#;

/// A server of this machine's own programs.
#[derive(Debug)]
pub(crate) struct Installed {
    directory: PathBuf,
    programs: PathBuf,
    /// As whom it runs, where not as whoever runs the test.
    user: Option<User>,
    arguments: Vec<String>,
    small_disk: bool,
    postmaster: Mutex<Option<Child>>,
    guard: Option<Guard>,
}

impl Installed {
    /// Makes a cluster and starts it; whether it answers is for the caller to see.
    pub(crate) async fn start(
        programs: &Path,
        options: &Options,
        certificate: Option<&Certificate>,
    ) -> Result<(Self, Access)> {
        if options.memory_mib.is_some() {
            return Err(Error::new("only a container limits the memory of a server"));
        }
        let user = unprivileged()?;
        let directory = tempfile::Builder::new()
            .prefix("ghostwire-postgres-")
            .tempdir()
            .and_then(|directory| directory.keep().canonicalize())
            .map_err(|error| Error::of("cannot make a directory for a server", error))?;
        let mounted = if options.disk_mib.is_some() { "mounted" } else { "" };
        let guard = Guard::start(REMOVE, [directory.as_os_str(), mounted.as_ref()])?;
        let mut server = Self {
            programs: programs.to_owned(),
            user,
            arguments: Vec::new(),
            small_disk: options.disk_mib.is_some(),
            postmaster: Mutex::new(None),
            guard: Some(guard),
            directory,
        };
        server.lay_out(options, certificate)?;
        server.initialise()?;
        let port = free_port()?;
        server.arguments = server.settings(port, options, certificate.is_some());
        server.launch()?;
        let access = Access {
            host: "127.0.0.1".to_owned(),
            port,
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
        };
        Ok((server, access))
    }

    /// The directories, the certificate and the password.
    fn lay_out(&self, options: &Options, certificate: Option<&Certificate>) -> Result<()> {
        let laid_out = || -> io::Result<()> {
            self.own(&self.directory)?;
            fs::DirBuilder::new().mode(0o700).create(self.disk())?;
            if let Some(size) = options.disk_mib {
                mount(&self.disk(), size)?;
            }
            self.own(&self.disk())?;
            self.write("password", PASSWORD)?;
            if let Some(certificate) = certificate {
                self.write("server.crt", certificate.pem())?;
                self.write("server.key", certificate.key_pem())?;
            }
            Ok(())
        };
        laid_out().map_err(|error| Error::of(self.directory.display(), error))
    }

    fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    fn data(&self) -> PathBuf {
        self.disk().join("data")
    }

    fn write(&self, name: &str, content: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut file, content.as_bytes())?;
        self.own(&path)
    }

    fn own(&self, path: &Path) -> io::Result<()> {
        match &self.user {
            Some(user) => chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
            None => Ok(()),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.directory).stdin(Stdio::null());
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    fn initialise(&self) -> Result<()> {
        let output = self
            .command("initdb")
            .args(["--username", USER, "--auth=scram-sha-256", "--encoding=UTF8"])
            // Names do not sort by bytes, so that a statement which relies on that is found out.
            .args(["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"])
            // Only of what it makes; the server syncs as it always does.
            .arg("--no-sync")
            .arg("--pwfile")
            .arg(self.directory.join("password"))
            .arg("--pgdata")
            .arg(self.data())
            .output()
            .map_err(|error| Error::of(self.programs.join("initdb").display(), error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::of(self.programs.join("initdb").display(), said.trim()));
        }
        Ok(())
    }

    fn settings(&self, port: u16, options: &Options, tls: bool) -> Vec<String> {
        let file = |name| self.directory.join(name).display().to_string();
        let mut settings = vec![
            ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
            ("port".to_owned(), port.to_string()),
            ("unix_socket_directories".to_owned(), self.directory.display().to_string()),
        ];
        if tls {
            settings.push(("ssl".to_owned(), "on".to_owned()));
            settings.push(("ssl_cert_file".to_owned(), file("server.crt")));
            settings.push(("ssl_key_file".to_owned(), file("server.key")));
        }
        settings.extend(options.settings.iter().cloned());
        settings
            .iter()
            .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
            .collect()
    }

    /// Starts the server, which must not be running.
    fn launch(&self) -> Result<()> {
        let mut postmaster = self.postmaster();
        if postmaster.is_some() {
            return Err(Error::new("the server is running already"));
        }
        let started = || -> io::Result<Child> {
            let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
            self.command("postgres")
                .arg("-D")
                .arg(self.data())
                .args(&self.arguments)
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0)
                .spawn()
        };
        *postmaster = Some(
            started()
                .map_err(|error| Error::of(self.programs.join("postgres").display(), error))?,
        );
        Ok(())
    }

    /// Whether the server has ended by itself. It is then no longer running.
    fn reap(&self) -> Result<bool> {
        let mut postmaster = self.postmaster();
        let Some(child) = postmaster.as_mut() else { return Ok(true) };
        let status = child.try_wait().map_err(|error| Error::of("the server's process", error))?;
        if status.is_some() {
            *postmaster = None;
        }
        Ok(status.is_some())
    }

    fn postmaster(&self) -> MutexGuard<'_, Option<Child>> {
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// First to the one that makes the others.
    fn signal_all(&self, which: Signal) -> Result<()> {
        let first = self.postmaster().as_ref().map(Child::id);
        let first = process(first.ok_or_else(|| Error::new("the server is not running"))?)?;
        signal(first, which)?;
        for other in self.processes()?.into_iter().filter(|other| *other != first) {
            signal(other, which)?;
        }
        Ok(())
    }

    /// All that work in the data directory, and have not ended.
    fn processes(&self) -> Result<Vec<Pid>> {
        let entries = fs::read_dir("/proc").map_err(|error| Error::of("/proc", error))?;
        let data = self.data();
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            // Those of others cannot be read, and some end meanwhile.
            let at = fs::read_link(entry.path().join("cwd")).ok();
            if let (Some(id), Some(at)) = (id, at)
                && at == data
            {
                found.push(Pid::from_raw(id));
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Running for Installed {
    fn way(&self) -> Way {
        Way::Installed
    }

    fn origin(&self) -> String {
        format!("started by {}", self.programs.join("postgres").display())
    }

    fn socket_directory(&self) -> Option<&Path> {
        Some(&self.directory)
    }

    async fn has_ended(&self) -> Result<bool> {
        self.reap()
    }

    async fn log(&self) -> Result<String> {
        let log = fs::read(self.log_file());
        let log = log.map_err(|error| Error::of(self.log_file().display(), error))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    async fn stop(&self) -> Result<()> {
        let id = self.postmaster().as_ref().map(Child::id);
        let id = id.ok_or_else(|| Error::new("the server is not running"))?;
        signal(process(id)?, Signal::SIGINT)?;
        let patience = Patience::until("the server stops");
        while !self.reap()? {
            patience.pause().await?;
        }
        Ok(())
    }

    async fn kill(&self) -> Result<()> {
        self.signal_all(Signal::SIGKILL)?;
        let patience = Patience::until("the server's processes are gone");
        while !self.reap()? || !self.processes()?.is_empty() {
            patience.pause().await?;
        }
        Ok(())
    }

    async fn start_again(&self) -> Result<()> {
        self.launch()
    }

    async fn pause(&self) -> Result<()> {
        self.signal_all(Signal::SIGSTOP)
    }

    async fn resume(&self) -> Result<()> {
        self.signal_all(Signal::SIGCONT)
    }

    async fn fill_disk(&self) -> Result<()> {
        if !self.small_disk {
            return Err(no_disk());
        }
        let path = self.disk().join("filler");
        let filled = || -> io::Result<()> {
            let mut file = fs::File::create(&path)?;
            let block = vec![0; 64 * 1024];
            loop {
                match io::Write::write_all(&mut file, &block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        filled().map_err(|error| Error::of(path.display(), error))
    }

    async fn free_disk(&self) -> Result<()> {
        let path = self.disk().join("filler");
        fs::remove_file(&path).map_err(|error| Error::of(path.display(), error))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // It ends them, and the postmaster is a child of this process.
        self.guard = None;
        if let Some(mut child) = self.postmaster().take() {
            let _ = child.wait();
        }
    }
}

/// Where the programs are: on the path, or where Debian has them, the latest.
pub(crate) fn programs() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_programs(&path, Path::new("/usr/lib/postgresql"))
}

fn find_programs(path: &OsStr, debian: &Path) -> Result<PathBuf> {
    let complete = |at: &PathBuf| at.join("initdb").is_file() && at.join("postgres").is_file();
    let versions = fs::read_dir(debian).into_iter().flatten().flatten();
    let latest = versions
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, at)| complete(at))
        .max();
    std::env::split_paths(path).find(complete).or(latest.map(|(_, at)| at)).ok_or_else(|| {
        let debian = debian.display();
        Error::new(format!(
            "initdb and postgres are neither on the path nor in {debian}; \
             to have them, run: apt-get install postgresql"
        ))
    })
}

/// PostgreSQL refuses to run as root.
fn unprivileged() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Ok(Some(user)) = User::from_name(name) {
            return Ok(Some(user));
        }
    }
    Err(Error::new("postgres does not run as root, and there is no user postgres or nobody"))
}

/// A disk of `size` MiB, in memory.
fn mount(at: &Path, size: u32) -> io::Result<()> {
    let output = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={size}m,mode=0700"), "ghostwire-postgres"])
        .arg(at)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("a disk of its own needs root: {}", said.trim())))
}

fn process(id: u32) -> Result<Pid> {
    i32::try_from(id).map(Pid::from_raw).map_err(|error| Error::of("process number", error))
}

/// Nothing if it has ended.
fn signal(process: Pid, which: Signal) -> Result<()> {
    match kill(process, which) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(Error::of(format!("{which} to process {process}"), error)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path_then_the_latest_of_debian() {
        let directory = tempfile::tempdir().unwrap();
        let debian = directory.path().join("debian");
        let path = directory.path().join("path");
        let put = |at: &Path, name: &str| {
            fs::create_dir_all(at).unwrap();
            fs::write(at.join(name), "").unwrap();
        };
        let find = || find_programs(path.as_os_str(), &debian);

        let error = find().unwrap_err().to_string();
        assert!(error.ends_with("run: apt-get install postgresql"), "{error}");
        for version in ["9", "15", "15-old"] {
            put(&debian.join(version).join("bin"), "initdb");
            put(&debian.join(version).join("bin"), "postgres");
        }
        put(&debian.join("16/bin"), "initdb");
        put(&path, "initdb");
        assert_eq!(find().unwrap(), debian.join("15/bin"), "the latest of those that are complete");
        put(&path, "postgres");
        assert_eq!(find().unwrap(), path);
    }
}
