//! Lists what is stored for a user.

use oauth_dance_core::{Entry, Filter, PageRequest, TokensError};

use super::Connector;

impl Connector {
    /// All entries that match a filter, without reading the tokens. Use it for one user, who has few.
    pub(crate) async fn entries(&self, filter: &Filter) -> Result<Vec<Entry>, TokensError> {
        let (mut request, mut entries) = (PageRequest::default(), Vec::new());
        loop {
            let page = self.tokens.list(filter, request.clone()).await?;
            entries.extend(page.entries);
            match page.next {
                Some(next) => request.after = Some(next),
                None => return Ok(entries),
            }
        }
    }
}
