//! Whether somebody speaks TLS at an address: what decides about plain HTTP where both are allowed.

use super::{
    ClientError,
    error::causes,
    session::{Session, refused_address},
};
use reqwest::Error;
use rustls::Error as TlsError;

impl Session<'_> {
    /// Any answer over TLS will do, whatever it says: whoever gives one is never spoken to without it. Only
    /// where there is no connection, or no TLS on it, nobody speaks it. An error is a server that does and
    /// cannot be trusted, which plain HTTP would only hide.
    pub(super) async fn speaks_tls(&self) -> Result<bool, ClientError> {
        let (origin, limits) = (self.origin(), self.limits());
        let asked = origin.route.http(&origin.base).get(origin.base.clone()).send();
        // A connection has its own limit: when that is over, it stands.
        match tokio::time::timeout(limits.connect + limits.stall, asked).await {
            Ok(Err(error)) if error.is_connect() => match tls_fault(&error) {
                None if refused_address(&error).is_none() => Ok(false),
                Some(TlsError::InvalidMessage(_)) => Ok(false),
                _ => Err(self.broken(&error).error),
            },
            _ => Ok(true),
        }
    }
}

/// What was wrong with TLS, if that is among the causes.
fn tls_fault(error: &Error) -> Option<&TlsError> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Why a registry's certificate is not believed and what to do, if that is what went wrong.
pub(super) fn distrust(error: &Error, host: &str) -> Option<String> {
    let fault =
        tls_fault(error).filter(|fault| matches!(fault, TlsError::InvalidCertificate(_)))?;
    Some(format!(
        "its certificate is not trusted ({fault}); if it is right, name the file of the certificate \
         that signs it as ca under [registries.\"{host}\"] in the configuration"
    ))
}
