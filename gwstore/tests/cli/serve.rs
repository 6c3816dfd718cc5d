//! `gwstore serve` as a service manager, a probe and an operator meet it: a process of its own, signals,
//! `NOTIFY_SOCKET`, HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Place, command_in, places, portable, stores, user};

/// Nothing here takes so long; whoever waits for longer fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// A store that is served.
pub(crate) struct Server<'p> {
    place: &'p Place,
    child: Child,
    manager: UnixDatagram,
}

impl<'p> Server<'p> {
    /// Starts it on the store of a backend. Its log goes to `serve.log`.
    pub(crate) fn start(place: &'p Place, backend: &str, arguments: &str) -> Self {
        Self::start_with(place, backend, arguments, &[])
    }

    pub(crate) fn start_with(
        place: &'p Place,
        backend: &str,
        arguments: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let all = format!("--backend {backend} --path {backend}.db {arguments}");
        Self::with(place, &all, variables)
    }

    /// Starts it on the store that the arguments name.
    pub(crate) fn of(place: &'p Place, arguments: &str) -> Self {
        Self::with(place, arguments, &[])
    }

    fn with(place: &'p Place, arguments: &str, variables: &[(&str, &str)]) -> Self {
        let socket = place.file("notify");
        let _ = fs::remove_file(&socket);
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let all: Vec<&str> = arguments.split_whitespace().chain(["serve"]).collect();
        let mut command = command_in(&place.file(""), &all);
        command.env("NOTIFY_SOCKET", &socket).envs(variables.iter().copied());
        command.stderr(fs::File::create(place.file("serve.log")).unwrap());
        let child = command.spawn().unwrap();
        Self { place, child, manager }
    }

    /// Starts it, and waits until it is ready.
    pub(crate) fn ready(place: &'p Place, backend: &str, arguments: &str) -> Self {
        let server = Self::start(place, backend, arguments);
        server.hear("READY=1");
        server
    }

    /// What the service manager is told next that has this in it.
    #[track_caller]
    pub(crate) fn hear(&self, words: &str) -> String {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = self.manager.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("{words:?} is not heard ({error}): {heard:#?}\n{}", self.log())
            });
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if message.contains(words) {
                return message;
            }
            heard.push(message);
        }
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8(self.place.read("serve.log")).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends, and gives the exit code.
    #[track_caller]
    pub(crate) fn ended(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        (code, self.log())
    }

    /// Asks it to end, which has to go well.
    #[track_caller]
    pub(crate) fn end(self) -> String {
        self.signal(Signal::TERM);
        let (code, log) = self.ended();
        assert_eq!(code, 0, "{log}");
        log
    }

    fn address(&self) -> String {
        let log = self.log();
        let (_, rest) = log.split_once("address=").unwrap_or_else(|| panic!("{log}"));
        rest.split_whitespace().next().unwrap().trim_matches('"').to_owned()
    }

    /// Status and text of an answer.
    pub(crate) fn ask(&self, request: &str) -> (u16, String) {
        ask(&self.address(), request)
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    pub(crate) fn status(&self) -> Value {
        let (status, text) = self.get("/status");
        assert_eq!(status, 200);
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(address: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (status.unwrap_or_else(|| panic!("{answer:?}")), body.to_owned())
}

pub(crate) const HTTP: &str = "--set http.listen=127.0.0.1:0";

#[test]
fn who_is_asked_to_end_serves_for_a_while_and_says_that_it_is_not_ready() {
    for (backend, place) in stores() {
        let delay = "--set http.listen=127.0.0.1:0 --set serve.drain_delay_ms=600000";
        let server = Server::ready(&place, backend, delay);
        assert_eq!(server.get("/readyz").0, 200);
        server.signal(Signal::TERM);
        server.hear("STOPPING=1");
        let (status, text) = server.get("/readyz");
        assert!(status == 503 && text.contains("not_draining"), "{status} {text}");
        assert_eq!(server.get("/livez").0, 200);
        place.on(backend, "user create late").ok();
        assert_eq!(server.status()["health"]["state"], "draining");
        // Asked once more it does not wait any longer, and closes the store all the same.
        server.end();
        place.on(backend, "user show late").ok();
    }
}

#[test]
fn it_tells_when_it_is_ready_and_ends_in_order() {
    for (backend, place) in stores() {
        let server = Server::ready(&place, backend, HTTP);
        assert_eq!(server.get("/livez"), (200, "ok\n".to_owned()));
        assert_eq!(server.get("/readyz"), (200, "ok\n".to_owned()));
        let (status, text) = server.get("/readyz?verbose");
        assert!(status == 200 && text.contains("[+] writable ok\n"), "{text}");
        assert_eq!(server.get("/readyz/writable").0, 200);
        assert_eq!(server.get("/readyz/nothing").0, 404);
        assert_eq!(server.get("/nothing").0, 404);
        assert_eq!(server.ask("POST /livez HTTP/1.1\r\nHost: x\r\n\r\n").0, 405);
        let status = server.status();
        assert_eq!(status["health"]["state"], "ready");
        assert_eq!(status["health"]["store"]["backend"], backend);
        assert_eq!(status["jobs"].as_array().unwrap().len(), 4);
        let (code, page) =
            server.ask("GET /status HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n");
        assert!(code == 200 && page.starts_with("<!doctype html>"), "{page}");
        assert!(!page.contains("<script"), "{page}");
        server.signal(Signal::TERM);
        server.hear("STOPPING=1");
        let (code, log) = server.ended();
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("the store is closed"), "{log}");
        place.on(backend, "doctor").ok();
    }
}

#[test]
fn a_second_one_is_refused_and_disturbs_nobody() {
    for (backend, place) in stores() {
        let first = Server::ready(&place, backend, HTTP);
        let second = place.on(backend, "serve");
        second.ended(75).omits("panicked").warns(&["has this store open"]);
        assert_eq!(first.get("/readyz").0, 200);
        first.end();
    }
}

#[test]
fn what_may_change_is_taken_up_and_the_rest_is_refused() {
    let (backend, place) = stores().next().unwrap();
    let flags = |more: &str| {
        let text = format!("[development]\nbackend = \"{backend}\"\n[development.{more}");
        place.write("feature-flags.toml", text);
    };
    flags("jobs]\nreap_seconds = 60\n");
    let server = Server::ready(&place, backend, HTTP);
    let asked = |file: &str| {
        flags(file);
        server.signal(Signal::HUP);
        // systemd wants the time with it.
        assert!(server.hear("RELOADING=1").contains("MONOTONIC_USEC="));
        server.hear("READY=1");
        server.status()["configuration"]["last_reload"].clone()
    };
    let keys = |changes: &Value| -> Vec<String> {
        let changes = changes.as_array().unwrap().iter();
        changes.map(|change| change["key"].as_str().unwrap().to_owned()).collect()
    };
    let reloaded = asked("jobs]\nreap_seconds = 5\n[development.writer]\nmax_group = 7\n");
    assert_eq!(keys(&reloaded["applied"]), ["jobs.reap_seconds"]);
    assert_eq!(keys(&reloaded["refused"]), ["writer.max_group"]);
    assert_eq!(server.status()["jobs"][0]["every_seconds"], 5.0);
    let reloaded = asked("jobs]\nreap_second = 5\n");
    assert!(reloaded["error"].as_str().unwrap().contains("reap_second"), "{reloaded}");
    // What held before holds on.
    assert_eq!(server.status()["jobs"][0]["every_seconds"], 5.0);
    assert_eq!(server.get("/readyz").0, 200);
    let log = server.end();
    assert!(log.contains("writer.max_group"), "{log}");
}

#[test]
fn an_address_that_is_taken_stops_the_start_unless_told_otherwise() {
    let (backend, place) = stores().next().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--set http.listen={}", taken.local_addr().unwrap());
    place
        .on(backend, &format!("{listen} serve"))
        .refused(&["http.listen", "another process has it"]);
    let optional = format!("{listen} --set http.optional=true");
    let server = Server::ready(&place, backend, &optional);
    assert!(server.end().contains("served without HTTP"));
}

#[test]
fn a_signal_while_it_starts_ends_it_too() {
    for (backend, place) in stores() {
        let server = Server::start(&place, backend, "");
        // The first word comes from a process that listens for signals.
        server.hear("=");
        server.signal(Signal::TERM);
        let (code, log) = server.ended();
        assert_eq!(code, 0, "{log}");
        // Opening was not broken off in the middle.
        assert!(log.contains("the store is closed"), "{log}");
        place.on(backend, "doctor").ok();
    }
}

#[test]
fn the_service_manager_hears_that_it_lives() {
    let (backend, place) = stores().next().unwrap();
    let server = Server::start_with(&place, backend, "", &[("WATCHDOG_USEC", "2000000")]);
    server.hear("READY=1");
    server.hear("WATCHDOG=1");
    server.hear("WATCHDOG=1");
    server.end();
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    for (backend, place) in places() {
        place.on(backend, "serve").ended(4).warns(&["gwstore init"]);
        assert!(!place.file(&format!("{backend}.db")).exists());
    }
    let place = Place::new();
    place.run("--backend memory serve").refused(&["keeps nothing"]);
}

#[test]
fn jobs_are_done_and_told() {
    let (backend, place) = stores().next().unwrap();
    let often = "--set jobs.checkpoint_seconds=1 --set jobs.reap_seconds=1 --set jobs.sweep_seconds=1 \
                 --set jobs.retention_seconds=1";
    let server = Server::ready(&place, backend, &format!("{HTTP} {often}"));
    let is_done =
        |jobs: &Value| jobs.as_array().unwrap().iter().all(|job| job["last_success"].is_string());
    let mut jobs = server.status()["jobs"].clone();
    while !is_done(&jobs) {
        jobs = server.status()["jobs"].clone();
    }
    assert!(jobs.as_array().unwrap().iter().all(|job| job["failures"] == 0), "{jobs}");
    server.end();
}

#[test]
fn an_instance_begins_with_the_process_and_ends_with_it() {
    let (backend, place) = stores().next().unwrap();
    let options = "--set jobs.instance=control-1 --set jobs.reap_seconds=1";
    let server = Server::ready(&place, backend, &format!("{HTTP} {options}"));
    while !server.status()["jobs"][0]["last_success"].is_string() {}
    place.on(backend, "list instances").ok().says(&["control-1"]);
    let log = server.end();
    for told in
        ["this instance has begun", "this instance does the jobs", "this instance has ended"]
    {
        assert!(log.contains(told), "{told}: {log}");
    }
    assert!(!place.on(backend, "list instances").ok().out.contains("control-1"));
}

#[test]
fn how_it_is_and_what_it_measures_need_no_port() {
    for (backend, place) in stores() {
        for command in ["health", "health --live", "metrics", "top --once"] {
            place.on(backend, command).ended(4).warns(&["gwstore serve"]);
        }
        let server = Server::ready(&place, backend, "--set jobs.reap_seconds=1");
        assert_eq!(place.on(backend, "-q health").ok().out, "ready\n");
        assert_eq!(place.on(backend, "-q health --live").ok().out, "live: ready\n");
        let health = place.on(backend, "-q health --json").ok().json();
        assert_eq!((&health["state"], &health["ready"]), (&"ready".into(), &true.into()));
        let state =
            "ghostwire_store_state{db_namespace=\"main\",ghostwire_store_state=\"ready\"} 1";
        let check = "ghostwire_store_healthcheck_status{";
        place.on(backend, "metrics").ok().says(&[state, check, "ghostwire_store_serial"]);
        place.on(backend, "metrics --file store.prom").ok();
        let file = String::from_utf8(place.read("store.prom")).unwrap();
        assert!(file.contains(state), "{file}");
        place.on(backend, "user create alice").ok();
        let shown = place.on(backend, "top --once --interval 1").ok();
        shown.says(&["ready", "Throughput", "Latency", "checkpoint"]);
        let figures = place.on(backend, "top --once --interval 1 --json").ok().json();
        assert_eq!((&figures["state"], &figures["backend"]), (&"ready".into(), &backend.into()));
        assert_eq!(figures["queue_limit"], 4096.0);
        place.on(backend, "top").ended(2).warns(&["--once"]);
        // A job of its own may be the first to be counted.
        while !place.on(backend, "metrics").ok().out.contains("ghostwire_store_job_runs_total{") {}
        server.end();
    }
}

#[test]
fn the_socket_reloads_and_changes_the_level_of_the_log() {
    let (backend, place) = stores().next().unwrap();
    place.write("feature-flags.toml", format!("[development]\nbackend = \"{backend}\"\n"));
    let server = Server::ready(&place, backend, "");
    let flags =
        format!("[development]\nbackend = \"{backend}\"\n[development.log]\nlevel = \"warn\"\n");
    place.write("feature-flags.toml", flags);
    let reloaded = place.on(backend, "-q config reload --json").ok().json();
    assert_eq!(reloaded["applied"][0]["key"], "log.level", "{reloaded}");
    place.on(backend, "log level debug").ok();
    place.write("feature-flags.toml", "nonsense");
    place.on(backend, "-q config reload").refused(&["not valid TOML"]);
    server.end();
}

/// It does not ask to end in order, and need not.
#[test]
fn an_import_that_is_ended_in_the_middle_is_completed_by_the_next_one() {
    for (backend, place) in places() {
        let users: Vec<_> = (0..20_000).map(|n| user(n, &format!("user-{n}"))).collect();
        let lines: Vec<_> = users.iter().map(String::as_str).collect();
        place.write("network.jsonl", portable(&lines));
        let path = format!("{backend}.db");
        let import = ["import", "portable", "network.jsonl", "--create"];
        let mut all = vec!["--backend", backend, "--path", path.as_str()];
        all.extend(import);
        let mut child = command_in(&place.file(""), &all).spawn().unwrap();
        let log = place.file(&format!("{backend}.db-wal"));
        while child.try_wait().unwrap().is_none()
            && !fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 256 * 1024)
        {
            std::thread::yield_now();
        }
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        // It may have been faster.
        let _ = kill_process(pid, Signal::TERM);
        child.wait().unwrap();
        place.on(backend, &import.join(" ")).ok();
        place.on(backend, "doctor").ok();
        let status = place.on(backend, "status --json").ok().json();
        assert_eq!(status["counts"]["user"], 20_000, "{status}");
    }
}

/// A file system that is full, and has room again.
#[test]
fn a_full_disk_is_told_and_the_process_lives() {
    const DIRECTORY: &str = "SERVE_FULL_DISK";
    if std::env::var_os(DIRECTORY).is_none() {
        let place = Place::new();
        let script =
            "mount -t tmpfs -o size=32m none . || exit 77; exec \"$0\" --exact \"$1\" --nocapture";
        let status = std::process::Command::new("unshare")
            .args(["-m", "sh", "-c", &format!("cd \"$SERVE_FULL_DISK\" && {script}")])
            .arg(std::env::current_exe().unwrap())
            .arg("serve::a_full_disk_is_told_and_the_process_lives")
            .env(DIRECTORY, place.file(""))
            .env("TMPDIR", place.file(""))
            .status();
        // No such program, no such right.
        let Some(code) = status.ok().and_then(|status| status.code()) else { return };
        assert!([0, 1, 77].contains(&code), "{code}");
        return;
    }
    for (backend, place) in stores() {
        let server = Server::ready(&place, backend, HTTP);
        assert_eq!(server.get("/readyz").0, 200);
        let mut filler = fs::File::create(place.file("filler")).unwrap();
        while filler.write_all(&[7; 64 * 1024]).is_ok() {}
        let (status, text) = server.get("/readyz");
        assert!(status == 503 && text.contains("[-] disk_space failed"), "{text}");
        assert!(!text.contains(place.file("").to_str().unwrap()), "no path is told here: {text}");
        assert_eq!(server.get("/livez").0, 200, "a restart makes no room");
        // The probe of before counts for a few seconds.
        while server.get("/readyz/writable").0 == 200 {}
        assert_eq!(server.status()["health"]["last_error"]["kind"], "exhausted");
        filler.set_len(0).unwrap();
        while server.get("/readyz").0 != 200 {}
        server.end();
        place.on(backend, "doctor").ok();
        fs::remove_file(place.file("filler")).unwrap();
    }
}

#[test]
fn a_second_server_is_busy_before_anything_else_is_wrong() {
    let place = Place::new();
    place.init("libsql");
    let first = Server::ready(&place, "libsql", "--set http.listen=127.0.0.1:0");
    let listen = format!("--set http.listen={}", first.address());
    let second = place.on("libsql", &format!("{listen} serve")).ended(75);
    second.warns(&["another process has this store open", "pid"]).omits("serving a store");
    first.end();
}

#[test]
fn the_store_is_looked_at_before_a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--set http.listen={}", taken.local_addr().unwrap());
    let place = Place::new();
    place.on("libsql", &format!("{listen} serve")).ended(4).warns(&["gwstore init"]);
    place.init("libsql");
    place.on("libsql", &format!("{listen} serve")).ended(1).warns(&["address"]);
    // Whoever serves no socket is found, too.
    let server = Server::ready(&place, "libsql", "--set admin.socket=false");
    place.on("libsql", &format!("--set admin.socket=false {listen} serve")).ended(75);
    server.end();
}

#[test]
fn a_socket_without_its_directory_is_told_so() {
    let place = Place::new();
    place.init("libsql");
    let ran = place.on("libsql", "--set admin.path=nowhere/admin.sock serve");
    assert_ne!(ran.code, 0, "{ran:#?}");
    ran.warns(&["nowhere", "admin.path"]).omits("gwstore init");
}

#[test]
fn with_a_log_in_json_how_it_ended_is_json_too() {
    let place = Place::new();
    let ran = place.on("libsql", "--set log.format=json serve").ended(4);
    for line in ran.err.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn metrics_that_are_off_are_said_to_be_off() {
    let place = Place::new();
    place.init("libsql");
    let options = "--set http.listen=127.0.0.1:0 --set telemetry.enabled=false";
    let server = Server::ready(&place, "libsql", options);
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 404);
    assert!(text.contains("telemetry.enabled"), "{text}");
    server.end();
}
