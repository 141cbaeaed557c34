//! Buffers that workers write in disjoint parts and read whole: a `RefCell` for threads, by rectangles.
//!
//! A phase of [a run](super::pool::Pool::run) writes what a later one reads, each chunk its own rows and
//! columns. That the parts are disjoint is a matter of arithmetic on indices, which the compiler does
//! not follow; so it is checked where a part is borrowed, as `RefCell` does, and a mistake is a panic and
//! not a data race. A borrow costs some tens of nanoseconds, once a chunk; one of the whole to read,
//! which every chunk does with its input, two additions to a counter.
#![expect(unsafe_code, reason = "parts of one buffer, lent to several threads")]

use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pool::Line;

#[cfg(test)]
mod tests;

/// A matrix, row-major, whose parts are borrowed at run time.
///
/// The workers see each other's writes because a borrow that follows another one's end
/// goes through the same lock, or reads the counter that the other's end has written.
///
/// Who borrows the whole adds to `readers` and then looks at `writers`; who borrows a part to write adds
/// to `writers` and then looks at `readers`. All four are `SeqCst`, so that one of the two sees the other.
pub struct Shared<T> {
    rows: usize,
    columns: usize,
    /// The `rows * columns` values, from a `Box<[T]>`.
    values: NonNull<T>,
    loans: Line<Mutex<Loans>>,
    /// Loans of the whole, to read.
    readers: Line<AtomicUsize>,
    /// Those of `loans` that write.
    writers: Line<AtomicUsize>,
    /// Values go in and come out: where `T` borrows something, for exactly as long as `T` says.
    invariant: PhantomData<fn(T) -> T>,
}

// SAFETY: `values` is what keeps it from being `Send`: it is owned, like a box, and `T` may be sent.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: values are reached only through guards. While a guard that writes lives, `Loans` and the
// counters admit no other that overlaps it, on any thread; guards that only read share values, for which
// `T: Sync`.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} x {})", self.rows, self.columns)
    }
}

impl<T: Copy + Default> Shared<T> {
    /// A matrix of zeros. Of a large one the operating system gives each page when it is first written.
    pub fn new(rows: usize, columns: usize) -> Shared<T> {
        let length = rows.checked_mul(columns).expect("a matrix fits in memory");
        let values = Box::into_raw(vec![T::default(); length].into_boxed_slice());
        let values = NonNull::new(values.cast::<T>()).expect("a box is not null");
        let (loans, readers, writers) = Default::default();
        Shared { rows, columns, values, loans, readers, writers, invariant: PhantomData }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let values = std::ptr::slice_from_raw_parts_mut(self.values.as_ptr(), self.length());
        // SAFETY: `new` took it from a box of this length, and no guard outlives `self`.
        drop(unsafe { Box::from_raw(values) });
    }
}

impl<T> Shared<T> {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    fn length(&self) -> usize {
        self.rows * self.columns
    }

    /// Borrows everything, to read.
    ///
    /// # Panics
    /// Where a part is being written.
    #[track_caller]
    pub fn read(&self) -> Read<'_, T> {
        let read = Read { shared: self };
        if self.length() == 0 {
            return read;
        }
        self.readers.0.fetch_add(1, Ordering::SeqCst);
        assert!(
            self.writers.0.load(Ordering::SeqCst) == 0,
            "{self:?} is read while a part is written"
        );
        read
    }

    /// Borrows a rectangle, to read.
    ///
    /// # Panics
    /// Where a part of it is being written, or it is not within the matrix.
    #[track_caller]
    pub fn read_block(&self, rows: Range<usize>, columns: Range<usize>) -> ReadBlock<'_, T> {
        let block = self.block(rows, columns);
        let free = block.is_empty() || self.loans().read(&block);
        assert!(free, "{block:?} of {self:?} is read while a part is written");
        ReadBlock { shared: self, block }
    }

    /// Borrows a rectangle, to write.
    ///
    /// # Panics
    /// Where a part of it is being read or written, or it is not within the matrix.
    #[track_caller]
    pub fn write(&self, rows: Range<usize>, columns: Range<usize>) -> Write<'_, T> {
        let block = self.block(rows, columns);
        if block.is_empty() {
            return Write { shared: self, block };
        }
        let free = self.loans().write(&block);
        assert!(free, "{block:?} of {self:?} is written while a part is read or written");
        self.writers.0.fetch_add(1, Ordering::SeqCst);
        let write = Write { shared: self, block };
        let readers = self.readers.0.load(Ordering::SeqCst);
        assert!(readers == 0, "{:?} of {self:?} is written while all is read", write.block);
        write
    }

    #[track_caller]
    fn block(&self, rows: Range<usize>, columns: Range<usize>) -> Block {
        let inside = rows.start <= rows.end && rows.end <= self.rows;
        let inside = inside && columns.start <= columns.end && columns.end <= self.columns;
        assert!(inside, "rows {rows:?}, columns {columns:?} are not within {self:?}");
        Block { rows, columns }
    }

    fn loans(&self) -> MutexGuard<'_, Loans> {
        // No code that panics runs under the lock.
        self.loans.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the block's part of row `row` begins.
    #[track_caller]
    fn start(&self, block: &Block, row: usize) -> NonNull<T> {
        assert!(block.rows.contains(&row), "row {row} is not one of {block:?}");
        // SAFETY: the row is within the block, and that within the matrix, whose values are one
        // allocation: the start is within it, or at its end where the block has no columns.
        unsafe { self.values.add(row * self.columns + block.columns.start) }
    }
}

/// A rectangle of a matrix.
#[derive(Clone, PartialEq, Eq)]
struct Block {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rows {:?}, columns {:?}", self.rows, self.columns)
    }
}

impl Block {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() || self.columns.is_empty()
    }

    /// Whether they have a value in common. Neither is empty.
    fn overlaps(&self, other: &Block) -> bool {
        self.rows.start < other.rows.end
            && other.rows.start < self.rows.end
            && self.columns.start < other.columns.end
            && other.columns.start < self.columns.end
    }
}

/// What is borrowed: a few blocks a thread, none of them empty.
#[derive(Default)]
struct Loans {
    reads: Vec<Block>,
    writes: Vec<Block>,
}

impl Loans {
    fn read(&mut self, block: &Block) -> bool {
        let free = !self.writes.iter().any(|other| other.overlaps(block));
        if free {
            self.reads.push(block.clone());
        }
        free
    }

    fn write(&mut self, block: &Block) -> bool {
        let mut others = self.writes.iter().chain(&self.reads);
        let free = !others.any(|other| other.overlaps(block));
        if free {
            self.writes.push(block.clone());
        }
        free
    }

    /// Ends one loan of `block`; which of several equal ones makes no difference.
    fn end(loans: &mut Vec<Block>, block: &Block) {
        if let Some(at) = loans.iter().rposition(|other| other == block) {
            loans.swap_remove(at);
        }
    }
}

/// The whole matrix, row after row, to read.
#[derive(Debug)]
pub struct Read<'a, T> {
    shared: &'a Shared<T>,
}

impl<T> Deref for Read<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let shared = self.shared;
        // SAFETY: these are all values of the matrix, and while `self` lives nobody writes any.
        unsafe { std::slice::from_raw_parts(shared.values.as_ptr(), shared.length()) }
    }
}

impl<T> Drop for Read<'_, T> {
    fn drop(&mut self) {
        if self.shared.length() > 0 {
            self.shared.readers.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// A rectangle, to read.
#[derive(Debug)]
pub struct ReadBlock<'a, T> {
    shared: &'a Shared<T>,
    block: Block,
}

impl<T> ReadBlock<'_, T> {
    /// The rectangle's part of row `row` of the matrix.
    ///
    /// # Panics
    /// Where that is not one of the rectangle's rows.
    #[track_caller]
    pub fn row(&self, row: usize) -> &[T] {
        let start = self.shared.start(&self.block, row);
        // SAFETY: within the block, of which nobody writes a part while `self` lives.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.block.columns.len()) }
    }
}

impl<T> Drop for ReadBlock<'_, T> {
    fn drop(&mut self) {
        if !self.block.is_empty() {
            Loans::end(&mut self.shared.loans().reads, &self.block);
        }
    }
}

/// A rectangle, to write. It is invariant in `T`, as [`Shared`] is.
#[derive(Debug)]
pub struct Write<'a, T> {
    shared: &'a Shared<T>,
    block: Block,
}

impl<T> Write<'_, T> {
    /// The rectangle's part of row `row` of the matrix.
    ///
    /// # Panics
    /// Where that is not one of the rectangle's rows.
    #[track_caller]
    pub fn row(&self, row: usize) -> &[T] {
        let start = self.shared.start(&self.block, row);
        // SAFETY: within the block, which nobody else reads or writes while `self` lives; what `self`
        // lends to be written borrows it mutably.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.block.columns.len()) }
    }

    /// The rectangle's part of row `row` of the matrix, to write.
    ///
    /// # Panics
    /// Where that is not one of the rectangle's rows.
    #[track_caller]
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        let start = self.shared.start(&self.block, row);
        // SAFETY: as in `row`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.block.columns.len()) }
    }
}

impl<T> Drop for Write<'_, T> {
    fn drop(&mut self) {
        if !self.block.is_empty() {
            self.shared.writers.0.fetch_sub(1, Ordering::SeqCst);
            Loans::end(&mut self.shared.loans().writes, &self.block);
        }
    }
}
