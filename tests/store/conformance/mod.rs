//! The laws of `tallygate::store`, run against every store.
//!
//! A law is an async function over a [`Subject`]; a store is a function that makes one, and one
//! line at the end of this file. A store that cannot run here says why: on a developer's machine
//! its laws print `skipped`, in CI (`CI=true`) they fail.
//!
//! Not covered: that a write survives a power cut. That is tested beside each store's code, on a
//! disk that loses unsynced data.

mod changes;
mod concurrency;
mod conditions;
mod expiry;
mod life;
mod model;
mod order;
mod size;
mod subject;

use subject::Subject;

/// Names every law once. Those of expiry differ for a store whose service removes expired items.
macro_rules! every_law {
    ($store:ident) => {
        every_law! { $store:
            expiry {
                an_item_goes_after_its_time_and_never_before,
                nothing_but_a_whole_number_called_ttl_expires_an_item,
                other_attributes_do_not_keep_an_item,
                more_time_keeps_an_item_and_less_lets_it_go,
                what_is_more_than_a_part_goes_in_several,
                an_expired_item_is_an_item_until_it_goes,
            }
        }
    };
    ($store:ident, expiry by its service) => {
        every_law! { $store:
            expiry { nothing_but_a_whole_number_called_ttl_expires_an_item }
        }
    };
    ($store:ident: $($expiry:tt)*) => {
        laws! { $store:
            conditions {
                each_condition_holds_exactly_when_it_says,
                all_conditions_must_hold,
                a_refused_write_changes_nothing_and_returns_the_item,
                a_condition_is_tested_before_an_overflow,
                an_exact_entry_lets_a_write_through_once,
            }
            changes {
                each_change_does_what_it_says,
                changes_leave_other_attributes_alone,
                a_deleted_item_is_gone_and_can_come_again,
                a_sum_out_of_range_is_invalid_and_changes_nothing,
                a_malformed_call_is_invalid_and_changes_nothing,
            }
            order {
                sort_keys_are_in_byte_order,
                pages_follow_each_other_without_gap_or_repeat,
                from_is_inclusive_and_until_is_exclusive,
                a_partition_does_not_see_its_neighbours,
                a_page_never_holds_more_than_the_bound,
            }
            size {
                an_item_of_nearly_the_bound_comes_back_whole,
                an_item_above_the_bound_is_invalid_and_changes_nothing,
                keys_of_the_longest_length_work_and_longer_ones_are_invalid,
                every_kind_of_text_and_every_byte_comes_back,
            }
            concurrency {
                many_tasks_take_exactly_what_there_is,
                a_slot_is_written_once,
                a_read_after_an_answer_sees_the_write,
            }
            life {
                calls_after_a_close_are_unavailable,
                a_close_may_be_repeated,
                an_opened_again_store_keeps_everything,
                nothing_happens_before_a_future_is_polled,
            }
            $($expiry)*
            model { random_calls_are_answered_like_the_model }
        }
    };
}

macro_rules! laws {
    ($store:ident: $($group:ident { $($law:ident),* $(,)? })*) => {
        mod $store {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $law() {
                    let made = super::subject::$store().await;
                    if let Some(subject) = super::subject::get(stringify!($store), made) {
                        super::$group::$law(subject).await;
                    }
                }
            )*)*
        }
    };
}

every_law!(memory);
every_law!(cut_pages);
#[cfg(feature = "redb")]
every_law!(redb);
#[cfg(feature = "dynamodb")]
every_law!(dynoxide, expiry by its service);
#[cfg(feature = "dynamodb")]
every_law!(dynamodb_local, expiry by its service);
