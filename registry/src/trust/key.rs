//! Public keys from PEM files.

use super::cosign::decode;
use crate::Digest;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    UnparsedPublicKey, VerificationAlgorithm,
};
use std::fmt;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// What the DER of a SubjectPublicKeyInfo begins with for each kind of key; the key itself follows and is
/// this many bytes long. One key has one such form, so nothing needs to be parsed.
const KINDS: [(Kind, &[u8], usize); 3] = [
    (
        Kind::P256,
        &[
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ],
        65,
    ),
    (
        Kind::P384,
        &[
            0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
        ],
        97,
    ),
    (Kind::Ed25519, &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], 32),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
}

/// A key that signatures are verified with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    bytes: Vec<u8>,
    label: String,
}

/// Why a text holds no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A private key, which has no business here.
    #[error("it is a private key; trust the public one, and keep this where nobody reads it")]
    Private,
    /// No block of PEM with a public key.
    #[error("no public key in PEM form (-----BEGIN PUBLIC KEY-----)")]
    None,
    /// A block of PEM that cannot be decoded.
    #[error("a public key in it is malformed")]
    Malformed,
    /// A key that dsk cannot verify with.
    #[error("a public key in it is none of ECDSA P-256, ECDSA P-384, Ed25519")]
    Unsupported,
}

impl PublicKey {
    /// Every public key of a PEM file called `file`.
    pub fn parse_pem(text: &str, file: &str) -> Result<Vec<PublicKey>, KeyError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        let mut keys = Vec::new();
        for block in text.split(BEGIN).skip(1) {
            let (body, _) = block.split_once(END).ok_or(KeyError::Malformed)?;
            let body: String = body.split_ascii_whitespace().collect();
            let der = decode(&body).map_err(|_| KeyError::Malformed)?;
            keys.push(PublicKey::from_der(&der, file)?);
        }
        if keys.is_empty() { Err(KeyError::None) } else { Ok(keys) }
    }

    fn from_der(der: &[u8], file: &str) -> Result<PublicKey, KeyError> {
        let found = KINDS.iter().find_map(|(kind, prefix, length)| {
            let bytes = der.strip_prefix(*prefix)?;
            (bytes.len() == *length).then(|| (*kind, bytes.to_vec()))
        });
        let (kind, bytes) = found.ok_or(KeyError::Unsupported)?;
        let label = format!("key {} ({file})", Digest::of(der).short());
        Ok(PublicKey { kind, bytes, label })
    }

    /// What to call it: the beginning of its SHA-256, and its file.
    pub(crate) fn label(&self) -> String {
        self.label.clone()
    }

    /// Whether the signature over the message is by this key. Tools that sign with P-384 differ in the
    /// hash they take, and either is as good.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithms: &[&'static dyn VerificationAlgorithm] = match self.kind {
            Kind::P256 => &[&ECDSA_P256_SHA256_ASN1],
            Kind::P384 => &[&ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA256_ASN1],
            Kind::Ed25519 => &[&ED25519],
        };
        algorithms.iter().any(|algorithm| {
            UnparsedPublicKey::new(*algorithm, &self.bytes).verify(message, signature).is_ok()
        })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?} {})", self.kind, self.label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with openssl; nobody has their private halves.
    const P256: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE7ErupKN4ZfA/N9PsoesMWo+tnHuW\n\
        kJ2hdzR1E0xV/moIuhc0w9+IbrSPNZYv04vn7tO8l+yD6GqcOHwWgVmHpg==\n\
        -----END PUBLIC KEY-----\n";
    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEATuUj/Zd92iTcstj3cUshwrYScJCUY2b4dOlxkWjkXEw=\n\
        -----END PUBLIC KEY-----\n";

    fn kinds(text: &str) -> Result<Vec<Kind>, KeyError> {
        PublicKey::parse_pem(text, "f.pem").map(|keys| keys.iter().map(|key| key.kind).collect())
    }

    #[test]
    fn keys_of_a_file() {
        let both = format!("a comment\n{P256}{}", ED25519.replace('\n', "\r\n"));
        assert_eq!(kinds(&both), Ok(vec![Kind::P256, Kind::Ed25519]));
        let key = &PublicKey::parse_pem(P256, "f.pem").unwrap()[0];
        assert_eq!(format!("{key:?}"), "PublicKey(P256 key 64f45c1c7f1c (f.pem))");
    }

    #[test]
    fn what_is_no_key() {
        assert_eq!(kinds(""), Err(KeyError::None));
        assert_eq!(kinds(&P256.replace("PUBLIC", "EC PRIVATE")), Err(KeyError::Private));
        assert_eq!(kinds(&P256.replace("END", "FIN")), Err(KeyError::Malformed));
        assert_eq!(kinds(&P256.replace("MFkw", "M!kw")), Err(KeyError::Malformed));
        assert_eq!(kinds(&P256.replace("MFkw", "MFkx")), Err(KeyError::Unsupported));
        assert_eq!(kinds(&P256.replace("MFkwEwYH", "")), Err(KeyError::Unsupported));
    }
}
