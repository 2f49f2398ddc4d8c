//! How failure messages name a call of a storage, such as `put(user "alice", provider "github", {"x"}, Always)`.

use std::fmt;

use oauth_dance_core::{Filter, Precondition, Record, TokenKey, Version};

use crate::show::{SHOWN, Show as _, text};

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Get(TokenKey),
    /// The record, whose payload is truncated, and the original length of the payload.
    Put(TokenKey, Record, usize, Precondition),
    Delete(TokenKey, Option<Version>),
    /// The last field is whether this is a later page.
    List(Filter, usize, bool),
    Purge(usize),
}

impl Call {
    pub(crate) fn get(key: &TokenKey) -> Self {
        Self::Get(key.clone())
    }

    pub(crate) fn put(key: &TokenKey, record: &Record, when: Precondition) -> Self {
        let start = &record.payload[..record.payload.len().min(SHOWN)];
        let brief = Record::new(start).with_expires_at(record.expires_at).with_key_id(record.key_id.clone());
        Self::Put(key.clone(), brief.with_retain_for(record.retain_for), record.payload.len(), when)
    }

    /// Whether it is a single request on most storages.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self, Self::Get(_) | Self::Put(..) | Self::Delete(..))
    }

    pub(crate) fn delete(key: &TokenKey, only: Option<Version>) -> Self {
        Self::Delete(key.clone(), only)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(key) => write!(f, "get({})", key.show()),
            Self::Put(key, record, length, when) => {
                let long = if *length > SHOWN { format!(" of {length} bytes") } else { String::new() };
                write!(f, "put({}, {}{long}, {})", key.show(), record.show(), when.show())
            }
            Self::Delete(key, None) => write!(f, "delete({})", key.show()),
            Self::Delete(key, Some(only)) => write!(f, "delete({}, only {only:?})", key.show()),
            Self::List(filter, limit, is_later) => {
                let page = if *is_later { "the next page" } else { "the first page" };
                write!(f, "list({}{page} of {limit})", conditions(filter))
            }
            Self::Purge(limit) => write!(f, "purge({limit})"),
        }
    }
}

/// The calls for all pages of a list, named as one.
pub(crate) fn pages(filter: &Filter, limit: usize) -> String {
    format!("list({}pages of {limit})", conditions(filter))
}

fn conditions(filter: &Filter) -> String {
    let mut shown = String::new();
    for (name, value) in [("tenant", &filter.tenant), ("user", &filter.user), ("provider", &filter.provider)] {
        if let Some(value) = value {
            shown += &format!("{name} {}, ", text(value.as_bytes()));
        }
    }
    if let Some(at) = filter.expiring_before {
        shown += &format!("expiring before {}, ", at.as_unix_seconds());
    }
    shown
}
