//! Generates keys, and wraps them.

use clap::Args;
use oauth_dance_core::{AgeProvider, KeyLoader, SealingKey};
use zeroize::Zeroizing;

use super::{AgeArgs, KeysError};

/// What wraps a new key. Nothing, if neither is named.
#[derive(Args, Clone, Debug, Default)]
pub struct WrapArgs {
    /// What unwraps keys, and wraps a new one if there is no recipient.
    #[command(flatten)]
    pub age: AgeArgs,
    /// Wrap the new key for this age recipient, such as age1…; can be repeated. The default is that of --age-identity
    #[arg(long, value_name = "RECIPIENT")]
    pub age_recipient: Vec<String>,
}

/// A new key.
pub(crate) struct NewKey {
    pub(crate) id: String,
    /// The line of a key file, which is secret unless the key is wrapped.
    pub(crate) line: Zeroizing<String>,
}

impl WrapArgs {
    /// Whether a new key is wrapped.
    pub(crate) fn is_wrapping(&self) -> bool {
        !self.age_recipient.is_empty() || self.age.identity().is_some()
    }

    /// Generates a key, and wraps it. If there is an identity, it has unwrapped the key again.
    pub(crate) async fn new_key(&self) -> Result<NewKey, KeysError> {
        let key = SealingKey::generate();
        let id = key.id();
        if !self.is_wrapping() {
            return Ok(NewKey { id, line: key.encode() });
        }
        let not_wrapped = |source| KeysError::NotWrapped { source };
        let identity = self.age.identity();
        let provider = match identity {
            Some(identity) => AgeProvider::new(identity).with_recipients(self.age_recipient.iter().cloned()),
            None => AgeProvider::wrapping(self.age_recipient.iter().cloned()),
        };
        let loader = KeyLoader::new(provider);
        let line = Zeroizing::new(loader.wrap(&key).await.map_err(not_wrapped)?.to_string());
        if identity.is_some() {
            loader.load(&line).await.map_err(not_wrapped)?;
        }
        Ok(NewKey { id, line })
    }
}
