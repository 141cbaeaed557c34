use super::*;
use crate::matmul::tests::{FORMATS, file_rows, pack, scales_at};

#[test]
fn rows_come_back_as_they_were() {
    for format in FORMATS {
        let (rows, columns) = (21, 2 * format.elements_per_block());
        let file = file_rows(format, rows, columns, 9);
        let packed = pack(format, rows, columns, &file);
        assert_eq!(packed.len(), file.len() / rows * 32, "{format}: nothing is expanded");
        let matrix = Matrix::new(format, rows, columns, &packed);
        for (row, bytes) in file.chunks_exact(file.len() / rows).enumerate() {
            let (mut out, mut expected) = (vec![0.0; columns], vec![0.0; columns]);
            matrix.row(row, &mut out);
            dequantize(format, bytes, &mut expected).expect("whole blocks");
            let bits = |numbers: &[f32]| -> Vec<u32> {
                numbers.iter().map(|number| number.to_bits()).collect()
            };
            assert_eq!(bits(&out), bits(&expected), "{format} row {row}");
        }
    }
}

#[test]
fn scales_that_are_no_numbers_are_refused_by_name() {
    for format in FORMATS {
        let columns = 3 * format.elements_per_block();
        let file = file_rows(format, 4, columns, 9);
        let block = format.bytes_per_block();
        let bad: Vec<(usize, &[u8])> = match format {
            Format::F32 => vec![(0, &[0, 0, 0x80, 0x7f]), (0, &[1, 0, 0xc0, 0xff])],
            Format::BF16 => vec![(0, &[0x80, 0x7f]), (0, &[0xff, 0xff])],
            Format::MXFP4 => vec![(0, &[0xff])],
            _ => scales_at(format).iter().map(|at| (*at, &[0x00, 0xfc][..])).collect(),
        };
        for (at, bytes) in bad {
            let mut file = file.clone();
            // Row 2, block 1.
            let start = (2 * 3 + 1) * block + at;
            file[start..start + bytes.len()].copy_from_slice(bytes);
            let mut out = vec![0; panel_bytes(format, columns)];
            let error = pack_panel(format, columns, &file, &mut out).expect_err("no number");
            assert_eq!(error, BadScale { format, row: 2, block: 1 });
            let expected =
                format!("{format} block 1 of row 2 holds a scale that is not a finite number");
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[test]
fn formats_without_kernels_and_odd_columns_have_no_size() {
    assert_eq!(packed_bytes(Format::IQ1_S, 16, 256), None);
    assert_eq!(packed_bytes(Format::Q4_K, 16, 255), None);
    assert_eq!(packed_bytes(Format::Q4_K, 17, 512), Some(32 * 288));
    assert_eq!(packed_bytes(Format::F32, 1, 3), Some(16 * 12));
    assert_eq!(packed_bytes(Format::Q8_0, usize::MAX, 1 << 40), None);
    assert!(can_pack(Format::MXFP4) && !can_pack(Format::I8));
}

#[test]
fn fifth_bits_become_planes() {
    for bit in 0..32 {
        let (group, within) = (bit / 4, bit % 4);
        assert_eq!(bits_to_planes(1 << bit), 1 << (8 * within + group));
        assert_eq!(planes_to_bits(bits_to_planes(1 << bit)), 1 << bit);
    }
}
