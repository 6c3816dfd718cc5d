//! A container of the image that is built here.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use testcontainers::bollard::models::PortBinding;
use testcontainers::bollard::query_parameters::KillContainerOptionsBuilder;
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::{CmdWaitFor, ExecCommand, IntoContainerPort as _, Mount};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _, TestcontainersError};

use super::{PASSWORD, Running, USER, Way, free_port, no_disk};
use crate::client::Access;
use crate::guard::Guard;
use crate::server::unique;
use crate::{Certificate, Error, Options, Result};

/// What `deploy/images/build postgres` makes.
const IMAGE: &str = "ghostwire-postgres";
const TAG: &str = "15";
const BUILD: &str = "deploy/images/build postgres";

/// Where the image keeps its data, in a directory below.
const DISK: &str = "/var/lib/postgresql";
const FILLER: &str = "/var/lib/postgresql/filler";

/// How long the engine may take to say that it is there, and to stop a server.
const ENGINE: Duration = Duration::from_secs(5);
const STOP_SECONDS: i32 = 60;

/// A server in a container.
pub(crate) struct Container {
    name: String,
    small_disk: bool,
    /// The guard removes it, in the only way in which that happens.
    container: ManuallyDrop<ContainerAsync<GenericImage>>,
    _guard: Guard,
}

impl Container {
    /// Starts one; whether it answers is for the caller to see.
    pub(crate) async fn start(
        options: &Options,
        certificate: Option<&Certificate>,
    ) -> Result<(Self, Access)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);

        is_there().await?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ghostwire-postgres-{}-{number}", unique());
        let port = free_port()?;
        let memory = options.memory_mib.map(|size| i64::from(size) << 20);
        let settings = options
            .settings
            .iter()
            .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]);
        let mut request = GenericImage::new(IMAGE, TAG)
            .with_container_name(&name)
            .with_env_var("POSTGRES_USER", USER)
            .with_env_var("POSTGRES_PASSWORD", PASSWORD)
            // Only of what initdb makes; the server syncs as it always does.
            .with_env_var("POSTGRES_INITDB_ARGS", "--no-sync")
            .with_cmd(settings)
            .with_mapped_port(port, 5432.tcp())
            .with_host_config_modifier(move |host| {
                host.memory = memory;
                // No swap beside it.
                host.memory_swap = memory;
                // Nobody else on the network is to reach it.
                let here = PortBinding {
                    host_ip: Some("127.0.0.1".to_owned()),
                    host_port: Some(port.to_string()),
                };
                host.port_bindings =
                    Some(HashMap::from([("5432/tcp".to_owned(), Some(vec![here]))]));
            });
        if let Some(certificate) = certificate {
            request = request
                .with_env_var("POSTGRES_TLS_CERTIFICATE", certificate.pem())
                .with_env_var("POSTGRES_TLS_KEY", certificate.key_pem());
        }
        if let Some(size) = options.disk_mib {
            let disk = Mount::tmpfs_mount(DISK).with_size_bytes(i64::from(size) << 20);
            request = request.with_mount(disk.with_mode(0o1777));
        }
        let guard = Guard::start("docker rm --force --volumes \"$1\"", [&name])?;
        let container = request.start().await.map_err(|error| engine(&name, &error))?;
        let access = Access {
            host: "127.0.0.1".to_owned(),
            port,
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
        };
        let small_disk = options.disk_mib.is_some();
        Ok((
            Self { name, small_disk, container: ManuallyDrop::new(container), _guard: guard },
            access,
        ))
    }

    fn keeps_its_disk(&self) -> Result<()> {
        if self.small_disk {
            return Err(Error::new(
                "a small disk in a container is lost when that stops; use Way::Installed for it",
            ));
        }
        Ok(())
    }

    async fn run(&self, script: &str) -> Result<()> {
        let command = ExecCommand::new(["sh", "-c", script]);
        let ran = self.container.exec(command.with_cmd_ready_condition(CmdWaitFor::exit_code(0)));
        ran.await.map(|_| ()).map_err(|error| engine(&self.name, &error))
    }
}

#[async_trait]
impl Running for Container {
    fn way(&self) -> Way {
        Way::Container
    }

    fn origin(&self) -> String {
        format!("in the container {}", self.name)
    }

    async fn has_ended(&self) -> Result<bool> {
        let running = self.container.is_running().await;
        running.map(|running| !running).map_err(|error| engine(&self.name, &error))
    }

    async fn log(&self) -> Result<String> {
        let log = self.container.stderr_to_vec().await;
        let log = log.map_err(|error| engine(&self.name, &error))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    async fn stop(&self) -> Result<()> {
        self.keeps_its_disk()?;
        let stopped = self.container.stop_with_timeout(Some(STOP_SECONDS)).await;
        stopped.map_err(|error| engine(&self.name, &error))
    }

    async fn kill(&self) -> Result<()> {
        self.keeps_its_disk()?;
        let engine =
            docker_client_instance().await.map_err(|error| Error::of(&self.name, error))?;
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        let killed = engine.kill_container(&self.name, Some(options)).await;
        killed.map_err(|error| Error::of(&self.name, error))
    }

    async fn start_again(&self) -> Result<()> {
        self.container.start().await.map_err(|error| engine(&self.name, &error))
    }

    async fn pause(&self) -> Result<()> {
        self.container.pause().await.map_err(|error| engine(&self.name, &error))
    }

    async fn resume(&self) -> Result<()> {
        self.container.unpause().await.map_err(|error| engine(&self.name, &error))
    }

    async fn fill_disk(&self) -> Result<()> {
        if !self.small_disk {
            return Err(no_disk());
        }
        self.run(&format!("dd if=/dev/zero of={FILLER} bs=64k || true")).await
    }

    async fn free_disk(&self) -> Result<()> {
        self.run(&format!("rm {FILLER}")).await
    }
}

// What is inside shows what it was started with, the password too.
impl std::fmt::Debug for Container {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Container").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether there is an engine with the image, and the command that the guard uses. Nothing is
/// pulled: `testcontainers` would try to if the image were missing.
async fn is_there() -> Result<()> {
    let engine =
        docker_client_instance().await.map_err(|error| Error::of("no container engine", error))?;
    match tokio::time::timeout(ENGINE, engine.ping()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(Error::of("no container engine answers", error)),
        Err(_) => return Err(Error::new("the container engine does not answer")),
    }
    if engine.inspect_image(&format!("{IMAGE}:{TAG}")).await.is_err() {
        return Err(Error::new(format!(
            "there is a container engine, but not the image {IMAGE}:{TAG}, which this makes: {BUILD}"
        )));
    }
    let mut docker = Command::new("docker");
    let docker = docker.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status();
    match docker {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Error::new(
            "there is a container engine, but no docker command, which removes containers",
        )),
    }
}

fn engine(name: &str, error: &TestcontainersError) -> Error {
    Error::of(format!("container {name}"), error)
}
