use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::*;
use crate::arch::pool::Pool;

fn panics<R>(action: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(action)).is_err()
}

#[test]
fn a_new_matrix_is_zeros() {
    let matrix = Shared::<f32>::new(3, 4);
    assert_eq!((matrix.rows(), matrix.columns()), (3, 4));
    assert_eq!(*matrix.read(), [0.0; 12]);
    assert!(Shared::<u8>::new(0, 7).read().is_empty());
    assert!(panics(|| Shared::<f32>::new(usize::MAX, 2)));
}

#[test]
fn what_is_written_is_read() {
    let matrix = Shared::<i16>::new(3, 4);
    let mut block = matrix.write(1..3, 1..3);
    block.row_mut(1).copy_from_slice(&[1, 2]);
    block.row_mut(2).copy_from_slice(&[3, 4]);
    assert_eq!(block.row(1), [1, 2]);
    drop(block);
    assert_eq!(*matrix.read(), [0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 4, 0]);
    assert_eq!(matrix.read_block(0..3, 2..4).row(2), [4, 0]);
}

#[test]
fn overlapping_writes_panic() {
    let matrix = Shared::<f32>::new(4, 8);
    let held = matrix.write(1..3, 2..6);
    assert!(panics(|| matrix.write(2..4, 5..8)));
    assert!(panics(|| matrix.write(0..4, 0..8)));
    assert!(panics(|| matrix.write(1..3, 2..6)));
    drop(held);
    drop(matrix.write(2..4, 5..8));
}

#[test]
fn reading_what_is_written_panics() {
    let matrix = Shared::<f32>::new(4, 8);
    let held = matrix.write(1..3, 2..6);
    assert!(panics(|| matrix.read()));
    assert!(panics(|| matrix.read_block(2..3, 0..3)));
    assert_eq!(matrix.read_block(2..3, 0..2).row(2), [0.0; 2]);
    drop(held);
    let (first, second) = (matrix.read(), matrix.read());
    assert!(panics(|| matrix.write(0..1, 0..1)));
    drop(first);
    assert!(panics(|| matrix.write(0..1, 0..1)), "it is still read once");
    drop(second);
    drop(matrix.write(0..1, 0..1));
}

#[test]
fn a_refused_borrow_leaves_nothing_behind() {
    let matrix = Shared::<f32>::new(2, 2);
    let read = matrix.read();
    assert!(panics(|| matrix.write(0..1, 0..1)));
    drop(read);
    let written = matrix.write(0..1, 0..1);
    assert!(panics(|| matrix.read()));
    drop(written);
    drop(matrix.read());
    drop(matrix.write(0..2, 0..2));
}

/// A thread fills the matrix, another reads it whole: each is refused or alone.
#[test]
fn readers_and_writers_never_meet() {
    let matrix = Shared::<u32>::new(1, 64);
    let write = |value| {
        let mut block = matrix.write(0..1, 0..64);
        block.row_mut(0).fill(value);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| (0..2_000).filter(|&value| panics(|| write(value))).count());
        for _ in 0..2_000 {
            let read = catch_unwind(AssertUnwindSafe(|| {
                let all = matrix.read();
                all.iter().all(|value| *value == all[0])
            }));
            assert!(read.unwrap_or(true), "a matrix was read while it was written");
        }
    });
    write(7);
    assert_eq!(matrix.read()[63], 7);
}

#[test]
fn disjoint_and_empty_blocks_are_free() {
    let matrix = Shared::<u16>::new(4, 8);
    let _left = matrix.write(0..4, 0..3);
    let _right = matrix.write(0..2, 3..8);
    let _below = matrix.read_block(2..4, 3..8);
    let _nothing = matrix.write(1..1, 0..8);
    let _nothing = matrix.read_block(0..4, 2..2);
}

#[test]
fn a_block_is_within_the_matrix_and_a_row_within_the_block() {
    let matrix = Shared::<u8>::new(4, 8);
    assert!(panics(|| matrix.write(0..5, 0..1)));
    assert!(panics(|| matrix.read_block(0..1, 0..9)));
    #[expect(clippy::reversed_empty_ranges, reason = "what must be refused")]
    let reversed = 3..2;
    assert!(panics(|| matrix.write(reversed, 0..1)));
    let mut block = matrix.write(1..2, 0..8);
    assert!(panics(|| block.row(0).len()));
    assert!(panics(|| block.row_mut(2).len()));
}

#[test]
fn phases_write_parts_and_read_the_whole() {
    let (rows, columns, width) = (3, 64, 8);
    let matrix = Shared::<f32>::new(rows, columns);
    let sums = Shared::<f32>::new(1, 8);
    Pool::new(4).run(&[8, 8], &|chunk| {
        let at = chunk.index as usize;
        if chunk.phase == 0 {
            let mut part = matrix.write(0..rows, at * width..(at + 1) * width);
            for row in 0..rows {
                part.row_mut(row).fill((row + at) as f32);
            }
        } else {
            sums.write(0..1, at..at + 1).row_mut(0)[0] = matrix.read().iter().sum();
        }
    });
    // Each row's sum is 8 * (0 + .. + 7) more than the one above by 64.
    assert_eq!(*sums.read(), [(3 * 224 + 64 + 128) as f32; 8]);
}

proptest! {
    /// Against the plain definition: values in common.
    #[test]
    fn overlap_is_a_value_in_common(
        a in [0..5usize, 0..5, 0..5, 0..5], b in [0..5usize, 0..5, 0..5, 0..5]
    ) {
        let block = |[top, height, left, width]: [usize; 4]|
            (top..(top + height).min(5), left..(left + width).min(5));
        let (a, b) = (block(a), block(b));
        let common = a.0.clone().any(|row| b.0.contains(&row))
            && a.1.clone().any(|column| b.1.contains(&column));
        let matrix = Shared::<u8>::new(5, 5);
        let _held = matrix.write(a.0.clone(), a.1.clone());
        prop_assert_eq!(panics(|| matrix.write(b.0.clone(), b.1.clone())), common);
        prop_assert_eq!(panics(|| matrix.read_block(b.0, b.1)), common);
    }
}
