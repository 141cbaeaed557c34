//! Model names: `[scheme://][host/][namespace/]model[:tag]`.
//!
//! The rules are those of Ollama, so a name means the same model to both programs: missing parts get
//! defaults, case is kept, and every part is short and plain enough to be a folder's name as it stands.

use crate::digest::excerpt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, net::Ipv6Addr, str::FromStr};

/// The host of a name that states none.
pub const DEFAULT_HOST: &str = "registry.ollama.ai";
/// The namespace of a name that states none.
pub const DEFAULT_NAMESPACE: &str = "library";
/// The tag of a name that states none.
pub const DEFAULT_TAG: &str = "latest";

/// Longest host with its port, in bytes: it becomes one folder's name, and file systems stop there.
const HOST_BYTES_MAX: usize = 255;
/// Longest namespace, model or tag, in bytes.
const PART_BYTES_MAX: usize = 80;
/// Longest text worth looking at, in bytes: a scheme and four full parts with their separators.
const TEXT_BYTES_MAX: usize = 8 + HOST_BYTES_MAX + 3 * PART_BYTES_MAX + 3;

/// A fully qualified model name, valid by construction.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    host: String,
    namespace: String,
    model: String,
    tag: String,
}

/// Why a text is no model name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid model name {text:?}: {fault}")]
pub struct NameError {
    /// The text, shortened when long.
    text: String,
    fault: Fault,
}

/// What is wrong with one part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("the {0} is empty")]
    Empty(Part),
    #[error("the {part} is longer than {max} bytes")]
    Long { part: Part, max: usize },
    #[error("the {part} has {character:?}, which is not allowed there")]
    Character { part: Part, character: char },
    #[error("the host has a malformed port or address")]
    Address,
    #[error("it has more than host/namespace/model")]
    Depth,
}

/// The parts of a name, as errors call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Host,
    Namespace,
    Model,
    Tag,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Host => "host",
            Part::Namespace => "namespace",
            Part::Model => "model",
            Part::Tag => "tag",
        })
    }
}

impl Name {
    /// Parses a name as people write it; a scheme `http://` or `https://` in front is dropped.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        parse(text).map_err(|fault| NameError { text: excerpt(text), fault })
    }

    /// A name from its four parts, each checked.
    pub fn from_parts(
        host: &str,
        namespace: &str,
        model: &str,
        tag: &str,
    ) -> Result<Name, NameError> {
        checked(host, namespace, model, tag).map_err(|fault| NameError {
            text: excerpt(&format!("{host}/{namespace}/{model}:{tag}")),
            fault,
        })
    }

    /// The registry's host, with its port when it has one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The namespace: a user or an organisation, `library` for the official models.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The tag: a size, a quantization, a version.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// All four parts, defaults written out.
    pub fn full(&self) -> String {
        format!("{}/{}/{}:{}", self.host, self.namespace, self.model, self.tag)
    }

    /// The same model under another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Name, NameError> {
        Name::from_parts(&self.host, &self.namespace, &self.model, tag)
    }
}

fn parse(text: &str) -> Result<Name, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::Long { part: Part::Model, max: PART_BYTES_MAX });
    }
    let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
    let (path, last) =
        text.rsplit_once('/').map_or((None, text), |(path, last)| (Some(path), last));
    // Only a colon after the last slash starts a tag; others belong to the host's port.
    let (model, tag) = last.split_once(':').unwrap_or((last, DEFAULT_TAG));
    let (host, namespace) = match path {
        None => (DEFAULT_HOST, DEFAULT_NAMESPACE),
        Some(path) => path.rsplit_once('/').unwrap_or((DEFAULT_HOST, path)),
    };
    if host.contains('/') {
        return Err(Fault::Depth);
    }
    checked(host, namespace, model, tag)
}

fn checked(host: &str, namespace: &str, model: &str, tag: &str) -> Result<Name, Fault> {
    check_host(host)?;
    check_part(Part::Namespace, namespace)?;
    check_part(Part::Model, model)?;
    check_part(Part::Tag, tag)?;
    let [host, namespace, model, tag] = [host, namespace, model, tag].map(str::to_owned);
    Ok(Name { host, namespace, model, tag })
}

/// A DNS name, an IPv4 address or an IPv6 address in brackets, then perhaps a port.
fn check_host(host: &str) -> Result<(), Fault> {
    check_length(Part::Host, host, HOST_BYTES_MAX)?;
    let port = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(Fault::Address)?;
            address.parse::<Ipv6Addr>().map_err(|_| Fault::Address)?;
            port
        }
        None => {
            let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            check_length(Part::Host, name, HOST_BYTES_MAX)?;
            check_characters(Part::Host, name)?;
            port
        }
    };
    if port.is_empty() { Ok(()) } else { check_port(port) }
}

/// `:` and a decimal number that fits a port.
fn check_port(port: &str) -> Result<(), Fault> {
    let digits = port.strip_prefix(':').ok_or(Fault::Address)?;
    let decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
    if decimal && digits.parse::<u16>().is_ok() { Ok(()) } else { Err(Fault::Address) }
}

fn check_part(part: Part, text: &str) -> Result<(), Fault> {
    check_length(part, text, PART_BYTES_MAX)?;
    check_characters(part, text)
}

fn check_length(part: Part, text: &str, max: usize) -> Result<(), Fault> {
    match text.len() {
        0 => Err(Fault::Empty(part)),
        length if length > max => Err(Fault::Long { part, max }),
        _ => Ok(()),
    }
}

/// The first character is a letter, a digit or `_`, which leaves no way to write `.` or `..`.
fn check_characters(part: Part, text: &str) -> Result<(), Fault> {
    let allowed = |(index, character): (usize, char)| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => true,
        '-' => index > 0,
        '.' => index > 0 && part != Part::Namespace,
        _ => false,
    };
    match text.char_indices().find(|&at| !allowed(at)) {
        Some((_, character)) => Err(Fault::Character { part, character }),
        None => Ok(()),
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        Name::parse(text)
    }
}

impl fmt::Display for Name {
    /// The shortest form that parses to the same name, save that the tag is always there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host != DEFAULT_HOST {
            write!(f, "{}/{}/", self.host, self.namespace)?;
        } else if self.namespace != DEFAULT_NAMESPACE {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}:{}", self.model, self.tag)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.full())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        let text = String::deserialize(deserializer)?;
        Name::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
