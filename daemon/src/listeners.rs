//! The sockets the daemon listens on: its address, its Unix socket, or those systemd hands over.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Config;

/// How long whoever holds the port may take to say who they are.
const PROBE: Duration = Duration::from_millis(500);

/// Bound sockets, ready to be served.
#[derive(Debug, Default)]
pub struct Listeners {
    pub(crate) tcp: Vec<TcpListener>,
    pub(crate) unix: Vec<OwnedSocket>,
}

/// Who sent a request; every request carries it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp {
        /// The client's address.
        client: SocketAddr,
        /// The address it connected to.
        server: SocketAddr,
    },
    /// Over the Unix socket: a process of a user who may open it.
    Unix,
}

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has the port.
    #[error("{address} is in use{}: stop that program, or listen elsewhere with DSK_HOST", .ollama)]
    InUse {
        /// The address.
        address: SocketAddr,
        /// ` by Ollama (it answers "Ollama is running")` or nothing.
        ollama: &'static str,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A daemon answers on the Unix socket.
    #[error("another daemon answers on {0}: stop it, or choose another socket with DSK_SOCKET")]
    SocketInUse(PathBuf),
    /// The Unix socket cannot be made.
    #[error("cannot listen on the socket {path}: {source}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What systemd handed over cannot be used.
    #[error("the sockets of the service manager cannot be used: {0}")]
    Inherited(#[source] io::Error),
}

/// A Unix listener and, when the daemon made it, its file, which goes with it.
#[derive(Debug)]
pub(crate) struct OwnedSocket {
    pub(crate) listener: UnixListener,
    path: Option<PathBuf>,
}

impl Drop for OwnedSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Listeners {
    /// The sockets of the service manager when it hands any over, else those of the configuration.
    pub async fn bind(config: &Config) -> Result<Listeners, ListenError> {
        let inherited = Listeners::inherited(ListenFd::from_env());
        let mut listeners = inherited.map_err(ListenError::Inherited)?;
        if listeners.tcp.is_empty() && listeners.unix.is_empty() {
            listeners.tcp.push(bind_tcp(config.host).await?);
            if let Some(path) = &config.socket {
                listeners.unix.push(bind_unix(path).await?);
            }
        }
        Ok(listeners)
    }

    /// One TCP listener that is bound already; tests bind port 0.
    pub fn from_tcp(listener: TcpListener) -> Listeners {
        Listeners { tcp: vec![listener], unix: Vec::new() }
    }

    /// The TCP addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// All of it in words.
    pub fn describe(&self) -> String {
        let tcp = self.addresses().into_iter().map(|address| format!("http://{address}"));
        let unix = self.unix.iter().filter_map(|socket| {
            let address = socket.listener.local_addr().ok()?;
            let bound = socket.path.as_deref().or(address.as_pathname())?;
            Some(bound.display().to_string())
        });
        tcp.chain(unix).collect::<Vec<_>>().join(" and ")
    }

    fn inherited(mut handed: ListenFd) -> io::Result<Listeners> {
        let mut listeners = Listeners::default();
        for index in 0..handed.len() {
            if let Ok(Some(listener)) = handed.take_tcp_listener(index) {
                listener.set_nonblocking(true)?;
                listeners.tcp.push(TcpListener::from_std(listener)?);
            } else if let Some(listener) = handed.take_unix_listener(index)? {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                // The file is the service manager's.
                listeners.unix.push(OwnedSocket { listener, path: None });
            }
        }
        Ok(listeners)
    }
}

async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let probe = tokio::task::spawn_blocking(move || is_ollama(address));
            let ollama = match probe.await.unwrap_or(false) {
                true => " by Ollama or another dsk (it answers \"Ollama is running\")",
                false => "",
            };
            Err(ListenError::InUse { address, ollama })
        }
        Err(source) => Err(ListenError::Address { address, source }),
    }
}

/// Whether whoever listens there answers as Ollama does.
fn is_ollama(address: SocketAddr) -> bool {
    let ask = || -> io::Result<Vec<u8>> {
        let mut stream = std::net::TcpStream::connect_timeout(&address, PROBE)?;
        stream.set_read_timeout(Some(PROBE))?;
        stream.set_write_timeout(Some(PROBE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        let _ = stream.take(4096).read_to_end(&mut answer);
        Ok(answer)
    };
    ask().is_ok_and(|answer| String::from_utf8_lossy(&answer).contains("Ollama is running"))
}

/// Binds a Unix socket that only this user may open, in place of one that nobody answers on.
async fn bind_unix(path: &Path) -> Result<OwnedSocket, ListenError> {
    let failed = |source| ListenError::Socket { path: path.to_owned(), source };
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        return Err(ListenError::SocketInUse(path.to_owned()));
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !is_socket(&metadata) => {
            let error =
                io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name");
            return Err(failed(error));
        }
        _ => {}
    }
    // Its rights are set before it has its name, so that nobody gets in between.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let made = (|| {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&fresh, path)?;
        Ok(listener)
    })();
    let listener = made.map_err(|error| {
        let _ = std::fs::remove_file(&fresh);
        failed(error)
    })?;
    Ok(OwnedSocket { listener, path: Some(path.to_owned()) })
}

fn is_socket(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_socket()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_says_so_and_knows_ollama() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let answers = std::thread::spawn(move || {
            let (mut stream, _) = other.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nOllama is running").unwrap();
        });
        let error = bind_tcp(address).await.unwrap_err().to_string();
        answers.join().unwrap();
        assert!(error.starts_with(&format!("{address} is in use by Ollama")), "{error}");
        assert!(error.contains("DSK_HOST"), "{error}");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/dsk.sock");
        let first = bind_unix(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = bind_unix(&path).await.unwrap_err();
        assert!(matches!(error, ListenError::SocketInUse(_)), "{error}");

        // A daemon that was killed leaves its file.
        let mut first = first;
        first.path = None;
        drop(first);
        assert!(path.exists());
        let second = bind_unix(&path).await.unwrap();
        assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_sockets_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dsk.sock");
        std::fs::write(&path, "mine").unwrap();
        let error = bind_unix(&path).await.unwrap_err().to_string();
        assert!(error.contains("there is a file of that name"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
