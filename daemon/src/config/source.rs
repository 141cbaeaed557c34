//! The layers a setting can come from: the environment as a value, and the TOML files.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use dsk_registry::RegistryConfig;
use toml::de::{DeTable, DeValue};

use super::{ConfigProblem, Key, registries};

/// A configuration file longer than this is a mistake.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The variables a process was started with. A trait, so that tests need not touch the process's own.
pub trait Env {
    /// The value of a variable; `None` when it is unset or not UTF-8.
    fn get(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }
}

/// A variable's value without the spaces and quotes that shells and unit files leave around it.
/// An empty one counts as unset.
pub(super) fn variable(env: &dyn Env, name: &str) -> Option<String> {
    let value = env.get(name)?;
    let value = value.trim().trim_matches(['"', '\'']).trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// The configuration files to read; an absent file is no error.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// `$XDG_CONFIG_HOME/dsk/config.toml`, else below `~/.config`.
    pub user: Option<PathBuf>,
    /// `/etc/dsk/config.toml`.
    pub system: Option<PathBuf>,
}

impl Files {
    /// The files of this machine and user.
    pub fn standard(env: &dyn Env) -> Files {
        let folder = variable(env, "XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| Some(PathBuf::from(variable(env, "HOME")?).join(".config")));
        Files {
            user: folder.map(|folder| folder.join("dsk/config.toml")),
            system: Some(PathBuf::from("/etc/dsk/config.toml")),
        }
    }
}

/// Where a setting's value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A command-line flag.
    Flag,
    /// An environment variable, by name.
    Variable(&'static str),
    /// A line of a configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// Built in.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => f.write_str("flag"),
            Origin::Variable(name) => write!(f, "environment {name}"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// What the files hold, each setting as text with its line; a later file is stronger.
#[derive(Debug, Default)]
pub(super) struct FromFiles {
    pub(super) settings: BTreeMap<Key, (String, Origin)>,
    pub(super) registries: BTreeMap<String, RegistryConfig>,
    pub(super) problems: Vec<ConfigProblem>,
}

impl FromFiles {
    /// Reads one more file. `user_home` is what `~` means in it.
    pub(super) fn read(&mut self, path: &Path, user_home: Option<&Path>) {
        match bounded_text(path) {
            Ok(Some(text)) => self.parse(path, &text, user_home),
            Ok(None) => {}
            Err(error) => self.problem(path, 0, &format!("cannot be read: {error}")),
        }
    }

    fn problem(&mut self, path: &Path, line: usize, message: &str) {
        self.problems.push(ConfigProblem::file(path, line, message));
    }

    fn parse(&mut self, path: &Path, text: &str, user_home: Option<&Path>) {
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let line = error.span().map_or(0, |span| line_of(text, span.start));
                return self.problem(path, line, error.message());
            }
        };
        for (key, value) in &table {
            let line = line_of(text, key.span().start);
            let name = key.get_ref().as_ref();
            match (Key::find(name), value_text(value.get_ref())) {
                _ if name == registries::REGISTRIES => {
                    let found = &mut self.registries;
                    for (at, message) in registries::read(value.get_ref(), user_home, found) {
                        let line = if at == 0 { line } else { line_of(text, at) };
                        self.problem(path, line, &message);
                    }
                }
                (None, _) => self.problem(path, line, &unknown(name)),
                (Some(_), None) => {
                    let message = format!("`{name}` must be a string, a number, true or false");
                    self.problem(path, line, &message);
                }
                (Some(key), Some(text)) => {
                    let origin = Origin::File { path: path.to_owned(), line };
                    self.settings.insert(key, (text, origin));
                }
            }
        }
    }
}

fn bounded_text(path: &Path) -> io::Result<Option<String>> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > FILE_BYTES_MAX {
        let message = format!("{length} bytes are more than the {FILE_BYTES_MAX} allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    std::fs::read_to_string(path).map(Some)
}

fn unknown(name: &str) -> String {
    let known: Vec<_> = Key::ALL.iter().map(|key| key.name()).collect();
    let tables = registries::REGISTRIES;
    format!("unknown key `{name}`; the keys are {} and {tables}", known.join(", "))
}

/// A TOML value as the text a flag or a variable would carry; lists of strings are joined by commas.
fn value_text(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Array(items) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()?
            .join(","),
        _ => return None,
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}
