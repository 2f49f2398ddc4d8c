//! Goes through all connections to a provider, page by page, and calls the API for each user.

use oauth_dance::{BoxError, Connector, Filter, PageRequest};
use serde_json::Value;

/// What a pass has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Visited {
    /// The number of items found.
    pub items: usize,
    /// The number of users who have to connect the account again.
    pub waiting: usize,
}

/// Counts the items at `path`, a list, for each user who has connected an account at this provider.
///
/// # Errors
/// If the storage fails. A user whose account has to be connected again is only counted.
pub async fn visit(connector: &Connector, provider: &str, path: &str) -> Result<Visited, BoxError> {
    let (filter, mut request) = (Filter::everything().provider(provider), PageRequest::default());
    let mut visited = Visited::default();
    loop {
        let page = connector.tokens().list(&filter, request.clone()).await?;
        let keys: Vec<_> = page.entries.into_iter().map(|entry| entry.key).collect();
        for client in connector.clients(&keys).await {
            let response = match client {
                Ok(client) => client.get(path).send().await?.success(),
                Err(error) if error.needs_login() => {
                    visited.waiting += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match response {
                Ok(response) => visited.items += response.json::<Vec<Value>>()?.len(),
                Err(error) if error.needs_authorization() => visited.waiting += 1,
                Err(error) => return Err(error.into()),
            }
        }
        match page.next {
            Some(next) => request.after = Some(next),
            None => return Ok(visited),
        }
    }
}
