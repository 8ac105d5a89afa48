//! Whether a program runs where there is nothing else.

use anyhow::{Context, Result, bail};
use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, elf};

/// Fails if a program asks for a dynamic linker or a shared library, which an
/// image does not have.
pub fn ensure_static(bytes: &[u8]) -> Result<()> {
    let header =
        FileHeader64::<Endianness>::parse(bytes).context("reading the header of a program")?;
    let endian = header.endian().context("reading the header of a program")?;
    let segments = header
        .program_headers(endian, bytes)
        .context("reading the segments of a program")?;
    for segment in segments {
        if segment.p_type(endian) == PT_INTERP {
            bail!("the program asks for a dynamic linker; images hold none");
        }
        let entries = segment
            .dynamic(endian, bytes)
            .context("reading a program's dynamic section")?;
        let needs = entries
            .unwrap_or_default()
            .iter()
            .any(|entry| entry.tag(endian) == DT_NEEDED);
        if needs {
            bail!("the program asks for a shared library; images hold none");
        }
    }
    Ok(())
}

/// The machine that a program is for, as ELF numbers them.
pub fn machine(bytes: &[u8]) -> Result<u16> {
    let header =
        FileHeader64::<Endianness>::parse(bytes).context("reading the header of a program")?;
    let endian = header.endian().context("reading the header of a program")?;
    Ok(header.e_machine(endian).0)
}

/// x86-64.
pub const AMD64: u16 = elf::EM_X86_64.0;
/// AArch64.
pub const ARM64: u16 = elf::EM_AARCH64.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_not_static() {
        let itself = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = ensure_static(&itself).unwrap_err().to_string();
        assert!(error.contains("dynamic linker"), "{error}");
        assert!([AMD64, ARM64].contains(&machine(&itself).unwrap()));
    }

    #[test]
    fn text_is_no_program() {
        assert!(ensure_static(b"#!/bin/sh\n").is_err());
    }
}
