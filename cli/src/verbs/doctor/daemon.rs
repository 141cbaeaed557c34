//! Whether the daemon answers, and who else holds its port.

use std::path::Path;
use std::time::Duration;

use dsk_daemon::hardware::Machine;
use dsk_daemon_api::{ClientError, Endpoint};

use super::{Finding, service};
use crate::connection::Connection;
use crate::verbs::version::OURS;

const CHECK: &str = "daemon";
/// Longer than the daemon itself waits for its drivers; then this command looks for itself.
const MACHINE_TIMEOUT: Duration = Duration::from_secs(8);

/// Looks at whoever listens where the daemon should.
pub(super) async fn daemon(connection: &Connection) -> Finding {
    let endpoint = &connection.target.endpoint;
    let ollama = match connection.client.version().await {
        Ok(answer) => answer.version,
        Err(ClientError::Unreachable { .. }) => {
            let origin = connection.target.origin.map(|origin| format!(" (named by {origin})"));
            let detail = format!("none answers at {endpoint}{}", origin.unwrap_or_default());
            return Finding::warn(CHECK, detail, "start it with: dsk serve");
        }
        Err(error) => return foreign(endpoint, &format!("something that is no daemon: {error}")),
    };
    match connection.client.dsk_version().await {
        Ok(daemon) if daemon.version == OURS => {
            Finding::ok(CHECK, format!("dsk {OURS} answers at {endpoint}"))
        }
        Ok(daemon) => Finding::warn(
            CHECK,
            format!("dsk {} answers at {endpoint}, this command is {OURS}", daemon.version),
            "restart the daemon with this version",
        ),
        Err(_) => foreign(endpoint, &format!("not dsk but Ollama {ollama}, by its answer")),
    }
}

/// The machine as the daemon may use it: a service's limits are not those of this command. `None`
/// when no daemon tells, or one of another version.
pub(super) async fn machine(connection: &Connection) -> Option<Machine> {
    if !connection.target.is_local() {
        return None;
    }
    let answer = tokio::time::timeout(MACHINE_TIMEOUT, connection.client.machine()).await.ok()?;
    serde_json::from_value(answer.ok()?).ok()
}

/// The daemon's process, where it is one of this machine.
pub(super) async fn process(connection: &Connection) -> Option<u32> {
    if !connection.target.is_local() {
        return None;
    }
    connection.client.status().await.ok().map(|status| status.pid)
}

fn foreign(endpoint: &Endpoint, who: &str) -> Finding {
    let port = match endpoint {
        Endpoint::Tcp(url) => url.port_or_known_default(),
        Endpoint::Unix(_) => None,
    };
    let holder = port.and_then(|port| service::holder(Path::new("/proc"), port));
    let holder = holder.map_or_else(String::new, |holder| format!("; {holder} listens there"));
    Finding::fail(
        CHECK,
        format!("{endpoint} is held by {who}{holder}"),
        "stop that program, or give dsk another address with DSK_HOST",
    )
}
