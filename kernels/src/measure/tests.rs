use super::*;

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

#[test]
fn every_byte_is_read() {
    for isa in available() {
        for length in [0, 1, 63, 64, 65, 255, 256, 1000] {
            let full = vec![0xff_u8; length];
            assert_eq!(isa.run(ReadAll { bytes: &full }), [0xff; VECTOR_BYTES], "{isa} {length}");
            for at in 0..length {
                let mut bytes = full.clone();
                bytes[at] = 0;
                let read = isa.run(ReadAll { bytes: &bytes });
                assert_eq!(read.iter().filter(|&&byte| byte == 0).count(), 1, "{isa} {at}");
            }
        }
    }
}

#[test]
fn every_product_is_computed() {
    // 64 lanes in bytes: 4096 rounds of four products of 3 and 1, in 16-bit or in 32-bit sums, make
    // 49152 or 24576 at a time; an even number of sums cancels out, an odd one leaves one of them.
    for isa in available() {
        assert_eq!(isa.run(Multiply::<2>), [0; VECTOR_BYTES], "{isa}");
        let one = isa.run(Multiply::<1>);
        let wide = u32::from_le_bytes([one[0], one[1], one[2], one[3]]);
        assert!([49152, 24576 | 24576 << 16].contains(&wide), "{isa} {wide}");
        // Both vectors of a pair are the same.
        let pair = isa.run(MultiplyPaired::<1>);
        assert!(pair.is_none_or(|pair| pair == [0; VECTOR_BYTES]), "{isa}");
    }
}

#[test]
fn rates_are_those_of_machines() {
    let memory = vec![1_u8; (8 << 20) + 77];
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        let bandwidth = read_bandwidth(Isa::best(), &pool, &memory);
        assert!((1e7..1e14).contains(&bandwidth), "{bandwidth}");
        let peak = integer_peak(Isa::best(), &pool);
        assert!((1e7..1e15).contains(&peak), "{peak}");
    }
}
