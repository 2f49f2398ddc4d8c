//! The list of all properties, with the properties that each of them depends on.
//!
//! A property *depends* on another one if it can only be tested on a storage that has the other one. For example, everything
//! depends on the group `map`, because a test of retention that cannot read what it wrote proves nothing. Dependencies
//! only sort failures; they never prevent a property from being tested.

use std::collections::BTreeSet;

use crate::run::Property;

/// Passes all properties, grouped by module, to a macro of this crate. The names in brackets are the properties, and groups
/// of properties, that a group or a property depends on.
#[doc(hidden)]
#[macro_export]
macro_rules! __properties {
    ($with:ident) => {
        $crate::$with! {
            map:
                capabilities_do_not_change
                missing_is_none
                delete_of_nothing_is_false [delete_removes_the_record]
                put_always_never_conflicts
                a_read_shows_the_last_write [missing_is_none put_always_never_conflicts]
                reading_does_not_change_the_version [a_read_shows_the_last_write]
                delete_removes_the_record [a_read_shows_the_last_write]
                absent_hints_stay_absent [a_read_shows_the_last_write]
                a_write_replaces_the_whole_record [absent_hints_stay_absent]
                a_deleted_key_can_be_written_again [delete_removes_the_record]
                writes_are_seen_through_every_handle [a_read_shows_the_last_write delete_removes_the_record]
                cached_records_are_no_older_than_declared [a_read_shows_the_last_write delete_removes_the_record]
                no_acknowledged_write_is_lost [
                    a_read_shows_the_last_write delete_removes_the_record delete_of_nothing_is_false
                ];
            payloads [map]:
                sizes_are_exact
                too_large_is_refused
                any_bytes_come_back [sizes_are_exact]
                payloads_that_look_encoded_come_back [any_bytes_come_back]
                payloads_of_other_lengths_replace_each_other [sizes_are_exact any_bytes_come_back]
                instants_are_exact [the_list_is_exact an_expired_access_token_is_not_missing]
                key_ids_are_exact [the_list_is_exact]
                similar_payloads_are_told_apart [sizes_are_exact]
                large_records_are_not_evicted [sizes_are_exact]
                records_come_back_exactly [
                    any_bytes_come_back sizes_are_exact payloads_of_other_lengths_replace_each_other instants_are_exact
                    key_ids_are_exact
                ];
            keys [map the_list_is_exact pages_of_any_size_cover_the_list]:
                every_part_keeps_keys_apart
                no_record_is_evicted_for_another [every_part_keeps_keys_apart]
                case_spaces_and_accents_keep_keys_apart [no_record_is_evicted_for_another]
                unicode_keeps_keys_apart [no_record_is_evicted_for_another case_spaces_and_accents_keep_keys_apart]
                numbers_are_compared_as_text [no_record_is_evicted_for_another]
                special_characters_are_data [no_record_is_evicted_for_another]
                no_value_stands_for_none [no_record_is_evicted_for_another numbers_are_compared_as_text special_characters_are_data]
                no_stored_word_stands_for_none [no_value_stands_for_none]
                addresses_are_not_normalized [no_record_is_evicted_for_another case_spaces_and_accents_keep_keys_apart]
                collations_do_not_apply_to_keys [
                    case_spaces_and_accents_keep_keys_apart unicode_keeps_keys_apart no_value_stands_for_none
                ]
                separators_keep_keys_apart [
                    case_spaces_and_accents_keep_keys_apart unicode_keeps_keys_apart numbers_are_compared_as_text
                    special_characters_are_data no_value_stands_for_none addresses_are_not_normalized
                    collations_do_not_apply_to_keys
                ]
                long_keys_work_or_are_refused [no_record_is_evicted_for_another]
                keys_of_any_characters_work [
                    unicode_keeps_keys_apart special_characters_are_data long_keys_work_or_are_refused
                ]
                lengths_do_not_wrap [long_keys_work_or_are_refused]
                equal_payloads_have_records_of_their_own [every_part_keeps_keys_apart]
                namespaces_are_apart
                no_user_reads_another_users_record [
                    case_spaces_and_accents_keep_keys_apart special_characters_are_data separators_keep_keys_apart
                ];
            conditions [map]:
                put_absent_conflicts_where_a_record_is_stored [get_returns_the_remaining_retention]
                put_version_conflicts_where_nothing_is_stored
                stale_versions_conflict_and_change_nothing [get_returns_the_remaining_retention]
                delete_of_another_version_removes_nothing [get_returns_the_remaining_retention]
                every_byte_of_a_version_counts [
                    stale_versions_conflict_and_change_nothing delete_of_another_version_removes_nothing
                ]
                writing_the_same_bytes_makes_a_new_version [
                    stale_versions_conflict_and_change_nothing delete_of_another_version_removes_nothing
                ]
                a_version_is_void_after_a_delete [put_version_conflicts_where_nothing_is_stored delete_of_another_version_removes_nothing]
                versions_are_never_used_again [
                    writing_the_same_bytes_makes_a_new_version a_version_is_void_after_a_delete
                    an_expired_record_counts_as_absent
                ]
                a_version_is_void_after_its_retention [
                    versions_are_never_used_again zero_retention_is_over_at_once purge_accepts_every_limit
                    an_expired_record_counts_as_absent every_write_sets_the_retention retention_ends_with_the_record
                    retention_is_seen_through_every_handle
                ];
            retention [map the_list_is_exact]:
                an_expired_access_token_is_not_missing
                records_are_hidden_after_their_retention
                an_expired_record_counts_as_absent [records_are_hidden_after_their_retention]
                zero_retention_is_over_at_once [put_absent_conflicts_where_a_record_is_stored]
                fractional_retentions_round_up [get_returns_the_remaining_retention]
                retention_is_exact_to_the_second [get_returns_the_remaining_retention]
                other_writes_do_not_change_a_retention [records_are_hidden_after_their_retention]
                get_returns_the_remaining_retention [records_are_hidden_after_their_retention]
                long_retentions_do_not_overflow [
                    get_returns_the_remaining_retention purge_removes_only_expired_records purge_accepts_every_limit
                ];
            renewal [map records_are_hidden_after_their_retention the_list_is_exact]:
                every_write_sets_the_retention
                retention_counts_from_the_last_write [every_write_sets_the_retention]
                retention_ends_with_the_record
                nothing_of_an_expired_record_survives [an_expired_record_counts_as_absent]
                refused_calls_do_not_change_the_retention [
                    put_absent_conflicts_where_a_record_is_stored stale_versions_conflict_and_change_nothing
                    delete_of_another_version_removes_nothing
                ]
                retention_is_seen_through_every_handle [an_expired_record_counts_as_absent];
            purging [map zero_retention_is_over_at_once]:
                purge_removes_only_expired_records
                purge_accepts_every_limit
                purge_spares_live_records_of_any_retention [purge_removes_only_expired_records]
                purge_removes_as_many_as_its_limit_allows [purge_accepts_every_limit]
                purge_below_its_limit_leaves_nothing_expired [purge_removes_only_expired_records purge_accepts_every_limit]
                purge_covers_every_kind_of_key [purge_removes_only_expired_records]
                purges_at_once_count_each_record_once [purge_removes_only_expired_records]
                a_dropped_purge_does_not_stop_later_ones [purge_removes_only_expired_records]
                purge_spares_records_written_meanwhile [purge_removes_only_expired_records]
                clearing_an_expired_record_spares_a_new_one [an_expired_record_counts_as_absent];
            listing [map]:
                an_undeclared_list_is_unsupported
                the_list_is_exact
                pages_of_any_size_cover_the_list [the_list_is_exact]
                an_ordered_list_is_in_the_order_of_the_keys [pages_of_any_size_cover_the_list]
                long_lists_are_whole [pages_of_any_size_cover_the_list]
                no_record_is_hidden_from_the_list [the_list_is_exact sizes_are_exact]
                deleting_one_account_hides_no_other [the_list_is_exact filters_are_exact]
                a_user_can_be_removed [the_list_is_exact filters_are_exact];
            filters [map every_part_keeps_keys_apart]:
                filters_hold_on_every_page
                filters_are_exact [filters_hold_on_every_page]
                filters_are_not_patterns
                filters_compare_each_part_with_its_own [filters_are_exact]
                filters_compare_long_parts_to_the_end [filters_are_not_patterns]
                filters_tell_lookalikes_apart [filters_are_not_patterns];
            paging [map the_list_is_exact pages_of_any_size_cover_the_list]:
                foreign_cursors_are_refused
                a_list_continues_from_any_cursor
                a_cursor_is_valid_for_any_filter [a_list_continues_from_any_cursor filters_are_exact]
                a_list_continues_after_any_key [a_list_continues_from_any_cursor]
                a_list_continues_after_an_expired_record [a_list_continues_from_any_cursor records_are_hidden_after_their_retention]
                pages_are_stable_under_writes [a_list_continues_from_any_cursor]
                later_pages_show_the_current_state
                expired_records_do_not_end_a_list [records_are_hidden_after_their_retention zero_retention_is_over_at_once]
                long_lived_records_stay_listed_after_short_ones [records_are_hidden_after_their_retention]
                a_record_is_listed_while_it_is_rewritten [no_read_is_torn]
                entries_have_the_hints_of_their_version [a_record_is_listed_while_it_is_rewritten];
            corruption [map]:
                an_unreadable_record_is_reported_as_corrupt
                a_corrupt_record_can_be_replaced_and_removed [an_unreadable_record_is_reported_as_corrupt]
                conditions_fail_for_a_corrupt_record [
                    an_unreadable_record_is_reported_as_corrupt stale_versions_conflict_and_change_nothing
                    delete_of_another_version_removes_nothing
                ]
                a_corrupt_record_is_listed [the_list_is_exact];
            secrecy [map records_come_back_exactly]:
                tokens_come_back_whole
                sealed_tokens_leave_no_trace
                printing_shows_no_payload
                errors_show_no_payload
                sealed_records_are_bound_to_their_key [every_part_keeps_keys_apart]
                equal_tokens_are_stored_differently
                the_sealing_key_is_recorded
                resealing_loses_no_update [stale_versions_conflict_and_change_nothing one_of_two_updates_wins];
            faults [map]:
                an_outage_is_an_error
                a_cut_reply_is_an_error
                a_silent_server_is_an_error_in_time
                the_storage_recovers
                an_error_means_old_or_new
                read_only_is_an_error
                a_full_medium_is_an_error;
            survival [map]:
                acknowledged_writes_survive_a_restart
                acknowledged_writes_survive_a_server_crash
                a_version_is_void_after_a_crash [a_version_is_void_after_a_delete a_version_is_void_after_its_retention]
                acknowledged_writes_survive_a_failover;
            repeats [map an_error_means_old_or_new]:
                a_repeated_call_does_not_meet_its_own_effect
                an_ambiguous_call_is_neither_undone_nor_repeated
                a_refused_call_is_not_repeated_later;
            races [map conditions]:
                one_creation_wins
                racing_first_writes_all_succeed
                no_update_is_lost
                one_delete_wins
                a_delete_and_a_write_exclude_each_other
                no_read_is_torn
                large_writes_exclude_each_other [no_update_is_lost one_creation_wins]
                reads_do_not_go_back
                reads_at_once_return_their_own_records [every_part_keeps_keys_apart]
                keys_do_not_block_each_other;
            duels [map conditions]:
                one_of_two_creations_wins [one_creation_wins]
                one_of_two_creations_over_an_expired_record_wins [one_of_two_creations_wins]
                one_of_two_updates_wins [no_update_is_lost]
                one_of_two_updates_without_a_change_wins [one_of_two_updates_wins]
                one_of_two_deletes_wins [one_delete_wins]
                an_update_or_a_delete_wins [a_delete_and_a_write_exclude_each_other]
                an_update_does_not_undo_a_write [no_update_is_lost]
                simultaneous_writes_of_two_keys_both_persist
                a_delete_does_not_undo_a_write_of_another_key [simultaneous_writes_of_two_keys_both_persist]
                a_cache_shows_the_last_of_two_writes
                two_writes_at_once_have_two_versions [racing_first_writes_all_succeed];
            claims [map conditions]:
                one_claim_wins [one_of_two_updates_wins]
                a_lost_claim_cannot_commit
                a_logout_beats_a_claim
                a_new_login_beats_a_claim
                held_claims_do_not_block_other_keys
                the_next_read_after_a_claim_sees_the_commit [no_read_is_torn];
            cancellation [map]:
                a_dropped_write_leaves_old_or_new
                a_dropped_write_does_not_undo_another [a_dropped_write_leaves_old_or_new]
                a_dropped_delete_leaves_the_record_or_nothing
                dropped_calls_take_no_late_effect [a_dropped_write_leaves_old_or_new]
                the_list_agrees_after_a_drop [the_list_is_exact]
                handles_agree_after_a_drop
                a_dropped_read_does_not_block_others
                dropped_calls_leave_the_storage_usable [a_dropped_read_does_not_block_others];
            process [map conditions]:
                no_update_is_lost_between_processes [no_update_is_lost]
                writes_are_seen_by_other_processes
                acknowledged_writes_survive_a_kill
                each_refresh_token_is_redeemed_once [no_update_is_lost_between_processes an_error_means_old_or_new];
            model [map payloads keys conditions retention renewal purging listing filters paging]:
                random_histories_match_the_model;
            histories [map conditions races duels]:
                histories_are_linearizable
                histories_with_faults_are_linearizable [an_error_means_old_or_new];
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __table {
    ($($group:ident $([$($dependency:ident)+])?: $($name:ident $([$($own:ident)+])?)+;)+) => {
        /// All properties, basic ones before those that depend on them.
        ///
        /// ```
        /// use oauth_dance_conformance::PROPERTIES;
        ///
        /// let groups: std::collections::BTreeSet<_> = PROPERTIES.iter().map(|property| property.group).collect();
        /// assert!(groups.contains("races") && groups.contains("retention"));
        /// assert_eq!(PROPERTIES[0].group, "map");
        /// ```
        pub const PROPERTIES: &[Property] = &[
            $($(Property {
                group: stringify!($group),
                name: stringify!($name),
                depends_on: &[$($(stringify!($own)),+)?],
                check: |on| Box::pin($crate::$group::$name(on)),
            },)+)+
        ];

        /// What all properties of a group depend on: properties, and groups of properties.
        const GROUPS: &[(&str, &[&str])] = &[$((stringify!($group), &[$($(stringify!($dependency)),+)?])),+];
    };
}

crate::__properties!(__table);

/// All properties that this one depends on, directly and indirectly. If one of them fails, that explains a failure of this
/// one.
pub(crate) fn dependencies(property: &Property) -> BTreeSet<&'static str> {
    let mut all = BTreeSet::new();
    let mut open = direct_dependencies(property);
    while let Some(dependency) = open.pop() {
        if all.insert(dependency.name) {
            open.extend(direct_dependencies(dependency));
        }
    }
    all
}

fn direct_dependencies(property: &Property) -> Vec<&'static Property> {
    let of_group =
        GROUPS.iter().find(|(group, _)| *group == property.group).map_or(&[][..], |(_, dependencies)| *dependencies);
    let names: Vec<&str> = of_group.iter().chain(property.depends_on).copied().collect();
    // A property of the group may be one that the other properties of the group depend on.
    let others = PROPERTIES.iter().filter(|other| other.name != property.name);
    others.filter(|other| names.contains(&other.name) || names.contains(&other.group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dependency_is_a_property_or_a_group() {
        let own = PROPERTIES.iter().flat_map(|property| property.depends_on);
        for name in GROUPS.iter().flat_map(|(_, dependencies)| *dependencies).chain(own) {
            assert!(PROPERTIES.iter().any(|other| other.name == *name || other.group == *name), "{name}");
        }
    }

    #[test]
    fn no_property_depends_on_itself() {
        for property in PROPERTIES {
            assert!(!dependencies(property).contains(property.name), "{property:?}");
        }
    }
}
