//! The tables of single registries, `[registries."host"]`, which only files can hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use dsk_registry::{Name, Proxy, RegistryConfig, canonical_host};
use toml::de::{DeTable, DeValue};
use url::Url;

use super::parse::{absolute, registry};

/// The key of the tables.
pub(super) const REGISTRIES: &str = "registries";
/// What a table may hold.
const KEYS: &str = "insecure, ca, mirrors, realms, proxy, signatures, trusted_keys";

/// Something wrong with a table: where it stands in the text, and what.
pub(super) type Problem = (usize, String);

/// Reads all tables into `found`, over what a weaker file had for the same hosts.
pub(super) fn read(
    value: &DeValue<'_>,
    user_home: Option<&Path>,
    found: &mut BTreeMap<String, RegistryConfig>,
) -> Vec<Problem> {
    let DeValue::Table(tables) = value else {
        return vec![(0, format!("`{REGISTRIES}` is written as tables: [registries.\"host\"]"))];
    };
    let (mut problems, mut canonical) = (Vec::new(), BTreeSet::new());
    for (host, table) in tables {
        let (text, at) = (host.get_ref().as_ref(), host.span().start);
        match table.get_ref() {
            _ if Name::from_parts(text, "a", "a", "a").is_err() => {
                let message = format!("{text:?} is no host, which is HOST or HOST:PORT");
                problems.push((at, message));
            }
            DeValue::Table(_) if !canonical.insert(canonical_host(text)) => {
                let message = format!(
                    "registries.{text:?}: another table is for the same registry; keep one of them"
                );
                problems.push((at, message));
            }
            DeValue::Table(table) => {
                let config = one(text, table, user_home, &mut problems);
                found.retain(|other, _| canonical_host(other) != canonical_host(text));
                found.insert(text.to_ascii_lowercase(), config);
            }
            _ => problems.push((at, format!("write [registries.{text:?}] and its keys below"))),
        }
    }
    problems
}

fn one(
    host: &str,
    table: &DeTable<'_>,
    user_home: Option<&Path>,
    problems: &mut Vec<Problem>,
) -> RegistryConfig {
    let mut config = RegistryConfig::default();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        if let Err(message) = set(&mut config, name, value.get_ref(), user_home) {
            let message = format!("registries.{host:?}.{name}: {message}");
            problems.push((key.span().start, message));
        }
    }
    config
}

fn set(
    config: &mut RegistryConfig,
    key: &str,
    value: &DeValue<'_>,
    user_home: Option<&Path>,
) -> Result<(), String> {
    match (key, value) {
        ("insecure", DeValue::Boolean(insecure)) => config.insecure = *insecure,
        ("ca", DeValue::String(path)) => config.ca = Some(file(path, user_home)?),
        ("mirrors", DeValue::Array(_)) => {
            let addresses = strings(value)?.into_iter().map(|text| address(&text));
            config.mirrors = addresses.collect::<Result<_, _>>()?;
        }
        ("realms", DeValue::Array(_)) => config.realms = strings(value)?,
        ("proxy", DeValue::String(text)) if text == "none" => config.proxy = Proxy::Direct,
        ("proxy", DeValue::String(text)) => config.proxy = Proxy::Through(address(text)?),
        ("signatures", DeValue::String(text)) => config.trust.signatures = Some(text.parse()?),
        ("trusted_keys", DeValue::Array(_)) => {
            let files = strings(value)?.into_iter().map(|text| file(&text, user_home));
            config.trust.keys = Some(files.collect::<Result<_, _>>()?);
        }
        ("insecure", _) => return Err("must be true or false".to_owned()),
        ("ca", _) => return Err("must be the path of a PEM file".to_owned()),
        ("signatures", _) => return Err("must be \"off\", \"warn\" or \"require\"".to_owned()),
        ("mirrors" | "realms" | "trusted_keys", _) => {
            return Err("must be a list of strings".to_owned());
        }
        ("proxy", _) => return Err("must be an address or \"none\"".to_owned()),
        _ => return Err(format!("unknown key; the keys are {KEYS}")),
    }
    Ok(())
}

fn file(text: &str, user_home: Option<&Path>) -> Result<PathBuf, String> {
    absolute(text, user_home)
}

fn address(text: &str) -> Result<Url, String> {
    registry(text)?.ok_or_else(|| "an address is empty".to_owned())
}

fn strings(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let DeValue::Array(items) = value else { return Ok(Vec::new()) };
    let text = |item: &DeValue<'_>| match item {
        DeValue::String(text) => Ok(text.to_string()),
        _ => Err("must be a list of strings".to_owned()),
    };
    items.iter().map(|item| text(item.get_ref())).collect()
}
