//! How fast GPUs read their memory: their makers' figures, or what clock and width make.

/// Part of a name, and bytes per second. The first match counts, so longer names come first.
const BY_NAME: &[(&str, u64)] = &[
    ("H200", 4_800_000_000_000),
    ("H100 PCIe", 2_039_000_000_000),
    ("H100 NVL", 3_938_000_000_000),
    ("H100", 3_352_000_000_000),
    ("A100-SXM4-80GB", 2_039_000_000_000),
    ("A100-PCIE-40GB", 1_555_000_000_000),
    ("L40S", 864_000_000_000),
    ("RTX 5090", 1_792_000_000_000),
    ("RTX 4090", 1_008_000_000_000),
    ("RTX 4080 SUPER", 736_000_000_000),
    ("RTX 4070 Ti SUPER", 672_000_000_000),
    ("RTX 3090 Ti", 1_008_000_000_000),
    ("RTX 3090", 936_000_000_000),
    ("MI300X", 5_300_000_000_000),
    ("MI210", 1_600_000_000_000),
    ("7900 XTX", 960_000_000_000),
    ("7900 XT", 800_000_000_000),
    ("6900 XT", 512_000_000_000),
    ("Arc A770", 560_000_000_000),
    ("Arc B580", 456_000_000_000),
    ("AGX Thor", 273_000_000_000),
    ("AGX Orin", 204_800_000_000),
    ("Orin NX", 102_400_000_000),
    ("Orin Nano", 68_000_000_000),
    ("AGX Xavier", 136_500_000_000),
    ("Xavier NX", 59_700_000_000),
];

/// No GPU reads faster: 32 TB/s.
const SPEED_MAX: u64 = 32_000_000_000_000;

/// The maker's figure for a product. Mobile chips share names with faster ones and are not here.
pub(super) fn of_name(name: &str) -> Option<u64> {
    let mobile = name.contains("Laptop") || name.contains("Mobile") || name.contains("Max-Q");
    if mobile {
        return None;
    }
    BY_NAME.iter().find(|(part, _)| name.contains(part)).map(|(_, speed)| *speed)
}

/// What memory at `clock` MHz on a bus of `width` bits gives: two transfers per clock, as NVML
/// counts clocks for every kind of memory.
pub(super) fn computed(clock: u32, width: u32) -> Option<u64> {
    let bytes = u64::from(clock).checked_mul(1_000_000 * 2)?.checked_mul(u64::from(width / 8))?;
    (1..=SPEED_MAX).contains(&bytes).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_and_width_give_what_the_makers_say() {
        let cases = [
            ("NVIDIA GeForce RTX 4090", 10_501, 384),
            ("NVIDIA GeForce RTX 3090", 9_751, 384),
            ("NVIDIA H100 80GB HBM3", 2_619, 5_120),
            ("NVIDIA H200", 3_201, 6_144),
        ];
        for (name, clock, width) in cases {
            let (stated, computed) = (of_name(name).unwrap(), computed(clock, width).unwrap());
            let error = stated.abs_diff(computed) as f64 / stated as f64;
            assert!(error < 0.03, "{name}: {stated} stated, {computed} computed");
        }
        // Not in the table.
        assert_eq!(of_name("NVIDIA GeForce RTX 3060"), None);
        assert_eq!(computed(7_501, 192), Some(360_048_000_000));
    }

    #[test]
    fn nonsense_is_no_speed() {
        assert_eq!(computed(0, 384), None);
        assert_eq!(computed(10_501, 7), None);
        assert_eq!(computed(u32::MAX, u32::MAX), None);
        assert_eq!(of_name("NVIDIA GeForce RTX 4090 Laptop GPU"), None);
        assert_eq!(of_name(""), None);
    }
}
