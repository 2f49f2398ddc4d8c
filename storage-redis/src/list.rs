//! Lists in pages, on the sorted sets of the buckets.
//!
//! A list walks the indexes in the order of buckets and members. No write changes this order, so no entry is skipped or
//! repeated. Members are read first, and then the headers of their records, because a name may outlive its record.
//! Requests to different buckets are sent together, so that the number of round trips does not depend on the number of
//! buckets.

use std::collections::VecDeque;

use futures_util::future::try_join_all;
use oauth_dance_core::{Cursor, Entry, Filter, Page, PageRequest, Record, StorageError, TokenKey, Version};
use redis::{Cmd, Value};
use tokio::time::Instant;

use crate::error::{Failure, UNEXPECTED, integer};
use crate::layout::{Bucket, Layout, Place, escape, key_of};
use crate::record::{HEADER_GUESS, Header};
use crate::servers::{Request, Servers};

/// The maximum number of entries of one page.
const MAX_PAGE: usize = 1000;

/// The range of one bucket's index that is still to be listed, in the syntax of ZRANGEBYLEX.
struct Span {
    bucket: Bucket,
    /// Bytes, because a member need not be UTF-8 if another program wrote it.
    first: Vec<u8>,
    last: String,
    /// The number of members at the last count, or a guess.
    count: usize,
}

/// The state of one list call.
struct Lister<'a> {
    servers: &'a Servers,
    layout: &'a Layout,
    filter: &'a Filter,
    /// The conditions of the filter that concern keys only.
    by_key: Filter,
    spans: VecDeque<Span>,
}

/// Returns the next page of a list.
pub(crate) async fn list(
    servers: &Servers,
    layout: &Layout,
    filter: &Filter,
    page: PageRequest,
) -> Result<Page, StorageError> {
    let after = match &page.after {
        Some(cursor) => Some(Place::of(&cursor.key()?).map_err(|_| StorageError::InvalidCursor)?),
        None => None,
    };
    let mut by_key = filter.clone();
    by_key.expiring_before = None;
    let mut lister = Lister { servers, layout, filter, by_key, spans: spans(filter, after.as_ref()) };
    lister.page(page.limit.clamp(1, MAX_PAGE)).await.map_err(Failure::of_read)
}

impl Lister<'_> {
    /// Fetches entries until the page is full, all are listed, or half of the timeout has passed.
    ///
    /// The cursor is the last returned entry if more matches were fetched, and otherwise the last key that was
    /// examined. A list whose filter matches rarely may therefore return an empty page with a cursor, and still makes
    /// progress.
    async fn page(&mut self, limit: usize) -> Result<Page, Failure> {
        let give_up = Instant::now() + self.servers.options().timeout / 2;
        let mut entries = Vec::new();
        let mut visited: Option<TokenKey> = None;
        if self.spans.is_empty() {
            self.contact().await?;
        }
        self.skip_empty().await?;
        loop {
            let found = self.keys(self.stride(limit - entries.len())).await?;
            let last = found.last().cloned();
            let mut matching = self.entries(found).await?.into_iter();
            for entry in matching.by_ref().take(limit - entries.len()) {
                visited = Some(entry.key.clone());
                entries.push(entry);
            }
            let complete = self.spans.is_empty() && matching.len() == 0;
            if complete {
                return Ok(Page { entries, next: None });
            }
            if matching.len() == 0 {
                visited = last.or(visited);
            }
            let enough = entries.len() == limit || Instant::now() > give_up;
            if let Some(visited) = visited.as_ref().filter(|_| enough) {
                return Ok(Page { next: Some(Cursor::after(visited)), entries });
            }
        }
    }

    /// The number of keys to fetch. One more than needed shows whether another page follows. If not every key matches,
    /// a larger batch saves round trips.
    fn stride(&self, needed: usize) -> usize {
        let every_key_matches = self.filter.expiring_before.is_none() && is_range(self.filter);
        if every_key_matches { needed + 1 } else { MAX_PAGE }
    }

    /// Sends a request whose reply does not matter. If no match can follow the cursor, the page is empty, but an outage must
    /// still be an error and never an empty page.
    async fn contact(&self) -> Result<(), Failure> {
        let nothing = Span { bucket: Bucket::of("", ""), first: b"-".to_vec(), last: "-".to_owned(), count: 0 };
        self.read(nothing.bucket, self.command("ZLEXCOUNT", &nothing)).await.map(drop)
    }

    /// Removes the buckets that have no members in range, with one batch of requests. A small application has members
    /// in a few of the 256 buckets, and could otherwise wait for many empty replies in turn.
    async fn skip_empty(&mut self) -> Result<(), Failure> {
        if self.spans.len() < 2 {
            return Ok(());
        }
        let counts = try_join_all(self.spans.iter().map(|span| async {
            let replies = self.read(span.bucket, self.command("ZLEXCOUNT", span)).await?;
            integer(&replies)
        }));
        let counts = counts.await?;
        for (span, count) in self.spans.iter_mut().zip(counts) {
            span.count = usize::try_from(count).unwrap_or_default();
        }
        self.spans.retain(|span| span.count > 0);
        Ok(())
    }

    /// Fetches the next keys from the indexes, about as many as wanted.
    ///
    /// The buckets that probably contain them are read at the same time. The counts may be outdated. If a bucket has
    /// more members than expected, the replies of the buckets after it are discarded and fetched again later, so that
    /// the order is exact.
    async fn keys(&mut self, wanted: usize) -> Result<Vec<TokenKey>, Failure> {
        let mut expected = 0;
        let ahead = self.spans.iter().take_while(|span| {
            let needed = expected < wanted;
            expected += span.count;
            needed
        });
        let fetched = try_join_all(ahead.map(|span| async {
            let mut command = self.command("ZRANGEBYLEX", span);
            command.arg("LIMIT").arg(0).arg(wanted);
            members(&self.read(span.bucket, command).await?)
        }));
        let mut keys = Vec::new();
        for members in fetched.await? {
            let exhausted = members.len() < wanted;
            let last = members.last().cloned();
            keys.extend(members.iter().filter_map(|member| self.readable(member)));
            if !exhausted && let (Some(span), Some(last)) = (self.spans.front_mut(), last) {
                span.first = behind(&last);
                span.count = span.count.saturating_sub(members.len()).max(1);
                break;
            }
            self.spans.pop_front();
            if keys.len() >= wanted {
                break;
            }
        }
        Ok(keys)
    }

    /// Decodes a member. A name that is not a valid key is logged and left out.
    fn readable(&self, member: &[u8]) -> Option<TokenKey> {
        let key = key_in(member);
        if key.is_none() {
            tracing::warn!(
                prefix = self.layout.prefix(),
                "a name was left out of a list, because it is not a valid token key"
            );
        }
        key
    }

    /// Fetches the entries of the keys that match and still have a record.
    async fn entries(&self, keys: Vec<TokenKey>) -> Result<Vec<Entry>, Failure> {
        let matching = keys.into_iter().map(unreadable_entry).filter(|entry| self.by_key.matches(entry));
        let found = try_join_all(matching.map(|entry| self.entry(entry.key))).await?;
        Ok(found.into_iter().flatten().filter(|entry| self.filter.matches(entry)).collect())
    }

    /// Reads the entry of a key. `None` if the record no longer exists.
    ///
    /// Only the header is fetched, because a payload may have megabytes. A second request is necessary if the header is
    /// longer than [`HEADER_GUESS`].
    async fn entry(&self, key: TokenKey) -> Result<Option<Entry>, Failure> {
        let Ok(place) = Place::of(&key) else { return Ok(None) };
        let mut bytes = match self.beginning(&place, HEADER_GUESS).await {
            Err(Failure::WrongType(_)) => return Ok(Some(unreadable_entry(key))),
            bytes => bytes?,
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() == HEADER_GUESS && !bytes.contains(&b'\n') {
            bytes = self.beginning(&place, usize::MAX >> 1).await?;
        }
        Ok(Some(match Header::read(&bytes) {
            Ok((header, _)) => header.entry(key),
            Err(_) => unreadable_entry(key),
        }))
    }

    /// Reads the first bytes of a record, which are empty if there is none.
    async fn beginning(&self, place: &Place, length: usize) -> Result<Vec<u8>, Failure> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(self.layout.record(place.bucket, &place.member)).arg(0).arg(length - 1);
        match self.read(place.bucket, command).await?.pop() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(Failure::Unchanged(UNEXPECTED)),
        }
    }

    /// A command on the range of a span.
    fn command(&self, name: &str, span: &Span) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(self.layout.index(span.bucket)).arg(&span.first).arg(&span.last);
        command
    }

    /// Sends a command to the server of a bucket.
    async fn read(&self, bucket: Bucket, command: Cmd) -> Result<Vec<Value>, Failure> {
        self.servers.request(self.layout.slot(bucket), Request::Read(&[command])).await
    }
}

/// Returns at most `limit` names that are not valid keys. They exist only if something other than this crate has
/// written to an index.
pub(crate) async fn invalid(servers: &Servers, layout: &Layout, limit: usize) -> Result<Vec<String>, Failure> {
    let everything = Filter::everything();
    let buckets = spans(&everything, None).into_iter().map(|span| invalid_in(servers, layout, span));
    Ok(try_join_all(buckets).await?.into_iter().flatten().take(limit).collect())
}

/// Returns the names of one bucket that are not valid keys.
async fn invalid_in(servers: &Servers, layout: &Layout, mut span: Span) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    loop {
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg(layout.index(span.bucket)).arg(&span.first).arg(&span.last).arg("LIMIT").arg(0).arg(MAX_PAGE);
        let names = members(&servers.request(layout.slot(span.bucket), Request::Read(&[command])).await?)?;
        let next = names.last().filter(|_| names.len() == MAX_PAGE).map(|last| behind(last));
        found.extend(names.iter().filter(|name| key_in(name).is_none()).map(|name| escaped(name)));
        match next {
            Some(next) => span.first = next,
            None => return Ok(found),
        }
    }
}

/// Whether the keys that match a filter are contiguous in the indexes.
fn is_range(filter: &Filter) -> bool {
    match (&filter.tenant, &filter.user, &filter.provider) {
        (_, None, None) | (Some(_), Some(_), _) => true,
        (None, Some(_), _) | (_, None, Some(_)) => false,
    }
}

/// The ranges to list: those of all buckets that may contain matches, from the position of the cursor.
fn spans(filter: &Filter, after: Option<&Place>) -> VecDeque<Span> {
    // The common prefix of all matches. `;` follows the separator `:` in ASCII, so it ends the range.
    let parts = [&filter.tenant, &filter.user, &filter.provider];
    let common: String = parts.into_iter().map_while(Option::as_deref).map(|part| escape(part) + ":").collect();
    let (start, last) = match common.strip_suffix(':') {
        Some(open) => (format!("[{common}"), format!("({open};")),
        None => ("-".to_owned(), "+".to_owned()),
    };
    let only = filter.tenant.as_ref().zip(filter.user.as_ref()).map(|(tenant, user)| Bucket::of(tenant, user));
    let from = after.map(|place| place.bucket);
    let wanted = |bucket: &Bucket| only.is_none_or(|only| only == *bucket) && from.is_none_or(|from| from <= *bucket);
    Bucket::all()
        .filter(wanted)
        .map(|bucket| {
            let resumed = after.filter(|place| place.bucket == bucket && place.member >= common);
            let first = resumed.map_or(start.clone().into_bytes(), |place| behind(place.member.as_bytes()));
            Span { bucket, first, last: last.clone(), count: 1 }
        })
        .collect()
}

/// The entry of an unreadable record. It has no hints, and a version that matches nothing.
fn unreadable_entry(key: TokenKey) -> Entry {
    Entry::new(key, Version::random(), &Record::new(""))
}

/// Decodes the reply of ZRANGEBYLEX.
fn members(replies: &[Value]) -> Result<Vec<Vec<u8>>, Failure> {
    let bytes = |member: &Value| match member {
        Value::BulkString(bytes) => Some(bytes.clone()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone().into_bytes()),
        _ => None,
    };
    match replies {
        [Value::Array(members)] => {
            members.iter().map(bytes).collect::<Option<_>>().ok_or(Failure::Unchanged(UNEXPECTED))
        }
        _ => Err(Failure::Unchanged(UNEXPECTED)),
    }
}

/// The key that a member encodes, if it is one.
fn key_in(member: &[u8]) -> Option<TokenKey> {
    key_of(std::str::from_utf8(member).ok()?).ok()
}

/// The start of a range behind a member, in the syntax of ZRANGEBYLEX.
fn behind(member: &[u8]) -> Vec<u8> {
    [b"(", member].concat()
}

/// A member as text, with `\xff` for each byte that is not UTF-8.
fn escaped(member: &[u8]) -> String {
    let mut text = String::new();
    for chunk in member.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(filter: &Filter, after: Option<&TokenKey>) -> Vec<(String, String)> {
        let after = after.map(|key| Place::of(key).unwrap());
        let text = |first| String::from_utf8(first).unwrap();
        spans(filter, after.as_ref()).into_iter().map(|span| (text(span.first), span.last)).collect()
    }

    #[test]
    fn filters_become_ranges_of_few_buckets() {
        let everything = Filter::everything();
        assert_eq!(ranges(&everything, None), vec![("-".to_owned(), "+".to_owned()); 256]);
        let tenant = ranges(&everything.clone().tenant(Some("a:b")), None);
        assert_eq!(tenant, vec![("[a%3Ab:".to_owned(), "(a%3Ab;".to_owned()); 256]);
        let user = everything.clone().tenant(None).user("alice");
        assert_eq!(ranges(&user, None), [("[:alice:".to_owned(), "(:alice;".to_owned())]);
        assert_eq!(ranges(&user.provider("git"), None), [("[:alice:git:".to_owned(), "(:alice:git;".to_owned())]);
        assert_eq!(ranges(&everything.user("alice"), None).len(), 256);
    }

    #[test]
    fn members_that_are_not_utf8_are_no_keys() {
        let members = members(&[Value::Array(vec![
            Value::BulkString(b":alice:git:".to_vec()),
            Value::BulkString(b":ali\xff\xfece:git:".to_vec()),
        ])])
        .unwrap();
        let keys: Vec<_> = members.iter().map(|member| key_in(member)).collect();
        assert_eq!(keys, [Some(TokenKey::new("git", "alice").unwrap()), None]);
        assert_eq!(escaped(&members[1]), r":ali\xff\xfece:git:");
        assert_eq!(behind(&members[1]), b"(:ali\xff\xfece:git:");
    }

    #[test]
    fn list_continues_after_the_cursor() {
        let key = TokenKey::new("git", "alice").unwrap();
        let bucket = Place::of(&key).unwrap().bucket;
        let left = 256 - Bucket::all().position(|other| other == bucket).unwrap();
        let all = ranges(&Filter::everything(), Some(&key));
        assert_eq!((all.len(), all[0].0.as_str()), (left, "(:alice:git:"));
        assert!(all[1..].iter().all(|(first, _)| first == "-"));
        // A filter for later names starts at its own beginning.
        let later = ranges(&Filter::everything().tenant(Some("z")), Some(&key));
        assert_eq!(later[0].0, "[z:");
        // Every record of another user is in another bucket or before the cursor, so nothing is left.
        let other = Filter::everything().tenant(None).user("bob");
        assert!(ranges(&other, Some(&TokenKey::new("git", "zoe").unwrap())).len() <= 1);
    }
}
