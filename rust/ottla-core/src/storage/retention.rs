//! Which of the oldest segments are to be deleted (Kafka: `UnifiedLog.deleteOldSegments`). Decisions only.

use super::config::LogConfig;

/// What retention needs to know of a segment, oldest first; the last one is the active segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetentionSegment {
    /// Base offset of the next segment; of the active one, the log end offset.
    pub end_offset: i64,
    /// Its size.
    pub size_bytes: u64,
    /// Its greatest timestamp, or when it was last written to if its records have none, in Unix ms; `None`: not known,
    /// time deletes neither it nor what follows.
    pub newest_ms: Option<i64>,
}

/// How many of the oldest segments go. If that includes the active one, it must be rolled first.
///
/// Nothing at or above the high watermark goes, nor a last segment that is empty. Segments below the log start offset go
/// whatever the policy says; with `delete`, also while the log without the next segment still has `retention.bytes`, and
/// those whose newest record is older than `retention.ms`.
pub fn count_deletable(
    segments: &[RetentionSegment],
    config: &LogConfig,
    log_start_offset: i64,
    high_watermark: i64,
    wall_ms: i64,
) -> usize {
    let last = segments.len().saturating_sub(1);
    let may_go = |number: usize, segment: &RetentionSegment| {
        segment.end_offset <= high_watermark && (number < last || segment.size_bytes > 0)
    };
    let candidates = || {
        segments
            .iter()
            .enumerate()
            .take_while(|(number, segment)| may_go(*number, segment))
    };
    let below_start = candidates()
        .take_while(|(number, segment)| *number < last && segment.end_offset <= log_start_offset)
        .count();
    if !config.cleanup_policy.delete {
        return below_start;
    }
    let mut count = below_start;
    if let Ok(limit_bytes) = u64::try_from(config.retention_bytes) {
        let total_bytes: u64 = segments[count..].iter().map(|segment| segment.size_bytes).sum();
        let mut excess_bytes = total_bytes.saturating_sub(limit_bytes);
        count += candidates()
            .skip(count)
            .take_while(|(_, segment)| {
                let goes = total_bytes >= limit_bytes && segment.size_bytes <= excess_bytes;
                excess_bytes = excess_bytes.saturating_sub(segment.size_bytes);
                goes
            })
            .count();
    }
    if config.retention_ms >= 0 {
        let is_over = |newest_ms: i64| wall_ms.saturating_sub(newest_ms) > config.retention_ms;
        count += candidates()
            .skip(count)
            .take_while(|(_, segment)| segment.newest_ms.is_some_and(is_over))
            .count();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::config::CleanupPolicy;

    /// Ten offsets and 100 bytes each, one second apart; the last is the active one.
    fn segments(count: i64) -> Vec<RetentionSegment> {
        (1..=count)
            .map(|number| RetentionSegment {
                end_offset: number * 10,
                size_bytes: 100,
                newest_ms: Some(number * 1000),
            })
            .collect()
    }

    fn config(retention_ms: i64, retention_bytes: i64) -> LogConfig {
        LogConfig {
            retention_ms,
            retention_bytes,
            ..LogConfig::default()
        }
    }

    #[test]
    fn time_counts_from_the_newest_record_of_a_segment() {
        let kept_for = |retention_ms, wall_ms| count_deletable(&segments(4), &config(retention_ms, -1), 0, 40, wall_ms);
        assert_eq!(kept_for(5_000, 6_000), 0);
        assert_eq!(kept_for(5_000, 6_001), 1);
        assert_eq!(kept_for(5_000, 8_001), 3);
        assert_eq!(kept_for(5_000, 9_001), 4); // the active one, too
        assert_eq!(kept_for(-1, i64::MAX), 0);
    }

    #[test]
    fn size_deletes_only_while_the_rest_is_large_enough() {
        let left_with = |retention_bytes| count_deletable(&segments(4), &config(-1, retention_bytes), 0, 40, 0);
        assert_eq!(left_with(400), 0);
        assert_eq!(left_with(301), 0);
        assert_eq!(left_with(300), 1);
        assert_eq!(left_with(50), 3);
        assert_eq!(left_with(0), 4);
    }

    #[test]
    fn nothing_above_the_high_watermark_goes() {
        assert_eq!(count_deletable(&segments(4), &config(0, -1), 0, 29, i64::MAX), 2);
        assert_eq!(count_deletable(&segments(4), &config(-1, 0), 0, 9, i64::MAX), 0);
    }

    #[test]
    fn what_is_below_the_log_start_goes_under_every_policy() {
        let cleanup_policy = CleanupPolicy {
            delete: false,
            compact: true,
        };
        let compacted = LogConfig {
            cleanup_policy,
            ..config(0, 0)
        };
        assert_eq!(count_deletable(&segments(4), &compacted, 29, 40, i64::MAX), 2);
        assert_eq!(count_deletable(&segments(4), &compacted, 40, 40, i64::MAX), 3);
        let kept = CleanupPolicy {
            delete: false,
            compact: false,
        };
        assert_eq!(
            count_deletable(
                &segments(4),
                &LogConfig {
                    cleanup_policy: kept,
                    ..config(0, 0)
                },
                0,
                40,
                i64::MAX
            ),
            0
        );
    }

    #[test]
    fn an_empty_active_segment_stays() {
        let mut segments = segments(3);
        segments[2].size_bytes = 0;
        assert_eq!(count_deletable(&segments, &config(0, 0), 0, 30, i64::MAX), 2);
    }

    #[test]
    fn a_segment_of_unknown_age_stops_time() {
        let mut segments = segments(3);
        segments[1].newest_ms = None;
        assert_eq!(count_deletable(&segments, &config(0, -1), 0, 30, i64::MAX), 1);
    }
}
