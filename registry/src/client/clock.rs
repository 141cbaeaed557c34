//! What a registry says the time is: a wrong clock here breaks certificates and tokens.

use reqwest::header::DATE;
use url::Url;

use super::{Client, ClientError};
use crate::DEFAULT_HOST;

impl Client {
    /// The `Date` of the registry's answer, as it wrote it (RFC 9110); none where it sent none.
    pub async fn date(&self) -> Result<Option<String>, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable {
            host: self.registry.as_ref().map_or_else(|| DEFAULT_HOST.to_owned(), Url::to_string),
            reason,
        };
        let base = match &self.registry {
            Some(registry) => registry.clone(),
            None => Url::parse(&format!("https://{DEFAULT_HOST}"))
                .map_err(|error| unreachable(error.to_string()))?,
        };
        let url = base.join("/v2/").map_err(|error| unreachable(error.to_string()))?;
        let http = self.registries.of(&super::endpoint::host_of(&base)).http(&url);
        let answer = http.head(url).timeout(self.limits.connect).send().await;
        let answer = answer.map_err(|error| unreachable(super::error::chain(&error)))?;
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
        Ok(date.map(str::to_owned))
    }
}
