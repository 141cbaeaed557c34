//! Which blocks of the cache belong to which sequence.

use crate::executor::{Batch, ExecutorError, SequenceId};
use dsk_kernels::kv::BLOCK_TOKENS;

/// The block tables of all sequences. A block holds [`BLOCK_TOKENS`] tokens.
#[derive(Debug)]
pub(super) struct Sequences {
    /// Blocks that no sequence has.
    free: Vec<u32>,
    tables: Vec<Table>,
    context: usize,
}

#[derive(Clone, Debug, Default)]
struct Table {
    blocks: Vec<u32>,
    /// Tokens that the sequence holds.
    held: usize,
}

impl Sequences {
    /// `count` empty sequences of at most `context` tokens, over `blocks` blocks: enough for all.
    pub(super) fn new(count: usize, context: usize, blocks: usize) -> Sequences {
        // The lowest blocks are given out first, so that a short conversation touches little memory.
        let free = (0..blocks as u32).rev().collect();
        Sequences { free, tables: vec![Table::default(); count], context }
    }

    pub(super) fn count(&self) -> usize {
        self.tables.len()
    }

    /// The blocks of a sequence, in order.
    pub(super) fn blocks(&self, sequence: SequenceId) -> &[u32] {
        &self.tables[sequence.0 as usize].blocks
    }

    /// Forgets a sequence.
    pub(super) fn release(&mut self, sequence: SequenceId) {
        if let Some(table) = self.tables.get_mut(sequence.0 as usize) {
            self.free.extend(table.blocks.drain(..).rev());
            table.held = 0;
        }
    }

    /// Checks what a batch says of its sequences, and makes room for its tokens. They are held from
    /// [`Sequences::commit`] on.
    pub(super) fn extend(&mut self, batch: &Batch) -> Result<(), ExecutorError> {
        self.check(batch)?;
        for slice in &batch.sequences {
            let first = batch.positions[slice.rows.start] as usize;
            if first == 0 {
                self.release(slice.sequence);
            }
            let table = &mut self.tables[slice.sequence.0 as usize];
            while table.blocks.len() * BLOCK_TOKENS < first + slice.rows.len() {
                let block = self.free.pop().ok_or_else(|| refuse("the cache is full"))?;
                table.blocks.push(block);
            }
        }
        Ok(())
    }

    /// The batch was computed.
    pub(super) fn commit(&mut self, batch: &Batch) {
        for slice in &batch.sequences {
            let first = batch.positions[slice.rows.start] as usize;
            self.tables[slice.sequence.0 as usize].held = first + slice.rows.len();
        }
    }

    fn check(&self, batch: &Batch) -> Result<(), ExecutorError> {
        let mut next_row = 0;
        for (index, slice) in batch.sequences.iter().enumerate() {
            let rows = &slice.rows;
            if rows.is_empty() || rows.start != next_row || rows.end > batch.tokens.len() {
                return Err(refuse("the rows of its sequences do not follow one another"));
            }
            next_row = rows.end;
            let Some(table) = self.tables.get(slice.sequence.0 as usize) else {
                return Err(refuse("it names a sequence that is not there"));
            };
            let earlier = &batch.sequences[..index];
            if earlier.iter().any(|other| other.sequence == slice.sequence) {
                return Err(refuse("it names a sequence twice"));
            }
            let positions = batch.positions.get(rows.clone()).unwrap_or_default();
            let first = positions.first().map_or(0, |&first| first as usize);
            if !positions.iter().map(|&at| at as usize).eq(first..first + rows.len()) {
                return Err(refuse("its positions do not follow one another"));
            }
            if first != 0 && first != table.held {
                return Err(refuse("it does not continue its sequence"));
            }
            let end = first + rows.len();
            if end > self.context {
                let (position, context) = (end as u64 - 1, self.context);
                return Err(ExecutorError::Context { position, context });
            }
        }
        match next_row == batch.tokens.len() && batch.positions.len() == next_row {
            true => Ok(()),
            false => Err(refuse("it has tokens that belong to no sequence")),
        }
    }
}

fn refuse(text: &str) -> ExecutorError {
    ExecutorError::Batch(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(parts: &[(u32, usize, usize)]) -> Batch {
        let mut batch = Batch::default();
        for &(sequence, position, count) in parts {
            batch.push(SequenceId(sequence), position, &vec![1; count], true);
        }
        batch
    }

    fn done(sequences: &mut Sequences, parts: &[(u32, usize, usize)]) {
        let batch = batch(parts);
        sequences.extend(&batch).unwrap();
        sequences.commit(&batch);
    }

    #[test]
    fn a_batch_that_failed_can_be_repeated() {
        let mut sequences = Sequences::new(1, 96, 3);
        done(&mut sequences, &[(0, 0, 30)]);
        let next = batch(&[(0, 30, 10)]);
        sequences.extend(&next).unwrap();
        let skipped = sequences.extend(&batch(&[(0, 40, 1)])).unwrap_err().to_string();
        assert!(skipped.contains("does not continue its sequence"), "{skipped}");
        sequences.extend(&next).unwrap();
        sequences.commit(&next);
        done(&mut sequences, &[(0, 40, 56)]);
        assert_eq!(sequences.blocks(SequenceId(0)), [0, 1, 2]);
    }

    #[test]
    fn blocks_go_to_sequences_and_come_back() {
        let mut sequences = Sequences::new(2, 96, 6);
        done(&mut sequences, &[(0, 0, 33), (1, 0, 1)]);
        assert_eq!(sequences.blocks(SequenceId(0)), [0, 1]);
        assert_eq!(sequences.blocks(SequenceId(1)), [2]);
        done(&mut sequences, &[(1, 1, 32), (0, 33, 31)]);
        assert_eq!(sequences.blocks(SequenceId(1)), [2, 3]);
        assert_eq!(sequences.blocks(SequenceId(0)), [0, 1]);
        // Anew: the old blocks are used again.
        done(&mut sequences, &[(0, 0, 96)]);
        assert_eq!(sequences.blocks(SequenceId(0)), [0, 1, 4]);
        sequences.release(SequenceId(0));
        sequences.release(SequenceId(1));
        done(&mut sequences, &[(0, 0, 96), (1, 0, 96)]);
        let mut all = [sequences.blocks(SequenceId(0)), sequences.blocks(SequenceId(1))].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn batches_that_make_no_sense_are_refused_and_change_nothing() {
        let mut sequences = Sequences::new(2, 64, 4);
        done(&mut sequences, &[(0, 0, 10)]);
        let mut gap = batch(&[(0, 10, 2), (1, 0, 2)]);
        gap.positions[1] = 12;
        let mut uncovered = batch(&[(1, 0, 2)]);
        uncovered.tokens.push(1);
        let cases = [
            (batch(&[(2, 0, 1)]), "a sequence that is not there"),
            (batch(&[(1, 0, 1), (1, 1, 1)]), "a sequence twice"),
            (batch(&[(0, 9, 1)]), "does not continue its sequence"),
            (batch(&[(1, 3, 1)]), "does not continue its sequence"),
            (gap, "positions do not follow one another"),
            (uncovered, "belong to no sequence"),
            (batch(&[(0, 10, 55)]), "position 64 is past the context of 64 tokens"),
        ];
        for (batch, expected) in cases {
            let error = sequences.extend(&batch).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} should contain {expected:?}");
        }
        done(&mut sequences, &[(0, 10, 54)]);
    }
}
