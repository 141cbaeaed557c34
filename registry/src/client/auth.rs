//! Signing in: what a registry asks for, what this machine has to show, and the tokens in between.
//!
//! A 401 carries challenges ([`challenge`]). What answers them comes from a [`Keyring`]: Docker's and
//! podman's files and their helpers ([`docker`], [`helper`]), an OpenSSH key that signs requests for
//! tokens as Ollama's registry wants it ([`key`]), a token of Hugging Face's. Every secret belongs to one
//! host and is sent to no other; a token lasts as long as its giver says ([`token`]).

mod challenge;
mod docker;
mod helper;
mod key;
mod keyring;
mod token;

pub(super) use challenge::{Bearer, Challenge, Realm};
#[cfg(test)]
pub(super) use helper::write_program;
pub(super) use key::SigningKey;
#[cfg(test)]
pub(super) use key::TEST_KEY;
pub use keyring::Keyring;
pub(super) use keyring::{Place, Secret};
pub(super) use token::{ANSWER_BYTES_MAX, Grant, Grants, State, token_in};

/// What there is to show for one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    /// A name and a password.
    Password { user: String, password: Secret },
    /// What the registry's token server exchanges for a token.
    Identity(Secret),
    /// A token as it is.
    Token(Secret),
}
