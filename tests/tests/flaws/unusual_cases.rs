//! Flaws of less common cases: another handle, another size, a later time.

use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey,
    TokenStorage as _, Version, Versioned,
};

use super::{Notes, Read, Write, flaws, pause};

flaws! {
    DeclaresATinyLimit(()) caught by capabilities_do_not_change {
        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_max_payload(1_000)
        }
    }

    // Splits payloads into chunks of 100,000 bytes. A shorter payload leaves the later chunks.
    LeavesLaterChunks(Notes<TokenKey, Vec<u8>>) caught by payloads_of_other_lengths_replace_each_other {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            let parts = record.payload.len() / 100_000;
            if let Some(old) = self.own.lock().unwrap().get(key) && parts > 0 && !record.payload.len().is_multiple_of(100_000) {
                record.payload.extend(old.get((parts + 1) * 100_000..).unwrap_or_default());
            }
            let version = self.server.put(key, &record, when).await?;
            self.own.lock().unwrap().insert(key.clone(), record.payload);
            Ok(version)
        }
    }

    RejectsEscapedKeyIds(()) caught by key_ids_are_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let size = record.key_id.as_ref().map_or(0, |id| serde_json::to_string(id).unwrap().len());
            if size > 100 {
                return Err(StorageError::TooLarge { size, limit: 100 });
            }
            self.server.put(key, record, when).await
        }
    }

    TruncatesLongKeyIds(()) caught by key_ids_are_exact {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let cut = record.key_id.as_ref().map(|id| id.chars().take(128).collect());
            self.server.put(key, &record.clone().with_key_id(cut), when).await
        }
    }

    // Stores one document for each user, with at most two megabytes.
    LimitsAUser(Notes<TokenKey, usize>) caught by large_records_are_not_evicted {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let size = {
                let notes = self.own.lock().unwrap();
                let others = notes.iter().filter(|(other, _)| other.user() == key.user() && *other != key);
                record.payload.len() + others.map(|(_, size)| size).sum::<usize>()
            };
            if size > 2_000_000 {
                return Err(StorageError::TooLarge { size, limit: 2_000_000 });
            }
            self.own.lock().unwrap().insert(key.clone(), record.payload.len());
            self.server.put(key, record, when).await
        }
    }

    // Uses a placeholder that is in no list, but in every dump.
    HasAPlaceholderForNone(()) caught by no_stored_word_stands_for_none {
        async fn get(&self, key: &TokenKey) -> Read {
            let account = key.account().filter(|account| *account != "zzPlain");
            let plain = TokenKey::from_parts(key.tenant().unwrap_or_default(), key.user(), key.provider(), account.unwrap_or_default());
            let found = self.server.get(&plain.unwrap()).await?;
            Ok(found.map(|mut found| {
                found.value.payload.truncate(found.value.payload.len().saturating_sub(8));
                found
            }))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut record = record.clone();
            record.payload.extend(b" zzPlain");
            self.server.put(key, &record, when).await
        }
    }

    // Escapes the separator, but not the escape character.
    EscapesOnlySeparators(()) caught by separators_keep_keys_apart {
        async fn get(&self, key: &TokenKey) -> Read {
            self.server.get(&escaped(key)).await
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.put(&escaped(key), record, when).await
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            self.server.delete(&escaped(key), only).await
        }

        async fn list(&self, _filter: &Filter, _page: PageRequest) -> Result<Page, StorageError> {
            Err(StorageError::Unsupported("listing"))
        }

        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_listable(false)
        }
    }

    // Each handle counts the retention from its own first read.
    StartsAgainInANewHandle(Notes<TokenKey, Timestamp>) caught by retention_is_seen_through_every_handle {
        async fn get(&self, key: &TokenKey) -> Read {
            let now = self.server.clock().now();
            let found = self.server.get(key).await?;
            let Some(mut found) = found else { return Ok(None) };
            let Some(seconds) = found.value.key_id.as_deref().and_then(|seconds| seconds.parse().ok()) else { return Ok(Some(found)) };
            let ends = *self.own.lock().unwrap().entry(key.clone()).or_insert(now.saturating_add(Duration::from_secs(seconds)));
            found.value.retain_for = Some(ends.saturating_since(now));
            found.value.key_id = None;
            Ok(Some(found).filter(|_| ends > now))
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let mut stored = record.clone();
            if let (Some(seconds), None) = (record.retain_seconds(), &record.key_id) {
                stored = stored.with_retain_for(None).with_key_id(Some(seconds.to_string()));
                let ends = self.server.clock().now().saturating_add(Duration::from_secs(seconds));
                self.own.lock().unwrap().insert(key.clone(), ends);
            }
            self.server.put(key, &stored, when).await
        }
    }

    PurgesTooEarly(()) caught by purge_spares_live_records_of_any_retention {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            let page = self.server.list(&Filter::everything(), PageRequest { after: None, limit }).await?;
            for entry in page.entries {
                let left = self.server.get(&entry.key).await?.and_then(|found| found.value.retain_for);
                if left.is_some_and(|left| left <= Duration::from_secs(3)) {
                    self.server.delete(&entry.key, Some(entry.version)).await?;
                }
            }
            self.server.purge(limit).await
        }
    }

    PurgesAPage(()) caught by purge_removes_as_many_as_its_limit_allows {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            self.server.purge(limit.min(250)).await
        }
    }

    PurgesCorruptRecords(()) caught by an_unreadable_record_is_reported_as_corrupt {
        async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
            let page = self.server.list(&Filter::everything(), PageRequest { after: None, limit }).await?;
            let mut removed = 0;
            for entry in page.entries {
                if matches!(self.server.get(&entry.key).await, Err(StorageError::Corrupt { .. })) {
                    removed += u64::from(self.server.delete(&entry.key, None).await?);
                }
            }
            Ok(removed + self.server.purge(limit).await?)
        }
    }

    CorruptsTheWholeUser(()) caught by an_unreadable_record_is_reported_as_corrupt {
        async fn get(&self, key: &TokenKey) -> Read {
            for entry in self.server.list(&Filter::everything().user(key.user()), PageRequest::default()).await?.entries {
                self.server.get(&entry.key).await?;
            }
            self.server.get(key).await
        }
    }

    CorruptHidesTheNextEntry(()) caught by a_corrupt_record_is_listed {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            let mut is_hidden = false;
            let mut listed = Vec::new();
            for entry in page.entries {
                let is_corrupt = matches!(self.server.get(&entry.key).await, Err(StorageError::Corrupt { .. }));
                if !is_hidden || is_corrupt {
                    listed.push(entry);
                }
                is_hidden = is_corrupt;
            }
            page.entries = listed;
            Ok(page)
        }
    }

    CorruptHasNoProvider(()) caught by a_corrupt_record_is_listed {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            let mut page = self.server.list(filter, page).await?;
            let mut listed = Vec::new();
            for entry in page.entries {
                let is_corrupt = matches!(self.server.get(&entry.key).await, Err(StorageError::Corrupt { .. }));
                if !is_corrupt || filter.provider.is_none() {
                    listed.push(entry);
                }
            }
            page.entries = listed;
            Ok(page)
        }
    }

    // Restores the old record later, because the reply to the write was lost.
    RollsBackLater(()) caught by an_ambiguous_call_is_neither_undone_nor_repeated {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let before = self.server.memory().get(key).await?;
            let written = self.server.put(key, record, when).await;
            if let (Err(StorageError::Ambiguous { .. }), Some(before)) = (&written, before) {
                let (server, key) = (self.server.clone(), key.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(900)).await;
                    server.memory().put(&key, &before.value, Precondition::Always).await
                });
            }
            written
        }
    }

    RepeatsADeleteLater(()) caught by an_ambiguous_call_is_neither_undone_nor_repeated {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await;
            if only.is_none() && matches!(removed, Err(StorageError::Ambiguous { .. })) {
                let (server, key) = (self.server.clone(), key.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(700)).await;
                    server.memory().delete(&key, None).await
                });
            }
            removed
        }
    }

    // The records of a user are in one document, which is read, changed and written back.
    DeletesFromADocument(()) caught by a_delete_does_not_undo_a_write_of_another_key {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let filter = Filter::everything().tenant(key.tenant()).user(key.user());
            let mut before = Vec::new();
            for entry in self.server.memory().list(&filter, PageRequest::default()).await?.entries {
                if entry.key != *key && let Some(found) = self.server.memory().get(&entry.key).await? {
                    before.push((entry.key, found));
                }
            }
            pause().await;
            let removed = self.server.delete(key, only).await?;
            for (other, before) in before {
                let now = self.server.memory().get(&other).await?;
                if now.is_some_and(|now| now.version != before.version) {
                    self.server.memory().put(&other, &before.value, Precondition::Always).await?;
                }
            }
            Ok(removed)
        }
    }

    // The version is a timestamp, whose resolution is too low.
    VersionsAreTimestamps(()) caught by two_writes_at_once_have_two_versions {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.put(key, record, when).await?;
            let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
            Ok(Version::from_bytes((now.as_micros() / 20).to_be_bytes()))
        }
    }

    LeaksConnectionsOfLists(std::sync::atomic::AtomicUsize) caught by dropped_calls_leave_the_storage_usable {
        async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
            use std::sync::atomic::Ordering::SeqCst;
            if self.own.fetch_add(1, SeqCst) >= 20 {
                std::future::pending::<()>().await;
            }
            let page = self.server.list(filter, page).await;
            self.own.fetch_sub(1, SeqCst);
            page
        }
    }

    // Sends dropped writes with the next batch.
    SendsDroppedWritesLater(()) caught by dropped_calls_take_no_late_effect {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            struct Later(Option<(crate::bench::Server, TokenKey, Record)>);
            impl Drop for Later {
                fn drop(&mut self) {
                    let Some((server, key, record)) = self.0.take() else { return };
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(1_100)).await;
                        server.put(&key, &record, Precondition::Always).await
                    });
                }
            }
            let mut later = Later(Some((self.server.clone(), key.clone(), record.clone())));
            let written = self.server.put(key, record, when).await;
            later.0 = None;
            written
        }
    }

    // A crash loses the deletes that are not in the server's log yet.
    CrashRestoresDeletedRecords(Notes<TokenKey, Versioned<Record>>) caught by acknowledged_writes_survive_a_server_crash {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let written = self.server.put(key, record, when).await;
            if written.is_err() {
                let deleted: Vec<_> = self.own.lock().unwrap().drain().collect();
                for (key, record) in deleted {
                    self.server.memory().put(&key, &record.value, Precondition::Absent).await?;
                }
            }
            written
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            if let Some(found) = self.server.get(key).await? {
                self.own.lock().unwrap().insert(key.clone(), found);
            }
            self.server.delete(key, only).await
        }
    }

    LogsTheEnd(Notes<TokenKey, Vec<u8>>) caught by printing_shows_no_payload {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let end = &record.payload[record.payload.len().saturating_sub(6)..];
            self.server.log(&format!("put {key}: ...{}", end.escape_ascii()));
            self.server.put(key, record, when).await
        }
    }
}

fn escaped(key: &TokenKey) -> TokenKey {
    let parts = key.parts().map(|part| part.replace(':', "^:"));
    TokenKey::from_parts("", parts.join(":"), "any", "").unwrap()
}
