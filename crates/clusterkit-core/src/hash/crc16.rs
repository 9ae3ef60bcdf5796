//! CRC16 with the polynomial of XMODEM (0x1021, from zero, not reflected), eight bytes a step.

const POLYNOMIAL: u16 = 0x1021;
const STEP_BYTES: usize = 8;

/// `TABLES[k][b]` is the checksum of byte `b` with `k` zero bytes behind it, so that the checksums
/// of eight neighbouring bytes are looked up independently of each other and joined by XOR.
static TABLES: [[u16; 256]; STEP_BYTES] = tables();

/// The checksum of `bytes`.
pub(super) fn crc16(bytes: &[u8]) -> u16 {
    let (steps, rest) = bytes.as_chunks::<STEP_BYTES>();
    rest.iter().fold(steps.iter().fold(0, after_step), |crc, &byte| after_byte(crc, byte))
}

fn after_step(crc: u16, step: &[u8; STEP_BYTES]) -> u16 {
    let [high, low] = crc.to_be_bytes();
    let [b0, b1, b2, b3, b4, b5, b6, b7] = *step;
    let bytes = [b0 ^ high, b1 ^ low, b2, b3, b4, b5, b6, b7];
    bytes.iter().zip(TABLES.iter().rev()).fold(0, |sum, (&byte, table)| sum ^ table[byte as usize])
}

const fn after_byte(crc: u16, byte: u8) -> u16 {
    let [high, low] = crc.to_be_bytes();
    u16::from_be_bytes([low, 0]) ^ TABLES[0][(high ^ byte) as usize]
}

const fn tables() -> [[u16; 256]; STEP_BYTES] {
    let mut tables = [[0; 256]; STEP_BYTES];
    let mut byte = 0;
    while byte < 256 {
        tables[0][byte] = bitwise(byte as u8);
        let mut zeros = 1;
        while zeros < STEP_BYTES {
            let [high, low] = tables[zeros - 1][byte].to_be_bytes();
            tables[zeros][byte] = u16::from_be_bytes([low, 0]) ^ bitwise(high);
            zeros += 1;
        }
        byte += 1;
    }
    tables
}

const fn bitwise(byte: u8) -> u16 {
    let mut crc = (byte as u16) << 8;
    let mut bit = 0;
    while bit < 8 {
        let carry = crc & 0x8000 != 0;
        crc <<= 1;
        if carry {
            crc ^= POLYNOMIAL;
        }
        bit += 1;
    }
    crc
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// One bit at a time, as the standard writes it down.
    fn naive(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0, |crc, &byte| {
            (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL }
            })
        })
    }

    #[test]
    fn crc16_gives_the_check_value_of_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
    }

    proptest! {
        #[test]
        fn crc16_equals_its_bitwise_twin(bytes: Vec<u8>) {
            prop_assert_eq!(crc16(&bytes), naive(&bytes));
        }
    }
}
