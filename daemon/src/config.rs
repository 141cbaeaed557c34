//! The daemon's configuration: flag > environment > user file > system file > default.
//!
//! Every setting is one [`Key`] with one text form, so that each layer is read the same way and
//! [`Config::table`] can say where a value came from. All problems are collected before any is
//! returned: one start shows everything there is to mend.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use dsk_registry::trust::{SignaturePolicy, TrustConfig};
use dsk_registry::{Keyring, Name, RegistryConfig};
use url::Url;

use crate::{keep_alive::KeepAlive, runner::PATIENCE};

pub mod host;
mod parse;
mod registries;
mod source;
#[cfg(test)]
mod tests;

pub use source::{Env, Files, Origin, ProcessEnv};

use parse::{absolute, boolean, bytes, from_str, list, names, number, registry, runner_timeout};

/// How many requests may wait when nothing says otherwise.
const QUEUE_DEFAULT: usize = 512;
/// A queue longer than this is a mistake.
const QUEUE_MAX: usize = 65_536;
/// More models than this at once is a mistake.
const LOADED_MAX: usize = 1024;
/// A runner that has less time to answer is ended whenever the machine is busy.
const RUNNER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// One that has more keeps its clients waiting for nothing.
const RUNNER_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// How long running requests may go on after the daemon was told to stop.
const DRAIN: Duration = Duration::from_secs(30);

macro_rules! keys {
    ($($(#[$about:meta])* $key:ident $name:literal [$($variable:literal),*];)*) => {
        /// One setting.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Key { $($(#[$about])* $key,)* }

        impl Key {
            /// Every setting, in the order it is shown.
            pub const ALL: &[Key] = &[$(Key::$key),*];

            /// Its name in a configuration file.
            pub fn name(self) -> &'static str {
                match self { $(Key::$key => $name,)* }
            }

            /// The environment variables that set it, the strongest first.
            pub fn variables(self) -> &'static [&'static str] {
                match self { $(Key::$key => &[$($variable),*],)* }
            }
        }
    };
}

keys! {
    /// The folder of everything the daemon keeps.
    Home "home" ["DSK_HOME"];
    /// The folder of blobs and manifests.
    Models "models" ["DSK_MODELS", "OLLAMA_MODELS"];
    /// Whether a models folder that another program filled may be written to.
    Adopt "adopt" ["DSK_ADOPT"];
    /// The TCP address to listen on.
    Host "host" ["DSK_HOST", "OLLAMA_HOST"];
    /// The Unix socket to listen on, or `none`.
    Socket "socket" ["DSK_SOCKET"];
    /// How long an idle model stays resident.
    KeepAlive "keep_alive" ["DSK_KEEP_ALIVE", "OLLAMA_KEEP_ALIVE"];
    /// The least time an idle model stays, whatever its request says.
    KeepAliveMin "keep_alive_min" ["DSK_KEEP_ALIVE_MIN"];
    /// The most.
    KeepAliveMax "keep_alive_max" ["DSK_KEEP_ALIVE_MAX"];
    /// Models that stay once they are loaded, separated by commas.
    Pinned "pinned" ["DSK_PINNED"];
    /// Browser origins allowed beside the built-in ones, separated by commas.
    Origins "origins" ["DSK_ORIGINS", "OLLAMA_ORIGINS"];
    /// The endpoint that serves names without a host.
    Registry "registry" ["DSK_REGISTRY"];
    /// Bytes per second that all pulls together may fetch, such as `10M`; 0 for no limit.
    LimitRate "limit_rate" ["DSK_LIMIT_RATE"];
    /// Hosts that may have addresses of this network, separated by commas.
    PrivateHosts "private_hosts" ["DSK_PRIVATE_HOSTS"];
    /// What is asked of the signatures of models that are pulled: `off`, `warn` or `require`.
    Signatures "signatures" ["DSK_SIGNATURES"];
    /// Files of public keys whose signatures count, separated by commas.
    TrustedKeys "trusted_keys" ["DSK_TRUSTED_KEYS"];
    /// The file that pins each name to what was first pulled as it; empty for none.
    LockFile "lock_file" ["DSK_LOCK_FILE"];
    /// How many models may be resident at once; 0 lets memory decide.
    MaxLoaded "max_loaded" ["DSK_MAX_LOADED", "OLLAMA_MAX_LOADED_MODELS"];
    /// Memory left to other programs: bytes such as `2GiB`; `auto` takes a share of the machine.
    MemoryReserve "memory_reserve" ["DSK_MEMORY_RESERVE"];
    /// How many requests may wait for a model.
    MaxQueue "max_queue" ["DSK_MAX_QUEUE", "OLLAMA_MAX_QUEUE"];
    /// Tokens of context when neither request nor model says; 0 lets the engine decide.
    ContextLength "context_length" ["DSK_CONTEXT_LENGTH", "OLLAMA_CONTEXT_LENGTH"];
    /// How long a working runner may be silent before it is ended as hung.
    RunnerTimeout "runner_timeout" ["DSK_RUNNER_TIMEOUT"];
    /// The log filter: a level, or directives such as `info,dsk_registry=debug`.
    Log "log" ["DSK_LOG"];
    /// How the log is written: `text` or `json`.
    LogFormat "log_format" ["DSK_LOG_FORMAT"];
    /// The user knows that whoever reaches the address can use the daemon.
    InsecureBind "insecure_bind" ["DSK_INSECURE_BIND"];
}

impl Key {
    /// The setting a file calls `name`.
    pub fn find(name: &str) -> Option<Key> {
        Key::ALL.iter().copied().find(|key| key.name() == name)
    }
}

/// What the command line said; it overrides every other layer.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    values: BTreeMap<Key, String>,
}

impl Overrides {
    /// Sets one key when the flag was given.
    pub fn set(&mut self, key: Key, value: Option<impl Into<String>>) -> &mut Overrides {
        if let Some(value) = value {
            self.values.insert(key, value.into());
        }
        self
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line, for programs that gather logs.
    Json,
}

impl LogFormat {
    fn parse(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{text:?} is neither text nor json")),
        }
    }
}

/// What the daemon runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of everything the daemon keeps.
    pub home: PathBuf,
    /// The folder of blobs and manifests, in Ollama's layout.
    pub models: PathBuf,
    /// Whether a models folder that another program filled may be written to.
    pub adopt: bool,
    /// The TCP address.
    pub host: SocketAddr,
    /// The Unix socket, if any.
    pub socket: Option<PathBuf>,
    /// How long an idle model stays resident when its request does not say.
    pub keep_alive: KeepAlive,
    /// The least time an idle model stays, whatever its request says.
    pub keep_alive_min: KeepAlive,
    /// The most.
    pub keep_alive_max: KeepAlive,
    /// Models that stay once they are loaded, until they are unpinned or unloaded.
    pub pinned: Vec<Name>,
    /// Browser origins allowed beside the built-in ones.
    pub origins: Vec<String>,
    /// The endpoint that serves names without a host instead of the public registry.
    pub registry: Option<Url>,
    /// Bytes per second that all pulls together may fetch; `None` for no limit.
    pub limit_rate: Option<u64>,
    /// What is configured about single registries, by host.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Hosts that a registry may lead to although they are inside this network.
    pub private_hosts: Vec<String>,
    /// What is asked of signatures, where a registry has nothing of its own.
    pub trust: TrustConfig,
    /// The file that pins each name to what was first pulled as it.
    pub lock_file: Option<PathBuf>,
    /// Where the credentials of the daemon's user are.
    pub keyring: Keyring,
    /// How many models may be resident; `None` lets memory decide.
    pub max_loaded: Option<usize>,
    /// Bytes of memory left to other programs; `None` takes a share of the machine.
    pub memory_reserve: Option<u64>,
    /// How many requests may wait for a model.
    pub max_queue: usize,
    /// Tokens of context when neither the request nor the model says.
    pub context_length: Option<u32>,
    /// How long a working runner may be silent before it is ended as hung.
    pub runner_timeout: Duration,
    /// The log filter.
    pub log: String,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Whether an address that other machines reach was asked for knowingly.
    pub insecure_bind: bool,
    /// The program started as `PROGRAM runner`; `None` is this one.
    pub runner: Option<PathBuf>,
    /// How long running requests may go on after the daemon was told to stop.
    pub drain: Duration,
    settings: Vec<Setting>,
}

/// One row of [`Config::table`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Which setting.
    pub key: Key,
    /// Its value as text.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where: a flag, a variable, a file and line.
    pub place: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl ConfigProblem {
    fn file(path: &Path, line: usize, message: &str) -> ConfigProblem {
        let place = match line {
            0 => path.display().to_string(),
            line => format!("{}:{line}", path.display()),
        };
        ConfigProblem { place, message: message.to_owned() }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything wrong with the configuration, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<ConfigProblem>);

impl Config {
    /// Reads every layer.
    pub fn load(
        overrides: &Overrides,
        env: &dyn Env,
        files: &Files,
    ) -> Result<Config, ConfigError> {
        let mut layers = Layers::read(overrides, env, files);
        let config = layers.config(env);
        if layers.problems.is_empty() { Ok(config) } else { Err(ConfigError(layers.problems)) }
    }

    /// Every setting with its origin, in a fixed order.
    pub fn table(&self) -> Vec<Setting> {
        self.settings.clone()
    }

    /// The SQLite file of what is derived from the models folder.
    pub fn index_path(&self) -> PathBuf {
        self.home.join("dsk.db")
    }
}

/// The text of every setting that some layer sets, and what was wrong so far.
struct Layers {
    found: BTreeMap<Key, (String, Origin)>,
    registries: BTreeMap<String, RegistryConfig>,
    problems: Vec<ConfigProblem>,
    settings: Vec<Setting>,
    user_home: Option<PathBuf>,
}

impl Layers {
    fn read(overrides: &Overrides, env: &dyn Env, files: &Files) -> Layers {
        let user_home = source::variable(env, "HOME").map(PathBuf::from);
        let mut from_files = source::FromFiles::default();
        // The weakest layer first; a stronger one replaces what it sets.
        for path in [&files.system, &files.user].into_iter().flatten() {
            from_files.read(path, user_home.as_deref());
        }
        let source::FromFiles { settings: mut found, registries, problems } = from_files;
        for key in Key::ALL {
            for name in key.variables().iter().rev() {
                if let Some(value) = source::variable(env, name) {
                    found.insert(*key, (value, Origin::Variable(name)));
                }
            }
        }
        for (key, value) in &overrides.values {
            found.insert(*key, (value.clone(), Origin::Flag));
        }
        Layers { found, registries, problems, settings: Vec::new(), user_home }
    }

    fn config(&mut self, env: &dyn Env) -> Config {
        let home = self.home(env);
        let models = self.path(Key::Models, home.join("models"));
        let adopt = self.parsed(Key::Adopt, "false", boolean);
        let host = self.parsed(Key::Host, "127.0.0.1:11434", host::parse);
        let socket = self.socket(env);
        let keep_alive = self.parsed(Key::KeepAlive, "5m", from_str::<KeepAlive>);
        let least = self.parsed(Key::KeepAliveMin, "0s", from_str::<KeepAlive>);
        let most = self.parsed(Key::KeepAliveMax, "-1", from_str::<KeepAlive>);
        let pinned = self.parsed(Key::Pinned, "", names);
        let origins = self.parsed(Key::Origins, "", |text| Ok(list(text)));
        let registry = self.parsed(Key::Registry, "", registry);
        let limit_rate = self.parsed(Key::LimitRate, "0", bytes);
        let private_hosts = self.parsed(Key::PrivateHosts, "", |text| Ok(list(text)));
        let trust = self.trust();
        let lock_file = self.lock_file();
        let max_loaded = self.parsed(Key::MaxLoaded, "0", |text| number(text, LOADED_MAX));
        let reserve = self.parsed(Key::MemoryReserve, "auto", bytes);
        let queue = QUEUE_DEFAULT.to_string();
        let max_queue = self.parsed(Key::MaxQueue, &queue, |text| number(text, QUEUE_MAX));
        let context = self.parsed(Key::ContextLength, "0", |text| number(text, u32::MAX as usize));
        let runner_timeout = self.parsed(Key::RunnerTimeout, "15s", runner_timeout);
        let log = self.parsed(Key::Log, "info", |text| Ok(text.to_owned()));
        let log_format = self.parsed(Key::LogFormat, "text", LogFormat::parse);
        let insecure_bind = self.parsed(Key::InsecureBind, "false", boolean);
        let config = Config {
            home,
            models,
            adopt: adopt.unwrap_or_default(),
            host: host.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], host::PORT))),
            socket,
            keep_alive: keep_alive.unwrap_or_default(),
            keep_alive_min: least.unwrap_or(KeepAlive::For(Duration::ZERO)),
            keep_alive_max: most.unwrap_or(KeepAlive::Forever),
            pinned: pinned.unwrap_or_default(),
            origins: origins.unwrap_or_default(),
            registry: registry.flatten(),
            limit_rate: limit_rate.flatten().filter(|rate| *rate > 0),
            registries: std::mem::take(&mut self.registries),
            private_hosts: private_hosts.unwrap_or_default(),
            trust,
            lock_file,
            keyring: Keyring::of_user(|name| env.get(name)),
            max_loaded: max_loaded.filter(|limit| *limit > 0),
            memory_reserve: reserve.flatten(),
            max_queue: max_queue.unwrap_or(QUEUE_DEFAULT),
            context_length: context
                .and_then(|tokens| u32::try_from(tokens).ok())
                .filter(|n| *n > 0),
            runner_timeout: runner_timeout.unwrap_or(PATIENCE),
            log: log.unwrap_or_default(),
            log_format: log_format.unwrap_or_default(),
            insecure_bind: insecure_bind.unwrap_or_default(),
            runner: None,
            drain: DRAIN,
            settings: std::mem::take(&mut self.settings),
        };
        self.refuse_exposure(&config);
        self.refuse_contradiction(&config);
        config
    }

    /// There are no API keys yet, so an address that other machines reach must be asked for.
    fn refuse_exposure(&mut self, config: &Config) {
        if config.host.ip().is_loopback() || config.insecure_bind {
            return;
        }
        let origin = config.settings.iter().find(|setting| setting.key == Key::Host);
        let place = origin.map_or_else(String::new, |setting| setting.origin.to_string());
        let message = format!(
            "host {} can be reached by other machines, and anyone who reaches it can use, add and \
             delete models: listen on 127.0.0.1, or accept this with --insecure-bind \
             (insecure_bind = true, DSK_INSECURE_BIND=1)",
            config.host
        );
        self.problems.push(ConfigProblem { place, message });
    }

    fn refuse_contradiction(&mut self, config: &Config) {
        let (least, most) = (config.keep_alive_min, config.keep_alive_max);
        if least > most {
            let message = format!("keep_alive_min {least} is more than keep_alive_max {most}");
            self.problems.push(ConfigProblem { place: "keep_alive_min".to_owned(), message });
        }
    }

    fn home(&mut self, env: &dyn Env) -> PathBuf {
        let below = |variable: &str, tail: &str| {
            let path = PathBuf::from(source::variable(env, variable)?);
            path.is_absolute().then(|| path.join(tail))
        };
        // systemd gives a list when a unit names several folders; the first is ours.
        let state = source::variable(env, "STATE_DIRECTORY")
            .and_then(|list| list.split(':').next().map(PathBuf::from));
        if let (Some(state), false) = (state, self.found.contains_key(&Key::Home)) {
            let text = state.display().to_string();
            self.found.insert(Key::Home, (text, Origin::Variable("STATE_DIRECTORY")));
        }
        let default = below("XDG_DATA_HOME", "dsk").or_else(|| below("HOME", ".local/share/dsk"));
        if default.is_none() && !self.found.contains_key(&Key::Home) {
            self.problems.push(ConfigProblem {
                place: "home".to_owned(),
                message: "neither HOME nor XDG_DATA_HOME is set: say where with DSK_HOME"
                    .to_owned(),
            });
        }
        self.path(Key::Home, default.unwrap_or_default())
    }

    fn socket(&mut self, env: &dyn Env) -> Option<PathBuf> {
        let folder = source::variable(env, "RUNTIME_DIRECTORY")
            .and_then(|list| list.split(':').next().map(PathBuf::from))
            .or_else(|| source::variable(env, "XDG_RUNTIME_DIR").map(PathBuf::from));
        let default = folder.map(|folder| folder.join("dsk.sock"));
        let text = default.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
        let home = self.user_home.clone();
        self.parsed(Key::Socket, &text, |text| match text {
            "none" | "off" => Ok(None),
            path => absolute(path, home.as_deref()).map(Some),
        })?
    }

    fn trust(&mut self) -> TrustConfig {
        let home = self.user_home.clone();
        let signatures = self.parsed(Key::Signatures, "off", from_str::<SignaturePolicy>);
        let keys = self.parsed(Key::TrustedKeys, "", |text| {
            list(text).iter().map(|path| absolute(path, home.as_deref())).collect()
        });
        let (signatures, keys) = (signatures.unwrap_or_default(), keys.unwrap_or_default());
        TrustConfig { signatures, keys }
    }

    fn lock_file(&mut self) -> Option<PathBuf> {
        let home = self.user_home.clone();
        self.parsed(Key::LockFile, "", |text| match text {
            "" => Ok(None),
            path => absolute(path, home.as_deref()).map(Some),
        })?
    }

    fn path(&mut self, key: Key, default: PathBuf) -> PathBuf {
        let home = self.user_home.clone();
        let text = default.display().to_string();
        if !self.found.contains_key(&key) {
            self.show(key, &text, Origin::Default);
            return default;
        }
        self.parsed(key, &text, |text| absolute(text, home.as_deref())).unwrap_or(default)
    }

    /// The typed value of a setting; `None` after its problem was noted.
    fn parsed<T>(
        &mut self,
        key: Key,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let found = self.found.get(&key).cloned();
        let (text, origin) = found.unwrap_or_else(|| (default.to_owned(), Origin::Default));
        self.show(key, &text, origin.clone());
        parse(&text)
            .map_err(|message| {
                let place = origin.to_string();
                let message = format!("{}: {message}", key.name());
                self.problems.push(ConfigProblem { place, message });
            })
            .ok()
    }

    fn show(&mut self, key: Key, value: &str, origin: Origin) {
        self.settings.push(Setting { key, value: value.to_owned(), origin });
    }
}
