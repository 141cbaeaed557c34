//! Tokens for a signature: how Ollama's registry and Hugging Face know who asks.
//!
//! The request for a token carries the public key and its signature over the method, the whole URL and
//! the hash of the empty body. The URL names the host, so a signature is of no use anywhere else.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ssh_key::{Algorithm, PrivateKey};
use std::{fmt, fs::File, io::Read, path::Path};
use url::Url;

/// Longest key file, in bytes; an ed25519 key takes about 400.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// An ed25519 key in OpenSSH's form.
pub(in crate::client) struct SigningKey(PrivateKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// Reads a key file; None when there is none. The error says what is wrong with the one there is.
    pub(in crate::client) fn read(path: &Path) -> Result<Option<SigningKey>, String> {
        let wrong = |what: &dyn fmt::Display| format!("the key {} {what}", path.display());
        let mut bytes = Vec::new();
        let read = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
            Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes),
        };
        read.map_err(|error| wrong(&format_args!("cannot be read: {error}")))?;
        let key = PrivateKey::from_openssh(&bytes)
            .map_err(|error| wrong(&format_args!("is no ed25519 key of OpenSSH's: {error}")))?;
        match (key.is_encrypted(), key.algorithm()) {
            (true, _) => Err(wrong(&"has a passphrase, which nobody is here to type")),
            (false, Algorithm::Ed25519) => Ok(Some(SigningKey(key))),
            (false, other) => Err(wrong(&format_args!("is {other}; it must be ed25519"))),
        }
    }

    /// The `Authorization` header of a GET of `url`; None only if the key cannot sign.
    pub(in crate::client) fn authorization(&self, url: &Url) -> Option<String> {
        let nothing = BASE64.encode(crate::Digest::of(b"").hex());
        let text = format!("GET,{url},{nothing}");
        let signature = sign(&self.0, text.as_bytes())?;
        let public = self.0.public_key().to_bytes().ok()?;
        Some(format!("{}:{}", BASE64.encode(public), BASE64.encode(signature.as_bytes())))
    }
}

/// The trait with the method is another crate's; as a bound of this one it need not be named.
fn sign(key: &impl ssh_key::SigningKey, text: &[u8]) -> Option<ssh_key::Signature> {
    key.try_sign(text).ok()
}

/// A key made for the tests of this crate, which opens nothing.
#[cfg(test)]
pub(in crate::client) const TEST_KEY: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDn0/5z4TLvN1MkxgvJwOAgJjFKhpREIQG2MZDbfqQVYQAAAIgK+AEZCvgB
GQAAAAtzc2gtZWQyNTUxOQAAACDn0/5z4TLvN1MkxgvJwOAgJjFKhpREIQG2MZDbfqQVYQ
AAAEABSoEpH5WlpIAQvjrRBCICAPQjztNICoYCuFc8/SAhY+fT/nPhMu83UyTGC8nA4CAm
MUqGlEQhAbYxkNt+pBVhAAAABHRlc3QB
-----END OPENSSH PRIVATE KEY-----
";

#[cfg(test)]
mod tests {
    use super::*;

    /// Made once with `ssh-keygen -t ed25519 -N secret` and `ssh-keygen -t ecdsa`.
    const ENCRYPTED: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABBQF7lg4p
ymQPePGd8RtZCfAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIF69udy9O2G5nQsO
QF6cxOLdI5UyVSwsrTyTbYbArP1SAAAAkCOmVpUw5SxCxjXu1YJyCiMbOPbZIzaijGb1X1
bTE5IgF0tySs8cO6eNy7n0enYzc8kRf339kG0hAunSBWrZELyLbetT93OzQuvXPqDB/ulW
rWJRAGoAM7Ep5vzn4li1vt9EoxRO3F9oAOzI7KzvpkQLxBn6yZiJl+McqSbWEtHT8THoIM
RRbd0XEQFxBFt95A==
-----END OPENSSH PRIVATE KEY-----
";
    const ECDSA: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQRsLey+bRqKHCoSIo5FR5HZrTcafPJ5
D2MOsaBryQJlc8N41Zf8APM5ck3v2B7uzcEKaVCI6Mh3z8RmuJscBELoAAAAoFBDpUJQQ6
VCAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGwt7L5tGoocKhIi
jkVHkdmtNxp88nkPYw6xoGvJAmVzw3jVl/wA8zlyTe/YHu7NwQppUIjoyHfPxGa4mxwEQu
gAAAAhANqv/HH4PKP7j344FkmkXz926GYmvH8yEIvommWW+thfAAAAB3Jvb3RAdm0=
-----END OPENSSH PRIVATE KEY-----
";

    fn read(text: &str) -> Result<Option<SigningKey>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id_ed25519");
        std::fs::write(&path, text).unwrap();
        SigningKey::read(&path).map_err(|error| error.replace(path.to_str().unwrap(), "KEY"))
    }

    #[test]
    fn a_signature_is_the_one_that_another_implementation_makes() {
        let key = read(TEST_KEY).unwrap().unwrap();
        let url = Url::parse("https://r.example/token?service=s&ts=1").unwrap();
        // By Python's `cryptography` over the same text; ed25519 leaves no choice.
        let expected = "AAAAC3NzaC1lZDI1NTE5AAAAIOfT/nPhMu83UyTGC8nA4CAmMUqGlEQhAbYxkNt+pBVh:\
                        zKrLlKUv9sPTF4mXYcgg7RgybHC+Oh+mcyTWQ8FgjQXIbFYEMjjx2XAWLVPrM+KA2iNTy+vYQu0U\
                        ZHkfJjIhAw==";
        assert_eq!(key.authorization(&url).as_deref(), Some(expected));
    }

    #[test]
    fn a_key_that_cannot_be_used_is_an_error_that_says_why() {
        let refused = |text: &str| read(text).unwrap_err();
        assert!(refused(ENCRYPTED).contains("has a passphrase"), "{}", refused(ENCRYPTED));
        assert!(refused(ECDSA).contains("is no ed25519 key"), "{}", refused(ECDSA));
        assert!(refused("ssh-ed25519 AAAA").contains("KEY is no ed25519 key of OpenSSH's"));
        assert!(SigningKey::read(Path::new("/nowhere/id_ed25519")).unwrap().is_none());
    }
}
