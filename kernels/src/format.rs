//! The tensor formats of GGUF files: ids, names, and how many bytes hold how many elements.
//!
//! A quantized tensor is a sequence of blocks. A block holds a fixed number of elements in a fixed
//! number of bytes: the small integers themselves, and the scales that turn them back into numbers.
//! Formats whose name ends in `_K` have super-blocks of [`QK_K`] elements with sub-scales inside.

use std::fmt;

/// Elements of a block of the simple formats (`Q4_0` .. `Q8_1`, `IQ4_NL`, `MXFP4`).
pub const QK: usize = 32;
/// Elements of a super-block of the `_K` formats and most `IQ` formats.
pub const QK_K: usize = 256;

/// Bytes of one IEEE half-precision scale.
const HALF: usize = 2;

/// Declares [`Format`] and its facts from one table: `Name = id, "text", elements, bytes`.
macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $text:literal, $elements:expr, $bytes:expr;)*) => {
        /// How the elements of a tensor are stored. The discriminant is ggml's type id.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, reason = "the names are those of the published formats")]
        #[repr(u32)]
        pub enum Format { $($(#[$doc])* $name = $id,)* }

        impl Format {
            /// Every format of the table, in the order of the ids.
            pub const ALL: &'static [Format] = &[$(Format::$name,)*];

            /// The format with ggml's type id `id`; none for an id this table does not hold.
            pub const fn from_ggml(id: u32) -> Option<Format> {
                match id { $($id => Some(Format::$name),)* _ => None }
            }

            /// The name used in file names and by other tools, such as `Q4_K`.
            pub const fn name(self) -> &'static str {
                match self { $(Format::$name => $text,)* }
            }

            /// Elements that one block holds; 1 for the formats that are not quantized.
            pub const fn elements_per_block(self) -> usize {
                match self { $(Format::$name => $elements,)* }
            }

            /// Bytes of one block.
            pub const fn bytes_per_block(self) -> usize {
                match self { $(Format::$name => $bytes,)* }
            }
        }
    };
}

formats! {
    /// IEEE single precision.
    F32 = 0, "F32", 1, 4;
    /// IEEE half precision.
    F16 = 1, "F16", 1, 2;
    /// 4-bit, one scale.
    Q4_0 = 2, "Q4_0", QK, HALF + QK / 2;
    /// 4-bit, scale and minimum.
    Q4_1 = 3, "Q4_1", QK, 2 * HALF + QK / 2;
    /// 5-bit, one scale.
    Q5_0 = 6, "Q5_0", QK, HALF + 4 + QK / 2;
    /// 5-bit, scale and minimum.
    Q5_1 = 7, "Q5_1", QK, 2 * HALF + 4 + QK / 2;
    /// 8-bit, one scale.
    Q8_0 = 8, "Q8_0", QK, HALF + QK;
    /// 8-bit with the sum of the block; an intermediate of dot products.
    Q8_1 = 9, "Q8_1", QK, 2 * HALF + QK;
    /// 2-bit super-blocks, 4-bit scales and minimums.
    Q2_K = 10, "Q2_K", QK_K, 2 * HALF + QK_K / 16 + QK_K / 4;
    /// 3-bit super-blocks, 6-bit scales.
    Q3_K = 11, "Q3_K", QK_K, HALF + QK_K / 8 + QK_K / 4 + 12;
    /// 4-bit super-blocks, 6-bit scales and minimums.
    Q4_K = 12, "Q4_K", QK_K, 2 * HALF + 12 + QK_K / 2;
    /// 5-bit super-blocks, 6-bit scales and minimums.
    Q5_K = 13, "Q5_K", QK_K, 2 * HALF + 12 + QK_K / 8 + QK_K / 2;
    /// 6-bit super-blocks, 8-bit scales.
    Q6_K = 14, "Q6_K", QK_K, HALF + QK_K / 16 + QK_K / 4 + QK_K / 2;
    /// 8-bit super-blocks with partial sums; an intermediate of dot products.
    Q8_K = 15, "Q8_K", QK_K, 4 + QK_K + QK_K / 16 * 2;
    /// 2.06 bits a weight, from a codebook.
    IQ2_XXS = 16, "IQ2_XXS", QK_K, HALF + QK_K / 8 * 2;
    /// 2.31 bits a weight, from a codebook.
    IQ2_XS = 17, "IQ2_XS", QK_K, HALF + QK_K / 8 * 2 + QK_K / 32;
    /// 3.06 bits a weight, from a codebook.
    IQ3_XXS = 18, "IQ3_XXS", QK_K, HALF + 3 * (QK_K / 8);
    /// 1.56 bits a weight, from a codebook.
    IQ1_S = 19, "IQ1_S", QK_K, HALF + QK_K / 8 + QK_K / 16;
    /// 4-bit with uneven steps.
    IQ4_NL = 20, "IQ4_NL", QK, HALF + QK / 2;
    /// 3.44 bits a weight, from a codebook.
    IQ3_S = 21, "IQ3_S", QK_K, HALF + 13 * (QK_K / 32) + QK_K / 64;
    /// 2.56 bits a weight, from a codebook.
    IQ2_S = 22, "IQ2_S", QK_K, HALF + QK_K / 4 + QK_K / 16;
    /// 4-bit super-blocks with uneven steps.
    IQ4_XS = 23, "IQ4_XS", QK_K, HALF + 2 + QK_K / 64 + QK_K / 2;
    /// Plain 8-bit integers.
    I8 = 24, "I8", 1, 1;
    /// Plain 16-bit integers.
    I16 = 25, "I16", 1, 2;
    /// Plain 32-bit integers.
    I32 = 26, "I32", 1, 4;
    /// Plain 64-bit integers.
    I64 = 27, "I64", 1, 8;
    /// IEEE double precision.
    F64 = 28, "F64", 1, 8;
    /// 1.75 bits a weight, from a codebook.
    IQ1_M = 29, "IQ1_M", QK_K, QK_K / 8 + QK_K / 16 + QK_K / 32;
    /// The upper half of an IEEE single.
    BF16 = 30, "BF16", 1, 2;
    /// Ternary, five to a byte.
    TQ1_0 = 34, "TQ1_0", QK_K, HALF + QK_K / 64 + (QK_K - 4 * QK_K / 64) / 5;
    /// Ternary, four to a byte.
    TQ2_0 = 35, "TQ2_0", QK_K, HALF + QK_K / 4;
    /// 4-bit floats with a shared exponent (OCP microscaling).
    MXFP4 = 39, "MXFP4", QK, 1 + QK / 2;
    /// 4-bit floats with an 8-bit float scale for every 16.
    NVFP4 = 40, "NVFP4", 64, 64 / 16 + 64 / 2;
}

// The sizes are facts of files in the world: a slip in the expressions above must not compile.
const _: () = {
    assert!(Format::Q4_0.bytes_per_block() == 18);
    assert!(Format::Q4_1.bytes_per_block() == 20);
    assert!(Format::Q5_0.bytes_per_block() == 22);
    assert!(Format::Q5_1.bytes_per_block() == 24);
    assert!(Format::Q8_0.bytes_per_block() == 34);
    assert!(Format::Q8_1.bytes_per_block() == 36);
    assert!(Format::Q2_K.bytes_per_block() == 84);
    assert!(Format::Q3_K.bytes_per_block() == 110);
    assert!(Format::Q4_K.bytes_per_block() == 144);
    assert!(Format::Q5_K.bytes_per_block() == 176);
    assert!(Format::Q6_K.bytes_per_block() == 210);
    assert!(Format::Q8_K.bytes_per_block() == 292);
    assert!(Format::IQ2_XXS.bytes_per_block() == 66);
    assert!(Format::IQ2_XS.bytes_per_block() == 74);
    assert!(Format::IQ2_S.bytes_per_block() == 82);
    assert!(Format::IQ3_XXS.bytes_per_block() == 98);
    assert!(Format::IQ3_S.bytes_per_block() == 110);
    assert!(Format::IQ1_S.bytes_per_block() == 50);
    assert!(Format::IQ1_M.bytes_per_block() == 56);
    assert!(Format::IQ4_NL.bytes_per_block() == 18);
    assert!(Format::IQ4_XS.bytes_per_block() == 136);
    assert!(Format::TQ1_0.bytes_per_block() == 54);
    assert!(Format::TQ2_0.bytes_per_block() == 66);
    assert!(Format::MXFP4.bytes_per_block() == 17);
    assert!(Format::NVFP4.bytes_per_block() == 36);
};

impl Format {
    /// ggml's type id, as written in a file.
    pub const fn ggml_id(self) -> u32 {
        self as u32
    }

    /// Bytes that hold `elements` elements; none when they are no whole number of blocks or the
    /// product is over 2^64.
    pub const fn bytes(self, elements: u64) -> Option<u64> {
        let per_block = self.elements_per_block() as u64;
        if !elements.is_multiple_of(per_block) {
            return None;
        }
        (elements / per_block).checked_mul(self.bytes_per_block() as u64)
    }

    /// Whether the elements are small integers with scales, not plain numbers.
    pub const fn is_quantized(self) -> bool {
        self.elements_per_block() > 1
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_id() {
        for &format in Format::ALL {
            assert_eq!(Format::from_ggml(format.ggml_id()), Some(format), "{format}");
        }
    }

    #[test]
    fn ids_outside_the_table_are_unknown() {
        for id in [4, 5, 31, 33, 36, 38, 1000, u32::MAX] {
            assert_eq!(Format::from_ggml(id), None, "id {id}");
        }
    }

    #[test]
    fn only_whole_blocks_have_a_size() {
        assert_eq!(Format::Q4_K.bytes(512), Some(288));
        assert_eq!(Format::Q4_K.bytes(511), None);
        assert_eq!(Format::F32.bytes(3), Some(12));
        assert_eq!(Format::F64.bytes(u64::MAX), None);
        assert_eq!(Format::Q8_0.bytes(0), Some(0));
    }
}
