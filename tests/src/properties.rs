use std::collections::BTreeSet;

use crate::run::Property;

/// The one list of all properties: calls a macro of this crate with them, grouped by module. In brackets stands what a
/// group or a property takes for granted: properties whose failure explains its own.
#[doc(hidden)]
#[macro_export]
macro_rules! __properties {
    ($with:ident) => {
        $crate::$with! {
            map:
                capabilities_are_steady
                missing_is_none
                delete_of_nothing_is_false
                always_never_conflicts
                a_read_shows_the_last_write [missing_is_none always_never_conflicts]
                reading_does_not_change_the_version [a_read_shows_the_last_write]
                delete_removes_the_record [a_read_shows_the_last_write]
                absent_hints_stay_absent [a_read_shows_the_last_write]
                a_write_replaces_the_whole_record [absent_hints_stay_absent]
                a_deleted_key_can_be_written_again [delete_removes_the_record]
                writes_are_seen_through_every_handle [a_read_shows_the_last_write delete_removes_the_record]
                no_acknowledged_write_is_lost [
                    a_read_shows_the_last_write delete_removes_the_record delete_of_nothing_is_false
                ];
            payloads [map]:
                sizes_are_exact
                too_large_is_refused
                any_bytes_come_back [sizes_are_exact]
                lookalikes_come_back [any_bytes_come_back]
                payloads_of_other_lengths_replace_each_other [sizes_are_exact any_bytes_come_back]
                instants_are_exact [the_list_is_exact an_expired_access_token_is_not_missing]
                key_ids_are_exact [the_list_is_exact]
                records_come_back_exactly [
                    any_bytes_come_back sizes_are_exact payloads_of_other_lengths_replace_each_other instants_are_exact
                    key_ids_are_exact
                ];
            keys [map the_list_is_exact pages_of_any_size_cover_the_list]:
                every_part_keeps_keys_apart
                many_keys_are_all_kept [every_part_keeps_keys_apart]
                case_spaces_and_accents_keep_keys_apart [many_keys_are_all_kept]
                unicode_keeps_keys_apart [many_keys_are_all_kept case_spaces_and_accents_keep_keys_apart]
                numbers_are_texts [many_keys_are_all_kept]
                special_characters_are_data [many_keys_are_all_kept]
                no_value_stands_for_none [many_keys_are_all_kept numbers_are_texts special_characters_are_data]
                addresses_are_not_normalized [many_keys_are_all_kept case_spaces_and_accents_keep_keys_apart]
                collations_do_not_apply_to_keys [
                    case_spaces_and_accents_keep_keys_apart unicode_keeps_keys_apart no_value_stands_for_none
                ]
                separators_keep_keys_apart [
                    case_spaces_and_accents_keep_keys_apart unicode_keeps_keys_apart numbers_are_texts
                    special_characters_are_data no_value_stands_for_none addresses_are_not_normalized
                    collations_do_not_apply_to_keys
                ]
                long_keys_work_or_are_refused [many_keys_are_all_kept]
                keys_of_any_characters_work [
                    unicode_keeps_keys_apart special_characters_are_data long_keys_work_or_are_refused
                ]
                lengths_do_not_wrap [long_keys_work_or_are_refused]
                namespaces_are_apart
                nobody_reads_anothers_record [
                    case_spaces_and_accents_keep_keys_apart special_characters_are_data separators_keep_keys_apart
                ];
            conditions [map]:
                absent_writes_only_where_nothing_is [reading_tells_the_time_left]
                a_version_of_nothing_conflicts
                stale_versions_conflict_and_change_nothing [reading_tells_the_time_left]
                delete_of_a_version_spares_others [reading_tells_the_time_left]
                every_byte_of_a_version_counts [
                    stale_versions_conflict_and_change_nothing delete_of_a_version_spares_others
                ]
                writing_the_same_bytes_is_a_write [
                    stale_versions_conflict_and_change_nothing delete_of_a_version_spares_others
                ]
                a_version_dies_with_its_record [a_version_of_nothing_conflicts delete_of_a_version_spares_others]
                versions_are_never_used_again [
                    writing_the_same_bytes_is_a_write a_version_dies_with_its_record
                    past_retention_counts_as_absent
                ]
                a_version_never_holds_again [
                    versions_are_never_used_again zero_retention_is_over_at_once purge_accepts_every_limit
                    past_retention_counts_as_absent every_write_sets_the_retention retention_ends_with_the_record
                    retention_is_seen_through_every_handle
                ];
            retention [map the_list_is_exact]:
                an_expired_access_token_is_not_missing
                retention_hides
                past_retention_counts_as_absent [retention_hides]
                zero_retention_is_over_at_once [absent_writes_only_where_nothing_is]
                fractions_count_as_seconds
                reading_tells_the_time_left [retention_hides]
                extreme_retentions_are_kept [
                    reading_tells_the_time_left purge_takes_only_what_is_past purge_accepts_every_limit
                ];
            renewal [map retention_hides the_list_is_exact]:
                every_write_sets_the_retention
                retention_counts_from_the_last_write [every_write_sets_the_retention]
                retention_ends_with_the_record
                nothing_of_an_expired_record_survives [past_retention_counts_as_absent]
                a_refused_write_leaves_the_retention [
                    absent_writes_only_where_nothing_is stale_versions_conflict_and_change_nothing
                    delete_of_a_version_spares_others
                ]
                retention_is_seen_through_every_handle [past_retention_counts_as_absent];
            purging [map zero_retention_is_over_at_once]:
                purge_takes_only_what_is_past
                purge_accepts_every_limit
                a_purge_below_its_limit_leaves_nothing [purge_takes_only_what_is_past purge_accepts_every_limit]
                purge_spares_what_is_written_meanwhile [purge_takes_only_what_is_past]
                expired_records_are_not_cleared_over_new_ones [past_retention_counts_as_absent];
            listing [map]:
                an_undeclared_list_is_unsupported
                the_list_is_exact
                pages_of_any_size_cover_the_list [the_list_is_exact]
                long_lists_are_whole [pages_of_any_size_cover_the_list]
                a_user_can_be_removed [the_list_is_exact filters_are_exact];
            filters [map every_part_keeps_keys_apart]:
                filters_hold_on_every_page
                filters_are_exact [filters_hold_on_every_page]
                filters_are_not_patterns;
            paging [map the_list_is_exact pages_of_any_size_cover_the_list]:
                foreign_cursors_are_refused
                a_list_goes_on_from_any_cursor
                pages_are_stable_under_writes [a_list_goes_on_from_any_cursor]
                later_pages_are_as_new_as_the_first
                expired_records_do_not_end_a_list [retention_hides zero_retention_is_over_at_once]
                a_short_lived_record_takes_no_other_from_the_list [retention_hides]
                a_record_is_listed_while_it_is_rewritten [no_read_is_torn];
            corruption [map]:
                a_corrupt_record_is_told_as_such
                a_corrupt_record_can_be_replaced_and_removed [a_corrupt_record_is_told_as_such]
                conditions_do_not_hold_for_a_corrupt_record [
                    a_corrupt_record_is_told_as_such stale_versions_conflict_and_change_nothing
                    delete_of_a_version_spares_others
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
                acknowledged_writes_survive_a_restart
                acknowledged_writes_survive_a_server_crash
                an_outage_is_an_error
                a_silent_server_is_an_error_in_time
                the_storage_recovers
                an_error_means_old_or_new
                read_only_is_an_error
                a_full_medium_is_an_error;
            races [map conditions]:
                one_creation_wins
                racing_first_writes_all_succeed
                no_update_is_lost
                one_delete_wins
                a_delete_and_a_write_exclude_each_other
                no_read_is_torn
                large_writes_exclude_each_other [no_update_is_lost one_creation_wins]
                reads_do_not_go_back
                keys_do_not_block_each_other;
            duels [map conditions]:
                one_of_two_creations_wins [one_creation_wins]
                one_of_two_updates_wins [no_update_is_lost]
                one_of_two_deletes_wins [one_delete_wins]
                an_update_or_a_delete_wins [a_delete_and_a_write_exclude_each_other]
                an_update_does_not_undo_a_write [no_update_is_lost]
                writes_of_two_keys_are_both_kept;
            claims [map conditions]:
                one_claim_wins [one_of_two_updates_wins]
                a_lost_claim_cannot_commit
                a_logout_beats_a_claim
                a_new_login_beats_a_claim
                held_claims_pin_nothing
                a_waiter_sees_the_commit [no_read_is_torn];
            cancellation [map]:
                a_dropped_write_leaves_old_or_new
                a_dropped_delete_leaves_the_record_or_nothing
                nothing_dropped_takes_effect_late [a_dropped_write_leaves_old_or_new]
                the_list_agrees_after_a_drop [the_list_is_exact]
                handles_agree_after_a_drop
                a_dropped_read_holds_up_no_other
                dropped_calls_leave_the_storage_usable [a_dropped_read_holds_up_no_other];
            process [map conditions]:
                no_update_is_lost_between_processes [no_update_is_lost]
                writes_are_seen_by_other_processes
                acknowledged_writes_survive_a_kill;
            model [map payloads keys conditions retention renewal purging listing filters paging]:
                any_history_has_the_right_answers;
            histories [map conditions races duels]:
                histories_are_linearizable
                histories_with_faults_are_linearizable [an_error_means_old_or_new];
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __table {
    ($($group:ident $([$($basis:ident)+])?: $($name:ident $([$($own:ident)+])?)+;)+) => {
        /// Every property, basic ones before those that depend on them.
        pub const PROPERTIES: &[Property] = &[
            $($(Property {
                group: stringify!($group),
                name: stringify!($name),
                rests_on: &[$($(stringify!($own)),+)?],
                check: |on| Box::pin($crate::$group::$name(on)),
            },)+)+
        ];

        /// What all properties of a group take for granted: properties, and groups of them.
        const GROUPS: &[(&str, &[&str])] = &[$((stringify!($group), &[$($(stringify!($basis)),+)?])),+];
    };
}

crate::__properties!(__table);

/// Every property that this one takes for granted, and what those take for granted: if one of them fails, that explains
/// the failure of this one.
pub(crate) fn bases(property: &Property) -> BTreeSet<&'static str> {
    let mut bases = BTreeSet::new();
    let mut open = direct_bases(property);
    while let Some(basis) = open.pop() {
        if bases.insert(basis.name) {
            open.extend(direct_bases(basis));
        }
    }
    bases
}

fn direct_bases(property: &Property) -> Vec<&'static Property> {
    let of_group = GROUPS.iter().find(|(group, _)| *group == property.group).map_or(&[][..], |(_, bases)| *bases);
    let names: Vec<&str> = of_group.iter().chain(property.rests_on).copied().collect();
    // What all others of a group take for granted may be one of them.
    let others = PROPERTIES.iter().filter(|other| other.name != property.name);
    others.filter(|other| names.contains(&other.name) || names.contains(&other.group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_basis_is_a_property_or_a_group() {
        let own = PROPERTIES.iter().flat_map(|property| property.rests_on);
        for name in GROUPS.iter().flat_map(|(_, bases)| *bases).chain(own) {
            assert!(PROPERTIES.iter().any(|other| other.name == *name || other.group == *name), "{name}");
        }
    }

    #[test]
    fn no_property_takes_itself_for_granted() {
        for property in PROPERTIES {
            assert!(!bases(property).contains(property.name), "{property:?}");
        }
    }
}
