//! RAM: what the kernel says of the machine, and what the control groups leave of it.

use std::collections::HashMap;

use super::cgroup::{self, MemoryLimits};
use super::{Memory, Roots};

impl Memory {
    /// The current figures of this machine. Blocking, some tens of microseconds.
    pub fn read() -> Memory {
        Memory::read_at(&Roots::system())
    }

    /// The current figures of the machine at `roots`.
    ///
    /// Where nothing says how much there is, `total` and `available` are `u64::MAX`: no load is
    /// refused for want of a figure.
    pub fn read_at(roots: &Roots) -> Memory {
        let meminfo = roots.text("/proc/meminfo").unwrap_or_default();
        within(parse(&meminfo), &cgroup::memory_limits(roots))
    }
}

/// The fields of `/proc/meminfo`; kB became bytes.
struct Meminfo<'a>(HashMap<&'a str, u64>);

impl Meminfo<'_> {
    fn parse(text: &str) -> Meminfo<'_> {
        Meminfo(text.lines().filter_map(field).collect())
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// What can be allocated; kernels before 3.14 do not say it themselves.
    fn available(&self) -> Option<u64> {
        self.get("MemAvailable").or_else(|| {
            let cached = ["MemFree", "Buffers", "Cached"].map(|name| self.get(name));
            let sum = cached.into_iter().flatten().reduce(u64::saturating_add)?;
            Some(sum.saturating_sub(self.get("Shmem").unwrap_or(0)))
        })
    }

    /// What is reserved in huge pages of all sizes; older kernels count those of one size.
    fn huge_pages(&self) -> u64 {
        let one_size =
            || Some(self.get("HugePages_Total")?.saturating_mul(self.get("Hugepagesize")?));
        self.get("Hugetlb").or_else(one_size).unwrap_or(0)
    }
}

/// A line such as `MemTotal:  16 kB` or `HugePages_Total:  2`.
fn field(line: &str) -> Option<(&str, u64)> {
    let (name, value) = line.split_once(':')?;
    let mut words = value.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let scale = if words.next() == Some("kB") { 1024 } else { 1 };
    Some((name.trim(), number.saturating_mul(scale)))
}

/// The machine's own memory, without control groups. Of two figures that contradict each other the
/// tighter one holds.
fn parse(meminfo: &str) -> Memory {
    let meminfo = Meminfo::parse(meminfo);
    let total = meminfo.get("MemTotal").filter(|total| *total > 0).unwrap_or(u64::MAX);
    let swap_total = meminfo.get("SwapTotal").unwrap_or(0);
    Memory {
        total,
        available: meminfo.available().unwrap_or(total).min(total),
        limit: None,
        swap_total,
        swap_free: meminfo.get("SwapFree").unwrap_or(0).min(swap_total),
        huge_pages: meminfo.huge_pages().min(total),
        bandwidth: None,
    }
}

/// `memory` as a process in these control groups has it.
fn within(memory: Memory, limits: &MemoryLimits) -> Memory {
    // A limit beyond what there is limits nothing.
    let limit = limits.limit.filter(|limit| *limit < memory.total);
    let total = limit.unwrap_or(memory.total);
    let available = memory.available.min(limits.available.unwrap_or(u64::MAX)).min(total);
    let swap_total = memory.swap_total.min(limits.swap_limit.unwrap_or(u64::MAX));
    let swap_free = memory.swap_free.min(limits.swap_available.unwrap_or(u64::MAX));
    Memory {
        total,
        available,
        limit,
        swap_total,
        swap_free: swap_free.min(swap_total),
        huge_pages: memory.huge_pages.min(total),
        ..memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DESKTOP: &str = "MemTotal:       16316612 kB\nMemFree:         1200000 kB\n\
        MemAvailable:   11500000 kB\nBuffers:          300000 kB\nCached:          9900000 kB\n\
        Shmem:            400000 kB\nSwapTotal:       8388604 kB\nSwapFree:        8000000 kB\n\
        HugePages_Total:     512\nHugepagesize:       2048 kB\nHugetlb:         1048576 kB\n";

    #[test]
    fn a_desktop() {
        let memory = parse(DESKTOP);
        assert_eq!(memory.total, 16_316_612 * 1024);
        assert_eq!(memory.available, 11_500_000 * 1024);
        assert_eq!((memory.swap_total, memory.swap_free), (8_388_604 * 1024, 8_000_000 * 1024));
        assert_eq!(memory.huge_pages, 1 << 30);
    }

    #[test]
    fn an_old_kernel_and_one_size_of_huge_pages() {
        let old = DESKTOP.replace("MemAvailable", "MemForeign").replace("Hugetlb", "Hugeother");
        let memory = parse(&old);
        assert_eq!(memory.available, (1_200_000 + 300_000 + 9_900_000 - 400_000) * 1024);
        assert_eq!(memory.huge_pages, 1 << 30);
    }

    #[test]
    fn nothing_said_is_nothing_refused() {
        for text in ["", "MemTotal: 0 kB", "garbage", "MemTotal: 99999999999999999999999 kB"] {
            let memory = parse(text);
            assert_eq!((memory.total, memory.available), (u64::MAX, u64::MAX), "{text}");
        }
    }

    #[test]
    fn the_tighter_figure_holds() {
        let more = parse("MemTotal: 100 kB\nMemAvailable: 400 kB\nSwapFree: 7 kB\nHugetlb: 900 kB");
        assert_eq!((more.total, more.available), (102_400, 102_400));
        assert_eq!((more.swap_free, more.huge_pages), (0, 102_400));

        let host = Memory { total: 128 << 30, available: 100 << 30, ..Memory::default() };
        let limits = |limit, available| MemoryLimits {
            limit: Some(limit),
            available: Some(available),
            ..MemoryLimits::default()
        };
        let cases = [
            (limits(4 << 30, 3 << 30), (4 << 30, 3 << 30, Some(4 << 30))),
            (limits(4 << 30, 9 << 30), (4 << 30, 4 << 30, Some(4 << 30))),
            (limits(200 << 30, 150 << 30), (128 << 30, 100 << 30, None)),
            (limits(0, 0), (0, 0, Some(0))),
        ];
        for (limits, expected) in cases {
            let memory = within(host, &limits);
            assert_eq!((memory.total, memory.available, memory.limit), expected, "{limits:?}");
        }
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = Memory::read();
        assert!(memory.total > 0 && memory.total < u64::MAX, "{memory:?}");
        assert!(memory.available <= memory.total, "{memory:?}");
    }

    proptest! {
        #[test]
        fn no_text_gives_a_contradiction(
            lines in prop::collection::vec(
                ("MemTotal|MemAvailable|MemFree|Cached|Shmem|SwapTotal|SwapFree|Hugetlb|\\PC*",
                 any::<u64>(), " kB|| MB|\\PC*"),
                0..12,
            ),
            limit in any::<Option<u64>>(),
            available in any::<Option<u64>>(),
            swap_limit in any::<Option<u64>>(),
        ) {
            let text: String =
                lines.iter().map(|(name, number, unit)| format!("{name}: {number}{unit}\n")).collect();
            let limits = MemoryLimits { limit, available, swap_limit, swap_available: None };
            let memory = within(parse(&text), &limits);
            prop_assert!(memory.available <= memory.total);
            prop_assert!(memory.swap_free <= memory.swap_total);
            prop_assert!(memory.huge_pages <= memory.total);
            prop_assert!(memory.limit.is_none_or(|limit| memory.total == limit));
            prop_assert!(limit.is_none_or(|limit| memory.total <= limit));
        }
    }
}
