//! Notices a runner that stands still while it should work.
//!
//! Two things are watched while a model loads or requests run, and nothing while a runner is idle:
//! that its process answers (a ping each third of the patience, answered by a thread that does
//! nothing else: a stopped or swapped-out process does not), and that its work advances (progress of
//! the load, tokens of prompts and answers: a deadlock or an endless loop does not).

use std::time::Duration;

use tokio::time::Instant;

use super::Report;

/// A load may stand still for so many times the patience: disks and networks do for minutes.
const LOAD_STILL: u32 = 20;
/// Requests may so long, when the process hardly computes either.
const WORK_STILL: u32 = 8;
/// However busy it is: a step of the largest model on the slowest machine takes less.
const WORK_BUSY: u32 = 80;
/// A process that computes for less than one part in so many of the time stands still.
const IDLE_SHARE: u32 = 100;

/// Watches one phase of a runner's work after the other.
#[derive(Debug)]
pub(super) struct Watchdog {
    patience: Duration,
    still: Duration,
    /// When the next ping is due.
    ping_at: Instant,
    /// When the first ping that was not answered went out.
    unanswered: Option<Instant>,
    progress: Instant,
    /// The processor time at the first look since then.
    computed: Option<Duration>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Ping,
    /// It has hung; the text completes "the runner of X …".
    Kill(String),
}

impl Watchdog {
    /// Watches a load that starts now.
    pub(super) fn of_load(patience: Duration, now: Instant) -> Watchdog {
        Watchdog {
            patience,
            still: patience * LOAD_STILL,
            ping_at: now + patience / 3,
            unanswered: None,
            progress: now,
            computed: None,
        }
    }

    /// Watches requests; the first of them starts now.
    pub(super) fn of_work(patience: Duration, now: Instant) -> Watchdog {
        Watchdog { still: patience * WORK_STILL, ..Watchdog::of_load(patience, now) }
    }

    pub(super) fn heard(&mut self, report: &Report, now: Instant) {
        self.unanswered = None;
        if !matches!(report, Report::Pong) {
            self.progress = now;
            self.computed = None;
        }
    }

    /// When to [`Watchdog::look`] next.
    pub(super) fn next(&self) -> Instant {
        self.ping_at
    }

    /// To be called when it is time to. Looks at the time, and at the processor time of the process if it is known.
    pub(super) fn look(&mut self, now: Instant, computed: Option<Duration>) -> Due {
        let interval = self.patience / 3;
        if now > self.ping_at + interval {
            // It was the daemon that stood still, and the runner perhaps with it.
            self.unanswered = None;
            self.progress = now;
            self.computed = None;
        }
        self.ping_at = now + interval;
        if self.unanswered.is_some_and(|since| now >= since + self.patience) {
            return Due::Kill(format!("answered nothing for {}", seconds(self.patience)));
        }
        let quiet = now - self.progress;
        let before = *self.computed.get_or_insert(computed.unwrap_or_default());
        let idle = computed.is_none_or(|now| (now.saturating_sub(before)) * IDLE_SHARE < quiet);
        if quiet >= self.still && idle || quiet >= self.patience * WORK_BUSY {
            return Due::Kill(format!("made no progress for {}", seconds(quiet)));
        }
        self.unanswered.get_or_insert(now);
        Due::Ping
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64().round())
}

/// The processor time that a process has taken, by the kernel's count.
pub(super) fn computed(pid: u32) -> Option<Duration> {
    processor_time(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The 14th and 15th field of `/proc/<pid>/stat`: user and system time. The second is the program's
/// name in parentheses, which may hold anything.
fn processor_time(stat: &str) -> Option<Duration> {
    /// The kernel's unit for programs, on every architecture of ours.
    const TICKS_PER_SECOND: u64 = 100;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(Duration::from_millis(user.checked_add(system)?.checked_mul(1000 / TICKS_PER_SECOND)?))
}

#[cfg(test)]
mod tests {
    use dsk_daemon_engine::Event;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(15);

    fn token() -> Report {
        Report::Event { id: 1, event: Event::Content("a".to_owned()) }
    }

    /// Looks whenever it is due, for so many seconds; `answer` says what is heard each time and how
    /// much the process has computed.
    fn watched(
        mut dog: Watchdog,
        start: Instant,
        answer: impl Fn(u64) -> (Option<Report>, Duration),
    ) -> Option<(u64, String)> {
        for _ in 0..1000 {
            let now = dog.next();
            let second = (now - start).as_secs();
            let (report, computed) = answer(second);
            match dog.look(now, Some(computed)) {
                Due::Kill(cause) => return Some((second, cause)),
                due => assert_eq!(due, Due::Ping),
            }
            if let Some(report) = report {
                dog.heard(&report, now);
            }
        }
        None
    }

    #[test]
    fn each_way_to_stand_still_has_its_bound() {
        let start = Instant::now();
        let (none, busy) = (Duration::ZERO, Duration::from_secs);
        let load = || Watchdog::of_load(PATIENCE, start);
        let work = || Watchdog::of_work(PATIENCE, start);
        let mut shown = String::new();
        for (what, ended) in [
            ("stopped", watched(work(), start, |_| (None, none))),
            ("stopped while loading", watched(load(), start, |_| (None, none))),
            ("deadlock", watched(work(), start, |_| (Some(Report::Pong), none))),
            ("deadlock while loading", watched(load(), start, |_| (Some(Report::Pong), none))),
            ("endless loop", watched(work(), start, |s| (Some(Report::Pong), busy(s)))),
            (
                "a slow step",
                watched(work(), start, |s| {
                    (Some(if s % 600 == 0 { token() } else { Report::Pong }), busy(s))
                }),
            ),
            ("work", watched(work(), start, |s| (Some(token()), busy(s)))),
            ("work that stops", watched(work(), start, |s| ((s < 60).then(token), none))),
        ] {
            shown += &match ended {
                Some((second, cause)) => format!("{what}: after {second} s, {cause}\n"),
                None => format!("{what}: goes on\n"),
            };
        }
        expect_test::expect![[r#"
            stopped: after 20 s, answered nothing for 15 s
            stopped while loading: after 20 s, answered nothing for 15 s
            deadlock: after 120 s, made no progress for 120 s
            deadlock while loading: after 300 s, made no progress for 300 s
            endless loop: after 1200 s, made no progress for 1200 s
            a slow step: goes on
            work: goes on
            work that stops: after 75 s, answered nothing for 15 s
        "#]]
        .assert_eq(&shown);
    }

    #[test]
    fn a_daemon_that_stood_still_itself_blames_nobody() {
        let start = Instant::now();
        let mut dog = Watchdog::of_work(PATIENCE, start);
        assert_eq!(dog.look(dog.next(), None), Due::Ping);
        let later = start + Duration::from_secs(3600);
        assert_eq!(dog.look(later, None), Due::Ping);
        assert!(matches!(dog.look(later + PATIENCE / 3, None), Due::Ping));
    }

    #[test]
    fn the_kernels_count_is_read() {
        let text = "12 (a) b (c) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 300 1 2";
        assert_eq!(processor_time(text), Some(Duration::from_secs(3)));
        assert_eq!(processor_time("12 (a) S 1"), None);
        assert!(computed(std::process::id()).is_some());
        assert_eq!(computed(u32::MAX), None);
    }
}
