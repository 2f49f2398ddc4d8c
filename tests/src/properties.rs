use crate::run::Property;

/// The one list of all properties: calls a macro of this crate with them, grouped by module.
#[doc(hidden)]
#[macro_export]
macro_rules! __properties {
    ($with:ident) => {
        $crate::$with! {
            map:
                capabilities_are_steady
                missing_is_none
                records_come_back_exactly
                absent_hints_stay_absent
                a_write_replaces_the_whole_record
                reading_does_not_change_the_version
                delete_removes_the_record
                delete_of_nothing_is_false
                a_deleted_key_can_be_written_again;
            payloads:
                sizes_are_exact
                too_large_is_refused
                any_bytes_come_back
                lookalikes_come_back
                payloads_of_other_lengths_replace_each_other
                instants_are_exact
                key_ids_are_exact;
            keys:
                every_part_keeps_keys_apart
                separators_keep_keys_apart
                case_spaces_and_accents_keep_keys_apart
                unicode_keeps_keys_apart
                collations_do_not_apply_to_keys
                no_value_stands_for_none
                numbers_are_texts
                addresses_are_not_normalized
                special_characters_are_data
                long_keys_work_or_are_refused
                lengths_do_not_wrap
                namespaces_are_apart
                nobody_reads_anothers_record
                many_keys_are_all_kept;
            conditions:
                absent_writes_only_where_nothing_is
                stale_versions_conflict_and_change_nothing
                a_version_of_nothing_conflicts
                always_never_conflicts
                delete_of_a_version_spares_others
                every_byte_of_a_version_counts
                versions_are_never_used_again
                writing_the_same_bytes_is_a_write
                a_version_dies_with_its_record
                a_version_never_holds_again;
            retention:
                an_expired_access_token_is_not_missing
                retention_hides
                past_retention_counts_as_absent
                zero_retention_is_over_at_once
                fractions_count_as_seconds
                every_write_sets_the_retention
                retention_counts_from_the_last_write
                retention_ends_with_the_record
                nothing_of_an_expired_record_survives
                a_refused_write_leaves_the_retention
                reading_tells_the_time_left
                retention_is_seen_through_every_handle
                extreme_retentions_are_kept;
            purging:
                purge_takes_only_what_is_past
                purge_accepts_every_limit
                purge_spares_what_is_written_meanwhile
                expired_records_are_not_cleared_over_new_ones;
            listing:
                an_undeclared_list_is_unsupported
                the_list_is_exact
                pages_of_any_size_cover_the_list
                filters_are_exact
                filters_are_not_patterns
                filters_hold_on_every_page
                pages_are_stable_under_writes
                a_list_goes_on_from_any_cursor
                foreign_cursors_are_refused
                expired_records_do_not_end_a_list
                a_short_lived_record_takes_no_other_from_the_list
                long_lists_are_whole
                a_record_is_listed_while_it_is_rewritten
                a_user_can_be_removed;
            corruption:
                a_corrupt_record_is_told_as_such
                a_corrupt_record_can_be_replaced_and_removed
                conditions_do_not_hold_for_a_corrupt_record
                a_corrupt_record_is_listed;
            races:
                writes_are_seen_through_every_handle
                one_creation_wins
                racing_first_writes_all_succeed
                no_update_is_lost
                one_delete_wins
                a_delete_and_a_write_exclude_each_other
                no_read_is_torn
                reads_do_not_go_back
                keys_do_not_block_each_other;
            duels:
                no_acknowledged_write_is_lost
                one_of_two_creations_wins
                one_of_two_updates_wins
                one_of_two_deletes_wins
                an_update_or_a_delete_wins
                an_update_does_not_undo_a_write
                writes_of_two_keys_are_both_kept;
            claims:
                one_claim_wins
                a_lost_claim_cannot_commit
                a_logout_beats_a_claim
                a_new_login_beats_a_claim
                held_claims_pin_nothing
                a_waiter_sees_the_commit;
            cancellation:
                a_dropped_write_leaves_old_or_new
                a_dropped_delete_leaves_the_record_or_nothing
                nothing_dropped_takes_effect_late
                dropped_calls_leave_the_storage_usable;
            process:
                no_update_is_lost_between_processes
                writes_are_seen_by_other_processes
                acknowledged_writes_survive_a_kill;
            faults:
                acknowledged_writes_survive_a_restart
                acknowledged_writes_survive_a_server_crash
                an_outage_is_an_error
                a_silent_server_is_an_error_in_time
                the_storage_recovers
                an_error_means_old_or_new
                read_only_is_an_error
                a_full_medium_is_an_error;
            secrecy:
                tokens_come_back_whole
                sealed_tokens_leave_no_trace
                printing_shows_no_payload
                errors_show_no_payload
                sealed_records_are_bound_to_their_key
                equal_tokens_are_stored_differently
                the_sealing_key_is_recorded
                resealing_loses_no_update;
            model:
                any_history_has_the_right_answers;
            histories:
                histories_are_linearizable
                histories_with_faults_are_linearizable;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __table {
    ($($group:ident: $($name:ident)+;)+) => {
        /// Every property, the most telling first: what fails further up explains what fails below.
        pub const PROPERTIES: &[Property] = &[
            $($(Property {
                group: stringify!($group),
                name: stringify!($name),
                check: |on| Box::pin($crate::$group::$name(on)),
            },)+)+
        ];
    };
}

crate::__properties!(__table);
